"""Small records that survive the router: a SQLite file in ``WATCHOUT_HOME``, written by a thread of its own.

A record is bytes under a key; whoever uses the file knows what they mean. A file that cannot be read is put aside, and
the router goes on without its records. Changes that could not be written are kept and written with the next ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from watchout.common import log

#: Largest size of a file, in bytes.
MAX_FILE_BYTES: Final = 256 << 20
PAGE_BYTES: Final = 4096

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID, STRICT"

_log = log.get("router.record_file")


class RecordFile:
    """The records of one kind in one home. Made by the router's app: `load` once, then `write`, at last `close`.

    Args:
        path: The file; only this user may read it.
        what: What the records are, in the plural, for log lines.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._thread = ThreadPoolExecutor(1, path.stem)
        self._db: sqlite3.Connection | None = None
        #: What is not in the file yet: a body, or None for a record to delete.
        self._unwritten: dict[str, bytes | None] = {}
        self._turn = asyncio.Lock()
        self._closed = False
        #: Whether the last write failed.
        self.failing = False

    def load(self) -> dict[str, bytes]:
        """Return all records by key; none when there is no usable file."""
        try:
            db = self._open()
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            return dict(db.execute("SELECT key, body FROM record"))
        except sqlite3.DatabaseError as exc:
            self._close()
            aside = self._path.with_suffix(".bad")
            if not isinstance(exc, sqlite3.OperationalError):
                with contextlib.suppress(OSError):
                    self._path.replace(aside)
            _log.error(
                f"the file of {self._what} cannot be used, they are lost", file=str(self._path), reason=str(exc),
                put_aside=str(aside) if aside.exists() else None,
            )  # fmt: skip
            return {}

    @property
    def unwritten(self) -> int:
        """Number of changes that are not in the file yet."""
        return len(self._unwritten)

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Note changes for the next `write`.

        Args:
            changes: A body for each changed record, None for one to delete.
        """
        self._unwritten.update(changes)

    async def write(self) -> bool:
        """Write what was changed, in one transaction; what fails stays for the next call.

        Returns:
            Whether all that was changed before the call is in the file now, and survives a crash of this process.
        """
        async with self._turn:
            changes = dict(self._unwritten)
            if not changes:
                return True
            reason = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, changes)
            if reason is None:
                for key, body in changes.items():
                    if key in self._unwritten and self._unwritten[key] == body:
                        del self._unwritten[key]
        if reason is not None and not self.failing:
            _log.error(f"{self._what} cannot be written, it is tried again", file=str(self._path), reason=reason)
        elif reason is None and self.failing:
            _log.info(f"{self._what} are written again", file=str(self._path))
        self.failing = reason is not None
        return reason is None

    async def close(self) -> None:
        """Write what is left and close the file. Further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        await self.write()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            # Links are not followed, and other users cannot read the file.
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                os.close(os.open(self._path, flags, 0o600))
            except OSError as exc:
                raise sqlite3.OperationalError(exc.strerror or str(exc)) from None
            # One thread at a time uses it: `load` runs before the first `write`, and writes run in one thread.
            db = sqlite3.connect(self._path, timeout=0.2, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA locking_mode=EXCLUSIVE")
                db.execute("PRAGMA journal_mode=TRUNCATE")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute(f"PRAGMA max_page_count={MAX_FILE_BYTES // PAGE_BYTES}")
                db.execute(_SCHEMA)
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self._db

    def _write(self, changes: Mapping[str, bytes | None]) -> str | None:
        """Return why the write failed, None when it did not."""
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                gone = [(key,) for key, body in changes.items() if body is None]
                kept = [(key, body) for key, body in changes.items() if body is not None]
                db.executemany("DELETE FROM record WHERE key = ?", gone)
                db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?)", kept)
                db.execute("COMMIT")
            except sqlite3.Error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            self._close()  # open it anew the next time: the file may have been replaced
            return str(exc)
        return None

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
