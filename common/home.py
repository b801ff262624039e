"""``WATCHOUT_HOME``: the directory of sockets, locks, keys and the embedded store, and the files that are made in it.

The directory belongs to the user that runs watchout and has mode 0700. Files in it are opened without following links,
and only when they are plain files of that user with one name: whoever could write into the home before, or made it,
cannot make a process that runs as root write somewhere else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

from watchout.common.errors import StartError
from watchout.common.home_files import ROUTER_LOCK, is_home_file
from watchout.common.toolbox.reason import reason

#: A lock that somebody looks at for a moment (`who_holds`) is free again within this.
LOOK_S: Final = 0.5
_LOOK_STEP_S: Final = 0.02


def prepare_home(home: Path) -> None:
    """Make `home` with mode 0700, or tighten one that is empty or already watchout's. Raises `StartError`."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_directory(home, fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise StartError(f"WATCHOUT_HOME={home} cannot be used: {_why(exc)}") from None


def _check_directory(home: Path, fd: int) -> None:
    status = os.fstat(fd)
    user, mode = os.geteuid(), status.st_mode & 0o7777
    if status.st_uid != user:
        raise StartError(_foreign_home(home, status, user))
    if not mode & 0o077:
        return
    names = set(os.listdir(fd))
    if names and not any(is_home_file(name) for name in names):
        raise StartError(
            f"WATCHOUT_HOME={home} has mode {mode & 0o777:04o} and holds other files; expected a directory of its own "
            "with mode 0700 (sockets and sessions live in it)"
        )
    refused = None
    try:
        os.fchmod(fd, 0o700)
    except OSError as exc:
        refused = exc.strerror
    left = os.fstat(fd).st_mode & 0o777
    if left & 0o077:
        raise StartError(
            f"WATCHOUT_HOME={home} has mode {left:04o}, which cannot be changed to 0700 ({refused or 'it stays so'}): "
            f"it is a volume without modes of its own; set WATCHOUT_HOME to a directory on a local file system"
        )


def _foreign_home(home: Path, status: os.stat_result, user: int) -> str:
    whose = f"WATCHOUT_HOME={home} belongs to user {status.st_uid}, and this process runs as user {user}"
    if user == 0:
        return f"{whose}: run it as that user, or set WATCHOUT_HOME to a directory of root's own"
    if os.access(home, os.W_OK | os.X_OK):
        # A mounted volume, such as one with Kubernetes' fsGroup, or a directory that is open to all.
        below = home / "watchout"
        return (
            f"{whose}, who may not change its mode {status.st_mode & 0o777:04o} to 0700: set WATCHOUT_HOME={below}, a "
            "directory below it, which is then made"
        )
    return f"{whose}: run all of watchout as one user, or set WATCHOUT_HOME to a directory of this one"


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a plain file of this user in the home, made with mode 0600 when `flags` has O_CREAT.

    No link is followed, neither a symbolic one nor a second name of the file. Raises `StartError`.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EMLINK):  # the latter on FreeBSD
            raise StartError(f"{path} is a symbolic link, expected a file of watchout's own: remove it") from None
        raise StartError(f"{path} cannot be opened: {_why(exc)}") from None
    try:
        _check_file(path, os.fstat(fd))
    except StartError:
        os.close(fd)
        raise
    return fd


def check_file(path: Path) -> None:
    """Raise `StartError` unless `path` is missing, or a plain file of this user that is reached by no link.

    For files that a library opens by name.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StartError(f"{path} cannot be looked at: {_why(exc)}") from None
    if stat.S_ISLNK(status.st_mode):
        raise StartError(f"{path} is a symbolic link, expected a file of watchout's own: remove it")
    _check_file(path, status)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"{path} is not a file, expected a plain one of watchout: remove it")
    if status.st_uid != os.geteuid():
        raise StartError(
            f"{path} belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}: run all of "
            f"watchout as one user (chown, or remove the file)"
        )
    if status.st_nlink > 1:
        raise StartError(f"{path} has a second name (a hard link), expected a file of watchout's own: remove it")


def write_file(path: Path, text: str) -> None:
    """Replace the file at once: who reads meanwhile sees the former text or this one. Raises `StartError`."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise StartError(f"{path} cannot be written: {_why(exc)}") from None


def lock_home(home: Path) -> int:
    """Hold the router's lock of `home` until the process ends. Raises `StartError` when another router has it.

    Binding is no such test: a second bind on an ``ipc://`` path succeeds and steals the traffic (libzmq zmq_ipc.adoc).
    """
    fd = open_file(home / ROUTER_LOCK, os.O_RDWR | os.O_CREAT)
    if not lock_soon(fd):
        owner = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise StartError(f"another router (process {owner or 'unknown'}) already runs on WATCHOUT_HOME={home}")
    write_pid(fd)
    return fd


def lock_soon(fd: int) -> bool:
    """Lock a file for this process alone; False when somebody else holds it for longer than a look takes."""
    give_up = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > give_up:
                return False
            time.sleep(_LOOK_STEP_S)
        else:
            return True


def write_pid(fd: int) -> None:
    """Write into a locked file whose it is. Only for people: a full disk does not matter."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def who_holds(path: Path) -> int | None:
    """The process that holds the lock of this file, 0 when it does not say; None: nobody does, or it cannot be seen.

    A lock that is free is taken for a moment: `lock_soon` waits for that.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def _why(exc: OSError) -> str:
    """The system's word on an error, with what it means for a home."""
    text = reason(exc)
    if exc.errno == errno.EROFS:
        return f"{text}: sockets and locks need a directory that can be written"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: make room on its disk"
    return text
