from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.schema import (
    FAULT_QUIET_S,
    PLAN_TRUSTED_S,
    PROBE,
    Column,
    Detection,
    Lookup,
    Refusal,
    postgres_lookup,
    sqlite_lookup,
    well_formed,
)

TZ = "timestamp with time zone"
NAIVE = "timestamp without time zone"


def columns(expires: str = "expiresAt", expires_type: str = TZ, **more: str) -> list[Column]:
    user_id = "user_id" if "_" in expires else "userId"
    session = {"id": "text", "token": "text", user_id: "text", expires: expires_type}
    return [Column("session", name, kind) for name, kind in session.items()] + [
        Column("user", name, kind) for name, kind in ({"id": "text", "name": "text"} | more).items()
    ]


def planned(found: list[Column]) -> str:
    lookup = postgres_lookup(found)
    assert isinstance(lookup, Lookup)
    return lookup.sql


def refused(found: list[Column]) -> str:
    refusal = postgres_lookup(found)
    assert isinstance(refusal, Refusal)
    return refusal.reason


def test_the_default_schema_is_asked_without_any_time_zone() -> None:
    assert planned(columns()) == (
        'select u."id"::text, s."id"::text, extract(epoch from s."expiresAt")::float8 '
        'from "session" s join "user" u on u."id" = s."userId" '
        'where s."token" = $1 and s."expiresAt" > now()'
    )


def test_bans_are_asked_for_when_their_columns_are_there() -> None:
    assert planned(columns(banned="boolean", banExpires=TZ)).endswith(
        'and not (coalesce(u."banned", false) and (u."banExpires" is null or u."banExpires" > now()))'
    )


def test_a_ban_column_without_an_end_bans_for_ever() -> None:
    assert planned(columns(banned="boolean")).endswith('and not (coalesce(u."banned", false))')


def test_snake_case_dates_are_read_as_utc() -> None:
    sql = planned(columns("expires_at", NAIVE, banned="boolean", ban_expires=NAIVE))
    assert "(s.\"expires_at\" at time zone 'UTC') > now()" in sql
    assert "(u.\"ban_expires\" at time zone 'UTC') > now()" in sql
    assert 'u."id" = s."user_id"' in sql


def test_prisma_dates_are_read_as_utc() -> None:
    sql = planned(columns(expires_type="timestamp(3) without time zone"))
    assert "(s.\"expiresAt\" at time zone 'UTC') > now()" in sql


def test_dates_of_an_unknown_zone_are_refused_with_the_repair() -> None:
    reason = refused(columns(expires_type=NAIVE))
    assert '"session"."expiresAt"' in reason
    assert "1.3.10" in reason
    assert 'ALTER TABLE "session" ALTER COLUMN "expiresAt" TYPE timestamptz' in reason
    assert '"user"."banExpires"' in refused(columns(banned="boolean", banExpires=NAIVE))


def test_missing_tables_are_refused() -> None:
    assert 'no table "session"' in refused([])
    assert 'no table "user"' in refused([c for c in columns() if c.table == "session"])


@pytest.mark.parametrize("name", ["id", "token", "userId", "expiresAt"])
def test_a_missing_column_is_named(name: str) -> None:
    assert f'"session" has neither a column "{name}"' in refused(
        [c for c in columns() if (c.table, c.name) != ("session", name)]
    )


def test_a_date_that_is_no_date_is_refused() -> None:
    assert "is bigint, expected timestamp with time zone" in refused(columns(expires_type="bigint"))


def test_a_token_that_is_no_text_is_refused() -> None:
    found = [Column(c.table, c.name, "uuid" if c.name == "token" else c.type) for c in columns()]
    assert "expected text" in refused(found)


def test_a_ban_that_is_no_flag_is_refused() -> None:
    assert "expected boolean" in refused(columns(banned="integer"))


def test_sqlite_takes_any_declared_type() -> None:
    lookup = sqlite_lookup(columns(expires_type="date", banned="integer", banExpires="date"))
    assert isinstance(lookup, Lookup)
    assert 's."token" = ?' in lookup.sql
    assert isinstance(sqlite_lookup([]), Refusal)


def test_the_summary_says_what_was_found() -> None:
    lookup = postgres_lookup(columns(banned="boolean"))
    assert isinstance(lookup, Lookup)
    assert lookup.summary == "userId, expiresAt timestamp with time zone, with bans"


def test_a_real_token_is_well_formed() -> None:
    assert well_formed("hQ6K2mV0q5rT8xYbN3cD7fGjL1pS4wZa")


@pytest.mark.parametrize(
    "token", ["", "x" * 15, "x" * 513, "x" * 20 + "\0", "x x" * 10, "ü" * 20, "x" * 32 + "\n", PROBE]
)
def test_what_cannot_be_a_token_is_not_asked_for(token: str) -> None:
    assert not well_formed(token)


@given(st.text())
def test_whatever_is_well_formed_is_visible_ascii_of_a_bounded_length(token: str) -> None:
    if well_formed(token):
        assert 16 <= len(token) <= 512
        assert token.isascii()
        assert token.isprintable()
        assert " " not in token


LOOKUP = Lookup("select 1", "one")


def test_columns_are_read_again_after_a_while() -> None:
    detection = Detection()
    assert detection.current(0.0) is None
    assert detection.found(LOOKUP, 100.0)
    assert detection.current(100.0 + PLAN_TRUSTED_S - 1) == LOOKUP
    assert detection.current(100.0 + PLAN_TRUSTED_S) is None
    assert not detection.found(LOOKUP, 200.0)


def test_columns_are_read_again_after_a_statement_that_failed() -> None:
    detection = Detection()
    detection.found(LOOKUP, 100.0)
    detection.forget()
    assert detection.current(100.0) is None


def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    detection = Detection()
    assert not detection.answered()
    assert detection.failed("away", 0.0)
    assert not detection.failed("away", 1e6)
    assert detection.answered()
    assert not detection.answered()
    assert detection.failed("away", 1e6)


def test_a_changed_fault_is_said_but_not_often() -> None:
    detection = Detection()
    assert detection.failed("away", 0.0)
    assert not detection.failed("starting", 1.0)
    assert detection.failed("starting", FAULT_QUIET_S)
