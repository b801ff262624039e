"""An ML service over one lasting WebSocket: a text message per frame, alerts and answers back in any order.

When is the service done with a frame? When it answers it by stream and frame id. A service that answers only where
there is an alert is paced by RFC 6455's ping (section 5.5.2) behind each frame: its pong says that the frame was read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from common.frames import Frame
from mlbridge.targets import Heard, TargetFailure
from mlbridge.targets.address import without_credentials
from mlbridge.targets.answers import Answer, Answers
from mlbridge.targets.codec import MAX_ANSWER_BYTES, json_body, read_json
from mlbridge.targets.lasting import OPEN_S, PATIENCE_S, Lasting

#: A connection on which nothing comes for so long is asked whether it lives, and given `DEAD_S` to say so, seconds.
QUIET_S: Final = 5.0
DEAD_S: Final = 20.0
CLOSE_S: Final = 1.0
#: What may wait in the process before a frame is written, and how often that is looked at after a frame was cut off.
WRITE_BYTES: Final = 1 << 15
POLL_S: Final = 0.01


class WebSocketTarget:
    """The client of one service."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._tls = tls
        self._lasting: Lasting[ClientConnection] | None = None
        self._answers = Answers(_unheard)
        self._turn = asyncio.Lock()

    @property
    def shown_as(self) -> str:
        """Scheme, host, port and path."""
        return without_credentials(self._url)

    async def open(self, heard: Heard) -> None:
        """Begin to connect."""
        self._answers = Answers(heard)
        self._lasting = Lasting(self._connect, self._serve, lost=self._answers.lost, reason=_reason)

    async def show(self, frame: Frame) -> list[object]:
        """Send the frame; its alerts when they come before the service is done with it."""
        assert self._lasting is not None, "open comes first"
        body = json_body(frame)
        try:
            return await self._show(await self._lasting.get(), frame, body)
        except ConnectionClosed as exc:
            raise TargetFailure(_reason(exc)) from None

    async def close(self) -> None:
        """End the connection."""
        if self._lasting is not None:
            await self._lasting.close()

    def _connect(self) -> AbstractAsyncContextManager[ClientConnection]:
        secure: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
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
            max_size=MAX_ANSWER_BYTES,
            write_limit=WRITE_BYTES,
            **secure,
        )

    async def _serve(self, connection: ClientConnection) -> None:
        async for message in connection:
            self._answers.came(read_json(message))

    async def _show(self, connection: ClientConnection, frame: Frame, body: bytes) -> list[object]:
        began = asyncio.get_running_loop().time()
        answers = self._answers
        answer = answers.expect(frame)
        try:
            await self._send(connection, body)
            if not answers.answers_each:
                await _read_by(await connection.ping(), answer)
                return await answers.wait(answer)
            return await answer
        except asyncio.CancelledError:
            if answers.missed(began):
                # Nothing came since: what waits in this connection is stale by now, and there may be nobody behind it.
                connection.transport.abort()
            raise
        finally:
            answers.forget(frame, answer)

    async def _send(self, connection: ClientConnection, body: bytes) -> None:
        """Send in turn, each when what was sent before is on its way. Raises `TargetFailure` after `PATIENCE_S`."""
        if self._turn.locked():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._turn.acquire()
            except TimeoutError:
                raise TargetFailure("it reads too slowly: another frame is still on its way") from None
        else:
            await self._turn.acquire()
        try:
            if connection.transport.get_write_buffer_size() > WRITE_BYTES:
                await _drained(connection.transport)
            await connection.send(body, text=True)
        finally:
            self._turn.release()


async def _drained(transport: asyncio.WriteTransport) -> None:
    """Wait until what was cut off before is nearly written. Raises `TargetFailure` after `PATIENCE_S`."""
    until = asyncio.get_running_loop().time() + PATIENCE_S
    while (waiting := transport.get_write_buffer_size()) > WRITE_BYTES:
        if asyncio.get_running_loop().time() > until:
            raise TargetFailure(f"it reads too slowly: {waiting} bytes wait for it")
        await asyncio.sleep(POLL_S)


async def _read_by(pong: Awaitable[float], answer: Answer) -> None:
    """Wait for the pong or the answer. Raises `ConnectionClosed`."""
    pong = asyncio.ensure_future(pong)
    await asyncio.wait((answer, pong), return_when=asyncio.FIRST_COMPLETED)
    if not answer.done() and (lost := pong.exception()) is not None:
        raise lost


def _unheard(_: list[object]) -> None:
    """Nobody listens before `open`."""


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
    return f"{type(exc).__name__}: {str(exc)[:150]}"
