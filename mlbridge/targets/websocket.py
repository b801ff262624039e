"""An ML service over one lasting WebSocket: a text message per frame, alerts and answers back in any order.

When is the service done with a frame? When it answers it by stream and frame id. A service that answers only where
there is an alert is paced by RFC 6455's ping (section 5.5.2) behind each frame: its pong says that the frame was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from watchout.common.errors import CloseCode
from watchout.common.media.frames import Frame
from watchout.common.service import Tasks
from watchout.common.toolbox.reason import reason, reason_with_text
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, discard
from watchout.mlbridge.targets.address import without_credentials
from watchout.mlbridge.targets.answers import Answer, Answers
from watchout.mlbridge.targets.codec import MAX_ANSWER_BYTES, json_body, read_json
from watchout.mlbridge.targets.reconnecting import OPEN_S, PATIENCE_S, Reconnecting

#: A connection on which nothing comes for so long is asked whether it lives, and given `DEAD_S` to say so, seconds.
QUIET_S: Final = 5.0
DEAD_S: Final = 20.0
CLOSE_S: Final = 1.0
#: How long a frame waits to be told why its connection ended, seconds.
WHY_S: Final = 1.0
#: Connections of single frames that are open at once, those that wait for late alerts included.
MAX_APART: Final = 16
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
        self._lasting: Reconnecting[ClientConnection] | None = None
        self._answers = Answers(discard)
        self._heard: Heard = discard
        self._turn = asyncio.Lock()
        self._tasks = Tasks()
        self._apart = 0

    @property
    def shown_as(self) -> str:
        """Scheme, host, port and path."""
        return without_credentials(self._url)

    async def open(self, heard: Heard) -> None:
        """Begin to connect."""
        self._heard = heard
        self._answers = Answers(heard)
        self._lasting = Reconnecting(self._connect, self._serve, lost=self._lost, reason=_reason, url=self._url)

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Send the frame; its alerts when they come before the service is done with it.

        One that is shown `apart`, or whose stream may have ended the last connection, has a connection of its own.
        """
        assert self._lasting is not None, "open comes first"
        body = json_body(frame)
        if (apart or self._answers.is_suspect(frame.stream_id)) and self._apart < MAX_APART:
            connection = await self._open_apart()
            if connection is not None:
                return await self._show_apart(connection, frame, body)
        return await self._show(await self._lasting.get(), self._answers, frame, body)

    async def close(self) -> None:
        """End the connections."""
        await self._tasks.close()
        if self._lasting is not None:
            await self._lasting.close()

    def _connect(self) -> connect:
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

    def _lost(self, reason: str, exc: BaseException | None) -> None:
        self._answers.lost(reason, too_large=_is_too_large(exc))

    async def _open_apart(self) -> ClientConnection | None:
        """One more connection; None: the service takes no second one, or is away."""
        self._apart += 1
        opened: ClientConnection | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                opened = await self._connect()
        except (WebSocketException, OSError, TimeoutError):
            pass
        finally:
            self._apart -= opened is None
        return opened

    async def _show_apart(self, connection: ClientConnection, frame: Frame, body: bytes) -> list[object]:
        """Show the frame over a connection that no other uses, which then stays for alerts that come later."""
        answers = Answers(self._heard)

        async def serve() -> None:
            failure: BaseException | None = None
            try:
                async with asyncio.timeout(2 * self._timeout_s):
                    async for message in connection:
                        answers.came(read_json(message))
            except (WebSocketException, OSError, TimeoutError) as exc:
                failure = exc
            finally:
                self._apart -= 1
                reason = "it closed the connection" if failure is None else _reason(failure)
                answers.lost(reason, too_large=_is_too_large(failure))
                with contextlib.suppress(OSError):
                    await connection.close()

        reader = self._tasks.start(serve(), "a frame apart")
        try:
            values = await self._show(connection, answers, frame, body)
        except BaseException:
            reader.cancel()
            raise
        self._answers.acquit(frame.stream_id)
        if answers.answers_each:
            reader.cancel()
        return values

    async def _show(self, connection: ClientConnection, answers: Answers, frame: Frame, body: bytes) -> list[object]:
        began = asyncio.get_running_loop().time()
        answer = answers.expect(frame)
        try:
            await self._send(connection, body, asyncio.Lock() if answers is not self._answers else self._turn)
            if not answers.answers_each:
                await _read_by(await connection.ping(), answer)
                return await answers.wait(answer, frame.stream_id)
            return await answer
        except ConnectionClosed as exc:
            await asyncio.wait((answer,), timeout=WHY_S)  # whoever reads the connection says whose fault it was
            if answer.done() and not answer.cancelled() and (why := answer.exception()) is not None:
                raise why from None
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None
        except asyncio.CancelledError:
            if answers.missed(began):
                # Nothing came since: what waits in this connection is stale by now, and there may be nobody behind it.
                connection.transport.abort()
            raise
        finally:
            answers.forget(frame, answer)

    async def _send(self, connection: ClientConnection, body: bytes, turn: asyncio.Lock) -> None:
        """Send in turn, each when what was sent before is on its way. Raises `TargetFailure` after `PATIENCE_S`."""
        if turn.locked():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await turn.acquire()
            except TimeoutError:
                raise TargetFailure("it reads too slowly: another frame is still on its way") from None
        else:
            await turn.acquire()
        try:
            if connection.transport.get_write_buffer_size() > WRITE_BYTES:
                await _drained(connection.transport)
            await connection.send(body, text=True)
        finally:
            turn.release()


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


def _is_too_large(exc: BaseException | None) -> bool:
    """Whether the service closed because a message was larger than it takes (RFC 6455 section 7.4.1)."""
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
            return reason(exc)
    return reason_with_text(exc)
