"""Tells whether files have changed since they were read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: Modification time in ns, size and inode of each file.
FileStamps = tuple[tuple[int, int, int], ...]


def file_stamps(paths: Iterable[Path]) -> FileStamps:
    """Return what changes when one of the files does: written anew, replaced, removed, or there again."""
    stamps = []
    for path in paths:
        try:
            stat = path.stat()
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
