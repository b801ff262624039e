"""HTTP errors that are written without aiohttp: by the listener, and where a handshake is refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

#: What every answer says of its server: the name, and no version of anything.
SERVER: Final = "watchout"


def error_answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole answer with an error body, after which the connection ends."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    fields = {
        "Server": SERVER,
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **(headers or {}),
    }
    lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}", *(f"{n}: {v}" for n, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
