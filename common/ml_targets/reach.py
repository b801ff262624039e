"""Checks whether an ML service listens at the address in its URL, and whether it uses TLS when the URL says so.

A client that uses TLS where the server does not, or the other way round, fails with a closed connection or a timeout
that does not name the cause. The first bytes of the server tell which scheme it expects. The targets of mlbridge check
this when a connection fails; ``watchout-ctl doctor`` and ``ml check`` check it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from watchout.common.ml_targets.declaration import TargetDeclaration, addresses, of_url
from watchout.common.toolbox.reason import reason

#: Longest wait for the first bytes of the server, in seconds.
FIRST_BYTES_S: Final = 1.0
#: Shortest time between two checks by one `SchemeHint`, in seconds.
HINT_EVERY_S: Final = 60.0
#: First byte of a TLS record: an alert, or a handshake (RFC 8446 section 5.1).
_RECORDS: Final = (0x15, 0x16)


@dataclass(frozen=True, slots=True)
class Reached:
    """The result of `reach`, which tests whether an ML service accepts connections; used by ``watchout-ctl``.

    Attributes:
        connected: whether a server accepted the connection.
        fault: what is wrong, as part of a sentence; empty when nothing is.
    """

    connected: bool
    fault: str = ""


async def reach(url: str, timeout_s: float) -> Reached:
    """Connect to the service of a checked URL and return what is wrong with it.

    With Redis behind Sentinel, each Sentinel is tried until one accepts a connection.

    Args:
        url: a URL that `watchout.common.settings.ml_url.check` returned.
        timeout_s: deadline of one connection, in seconds.

    Returns:
        `Reached`; network errors are in its `fault`, none is raised.
    """
    reached = Reached(False, "it names no host")
    for host, port in addresses(url):
        reached = await _reach(of_url(url), urlsplit(url).scheme, host, port, timeout_s)
        if reached.connected:
            break
    return reached


class SchemeHint:
    """Finds out whether a failed connection is due to the URL's scheme, such as ``http`` where the server expects TLS.

    Made by `HttpTarget` and `Reconnecting`, for the log. It connects to the server at most once in `HINT_EVERY_S`
    seconds, and returns the former explanation in between.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked_at = float("-inf")
        self._hint = ""

    async def added_to(self, why: str) -> str:
        """Return `why`, the reason of a failed connection, with the scheme that the server expects if it is another."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= HINT_EVERY_S:
            self._asked_at = now
            reached = await reach(self._url, FIRST_BYTES_S)
            self._hint = reached.fault if reached.connected else ""
        return f"{why} ({self._hint})" if self._hint else why


async def _reach(declaration: TargetDeclaration, scheme: str, host: str, port: int, timeout_s: float) -> Reached:
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Reached(False, f"no connection within {timeout_s:g} s")
    except (OSError, UnicodeError) as exc:
        return Reached(False, reason(exc))
    without_tls = {secure: plain for plain, secure in declaration.tls.items()}
    is_tls: bool | None = None
    try:
        if scheme not in declaration.tls and scheme not in without_tls:
            return Reached(True)
        is_tls = await _speaks_tls(reader, writer, greets_first=declaration.greets_first)
    finally:
        await _abort(writer)
    if (
        is_tls is None
        and declaration.plain_probe
        and await _answers_probe(host, port, timeout_s, *declaration.plain_probe)
    ):
        is_tls = False
    if is_tls and scheme in declaration.tls:
        return Reached(True, f"it speaks TLS: expected {declaration.tls[scheme]}:// in place of {scheme}://")
    if is_tls is False and scheme in without_tls:
        return Reached(True, f"it speaks no TLS: expected {without_tls[scheme]}:// in place of {scheme}://")
    return Reached(True)


async def _speaks_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, greets_first: bool) -> bool | None:
    """Return whether the server uses TLS from the first byte on; None when it sends nothing.

    A NATS server sends ``INFO`` first, which states whether it requires TLS; with TLS from the first byte it does not.
    """
    with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError):
        if greets_first:
            try:
                async with asyncio.timeout(FIRST_BYTES_S / 2):
                    info = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as exc:
                info = exc.partial
            except TimeoutError:
                info = b""
            if info.startswith(b"INFO"):
                compact = info.replace(b" ", b"")
                return b'"tls_required":true' in compact or (None if b'"tls_available":true' in compact else False)
        writer.write(_client_hello())
        async with asyncio.timeout(FIRST_BYTES_S):
            first = await reader.read(1)
        return first[0] in _RECORDS if first else None
    return None


async def _answers_probe(host: str, port: int, timeout_s: float, probe: bytes, replies: tuple[bytes, ...]) -> bool:
    """Return whether the server answers `probe` without TLS. Redis sends nothing to the first bytes of a TLS client."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(probe)
                return await reader.read(1) in replies
            finally:
                await _abort(writer)
    except (OSError, TimeoutError):
        return False


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _client_hello() -> bytes:
    """Return the first bytes that a TLS client sends (RFC 8446 section 4.1.2)."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()
