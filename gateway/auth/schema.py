"""From the columns found in a Better Auth database to the one lookup that the stores run, and what is remembered of it.

Pure: columns and `now` go in, SQL or a refusal comes out. Every lookup takes a token and gives user id, session id and
the end of the session in seconds since the epoch, for a session that is live now and whose user is not banned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

#: What may be a token at all. A NUL or a lone surrogate would make a driver raise instead of finding nothing.
TOKEN: Final = re.compile(r"[\x21-\x7e]{16,512}")

#: Looked up by `check`: too short for a token, so it is in no table.
PROBE: Final = "watchout"

#: Migrations may add ban columns to a running system; a plan older than this is made anew.
PLAN_TRUSTED_S: Final = 60.0

#: A fault whose text changes is not said more often than this.
FAULT_QUIET_S: Final = 10.0

#: `to_regclass` follows the search_path, as the lookup itself does; format_type shows the precision of a timestamp.
DETECT_POSTGRES: Final = """
select t.name, a.attname::text, format_type(a.atttypid, a.atttypmod)
from (values ('session', to_regclass('"session"')), ('user', to_regclass('"user"'))) as t(name, oid)
join pg_attribute a on a.attrelid = t.oid
where a.attnum > 0 and not a.attisdropped
"""

DETECT_SQLITE: Final = """
select 'session', name, type from pragma_table_info('session')
union all select 'user', name, type from pragma_table_info('user')
"""


def well_formed(token: str) -> bool:
    """Whether the store is to be asked for this token at all."""
    return TOKEN.fullmatch(token) is not None


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the database names it; `type` as the database spells it."""

    table: str
    name: str
    type: str

    @property
    def sql(self) -> str:
        """Quoted and qualified: SQLite reads a quoted name that is not qualified and not there as text."""
        quoted = self.name.replace('"', '""')
        return f'{self.table[0]}."{quoted}"'


@dataclass(frozen=True, slots=True)
class Lookup:
    """SQL that takes a token; `summary` says for the log what it was made from."""

    sql: str
    summary: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why sessions cannot be looked up in this database, and what would help."""

    reason: str


class _Refused(Exception):
    """Carries the reason out of the checks below."""


def postgres_lookup(columns: Iterable[Column]) -> Lookup | Refusal:
    """The lookup for PostgreSQL, its parameter spelled ``$1``."""
    return _plan(columns, _POSTGRES)


def sqlite_lookup(columns: Iterable[Column]) -> Lookup | Refusal:
    """The lookup for SQLite, its parameter spelled ``?``."""
    return _plan(columns, _SQLITE)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What differs between the two databases: a moment is comparable with `now`, `seconds` turns it into a number."""

    parameter: str
    now: str
    no: str
    text: Callable[[Column], str]
    moment: Callable[[Column], str]
    seconds: Callable[[str], str]
    check_token: Callable[[Column], None]
    check_flag: Callable[[Column], None]


def _plan(columns: Iterable[Column], dialect: _Dialect) -> Lookup | Refusal:
    found = {(column.table, column.name): column for column in columns}

    def optional(table: str, camel: str, snake: str) -> Column | None:
        return found.get((table, camel)) or found.get((table, snake))

    def needed(table: str, camel: str, snake: str) -> Column:
        if not any(table == present for present, _ in found):
            raise _Refused(
                f'there is no table "{table}" here: Better Auth\'s migrations have not run yet, or it keeps sessions '
                "elsewhere"
            )
        if (column := optional(table, camel, snake)) is None:
            raise _Refused(f'table "{table}" has neither a column "{camel}" nor "{snake}"')
        return column

    try:
        session_id, token = needed("session", "id", "id"), needed("session", "token", "token")
        session_user, user_id = needed("session", "userId", "user_id"), needed("user", "id", "id")
        expires = needed("session", "expiresAt", "expires_at")
        dialect.check_token(token)
        ends = dialect.moment(expires)
        live = [f"{token.sql} = {dialect.parameter}", f"{ends} > {dialect.now}"]
        banned, ban_expires = optional("user", "banned", "banned"), optional("user", "banExpires", "ban_expires")
        if banned is not None:
            dialect.check_flag(banned)
            holds = f"coalesce({banned.sql}, {dialect.no})"
            if ban_expires is not None:
                holds += f" and ({ban_expires.sql} is null or {dialect.moment(ban_expires)} > {dialect.now})"
            live.append(f"not ({holds})")
    except _Refused as refused:
        return Refusal(str(refused))
    sql = (  # of the catalogue's own names, quoted
        f"select {dialect.text(user_id)}, {dialect.text(session_id)}, {dialect.seconds(ends)} "  # noqa: S608
        f'from "session" s join "user" u on {user_id.sql} = {session_user.sql} where {" and ".join(live)}'
    )
    bans = "without bans" if banned is None else "with bans"
    return Lookup(sql, f"{session_user.name}, {expires.name} {expires.type}, {bans}")


def _postgres_moment(column: Column) -> str:
    if column.type.endswith("with time zone"):
        return column.sql
    # Drizzle (snake_case) and Prisma (timestamp(3)) write UTC into a timestamp without time zone.
    if column.type.startswith("timestamp") and ("_" in column.name or column.type.startswith("timestamp(3)")):
        return f"({column.sql} at time zone 'UTC')"
    if column.type.startswith("timestamp"):
        alter = (
            f'ALTER TABLE "{column.table}" ALTER COLUMN "{column.name}" TYPE timestamptz '
            f"USING \"{column.name}\" AT TIME ZONE '<zone of the Better Auth process>'"
        )
        raise _Refused(
            f'"{column.table}"."{column.name}" is a timestamp without time zone, as Better Auth up to 1.3.10 makes it: '
            f"local time of a zone that is not known here, so expired sessions could pass. Repair it with: {alter}"
        )
    raise _Refused(f'"{column.table}"."{column.name}" is {column.type}, expected timestamp with time zone')


def _postgres_check_token(column: Column) -> None:
    if not column.type.startswith(("text", "character varying")):
        raise _Refused(f'"session"."token" is {column.type}, expected text')


def _postgres_check_flag(column: Column) -> None:
    if column.type != "boolean":
        raise _Refused(f'"user"."{column.name}" is {column.type}, expected boolean')


_POSTGRES: Final = _Dialect(
    parameter="$1",
    now="now()",
    no="false",
    text=lambda column: f"{column.sql}::text",
    moment=_postgres_moment,
    seconds=lambda moment: f"extract(epoch from {moment})::float8",
    check_token=_postgres_check_token,
    check_flag=_postgres_check_flag,
)


def _sqlite_moment(column: Column) -> str:
    # kysely writes ISO text and Drizzle whole milliseconds; the declared type says neither. What is not a date gives
    # null, which is no live session.
    return (
        f"case typeof({column.sql}) when 'text' then (julianday({column.sql}) - 2440587.5) * 86400.0 "
        f"when 'integer' then {column.sql} / 1000.0 when 'real' then {column.sql} / 1000.0 end"
    )


def _any_type(column: Column) -> None:
    """SQLite keeps any value in any column, whatever its type is called."""
    del column


_SQLITE: Final = _Dialect(
    parameter="?",
    now="(julianday('now') - 2440587.5) * 86400.0",
    no="0",
    text=lambda column: f"cast({column.sql} as text)",
    moment=lambda column: f"({_sqlite_moment(column)})",
    seconds=lambda moment: moment,
    check_token=_any_type,
    check_flag=_any_type,
)


class Detection:
    """What a store remembers: the lookup in use, and the fault that the log already knows. `now` is monotonic, in s."""

    def __init__(self) -> None:
        self._lookup: Lookup | None = None
        self._trusted_until = 0.0
        self._fault: str | None = None
        self._quiet_until = 0.0

    def current(self, now: float) -> Lookup | None:
        """The lookup to use, or None when the columns have to be read (again)."""
        return self._lookup if now < self._trusted_until else None

    def found(self, lookup: Lookup, now: float) -> bool:
        """Take a lookup into use; True when it is news."""
        news = lookup != self._lookup
        self._lookup, self._trusted_until = lookup, now + PLAN_TRUSTED_S
        return news

    def forget(self) -> None:
        """Read the columns again at the next lookup: a statement failed, so they may have changed."""
        self._trusted_until = 0.0

    def failed(self, reason: str, now: float) -> bool:
        """Note that the store could not be asked; True when that is to be logged."""
        news = self._fault is None or (reason != self._fault and now >= self._quiet_until)
        if news:
            self._fault, self._quiet_until = reason, now + FAULT_QUIET_S
        return news

    def answered(self) -> bool:
        """Note that the store answered; True when it could not be asked before."""
        was, self._fault = self._fault, None
        return was is not None
