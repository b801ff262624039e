"""The table of docs/monitoring.md: how what a rule watches was broken, and when its alert fired and ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tests.kit.processes import REPOSITORY
from tests.rules.breakage import Outcome

PAGE: Final = REPOSITORY / "docs/monitoring.md"
BEGIN: Final = "<!-- rehearsal: written by make test-rules -->"
END: Final = "<!-- end of rehearsal -->"


def with_outcomes(page: str, outcomes: Sequence[Outcome]) -> str:
    """The page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    rows = [
        f"| [{each.rule}](#{each.rule.lower()}) | {each.how} | {each.fired_s:.0f} s | {each.resolved_s:.0f} s |"
        for each in sorted(outcomes, key=lambda each: (each.rule, each.how))
    ]
    head = ["| alert | what was broken | fired after | ended after the mending |", "|---|---|---|---|"]
    return f"{before}{BEGIN}\n\n" + "\n".join([*head, *rows]) + f"\n\n{END}{after}"


def rehearsed(page: str) -> list[tuple[str, str]]:
    """Rule and breakage of each row of the table."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    return re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (.+) \| \d+ s \| \d+ s \|$", table, re.MULTILINE)
