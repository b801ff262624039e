"""Builds the SQL statements for a Better Auth database from its columns, or says why that is impossible. Pure.

The SQL contains only names from the settings and the catalogue, quoted. Each statement takes one list of texts as
its parameter. A look-up returns rows for `read_identity`, of live sessions whose user exists and is not banned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from watchout.identity.schema.catalogue import (
    CatalogueTable,
    Layout,
    PlanRefused,
    SchemaColumn,
    SchemaRefusal,
    TablesFound,
    quoted,
    quoted_part,
)
from watchout.identity.schema.dialects import Dialect
from watchout.identity.schema.key_forms import KeyForm
from watchout.identity.sources.continuity import UNKNOWN_STATE, StoreState

#: A plan older than this many seconds is made anew: migrations may add columns, such as bans, to a running system.
PLAN_TRUSTED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with one parameter, a list of keys. Made by `make_plan`, run by a `DatabaseStore`.

    Attributes:
        sql: The statement.
        form: The form of its keys.
        writes: Whether it deletes rows.
        then: A second statement, run with the keys of the rows that were found, in one transaction with `sql`; or None.
    """

    sql: str
    form: KeyForm
    writes: bool = False
    then: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The statements for one database. Made by `make_plan`, kept in a `PlanCache`, run by a `DatabaseStore`.

    Attributes:
        by_token, by_session: Look users up by session token and by session id; rows for `read_identity`.
        members: Returns rows of user id and organizations; None when they are not used.
        redeem: Looks users up by ticket identifier and deletes those tickets, or why that is impossible.
        any_live: SQL without a parameter that tells whether any session is live.
        state: The state of the store that the statements were made for.
        facts: What was found, for the log.
        warnings: Missing indexes, for the log.
    """

    by_token: Statement
    by_session: Statement
    members: Statement | None
    redeem: Statement | SchemaRefusal
    any_live: str = ""
    state: StoreState = field(default=UNKNOWN_STATE, compare=False)
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_plan(found: TablesFound, layout: Layout, dialect: Dialect) -> Plan | SchemaRefusal:
    """Return the statements for a database, or why there are none.

    Args:
        found: The columns and rights that were found.
        layout: Names of the tables and other settings.
        dialect: The SQL of the database.
    """
    layout = layout.named(found.names)
    tables = {table: CatalogueTable(found, layout, table) for table in layout.tables()}
    try:
        for table in ("session", "user"):
            if not tables[table].columns:
                raise PlanRefused(
                    f"there is no table {quoted(tables[table].name)} here: Better Auth's migrations have not run yet, "
                    "it keeps sessions elsewhere, or under another name (SESSION_TABLE, USER_TABLE)"
                )
        for hidden in found.hidden:
            if hidden.table != "verification":
                return SchemaRefusal(hidden.reason, hidden=True)
        members = _members(tables["member"], dialect, found.mark) if layout.organizations else None
        return _sessions(found, tables, members, dialect)
    except PlanRefused as refused:
        return refused.refusal


@dataclass(frozen=True, slots=True)
class _Members:
    """The SQL for organizations, made by `_members` when the member table is read.

    It consists of the statement that returns users' organizations, the join that adds them to the rows of live
    sessions, and the column with the user's id.
    """

    user: SchemaColumn
    statement: Statement
    joined: str


def _marked(sql: str, mark: str, ctes: str = "") -> str:
    """Return a statement that puts the mark in front of each row, and returns one row of it when there is no other."""
    if not mark:
        return f"with {ctes} {sql}" if ctes else sql
    before = f"{ctes}, " if ctes else ""
    return f"with {before}answer as ({sql}) select m.*, answer.* from ({mark}) m left join answer on true"  # noqa: S608


def _members(table: CatalogueTable, dialect: Dialect, mark: str) -> _Members:
    if not table.columns:
        raise PlanRefused(
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
    """The parts of the SQL statements that find users; made by `make_plan`.

    In all texts `s` is the session table and `u` the user table.

    Attributes:
        columns: The columns of a row after its key.
        tables: The joined tables.
        live: The condition for a live session.
        token: The token column of the session table.
        members: How organizations are added, None when they are not.
        dialect: The SQL of the database.
        mark: SQL for the mark, empty for none.
    """

    columns: str
    tables: str
    live: str
    token: SchemaColumn
    members: _Members | None
    dialect: Dialect
    mark: str

    @property
    def any(self) -> str:
        """SQL that tells whether any session is live."""
        return f"select exists (select 1 from {self.tables} where {self.live})"  # noqa: S608

    def by(self, key: SchemaColumn, form: KeyForm) -> Statement:
        """Return the statement that finds users by a column of the session table."""
        return self._statement(
            f"select {self._row(key)} from {self.tables} where {self.dialect.among(key)} and {self.live}",  # noqa: S608
            form,
        )

    def by_ticket(self, verification: str, identifier: SchemaColumn, value: SchemaColumn, unexpired: str) -> Statement:
        """Return the statement that finds users by ticket identifier and deletes the tickets it found."""
        among = self.dialect.among(identifier)
        good = f"{among} and {unexpired} and {self.token.sql} = {self.dialect.text(value)} and {self.live}"
        row = self._row(identifier)
        if self.dialect.deletes_joined:
            return self._statement(
                f"delete from {verification} as v using {self.tables} where {good} returning {row}",  # noqa: S608
                KeyForm.TEXT,
                writes=True,
            )
        return self._statement(
            f"select {row} from {verification} v cross join {self.tables} where {good}",  # noqa: S608
            KeyForm.TEXT,
            writes=True,
            then=f"delete from {verification} as v where {among}",  # noqa: S608
        )

    def _row(self, key: SchemaColumn) -> str:
        return f"{self.dialect.text(key)} as key, {self.columns}"

    def _statement(self, sql: str, form: KeyForm, *, writes: bool = False, then: str | None = None) -> Statement:
        if self.members is None:
            return Statement(_marked(sql, self.mark), form, writes, then)
        rows = (
            "select live.key, live.user_id, live.session_id, live.ends, "  # noqa: S608
            f"live.roles, o.organizations from live {self.members.joined}"
        )
        return Statement(_marked(rows, self.mark, f"live as materialized ({sql})"), form, writes, then)


def _sessions(
    found: TablesFound, tables: Mapping[str, CatalogueTable], members: _Members | None, dialect: Dialect
) -> Plan:
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
        by_token=look_up.by(token, KeyForm.TOKEN),
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


def _slow(looked_up: Iterable[tuple[CatalogueTable, SchemaColumn]]) -> tuple[str, ...]:
    return tuple(
        f"{quoted(table.name)}.{quoted_part(column.name)} has no index: each look-up reads the whole table"
        for table, column in looked_up
        if not column.indexed
    )


def _redeem(found: TablesFound, table: CatalogueTable, look_up: _LookUp) -> Statement | SchemaRefusal:
    """Return the statement for tickets, or why there is none; sessions can be looked up in any case."""
    try:
        if not table.columns:
            raise PlanRefused(f"there is no table {quoted(table.name)} here (VERIFICATION_TABLE)")
        identifier, value = table.needed("identifier"), table.needed("value")
        expires = table.needed("expiresAt", "expires_at")
        table.check_grants(delete=not found.may_delete)
        for hidden in found.hidden:
            if hidden.table == "verification":
                return SchemaRefusal(hidden.reason, hidden=True)
        unexpired = f"{look_up.dialect.moment(expires, table)} > {look_up.dialect.now}"
        return look_up.by_ticket(quoted(table.name), identifier, value, unexpired)
    except PlanRefused as refused:
        return refused.refusal


class PlanCache:
    """The `Plan` in use; it expires after `PLAN_TRUSTED_S` seconds, because migrations may add columns. Used by
    `DatabaseStore`.

    `now` is monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._trusted_until = 0.0

    def current(self, now: float) -> Plan | None:
        """Return the plan to use, None when the columns have to be read."""
        return self._plan if now < self._trusted_until else None

    def replace(self, plan: Plan, now: float) -> bool:
        """Use a new plan; return whether it differs from the former one."""
        news = plan != self._plan
        self._plan, self._trusted_until = plan, now + PLAN_TRUSTED_S
        return news

    def expire(self) -> None:
        """Make the next look-up read the columns: a statement failed, or the tables changed."""
        self._trusted_until = 0.0
