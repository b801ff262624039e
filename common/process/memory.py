"""Returns freed memory to the operating system, which glibc would keep; and how much this process may have."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any, Final

#: Parameters of mallopt(3), in glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Size in bytes from which blocks are returned as soon as they are freed.
LARGE_BYTES: Final = 4 << 20
#: Free bytes at the end of the heap from which they are returned.
FREE_END_BYTES: Final = 8 << 20
#: Variables with which an operator sets the same limits: then they are left alone.
_ENVIRON: Final = frozenset(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))


def _find(name: str) -> Any:
    """Return a function of glibc, None with another C library."""
    try:
        return getattr(ctypes.CDLL(None), name)  # musl and macOS return memory by themselves
    except (AttributeError, OSError):
        return None


_trim: Final = _find("malloc_trim")
_option: Final = _find("mallopt") if _trim is not None else None


def keep_little() -> None:
    """Let the C library return large blocks as soon as they are freed; call it before any is allocated.

    By default glibc raises its threshold when the first large block is freed (up to 32 MiB), and allocates later ones
    in the heap, where a small block behind them prevents their return.
    """
    if _option is not None and not _ENVIRON & os.environ.keys():
        _option(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _option(_M_TRIM_THRESHOLD, FREE_END_BYTES)


def give_back() -> None:
    """Return free memory of the whole heap (malloc_trim(3)); takes milliseconds. Does nothing without glibc."""
    if _trim is not None:
        _trim(0)


def limit_bytes() -> int | None:
    """Return how much memory this process may have at this moment; None: not known here. Reads some files of /proc."""
    return read_limit(Path("/proc"), Path("/sys/fs/cgroup"))


def read_limit(proc: Path, groups: Path) -> int | None:
    """Return the smallest of the machine's memory and the limits of this process's control groups (version 1 or 2).

    Args:
        proc: What is ``/proc`` but in tests.
        groups: What is ``/sys/fs/cgroup`` but in tests.

    """
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        total = next(line for line in (proc / "meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
        found.append(int(total.split()[1]) << 10)
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers not in ("", "memory") and "memory" not in controllers.split(","):
                continue
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            folder = groups / controllers if controllers else groups
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts) + 1):
                with contextlib.suppress(OSError, ValueError):  # "max", or no such file
                    found.append(int((folder.joinpath(*parts[:depth]) / name).read_text()))
    return min(found, default=None)
