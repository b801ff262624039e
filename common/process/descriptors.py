"""Open files and sockets of this process: their number and their limit."""

from __future__ import annotations

import contextlib
import errno
import os
import resource

#: Limit that is requested where the hard limit is infinite; more is of no use.
MOST = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, as far as allowed. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a second, lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """Return how many files and sockets this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else int(soft)


def count_open() -> int | None:
    """Return how many files and sockets this process has open; None where that cannot be determined."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            # From Linux 6.2 on the size of the directory is the number; otherwise count the entries.
            return os.stat(directory).st_size if _HAS_COUNT else len(os.listdir(directory))  # noqa: PTH116, PTH208
    return None


def none_left() -> str | None:
    """Return a sentence that says that this process cannot open any more files or sockets; None: it can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            return f"{limit()} file descriptors are in use: raise the limit of this process (ulimit -n, LimitNOFILE)"
    return None


def _has_count() -> bool:
    """Whether the size of ``/proc/self/fd`` is the number of descriptors."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0  # noqa: PTH116
    return False


_HAS_COUNT = _has_count()
