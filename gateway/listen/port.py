"""The listening sockets of a gateway: those that systemd passed, else its own.

Its own share the port with the other gateways of the same home only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.home import open_file
from watchout.common.home_files import LISTEN_LOCK, port_lock
from watchout.common.process.passed_sockets import take_sockets
from watchout.common.process.port_holder import holder_of

#: Connections that the kernel queues until they are accepted, per listening socket.
BACKLOG: Final = 4096

_log = log.get("gateway.listen.port")


class ListeningPort:
    """The port of one gateway, from `open` to `close`.

    Args:
        host: Name or address to listen on; empty for all addresses.
        port: TCP port.
        home: Directory of the lock files.

    Attributes:
        sockets: The listening sockets, non-blocking.
    """

    def __init__(self, host: str, port: int, home: Path) -> None:
        self._host = host
        self._port = port
        self._home = home
        self._lock = -1
        self._passed = False
        self.sockets: list[socket.socket] = []

    def open(self) -> None:
        """Take the sockets that the service manager has passed; open some without one. Raises `StartError`.

        Passed sockets stay open in the service manager: connections wait there while this gateway is restarted. Who
        may listen on the port is decided there; the lock tells the commands of this home where the gateway listens.
        """
        self.sockets = take_sockets()
        self._passed = bool(self.sockets)
        if not self._passed:
            self.sockets, self._lock = open_sockets(self._host, self._port, self._home)
            return
        self._lock = open_file(self._home / port_lock(self._ports()[0]), os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        if self._port not in self._ports():
            _log.warning(
                "the service manager passed a socket of another port: clients reach that one, and commands of this "
                "home ask WATCHOUT_PORT; set them to the same number",
                port=self._ports()[0],
                watchout_port=self._port,
            )

    def where(self) -> dict[str, object]:
        """Return where the gateway listens, for the log."""
        if not self._passed:
            return {"port": self._port, "host": self._host or "all addresses"}
        addresses = ", ".join(str(one.getsockname()[0]) for one in self.sockets)
        return {"port": self._ports()[0], "host": addresses, "sockets_of": "the service manager"}

    def spares(self) -> list[socket.socket]:
        """Return duplicates of this gateway's own sockets, of which the queued connections can still be accepted.

        What waits in sockets of the service manager is left for the gateway that comes next.
        """
        return [] if self._passed else [one.dup() for one in self.sockets]

    def is_shared(self) -> bool:
        """Return whether another gateway of this home listens on the port, and does not drain.

        To be called by a gateway that drains. As soon as there is another one, it does not count for that one any more.
        """
        if self._lock < 0:
            return False
        alone = _try_lock(self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_SH if alone else fcntl.LOCK_UN)
        return not alone

    def close(self) -> None:
        """Close the sockets, which servers may have closed already, and let others have the port."""
        for one in self.sockets:
            one.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _ports(self) -> list[int]:
        return [int(one.getsockname()[1]) for one in self.sockets]


def accept_waiting(listening: socket.socket) -> list[socket.socket]:
    """Return the connections that wait to be accepted: the kernel resets those that are left when a socket closes."""
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):
        while True:
            found.append(listening.accept()[0])
    return found


def open_sockets(host: str, port: int, home: Path) -> tuple[list[socket.socket], int]:
    """Open the listening sockets of one gateway.

    Several gateways may listen on one port (SO_REUSEPORT), and the kernel gives each of them a share of the clients.
    A lock file in `home` ensures that all of them belong to this home: otherwise a foreign process would get a share.

    Args:
        host: Name or address to listen on; empty for all addresses.
        port: TCP port.
        home: Directory of the lock files.

    Returns:
        The sockets, non-blocking, and the file descriptor of a lock that the caller keeps open as long as it listens.

    Raises:
        StartError: The port is taken by a process of another home, or the address cannot be used.
    """
    gate = open_file(home / LISTEN_LOCK, os.O_RDWR | os.O_CREAT)
    try:
        share = open_file(home / port_lock(port), os.O_RDWR | os.O_CREAT)
    except StartError:
        os.close(gate)
        raise
    sockets: list[socket.socket] = []
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        alone = _try_lock(share)
        for family, address in _addresses(host, port):
            if alone:
                _probe(family, address, port)
            listening = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        fcntl.flock(share, fcntl.LOCK_SH)
    except OSError as error:
        for listening in sockets:
            listening.close()
        os.close(share)
        raise StartError(f"cannot listen on port {port} of {host or 'all addresses'}: {error.strerror}") from None
    except StartError:
        for listening in sockets:
            listening.close()
        os.close(share)
        raise
    finally:
        os.close(gate)
    return sockets, share


def _try_lock(fd: int) -> bool:
    """Take the lock exclusively; return False when another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Return the family and address of each socket to open. Raises `StartError` for an unknown host."""
    if not host:
        found: list[tuple[socket.AddressFamily, tuple[str, int]]] = [(socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104
        if _has_ipv6():
            found.append((socket.AF_INET6, ("::", port)))
        return found
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"WATCHOUT_HOST={host} is not an address of this machine: {error.strerror}") from None
    unique = {(info[0], (str(info[4][0]), port)): None for info in infos}
    return list(unique)


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _probe(family: socket.AddressFamily, address: tuple[str, int], port: int) -> None:
    """Raise `StartError` when another process listens already: a bind without SO_REUSEPORT fails then."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise StartError(_taken(port, error)) from None


def _taken(port: int, error: OSError) -> str:
    """Return why the port is not available, and which process holds it if the system shows that."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"port {port} is not available ({error.strerror}): ports below 1024 need CAP_NET_BIND_SERVICE. Set "
            "WATCHOUT_PORT to a higher port"
        )
    if error.errno != errno.EADDRINUSE:
        return f"port {port} is not available ({error.strerror}). Set WATCHOUT_HOST to an address of this machine"
    if holder := holder_of(port):
        who = f"{holder} listens there, and is not a gateway of this WATCHOUT_HOME"
    else:
        who = "another program listens there, or a watchout with another WATCHOUT_HOME"
    return f"port {port} is not available ({error.strerror}); {who}. Set WATCHOUT_PORT to a free port"
