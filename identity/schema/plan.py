"""From what a Better Auth database has to the statements that the stores run on it, and how long they are trusted.

Pure: columns and `now` go in, SQL or a refusal comes out. The SQL holds names of the settings and of the catalogue,
quoted, and nothing else. Every statement takes one list of texts. A look-up gives rows for `read_identity`, of sessions
that are live now and whose user is there and not banned.
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

#: Migrations may add ban columns to a running system; a plan older than this is made anew.
PLAN_TRUSTED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with one parameter, a list of keys of this form.

    `then`, where there is one, is run with the keys of the rows that were found, in one transaction with `sql`.
    """

    sql: str
    form: KeyForm
    writes: bool = False
    then: str | None = None


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
    redeem: Statement | SchemaRefusal
    any_live: str = ""
    state: StoreState = field(default=UNKNOWN_STATE, compare=False)
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_plan(found: TablesFound, layout: Layout, dialect: Dialect) -> Plan | SchemaRefusal:
    """The statements for this database, or why there are none."""
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
    """How organizations are read: all of some users, or joined to ``live``; `user` is the member's user id."""

    user: SchemaColumn
    statement: Statement
    joined: str


def _marked(sql: str, mark: str, ctes: str = "") -> str:
    """The statement with the mark in front of each row, and one row with nothing else where there would be none."""
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
    """How callers are found: the columns of a row after its key, the tables that are joined, and which rows are live.

    A session is `s` in them and its user `u`; `token` is the session's.
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
        """Whether there is any live one."""
        return f"select exists (select 1 from {self.tables} where {self.live})"  # noqa: S608

    def by(self, key: SchemaColumn, form: KeyForm) -> Statement:
        """By a column of the session table."""
        return self._statement(
            f"select {self._row(key)} from {self.tables} where {self.dialect.among(key)} and {self.live}",  # noqa: S608
            form,
        )

    def by_ticket(self, verification: str, identifier: SchemaColumn, value: SchemaColumn, unexpired: str) -> Statement:
        """By the identifier of a ticket, whose value is the session's token, and which is deleted with that."""
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
    """What uses up tickets. It failing stops nothing else."""
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
    """The plan in use, and for how long it is trusted. `now` is monotonic, in s."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._trusted_until = 0.0

    def current(self, now: float) -> Plan | None:
        """The plan to use, or None when the columns have to be read (again)."""
        return self._plan if now < self._trusted_until else None

    def replace(self, plan: Plan, now: float) -> bool:
        """Take a plan into use; True when it is news."""
        news = plan != self._plan
        self._plan, self._trusted_until = plan, now + PLAN_TRUSTED_S
        return news

    def expire(self) -> None:
        """Read the columns again at the next look-up: a statement failed, so they may have changed."""
        self._trusted_until = 0.0
