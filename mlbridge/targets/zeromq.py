"""An ML service over ZeroMQ: PUSH of frames to it, PULL of alerts from it, bodies in MessagePack.

The service binds both sockets; alerts come from the port after that of the frames, or from ``?alerts=PORT``. PUSH tells
nothing of what becomes of a frame: what is under way is bounded by the sockets' high-water marks and buffers. A peer
that is sent more than its ``ZMQ_MAXMSGSIZE`` disconnects: streams that were shown just before are then shown apart.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final
from urllib.parse import urlsplit

import zmq
import zmq.asyncio

from watchout.common import supervisor
from watchout.common.media.frames import Frame
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, discard
from watchout.mlbridge.targets.address import alerts_port, without_credentials
from watchout.mlbridge.targets.answers import Answers
from watchout.mlbridge.targets.codec import MAX_ANSWER_BYTES, packed_body, read_msgpack
from watchout.mlbridge.targets.reconnecting import MAX_PAUSE_S, MIN_PAUSE_S, PATIENCE_S

#: Frames that wait in this process for a service that reads none; alerts that wait for this process.
FRAMES_HIGH_WATER: Final = 2
ALERTS_HIGH_WATER: Final = 100
#: The kernel's buffer for frames on their way; Linux doubles it.
SEND_BUFFER_BYTES: Final = 256 << 10
#: A connection that stands so long after a frame was sent has taken it, seconds.
SETTLE_S: Final = 0.5
#: A peer that says nothing for so long is connected to anew.
HEARTBEAT_MS: Final = 2_000
DEAD_MS: Final = 6_000


class ZeroMqTarget:
    """The client of one service."""

    def __init__(self, url: str) -> None:
        self._url = url
        host = urlsplit(url).netloc.rpartition(":")[0]
        self._frames_at = f"tcp://{urlsplit(url).netloc}"
        self._alerts_at = f"tcp://{host}:{alerts_port(url)}"
        self._context: zmq.asyncio.Context | None = None
        self._push: zmq.asyncio.Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._answers = Answers(discard)

    @property
    def shown_as(self) -> str:
        """Scheme, host and port of the frames."""
        return without_credentials(self._url)

    async def open(self, heard: Heard) -> None:
        """Begin to connect; ZeroMQ keeps trying."""
        self._answers = Answers(heard)
        self._context = zmq.asyncio.Context()
        self._renew_push()
        self._reader = supervisor.current().keep(self._read, "alerts of the ML service")

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Push the frame: done when the socket has taken it, which it does for a service that reads."""
        assert self._push is not None, "open comes first"
        if apart or self._answers.is_suspect(frame.stream_id):
            return await self._show_apart(frame)
        push = self._push
        try:
            async with asyncio.timeout(PATIENCE_S):
                await push.send(packed_body(frame))
        except TimeoutError:
            if self._push is push:  # what waits in it would be stale when it is read
                self._renew_push()
            raise TargetFailure("no connection, or it reads no frames") from None
        except zmq.ZMQError as exc:
            raise TargetFailure(f"the connection was made anew: {exc}") from None
        self._answers.paced(frame.stream_id)
        return []

    async def close(self) -> None:
        """Close the sockets; what was not sent is let go."""
        for task in (self._reader, self._watcher):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._context is not None:
            self._context.destroy(linger=0)

    async def _show_apart(self, frame: Frame) -> list[object]:
        """Push the frame over a connection of its own, and see whether the service ends it."""
        push = self._make(zmq.PUSH, {zmq.SNDHWM: 1, zmq.SNDBUF: SEND_BUFFER_BYTES, zmq.IMMEDIATE: 1})
        monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            push.connect(self._frames_at)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await push.send(packed_body(frame))
            except TimeoutError:
                raise TargetFailure("no connection, or it reads no frames") from None
            if await monitor.poll(SETTLE_S * 1000):
                raise TargetFailure("it ended the connection after this frame", blame=Blame.UNSURE)
        finally:
            push.disable_monitor()
            monitor.close()
            push.close()
        self._answers.acquit(frame.stream_id)
        self._answers.paced(frame.stream_id)
        return []

    def _renew_push(self) -> None:
        """Another socket for frames; what waits in the one before is let go."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._push is not None:
            self._push.close()
        self._push = push = self._make_push()
        self._watcher = supervisor.current().keep(lambda: self._watch(push), "frames to the ML service")

    async def _watch(self, push: zmq.asyncio.Socket) -> None:
        """Hear of each connection that the service ends."""
        monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            while True:
                await monitor.recv_multipart()
                self._answers.lost("it ended the connection")
        finally:
            with contextlib.suppress(zmq.ZMQError):
                push.disable_monitor()
            monitor.close()

    def _make_push(self) -> zmq.asyncio.Socket:
        push = self._make(zmq.PUSH, {zmq.SNDHWM: FRAMES_HIGH_WATER, zmq.SNDBUF: SEND_BUFFER_BYTES, zmq.IMMEDIATE: 1})
        push.connect(self._frames_at)
        return push

    def _make(self, kind: int, options: dict[int, int]) -> zmq.asyncio.Socket:
        assert self._context is not None
        made: Any = self._context.socket(kind)
        common: dict[int, int] = {
            zmq.LINGER: 0,
            zmq.IPV6: 1,
            zmq.RECONNECT_IVL: int(MIN_PAUSE_S * 1000),
            zmq.RECONNECT_IVL_MAX: int(MAX_PAUSE_S * 1000),
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: DEAD_MS,
            zmq.TCP_KEEPALIVE: 1,
        }
        both = {**common, **options}
        for option, value in both.items():
            made.setsockopt(option, value)
        socket: zmq.asyncio.Socket = made
        return socket

    async def _read(self) -> None:
        """Read alerts, by a new socket after a loss: libzmq gives up a connection on which too long a message came."""
        while True:
            pull = self._make(zmq.PULL, {zmq.RCVHWM: ALERTS_HIGH_WATER, zmq.MAXMSGSIZE: MAX_ANSWER_BYTES})
            monitor = pull.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            poller = zmq.asyncio.Poller()
            for socket in (pull, monitor):
                poller.register(socket, zmq.POLLIN)
            try:
                pull.connect(self._alerts_at)
                lost = False
                while not lost:
                    ready = dict(await poller.poll())
                    if pull in ready:  # what came before the loss is read first
                        for part in await pull.recv_multipart():
                            self._answers.came(read_msgpack(part))
                    else:
                        lost = monitor in ready
            finally:
                pull.disable_monitor()
                monitor.close()
                pull.close()
            await asyncio.sleep(MIN_PAUSE_S)
