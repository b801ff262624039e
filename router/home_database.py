"""One SQLite file of the router in ``WATCHOUT_HOME``: opened safely, bounded in size, put aside when it is damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Largest size of a file, in bytes; what the router keeps in one needs far less.
MAX_FILE_BYTES: Final = 256 << 20
PAGE_BYTES: Final = 4096
#: Seconds to wait while `watchout-ctl backup` reads the file.
BUSY_S: Final = 5.0


class HomeDatabase:
    """The file of one kind of data. Made by `ReservationFile` and `RecordFile`, which run its methods in their thread.

    One thread at a time uses it: `read` runs before the first `write`, and writes run in one thread. After a fault the
    file is closed, and opened anew by the next call: it may have been replaced meanwhile. Between transactions the file
    is not locked, so that a backup can read it while the router runs.

    Args:
        path: The file; only this user may read it, and links are not followed.
        schema: The SQL that creates the table, if it does not exist.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._db: sqlite3.Connection | None = None

    def read(self) -> sqlite3.Connection:
        """Check the file and return the connection to read from.

        Raises:
            sqlite3.DatabaseError: The file cannot be opened, or is damaged; the caller calls `put_aside`.
        """
        db = self._open()
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        return db

    def put_aside(self, fault: sqlite3.DatabaseError) -> str | None:
        """Close a file that cannot be read, and rename it if it is damaged, not merely unreachable.

        Args:
            fault: What was raised.

        Returns:
            The path under which a damaged file can be looked at, now or from an earlier time; None: there is none.
        """
        self.close()
        aside = self.path.with_suffix(".bad")
        if not isinstance(fault, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                self.path.replace(aside)
        return str(aside) if aside.exists() else None

    def write(self, change: Callable[[sqlite3.Connection], None]) -> str | None:
        """Run `change` in one transaction. Return why it failed, so that nothing was changed; None: it did not fail."""
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                change(db)
                db.execute("COMMIT")
            except sqlite3.Error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            self.close()
            return str(exc)
        return None

    def close(self) -> None:
        """Close the file, if it is open."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            # Links are not followed, and other users cannot read the file.
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                os.close(os.open(self.path, flags, 0o600))
            except OSError as exc:
                raise sqlite3.OperationalError(exc.strerror or str(exc)) from None
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=TRUNCATE")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute(f"PRAGMA max_page_count={MAX_FILE_BYTES // PAGE_BYTES}")
                db.execute(self._schema)
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self._db
