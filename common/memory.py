"""Memory that was freed and that the C library has not given back to the operating system."""

from __future__ import annotations

import ctypes
from typing import Any, Final


def _find() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim  # of glibc; others give back by themselves
    except (AttributeError, OSError):
        return None


_trim: Final = _find()


def give_back() -> None:
    """Give back what is free at the end and between (malloc_trim(3)); takes milliseconds. Nothing where it is not."""
    if _trim is not None:
        _trim(0)
