"""Looks sessions up in Better Auth's PostgreSQL database with asyncpg.

Connections are opened by the first look-ups, so the gateway starts while PostgreSQL is down and finds it when it is
back. No text made here contains a token or the database URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import asyncpg

from watchout.common import log
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings.database_url import InvalidDatabaseUrl, parse
from watchout.identity.schema.catalogue import HiddenTable, Layout, SchemaColumn, TablesFound, literal, quoted
from watchout.identity.schema.dialects import POSTGRES, Dialect
from watchout.identity.schema.plan import Plan, Statement
from watchout.identity.sources.connecting import PostgresConnector, option_notices
from watchout.identity.sources.continuity import Evidence, StoreLocation, StoreState
from watchout.identity.sources.listen import RevocationListener
from watchout.identity.sources.session_store import CannotRedeem, ChangedStore, Choose, DatabaseStore

_log = log.get("identity.sources.postgres")

#: A connection that is idle for longer is closed, in seconds: fewer are half-open after a network loss.
MAX_REST_S: Final = 60.0

#: How long `close` waits for an orderly end of the connections, in seconds.
CLOSE_S: Final = 0.3

#: The tables' columns, types, and what we may do. `to_regclass` follows the search_path as the statements themselves
#: do; format_type shows the precision of a timestamp; a view has no index and needs none here.
_COLUMNS: Final = """
select t.name, a.attname::text, format_type(a.atttypid, a.atttypmod), has_column_privilege(c.oid, a.attnum, 'select'),
  c.relkind not in ('r', 'p') or exists (
    select from pg_index i where i.indrelid = c.oid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null),
  has_table_privilege(c.oid, 'delete')
from unnest($1::text[], $2::text[]) as t(name, identifier)
join pg_class c on c.oid = to_regclass(t.identifier)
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
order by t.name, a.attnum
"""

#: In which schema of a search path each table is: the first that has it, or else the first.
_SCHEMAS: Final = """
select t.name, coalesce((
  select s.schema from unnest($3::text[]) with ordinality s(schema, n)
  where to_regclass(format('%I.%I', s.schema, t.bare)) is not null order by s.n limit 1), ($3::text[])[1])
from unnest($1::text[], $2::text[]) as t(name, bare)
"""

#: Every table that is read, also those beneath views, each with the role that reads it: a view is read by its owner.
#: Row level security then is in force as PostgreSQL itself says (`check_enable_rls`), and open to the role where a
#: permissive policy lets it see every row and no restrictive one says otherwise.
_BENEATH: Final = """
with recursive tables(name, oid, reader) as (
  select t.name, to_regclass(t.identifier)::oid, (select oid from pg_roles where rolname = current_user)
  from unnest($1::text[], $2::text[]) as t(name, identifier)
  union
  select t.name, d.refobjid, case when exists (
    select from unnest(c.reloptions) o(said) where o.said ~* '^security_invoker=(true|on|1|yes)$'
  ) then t.reader else c.relowner end
  from tables t join pg_class c on c.oid = t.oid and c.relkind = 'v'
  join pg_rewrite w on w.ev_class = c.oid
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
    and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid
)
select t.name, c.oid::text, c.relkind::text, format('%I.%I', n.nspname, c.relname), r.rolname::text,
  c.relrowsecurity and not r.rolsuper and not r.rolbypassrls
    and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
    and not (p.selects and (p.deletes or t.name <> 'verification') and p.restrictive = '{}'),
  p.restrictive, c.oid = to_regclass(i.identifier)
from tables t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
join pg_roles r on r.oid = t.reader
join unnest($1::text[], $2::text[]) as i(name, identifier) on i.name = t.name
cross join lateral (
  select coalesce(bool_or(p.permissive and p.cmd in ('r', '*') and p.expression = 'true'), false) as selects,
    coalesce(bool_or(p.permissive and p.cmd in ('d', '*') and p.expression = 'true'), false) as deletes,
    coalesce(array_agg(p.name) filter (where not p.permissive and p.expression <> 'true'
      and (p.cmd in ('r', '*') or (p.cmd = 'd' and t.name = 'verification'))), '{}') as restrictive
  from (
    select polname::text as name, polpermissive as permissive, polcmd::text as cmd,
      pg_get_expr(polqual, polrelid) as expression
    from pg_policy where polrelid = c.oid and (0 = any(polroles) or exists (
      select from unnest(polroles) m(oid) where pg_has_role(r.oid, m.oid, 'usage')))
  ) p
) p
"""

#: The zone is only there to be refused when the server does not know it.
_SERVER: Final = """
select current_setting('server_version'), current_user::text,
  case when has_function_privilege('pg_control_system()', 'execute')
    then (select system_identifier::text from pg_control_system()) else '' end,
  (select oid::text from pg_database where datname = current_database()),
  pg_is_in_recovery(), now() at time zone $1::text
"""

#: What changes when other rows may be seen than before, by whatever cause but a statement on the rows themselves: the
#: server's start, the tables, their files (TRUNCATE, a change of type), views, policies, and what they do to our role.
#: It is read in the statement of the look-up itself, under its locks. `{tables}` are oids.
_MARK: Final = """
select concat_ws(' ', extract(epoch from pg_postmaster_start_time()), pg_is_in_recovery(), d.oid,
  (select string_agg(concat_ws(':', c.oid, c.relkind, c.relfilenode, c.relrowsecurity, c.relforcerowsecurity,
    row_security_active(c.oid)), ' ' order by c.oid) from pg_class c where c.oid in ({tables})),
  (select string_agg(concat_ws(':', w.oid, w.xmin::text), ' ' order by w.oid)
    from pg_rewrite w where w.ev_class in ({tables})),
  (select string_agg(concat_ws(':', p.oid, p.xmin::text), ' ' order by p.oid)
    from pg_policy p where p.polrelid in ({tables}))) as mark,
  extract(epoch from clock_timestamp())::float8 as clock
from pg_database d where d.datname = current_database()
"""

READ_ONLY: Final = (
    "the database is read-only for us (a standby, default_transaction_read_only, or a full disk at the provider): a "
    "ticket has to be deleted when used. Set DATABASE_URL to the primary"
)

#: The connection was lost during the statement. Other idle ones may be lost as well; a new one may work.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # The server closed an idle connection: the driver then finds itself in the wrong state.
    asyncpg.InternalClientError,
    OSError,
)


class PostgresStore(DatabaseStore):
    """A `SessionStore` on PostgreSQL. Created by `open_store` for a `DATABASE_URL` with ``postgres://``.

    Args:
        url: The database URL; see `common.settings.database_url`.
        layout: Names of the tables and the operator's other settings.
        timeout_s: Deadline of each call, in seconds.
        connections: Most connections, besides the one of `listen`.
        max_waiting: Most one-time tickets that wait to be redeemed.
    """

    kind: ClassVar[str] = "PostgreSQL"
    dialect: ClassVar[Dialect] = POSTGRES

    def __init__(
        self, url: str, layout: Layout | None = None, *, timeout_s: float, connections: int, max_waiting: int
    ) -> None:
        super().__init__(layout or Layout(), timeout_s, connections, max_waiting)
        self._url = parse(url)
        self._connector = PostgresConnector(self._url, timeout_s=timeout_s)
        self._connections = connections
        self._pool: Any = None

    async def listen(self, channel: str, on_change: Callable[[str | None, str | None], None]) -> None:
        """Report sessions and users that change, by the trigger of docs/better-auth.md; runs until it is cancelled.

        Args:
            channel: The channel of the trigger (`REVOCATION_CHANNEL`).
            on_change: Called as ``on_change(session_id, user_id)`` for each change, with None for what did not
                change. Both are None when anything may have changed: after each connect, and after an overflow.
        """
        if self._url.transaction_pooler:
            _log.warning(
                "REVOCATION_CHANNEL through a transaction pooler (port 6543, pgbouncer=true): notifications get lost, "
                "sign-outs are seen at the next re-check; use the direct URL",
                channel=channel,
            )

        async def connect() -> Any:
            return await self._connector.connect("watchout-listen")

        await RevocationListener(connect, channel, on_change, timeout_s=self._timeout_s, describe=self._describe).run()

    async def _prepare(self) -> None:
        try:
            await asyncio.to_thread(self._connector.check)
        except InvalidDatabaseUrl as fault:
            raise StartError(f"DATABASE_URL cannot be used: expected {fault}") from None
        for event, options in option_notices(self._url):
            _log.warning(event, options=options)
        self._pool = await asyncpg.create_pool(
            connect=self._connect,
            min_size=0,
            max_size=self._connections,
            max_inactive_connection_lifetime=MAX_REST_S,
            # A look-up leaves nothing to reset; the default would send four more statements after each.
            reset=_no_reset,
        )

    async def _connect(self, *_: object, **of_pool: Any) -> Any:
        """Open a connection for the pool, which has no URL of its own."""
        return await self._connector.connect("watchout-gateway", **of_pool)

    async def _release(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await pool.close()
        except Exception as exc:  # a pool that cannot close in order has terminated its connections
            _log.debug(
                "connections to the session store were terminated: they did not close in time", error=type(exc).__name__
            )

    async def _run(self, choose: Choose, keys: Sequence[str]) -> list[Any]:
        pool = self._pool
        for _ in range(self._connections + 1):  # at worst each idle connection is lost, then a new one is opened
            connection = await pool.acquire()
            try:
                return await self._run_on(connection, choose, keys)
            except StoreUnavailable:
                raise
            except _LOST:
                _terminate(connection)
            except BaseException:
                # The result may still arrive, and asking the server to cancel could take longer than the deadline.
                _terminate(connection)
                raise
            finally:
                await pool.release(connection)
        raise StoreUnavailable("PostgreSQL closes every connection")

    async def _run_on(self, connection: Any, choose: Choose, keys: Sequence[str]) -> list[Any]:
        for _ in range(2):
            plan = await self._plan_on(connection)
            statement = choose(plan)
            mark, clock_s, rows = await self._fetched(connection, statement, keys)
            if mark == plan.state.mark:
                break
            # The statement read other tables than those it was made for.
            self._plans.expire()
            if statement.writes and rows:
                return rows  # the ticket was deleted, so it was valid
        else:
            raise StoreUnavailable("the tables change while they are read")
        await self._trust(plan.state, functools.partial(_look, connection, plan))
        if statement is not plan.members and (len(rows) < len(keys) or not keys):
            self._believe_clock(clock_s)
        return rows

    async def _plan_on(self, connection: Any) -> Plan:
        try:
            return await self._planned(lambda: self._found(connection))
        except asyncpg.PostgresError as exc:
            if isinstance(exc, _LOST):
                raise
            # No key was sent yet, so the server's message is safe to log.
            raise StoreUnavailable(f"PostgreSQL refused to show its tables: {exc}") from None

    async def _fetched(
        self, connection: Any, statement: Statement, keys: Sequence[str]
    ) -> tuple[str, float, list[Any]]:
        """Run a statement; return the mark, the server's clock in seconds, and the rows."""
        try:
            # One statement is a transaction of its own. The driver sends Parse and Bind without a Sync between them,
            # so PgBouncer's transaction mode keeps them together.
            found = await connection.fetch(statement.sql, [key for key in keys if statement.form.accepts(key)])
        except asyncpg.PostgresError as exc:
            if isinstance(exc, _LOST):
                raise
            self._plans.expire()
            if statement.writes and isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
                raise CannotRedeem(READ_ONLY) from None
            # Without the message, in which the server may repeat a parameter: the token.
            refused = f"PostgreSQL refused the look-up: {type(exc).__name__} {exc.sqlstate}"
            # Sessions may be readable while tickets cannot be deleted (a right taken away, a full disk).
            raise (CannotRedeem if statement.writes else StoreUnavailable)(refused) from None
        mark, clock_s = found[0][:2]
        return mark, clock_s, [row[2:] for row in found if row[2] is not None]

    def _believe_clock(self, server_s: float) -> None:
        reason = self._continuity.check_clock(server_s, time.time(), asyncio.get_running_loop().time())
        if reason is not None:
            raise ChangedStore(reason)

    async def _found(self, connection: Any) -> TablesFound:
        names = await self._names(connection)
        tables = self._layout.tables() | names
        identifiers = [quoted(name) for name in tables.values()]
        version, role, cluster, database, standby, _ = await connection.fetchrow(
            _SERVER, self._layout.naive_timezone or "UTC"
        )
        beneath = await connection.fetch(_BENEATH, list(tables), identifiers)
        kinds = sorted(f"{row[0]}:{row[1]}:{row[2]}" for row in beneath if row[7] and row[0] != "verification")
        oids = [f"to_regclass({literal(name)})" for name in identifiers] + [row[1] for row in beneath if not row[7]]
        mark = _MARK.replace("{tables}", ", ".join(dict.fromkeys(oids)))
        place = StoreLocation(cluster, database, " ".join(kinds))
        state = StoreState(place, (await connection.fetchrow(mark))[0], standby)
        rows = await connection.fetch(_COLUMNS, list(tables), identifiers)
        return TablesFound(
            columns=tuple(SchemaColumn(*row[:5]) for row in rows),
            version=version,
            role=role,
            may_delete=any(row[0] == "verification" and row[5] for row in rows),
            names=names,
            hidden=tuple(HiddenTable(row[0], row[3], row[4], tuple(row[6])) for row in beneath if row[5]),
            mark=mark,
            state=state,
        )

    async def _names(self, connection: Any) -> dict[str, str]:
        """Return names with a schema, by the URL's search path, for the tables that the settings name without one."""
        bare = {table: name for table, name in self._layout.tables().items() if "." not in name}
        if not self._url.search_path or not bare:
            return {}
        path = list(self._url.search_path)
        if "$user" in path:
            role = await connection.fetchval("select current_user::text")
            path = [role if schema == "$user" else schema for schema in path]
        rows = await connection.fetch(_SCHEMAS, list(bare), list(bare.values()), path)
        return {table: f"{schema}.{bare[table]}" for table, schema in rows}

    def _describe(self, exc: Exception) -> str:
        """See `DatabaseStore`. The connection failed before a token was sent, so the server's message is safe."""
        if isinstance(exc, asyncpg.PostgresError):
            return f"PostgreSQL refused: {exc}"
        if isinstance(exc, OSError):
            return f"PostgreSQL cannot be reached: {exc.strerror or type(exc).__name__}"
        return f"PostgreSQL cannot be asked: {type(exc).__name__}"


async def _look(connection: Any, plan: Plan, session_ids: Sequence[str]) -> Evidence:
    """Probe the store: whether any session is live, and how many of these are."""
    fitting = [each for each in session_ids if plan.by_session.form.accepts(each)]
    rows = await connection.fetch(plan.by_session.sql, fitting)
    seen = sum(row[2] is not None for row in rows)
    return Evidence(await connection.fetchval(plan.any_live), len(session_ids), seen)


def _terminate(connection: Any) -> None:
    # A lost connection may have left the pool already; then this raises.
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _no_reset(connection: Any) -> None:
    del connection
