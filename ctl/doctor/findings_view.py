"""Shows findings: one line each with a coloured level, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.text import Text

from watchout.ctl.doctor.findings import Finding, Level, summary, worst

#: Styles of the levels.
STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.WRONG: "bold red"}


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings and their number by level, or all as one JSON object."""
    if as_json:
        body = {"status": worst(findings), "findings": [finding.body() for finding in findings]}
        click.echo(msgspec.json.encode(body))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max((len(finding.check) for finding in findings), default=0) + 1
    for finding in findings:
        line = Text(f"{finding.level:<8}", STYLES[finding.level])
        line.append(f"{finding.check:<{max(width, 9)}}", "default")
        line.append(finding.sentence, "default")
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    console.print(Text(summary(findings), STYLES[worst(findings)]))
