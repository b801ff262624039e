"""From what a Better Auth database has to the statements that the stores run on it, and how long they are trusted.

Pure: columns and `now` go in, SQL or a refusal comes out. The SQL holds names of the settings and of the catalogue,
quoted, and nothing else. Every statement takes one list of texts. A look-up gives rows for `read_identity`, of sessions
that are live now and whose user is there and not banned.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from watchout.identity.caller import Identity, Organizations
from watchout.identity.credentials import TOKEN
from watchout.identity.sources.continuity import NO_STATE, State

#: A NUL or a lone surrogate would make a driver raise instead of finding nothing.
_TEXT_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,512}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SHA256_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{43}")

#: What Better Auth's one-time-token plugin puts before the token in ``verification.identifier``.
TICKET_PREFIX: Final = "one-time-token:"

#: Migrations may add ban columns to a running system; a plan older than this is made anew.
PLAN_TRUSTED_S: Final = 60.0


class Form(enum.Enum):
    """What a key must look like to be looked up: as the database itself would write it, so that it can be compared."""

    TOKEN = "token"  # noqa: S105  the name of a form
    TEXT = "text"
    UUID = "uuid"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"

    def fits(self, key: str) -> bool:
        """Whether the database is to be asked for this key at all; one that does not fit is in no table."""
        if (most := _MOST.get(self)) is not None:
            return _WHOLE.fullmatch(key) is not None and int(key) <= most
        return _FORMS[self].fullmatch(key) is not None


_FORMS: Final = {Form.TOKEN: TOKEN, Form.TEXT: _TEXT_ID, Form.UUID: _UUID}
_MOST: Final = {Form.SMALLINT: 2**15 - 1, Form.INTEGER: 2**31 - 1, Form.BIGINT: 2**63 - 1}


def ticket_identifiers(ticket: str) -> list[str]:
    """Where the one-time-token plugin may keep this ticket: in plain, and by its hash (``storeToken: "hashed"``)."""
    if not Form.TOKEN.fits(ticket):
        return []
    digest = base64.urlsafe_b64encode(hashlib.sha256(ticket.encode()).digest()).decode().rstrip("=")
    hashed = TICKET_PREFIX + digest
    # What looks like a hash is only looked up by its own hash: otherwise a hash that is kept would be a ticket itself.
    return [hashed] if _SHA256_BASE64URL.fullmatch(ticket) else [TICKET_PREFIX + ticket, hashed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What only the operator knows of the database: names of tables (``table`` or ``schema.table``), a time zone.

    `naive_timezone` is that of dates without one that Better Auth 1.3.0 to 1.3.10 wrote. With `organizations`, the
    member table is read too.
    """

    session: str = "session"
    user: str = "user"
    member: str = "member"
    verification: str = "verification"
    naive_timezone: str | None = None
    organizations: bool = False

    def tables(self) -> dict[str, str]:
        """What each table is to us → its name here."""
        names = {"session": self.session, "user": self.user, "verification": self.verification}
        return names | ({"member": self.member} if self.organizations else {})

    def named(self, names: Mapping[str, str]) -> Layout:
        """The same with other names for some of the tables."""
        here = self.tables() | {"member": self.member} | dict(names)
        return replace(
            self,
            session=here["session"],
            user=here["user"],
            member=here["member"],
            verification=here["verification"],
        )


def quoted(name: str) -> str:
    """A table's name, or ``schema.table``, as SQL has it."""
    return ".".join(_quoted(part) for part in name.split("."))


def _quoted(part: str) -> str:
    return '"' + part.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the database names it; `type` as the database spells it.

    `table` says what its table is to us. `readable`: our role may read it. `indexed`: an index leads with it.
    """

    table: str
    name: str
    type: str
    readable: bool = True
    indexed: bool = True

    @property
    def sql(self) -> str:
        """Quoted and qualified: SQLite reads a quoted name that is not qualified and not there as text."""
        return f"{self.table[0]}.{_quoted(self.name)}"

    @property
    def normal(self) -> str:
        """The name as it is matched: ``expiresAt`` and ``expires_at`` are the same."""
        return self.name.lower().replace("_", "")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A table whose rows a policy may hide; `table` says what it is to us, `relation` is the one with the policies.

    `role` is who reads it: we, or the owner of a view. `restrictive` are policies that no other one lifts.
    """

    table: str
    relation: str
    role: str
    restrictive: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """What is wrong, with the statements that mend it at the end."""
        why = f"row level security may hide rows of {self.relation} from the role {_quoted(self.role)}"
        if self.restrictive:
            names = ", ".join(map(_quoted, self.restrictive))
            return f"{why} (restrictive policies {names}): ALTER ROLE {_quoted(self.role)} BYPASSRLS"
        which = "" if self.table == "verification" else "FOR SELECT "
        return (
            f"{why}, so that what is not seen may be there: ALTER ROLE {_quoted(self.role)} BYPASSRLS, or CREATE "
            f"POLICY watchout ON {self.relation} {which}TO {_quoted(self.role)} USING (true)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the database has of the tables in the layout; `role` is who we are in it, `may_delete` from verification.

    `names` are those of tables that are called otherwise than in the layout: with the schema in which they were found.
    `hidden` are the tables of which row level security may hide rows. `mark` is SQL that gives one row, that of
    `state.mark` and of the server's clock, which then stand in front of each row of an answer; empty: neither.
    """

    columns: tuple[Column, ...]
    version: str = ""
    role: str = ""
    may_delete: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[Hidden, ...] = ()
    mark: str = ""
    state: State = NO_STATE


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with one parameter, a list of keys of this form.

    `then`, where there is one, is run with the keys of the rows that were found, in one transaction with `sql`.
    """

    sql: str
    form: Form
    writes: bool = False
    then: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be done with this database, and what would help.

    `final`: no migration and no grant will, only other settings or a repair. `hidden`: rows may be hidden from us.
    """

    reason: str
    final: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The statements for one database. `facts` and `warnings` say for the log what they were made from.

    `by_token`, `by_session` and `redeem` give rows for `read_identity`, `members` rows of user id and organizations.
    `redeem` takes identifiers of tickets, and removes those whose session it found: with it or not at all.
    `any_live` says without a parameter whether any session is live.
    """

    by_token: Statement
    by_session: Statement
    members: Statement | None
    redeem: Statement | Refusal
    any_live: str = ""
    state: State = field(default=NO_STATE, compare=False)
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_identity(row: Any) -> tuple[str, Identity]:
    """The key that was asked for, and the caller, from a row of a look-up."""
    key, user_id, session_id, expires_at, roles, organizations = row
    return key, Identity(
        user_id=user_id,
        session_id=session_id,
        expires_at=expires_at,
        roles=read_roles(roles),
        organizations=read_organizations(organizations),
    )


def read_roles(text: str | None) -> frozenset[str]:
    """Roles as Better Auth keeps them: in one text, separated by commas."""
    return frozenset(role for part in (text or "").split(",") if (role := part.strip()))


def read_organizations(text: str | None) -> Organizations:
    """Organizations from JSON of ``[[organization id, roles], …]``."""
    found: dict[str, frozenset[str]] = {}
    for organization, roles in json.loads(text) if text else ():
        if organization is not None:
            found[organization] = found.get(organization, frozenset()) | read_roles(roles)
    return found


class _Refused(Exception):
    """Carries a refusal out of the checks below."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.refusal = Refusal(reason, final)
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the two databases: a moment is comparable with `now`, `seconds` turns it into a number.

    `deletes_joined`: a DELETE may join other tables. `zone` is what a date is read in when it has none itself, `among`
    says that a column has one of the values in the parameter, `pairs` makes the JSON of `read_organizations`.
    """

    now: str
    no: str
    deletes_joined: bool
    text: Callable[[Column], str]
    form: Callable[[Column], Form]
    among: Callable[[Column], str]
    zone: Callable[[Column, _Table], str | None]
    moment: Callable[[Column, _Table], str]
    seconds: Callable[[str], str]
    pairs: Callable[[str, str], str]
    check_token: Callable[[Column], None]
    check_flag: Callable[[Column], None]


class _Table:
    """One table of those found: its columns by normalised name, and which of them we need but may not read."""

    def __init__(self, found: Found, layout: Layout, table: str) -> None:
        self.layout = layout
        self.name = layout.tables()[table]
        self.columns = [column for column in found.columns if column.table == table]
        self._role = found.role
        self._unreadable: list[Column] = []

    def optional(self, name: str) -> Column | None:
        """The column, or None where there is none; `name` is normalised."""
        fitting = [column for column in self.columns if column.normal == name]
        if len(fitting) > 1:
            names = " and ".join(_quoted(column.name) for column in fitting)
            raise _Refused(f"table {quoted(self.name)} has both {names}: which of them counts is not known")
        if not fitting:
            return None
        if not fitting[0].readable:
            self._unreadable.append(fitting[0])
        return fitting[0]

    def needed(self, camel: str, snake: str | None = None) -> Column:
        """The column. Raises a refusal when there is none."""
        if (column := self.optional(camel.lower())) is not None:
            return column
        raise _Refused(
            f'table {quoted(self.name)} has no column "{camel}"'
            if snake is None
            else f'table {quoted(self.name)} has neither a column "{camel}" nor "{snake}"'
        )

    def check_grants(self, *, delete: bool = False) -> None:
        """Refuse when columns that were asked for are not readable, or rows not to be deleted, with the remedy."""
        wanted = ([f"SELECT ({', '.join(_quoted(column.name) for column in self._unreadable)})"]
                  if self._unreadable else []) + (["DELETE"] if delete else [])  # fmt: skip
        if wanted:
            raise _Refused(
                f"rights are missing: GRANT {', '.join(wanted)} ON {quoted(self.name)} TO {_quoted(self._role)}"
            )

    @property
    def all_snake_case(self) -> bool:
        """Whether every name is, as Drizzle makes them."""
        return all(column.name == column.name.lower() for column in self.columns)


def make_plan(found: Found, layout: Layout, dialect: Dialect) -> Plan | Refusal:
    """The statements for this database, or why there are none."""
    layout = layout.named(found.names)
    tables = {table: _Table(found, layout, table) for table in layout.tables()}
    try:
        for table in ("session", "user"):
            if not tables[table].columns:
                raise _Refused(
                    f"there is no table {quoted(tables[table].name)} here: Better Auth's migrations have not run yet, "
                    "it keeps sessions elsewhere, or under another name (SESSION_TABLE, USER_TABLE)"
                )
        for hidden in found.hidden:
            if hidden.table != "verification":
                return Refusal(hidden.reason, hidden=True)
        members = _members(tables["member"], dialect, found.mark) if layout.organizations else None
        return _sessions(found, tables, members, dialect)
    except _Refused as refused:
        return refused.refusal


@dataclass(frozen=True, slots=True)
class _Members:
    """How organizations are read: all of some users, or joined to ``live``; `user` is the member's user id."""

    user: Column
    statement: Statement
    joined: str


def _marked(sql: str, mark: str, ctes: str = "") -> str:
    """The statement with the mark in front of each row, and one row with nothing else where there would be none."""
    if not mark:
        return f"with {ctes} {sql}" if ctes else sql
    before = f"{ctes}, " if ctes else ""
    return f"with {before}answer as ({sql}) select m.*, answer.* from ({mark}) m left join answer on true"  # noqa: S608


def _members(table: _Table, dialect: Dialect, mark: str) -> _Members:
    if not table.columns:
        raise _Refused(
            f"STREAM_ACCESS is organization, but there is no table {quoted(table.name)} here: Better Auth's "
            "organization plugin is not in use, its migrations have not run yet, or it is under another name "
            "(MEMBER_TABLE)"
        )
    user = table.needed("userId", "user_id")
    organization, role = table.needed("organizationId", "organization_id"), table.needed("role")
    table.check_grants()
    pairs = dialect.pairs(dialect.text(organization), dialect.text(role))
    rows = f"{pairs} from {quoted(table.name)} m where"
    return _Members(
        user,
        Statement(
            _marked(f"select {dialect.text(user)}, {rows} {dialect.among(user)} group by {user.sql}", mark),
            dialect.form(user),
        ),
        f"left join (select {user.sql} as member, {pairs} as organizations from {quoted(table.name)} m "  # noqa: S608
        f"where {user.sql} in (select live.member from live) group by {user.sql}) o on o.member = live.member",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _LookUp:
    """How callers are found: the columns of a row after its key, the tables that are joined, and which rows are live.

    A session is `s` in them and its user `u`; `token` is the session's.
    """

    columns: str
    tables: str
    live: str
    token: Column
    members: _Members | None
    dialect: Dialect
    mark: str

    @property
    def any(self) -> str:
        """Whether there is any live one."""
        return f"select exists (select 1 from {self.tables} where {self.live})"  # noqa: S608

    def by(self, key: Column, form: Form) -> Statement:
        """By a column of the session table."""
        return self._statement(
            f"select {self._row(key)} from {self.tables} where {self.dialect.among(key)} and {self.live}",  # noqa: S608
            form,
        )

    def by_ticket(self, verification: str, identifier: Column, value: Column, unexpired: str) -> Statement:
        """By the identifier of a ticket, whose value is the session's token, and which is deleted with that."""
        among = self.dialect.among(identifier)
        good = f"{among} and {unexpired} and {self.token.sql} = {self.dialect.text(value)} and {self.live}"
        row = self._row(identifier)
        if self.dialect.deletes_joined:
            return self._statement(
                f"delete from {verification} as v using {self.tables} where {good} returning {row}",  # noqa: S608
                Form.TEXT,
                writes=True,
            )
        return self._statement(
            f"select {row} from {verification} v cross join {self.tables} where {good}",  # noqa: S608
            Form.TEXT,
            writes=True,
            then=f"delete from {verification} as v where {among}",  # noqa: S608
        )

    def _row(self, key: Column) -> str:
        return f"{self.dialect.text(key)} as key, {self.columns}"

    def _statement(self, sql: str, form: Form, *, writes: bool = False, then: str | None = None) -> Statement:
        if self.members is None:
            return Statement(_marked(sql, self.mark), form, writes, then)
        rows = (
            "select live.key, live.user_id, live.session_id, live.ends, "  # noqa: S608
            f"live.roles, o.organizations from live {self.members.joined}"
        )
        return Statement(_marked(rows, self.mark, f"live as materialized ({sql})"), form, writes, then)


def _sessions(found: Found, tables: Mapping[str, _Table], members: _Members | None, dialect: Dialect) -> Plan:
    session, user = tables["session"], tables["user"]
    session_id, token = session.needed("id"), session.needed("token")
    session_user, user_id = session.needed("userId", "user_id"), user.needed("id")
    expires = session.needed("expiresAt", "expires_at")
    dialect.check_token(token)
    ends = dialect.moment(expires, session)
    live = [f"{ends} > {dialect.now}"]
    banned, ban_expires, role = user.optional("banned"), user.optional("banexpires"), user.optional("role")
    if banned is not None:
        dialect.check_flag(banned)
        holds = f"coalesce({banned.sql}, {dialect.no})"
        if ban_expires is not None:
            holds += f" and ({ban_expires.sql} is null or {dialect.moment(ban_expires, user)} > {dialect.now})"
        live.append(f"not ({holds})")
    session.check_grants()
    user.check_grants()

    look_up = _LookUp(
        columns=f"{dialect.text(user_id)} as user_id, "
        f"{dialect.text(session_id)} as session_id, {dialect.seconds(ends)} as ends, "
        f"{'null' if role is None else dialect.text(role)} as roles, "
        f"{'null' if members is None else user_id.sql} as member",
        tables=f"{quoted(session.name)} s join {quoted(user.name)} u on {user_id.sql} = {session_user.sql}",
        live=" and ".join(live),
        token=token,
        members=members,
        dialect=dialect,
        mark=found.mark,
    )
    redeem = _redeem(found, tables["verification"], look_up)
    id_form = dialect.form(session_id)
    return Plan(
        by_token=look_up.by(token, Form.TOKEN),
        by_session=look_up.by(session_id, id_form),
        members=None if members is None else members.statement,
        redeem=redeem,
        any_live=look_up.any,
        state=found.state,
        facts={
            "version": found.version,
            "session": session.name,
            "user": user.name,
            "spelling": "snake_case" if "_" in expires.name else "camelCase",
            "dates": expires.type + (f" read as {zone}" if (zone := dialect.zone(expires, session)) else ""),
            "ids": id_form.value,
            "bans": banned is not None,
            "organizations": False if members is None else tables["member"].name,
            "tickets": tables["verification"].name if isinstance(redeem, Statement) else False,
            "token_indexed": token.indexed,
        },
        warnings=_slow(
            [
                (session, token),
                (session, session_id),
                (user, user_id),
                *([] if members is None else [(tables["member"], members.user)]),
            ]
        ),
    )


def _slow(looked_up: Iterable[tuple[_Table, Column]]) -> tuple[str, ...]:
    return tuple(
        f"{quoted(table.name)}.{_quoted(column.name)} has no index: each look-up reads the whole table"
        for table, column in looked_up
        if not column.indexed
    )


def _redeem(found: Found, table: _Table, look_up: _LookUp) -> Statement | Refusal:
    """What uses up tickets. It failing stops nothing else."""
    try:
        if not table.columns:
            raise _Refused(f"there is no table {quoted(table.name)} here (VERIFICATION_TABLE)")
        identifier, value = table.needed("identifier"), table.needed("value")
        expires = table.needed("expiresAt", "expires_at")
        table.check_grants(delete=not found.may_delete)
        for hidden in found.hidden:
            if hidden.table == "verification":
                return Refusal(hidden.reason, hidden=True)
        unexpired = f"{look_up.dialect.moment(expires, table)} > {look_up.dialect.now}"
        return look_up.by_ticket(quoted(table.name), identifier, value, unexpired)
    except _Refused as refused:
        return refused.refusal


def _postgres_zone(column: Column, table: _Table) -> str | None:
    where, name = quoted(table.name), _quoted(column.name)
    if column.type.endswith("with time zone"):
        return None
    if not column.type.startswith("timestamp"):
        raise _Refused(f"{where}.{name} is {column.type}, expected timestamp with time zone")
    # Drizzle (all in snake_case) and Prisma (timestamp(3)) write UTC into a timestamp without time zone.
    if column.type.startswith("timestamp(3)") or ("_" in column.name and table.all_snake_case):
        return "UTC"
    if table.layout.naive_timezone is not None:
        return table.layout.naive_timezone
    raise _Refused(
        f"{where}.{name} is a timestamp without time zone, as Better Auth 1.3.0 to 1.3.10 makes it: local time of a "
        "zone that is not known here, so expired sessions could pass. Set NAIVE_TIMEZONE to the time zone of the "
        f"Better Auth process, or: ALTER TABLE {where} ALTER COLUMN {name} TYPE timestamptz USING {name} AT TIME ZONE "
        "'<that zone>'",
        final=True,
    )


def _postgres_moment(column: Column, table: _Table) -> str:
    zone = _postgres_zone(column, table)
    return column.sql if zone is None else f"({column.sql} at time zone {literal(zone)})"


def _postgres_form(column: Column) -> Form:
    if column.type.startswith(("text", "character")):
        return Form.TEXT
    try:
        return Form(column.type)
    except ValueError:
        raise _Refused(
            f'the column "{column.name}" of the {column.table} table is {column.type}, expected text, uuid or integer'
        ) from None


def _postgres_among(column: Column) -> str:
    # The parameter becomes what the column is, and not the other way round, so that the column's index serves.
    if column.type.startswith(("text", "character varying")):
        return f"{column.sql} = any($1::text[])"
    return f"{column.sql} = any($1::text[]::{'bpchar' if column.type.startswith('character') else column.type}[])"


def _postgres_check_token(column: Column) -> None:
    if not column.type.startswith(("text", "character varying")):
        raise _Refused(f'the column "token" of the session table is {column.type}, expected text')


def _postgres_check_flag(column: Column) -> None:
    if column.type != "boolean":
        raise _Refused(f'the column "{column.name}" of the user table is {column.type}, expected boolean')


POSTGRES: Final = Dialect(
    now="now()",
    no="false",
    deletes_joined=True,
    text=lambda column: f"{column.sql}::text",
    form=_postgres_form,
    among=_postgres_among,
    zone=_postgres_zone,
    moment=_postgres_moment,
    seconds=lambda moment: f"extract(epoch from {moment})::float8",
    pairs=lambda one, other: f"json_agg(json_build_array({one}, {other}))",
    check_token=_postgres_check_token,
    check_flag=_postgres_check_flag,
)


def _sqlite_moment(column: Column, table: _Table) -> str:
    # kysely writes ISO text and Drizzle whole milliseconds; the declared type says neither. What is not a date gives
    # null, which is no live session.
    del table
    return (
        f"(case typeof({column.sql}) when 'text' then (julianday({column.sql}) - 2440587.5) * 86400.0 "
        f"when 'integer' then {column.sql} / 1000.0 when 'real' then {column.sql} / 1000.0 end)"
    )


def _any_type(column: Column) -> None:
    """SQLite keeps any value in any column, whatever its type is called."""
    del column


SQLITE: Final = Dialect(
    now="(julianday('now') - 2440587.5) * 86400.0",
    no="0",
    deletes_joined=False,
    text=lambda column: f"cast({column.sql} as text)",
    form=lambda column: Form.BIGINT if "int" in column.type.lower() else Form.TEXT,
    among=lambda column: f"{column.sql} in (select value from json_each(?))",  # noqa: S608
    zone=lambda _column, _table: None,
    moment=_sqlite_moment,
    seconds=lambda moment: moment,
    pairs=lambda one, other: f"json_group_array(json_array({one}, {other}))",
    check_token=_any_type,
    check_flag=_any_type,
)


class Detection:
    """The plan in use, and for how long it is trusted. `now` is monotonic, in s."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._trusted_until = 0.0

    def current(self, now: float) -> Plan | None:
        """The plan to use, or None when the columns have to be read (again)."""
        return self._plan if now < self._trusted_until else None

    def found(self, plan: Plan, now: float) -> bool:
        """Take a plan into use; True when it is news."""
        news = plan != self._plan
        self._plan, self._trusted_until = plan, now + PLAN_TRUSTED_S
        return news

    def forget(self) -> None:
        """Read the columns again at the next look-up: a statement failed, so they may have changed."""
        self._trusted_until = 0.0
