"""Looks sessions up in a SQLite file with Better Auth's schema, with aiosqlite: the embedded store, or the app's file.

One statement runs at a time, on the thread of aiosqlite, over a read-only connection. The file may be missing or be
replaced at any time; look-ups then raise `StoreUnavailable` until it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import aiosqlite

from watchout.common import log
from watchout.common.toolbox.sqlite_alone import ALONE, TOUCH, is_locked, lacks_room, pauses
from watchout.identity.schema.catalogue import Layout, SchemaColumn, TablesFound
from watchout.identity.schema.dialects import SQLITE, Dialect
from watchout.identity.schema.plan import Plan
from watchout.identity.sources.continuity import Evidence, StoreLocation, StoreState
from watchout.identity.sources.session_store import CannotRedeem, Choose, DatabaseStore

_log = log.get("identity.sources.sqlite")

#: How long SQLite waits for a writer's lock, as a share of the deadline. A statement on its thread cannot be cancelled,
#: so it has to fail by itself before those that wait behind it reach their deadline.
BUSY_SHARE: Final = 0.25

_COLUMNS: Final = """
select c.name, c.type, c.pk = 1 and lower(c.type) = 'integer' or exists (
  select 1 from pragma_index_list(?1, ?2) l, pragma_index_info(l.name, ?2) i
  where l.partial = 0 and i.seqno = 0 and i.name = c.name)
from pragma_table_info(?1, ?2) c
"""


class SqliteStore(DatabaseStore):
    """A `SessionStore` on a SQLite file. Created by `open_store`.

    Args:
        path: The file.
        layout: Names of the tables and the operator's other settings.
        timeout_s: Deadline of each call, in seconds.
        max_waiting: Most one-time tickets that wait to be redeemed.
        ensure: Called with the path by `open`, to create the embedded store; None: the file is not created.
    """

    kind: ClassVar[str] = "SQLite"
    dialect: ClassVar[Dialect] = SQLITE

    def __init__(
        self,
        path: Path,
        layout: Layout | None = None,
        *,
        timeout_s: float,
        max_waiting: int,
        ensure: Callable[[Path], None] | None = None,
    ) -> None:
        super().__init__(layout or Layout(), timeout_s, connections=1, max_waiting=max_waiting)
        self._path = path
        self._ensure = ensure
        self._opening: asyncio.Task[aiosqlite.Connection] | None = None
        self._file: tuple[int, int] | None = None
        self._alone = False

    async def _prepare(self) -> None:
        if self._ensure is not None:
            await asyncio.to_thread(self._ensure, self._path)

    async def _release(self) -> None:
        await self._drop()

    async def _run(self, choose: Choose, keys: Sequence[str]) -> list[Any]:
        try:
            connection = await self._connected()
            ((version,),) = await connection.execute_fetchall("pragma schema_version")
            if (plan := self.plan) is not None and plan.state.mark != str(version):
                self._plans.expire()
            plan = await self._planned(lambda: self._found(connection))
            statement = choose(plan)
            parameter = json.dumps([key for key in keys if statement.form.accepts(key)])
            if statement.then is not None:
                rows = await asyncio.to_thread(self._write, statement.sql, parameter, statement.then)
            else:
                rows = list(await connection.execute_fetchall(statement.sql, (parameter,)))
            if not (rows and statement.writes):
                await self._trust(plan.state, functools.partial(_look, connection, plan))
            return rows
        except sqlite3.Error:
            self._plans.expire()
            await self._drop()
            raise
        finally:
            if self._alone:  # other gateways wait for their turn
                await self._drop()

    def _write(self, sql: str, parameter: str, then: str) -> list[Any]:
        """Find the rows and delete them on a connection of its own; the one for look-ups stays read-only. Blocks."""
        with contextlib.closing(sqlite3.connect(self._uri, **self._options(self._busy_s))) as connection:
            try:
                if not connection.execute(sql, (parameter,)).fetchall():
                    return []  # an invalid ticket takes no lock
                connection.execute("begin immediate")
                rows = list(connection.execute(sql, (parameter,)))
                connection.execute(then, (json.dumps([row[0] for row in rows]),))
                connection.execute("commit")
                return rows
            except sqlite3.OperationalError as exc:
                # The primary code of the extended one (sqlite.org/rescode.html).
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
                raise CannotRedeem(f"{self._path} is read-only for us: a ticket has to be deleted when used") from None

    async def _found(self, connection: aiosqlite.Connection) -> TablesFound:
        columns: list[SchemaColumn] = []
        for table, name in self._layout.tables().items():
            schema, _, bare = name.rpartition(".")
            rows = await connection.execute_fetchall(_COLUMNS, (bare, schema or "main"))
            columns += [SchemaColumn(table, row[0], row[1], indexed=bool(row[2])) for row in rows]
        ((version,),) = await connection.execute_fetchall("pragma schema_version")
        place = StoreLocation("", "{}:{}".format(*self._file) if self._file is not None else "", "")
        state = StoreState(place, str(version))
        return TablesFound(columns=tuple(columns), version=sqlite3.sqlite_version, state=state)

    def _describe(self, exc: Exception) -> str:
        if isinstance(exc, OSError):
            return f"{self._path} cannot be read: {exc.strerror}"
        return f"{self._path} cannot be read: {exc if isinstance(exc, sqlite3.Error) else type(exc).__name__}"

    @property
    def _uri(self) -> str:
        # Not mode=ro: such a connection cannot roll back the journal of a writer that crashed.
        return f"file:{quote(str(self._path))}?mode=rw"

    @property
    def _busy_s(self) -> float:
        return self._timeout_s * BUSY_SHARE

    @staticmethod
    def _options(busy_s: float) -> dict[str, Any]:
        return {"uri": True, "timeout": busy_s, "isolation_level": None}

    async def _connected(self) -> aiosqlite.Connection:
        # The old file is still open, so its inode number cannot be reused.
        status = _status(self._path)
        if status != self._file:
            await self._drop()
            self._plans.expire()
        if self._opening is None:
            self._file = status
            self._opening = asyncio.create_task(self._connect(), name="open the session store")
        opening = self._opening
        try:
            # Shielded: a deadline must not lose a connection that its thread is about to open.
            return await asyncio.shield(opening)
        finally:
            if opening.done() and (opening.cancelled() or opening.exception() is not None):
                self._opening = None

    async def _connect(self) -> aiosqlite.Connection:
        try:
            connection, alone = await self._connect_with(self._busy_s), False
        except sqlite3.OperationalError as exc:
            if not lacks_room(exc):
                raise
            connection, alone = await self._connect_alone(), True
        if alone and not self._alone:
            _log.warning(
                "there is no room beside the session store: one process at a time reads it", file=str(self._path)
            )
        elif self._alone and not alone:
            _log.info("there is room beside the session store again", file=str(self._path))
        self._alone = alone
        return connection

    async def _connect_alone(self) -> aiosqlite.Connection:
        for pause_s in pauses(self._busy_s):
            try:
                return await self._connect_with(0, ALONE)
            except sqlite3.OperationalError as exc:
                if not is_locked(exc):
                    raise
            await asyncio.sleep(pause_s)
        return await self._connect_with(0, ALONE)

    async def _connect_with(self, busy_s: float, *first: str) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(self._uri, **self._options(busy_s))
        try:
            for statement in (*first, "pragma query_only = 1", TOUCH):
                await connection.execute_fetchall(statement)
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
        except asyncio.CancelledError:
            opening.add_done_callback(_stop)
            raise
        except (sqlite3.Error, ValueError) as exc:
            _log.debug("session store could not be closed in order", error=type(exc).__name__)


async def _look(connection: aiosqlite.Connection, plan: Plan, session_ids: Sequence[str]) -> Evidence:
    """Probe the file: whether any session is live, and how many of these are."""
    fitting = json.dumps([each for each in session_ids if plan.by_session.form.accepts(each)])
    seen = len(list(await connection.execute_fetchall(plan.by_session.sql, (fitting,))))
    ((any_live,),) = await connection.execute_fetchall(plan.any_live)
    return Evidence(bool(any_live), len(session_ids), seen)


def _stop(opening: asyncio.Task[aiosqlite.Connection]) -> None:
    """End the thread of a connection that was opened when it was not wanted any more, and close its file."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().stop()


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
