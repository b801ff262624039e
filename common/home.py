"""Creates ``WATCHOUT_HOME``, opens files in it safely, and locks them.

The home belongs to the user that runs watchout and has mode 0700. Files in it are opened without following links, and
only if they are plain files of that user with one hard link: another user who could write into the home earlier, or
created it, cannot redirect the writes of a process that runs as root.
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

#: Seconds after which a lock that `who_holds` takes for a moment is free again.
BRIEF_LOCK_S: Final = 0.5
_RETRY_S: Final = 0.02


def prepare_home(home: Path) -> None:
    """Create `home` with mode 0700; an existing one gets that mode if it is empty or holds files of watchout.

    Raises `StartError` if it belongs to another user, holds other files with a wider mode, or cannot be changed.
    """
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
    """Check owner and mode of an open home, and tighten the mode."""
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
            "with mode 0700 (it holds sockets and sessions)"
        )
    refused = None
    try:
        os.fchmod(fd, 0o700)
    except OSError as exc:
        refused = exc.strerror
    left = os.fstat(fd).st_mode & 0o777
    if left & 0o077:
        why = refused or "the change has no effect"
        raise StartError(
            f"WATCHOUT_HOME={home} has mode {left:04o}, which cannot be changed to 0700 ({why}): the volume does not "
            "support modes; set WATCHOUT_HOME to a directory on a local file system"
        )


def _foreign_home(home: Path, status: os.stat_result, user: int) -> str:
    """Return the error for a home of another user, with what to do."""
    whose = f"WATCHOUT_HOME={home} belongs to user {status.st_uid}, and this process runs as user {user}"
    if user == 0:
        return f"{whose}: run it as that user, or set WATCHOUT_HOME to a directory of root's own"
    if os.access(home, os.W_OK | os.X_OK):
        # A mounted volume, such as one with Kubernetes' fsGroup, or a directory that every user may write to.
        below = home / "watchout"
        return (
            f"{whose}, who may not change its mode {status.st_mode & 0o777:04o} to 0700: set WATCHOUT_HOME={below}, a "
            "directory below it, which is then created"
        )
    return f"{whose}: run all of watchout as one user, or set WATCHOUT_HOME to a directory of this one"


def open_file(path: Path, flags: int) -> int:
    """Return a descriptor of a plain file of this user in the home; O_CREAT in `flags` creates it with mode 0600.

    Raises `StartError` if it cannot be opened, or is a symbolic link, a hard link or another user's file.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EMLINK):  # EMLINK on FreeBSD
            raise StartError(f"{path} is a symbolic link, expected a file of watchout's own: remove it") from None
        raise StartError(f"{path} cannot be opened: {_why(exc)}") from None
    try:
        _check_file(path, os.fstat(fd))
    except StartError:
        os.close(fd)
        raise
    return fd


def check_file(path: Path) -> None:
    """Raise `StartError` unless `path` is missing, or a plain file of this user and no link.

    For files that a library opens by name, such as SQLite.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StartError(f"{path} cannot be examined: {_why(exc)}") from None
    if stat.S_ISLNK(status.st_mode):
        raise StartError(f"{path} is a symbolic link, expected a file of watchout's own: remove it")
    _check_file(path, status)


def _check_file(path: Path, status: os.stat_result) -> None:
    """Raise `StartError` unless the status is that of a plain file of this user with one hard link."""
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
    """Replace the content of a file atomically, with mode 0600. Raises `StartError`."""
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
    """Lock `home` for this router until the process ends. Returns the descriptor of the lock.

    Raises `StartError` if another router has it. Binding the socket would not detect that: a second bind to an
    ``ipc://`` path succeeds and takes over the traffic (libzmq zmq_ipc.adoc).
    """
    fd = open_file(home / ROUTER_LOCK, os.O_RDWR | os.O_CREAT)
    if not lock_soon(fd):
        owner = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise StartError(f"another router (process {owner or 'unknown'}) already runs on WATCHOUT_HOME={home}")
    write_pid(fd)
    return fd


def lock_soon(fd: int) -> bool:
    """Lock a file exclusively; False if another process holds it for longer than `who_holds` does. Blocks briefly."""
    give_up = time.monotonic() + BRIEF_LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > give_up:
                return False
            time.sleep(_RETRY_S)
        else:
            return True


def write_pid(fd: int) -> None:
    """Write this process's id into a file that it has locked. Informational: a full disk is ignored."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def who_holds(path: Path) -> int | None:
    """Return the id of the process that has locked this file (0: unknown); None if none has, or it cannot be read.

    A free lock is held for a moment; `lock_soon` waits for that.
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
    """Return the system's text for an error, with the remedy where it concerns a home."""
    text = reason(exc)
    if exc.errno == errno.EROFS:
        return f"{text}: sockets and locks need a writable directory"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: free space on its disk"
    return text
