"""Reservations across restarts of the router: a small SQLite file in ``WATCHOUT_HOME``, written by its own thread.

The router works without the file: gateways report the owners of streams that they know. So every fault of the disk or
the file is logged with the file's name and the router goes on; failed writes are tried again, and a file that cannot be
read is put aside.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from watchout.common import log
from watchout.common.alerts.model import STREAM_ID
from watchout.common.home_files import RESERVATIONS_FILE
from watchout.common.reservations import Reservation
from watchout.router.home_database import HomeDatabase
from watchout.router.record_store import ReservationChange

#: Seconds between a failed write and the next attempt: the first pause, doubled each time up to the longest.
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
MAX_TEXT_CHARS: Final = 1024
MAX_ORGANIZATIONS: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reservation (
  stream TEXT PRIMARY KEY, user TEXT NOT NULL, organizations TEXT NOT NULL, term INTEGER NOT NULL,
  frame_id INTEGER NOT NULL, ended_ms INTEGER
) WITHOUT ROWID, STRICT
"""

_log = log.get("router.reservation_file")


class ReservationFile:
    """The file of one home, a `ReservationStore`. Created by the router's app, used through `ReservationSync`.

    Its user sets `failed`, which is called in the loop when changes could not be written: everything is saved the next
    time.
    """

    def __init__(self, home: Path) -> None:
        self._file = HomeDatabase(home / RESERVATIONS_FILE, _SCHEMA)
        self.failed: Callable[[], None] = _nothing
        self._thread = ThreadPoolExecutor(1, "reservations")
        self._writing: asyncio.Future[str | None] | None = None
        self._again_at = float("-inf")
        self._pause_s = FIRST_RETRY_S
        self._closed = False
        #: Whether the last write failed.
        self.failing = False

    async def load(self, now_ms: int) -> list[tuple[str, Reservation]]:
        """Return what a former router wrote, oldest first; nothing when there is no usable file.

        `ended_at` of the reservations is in ms since the epoch. For a stream that had a publisher it is now. The file
        is read in the thread that writes it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load, now_ms)

    def ready(self, now: float) -> bool:
        """Return whether `save` may be called: no write is in progress, and the pause after a failure is over."""
        return (self._writing is None or self._writing.done()) and now >= self._again_at

    def save(self, changes: list[ReservationChange], now: float, *, whole: bool) -> None:
        """Begin to write changes in the thread. With `whole`, ids that are not among them are deleted."""
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._write, changes, whole)
        self._writing.add_done_callback(lambda done: self._written(done, now))

    async def wait(self) -> None:
        """Wait until no write is in progress."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def close(self) -> None:
        """Wait for a write in progress and close the file. Further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        await self.wait()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _load(self, now_ms: int) -> list[tuple[str, Reservation]]:
        try:
            return list(self._read(now_ms))
        except sqlite3.DatabaseError as exc:
            _log.error(
                "the file of reserved stream ids cannot be used, its reservations are lost", file=str(self._file.path),
                reason=str(exc), put_aside=self._file.put_aside(exc),
            )  # fmt: skip
            return []

    def _read(self, now_ms: int) -> Iterator[tuple[str, Reservation]]:
        bad = 0
        rows = self._file.read().execute(
            "SELECT stream, user, organizations, term, frame_id, ended_ms FROM reservation"
            " ORDER BY coalesce(ended_ms, 9223372036854775807)"
        )
        for row in rows:
            reservation = _reservation(row, now_ms)
            if reservation is not None:
                yield row[0], reservation
            else:
                bad += 1
        if bad:
            _log.warning("reserved stream ids that cannot be read are ignored", file=str(self._file.path), count=bad)

    def _write(self, changes: list[ReservationChange], whole: bool) -> str | None:
        """Write changes in one transaction. Return why it failed, None when it did not."""

        def change(db: sqlite3.Connection) -> None:
            if whole:
                db.execute("DELETE FROM reservation")
            db.executemany("DELETE FROM reservation WHERE stream = ?", ((n,) for n, r in changes if r is None))
            db.executemany(
                "INSERT OR REPLACE INTO reservation VALUES (?, ?, ?, ?, ?, ?)",
                ((name, *_row(reservation)) for name, reservation in changes if reservation is not None),
            )

        return self._file.write(change)

    # ── in the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def _written(self, done: asyncio.Future[str | None], began: float) -> None:
        reason = "cancelled" if done.cancelled() else str(done.exception()) if done.exception() else done.result()
        if reason is None:
            if self.failing:
                _log.info("reserved stream ids are written again", file=str(self._file.path))
            self.failing, self._pause_s = False, FIRST_RETRY_S
            return
        self._again_at = began + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_RETRY_S)
        if not self.failing:
            _log.error(
                "reserved stream ids cannot be written, a restart of this machine would forget the latest; it is tried "
                "again", file=str(self._file.path), reason=reason,
            )  # fmt: skip
        self.failing = True
        self.failed()


def _nothing() -> None:
    """Nobody wants to know yet."""


def _row(r: Reservation) -> tuple[str, str, int, int, int | None]:
    ended_ms = None if math.isinf(r.ended_at) else int(r.ended_at)
    return r.user, msgspec.json.encode(r.organizations).decode(), r.term, r.frame_id, ended_ms


def _reservation(row: tuple[str, str, str, int, int, int | None], now_ms: int) -> Reservation | None:
    """Convert a row of the file; None when it has a value that this module does not write."""
    stream, user, organizations, term, frame_id, ended_ms = row
    try:
        names = msgspec.json.decode(organizations, type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeError):
        return None
    texts_fit = STREAM_ID.match(stream) and all(len(text) <= MAX_TEXT_CHARS for text in (user, *names))
    numbers_fit = 0 <= term < 2**63 and 0 <= frame_id < 2**32 and (ended_ms is None or ended_ms >= 0)
    if not texts_fit or not numbers_fit or len(names) > MAX_ORGANIZATIONS:
        return None
    return Reservation(user, names, term, frame_id, min(now_ms, ended_ms) if ended_ms is not None else now_ms)
