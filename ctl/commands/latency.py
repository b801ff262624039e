"""``watchout-ctl latency``: how long frames and alerts take, hop by hop, and how much of the error budget is used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final

import click
import msgspec
from rich.console import Console

from watchout.common.alerts.model import STREAM_ID
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import LATENCY_LEVEL, Query
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.latency.rows import figures_of, merge_replies, page_of
from watchout.common.settings import Settings
from watchout.ctl.bus_client import UNEXPECTED_REPLY, joined, warn_missing
from watchout.ctl.environment import Failure, home_option, read_environment, run
from watchout.ctl.latency.view import render, render_stream
from watchout.ctl.terminal import printable

DEFAULT_ROWS: Final = 20
#: Seconds within which a router has to reply; a slot without a reply is missing then.
REPLY_S: Final = 2.0


@click.command("latency", short_help="Show how late frames and alerts are, hop by hop.")
@click.argument("stream", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--rows", type=click.IntRange(1, 1000), default=DEFAULT_ROWS, show_default=True, metavar="N",
              help="Most streams to show.")  # fmt: skip
@home_option
def latency(stream: str | None, as_json: bool, rows: int, home: str | None) -> None:
    """Show how long frames and alerts take on each part of their way, of all streams or of one STREAM.

    Durations are of the last five to ten minutes. docs/latency.md says which hop is which, and how they are measured.
    """
    if stream is not None and not STREAM_ID.match(stream):
        raise Failure(f"{printable(stream)} is no stream id: 1 to 128 of A-Z a-z 0-9 _ . : -")
    settings = read_environment(home).settings
    run(settings, _show(settings, stream, as_json=as_json, rows=rows))


async def _show(settings: Settings, stream: str | None, *, as_json: bool, rows: int) -> None:
    reply, missing = await _ask(settings, stream, rows)
    if stream is None:
        page = page_of(reply)
        if as_json:
            click.echo(msgspec.json.encode(page))
        else:
            console = Console(highlight=False)
            console.print(render(page, width=console.width, rows=rows))
        warn_missing(missing)
        return
    found = next((figures_of(row) for row in reply.streams if row.stream == stream), None)
    if found is None:
        warn_missing(missing)
        raise Failure(f"nothing was measured of stream {stream} in the last ten minutes: has it a camera?")
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        console = Console(highlight=False)
        console.print(render_stream(found, width=console.width, host_clocks_ms=reply.clocks_ms))


async def _ask(settings: Settings, stream: str | None, rows: int) -> tuple[LatencyReply, list[int]]:
    """Return the merged replies of the routers, and the slots without one. Raises `Failure` when there is none."""
    bounded = replace(settings, router_timeout_s=min(settings.router_timeout_s, REPLY_S))
    async with joined(bounded) as links:
        asked = links.all() if stream is None else [links.of(stream)]
        answers = await asyncio.gather(*(_ask_slot(link, stream, rows) for link in asked))
    replies = [answer for answer in answers if isinstance(answer, LatencyReply)]
    if not replies:
        raise Failure(next(answer for answer in answers if isinstance(answer, str)))
    missing = [link.slot for link, answer in zip(asked, answers, strict=True) if isinstance(answer, str)]
    return merge_replies(replies, rows), missing


async def _ask_slot(link: BusClient, stream: str | None, rows: int) -> LatencyReply | str:
    """Return the reply of one router, or why there is none."""
    if not link.live:
        return printable(link.explain_absence().rstrip("."))
    if link.level < LATENCY_LEVEL:
        return "the router is of an older release, which does not know this query"
    try:
        return await link.query(partial(_query, stream, rows), LatencyReply)
    except RouterUnavailable as error:
        return printable(str(error).rstrip("."))
    except BusError:
        return UNEXPECTED_REPLY


def _query(stream: str | None, rows: int, number: int) -> Query:
    return Query(request=number, what="latency", stream=stream, limit=rows)
