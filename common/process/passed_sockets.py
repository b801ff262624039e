"""Takes over the listening sockets that systemd opened for this process (sd_listen_fds(3)).

They stay open in systemd while the process is restarted: connections wait in them for its successor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from watchout.common.errors import StartError

#: The first descriptor that is passed, SD_LISTEN_FDS_START.
FIRST_FD: Final = 3
#: Most descriptors that are accepted; a gateway listens on one or two.
MOST_FDS: Final = 64
_PID: Final = "LISTEN_PID"
_COUNT: Final = "LISTEN_FDS"
_NAMES: Final = "LISTEN_FDNAMES"
#: What is taken out of the environment, so that no child process takes the descriptors for its own.
_VARIABLES: Final = (_PID, "LISTEN_PIDFDID", _COUNT, _NAMES)


@dataclass(frozen=True, slots=True)
class PassedDescriptor:
    """A descriptor that systemd passed, with its name there (``FileDescriptorName=``)."""

    fd: int
    name: str


def passed_descriptors(environ: Mapping[str, str], pid: int) -> tuple[PassedDescriptor, ...]:
    """Return what the environment says was passed to the process `pid`; nothing if it was passed to another one.

    Raises `StartError` for a number that is none.
    """
    if environ.get(_PID, "").strip() != str(pid):
        return ()
    text = environ.get(_COUNT, "").strip()
    if not (text.isascii() and text.isdecimal()) or int(text) > MOST_FDS:
        raise StartError(f"{_COUNT}={text[:40]!r} of the service manager: expected a number from 0 to {MOST_FDS}")
    count = int(text)
    names = environ.get(_NAMES, "").split(":") if environ.get(_NAMES) else []
    if len(names) != count:  # optional; one name for each descriptor, or it means nothing
        names = ["unknown"] * count
    return tuple(PassedDescriptor(FIRST_FD + number, name) for number, name in enumerate(names))


def take_sockets(environ: MutableMapping[str, str] | None = None) -> list[socket.socket]:
    """Return the listening TCP sockets that were passed to this process, non-blocking; none without a service manager.

    The variables are removed from the environment, and programs that this process starts do not inherit the sockets.

    Args:
        environ: The environment; None: that of the process.

    Raises:
        StartError: What was passed is no listening TCP socket.
    """
    environ = os.environ if environ is None else environ
    try:
        passed = passed_descriptors(environ, os.getpid())
    finally:
        for name in _VARIABLES:
            environ.pop(name, None)
    taken: list[socket.socket] = []
    try:
        taken.extend(map(_take, passed))
    except StartError:
        for one in taken:
            one.close()
        raise
    return taken


def _take(passed: PassedDescriptor) -> socket.socket:
    what = f"descriptor {passed.fd} ({passed.name}) of the service manager"
    expected = "expected a listening TCP socket (ListenStream= with a port)"
    try:
        os.set_inheritable(passed.fd, False)
        one = socket.socket(fileno=passed.fd)
    except OSError as exc:
        raise StartError(f"{what} cannot be used ({exc.strerror}): {expected}") from None
    try:
        if one.type != socket.SOCK_STREAM or one.family not in (socket.AF_INET, socket.AF_INET6):
            raise StartError(f"{what} is a {_kind(one)} socket: {expected}")
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise StartError(f"{what} does not listen: {expected}, and Accept=no")
        one.setblocking(False)
    except StartError:
        one.close()
        raise
    return one


def _kind(one: socket.socket) -> str:
    return "/".join(getattr(value, "name", str(value)) for value in (one.family, one.type))
