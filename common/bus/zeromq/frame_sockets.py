"""The frame sockets: PUSH, PULL, PUB and SUB as `common.bus.zeromq.zmtp` speaks them, on Unix sockets driven by the
event loop.

What cannot be sent at once waits in `common.bus.peer_queue`, newest first; so everything here is bounded in bytes, and
what a lost connection had is gone with it. Nothing here knows what a frame is, but for the key that a frame waits
under.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final, cast

from watchout.common import log, supervisor
from watchout.common.bus.peer_queue import PeerQueue
from watchout.common.bus.zeromq.zmtp import Connection, message_head, subscription
from watchout.common.errors import BusError, StartError
from watchout.common.media.frames import kind_on_bus
from watchout.common.toolbox.retry import backoff_s

#: Bytes of frames that one connection takes beyond what the kernel has; one frame may go over it.
WRITE_BYTES: Final = 256 << 10
#: The kernel holds so much of one connection, unless net.core.wmem_max is less, which it doubles.
KERNEL_BYTES: Final = 256 << 10
#: Longest turn of one connection before the loop gets to others, in seconds.
DRAIN_BUDGET_S: Final = 0.002
#: A member that finds no router asks again after this, then after twice the time, up to the other.
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 0.2
#: Connections of each kind that a router holds; more are closed at once.
MAX_CONNECTIONS: Final = 4096
LISTEN_BACKLOG: Final = 512

#: A frame, in parts that are written one behind the other.
Parts = tuple[bytes | memoryview, ...]

_log = log.get("common.bus.zeromq.frame_sockets")


class Outlet:
    """What goes to one peer: at once while its connection takes it, otherwise the newest of each key later.

    `key_of` names the slot of a frame, by its first part; it is asked only when a frame has to wait. `prefix` stands
    in front of each frame. A frame counts as `sent` when its connection took it.
    """

    __slots__ = ("_key_of", "_patience", "_prefix", "backlog", "connection", "sent")

    def __init__(self, key_of: Callable[[bytes | memoryview], Hashable], prefix: bytes = b"") -> None:
        self._key_of = key_of
        self._prefix = prefix
        self._patience: asyncio.TimerHandle | None = None
        self.backlog = PeerQueue[tuple[Parts, int]]()
        self.connection: FrameProtocol | None = None
        self.sent = 0

    @property
    def skipped(self) -> int:
        """Frames that waited and were not sent."""
        return self.backlog.replaced + self.backlog.dropped

    def offer(self, parts: Parts, patience_s: float = 0.0) -> None:
        """Send a frame, or let it wait.

        With patience it may wait for company: a peer that is woken for several frames at once is woken less often.
        """
        connection = self.connection
        size = sum(map(len, parts))
        backlog = self.backlog
        direct = not backlog.bytes and not backlog.awaited and not patience_s
        if connection is not None and not connection.full and direct:
            self._write(connection, parts, size)
            return
        backlog.put(self._key_of(parts[0]), (parts, size), size, kind_on_bus(parts))
        if not patience_s:
            self.pump()
        elif self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(patience_s, self.pump)

    def pump(self) -> None:
        """Send what waits, as far as there is room."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        connection = self.connection
        while connection is not None and not connection.full and self.backlog:
            self._write(connection, *self.backlog.take())

    def clear(self) -> None:
        """Nobody will take what waits."""
        self.backlog.clear()
        self.pump()

    def _write(self, connection: FrameProtocol, parts: Parts, size: int) -> None:
        self.sent += 1
        prefix = self._prefix
        connection.transport.writelines((message_head(len(prefix) + size) + prefix, *parts))


def _nobody(_: bytes) -> None:
    """This end listens to no messages."""


class FrameProtocol(asyncio.BufferedProtocol):
    """One connection: ZMTP between the loop and an outlet, or a receiver of frames."""

    def __init__(
        self,
        kind: bytes,
        max_bytes: int,
        *,
        deliver: Callable[[bytes], None] = _nobody,
        skip: int = 0,
        ready: Callable[[FrameProtocol], None] | None = None,
        subscribed: Callable[[FrameProtocol, bytes, bool], None] | None = None,
        lost: Callable[[FrameProtocol], None],
    ) -> None:
        self._deliver = deliver
        self._on_ready = ready
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(
            kind,
            max_bytes,
            self._came,
            send=self._say,
            skip=skip,
            subscribed=None if subscribed is None else lambda topic, wanted: subscribed(self, topic, wanted),
        )
        self._until = 0.0
        self._again: asyncio.Handle | None = None
        self._outlet: Outlet | None = None
        #: Whether more than `WRITE_BYTES` wait for the kernel.
        self.full = False
        self.transport: asyncio.Transport
        self.fault: str | None = None

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._connection.malformed + (self.fault is not None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our part of the greeting."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BYTES, low=WRITE_BYTES // 4)
        self.transport.write(self._connection.opening)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the loop reads to."""
        return self._connection.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._parse(nbytes)

    def pause_writing(self) -> None:
        """The connection is full."""
        self.full = True

    def resume_writing(self) -> None:
        """The connection has room."""
        self.full = False
        if self._outlet is not None:
            self._outlet.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is over; what it had not taken to its other end is lost."""
        if self._again is not None:
            self._again.cancel()
        self.detach()
        self._lost(self)

    def attach(self, outlet: Outlet) -> None:
        """Frames of this outlet go over this connection from now on."""
        self._outlet = outlet
        outlet.connection = self
        outlet.pump()

    def detach(self) -> None:
        """No frames go over this connection any more."""
        if self._outlet is not None:
            self._outlet.connection = None
            self._outlet = None

    def _say(self, data: bytes) -> None:
        if not self.full:  # a peer that asks, and reads no answer, gets no more of them
            self.transport.write(data)

    def _came(self, message: bytes) -> None:
        try:
            self._deliver(message)
        except Exception:
            _log.exception("a frame of the bus was not handled")

    def _enough(self) -> bool:
        return time.monotonic() > self._until

    def _parse(self, nbytes: int) -> None:
        self._until = time.monotonic() + DRAIN_BUDGET_S
        try:
            more = self._connection.parse(nbytes, self._enough)
        except BusError as error:
            self.fault = str(error)
            self.transport.abort()
            return
        if more:
            self.transport.pause_reading()
            self._again = self._loop.call_soon(self._go_on)
        elif self._again is not None:
            self._again = None
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if self._on_ready is not None and self._connection.ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(self)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self._parse(0)


class Binding:
    """A bound frame socket and its connections, of one kind. Raises `StartError` when the path cannot be bound."""

    def __init__(self, path: Path, make: Callable[[Callable[[FrameProtocol], None]], FrameProtocol]) -> None:
        self._path = path
        self._make = make
        self._connections: set[FrameProtocol] = set()
        self._server: asyncio.Server | None = None
        self._malformed = 0
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # whoever holds the router's lock is the only one who may be here
            listening.bind(os.fspath(path))
            listening.listen(LISTEN_BACKLOG)
        except OSError as error:
            listening.close()
            raise StartError(f"cannot bind {path}: {error.strerror or error}") from None
        listening.setblocking(False)
        self._listening = listening
        self._task = supervisor.current().keep(self._accept, f"bus {path.name}")

    @property
    def malformed(self) -> int:
        """Messages that did not fit, of all connections so far."""
        return self._malformed + sum(connection.malformed for connection in self._connections)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw, _ = await loop.sock_accept(self._listening)
            except OSError as error:  # out of descriptors, most likely
                _log.warning("no connection could be accepted", socket=self._path.name, error=error.strerror)
                await asyncio.sleep(LONGEST_RETRY_S)
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                raw.close()
            else:
                await self._take(loop, raw)

    async def _take(self, loop: asyncio.AbstractEventLoop, raw: socket.socket) -> None:
        _bound_the_kernel(raw)
        connection = self._make(self._ended)
        self._connections.add(connection)
        try:
            await loop.connect_accepted_socket(lambda: connection, raw)
        except OSError:
            raw.close()
            self._connections.discard(connection)

    def _ended(self, connection: FrameProtocol) -> None:
        self._connections.discard(connection)
        self._malformed += connection.malformed
        if connection.fault is not None:
            _log.warning("a connection of the bus was closed", socket=self._path.name, reason=connection.fault)

    def close(self) -> None:
        """Close all connections at once."""
        self._task.cancel()
        self._listening.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        for connection in list(self._connections):
            connection.transport.abort()


class Dialing:
    """A connection that is made again whenever it is lost."""

    def __init__(self, path: Path, make: Callable[[Callable[[FrameProtocol], None]], FrameProtocol]) -> None:
        self._path = path
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        self._current: FrameProtocol | None = None
        self._malformed = 0
        self._task = supervisor.current().keep(self._stay, f"bus {path.name}")

    @property
    def malformed(self) -> int:
        """Messages that did not fit, of all connections so far."""
        current = self._current
        return self._malformed + (current.malformed if current is not None and not self._lost.is_set() else 0)

    async def _stay(self) -> None:
        retries = 0
        while True:
            if await self._dial():
                began = self._loop.time()
                await self._lost.wait()
                self._current = None
                if self._loop.time() - began > LONGEST_RETRY_S:
                    retries = 0
            await asyncio.sleep(backoff_s(retries, first_s=FIRST_RETRY_S, most_s=LONGEST_RETRY_S))
            retries += 1

    async def _dial(self) -> bool:
        self._lost.clear()
        try:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # out of descriptors
            supervisor.current().failed("connection to the bus", error)
            return False
        try:
            raw.setblocking(False)
            _bound_the_kernel(raw)
            await self._loop.sock_connect(raw, os.fspath(self._path))
        except OSError:  # not there, or not yet
            raw.close()
            return False
        except BaseException:
            raw.close()
            raise
        _, self._current = await self._loop.create_unix_connection(lambda: self._make(self._ended), sock=raw)
        return True

    def _ended(self, connection: FrameProtocol) -> None:
        self._malformed += connection.malformed
        if connection.fault is not None:
            _log.warning("a connection of the bus was closed", socket=self._path.name, reason=connection.fault)
        self._lost.set()

    def close(self) -> None:
        """Close the connection at once, for good."""
        self._task.cancel()
        if self._current is not None:
            self._current.transport.abort()


def pull(path: Path, max_bytes: int, deliver: Callable[[bytes], None]) -> Binding:
    """A bound PULL."""
    return Binding(path, lambda lost: FrameProtocol(b"PULL", max_bytes, deliver=deliver, lost=lost))


def push(path: Path, max_bytes: int, outlet: Outlet) -> Dialing:
    """A connected PUSH, for what `outlet` is offered."""
    return Dialing(
        path, lambda lost: FrameProtocol(b"PUSH", max_bytes, ready=lambda made: made.attach(outlet), lost=lost)
    )


def sub(path: Path, max_bytes: int, topic: bytes, deliver: Callable[[bytes], None]) -> Dialing:
    """A connected SUB with one topic, which is left out of what is delivered."""

    def subscribe(made: FrameProtocol) -> None:
        made.transport.write(subscription(topic))

    return Dialing(
        path,
        lambda lost: FrameProtocol(b"SUB", max_bytes, deliver=deliver, skip=len(topic), ready=subscribe, lost=lost),
    )


class Pub:
    """A bound PUB whose every topic is the id of one receiver; another topic is not served."""

    def __init__(
        self, path: Path, max_bytes: int, *, topic_bytes: int, key_of: Callable[[bytes | memoryview], Hashable]
    ) -> None:
        self._key_of = key_of
        self._topic_bytes = topic_bytes
        self._outlets: dict[bytes, Outlet] = {}
        self._connected: dict[bytes, FrameProtocol] = {}
        self._sent = self._skipped = 0
        self._binding = Binding(
            path,
            lambda lost: FrameProtocol(b"PUB", max_bytes, subscribed=self._told, lost=lambda p: self._ended(p, lost)),
        )

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._binding.malformed

    @property
    def sent(self) -> int:
        """Frames sent, over all receivers so far."""
        return self._sent + sum(outlet.sent for outlet in self._outlets.values())

    @property
    def skipped(self) -> int:
        """Frames that waited and were not sent, over all receivers so far."""
        return self._skipped + sum(outlet.skipped for outlet in self._outlets.values())

    def offer(self, receiver: bytes, parts: Parts) -> None:
        """A frame for one receiver; it waits for one that is not there, until `forget`."""
        outlet = self._outlets.get(receiver)
        if outlet is None:
            outlet = self._outlets[receiver] = Outlet(self._key_of, receiver)
            connection = self._connected.get(receiver)
            if connection is not None:
                connection.attach(outlet)
        outlet.offer(parts)

    def reaches(self, receiver: bytes) -> bool:
        """Whether the receiver asked for its frames on a connection that stands."""
        return receiver in self._connected

    def forget(self, receiver: bytes) -> None:
        """The receiver is gone: what waits for it is let go."""
        outlet = self._outlets.pop(receiver, None)
        if outlet is None:
            return
        connection = self._connected.get(receiver)
        if connection is not None:
            connection.detach()
        outlet.clear()
        self._sent += outlet.sent
        self._skipped += outlet.skipped

    def close(self) -> None:
        """Close all connections at once."""
        self._binding.close()

    def _told(self, connection: FrameProtocol, topic: bytes, wanted: bool) -> None:
        if len(topic) != self._topic_bytes:
            return
        known = self._connected.get(topic)
        if wanted:
            if known is not None:
                known.detach()
            self._connected[topic] = connection
            outlet = self._outlets.get(topic)
            if outlet is not None:
                connection.attach(outlet)
        elif known is connection:
            connection.detach()
            del self._connected[topic]

    def _ended(self, connection: FrameProtocol, lost: Callable[[FrameProtocol], None]) -> None:
        for topic in [topic for topic, known in self._connected.items() if known is connection]:
            del self._connected[topic]
        lost(connection)


def _bound_the_kernel(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
