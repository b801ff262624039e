"""Runs one `ConnectionCore`: carries out its commands, and reports events and times to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Generic, TypeVar

import msgspec

from watchout.client.commands import (
    CloseSocket,
    Command,
    Done,
    Failed,
    FetchToken,
    OpenSocket,
    PhaseChanged,
    Report,
    Send,
    Wake,
)
from watchout.client.connection_core import ConnectionCore
from watchout.client.errors import NotAGateway, NoToken, TokenRefused, Unreachable, WatchoutClientError
from watchout.client.events import Frame, ProtocolFault, read_message
from watchout.client.sockets import GatewaySocket, open_socket
from watchout.client.tokens import TokenSource
from watchout.client.viewer_core import ViewerCore

_log: Final = logging.getLogger("watchout.client")

C = TypeVar("C", bound=ConnectionCore)


class Driver(Generic[C]):
    """Runs one connection, from the core's first commands, which are passed to `do`, until `close`.

    Args:
        core: decides what is done.
        url: the gateway, of `gateway_url`.
        tokens: the client's token.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.
        wait_s: seconds within which the first connection must be established; None: no limit.
        on_phase: called when the phase changes, and before each pause.
        on_report: called with the content of each `Report`.
        on_wake: called with the key of each `Wake`.
    """

    def __init__(
        self,
        core: C,
        *,
        url: str,
        tokens: TokenSource,
        max_message_bytes: int,
        wait_s: float | None,
        on_phase: Callable[[PhaseChanged], None],
        on_report: Callable[[Any], None],
        on_wake: Callable[[int], None],
    ) -> None:
        self.core = core
        self.socket: GatewaySocket | None = None
        self._url = url
        self._tokens = tokens
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._give_up_at = None if wait_s is None else self._loop.time() + wait_s
        self._on_phase = on_phase
        self._on_report = on_report
        self._on_wake = on_wake
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._former_token = ""

    @property
    def now(self) -> float:
        """The loop's time in seconds."""
        return self._loop.time()

    def do(self, commands: Iterable[Command]) -> None:
        """Carry out commands, and set the timer for the next `on_time` of the core."""
        for command in commands:
            self._carry_out(command)
        self._arm()

    async def wait_done(self, key: int, commands: Iterable[Command], timeout_s: float) -> None:
        """Carry out commands and wait until the core returns `Done` with this key.

        Args:
            key: key of the request.
            commands: the commands that the core returned with the key.
            timeout_s: seconds to wait.

        Raises:
            TimeoutError: `Done` did not come in time.
            Exception: the error of the request.
        """
        waiter = self._waiters[key] = self._loop.create_future()
        try:
            self.do(commands)
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            del self._waiters[key]

    async def close(self) -> None:
        """Send what is queued, close the connection, and wait until its socket and tasks have ended."""
        self.do(self.core.stop())
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
        try:
            while self._tasks:
                await asyncio.wait(set(self._tasks))
        except asyncio.CancelledError:  # the sockets end with their tasks
            for task in self._tasks:
                task.cancel()
            raise

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send(message):
                if self.socket is not None:
                    self.socket.send(msgspec.json.encode(message))
            case Wake(key):
                self._on_wake(key)
            case Report(event):
                self._on_report(event)
            case Done(key, error):
                self._finish(key, error)
            case PhaseChanged():
                self._on_phase(command)
            case FetchToken(why):
                self._fetching = self._spawn(self._fetch_token(why), "watchout token")
            case OpenSocket():
                self._serving = self._spawn(self._serve(), "watchout socket")
            case CloseSocket(abort):
                self._let_go(abort=abort)
            case Failed(error):
                _log.debug("closed for good: %s", error)

    def _finish(self, key: int, error: Exception | None) -> None:
        waiter = self._waiters.get(key)
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    def _let_go(self, *, abort: bool) -> None:
        """Close the socket in the background, and report no further event of it."""
        socket, self.socket = self.socket, None
        serving, self._serving = self._serving, None
        if socket is None:
            if serving is not None and serving is not asyncio.current_task():
                serving.cancel()  # it is still opening
        elif abort:
            socket.abort()
        else:
            closing = self._spawn(socket.close(), "watchout socket close")
            closing.add_done_callback(lambda _: socket.abort())  # where it was cancelled before it began

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, WatchoutClientError):
            _log.error("the connection failed because of an error of this program", exc_info=error)
        self.do(self.core.fail(error if isinstance(error, Exception) else RuntimeError(repr(error))))

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        due_at = self.core.due_at
        timer = self._timer
        if timer is not None:
            if due_at is not None and timer.when() == due_at and not timer.cancelled():
                return
            timer.cancel()
        self._timer = None if due_at is None else self._loop.call_at(due_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.do(self.core.on_time(self.now))
        except Exception as exc:
            _log.exception("the connection failed because of an error of this program")
            self.do(self.core.fail(exc))

    async def _fetch_token(self, why: str) -> None:
        try:
            token, expires_at_s = await self._tokens.get(why, self._former_token)
        except (NoToken, TokenRefused) as exc:
            self.do(self.core.on_token_failed(exc, self.now, for_good=True))
        except Exception as exc:
            _log.warning("the token callback failed, it is called again: %r", exc, exc_info=exc)
            self.do(self.core.on_token_failed(exc, self.now, for_good=False))
        else:
            self._former_token = token
            self.do(self.core.on_token(token, expires_at_s, self.now))

    async def _serve(self) -> None:
        """Open a socket, and read it until it ends or `_let_go` is called."""
        me = asyncio.current_task()
        try:
            opened = await open_socket(self._url, self.core.target, max_message_bytes=self._max_message_bytes)
        except Unreachable as exc:
            if self._serving is me:
                late = self._give_up_at is not None and self.now >= self._give_up_at
                self.do(self.core.on_open_failed(exc, self.now, for_good=late))
            return
        except NotAGateway as exc:
            if self._serving is me:
                self.do(self.core.on_open_failed(exc, self.now, for_good=True))
            return
        self._give_up_at = None
        if self._serving is not me:
            try:
                await opened.close()
            finally:
                opened.transport.abort()
            return
        socket = self.socket = GatewaySocket(opened, lambda data: self._on_data(socket, data))
        self.do(self.core.on_open(self.now))
        try:
            code, reason = await socket.run()
        except asyncio.CancelledError:
            socket.abort()
            raise
        if self.socket is socket:
            self.socket = self._serving = None
            with contextlib.suppress(Exception):
                await socket.close()
            self.do(self.core.on_close(code, reason, self.now))

    def _on_data(self, socket: GatewaySocket, data: bytes) -> None:
        if self.socket is not socket:
            return
        try:
            message = read_message(data)
        except ProtocolFault as fault:
            if self.core.is_online:  # a gateway, which sends what this client does not know
                _log.debug("a message is left out: %s", fault)
                self.core.on_heard(self.now)
                return
            raise NotAGateway(f"the server does not use watchout's protocol: {str(fault)[:200]!a}") from None
        if not isinstance(message, Frame):
            self.do(self.core.on_message(message, self.now))
        elif isinstance(self.core, ViewerCore):
            self.do(self.core.on_frame(message, self.now))
