"""Whether an ML service listens where its URL says, and whether it speaks TLS where the URL says so.

A wrong scheme shows as a connection that ends without a word or that waits for ever; the other side's first bytes say
which it is. Asked by the targets when a connection fails, and by ``watchout-ctl``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from watchout.common.settings.ml_url import addresses
from watchout.common.toolbox.reason import reason

#: Schemes, and those that say the same with TLS.
WITH_TLS: Final = {
    "http": "https",
    "ws": "wss",
    "redis": "rediss",
    "redis+sentinel": "rediss+sentinel",
    "nats": "tls",
}
WITHOUT_TLS: Final = {secure: plain for plain, secure in WITH_TLS.items()}
#: How long the other side's first bytes are waited for, seconds.
WORD_S: Final = 1.0
#: How often the other side is asked anew what it speaks, seconds.
HINT_EVERY_S: Final = 60.0
#: First byte of a TLS record: an alert, or a handshake (RFC 8446 section 5.1).
_RECORDS: Final = (0x15, 0x16)


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether somebody listens (`connected`), and what is wrong; empty: nothing."""

    connected: bool
    fault: str = ""


async def reach(url: str, timeout_s: float) -> Reached:
    """Connect to the service of a checked URL: to each of its sentinels, until one answers. Never raises."""
    reached = Reached(False, "it names no host")
    for host, port in addresses(url):
        reached = await _reach(url, host, port, timeout_s)
        if reached.connected:
            break
    return reached


class SchemeHint:
    """Which scheme the service of a checked URL speaks in place of the URL's own; asked once in `HINT_EVERY_S`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked_at = float("-inf")
        self._hint = ""

    async def added_to(self, why: str) -> str:
        """The reason for which no connection came about, with the scheme that is expected, if another is."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= HINT_EVERY_S:
            self._asked_at = now
            reached = await reach(self._url, WORD_S)
            self._hint = reached.fault if reached.connected else ""
        return f"{why} ({self._hint})" if self._hint else why


async def _reach(url: str, host: str, port: int, timeout_s: float) -> Reached:
    scheme = urlsplit(url).scheme
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Reached(False, f"no connection within {timeout_s:g} s")
    except (OSError, UnicodeError) as exc:
        return Reached(False, reason(exc))
    is_tls: bool | None = None
    try:
        if scheme not in WITH_TLS and scheme not in WITHOUT_TLS:
            return Reached(True)
        is_tls = await _speaks_tls(reader, writer, speaks_first=scheme in ("nats", "tls"))
    finally:
        await _abort(writer)
    if is_tls is None and scheme.startswith("redis") and await _answers_ping(host, port, timeout_s):
        is_tls = False
    if is_tls and scheme in WITH_TLS:
        return Reached(True, f"it speaks TLS: expected {WITH_TLS[scheme]}:// in place of {scheme}://")
    if is_tls is False and scheme in WITHOUT_TLS:
        return Reached(True, f"it speaks no TLS: expected {WITHOUT_TLS[scheme]}:// in place of {scheme}://")
    return Reached(True)


async def _speaks_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, speaks_first: bool) -> bool | None:
    """Whether the other side speaks TLS from its first byte; None: it says nothing.

    A NATS server greets before anything else, with what it requires; one that takes TLS at once does not greet.
    """
    with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError):
        if speaks_first:
            try:
                async with asyncio.timeout(WORD_S / 2):
                    info = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as exc:
                info = exc.partial
            except TimeoutError:
                info = b""
            if info.startswith(b"INFO"):
                compact = info.replace(b" ", b"")
                return b'"tls_required":true' in compact or (None if b'"tls_available":true' in compact else False)
        writer.write(_client_hello())
        async with asyncio.timeout(WORD_S):
            first = await reader.read(1)
        return first[0] in _RECORDS if first else None
    return None


async def _answers_ping(host: str, port: int, timeout_s: float) -> bool:
    """Whether Redis answers in plain text: to the first bytes of TLS it says nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(1) in (b"+", b"-")
            finally:
                await _abort(writer)
    except (OSError, TimeoutError):
        return False


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _client_hello() -> bytes:
    """The first bytes of a TLS client."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()
