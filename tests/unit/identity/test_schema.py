from __future__ import annotations

import base64
import hashlib
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.identity.caller import Identity
from watchout.identity.schema.catalogue import Layout, SchemaColumn, SchemaRefusal, TablesFound, quoted
from watchout.identity.schema.dialects import POSTGRES, SQLITE
from watchout.identity.schema.key_forms import KeyForm, ticket_identifiers
from watchout.identity.schema.plan import PLAN_TRUSTED_S, Plan, PlanCache, Statement, make_plan
from watchout.identity.schema.rows import read_identity, read_organizations, read_roles

TZ = "timestamp with time zone"
NAIVE = "timestamp without time zone"
CAMEL = {"id": "text", "token": "text", "userId": "text", "expiresAt": TZ}
USER = {"id": "text", "name": "text"}
MEMBER = {"id": "text", "userId": "text", "organizationId": "text", "role": "text"}
VERIFICATION = {"id": "text", "identifier": "text", "value": "text", "expiresAt": TZ}


def columns(**tables: dict[str, str]) -> list[SchemaColumn]:
    return [SchemaColumn(table, name, kind) for table, names in tables.items() for name, kind in names.items()]


def planned(*found: SchemaColumn, dialect: str = "postgres", **layout: object) -> Plan:
    chosen = {"postgres": POSTGRES, "sqlite": SQLITE}[dialect]
    plan = make_plan(TablesFound(columns=found, role="watchout"), Layout(**layout), chosen)  # type: ignore[arg-type]
    assert isinstance(plan, Plan), plan
    return plan


def refused(*found: SchemaColumn, final: bool = False, **layout: object) -> str:
    refusal = make_plan(TablesFound(columns=found, role="watchout"), Layout(**layout), POSTGRES)  # type: ignore[arg-type]
    assert isinstance(refusal, SchemaRefusal)
    assert refusal.final is final
    return refusal.reason


def plain(**tables: dict[str, str]) -> list[SchemaColumn]:
    return columns(**({"session": CAMEL, "user": USER} | tables))


def test_the_default_schema_is_asked_without_any_time_zone() -> None:
    plan = planned(*plain())
    assert plan.by_token == Statement(
        'select s."token"::text as key, u."id"::text as user_id, s."id"::text as session_id, '
        'extract(epoch from s."expiresAt")::float8 as ends, null as roles, null as member '
        'from "session" s join "user" u on u."id" = s."userId" '
        'where s."token" = any($1::text[]) and s."expiresAt" > now()',
        KeyForm.TOKEN,
    )
    assert plan.by_session.sql == plan.by_token.sql.replace('s."token"', 's."id"')
    assert plan.members is None
    assert plan.warnings == ()


def test_bans_and_roles_are_asked_for_when_their_columns_are_there() -> None:
    sql = planned(*plain(user=USER | {"role": "text", "banned": "boolean", "banExpires": TZ})).by_token.sql
    assert sql.endswith('and not (coalesce(u."banned", false) and (u."banExpires" is null or u."banExpires" > now()))')
    assert 'u."role"::text as roles' in sql


def test_a_ban_column_without_an_end_bans_for_ever() -> None:
    sql = planned(*plain(user=USER | {"banned": "boolean"})).by_token.sql
    assert sql.endswith('and not (coalesce(u."banned", false))')


SNAKE = {"id": "text", "token": "text", "user_id": "text", "expires_at": NAIVE}


def test_snake_case_dates_are_read_as_utc_whatever_the_zone_setting_says() -> None:
    found = columns(session=SNAKE, user=USER | {"banned": "boolean", "ban_expires": NAIVE})
    for zone in (None, "Asia/Tokyo"):
        sql = planned(*found, naive_timezone=zone).by_token.sql
        assert "(s.\"expires_at\" at time zone 'UTC') > now()" in sql
        assert "(u.\"ban_expires\" at time zone 'UTC') > now()" in sql
        assert 'u."id" = s."user_id"' in sql


def test_a_date_renamed_to_snake_case_in_a_camel_case_table_is_not_taken_for_drizzles() -> None:
    session = SNAKE | {"createdAt": NAIVE}
    assert "NAIVE_TIMEZONE" in refused(*plain(session=session), final=True)


def test_prisma_dates_are_read_as_utc() -> None:
    sql = planned(*plain(session=CAMEL | {"expiresAt": "timestamp(3) without time zone"})).by_token.sql
    assert "(s.\"expiresAt\" at time zone 'UTC') > now()" in sql


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (plain(session=CAMEL | {"expiresAt": NAIVE}), '"session"."expiresAt"'),
        (plain(user=USER | {"banned": "boolean", "banExpires": NAIVE}), '"user"."banExpires"'),
    ],
)
def test_dates_of_an_unknown_zone_are_refused_for_good_with_both_remedies(
    found: list[SchemaColumn], where: str
) -> None:
    reason = refused(*found, final=True)
    table, name = where.split(".")
    assert where in reason
    assert "1.3.10" in reason
    assert "NAIVE_TIMEZONE" in reason
    assert f"ALTER TABLE {table} ALTER COLUMN {name} TYPE timestamptz USING {name} AT TIME ZONE" in reason


def test_the_operators_zone_is_that_of_every_date_without_one() -> None:
    user, verification = USER | {"banned": "boolean", "banExpires": NAIVE}, VERIFICATION | {"expiresAt": NAIVE}
    found = plain(session=CAMEL | {"expiresAt": NAIVE}, user=user, verification=verification)
    plan = planned(*found, naive_timezone="America/New_York")
    assert isinstance(plan.redeem, Statement)
    for sql in (plan.by_token.sql, plan.by_session.sql):
        assert "(s.\"expiresAt\" at time zone 'America/New_York') > now()" in sql
        assert "(u.\"banExpires\" at time zone 'America/New_York') > now()" in sql
    assert "(v.\"expiresAt\" at time zone 'America/New_York') > now()" in plan.redeem.sql
    assert plan.facts["dates"] == f"{NAIVE} read as America/New_York"


def test_missing_tables_are_refused() -> None:
    assert 'no table "session"' in refused()
    assert 'no table "user"' in refused(*columns(session=CAMEL))
    assert 'no table "auth"."sessions"' in refused(session="auth.sessions")


@pytest.mark.parametrize("name", ["id", "token", "userId", "expiresAt"])
def test_a_missing_column_is_named(name: str) -> None:
    found = [c for c in plain() if (c.table, c.name) != ("session", name)]
    assert f'column "{name}"' in refused(*found)


def test_two_columns_that_could_be_meant_are_refused() -> None:
    assert '"expiresAt" and "expires_at"' in refused(*plain(session=CAMEL | {"expires_at": NAIVE}))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (plain(session=CAMEL | {"expiresAt": "bigint"}), "is bigint, expected timestamp with time zone"),
        (plain(session=CAMEL | {"token": "uuid"}), "expected text"),
        (plain(session=CAMEL | {"id": "numeric"}), "expected text, uuid or integer"),
        (plain(user=USER | {"banned": "integer"}), "expected boolean"),
    ],
)
def test_a_column_of_another_type_is_refused(found: list[SchemaColumn], reason: str) -> None:
    assert reason in refused(*found)


def test_a_right_that_is_missing_is_refused_with_its_grant() -> None:
    secret = {("session", "token"), ("session", "expiresAt"), ("session", "userAgent")}
    found = [
        SchemaColumn(c.table, c.name, c.type, readable=(c.table, c.name) not in secret)
        for c in plain(session=CAMEL | {"userAgent": "text"})
    ]
    assert 'GRANT SELECT ("token", "expiresAt") ON "session" TO "watchout"' in refused(*found)
    found = [
        SchemaColumn(c.table, c.name, c.type, readable=c.name != "role") for c in plain(user=USER | {"role": "text"})
    ]
    assert 'GRANT SELECT ("role") ON "user" TO "watchout"' in refused(*found)


@pytest.mark.parametrize(
    ("type", "form", "cast"),
    [
        ("text", KeyForm.TEXT, ""),
        ("character varying(36)", KeyForm.TEXT, ""),
        ("character(36)", KeyForm.TEXT, "::bpchar[]"),
        ("uuid", KeyForm.UUID, "::uuid[]"),
        ("smallint", KeyForm.SMALLINT, "::smallint[]"),
        ("integer", KeyForm.INTEGER, "::integer[]"),
        ("bigint", KeyForm.BIGINT, "::bigint[]"),
    ],
)
def test_ids_are_compared_in_the_columns_own_type(type: str, form: KeyForm, cast: str) -> None:
    session, user, member = CAMEL | {"id": type, "userId": type}, USER | {"id": type}, MEMBER | {"userId": type}
    plan = planned(*plain(session=session, user=user, member=member), organizations=True)
    assert plan.by_session.form is form
    assert f's."id" = any($1::text[]{cast})' in plan.by_session.sql
    assert plan.members is not None
    assert plan.members.form is form
    assert f'm."userId" = any($1::text[]{cast})' in plan.members.sql


def test_organizations_are_read_only_when_they_are_wanted() -> None:
    found = plain(member=MEMBER)
    assert 'member" m' not in planned(*found).by_token.sql
    plan = planned(*found, organizations=True)
    assert '"member" m' in plan.by_token.sql
    assert '"member" m' in plan.by_session.sql
    assert plan.facts["organizations"] == "member"


def test_organizations_that_are_wanted_but_not_there_are_refused() -> None:
    reason = refused(*plain(), organizations=True)
    assert "STREAM_ACCESS" in reason
    assert 'no table "member"' in reason
    missing = {name: kind for name, kind in MEMBER.items() if name != "role"}
    assert 'table "member" has no column "role"' in refused(*plain(member=missing), organizations=True)


def test_tickets_are_used_up_where_that_is_possible_and_stop_nothing_where_not() -> None:
    assert planned(*plain(verification=VERIFICATION)).redeem == Statement(
        'delete from "verification" as v using "session" s join "user" u on u."id" = s."userId" '
        'where v."identifier" = any($1::text[]) and v."expiresAt" > now() '
        'and s."token" = v."value"::text and s."expiresAt" > now() '
        'returning v."identifier"::text as key, u."id"::text as user_id, s."id"::text as session_id, '
        'extract(epoch from s."expiresAt")::float8 as ends, null as roles, null as member',
        KeyForm.TEXT,
        writes=True,
    )
    refusal = planned(*plain()).redeem
    assert isinstance(refusal, SchemaRefusal)
    assert 'no table "verification"' in refusal.reason
    naive = planned(*plain(verification=VERIFICATION | {"expiresAt": NAIVE})).redeem
    assert isinstance(naive, SchemaRefusal)
    assert "NAIVE_TIMEZONE" in naive.reason


def test_sqlite_looks_a_ticket_up_and_then_deletes_it() -> None:
    redeem = planned(*plain(verification=VERIFICATION), dialect="sqlite").redeem
    assert isinstance(redeem, Statement)
    assert redeem.sql.startswith('select cast(v."identifier" as text) as key, ')
    assert 'from "verification" v cross join "session" s join "user" u on u."id" = s."userId" where ' in redeem.sql
    assert redeem.then == 'delete from "verification" as v where v."identifier" in (select value from json_each(?))'


def test_a_ticket_brings_the_organizations_too() -> None:
    redeem = planned(*plain(member=MEMBER, verification=VERIFICATION), organizations=True).redeem
    assert isinstance(redeem, Statement)
    assert redeem.sql.startswith('with live as materialized (delete from "verification" as v using ')
    assert 'left join (select m."userId" as member' in redeem.sql


def test_the_grant_that_tickets_need_is_named() -> None:
    found = [
        SchemaColumn(c.table, c.name, c.type, readable=c.name != "value") for c in plain(verification=VERIFICATION)
    ]
    plan = make_plan(TablesFound(columns=tuple(found), role="watch out", may_delete=False), Layout(), POSTGRES)
    assert isinstance(plan, Plan)
    assert isinstance(plan.redeem, SchemaRefusal)
    assert 'GRANT SELECT ("value"), DELETE ON "verification" TO "watch out"' in plan.redeem.reason


def test_renamed_tables_are_quoted() -> None:
    plan = planned(*plain(member=MEMBER, verification=VERIFICATION), session="auth.Sessions", user="people",
                   member="staff", verification="v", organizations=True)  # fmt: skip
    assert 'from "auth"."Sessions" s join "people" u' in plan.by_token.sql
    assert 'from "staff" m' in plan.by_token.sql
    assert isinstance(plan.redeem, Statement)
    assert 'delete from "v" as v' in plan.redeem.sql
    assert quoted('od"d.na"me') == '"od""d"."na""me"'


def test_sqlite_takes_any_declared_type() -> None:
    found = plain(session=CAMEL | {"expiresAt": "date"}, user=USER | {"banned": "integer", "banExpires": "date"})
    plan = planned(*found, dialect="sqlite")
    assert 's."token" in (select value from json_each(?))' in plan.by_token.sql
    assert plan.by_session.form is KeyForm.TEXT
    serial = planned(*plain(session=CAMEL | {"id": "INTEGER"}), dialect="sqlite")
    assert serial.by_session.form is KeyForm.BIGINT


def test_the_facts_say_what_was_found() -> None:
    found = plain(session=SNAKE, user=USER | {"banned": "boolean"}, verification=VERIFICATION)
    plan = make_plan(TablesFound(columns=tuple(found), version="18.1"), Layout(), POSTGRES)
    assert isinstance(plan, Plan)
    assert plan.facts == {
        "version": "18.1", "session": "session", "user": "user", "spelling": "snake_case",
        "dates": f"{NAIVE} read as UTC", "ids": "text", "bans": True, "organizations": False,
        "tickets": "verification", "token_indexed": True,
    }  # fmt: skip


def test_a_column_without_an_index_is_warned_of() -> None:
    found = [
        SchemaColumn(c.table, c.name, c.type, indexed=c.name not in ("token", "userId")) for c in plain(member=MEMBER)
    ]
    assert [w.partition(" ")[0] for w in planned(*found).warnings] == ['"session"."token"']
    assert [w.partition(" ")[0] for w in planned(*found, organizations=True).warnings] == [
        '"session"."token"',
        '"member"."userId"',
    ]
    assert planned(*found).facts["token_indexed"] is False


def test_a_real_token_is_asked_for() -> None:
    assert KeyForm.TOKEN.accepts("hQ6K2mV0q5rT8xYbN3cD7fGjL1pS4wZa")


@pytest.mark.parametrize("token", ["", "x" * 15, "x" * 513, "x" * 20 + "\0", "x x" * 10, "ü" * 20, "x" * 32 + "\n"])
def test_what_cannot_be_a_token_is_not_asked_for(token: str) -> None:
    assert not KeyForm.TOKEN.accepts(token)


UUID = "11111111-2222-3333-4444-55555555555f"


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            KeyForm.TEXT,
            ["a", "hQ6K2mV0", "a b", "x" * 512, "sitzung-ä", "ü" * 512, "会議", "\u00a0", "🎥"],
            ["", "x" * 513, "🎥" * 513, "\0", "a\0", "\ud800", "a\udfff", "a\n", "\x1b", "\x7f", "\x85"],
        ),
        (KeyForm.UUID, [UUID], ["", UUID.upper(), UUID[:-1], f"{{{UUID}}}", UUID.replace("-", ""), UUID + "\n"]),
        (KeyForm.SMALLINT, ["0", "32767"], ["32768", "-1", ""]),
        (
            KeyForm.INTEGER,
            ["0", "1", "2147483647"],
            ["2147483648", "-1", "01", "1.0", "1e3", " 1", "١", "", "9" * 5000],
        ),
        (KeyForm.BIGINT, ["2147483648", "9223372036854775807"], ["9223372036854775808", "9" * 19, "1" * 20]),
    ],
)
def test_only_ids_as_the_database_writes_them_are_asked_for(form: KeyForm, good: list[str], bad: list[str]) -> None:
    assert [key for key in good if not form.accepts(key)] == []
    assert [key for key in bad if form.accepts(key)] == []


@given(st.text(), st.sampled_from(KeyForm))
def test_whatever_fits_is_text_of_a_bounded_length_that_any_database_takes(key: str, form: KeyForm) -> None:
    if form.accepts(key):
        assert 1 <= len(key) <= 512
        assert key.isascii() or form is KeyForm.TEXT
        assert not {unicodedata.category(character) for character in key} & {"Cc", "Cs"}
        key.encode()


def test_a_ticket_is_looked_for_in_plain_and_by_its_hash() -> None:
    ticket = "T" * 32
    digest = base64.urlsafe_b64encode(hashlib.sha256(ticket.encode()).digest()).decode().rstrip("=")
    assert ticket_identifiers(ticket) == [f"one-time-token:{ticket}", f"one-time-token:{digest}"]
    assert ticket_identifiers("short") == []
    assert ticket_identifiers("\ud800" * 32) == []


def test_a_hash_that_is_kept_is_no_ticket_itself() -> None:
    (_, kept) = ticket_identifiers("T" * 32)
    assert kept not in ticket_identifiers(kept.removeprefix("one-time-token:"))


def test_roles_are_separated_by_commas() -> None:
    assert read_roles(None) == frozenset()
    assert read_roles("") == frozenset()
    assert read_roles(" admin, ,guard,admin") == {"admin", "guard"}


def test_a_row_is_a_caller() -> None:
    pairs = json.dumps([["o1", "owner,admin"], ["o2", None], ["o1", "guard"], [None, "x"]])
    assert read_identity(("t", "u1", "s1", 12.5, "user", pairs)) == (
        "t",
        Identity("u1", "s1", 12.5, frozenset({"user"}),
                 {"o1": frozenset({"owner", "admin", "guard"}), "o2": frozenset()}),
    )  # fmt: skip
    assert read_organizations(None) == {}


PLAN = planned(*plain())
OTHER = planned(*plain(user=USER | {"banned": "boolean"}))


def test_columns_are_read_again_after_a_while() -> None:
    plans = PlanCache()
    assert plans.current(0.0) is None
    assert plans.replace(PLAN, 100.0)
    assert plans.current(100.0 + PLAN_TRUSTED_S - 1) == PLAN
    assert plans.current(100.0 + PLAN_TRUSTED_S) is None
    assert not plans.replace(planned(*plain()), 200.0)
    assert plans.replace(OTHER, 200.0)


def test_columns_are_read_again_after_a_statement_that_failed() -> None:
    plans = PlanCache()
    plans.replace(PLAN, 100.0)
    plans.expire()
    assert plans.current(100.0) is None
