"""How a SQLite file with a write-ahead log is read on a disk without room.

Readers of such a file share an index, which the first of them creates beside it (``…-shm``). Where there is no room for
it, one connection at a time can still read the file and its log, with an index in its own memory
(sqlite.org/wal.html, "Use of WAL Without Shared-Memory").
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

#: Run first on a connection that is to read the file alone: it then locks out all others until it is closed.
ALONE: Final = "pragma locking_mode = exclusive"
#: The first statement of a connection that needs the index; it reads nothing but the header.
TOUCH: Final = "pragma schema_version"

_NO_ROOM: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,  # no room for another file
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)


def lacks_room(exc: sqlite3.OperationalError) -> bool:
    """Whether the index could not be created, most likely because the disk is full: `ALONE` may help."""
    return getattr(exc, "sqlite_errorcode", None) in _NO_ROOM


def open_file(database: str, **options: Any) -> sqlite3.Connection:
    """Return a connection that can read the file, alone where there is no room for others. For short use.

    Args:
        database: What `sqlite3.connect` is to open.
        options: Its other arguments.

    Raises:
        sqlite3.Error: The file cannot be read.
    """
    try:
        return _opened(database, options)
    except sqlite3.OperationalError as exc:
        if not lacks_room(exc):
            raise
    return _opened(database, options, ALONE)


def _opened(database: str, options: dict[str, Any], *first: str) -> sqlite3.Connection:
    db: sqlite3.Connection = sqlite3.connect(database, **options)
    try:
        for statement in (*first, TOUCH):
            db.execute(statement).fetchall()
    except BaseException:
        db.close()
        raise
    return db
