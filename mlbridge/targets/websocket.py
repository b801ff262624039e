"""Target over one kept WebSocket: a text message for each frame; results and alerts arrive in any order.

The service is done with a frame when it returns a result that names the frame. A service that only sends alerts is
done when it has read the frame: each frame is followed by a ping (RFC 6455 section 5.5.2), and the pong shows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, ClassVar, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from watchout.common.errors import CloseCode
from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.common.toolbox.reason import reason_with_text
from watchout.common.toolbox.renewed import Renewed
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.address import without_credentials
from watchout.mlbridge.targets.bodies import json_body
from watchout.mlbridge.targets.pending_results import PendingResults, ResultFuture
from watchout.mlbridge.targets.reconnecting import CONNECTION_WAIT_S, OPEN_S, Reconnecting
from watchout.mlbridge.targets.results import MAX_RESULT_BYTES, read_json
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, discard_alerts
from watchout.mlbridge.targets.tls import ClientTls

#: Interval of pings, and the shortest deadline of their pongs, in seconds.
QUIET_S: Final = 5.0
DEAD_S: Final = 20.0
#: Deadline of the closing handshake, in seconds.
CLOSE_S: Final = 1.0
#: How long a frame waits for the reason why its connection ended, in seconds.
REASON_S: Final = 1.0
#: Most connections for single frames at once, with those that wait for late alerts.
MAX_ISOLATED: Final = 16
#: Bytes in the transport's buffer over which no frame is written, and the interval at which the buffer is checked, in
#: seconds.
WRITE_BYTES: Final = 1 << 15
POLL_S: Final = 0.01


class WebSocketTarget:
    """The `Target` of one service over a WebSocket that is kept open. Built by `open_target`.

    Args:
        url: URL of the WebSocket.
        timeout_s: deadline of a frame, in seconds; the caller enforces it.
        headers: sent with the handshake.
        tls: TLS context of each new connection; None: the system's authorities for ``wss``.
    """

    declaration: ClassVar = kinds.WEBSOCKET

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        tls: Renewed[ssl.SSLContext] | None = None,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._tls = tls
        self._reconnecting: Reconnecting[ClientConnection] | None = None
        self._results = PendingResults(discard_alerts)
        self._on_alerts: OnAlerts = discard_alerts
        self._write_lock = asyncio.Lock()
        self._tasks = Tasks()
        self._isolated = 0  # connections for single frames

    @property
    def public_url(self) -> str:
        """Scheme, host, port and path of the URL."""
        return without_credentials(self._url)

    async def open(self, on_alerts: OnAlerts) -> None:
        """Start to connect. `on_alerts` receives alerts that belong to no pending frame."""
        self._on_alerts = on_alerts
        self._results = PendingResults(on_alerts)
        self._reconnecting = Reconnecting(
            self._connect, self._serve, on_lost=self._on_lost, reason=_reason, url=self._url
        )

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Send the frame, and wait for its result or for the pong behind it.

        An isolated frame, and one of a stream that may have ended the last connection, gets a connection of its own.
        Raises as `Target.analyse`.
        """
        assert self._reconnecting is not None, "open comes first"
        body = json_body(frame)
        if (isolated or self._results.is_suspect(frame.stream_id)) and self._isolated < MAX_ISOLATED:
            connection = await self._open_isolated()
            if connection is not None:
                return await self._analyse_isolated(connection, frame, body)
        return await self._analyse(await self._reconnecting.get(), self._results, frame, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._tasks.close()
        if self._reconnecting is not None:
            await self._reconnecting.close()

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncGenerator[ClientConnection]:
        connection = await self._opening()
        try:
            async with connection:
                yield connection
        finally:
            connection.transport.abort()  # where the closing handshake was cut short

    def _opening(self) -> connect:
        secure: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls.look()}
        return connect(
            self._url,
            additional_headers=self._headers,
            user_agent_header="watchout-mlbridge",
            compression=None,
            proxy=None,
            open_timeout=OPEN_S,
            ping_interval=QUIET_S,
            ping_timeout=max(DEAD_S, 2 * self._timeout_s),
            close_timeout=CLOSE_S,
            max_size=MAX_RESULT_BYTES,
            write_limit=WRITE_BYTES,
            **secure,
        )

    async def _serve(self, connection: ClientConnection) -> None:
        async for message in connection:
            self._results.on_message(read_json(message))

    def _on_lost(self, reason: str, exc: BaseException | None) -> None:
        self._results.on_connection_lost(reason, too_large=_is_too_large(exc))

    async def _open_isolated(self) -> ClientConnection | None:
        """Open another connection. Returns None when the service accepts no second one, or is away."""
        self._isolated += 1
        opened: ClientConnection | None = None
        try:
            async with asyncio.timeout(CONNECTION_WAIT_S):
                opened = await self._opening()
        except (WebSocketException, OSError, TimeoutError):
            pass
        finally:
            self._isolated -= opened is None
        return opened

    async def _analyse_isolated(self, connection: ClientConnection, frame: Frame, body: bytes) -> list[object]:
        """Send the frame over a connection of its own, which stays open for late alerts, up to twice the timeout."""
        results = PendingResults(self._on_alerts)

        async def serve() -> None:
            failure: BaseException | None = None
            try:
                async with asyncio.timeout(2 * self._timeout_s):
                    async for message in connection:
                        results.on_message(read_json(message))
            except (WebSocketException, OSError, TimeoutError) as exc:
                failure = exc
            finally:
                reason = "it closed the connection" if failure is None else _reason(failure)
                results.on_connection_lost(reason, too_large=_is_too_large(failure))
                with contextlib.suppress(OSError):
                    await connection.close()

        def ended(_: object) -> None:
            self._isolated -= 1
            connection.transport.abort()  # where `serve` did not begin, or was cancelled in the closing handshake

        reader = self._tasks.start(serve(), "isolated ml frame")
        reader.add_done_callback(ended)
        try:
            values = await self._analyse(connection, results, frame, body)
        except BaseException:
            reader.cancel()
            raise
        self._results.clear_suspect(frame.stream_id)
        if results.for_each_frame:
            reader.cancel()
        return values

    async def _analyse(
        self, connection: ClientConnection, results: PendingResults, frame: Frame, body: bytes
    ) -> list[object]:
        """Send a frame over this connection and wait until the service is done with it."""
        began = asyncio.get_running_loop().time()
        result = results.expect(frame)
        try:
            await self._send(connection, body, asyncio.Lock() if results is not self._results else self._write_lock)
            if not results.for_each_frame:
                await _pong_or_result(await connection.ping(), result)
                return await results.wait(result, frame.stream_id)
            return await result
        except ConnectionClosed as exc:
            await asyncio.wait((result,), timeout=REASON_S)  # `on_connection_lost` sets what is to blame
            if result.done() and not result.cancelled() and (failure := result.exception()) is not None:
                raise failure from None
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None
        except asyncio.CancelledError:
            if results.on_timeout(began):
                # No message arrived since: frames that wait in this connection are stale, and the peer may be gone.
                connection.transport.abort()
            raise
        finally:
            results.forget(frame, result)

    async def _send(self, connection: ClientConnection, body: bytes, lock: asyncio.Lock) -> None:
        """Write a frame when those before it are written. Raises `TargetFailure` after `CONNECTION_WAIT_S`."""
        if lock.locked():
            try:
                async with asyncio.timeout(CONNECTION_WAIT_S):
                    await lock.acquire()
            except TimeoutError:
                raise TargetFailure("it reads too slowly: another frame is still on its way") from None
        else:
            await lock.acquire()
        try:
            if connection.transport.get_write_buffer_size() > WRITE_BYTES:
                await _drained(connection.transport)
            await connection.send(body, text=True)
        finally:
            lock.release()


async def _drained(transport: asyncio.WriteTransport) -> None:
    """Wait until at most `WRITE_BYTES` of earlier frames wait. Raises `TargetFailure` after `CONNECTION_WAIT_S`."""
    until = asyncio.get_running_loop().time() + CONNECTION_WAIT_S
    while (waiting := transport.get_write_buffer_size()) > WRITE_BYTES:
        if asyncio.get_running_loop().time() > until:
            raise TargetFailure(f"it reads too slowly: {waiting} bytes wait for it")
        await asyncio.sleep(POLL_S)


async def _pong_or_result(pong: Awaitable[float], result: ResultFuture) -> None:
    """Wait for the pong or the result, whichever is first. Raises `ConnectionClosed`."""
    pong = asyncio.ensure_future(pong)
    await asyncio.wait((result, pong), return_when=asyncio.FIRST_COMPLETED)
    if not result.done() and (failure := pong.exception()) is not None:
        raise failure


def _is_too_large(exc: BaseException | None) -> bool:
    """Return whether the service closed because a message was larger than it accepts (RFC 6455 section 7.4.1)."""
    return isinstance(exc, ConnectionClosed) and exc.rcvd is not None and exc.rcvd.code == CloseCode.TOO_BIG


def _reason(exc: BaseException) -> str:
    match exc:
        case InvalidStatus():
            return f"it answered with status {exc.response.status_code}"
        case ConnectionClosed():
            return f"it closed the connection: {str(exc)[:150]}"
        case WebSocketException():
            return f"no WebSocket: {str(exc)[:150]}"
        case TimeoutError():
            return f"no WebSocket within {OPEN_S:g} s"
        case OSError():
            return exc.strerror or str(exc)[:150] or type(exc).__name__
    return reason_with_text(exc)


def open_target(url: str, settings: Settings) -> WebSocketTarget:
    """Build the target of a checked ``ws://`` or ``wss://`` URL.

    Args:
        url: a checked URL; the WebSocket is opened there.
        settings: ``ML_*``: time-out, headers and TLS files.

    Raises:
        StartError: a certificate or key file in the settings cannot be used.
    """
    return WebSocketTarget(
        url,
        timeout_s=settings.ml_timeout_s,
        headers=dict(settings.ml_headers),
        tls=ClientTls.of(settings).renewed() if WebSocketTarget.declaration.uses_tls(url) else None,
    )
