"""``watchout-ctl shares``: lists the shares of a stream, and ends one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from watchout.ctl import environment as env
from watchout.ctl.client import Edge, connected
from watchout.ctl.terminal import printable


@click.command("shares", short_help="List the shares of a stream, or end one.")
@click.argument("stream", type=env.stream_id)
@click.option("--end", "ended", metavar="SHARE", help="End this share: its token is void, its viewers are closed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@env.edge_options
def shares(
    stream: str,
    ended: str | None,
    as_json: bool,
    url: str | None,
    token: str | None,
    wait_s: float,
    home: str | None,
) -> None:
    """List what the owner of STREAM shares of it, or end one of these shares.

    The token has to be one of the stream's owner. The tokens of shares are not shown: nobody keeps them.
    """
    environment = env.read_environment(home)
    edge = Edge.chosen(environment, url=url, token=token, wait_s=wait_s)
    work = _end(edge, stream, ended) if ended is not None else _show(edge, stream, as_json=as_json)
    env.run(environment.settings, work)


async def _end(edge: Edge, stream: str, share: str) -> None:
    """End a share. Raises `Failure`."""
    async with connected(edge, _ignore, _ignore) as client:
        await client.unshare(stream, share)
    click.echo(f"ended share {printable(share)} of {stream}")


async def _show(edge: Edge, stream: str, *, as_json: bool) -> None:
    """Print the shares of a stream. Raises `Failure`."""
    async with connected(edge, _ignore, _ignore) as client:
        rows = await client.shares(stream)
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    if not rows:
        click.echo(f"{stream} is not shared")
        return
    table = Table("share", "shared", "ends", "alerts", box=None, pad_edge=False)
    for row in rows:
        alerts = "yes" if row.get("alerts") else "no"
        table.add_row(printable(row.get("id", "?")), _time(row.get("createdAt")), _time(row.get("endsAt")), alerts)
    Console(highlight=False).print(table)


def _time(at_ms: Any) -> str:
    """Return a time in ms since 1970 as this machine's time of day and date."""
    if not isinstance(at_ms, int) or not 0 <= at_ms < 1 << 47:
        return "?"
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _ignore(_: object) -> None:
    """Nothing lasts here that could be lost."""
