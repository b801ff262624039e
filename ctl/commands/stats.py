"""``watchout-ctl stats``: shows the router, the processes and the streams with their metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Final

import click
import msgspec
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from watchout.common.bus.reply_records import StatsReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.metrics import with_former_names
from watchout.common.settings import Settings
from watchout.ctl.bus_client import UNEXPECTED_REPLY, joined, whole_stats
from watchout.ctl.environment import Failure, home_option, read_environment, run
from watchout.ctl.stats_view import MAX_PROCESSES, render, to_compare
from watchout.ctl.terminal import printable

DEFAULT_ROWS: Final = 20
DEFAULT_EVERY_S: Final = 2.0


@click.command("stats")
@click.option("--json", "as_json", is_flag=True, help="Print the router's reply as JSON.")
@click.option("--watch", "every_s", type=click.FloatRange(0.25, 3600), is_flag=False, flag_value=DEFAULT_EVERY_S,
              metavar="[SECONDS]", help="Refresh in place, every 2 s without a number.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1, 10_000), default=DEFAULT_ROWS, show_default=True, metavar="N",
              help="Most streams to show.")  # fmt: skip
@home_option
def stats(as_json: bool, every_s: float | None, rows: int, home: str | None) -> None:
    """Show the router, the processes and the streams.

    Metrics are totals since each process started; with --watch they are per second.
    """
    settings = read_environment(home).settings
    run(settings, _show(settings, as_json=as_json, every_s=every_s, rows=rows))


async def _show(settings: Settings, *, as_json: bool, every_s: float | None, rows: int) -> None:
    console = Console(highlight=False)
    async with joined(settings) as links:
        if every_s is None:
            body = await _ask(links)
            if as_json:
                click.echo(_json(body))
            else:
                console.print(render(body, width=console.width, rows=rows, own_id=links.own_id))
        elif as_json:
            while True:
                click.echo(_json(await _ask(links)))
                await asyncio.sleep(every_s)
        else:
            await _watch(links, console, every_s, rows)


async def _watch(links: RouterLinks, console: Console, every_s: float, rows: int) -> None:
    last: StatsReply | None = None
    before: StatsReply | None = None
    with contextlib.ExitStack() as stack:
        show: Callable[[RenderableType], None] = console.print
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
            show = functools.partial(live.update, refresh=True)
        while True:
            try:
                body = await _ask(links)
            except Failure as failure:
                show(Text(f"{failure.message}; waiting for it", "yellow"))
                last = before = None
            else:
                before = None if last is None else to_compare(body, last, before)
                fitting = _fitting(rows, body, console) if console.is_terminal else rows
                show(render(body, before=before, width=console.width, rows=fitting, own_id=links.own_id))
                last = body
            await asyncio.sleep(every_s)


def _fitting(rows: int, body: StatsReply, console: Console) -> int:
    """Streams for which the terminal has lines, below the processes and the bridges."""
    processes = min(len(body.members) + 1, MAX_PROCESSES)
    bridges = min(sum(member.kind == "mlbridge" for member in body.members), MAX_PROCESSES)
    return max(3, min(rows, console.height - processes - 8 - (bridges + 2 if bridges else 0)))


def _json(reply: StatsReply) -> bytes:
    """Encode the router's reply, with the former names of renamed metrics beside the new ones."""
    return msgspec.json.encode(
        msgspec.structs.replace(
            reply,
            router=msgspec.structs.replace(reply.router, metrics=with_former_names(reply.router.metrics)),
            members=[
                msgspec.structs.replace(member, metrics=with_former_names(member.metrics)) for member in reply.members
            ],
        )
    )


async def _ask(links: RouterLinks) -> StatsReply:
    """Return the routers' stats. Raises `Failure`, with a sentence for the user."""
    try:
        return await whole_stats(links)
    except RouterUnavailable as exc:
        raise Failure(printable(str(exc))) from None
    except BusError:
        raise Failure(UNEXPECTED_REPLY) from None
