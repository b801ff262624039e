"""Target over ZeroMQ: PUSH of frames to the service, PULL of alerts from it, both in MessagePack.

The service binds both sockets; alerts come from the port after that of the frames, or from ``?alerts=PORT``. A PUSH
socket does not report what happens to a frame: the number of frames under way is bounded by high-water marks and
buffers. A peer disconnects when a message is over its ``ZMQ_MAXMSGSIZE``; the next frames of the streams that were sent
just before are then sent isolated.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import zmq
import zmq.asyncio

from watchout.common import supervisor
from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.settings import Settings
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.address import alerts_port, without_credentials
from watchout.mlbridge.targets.bodies import packed_body
from watchout.mlbridge.targets.pending_results import PendingResults
from watchout.mlbridge.targets.reconnecting import CONNECTION_WAIT_S, MAX_PAUSE_S, MIN_PAUSE_S
from watchout.mlbridge.targets.results import MAX_RESULT_BYTES, read_msgpack
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, discard_alerts

#: High-water marks: frames that wait here for a service that reads none, and alerts that wait for this process.
FRAMES_HIGH_WATER: Final = 2
ALERTS_HIGH_WATER: Final = 100
#: The kernel's send buffer, in bytes; Linux doubles it.
SEND_BUFFER_BYTES: Final = 256 << 10
#: A connection that still exists this long after an isolated frame was sent has accepted it, in seconds.
SETTLE_S: Final = 0.5
#: Interval of ZMTP heartbeats, and how long a peer may be silent before its connection is replaced, in ms.
HEARTBEAT_MS: Final = 2_000
DEAD_MS: Final = 6_000


class ZeroMqTarget:
    """The `Target` of one service over two ZeroMQ sockets: PUSH for frames, PULL for alerts. Built by `open_target`.

    Args:
        url: ``tcp://host:port`` of the frames, with ``?alerts=PORT`` if alerts do not come from the next port.
    """

    declaration: ClassVar = kinds.ZEROMQ

    def __init__(self, url: str) -> None:
        self._url = url
        host = urlsplit(url).netloc.rpartition(":")[0]
        self._frames_at = f"tcp://{urlsplit(url).netloc}"
        self._alerts_at = f"tcp://{host}:{alerts_port(url)}"
        self._context: zmq.asyncio.Context | None = None
        self._push: zmq.asyncio.Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._results = PendingResults(discard_alerts)

    @property
    def public_url(self) -> str:
        """Scheme, host and port of the frames."""
        return without_credentials(self._url)

    async def open(self, on_alerts: OnAlerts) -> None:
        """Start to connect; ZeroMQ retries by itself. `on_alerts` receives all alerts."""
        self._results = PendingResults(on_alerts)
        self._context = zmq.asyncio.Context()
        self._renew_push()
        self._reader = supervisor.current().keep(self._read, "alerts of the ML service")

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Push the frame, and return an empty list when the socket has taken it. Raises as `Target.analyse`.

        The socket takes a frame only while the service is connected and reads.
        """
        assert self._push is not None, "open comes first"
        if isolated or self._results.is_suspect(frame.stream_id):
            return await self._analyse_isolated(frame)
        push = self._push
        try:
            async with asyncio.timeout(CONNECTION_WAIT_S):
                await push.send(packed_body(frame))
        except TimeoutError:
            if self._push is push:  # frames that wait in it would be stale when they are read
                self._renew_push()
            raise TargetFailure("no connection, or it reads no frames") from None
        except zmq.ZMQError as exc:
            raise TargetFailure(f"the connection was made anew: {exc}") from None
        self._results.on_delivered(frame.stream_id)
        return []

    async def close(self) -> None:
        """Close the sockets. Frames and alerts that wait in them are dropped."""
        tasks = [task for task in (self._reader, self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            if self._context is not None:
                self._context.destroy(linger=0)

    async def _analyse_isolated(self, frame: Frame) -> list[object]:
        """Push the frame over a connection of its own, and check for `SETTLE_S` that the service does not end it."""
        push = self._make(zmq.PUSH, {zmq.SNDHWM: 1, zmq.SNDBUF: SEND_BUFFER_BYTES, zmq.IMMEDIATE: 1})
        monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            push.connect(self._frames_at)
            try:
                async with asyncio.timeout(CONNECTION_WAIT_S):
                    await push.send(packed_body(frame))
            except TimeoutError:
                raise TargetFailure("no connection, or it reads no frames") from None
            if await monitor.poll(SETTLE_S * 1000):
                raise TargetFailure("it ended the connection after this frame", blame=Blame.UNSURE)
        finally:
            push.disable_monitor()
            monitor.close()
            push.close()
        self._results.clear_suspect(frame.stream_id)
        self._results.on_delivered(frame.stream_id)
        return []

    def _renew_push(self) -> None:
        """Replace the socket for frames. Frames that wait in the old one are dropped."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._push is not None:
            self._push.close()
        self._push = push = self._make_push()
        self._watcher = supervisor.current().keep(lambda: self._watch(push), "frames to the ML service")

    async def _watch(self, push: zmq.asyncio.Socket) -> None:
        """Report each connection that the service ends."""
        monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            while True:
                await monitor.recv_multipart()
                self._results.on_connection_lost("it ended the connection")
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
        """Read alerts, over a new socket after each loss: libzmq abandons a connection after too long a message."""
        while True:
            pull = self._make(zmq.PULL, {zmq.RCVHWM: ALERTS_HIGH_WATER, zmq.MAXMSGSIZE: MAX_RESULT_BYTES})
            monitor = pull.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            poller = zmq.asyncio.Poller()
            for socket in (pull, monitor):
                poller.register(socket, zmq.POLLIN)
            try:
                pull.connect(self._alerts_at)
                lost = False
                while not lost:
                    ready = dict(await poller.poll())
                    if pull in ready:  # messages before the loss are read first
                        for part in await pull.recv_multipart():
                            self._results.on_message(read_msgpack(part))
                    else:
                        lost = monitor in ready
            finally:
                pull.disable_monitor()
                monitor.close()
                pull.close()
            await asyncio.sleep(MIN_PAUSE_S)


def open_target(url: str, settings: Settings) -> ZeroMqTarget:
    """Build the target of a checked ``tcp://`` URL.

    Args:
        url: a checked URL: host and port for frames, and with ``alerts=`` the port from which alerts come.
        settings: not used: this kind of service has no settings of its own.
    """
    del settings
    return ZeroMqTarget(url)
