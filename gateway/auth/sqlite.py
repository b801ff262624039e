"""Sessions in a SQLite file with Better Auth's schema, by aiosqlite: the embedded store, or the customer's file.

Read only, one statement at a time on aiosqlite's own thread. The file may be missing or be replaced meanwhile: until
it is there, and whatever else goes wrong below, it is `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiosqlite

from common import log
from common.errors import StoreUnavailable
from gateway.auth.identity import Identity
from gateway.auth.schema import DETECT_SQLITE, PROBE, Column, Detection, Refusal, sqlite_lookup, well_formed

_log = log.get("gateway.auth")

#: Lookups under way or waiting for the thread, which answers about so many in a second.
MAX_LOOKUPS: Final = 4096

#: How long SQLite waits for a writer's lock, as a share of the deadline: a statement cannot be called back from its
#: thread, so it has to give up by itself before those that wait behind it do.
BUSY_SHARE: Final = 0.25


class SqliteStore:
    """A `SessionStore` on a SQLite file; `ensure` makes the file when the store is opened."""

    def __init__(self, path: Path, *, timeout_s: float, ensure: Callable[[Path], None] | None = None) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._ensure = ensure
        self._turn = asyncio.Lock()
        self._opening: asyncio.Task[aiosqlite.Connection] | None = None
        self._file: tuple[int, int] | None = None
        self._lookups = 0
        self._closed = False
        self._detection = Detection()

    async def open(self) -> None:
        """Make the file where that is ours to do. Raises `StartError` when it cannot be made."""
        if self._ensure is not None:
            await asyncio.to_thread(self._ensure, self._path)

    async def verify(self, token: str) -> Identity | None:
        """See `SessionStore.verify`."""
        if not well_formed(token):
            return None
        row = await self._ask(token)
        return None if row is None else Identity(user_id=row[0], session_id=row[1], expires_at=row[2])

    async def check(self) -> None:
        """See `SessionStore.check`."""
        await self._ask(PROBE)

    async def close(self) -> None:
        """See `SessionStore.close`."""
        self._closed = True
        async with self._turn:
            await self._drop()

    async def _ask(self, token: str) -> Any:
        if self._lookups >= MAX_LOOKUPS:
            raise self._unavailable(f"{MAX_LOOKUPS} lookups are waiting already")
        self._lookups += 1
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                row = await self._look_up(token)
        except StoreUnavailable as exc:
            raise self._unavailable(str(exc)) from None
        except TimeoutError:
            raise self._unavailable(f"the SQLite file gave no answer within {self._timeout_s:g} s") from None
        except (sqlite3.Error, OSError, ValueError) as exc:
            words = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise self._unavailable(f"{self._path} cannot be read: {words}") from None
        finally:
            self._lookups -= 1
        if self._detection.answered():
            _log.info("session store answers again")
        return row

    async def _look_up(self, token: str) -> Any:
        if self._closed:
            raise StoreUnavailable("the session store is closed")
        connection = await self._connected()
        try:
            lookup_sql = await self._lookup_sql(connection)
            rows = await connection.execute_fetchall(lookup_sql, (token,))
        except sqlite3.Error:
            self._detection.forget()
            await self._drop()
            raise
        return next(iter(rows), None)

    async def _lookup_sql(self, connection: aiosqlite.Connection) -> str:
        loop = asyncio.get_running_loop()
        if (lookup := self._detection.current(loop.time())) is not None:
            return lookup.sql
        plan = sqlite_lookup(Column(*row) for row in await connection.execute_fetchall(DETECT_SQLITE))
        if isinstance(plan, Refusal):
            raise StoreUnavailable(f"{self._path}: {plan.reason}")
        if self._detection.found(plan, loop.time()):
            _log.info("session store found", store="sqlite", path=str(self._path), schema=plan.summary)
        return plan.sql

    async def _connected(self) -> aiosqlite.Connection:
        # While we hold the old file open its inode cannot be given to another.
        status = _status(self._path)
        if status != self._file:
            await self._drop()
            self._detection.forget()
        if self._opening is None:
            self._file = status
            self._opening = asyncio.create_task(self._connect(), name="open the session store")
        opening = self._opening
        try:
            # A deadline that passes meanwhile must not lose a connection that its thread is about to open.
            return await asyncio.shield(opening)
        finally:
            if opening.done() and (opening.cancelled() or opening.exception() is not None):
                self._opening = None

    async def _connect(self) -> aiosqlite.Connection:
        # Not mode=ro: such a connection cannot roll back the journal of a writer that crashed.
        connection = await aiosqlite.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            timeout=self._timeout_s * BUSY_SHARE,
            isolation_level=None,
        )
        try:
            await connection.execute_fetchall("pragma query_only = 1")
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _drop(self) -> None:
        opening, self._opening, self._file = self._opening, None, None
        if opening is None:
            return
        try:
            await (await opening).close()
        except (sqlite3.Error, ValueError) as exc:
            _log.debug("session store could not be closed in order", error=type(exc).__name__)

    def _unavailable(self, reason: str) -> StoreUnavailable:
        if self._detection.failed(reason, asyncio.get_running_loop().time()):
            _log.warning("session store unavailable", reason=reason)
        return StoreUnavailable(reason)


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
