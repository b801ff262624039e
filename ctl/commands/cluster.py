"""``watchout-ctl cluster``: hosts, slots, leases, links of the frame mesh and NATS servers, and what is missing."""

from __future__ import annotations

from typing import Final

import click
import msgspec
from rich.console import Console

from watchout.common.settings import Settings
from watchout.ctl.bus_client import nothing_runs
from watchout.ctl.cluster.missing import judged
from watchout.ctl.cluster.picture import draw
from watchout.ctl.cluster.survey import survey
from watchout.ctl.cluster.view import render
from watchout.ctl.environment import home_option, read_environment, run

DEFAULT_ROWS: Final = 20


@click.command("cluster", short_help="Show hosts, slots, links, NATS, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--rows", type=click.IntRange(1, 10_000), default=DEFAULT_ROWS, show_default=True, metavar="N",
              help="Most rows of each table.")  # fmt: skip
@home_option
def cluster(as_json: bool, rows: int, home: str | None) -> int:
    """Show the hosts with their processes, slots and leases, links of the frame mesh, NATS, and what is missing.

    It asks for two seconds and changes nothing. The exit code is 1 when something is missing.
    """
    settings = read_environment(home).settings
    codes: list[int] = []
    run(settings, _show(settings, codes, as_json=as_json, rows=rows))
    return codes[0]


async def _show(settings: Settings, codes: list[int], *, as_json: bool, rows: int) -> None:
    """Print the picture, and append the exit code to `codes`."""
    facts = await survey(settings)
    if not settings.bus and all(answer.reply is None and not answer.joined for answer in facts.answers.values()):
        raise nothing_runs(settings)
    picture = judged(draw(facts), facts)
    if as_json:
        click.echo(msgspec.json.encode(picture))
    else:
        console = Console(highlight=False)
        console.print(render(picture, width=console.width, rows=rows))
    codes.append(1 if picture.missing else 0)
