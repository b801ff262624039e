"""Which streams there are, for commands that were given the id of one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from watchout.ctl.terminal import printable

TIMEOUT_S: Final = 3.0
#: Streams that a sentence names; the others are counted.
MAX_NAMED: Final = 10
MAX_ANSWER_BYTES: Final = 16 << 20


def others_than(wanted: str, there: Iterable[str]) -> str:
    """A sentence on the streams that there are, with the one that may have been meant."""
    names = sorted({printable(name) for name in there} - {wanted})
    if not names:
        return "no other stream is there"
    shown = ", ".join(names[:MAX_NAMED])
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"streams there are: {shown}{more}" + (f"; did you mean {near[0]}?" if near else "")


def ids_of(rows: object) -> list[str]:
    """The ids of the streams in `rows` (of `GET /streams` or the router's answer) that have a camera now."""
    if not isinstance(rows, list):
        return []
    live = [row for row in rows if isinstance(row, dict) and row.get("status") != "offline"]
    return [str(row.get("id", row.get("streamId"))) for row in live]


async def viewable(url: str, token: str) -> list[str] | None:
    """Ids of the streams with a camera that the holder of `token` may view; None when the gateway does not say.

    Args:
        url: The gateway, as ``ws://`` or ``wss://`` without a path.
        token: The caller's session token.
    """
    # aiohttp takes long to import, and most commands do without it
    from watchout.common.toolbox.http_client import HTTP_ERRORS, BodyTooLarge, HttpClient, read_body

    try:
        async with (
            HttpClient(user_agent="watchout-ctl", connections=1, timeout_s=TIMEOUT_S) as client,
            client.request(
                "GET", f"{url.replace('ws', 'http', 1)}/streams", headers={"Authorization": f"Bearer {token}"}
            ) as answer,
        ):
            if answer.status != 200:
                return None
            body: dict[str, Any] = msgspec.json.decode(await read_body(answer, MAX_ANSWER_BYTES), type=dict[str, Any])
            return ids_of(body.get("streams"))
    except (TimeoutError, BodyTooLarge, msgspec.MsgspecError, *HTTP_ERRORS):
        return None
