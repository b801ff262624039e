"""``watchout-ctl why``: says why something was not seen, from what every process remembers and measures."""

from __future__ import annotations

from typing import Final

import click
import msgspec
from rich.console import Console

from watchout.common.settings import Settings
from watchout.ctl.environment import home_option, read_environment, run
from watchout.ctl.why.explain import explain
from watchout.ctl.why.survey import survey
from watchout.ctl.why.view import render

DEFAULT_ROWS: Final = 30
#: Longest name that may be asked for, in characters, as on the bus.
MAX_ABOUT_CHARS: Final = 1024


@click.command("why", short_help="Say why a stream, viewer, user or alert was not seen.")
@click.argument("about", metavar="STREAM|VIEWER|USER|ALERT")
@click.option("--json", "as_json", is_flag=True, help="Print the sentences with their causes and figures as JSON.")
@click.option("--rows", type=click.IntRange(1, 10_000), default=DEFAULT_ROWS, show_default=True, metavar="N",
              help="Most sentences of each part.")  # fmt: skip
@home_option
def why(about: str, as_json: bool, rows: int, home: str | None) -> int:
    """Say why frames or alerts of a stream, to a viewer or of a user, did not arrive, and what became of an alert.

    VIEWER is the id of a connection, as the access log has it, or a client's address. Viewers and cameras are measured
    for two seconds. The processes remember the last hour (WHY_MINUTES), and nothing beyond their end. The exit code is
    1 when nobody knows the name.
    """
    name = about.strip()
    if not name or len(name) > MAX_ABOUT_CHARS:
        raise click.UsageError(f"the name has {len(name)} characters, expected 1 to {MAX_ABOUT_CHARS}")
    settings = read_environment(home).settings
    codes: list[int] = []
    run(settings, _say(settings, name, codes, as_json=as_json, rows=rows))
    return codes[0]


async def _say(settings: Settings, about: str, codes: list[int], *, as_json: bool, rows: int) -> None:
    """Print the explanation, and append the exit code to `codes`."""
    explanation = explain(await survey(settings, about))
    if as_json:
        click.echo(msgspec.json.encode(explanation))
    else:
        console = Console(highlight=False)
        for line in render(explanation, rows=rows):
            console.print(line, soft_wrap=True)
    codes.append(0 if explanation.found else 1)
