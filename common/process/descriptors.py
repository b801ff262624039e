"""How many files and sockets this process has open, and may have open."""

from __future__ import annotations

import contextlib
import os
import resource

#: No system gives more that is of use; asked for by a limit that is infinite.
MOST = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, as far as that is allowed; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has another, lower one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """Most files and sockets that this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else int(soft)


def count_open() -> int | None:
    """Files and sockets that this process has open; None where the system cannot say it now."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            # Linux 6.2 and later have the number as the size of the directory; else the entries are counted.
            return os.stat(directory).st_size if _HAS_COUNT else len(os.listdir(directory))  # noqa: PTH116, PTH208
    return None


def _has_count() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0  # noqa: PTH116
    return False


_HAS_COUNT = _has_count()
