"""Reads request bodies with bounds on size, time and the memory of all bodies together."""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from aiohttp import web

from watchout.common.toolbox.budget import ByteBudget, Share
from watchout.gateway.http.expectations import send_continue
from watchout.gateway.http.responses import RETRY, HttpError, address_key
from watchout.gateway.progress import TransferProgress

#: Most bytes of one body: a list of alerts.
MAX_BODY_BYTES: Final = 2 << 20
#: A body that stalls for this many seconds is abandoned.
BODY_STALLED_S: Final = 10.0
#: Most bytes of bodies in memory whose sender is not verified: of one address, and of all. The latter bounds the bodies
#: of verified services too, apart.
MAX_ADDRESS_BODIES_BYTES: Final = 4 << 20
MAX_BODIES_BYTES: Final = 64 << 20

TOO_LARGE: Final = f"the body is over {MAX_BODY_BYTES} bytes"


class BodyReader:
    """Reads the bodies of `POST /alerts` into memory. Made by `AlertIntake`.

    Senders that are authenticated only by a signature of the body share one memory budget, authenticated services
    another. `read` raises `HttpError` (400, 408, 413, 415 or 503) for a body that is refused.
    """

    def __init__(self) -> None:
        self._unauthenticated: ByteBudget[Share] = ByteBudget(MAX_BODIES_BYTES, MAX_ADDRESS_BODIES_BYTES)
        self._services: ByteBudget[Share] = ByteBudget(MAX_BODIES_BYTES, MAX_BODIES_BYTES)

    async def read(self, request: web.Request, *, verified: bool) -> bytes:
        """Return the whole body; a slow one is fine as long as it makes progress.

        Args:
            request: The request; its body must not be compressed.
            verified: Whether the sender is known before the body is read.

        Raises:
            HttpError: 413, 415, 408 for a stalled body, 503 without memory for it, 400 when it cannot be read.
        """
        if "Content-Encoding" in request.headers:
            raise HttpError(415, "INVALID_MESSAGE", "the body must not be compressed")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise HttpError(413, "TOO_LARGE", TOO_LARGE)
        budget, group = (self._services, "service") if verified else (self._unauthenticated, address_key(request))
        send_continue(request)
        share = Share(budget, group, functools.partial(_abort, request))
        body, chunks, loop = bytearray(), request.content.iter_any(), asyncio.get_running_loop()
        progress = TransferProgress(BODY_STALLED_S, 0, loop.time())
        try:
            while True:
                async with asyncio.timeout(BODY_STALLED_S):
                    chunk = await anext(chunks, b"")
                if not chunk:
                    return bytes(body)
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HttpError(413, "TOO_LARGE", TOO_LARGE)
                if not share.grow(len(chunk)):
                    raise HttpError(503, "OVERLOADED", "too many bodies are under way now, try again", RETRY)
                if not progress.keeps_up(len(body), loop.time(), waiting=True):
                    raise TimeoutError
        except TimeoutError:
            text = f"nothing more of the body came within {BODY_STALLED_S:g} s, or less than 1 kB/s over two minutes"
            raise HttpError(408, "TIMEOUT", text) from None
        except (web.RequestPayloadError, ConnectionError):
            raise HttpError(400, "BAD_REQUEST", "the body cannot be read") from None
        finally:
            share.release()


def _abort(request: web.Request) -> None:
    """Abort the connection of a request whose body was evicted from memory."""
    if request.transport is not None:
        request.transport.abort()
