"""Run the mutations: `python -m tests.mutation [NAME…]`; with `--write` their rows in docs/mutations.md are renewed.

Each is made in a copy of the repository, which the processes of the tests import (PYTHONPATH). First the named tests
have to pass in the copy as it is. A mutation is caught when one of its unit tests and one of its e2e tests fail.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.mutation import page
from tests.mutation.model import faults
from tests.mutation.mutations import MUTATIONS

ROOT: Final = Path(__file__).parents[2]
RESULT: Final = ROOT / "docs/mutations.md"
#: pytest's exit codes.
PASSED: Final = 0
FAILED: Final = 1
#: A mutated process may hang; then its test has its own deadline, and this is the last one.
TIMEOUT_S: Final = 600.0


def copy(root: Path) -> None:
    """The repository as it is, with what was built in it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
    built = [str(path.relative_to(ROOT)) for path in ROOT.glob("*/*.so")]
    for name in (*done.stdout.splitlines(), *built):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "watchout").mkdir()  # the import paths
    for package in ("common", "ctl", "gateway", "identity", "mlbridge", "router"):
        (root / "watchout" / package).symlink_to(root / package)
    for modules in ROOT.glob("tests/**/node_modules"):
        if not (target := root / modules.relative_to(ROOT)).exists() and target.parent.is_dir():
            target.symlink_to(modules)


def run_tests(root: Path, ids: Iterable[str], *, stop: bool) -> int:
    """Run these tests in the copy; pytest's exit code, or -1 when they did not end."""
    shared = os.environ.get("WATCHOUT_FOOTAGE", str(ROOT / "../shared/data/people.mp4"))
    environ = {**os.environ, "PYTHONPATH": str(root), "WATCHOUT_FOOTAGE": shared}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *(["-x"] if stop else [])]
    try:
        done = subprocess.run(
            [*command, *ids], cwd=root, env=environ, check=False, timeout=TIMEOUT_S,
            stdout=subprocess.DEVNULL if stop else None, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


def word(code: int) -> str:
    """What an exit code says of a mutation."""
    return {FAILED: page.CAUGHT, PASSED: "NOT CAUGHT", -1: page.HUNG}.get(code, f"could not be run ({code})")


def main() -> int:
    """0 when every mutation was caught by both kinds of tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations to run; all without one")
    parser.add_argument("--write", action="store_true", help=f"write the results to {RESULT.relative_to(ROOT)}")
    arguments = parser.parse_args()
    chosen = [each for each in MUTATIONS if not arguments.names or each.name in arguments.names]
    wrong = [f"{each.name}: {fault}" for each in chosen for fault in faults(each, ROOT)]
    if unknown := set(arguments.names) - {each.name for each in MUTATIONS}:
        wrong.append(f"there is no mutation {', '.join(sorted(unknown))}")
    if wrong:
        print("\n".join(wrong))
        return 2
    with tempfile.TemporaryDirectory(prefix="wo-mutants-") as name:
        root = Path(name)
        copy(root)
        ids = dict.fromkeys(node for each in chosen for node in (*each.unit, *each.e2e))
        print(f"{len(chosen)} mutations; first their {len(ids)} tests in the code as it is", flush=True)
        if run_tests(root, ids, stop=False) != PASSED:
            print("the tests have to pass before a mutation can be caught by them")
            return 1
        results: dict[str, page.Result] = {}
        for mutation in chosen:
            original = (root / mutation.file).read_text()
            mutation.apply(root)
            unit, e2e = (word(run_tests(root, kind, stop=True)) for kind in (mutation.unit, mutation.e2e))
            (root / mutation.file).write_text(original)
            results[mutation.name] = unit, e2e
            print(f"{mutation.name}: fast test {unit}, with processes {e2e}", flush=True)
            if arguments.write:
                former = page.results_of(RESULT.read_text()) if RESULT.exists() else {}
                RESULT.write_text(page.render(MUTATIONS, former | results))
    return 0 if all(page.is_caught(result) for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
