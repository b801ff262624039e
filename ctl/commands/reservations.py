"""``watchout-ctl reservations``: lists the reserved ids of streams without a publisher, and releases one."""

from __future__ import annotations

from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from watchout.common.alerts.model import STREAM_ID
from watchout.common.bus.merged_replies import merge_reservations
from watchout.common.bus.messages import Query, QueryReply, RefusedReply, Unreserve
from watchout.common.bus.reply_records import ReservationRow
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.settings import Settings
from watchout.ctl.bus_client import UNEXPECTED_REPLY, joined, warn_missing
from watchout.ctl.environment import Failure, home_option, read_environment, run
from watchout.ctl.terminal import printable

#: Most reservations that the router returns in one reply.
MAX_ROWS: Final = 1000


@click.command("reservations")
@click.option("--user", metavar="ID", help="Only reservations of this user.")
@click.option("--release", "released", metavar="STREAM", help="Release this id: any user may register it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@home_option
def reservations(user: str | None, released: str | None, as_json: bool, home: str | None) -> None:
    """List the reserved stream ids with their users, or release one.

    The id of a stream stays reserved for its user for STREAM_RESERVED_S after the publisher disconnected: other users
    may not register it. Up to 1000 are listed, the oldest first.
    """
    if released is not None and not STREAM_ID.match(released):
        raise click.BadParameter("expected 1 to 128 of A-Z a-z 0-9 _ . : -", param_hint="--release")
    settings = read_environment(home).settings
    run(settings, _release(settings, released) if released is not None else _show(settings, user, as_json=as_json))


async def _release(settings: Settings, stream: str) -> None:
    """Release one reservation. Raises `Failure`."""
    async with joined(settings) as links:
        try:
            reply = await links.of(stream).request(lambda number: Unreserve(request=number, stream=stream))
        except RouterUnavailable as exc:
            raise Failure(str(exc)) from None
    match reply:
        case QueryReply(body=None):
            raise Failure(f"{stream} is not reserved: it has a publisher now, or never had one")
        case QueryReply(body=str(former)):
            click.echo(f"released {stream}, which was reserved for user {printable(former)}")
        case RefusedReply(message=text):
            raise Failure(printable(text))
        case _:
            raise Failure(UNEXPECTED_REPLY)


async def _show(settings: Settings, user: str | None, *, as_json: bool) -> None:
    """Print the reservations of all users, or of one. Raises `Failure`."""
    async with joined(settings) as links:
        try:
            asked = await links.ask_all(
                lambda _, number: Query(request=number, what="reservations", user=user, limit=MAX_ROWS),
                list[ReservationRow],
            )
        except RouterUnavailable as exc:
            raise Failure(printable(str(exc))) from None
        except BusError:
            raise Failure(UNEXPECTED_REPLY) from None
    rows = merge_reservations(list(asked.by_slot.values()), MAX_ROWS)
    warn_missing(asked.missing)
    if not rows and asked.missing:
        raise Failure("it is not known whether ids are reserved: try again")
    found = [{"streamId": row.stream, "userId": row.user, "secondsLeft": round(row.left_s)} for row in rows]
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("no ids are reserved" + (f" for user {printable(user)}" if user is not None else ""))
        return
    table = Table("stream", "user", "reserved for", box=None, pad_edge=False)
    for row in found:
        table.add_row(printable(row["streamId"]), printable(row["userId"]), _duration(int(str(row["secondsLeft"]))))
    Console(highlight=False).print(table)


def _duration(seconds: int) -> str:
    """Return a time in the two largest units that it has."""
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
