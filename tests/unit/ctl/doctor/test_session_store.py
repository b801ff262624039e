"""The verdict on the session store."""

from __future__ import annotations

import pytest

from tests.kit.doctor_report import levels
from watchout.ctl.doctor.checks.session_store import judge_failed_store, judge_store
from watchout.ctl.doctor.findings import Level
from watchout.identity.schema.catalogue import Layout, SchemaColumn, TablesFound
from watchout.identity.schema.dialects import POSTGRES
from watchout.identity.schema.plan import Plan, make_plan

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


def plan(*, indexed: bool = True, may_delete: bool = True) -> Plan:
    columns = [
        SchemaColumn("session", "id", "text"),
        SchemaColumn("session", "token", "text", indexed=indexed),
        SchemaColumn("session", "userId", "text"),
        SchemaColumn("session", "expiresAt", "timestamp with time zone"),
        SchemaColumn("user", "id", "text"),
        *(SchemaColumn("verification", name, "text") for name in ("identifier", "value")),
        SchemaColumn("verification", "expiresAt", "timestamp with time zone"),
    ]
    found = TablesFound(columns=tuple(columns), version="18.1", role="watchout", may_delete=may_delete)
    made = make_plan(found, Layout(), POSTGRES)
    assert isinstance(made, Plan)
    return made


def test_a_sound_store_is_told_in_three_lines() -> None:
    answers, schema, tickets = judge_store("PostgreSQL", " at db:5432", plan(), 0.42)
    assert answers.says == "PostgreSQL 18.1 at db:5432 answers; a look-up takes 0.4 ms (median of 5)."
    assert schema.says == (
        "Sessions are in session, users in user: camelCase, dates are timestamp with time zone, ids are text, there "
        "are no bans."
    )
    assert tickets.says == "One-time tickets (?ticket=) are redeemed from verification."
    assert levels([answers, schema, tickets]) == [OK] * 3
    assert answers.facts["latencyMs"] == 0.42


def test_a_missing_index_comes_with_its_statement() -> None:
    _, _, index, _ = judge_store("PostgreSQL", "", plan(indexed=False), 1)
    assert index.level is WARNING
    assert index.remedy == 'CREATE INDEX ON "session" ("token")'


def test_tickets_that_are_not_possible_come_with_the_grant_that_is_missing() -> None:
    *_, tickets = judge_store("PostgreSQL", "", plan(may_delete=False), 1)
    assert tickets.level is WARNING
    assert tickets.sentence.endswith('GRANT DELETE ON "verification" TO "watchout"')


def test_a_slow_store_is_a_warning() -> None:
    assert next(iter(judge_store("PostgreSQL", "", plan(), 250))).level is WARNING


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("PostgreSQL cannot be reached: Connection refused", "Start PostgreSQL"),
        ('PostgreSQL refused: password authentication failed for user "w"', "Set user and password"),
        ("PostgreSQL refused: sorry, too many clients already", "lower STORE_CONNECTIONS"),
        ('PostgreSQL refused: database "x" does not exist', "Set user and database"),
        ("PostgreSQL gave no answer within 3 s", "The limit is STORE_TIMEOUT_S"),
        ("/x cannot be read: No such file or directory", "Set DATABASE_URL to Better Auth's file"),
        ("something that nobody has seen", ""),
    ],
)
def test_a_store_that_fails_is_wrong_and_says_what_helps(reason: str, remedy: str) -> None:
    finding = judge_failed_store(" at db", reason)
    assert finding.level is WRONG
    assert f"{reason}." in finding.says
    assert remedy in finding.remedy


def test_a_statement_that_helps_is_there_to_be_copied() -> None:
    assert judge_failed_store("", 'rights are missing: GRANT SELECT ON "user" TO "w"').sentence.endswith('TO "w"')
