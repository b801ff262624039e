"""The tables and columns found in a Better Auth database, and the names that the operator gave for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from watchout.identity.sources.continuity import UNKNOWN_STATE, StoreState


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What only the operator knows about the database, from the settings. Created by `open_store`.

    Attributes:
        session, user, member, verification: Names of the tables, each ``table`` or ``schema.table``.
        naive_timezone: Time zone of dates without one, as Better Auth 1.3.0 to 1.3.10 wrote them (`NAIVE_TIMEZONE`).
        organizations: Whether the member table is read as well (`STREAM_ACCESS=organization`).
    """

    session: str = "session"
    user: str = "user"
    member: str = "member"
    verification: str = "verification"
    naive_timezone: str | None = None
    organizations: bool = False

    def tables(self) -> dict[str, str]:
        """Return the names of the tables in use, by role: ``session``, ``user``, ``verification``, ``member``."""
        names = {"session": self.session, "user": self.user, "verification": self.verification}
        return names | ({"member": self.member} if self.organizations else {})

    def named(self, names: Mapping[str, str]) -> Layout:
        """Return a copy in which some tables have other names, such as with the schema in which they were found."""
        here = self.tables() | {"member": self.member} | dict(names)
        return replace(
            self,
            session=here["session"],
            user=here["user"],
            member=here["member"],
            verification=here["verification"],
        )


def quoted(name: str) -> str:
    """Return the name of a table (``table`` or ``schema.table``) as SQL."""
    return ".".join(quoted_part(part) for part in name.split("."))


def quoted_part(part: str) -> str:
    """Return a name without its schema as an SQL identifier in quotes."""
    return '"' + part.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """One column as the database reports it; made by the stores, and read by `make_plan`.

    Attributes:
        table: The role of its table: ``session``, ``user``, ``verification`` or ``member``.
        name: Its name, such as ``expiresAt`` or ``expires_at``.
        type: Its type as the database spells it.
        readable: Whether the gateway's database role may read it.
        indexed: Whether an index begins with it.
    """

    table: str
    name: str
    type: str
    readable: bool = True
    indexed: bool = True

    @property
    def sql(self) -> str:
        """The quoted and qualified name. SQLite would read a quoted name that does not exist as text."""
        return f"{self.table[0]}.{quoted_part(self.name)}"

    @property
    def normal(self) -> str:
        """The name as it is compared: ``expiresAt`` and ``expires_at`` are equal."""
        return self.name.lower().replace("_", "")


@dataclass(frozen=True, slots=True)
class HiddenTable:
    """A table of which row level security may hide rows from the gateway; found by `PostgresStore`.

    Attributes:
        table: The role of the table in the layout.
        relation: The table with the policies; it may lie beneath a view.
        role: The database role that reads it: the gateway's, or the owner of the view.
        restrictive: Restrictive policies, which no other policy can lift.
    """

    table: str
    relation: str
    role: str
    restrictive: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """What is wrong, for the log, ending with the SQL statements that fix it."""
        why = f"row level security may hide rows of {self.relation} from the role {quoted_part(self.role)}"
        if self.restrictive:
            names = ", ".join(map(quoted_part, self.restrictive))
            return f"{why} (restrictive policies {names}): ALTER ROLE {quoted_part(self.role)} BYPASSRLS"
        which = "" if self.table == "verification" else "FOR SELECT "
        return (
            f"{why}, so that what is not seen may be there: ALTER ROLE {quoted_part(self.role)} BYPASSRLS, or CREATE "
            f"POLICY watchout ON {self.relation} {which}TO {quoted_part(self.role)} USING (true)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesFound:
    """What a database has of the tables in a layout. Filled by the stores, read by `make_plan`.

    Attributes:
        columns: All columns of these tables.
        version: The server's version, for the log.
        role: The database role of the gateway.
        may_delete: Whether this role may delete from the verification table.
        names: Names of tables that were found in another schema than the layout says, by role.
        hidden: Tables of which rows may be hidden.
        mark: SQL that returns one row, the text of `state.mark` and the server's clock; both are then put in front of
            each row of a look-up. Empty for a database without them.
        state: The state of the store when the columns were read.
    """

    columns: tuple[SchemaColumn, ...]
    version: str = ""
    role: str = ""
    may_delete: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[HiddenTable, ...] = ()
    mark: str = ""
    state: StoreState = UNKNOWN_STATE


@dataclass(frozen=True, slots=True)
class SchemaRefusal:
    """Why a database, or one feature of it, cannot be used, and what would help. Returned by `make_plan`, or in a
    `Plan`.

    Attributes:
        reason: The text for the log.
        final: Whether only other settings or a repair help, no migration and no grant; the gateway then does not start.
        hidden: Whether the reason is that rows may be hidden.
    """

    reason: str
    final: bool = False
    hidden: bool = False


class PlanRefused(Exception):
    """The tables cannot be used as they are. Raised by the functions that `make_plan` calls.

    `make_plan` catches it and returns its `refusal`, a `SchemaRefusal`, instead of a `Plan`.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.refusal = SchemaRefusal(reason, final)
        super().__init__(reason)


class CatalogueTable:
    """The columns of one table, found by normalized name (lower case without ``_``). Made by `make_plan`.

    It records the columns that are needed but not readable. Its methods raise `PlanRefused`.
    """

    def __init__(self, found: TablesFound, layout: Layout, table: str) -> None:
        self.layout = layout
        self.name = layout.tables()[table]
        self.columns = [column for column in found.columns if column.table == table]
        self._role = found.role
        self._unreadable: list[SchemaColumn] = []

    def optional(self, name: str) -> SchemaColumn | None:
        """Return the column with this normalized name, None if there is none. Raises `PlanRefused` if there are two."""
        fitting = [column for column in self.columns if column.normal == name]
        if len(fitting) > 1:
            names = " and ".join(quoted_part(column.name) for column in fitting)
            raise PlanRefused(f"table {quoted(self.name)} has both {names}: which of them counts is not known")
        if not fitting:
            return None
        if not fitting[0].readable:
            self._unreadable.append(fitting[0])
        return fitting[0]

    def needed(self, camel: str, snake: str | None = None) -> SchemaColumn:
        """Return the column with one of these names. Raises `PlanRefused` when there is none."""
        if (column := self.optional(camel.lower())) is not None:
            return column
        raise PlanRefused(
            f'table {quoted(self.name)} has no column "{camel}"'
            if snake is None
            else f'table {quoted(self.name)} has neither a column "{camel}" nor "{snake}"'
        )

    def check_grants(self, *, delete: bool = False) -> None:
        """Raise `PlanRefused`, naming the GRANT, if a needed column is not readable or rows may not be deleted."""
        wanted = ([f"SELECT ({', '.join(quoted_part(column.name) for column in self._unreadable)})"]
                  if self._unreadable else []) + (["DELETE"] if delete else [])  # fmt: skip
        if wanted:
            raise PlanRefused(
                f"rights are missing: GRANT {', '.join(wanted)} ON {quoted(self.name)} TO {quoted_part(self._role)}"
            )

    @property
    def all_snake_case(self) -> bool:
        """Whether all column names are in snake_case, as Drizzle writes them."""
        return all(column.name == column.name.lower() for column in self.columns)
