"""How a SQLite file with a write-ahead log is read on a disk without room.

Readers of such a file share an index, which the first of them creates beside it (``…-shm``). Where there is no room for
it, one connection at a time can still read the file and its log, with an index in its own memory
(sqlite.org/wal.html, "Use of WAL Without Shared-Memory").

Such a connection takes a shared lock before the exclusive one, and keeps it while it waits. Two that wait in SQLite
wait for each other, so here nobody does: who does not get the file closes it, and tries again after a pause
left to chance.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, Final

#: Run first on a connection that is to read the file alone: it then locks out all others until it is closed. It is
#: opened with a timeout of 0, and again after each of `pauses` while `is_locked`.
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
#: Shortest and longest pause before the next attempt to get the file alone, in seconds.
PAUSE_S: Final = (0.001, 0.03)


def is_locked(exc: sqlite3.OperationalError) -> bool:
    """Whether another connection has the file."""
    # The primary code of the extended one (sqlite.org/rescode.html).
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def pauses(timeout_s: float) -> Iterator[float]:
    """Yield the pause after each attempt to get the file alone but the last, in seconds, until `timeout_s` is over."""
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        yield random.uniform(*PAUSE_S)


def lacks_room(exc: sqlite3.OperationalError) -> bool:
    """Whether the index could not be created, most likely because the disk is full: `ALONE` may help."""
    return getattr(exc, "sqlite_errorcode", None) in _NO_ROOM


def open_file(database: str, *, timeout: float, **options: Any) -> sqlite3.Connection:
    """Return a connection that can read the file, alone where there is no room for others. For short use. Blocks.

    Args:
        database: What `sqlite3.connect` is to open.
        timeout: How long to wait for others that have the file, in seconds.
        options: Its other arguments.

    Raises:
        sqlite3.Error: The file cannot be read, or others have it for longer.
    """
    try:
        return _opened(database, {**options, "timeout": timeout})
    except sqlite3.OperationalError as exc:
        if not lacks_room(exc):
            raise
    alone = {**options, "timeout": 0}
    for pause_s in pauses(timeout):
        try:
            return _opened(database, alone, ALONE)
        except sqlite3.OperationalError as exc:
            if not is_locked(exc):
                raise
        time.sleep(pause_s)
    return _opened(database, alone, ALONE)


def _opened(database: str, options: dict[str, Any], *first: str) -> sqlite3.Connection:
    db: sqlite3.Connection = sqlite3.connect(database, **options)
    try:
        for statement in (*first, TOUCH):
            db.execute(statement).fetchall()
    except BaseException:
        db.close()
        raise
    return db
