"""The page of the mutations, docs/mutations.md: a row each, with what the last run of that mutation gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.mutation.model import Mutation

CAUGHT: Final = "caught"
#: A mutated process hung, and no test of it ended.
HUNG: Final = "caught (hung)"
NOT_RUN: Final = "not run"
_BEFORE: Final = """\
# Rules that tests check

Each row is a mutation: one rule is removed from a copy of the code. Then a fast test and a test with real
processes must fail. If they still passed, nobody would notice that the rule is gone. "caught" means that
a test of that kind failed.

"""

#: What the fast test and the test with processes gave.
Result = tuple[str, str]


def is_caught(result: Result) -> bool:
    """Whether both kinds of tests failed, as they should."""
    return all(word in (CAUGHT, HUNG) for word in result)


def results_of(page: str) -> dict[str, Result]:
    """Return the results that a page has, by the name of the mutation."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if line[:2] == "| "]
    return {cells[0]: (cells[-2], cells[-1]) for cells in rows if len(cells) == 5 and cells[0] != "mutation"}


def render(mutations: Sequence[Mutation], results: Mapping[str, Result]) -> str:
    """Return the page with a row for each mutation; one without a result is `NOT_RUN`."""
    found = [(each, results.get(each.name, (NOT_RUN, NOT_RUN))) for each in mutations]
    lines = [
        "Written by `make mutants`, which takes about 25 minutes; `python -m tests.mutation --write NAME …` renews",
        "single rows.",
        "",
        f"{sum(is_caught(result) for _, result in found)} of {len(found)} caught by both kinds of tests.",
        "",
        "| mutation | the rule that was removed | in | fast test | test with processes |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {each.name} | {each.rule} | `{each.file}` | {unit} | {e2e} |" for each, (unit, e2e) in found]
    return _BEFORE + "\n".join(lines) + "\n"
