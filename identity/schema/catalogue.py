"""Tables, columns and rights that were found in a Better Auth database, and the names that the operator gave. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from watchout.identity.sources.continuity import UNKNOWN_STATE, StoreState


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
    return ".".join(quoted_part(part) for part in name.split("."))


def quoted_part(part: str) -> str:
    """Return a name without its schema as an SQL identifier in quotes."""
    return '"' + part.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class SchemaColumn:
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
        return f"{self.table[0]}.{quoted_part(self.name)}"

    @property
    def normal(self) -> str:
        """The name as it is matched: ``expiresAt`` and ``expires_at`` are the same."""
        return self.name.lower().replace("_", "")


@dataclass(frozen=True, slots=True)
class HiddenTable:
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
    """What the database has of the tables in the layout; `role` is who we are in it, `may_delete` from verification.

    `names` are those of tables that are called otherwise than in the layout: with the schema in which they were found.
    `hidden` are the tables of which row level security may hide rows. `mark` is SQL that gives one row, that of
    `state.mark` and of the server's clock, which then stand in front of each row of an answer; empty: neither.
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
    """Why something cannot be done with this database, and what would help.

    `final`: no migration and no grant will, only other settings or a repair. `hidden`: rows may be hidden from us.
    """

    reason: str
    final: bool = False
    hidden: bool = False


class PlanRefused(Exception):
    """Carries a refusal out of the checks below."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        self.refusal = SchemaRefusal(reason, final)
        super().__init__(reason)


class CatalogueTable:
    """One table of those found: its columns by normalised name, and which of them we need but may not read."""

    def __init__(self, found: TablesFound, layout: Layout, table: str) -> None:
        self.layout = layout
        self.name = layout.tables()[table]
        self.columns = [column for column in found.columns if column.table == table]
        self._role = found.role
        self._unreadable: list[SchemaColumn] = []

    def optional(self, name: str) -> SchemaColumn | None:
        """The column, or None where there is none; `name` is normalised."""
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
        """The column. Raises a refusal when there is none."""
        if (column := self.optional(camel.lower())) is not None:
            return column
        raise PlanRefused(
            f'table {quoted(self.name)} has no column "{camel}"'
            if snake is None
            else f'table {quoted(self.name)} has neither a column "{camel}" nor "{snake}"'
        )

    def check_grants(self, *, delete: bool = False) -> None:
        """Refuse when columns that were asked for are not readable, or rows not to be deleted, with the remedy."""
        wanted = ([f"SELECT ({', '.join(quoted_part(column.name) for column in self._unreadable)})"]
                  if self._unreadable else []) + (["DELETE"] if delete else [])  # fmt: skip
        if wanted:
            raise PlanRefused(
                f"rights are missing: GRANT {', '.join(wanted)} ON {quoted(self.name)} TO {quoted_part(self._role)}"
            )

    @property
    def all_snake_case(self) -> bool:
        """Whether every name is, as Drizzle makes them."""
        return all(column.name == column.name.lower() for column in self.columns)
