"""Lists the existing streams, for commands that were given the id of a missing one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from watchout.common.toolbox.gateway_address import http_url
from watchout.ctl.terminal import printable

#: Deadline of the request to the gateway, in seconds.
TIMEOUT_S: Final = 3.0
#: Streams that a sentence names; further ones are counted.
MAX_NAMED: Final = 10
#: Largest accepted response.
MAX_BODY_BYTES: Final = 16 << 20


def others_than(wanted: str, existing: Iterable[str]) -> str:
    """Return a clause that lists the existing streams, and suggests the one that may be meant."""
    names = sorted({printable(name) for name in existing} - {wanted})
    if not names:
        return "there is no other stream"
    shown = ", ".join(names[:MAX_NAMED])
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"existing streams: {shown}{more}" + (f"; did you mean {near[0]}?" if near else "")


def ids_of(rows: object) -> list[str]:
    """Return the ids of the streams in the rows of `GET /streams` that are published now."""
    if not isinstance(rows, list):
        return []
    live = [row for row in rows if isinstance(row, dict) and row.get("status") != "offline"]
    return [row["id"] for row in live if isinstance(row.get("id"), str)]


async def viewable(url: str, token: str) -> list[str] | None:
    """Return the ids of the published streams that the token's user may view; None if the gateway does not list them.

    Args:
        url: The gateway, as ``ws://`` or ``wss://`` without a path.
        token: The user's session token.
    """
    # aiohttp is slow to import, and most commands do not need it
    from watchout.common.toolbox.http_bounds import BodyTooLarge
    from watchout.common.toolbox.http_client import HTTP_ERRORS, HttpClient, read_body

    try:
        async with (
            HttpClient(user_agent="watchout-ctl", connections=1, timeout_s=TIMEOUT_S) as client,
            client.request("GET", f"{http_url(url)}/streams", headers={"Authorization": f"Bearer {token}"}) as response,
        ):
            if response.status != 200:
                return None
            body: dict[str, Any] = msgspec.json.decode(await read_body(response, MAX_BODY_BYTES), type=dict[str, Any])
            return ids_of(body.get("streams"))
    except (TimeoutError, BodyTooLarge, msgspec.MsgspecError, *HTTP_ERRORS):
        return None
