"""Answers over HTTP: JSON bodies, and errors as the edge protocol has them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web


class HttpError(Exception):
    """An answer with an error body."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        super().__init__(message)

    def response(self) -> web.Response:
        """The error as the edge protocol has it."""
        return json_response({"error": {"code": self.code, "message": self.message}}, self.status, self.headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A body as JSON, which nobody is to store."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )
