"""What a mutation is, and what is wrong with one that no longer fits the code."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule taken out of the code.

    Attributes:
        name: Short, unique.
        rule: What holds in the code as it is.
        file: Path from the root of the repository.
        before: A piece of the file that occurs once.
        after: What stands there in the mutated file.
        unit: Node ids of fast tests, of which one has to fail.
        e2e: Node ids of tests with real processes, of which one has to fail.
    """

    name: str
    rule: str
    file: str
    before: str
    after: str
    unit: tuple[str, ...]
    e2e: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Mutate the file below `root`."""
        path = root / self.file
        path.write_text(path.read_text().replace(self.before, self.after))


def faults(mutation: Mutation, root: Path) -> list[str]:
    """Why this mutation cannot be made or would prove nothing; empty when it is good."""
    path = root / mutation.file
    if not path.is_file():
        return [f"{mutation.file} does not exist"]
    text = path.read_text()
    found = []
    if (count := text.count(mutation.before)) != 1:
        found.append(f"`before` occurs {count} times in {mutation.file}, expected once")
    elif path.suffix == ".py":
        try:
            same = ast.dump(ast.parse(text)) == ast.dump(ast.parse(text.replace(mutation.before, mutation.after)))
        except SyntaxError as error:
            found.append(f"the mutated file is no Python: {error.msg}")
        else:
            if same:
                found.append("the mutation changes nothing")
    for kind, ids in (("unit", mutation.unit), ("e2e", mutation.e2e)):
        if not ids:
            found.append(f"no {kind} test is named")
        for node in ids:
            file, _, name = node.partition("::")
            function = name.rpartition("::")[2].partition("[")[0]
            if not (root / file).is_file() or (
                function and not re.search(rf"def {function}\(", (root / file).read_text())
            ):
                found.append(f"there is no test {node}")
    return found
