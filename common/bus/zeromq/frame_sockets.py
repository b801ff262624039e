"""The frame sockets PUSH, PULL, PUB and SUB on Unix sockets: listening, connecting again, one queue per receiver.

They speak ZMTP (`common.bus.zeromq.zmtp`) in the event loop. What cannot be sent at once waits in a `PeerQueue`, so
everything here is bounded in bytes, and what a lost connection had buffered is lost with it. Frames are opaque here,
except for the queue key.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any, Final

from watchout.common import log, supervisor
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq.accept_guard import short_now
from watchout.common.bus.zeromq.frame_connection import FrameProtocol, FrameSender
from watchout.common.bus.zeromq.zmtp import Deliver, encode_subscription
from watchout.common.errors import StartError
from watchout.common.toolbox.reason import reason
from watchout.common.toolbox.retry import backoff_s

#: Size asked for the kernel's send buffer of a connection; Linux doubles it, up to twice net.core.wmem_max.
KERNEL_BYTES: Final = 256 << 10
#: A member connects again after the first pause, then after twice the time, up to the longest, in seconds.
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 0.2
#: Seconds after a connection that could not be accepted.
ACCEPT_AGAIN_S: Final = 0.2
#: Connections of one socket of the router; more are closed at once.
MAX_CONNECTIONS: Final = 4096
LISTEN_BACKLOG: Final = 512

#: Makes the protocol object of a connection; its argument is called when the connection is over.
MakeProtocol = Callable[[Callable[[FrameProtocol], None]], FrameProtocol]
#: Makes one connection, with the protocol object that its argument makes.
Connect = Callable[[Callable[[], FrameProtocol]], Awaitable[None]]

_log = log.get("common.bus.zeromq.frame_sockets")


class Binding:
    """A listening frame socket with its connections; made by `pull` and `Pub` for the router.

    Args:
        path: Path of the Unix socket; a file left there by an earlier router is removed.
        make: Makes the protocol object of each connection.

    Raises:
        StartError: The path cannot be bound.

    """

    def __init__(self, path: Path, make: MakeProtocol) -> None:
        self._path = path
        self._make = make
        self._connections: set[FrameProtocol] = set()
        self._malformed = 0
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # the router holds the lock of the home, so no other router is bound here
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
        """Messages dropped because of their form, of all connections so far."""
        return self._malformed + sum(connection.malformed for connection in self._connections)

    async def _accept(self) -> None:
        """Accept connections for as long as the router lives."""
        loop = asyncio.get_running_loop()
        while True:
            raw, _ = await next_connection(self._listening, f"at {self._path.name}")
            if len(self._connections) >= MAX_CONNECTIONS or short_now(local=True):
                raw.close()
            else:
                await self._serve(loop, raw)

    async def _serve(self, loop: asyncio.AbstractEventLoop, raw: socket.socket) -> None:
        _bound_kernel_buffer(raw)
        connection = self._make(self._on_lost)
        self._connections.add(connection)
        try:
            await loop.connect_accepted_socket(lambda: connection, raw)
        except OSError:
            raw.close()
            self._connections.discard(connection)

    def _on_lost(self, connection: FrameProtocol) -> None:
        self._connections.discard(connection)
        self._malformed += connection.malformed
        _log_fault(self._path.name, connection)

    def close(self) -> None:
        """Close all connections at once, and remove the socket's file."""
        self._task.cancel()
        self._listening.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        for connection in list(self._connections):
            connection.abort()


async def next_connection(listening: socket.socket, which: str) -> tuple[socket.socket, Any]:
    """Return the next connection of a listening socket, and the address of its peer.

    Args:
        listening: A non-blocking socket that listens.
        which: Which connections they are, for the log: what cannot be accepted is logged, and tried again.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await loop.sock_accept(listening)
        except OSError as error:  # out of descriptors, most likely
            supervisor.current().failed(f"accepting connections {which}", error)
            await asyncio.sleep(ACCEPT_AGAIN_S)


class Dialing:
    """A connecting frame socket, which connects again whenever its connection is lost.

    Made by `push` and `sub`, and by `tls_sockets` for other hosts.

    Args:
        name: Name of the socket in tasks and logs.
        make: Makes the protocol object of each connection.
        connect: Makes one connection with the protocol object that it is given; raises `OSError` when it cannot.
        longest_retry_s: Longest pause before the next attempt, in seconds.
        jitter: Part of a pause that is left to chance.
        on_change: Called with why there is no connection, or with None when there is one.
        explain: Returns the words for an error of a connection.

    """

    def __init__(
        self,
        name: str,
        make: MakeProtocol,
        connect: Connect,
        *,
        longest_retry_s: float = LONGEST_RETRY_S,
        jitter: float = 0.0,
        on_change: Callable[[str | None], None] | None = None,
        explain: Callable[[BaseException], str] = reason,
    ) -> None:
        self._name = name
        self._explain = explain
        self._make = make
        self._open = connect
        self._longest_retry_s = longest_retry_s
        self._jitter = jitter
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        #: The connection, also while it is being made.
        self._current: FrameProtocol | None = None
        self._malformed = 0
        self._task = supervisor.current().keep(self._stay_connected, f"bus {name}")

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form, of all connections so far."""
        current = self._current
        return self._malformed + (current.malformed if current is not None and not self._lost.is_set() else 0)

    async def _stay_connected(self) -> None:
        """Connect, and again after each loss, for as long as the process lives."""
        retries = 0
        while True:
            if await self._connect():
                connected_at = self._loop.time()
                await self._lost.wait()
                self._current = None
                if self._loop.time() - connected_at > self._longest_retry_s:
                    retries = 0
            await asyncio.sleep(
                backoff_s(
                    retries, first_s=FIRST_RETRY_S, most_s=self._longest_retry_s, chance=random.random(),
                    jitter=self._jitter,
                )
            )  # fmt: skip
            retries += 1

    async def _connect(self) -> bool:
        """Connect once; False when nobody listens, or the peer cannot be used."""
        self._lost.clear()
        try:
            await self._open(self._begin)
        except OSError as error:
            self._current = None
            if error.errno in (errno.EMFILE, errno.ENFILE):  # out of descriptors
                supervisor.current().failed("connection to the bus", error)
            self._tell(self._explain(error))
            return False
        if not self._lost.is_set():
            self._tell(None)
        return True

    def _begin(self) -> FrameProtocol:
        self._current = self._make(self._on_lost)
        return self._current

    def _on_lost(self, connection: FrameProtocol) -> None:
        self._malformed += connection.malformed
        _log_fault(self._name, connection)
        error = connection.error
        self._tell(connection.fault or ("the connection was closed" if error is None else self._explain(error)))
        self._lost.set()

    def _tell(self, why: str | None) -> None:
        if self._on_change is not None:
            self._on_change(why)

    def close(self) -> None:
        """Close the connection at once, and do not connect again."""
        self._on_change = None
        self._task.cancel()
        if self._current is not None:
            self._current.abort()


def _unix_connection(path: Path) -> Connect:
    """Return what connects to a Unix socket; the path need not exist yet."""

    async def connect(make: Callable[[], FrameProtocol]) -> None:
        loop = asyncio.get_running_loop()
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            _bound_kernel_buffer(raw)
            await loop.sock_connect(raw, os.fspath(path))
        except BaseException:
            raw.close()
            raise
        await loop.create_unix_connection(make, sock=raw)

    return connect


def pull(path: Path, max_bytes: int, deliver: Deliver, *, views: bool = False) -> Binding:
    """Bind a PULL socket.

    Args:
        path: Path of the Unix socket.
        max_bytes: Largest frame accepted, in bytes.
        deliver: Called with each frame.
        views: Deliver views that are valid during the call, in place of bytes.

    Returns:
        The socket, listening.

    Raises:
        StartError: The path cannot be bound.

    """
    return Binding(path, lambda lost: FrameProtocol(b"PULL", max_bytes, deliver=deliver, views=views, lost=lost))


def push(path: Path, max_bytes: int, sender: FrameSender) -> Dialing:
    """Connect a PUSH socket.

    Args:
        path: Path of the router's PULL socket.
        max_bytes: Largest message accepted from the router, in bytes; a PULL sends commands only.
        sender: Its frames go over the connection while there is one.

    Returns:
        The socket, connecting.

    """
    return Dialing(
        path.name,
        lambda lost: FrameProtocol(b"PUSH", max_bytes, ready=lambda made: made.attach(sender), lost=lost),
        _unix_connection(path),
    )


def sub(path: Path, max_bytes: int, topic: bytes, deliver: Deliver) -> Dialing:
    """Connect a SUB socket with one topic.

    Args:
        path: Path of the router's PUB socket.
        max_bytes: Largest message accepted, in bytes, with the topic in front.
        topic: The topic, which every message begins with.
        deliver: Called with each frame, without the topic.

    Returns:
        The socket, connecting.

    """

    def subscribe(made: FrameProtocol) -> None:
        made.transport.write(encode_subscription(topic))

    return Dialing(
        path.name,
        lambda lost: FrameProtocol(b"SUB", max_bytes, deliver=deliver, skip=len(topic), ready=subscribe, lost=lost),
        _unix_connection(path),
    )


class Pub:
    """A listening PUB socket on which each topic is the id of one receiver; the router's `frames.out`.

    A receiver's frames are queued from the first one offered until `forget`, whether it is connected or not.

    Args:
        path: Path of the Unix socket.
        max_bytes: Largest message accepted, in bytes; a SUB sends subscriptions only.
        topic_bytes: Length of an id; subscriptions to topics of another length are ignored.
        key_of: Returns the queue key of a frame from its first part.

    Raises:
        StartError: The path cannot be bound.

    """

    def __init__(
        self, path: Path, max_bytes: int, *, topic_bytes: int, key_of: Callable[[bytes | memoryview], Hashable]
    ) -> None:
        self._key_of = key_of
        self._topic_bytes = topic_bytes
        self._senders: dict[bytes, FrameSender] = {}
        self._connected: dict[bytes, FrameProtocol] = {}
        self._sent = self._dropped = 0
        self._binding = Binding(
            path,
            lambda lost: FrameProtocol(
                b"PUB", max_bytes, subscribed=self._on_subscribed, lost=lambda gone: self._on_lost(gone, lost)
            ),
        )

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._binding.malformed

    @property
    def sent(self) -> int:
        """Frames sent, over all receivers so far."""
        return self._sent + sum(sender.sent for sender in self._senders.values())

    @property
    def dropped(self) -> int:
        """Frames that were queued and not sent, over all receivers so far."""
        return self._dropped + sum(sender.dropped for sender in self._senders.values())

    def offer(self, receiver: bytes, parts: Parts) -> None:
        """Send a frame to one receiver, or queue it; a newer frame of its queue key replaces a queued one.

        Args:
            receiver: The receiver's id, which need not be connected yet.
            parts: The encoded frame, its header within the first part.

        """
        sender = self._senders.get(receiver)
        if sender is None:
            sender = self._senders[receiver] = FrameSender(self._key_of, receiver)
            connection = self._connected.get(receiver)
            if connection is not None:
                connection.attach(sender)
        sender.offer(parts)

    def reaches(self, receiver: bytes) -> bool:
        """Whether the receiver is connected and subscribed."""
        return receiver in self._connected

    def forget(self, receiver: bytes) -> None:
        """Drop what is queued for a receiver that is gone."""
        sender = self._senders.pop(receiver, None)
        if sender is None:
            return
        connection = self._connected.get(receiver)
        if connection is not None:
            connection.detach()
        sender.clear()
        self._sent += sender.sent
        self._dropped += sender.dropped

    def close(self) -> None:
        """Close all connections at once."""
        self._binding.close()

    def _on_subscribed(self, connection: FrameProtocol, topic: bytes, wanted: bool) -> None:
        """Attach the receiver's frames to the connection that subscribed last."""
        if len(topic) != self._topic_bytes:
            return
        known = self._connected.get(topic)
        if wanted:
            if known is not None:
                known.detach()
            self._connected[topic] = connection
            sender = self._senders.get(topic)
            if sender is not None:
                connection.attach(sender)
        elif known is connection:
            connection.detach()
            del self._connected[topic]

    def _on_lost(self, connection: FrameProtocol, lost: Callable[[FrameProtocol], None]) -> None:
        for topic in [topic for topic, known in self._connected.items() if known is connection]:
            del self._connected[topic]
        lost(connection)


def _bound_kernel_buffer(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


def _log_fault(name: str, connection: FrameProtocol) -> None:
    if connection.fault is not None:
        _log.warning("a connection of the bus was closed", socket=name, reason=connection.fault)
