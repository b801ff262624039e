"""Memory that was freed and that the C library has not given back to the operating system."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

#: Parameters of mallopt(3), in glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Blocks of at least this size are given back as soon as they are free.
LARGE_BYTES: Final = 4 << 20
#: So much may be free at the end of the heap before it is given back.
FREE_END_BYTES: Final = 8 << 20
#: Variables by which an operator sets the same for himself.
_ENVIRON: Final = frozenset(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))


def _find(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)  # of glibc; others give back by themselves
    except (AttributeError, OSError):
        return None


_trim: Final = _find("malloc_trim")
_option: Final = _find("mallopt") if _trim is not None else None


def keep_little() -> None:
    """Give large blocks back as soon as they are free, whatever else lies in the heap; call it before there are any.

    Without this glibc learns from the first large block that is freed, and puts later ones of that size, up to 32 MiB,
    into the heap, where a small block behind them keeps them from being given back.
    """
    if _option is not None and not _ENVIRON & os.environ.keys():
        _option(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _option(_M_TRIM_THRESHOLD, FREE_END_BYTES)


def give_back() -> None:
    """Give back what is free at the end and between (malloc_trim(3)); takes milliseconds. Nothing where it is not."""
    if _trim is not None:
        _trim(0)
