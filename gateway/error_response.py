"""HTTP error responses as bytes, for connections that aiohttp does not serve (yet). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

#: Value of the `Server` header of every response: the name without a version.
SERVER: Final = "watchout"


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """Return the JSON object of an error, as docs/protocol.md defines it for HTTP."""
    return {"error": {"code": code, "message": message}}


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole HTTP/1.1 response with an error body; the caller closes the connection after it.

    `headers` are added to those of every error, and replace them where the names are equal.
    """
    body = json.dumps(error_body(code, message)).encode()
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
