"""Turns connections away that a listening libzmq socket has accepted.

libzmq accepts whoever comes until no file descriptor is left. Then a TCP socket tries again without a pause, and a Unix
socket ends the process (`ipc_listener.cpp`, an assertion). So the last descriptors must never be given away.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from watchout.common.bus.zeromq.control import SocketReader
from watchout.common.process import descriptors

#: What libzmq reports of a connection that ended before its peer proved who it is.
FAILED: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
#: Descriptors of a process that its listening sockets do not give away: a part of its limit, between two numbers.
#: Processes of this machine may take half of those that other machines may not.
RESERVED_PART: Final = 8
LEAST_RESERVED: Final = 16
MOST_RESERVED: Final = 64


def is_short(opened: int | None, limit: int, *, local: bool = False) -> bool:
    """Whether a process is so short of file descriptors that nobody may connect.

    Args:
        opened: How many it has open; None: that is not known.
        limit: How many it may have open.
        local: A process of this machine wants to connect, not one of another.
    """
    reserved = max(LEAST_RESERVED, min(MOST_RESERVED, limit // RESERVED_PART))
    return opened is not None and opened > limit - (reserved // 2 if local else reserved)


def short_now(*, local: bool = False) -> bool:
    """Whether this process is short of file descriptors now, see `is_short`.

    Args:
        local: A process of this machine wants to connect, not one of another.
    """
    return is_short(descriptors.count_open(), descriptors.limit(), local=local)


class AcceptGuard:
    """Watches one listening socket. Made by the router's transports before they bind it.

    Args:
        listening: The socket; the owner closes the guard before it.
        judge: Called with the address that a connection comes from, empty for a Unix socket. Returns whether it may
            stay; otherwise it is closed.
        failed: Called for each connection that ended before its peer proved who it is, except those closed here.
    """

    def __init__(
        self, listening: zmq.Socket[bytes], judge: Callable[[str], bool], failed: Callable[[], None] = lambda: None
    ) -> None:
        self._listening = listening
        self._judge = judge
        self._failed = failed
        #: Connections that were closed here, and whose end libzmq has not reported yet.
        self._closing = 0
        self._monitor = listening.get_monitor_socket(zmq.EVENT_ACCEPTED | FAILED)
        self._reader = SocketReader(self._monitor, self._on_event)

    def catch_up(self) -> None:
        """Judge the connections that were accepted until now, at once.

        To be called before the proof of a peer is counted: libzmq reports a connection before it asks about its key,
        but on another socket, and the event loop may read that one first.
        """
        self._reader.read()

    def close(self) -> None:
        """Watch no more."""
        self._reader.close()
        self._listening.disable_monitor()
        self._monitor.close()

    def _on_event(self, parts: list[bytes]) -> None:
        event = parse_monitor_message(parts)
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._on_accepted(event["value"])
        elif event["event"] & FAILED:
            if self._closing:
                self._closing -= 1
            else:
                self._failed()

    def _on_accepted(self, descriptor: int) -> None:
        """Let a connection stay, or shut it down: libzmq, which owns the descriptor, then closes it."""
        try:
            raw = socket.socket(fileno=descriptor)
        except OSError:  # libzmq has closed it meanwhile
            return
        try:
            address = self._from(raw)
            if address is None or self._judge(address):
                return
            raw.shutdown(socket.SHUT_RDWR)
            self._closing += 1
        except OSError:  # the peer has left
            return
        finally:
            raw.detach()

    def _from(self, raw: socket.socket) -> str | None:
        """Return where a connection comes from; None: it is not one of this socket.

        The number may be another's by now.
        """
        bound = self._listening.getsockopt_string(zmq.LAST_ENDPOINT)
        here: Any = raw.getsockname()
        if raw.family == socket.AF_UNIX:
            return "" if bound == f"ipc://{here}" else None
        if bound.rpartition(":")[2] != str(here[1]):
            return None
        return str(raw.getpeername()[0]).removeprefix("::ffff:")
