"""The SQL in which PostgreSQL and SQLite differ, and the column types that each accepts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.identity.schema.catalogue import CatalogueTable, PlanRefused, SchemaColumn, literal, quoted, quoted_part
from watchout.identity.schema.key_forms import KeyForm


@dataclass(frozen=True, slots=True)
class Dialect:
    """The parts of SQL statements that differ between databases, used by `make_plan`; there are `POSTGRES` and
    `SQLITE`.

    Attributes:
        now: Expression for the current time, comparable with `moment`.
        no: Literal for false.
        deletes_joined: Whether DELETE may join other tables.
        text: Returns a column as text.
        form: Returns the form of the keys in a column. Raises `PlanRefused` for an unsupported type.
        among: Returns the condition that a column has one of the keys in the parameter.
        zone: Returns the time zone in which a date without one is read, None for a date that has one.
        moment: Returns a date column as an expression that is comparable with `now`.
        seconds: Returns such an expression as seconds since the Unix epoch.
        pairs: Returns the JSON that `read_organizations` reads, from two expressions.
        check_token: Raises `PlanRefused` when the token column has an unsupported type.
        check_flag: Raises `PlanRefused` when a yes-or-no column has an unsupported type.
    """

    now: str
    no: str
    deletes_joined: bool
    text: Callable[[SchemaColumn], str]
    form: Callable[[SchemaColumn], KeyForm]
    among: Callable[[SchemaColumn], str]
    zone: Callable[[SchemaColumn, CatalogueTable], str | None]
    moment: Callable[[SchemaColumn, CatalogueTable], str]
    seconds: Callable[[str], str]
    pairs: Callable[[str, str], str]
    check_token: Callable[[SchemaColumn], None]
    check_flag: Callable[[SchemaColumn], None]


def _postgres_zone(column: SchemaColumn, table: CatalogueTable) -> str | None:
    where, name = quoted(table.name), quoted_part(column.name)
    if column.type.endswith("with time zone"):
        return None
    if not column.type.startswith("timestamp"):
        raise PlanRefused(f"{where}.{name} is {column.type}, expected timestamp with time zone")
    # Drizzle (all in snake_case) and Prisma (timestamp(3)) write UTC into a timestamp without time zone.
    if column.type.startswith("timestamp(3)") or ("_" in column.name and table.all_snake_case):
        return "UTC"
    if table.layout.naive_timezone is not None:
        return table.layout.naive_timezone
    raise PlanRefused(
        f"{where}.{name} is a timestamp without time zone, as Better Auth 1.3.0 to 1.3.10 makes it: local time of a "
        "zone that is not known here, so expired sessions could pass. Set NAIVE_TIMEZONE to the time zone of the "
        f"Better Auth process, or: ALTER TABLE {where} ALTER COLUMN {name} TYPE timestamptz USING {name} AT TIME ZONE "
        "'<that zone>'",
        final=True,
    )


def _postgres_moment(column: SchemaColumn, table: CatalogueTable) -> str:
    zone = _postgres_zone(column, table)
    return column.sql if zone is None else f"({column.sql} at time zone {literal(zone)})"


def _postgres_form(column: SchemaColumn) -> KeyForm:
    if column.type.startswith(("text", "character")):
        return KeyForm.TEXT
    try:
        return KeyForm(column.type)
    except ValueError:
        raise PlanRefused(
            f'the column "{column.name}" of the {column.table} table is {column.type}, expected text, uuid or integer'
        ) from None


def _postgres_among(column: SchemaColumn) -> str:
    # The parameter becomes what the column is, and not the other way round, so that the column's index serves.
    if column.type.startswith(("text", "character varying")):
        return f"{column.sql} = any($1::text[])"
    return f"{column.sql} = any($1::text[]::{'bpchar' if column.type.startswith('character') else column.type}[])"


def _postgres_check_token(column: SchemaColumn) -> None:
    if not column.type.startswith(("text", "character varying")):
        raise PlanRefused(f'the column "token" of the session table is {column.type}, expected text')


def _postgres_check_flag(column: SchemaColumn) -> None:
    if column.type != "boolean":
        raise PlanRefused(f'the column "{column.name}" of the user table is {column.type}, expected boolean')


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


def _sqlite_moment(column: SchemaColumn, table: CatalogueTable) -> str:
    # kysely writes ISO text and Drizzle whole milliseconds; the declared type says neither. What is not a date gives
    # null, which is no live session.
    del table
    return (
        f"(case typeof({column.sql}) when 'text' then (julianday({column.sql}) - 2440587.5) * 86400.0 "
        f"when 'integer' then {column.sql} / 1000.0 when 'real' then {column.sql} / 1000.0 end)"
    )


def _any_type(column: SchemaColumn) -> None:
    """Accept every type: SQLite stores any value in any column."""
    del column


SQLITE: Final = Dialect(
    now="(julianday('now') - 2440587.5) * 86400.0",
    no="0",
    deletes_joined=False,
    text=lambda column: f"cast({column.sql} as text)",
    form=lambda column: KeyForm.BIGINT if "int" in column.type.lower() else KeyForm.TEXT,
    among=lambda column: f"{column.sql} in (select value from json_each(?))",  # noqa: S608
    zone=lambda _column, _table: None,
    moment=_sqlite_moment,
    seconds=lambda moment: moment,
    pairs=lambda one, other: f"json_group_array(json_array({one}, {other}))",
    check_token=_any_type,
    check_flag=_any_type,
)
