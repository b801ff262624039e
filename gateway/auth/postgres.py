"""Sessions in Better Auth's PostgreSQL, by asyncpg.

Connections open at the first lookup, so the gateway comes up while PostgreSQL is down and finds it when it is back.
Whatever goes wrong below is `StoreUnavailable`; no text made here holds a token or the database's URL.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import asyncpg

from common import log
from common.errors import StoreUnavailable
from gateway.auth.identity import Identity
from gateway.auth.schema import DETECT_POSTGRES, PROBE, Column, Detection, Refusal, postgres_lookup, well_formed

_log = log.get("gateway.auth")

#: Lookups under way or waiting for a connection; five connections answer about so many in a second.
MAX_LOOKUPS: Final = 4096

#: A connection that rests longer is closed: fewer are half-open after a network loss.
MAX_REST_S: Final = 60.0

#: How long `close` waits for the server to hear of it.
CLOSE_S: Final = 1.0

#: The connection was lost under the statement. Other resting ones may be lost too, a new one need not be.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # The server's farewell came while the connection rested: the driver then finds itself in the wrong state.
    asyncpg.InternalClientError,
    OSError,
)


class PostgresStore:
    """A `SessionStore` on PostgreSQL."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connections = connections
        self._pool: Any = None
        self._asking: set[asyncio.Task[Any]] = set()
        self._detection = Detection()

    async def open(self) -> None:
        """Make the pool; it connects when it is asked."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._connections,
            max_inactive_connection_lifetime=MAX_REST_S,
            timeout=self._timeout_s,
            # PgBouncer hands each transaction to another server connection, where a named statement is not known.
            statement_cache_size=0,
            server_settings={"application_name": "watchout-gateway"},
            # A lookup leaves nothing behind; the default would send four more statements after each.
            reset=_leave_as_it_is,
        )

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
        pool, self._pool = self._pool, None
        if pool is None:
            return
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await pool.close()
        except Exception as exc:  # a pool that cannot close in order has terminated its connections
            _log.debug("session store cut off", error=type(exc).__name__)

    async def _ask(self, token: str) -> Any:
        if self._pool is None:
            raise StoreUnavailable("the session store is closed")
        if len(self._asking) >= MAX_LOOKUPS:
            raise self._unavailable(f"{MAX_LOOKUPS} lookups are waiting already")
        # A task of its own: a client that leaves meanwhile would otherwise cost a connection each time.
        task = asyncio.create_task(self._answer(self._pool, token), name="look up a session")
        self._asking.add(task)
        task.add_done_callback(self._answered)
        await asyncio.wait({task})
        if task.cancelled():  # by `close`
            raise StoreUnavailable("the session store is closed")
        return task.result()

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though whoever asked may have left

    async def _answer(self, pool: Any, token: str) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                row = await self._look_up(pool, token)
        except StoreUnavailable as exc:
            raise self._unavailable(str(exc)) from None
        except TimeoutError:
            raise self._unavailable(f"PostgreSQL gave no answer within {self._timeout_s:g} s") from None
        except Exception as exc:
            # A server that is not PostgreSQL makes the driver raise nearly anything.
            raise self._unavailable(_connecting(exc)) from None
        if self._detection.answered():
            _log.info("session store answers again")
        return row

    async def _look_up(self, pool: Any, token: str) -> Any:
        for _ in range(self._connections + 1):  # at worst every resting connection is lost, and then a new one is made
            connection = await pool.acquire()
            try:
                return await self._run(connection, token)
            except StoreUnavailable:
                raise
            except _LOST:
                _terminate(connection)
            except BaseException:
                # Its answer may still be on the way. Asking the server to cancel could outlast the deadline.
                _terminate(connection)
                raise
            finally:
                await pool.release(connection)
        raise StoreUnavailable("PostgreSQL closes every connection")

    async def _run(self, connection: Any, token: str) -> Any:
        loop = asyncio.get_running_loop()
        lookup = self._detection.current(loop.time())
        if lookup is None:
            plan = postgres_lookup(Column(*row) for row in await connection.fetch(DETECT_POSTGRES))
            if isinstance(plan, Refusal):
                raise StoreUnavailable(plan.reason)
            if self._detection.found(plan, loop.time()):
                _log.info("session store found", store="postgresql", schema=plan.summary)
            lookup = plan
        try:
            return await connection.fetchrow(lookup.sql, token)
        except asyncpg.PostgresError as exc:
            if isinstance(exc, _LOST):
                raise
            self._detection.forget()
            # Not the message: the server may repeat a parameter in it, and the parameter is the token.
            raise StoreUnavailable(f"PostgreSQL refused the lookup: {type(exc).__name__} {exc.sqlstate}") from None

    def _unavailable(self, reason: str) -> StoreUnavailable:
        if self._detection.failed(reason, asyncio.get_running_loop().time()):
            _log.warning("session store unavailable", reason=reason)
        return StoreUnavailable(reason)


def _connecting(exc: Exception) -> str:
    """Why there is no connection. The server has not seen a token then, so its words may be repeated."""
    if isinstance(exc, asyncpg.PostgresError):
        return f"PostgreSQL refused: {exc}"
    if isinstance(exc, OSError):
        return f"PostgreSQL cannot be reached: {exc.strerror or type(exc).__name__}"
    return f"PostgreSQL cannot be asked: {type(exc).__name__}"


def _terminate(connection: Any) -> None:
    # One that was lost may have left the pool by itself, and then can no longer be told anything.
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _leave_as_it_is(connection: Any) -> None:
    del connection
