"""Small records that survive the router: a SQLite file in ``WATCHOUT_HOME``, written by a thread of its own.

A record is bytes under a key; whoever uses the file knows what they mean. A file that cannot be read is put aside, and
the router goes on without its records. Changes that could not be written are kept and written with the next ones.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.router.home_database import HomeDatabase

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID, STRICT"

_log = log.get("router.record_file")


class RecordFile:
    """The records of one kind in one home, a `RecordStore`. Made by the router's app.

    Args:
        path: The file; only this user may read it.
        what: What the records are, in the plural, for log lines.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._file = HomeDatabase(path, _SCHEMA)
        self._what = what
        self._thread = ThreadPoolExecutor(1, path.stem)
        #: What is not in the file yet: a body, or None for a record to delete.
        self._unwritten: dict[str, bytes | None] = {}
        self._turn = asyncio.Lock()
        self._closed = False
        #: Whether the last write failed.
        self.failing = False

    async def load(self) -> dict[str, bytes]:
        """Return all records by key; none when there is no usable file. It is read at once, before the loop goes on."""
        try:
            return dict(self._file.read().execute("SELECT key, body FROM record"))
        except sqlite3.DatabaseError as exc:
            _log.error(
                f"the file of {self._what} cannot be used, they are lost", file=str(self._file.path), reason=str(exc),
                put_aside=self._file.put_aside(exc),
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
            _log.error(f"{self._what} cannot be written, it is tried again", file=str(self._file.path), reason=reason)
        elif reason is None and self.failing:
            _log.info(f"{self._what} are written again", file=str(self._file.path))
        self.failing = reason is not None
        return reason is None

    async def close(self) -> None:
        """Write what is left and close the file. Further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        await self.write()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, changes: Mapping[str, bytes | None]) -> str | None:
        """Return why the write failed, None when it did not."""

        def change(db: sqlite3.Connection) -> None:
            gone = [(key,) for key, body in changes.items() if body is None]
            kept = [(key, body) for key, body in changes.items() if body is not None]
            db.executemany("DELETE FROM record WHERE key = ?", gone)
            db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?)", kept)

        return self._file.write(change)
