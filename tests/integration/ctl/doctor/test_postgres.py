"""``watchout-ctl doctor`` against PostgreSQL and Better Auth."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.kit.doctor_report import Doctor, line, lines
from tests.kit.services import BetterAuth, Postgres

NAIVE = """
create table "user" (id text primary key);
create table session (id text primary key, "expiresAt" timestamp, token text unique, "userId" text);
"""
SCHEMA = NAIVE.replace("timestamp", "timestamptz")
VERIFICATION = 'create table verification (id text primary key, identifier text, value text, "expiresAt" timestamptz);'


def role(postgres: Postgres, url: str, grants: str) -> str:
    """The URL of a role that may do this only; `%` stands for its name."""
    name = f"r_{url[-12:]}"
    postgres.run_sql(url, f"create role {name} login password 'canary-pw';" + grants.replace("%", name))
    return f"postgres://{name}:canary-pw@{url.rpartition('@')[2]}"


@pytest.mark.real
async def test_a_real_better_auth_is_well_and_keeps_its_tickets(
    doctor: Doctor, postgres: Postgres, postgres_url: str, start_better_auth: Callable[..., BetterAuth]
) -> None:
    plugins = "bearer,jwt,admin,organization,oneTimeToken"
    better_auth = start_better_auth(postgres_url, BA_PLUGINS=plugins)
    signed_in = better_auth.sign_up()
    ticket = better_auth.one_time_token(signed_in.token)
    better_auth.jwt(signed_in.token)  # from now on there is a key
    ended = await doctor(DATABASE_URL=postgres_url, BETTER_AUTH_SECRET=better_auth.ready["secret"],
        JWT_JWKS_URL=better_auth.ready["jwksUrl"], JWT_ISSUER=better_auth.ready["issuer"],
        INTROSPECTION_URL=f"{better_auth.url}{better_auth.ready['basePath']}/get-session?disableRefresh=true",
        INTROSPECTION_METHOD="GET", INTROSPECTION_TOKEN_IN="bearer", STREAM_ACCESS="organization",
    )  # fmt: skip
    assert ended.code == 0, ended.out
    assert line(ended, "store", "ok", f"PostgreSQL {postgres.major}")
    assert line(ended, "store", "warning", "superuser")
    schema = line(ended, "schema", "ok", "Sessions are in session, users in user, members in member: camelCase")
    assert "dates are timestamp with time zone, ids are text, bans are honoured" in schema
    assert line(ended, "schema", "ok", "are redeemed from verification")
    assert line(ended, "clock", "ok", "PostgreSQL")
    assert line(ended, "clock", "ok", "the JWT issuer")
    assert line(ended, "clock", "ok", "the introspection endpoint")
    assert line(ended, "keys", "ok", "publishes 1 key that can be used (EdDSA)")
    assert line(ended, "keys", "ok", "refuses a random token that no user has")
    for secret in (postgres.password, better_auth.ready["secret"], signed_in.token, ticket):
        assert secret not in ended.out
    assert better_auth.redeem(ticket)


@pytest.mark.real
async def test_a_naive_schema_is_wrong_and_the_remedy_is_said(
    doctor: Doctor, postgres: Postgres, postgres_url: str
) -> None:
    postgres.run_sql(postgres_url, NAIVE)
    ended = await doctor(DATABASE_URL=postgres_url)
    assert ended.code == 1
    sentence = line(ended, "store", "wrong", "is a timestamp without time zone")
    assert "Set NAIVE_TIMEZONE to the time zone of the Better Auth process" in sentence
    assert 'ALTER TABLE "session" ALTER COLUMN "expiresAt" TYPE timestamptz' in sentence
    ended = await doctor(DATABASE_URL=postgres_url, NAIVE_TIMEZONE="Asia/Tokyo")
    assert ended.code == 0
    assert line(ended, "schema", "ok", "read as Asia/Tokyo")


@pytest.mark.real
async def test_row_level_security_is_wrong_with_the_statement_that_mends_it(
    doctor: Doctor, postgres: Postgres, postgres_url: str
) -> None:
    hide = "alter table session enable row level security;"
    postgres.run_sql(postgres_url, SCHEMA + hide)
    url = role(postgres, postgres_url, 'grant select on session, "user" to %;')
    ended = await doctor(DATABASE_URL=url)
    assert ended.code == 1
    said = line(ended, "store", "wrong", "row level security")
    policy = re.search(r"CREATE POLICY .*$", said)
    assert policy is not None
    postgres.run_sql(postgres_url, policy[0])
    ended = await doctor(DATABASE_URL=url)
    assert lines(ended, "store", "wrong") == []
    assert line(ended, "store", "ok", "answers")


@pytest.mark.real
async def test_options_of_the_url_and_a_read_only_database_are_told(
    doctor: Doctor, postgres: Postgres, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.run_sql(postgres_url, SCHEMA + f"alter database {name} set default_transaction_read_only = on")
    ended = await doctor(DATABASE_URL=f"{postgres_url}?pgbouncer=true&something_new=1", REVOCATION_CHANNEL="watchout")
    assert "something_new" in line(ended, "store", "warning", "not known here")
    assert line(ended, "store", "ok", "have no effect here: pgbouncer")
    assert line(ended, "store", "warning", "transaction pooler")
    assert line(ended, "store", "warning", "read-only")
    ended = await doctor(DATABASE_URL=f"{postgres_url}?sslmode=require")
    assert "offers no TLS" in line(ended, "store", "wrong", "sslmode=")


@pytest.mark.real
async def test_missing_rights_come_with_their_grants(doctor: Doctor, postgres: Postgres, postgres_url: str) -> None:
    postgres.run_sql(postgres_url, SCHEMA + VERIFICATION)
    url = role(postgres, postgres_url, 'grant select (id, token, "userId") on session to %;')
    ended = await doctor(DATABASE_URL=url)
    assert ended.code == 1
    grant = re.search(r'GRANT SELECT \("expiresAt"\) ON "session" TO "\w+"$', line(ended, "store", "wrong", "GRANT"))
    assert grant is not None
    postgres.run_sql(postgres_url, grant[0])
    ended = await doctor(DATABASE_URL=url)
    grant = re.search(r"GRANT SELECT .*$", line(ended, "store", "wrong", 'GRANT SELECT ("id") ON "user"'))
    assert grant is not None
    postgres.run_sql(postgres_url, grant[0])
    ended = await doctor(DATABASE_URL=url)
    assert ended.code == 0
    grant = re.search(r"GRANT SELECT .*$", line(ended, "schema", "warning", "DELETE ON"))
    assert grant is not None
    postgres.run_sql(postgres_url, grant[0])
    ended = await doctor(DATABASE_URL=url)
    assert line(ended, "schema", "ok", "are redeemed from verification")
    assert not lines(ended, "store", "warning")
    assert "canary" not in ended.out


@pytest.mark.real
async def test_a_missing_index_and_a_missing_trigger_are_warnings(
    doctor: Doctor, postgres: Postgres, postgres_url: str
) -> None:
    postgres.run_sql(postgres_url, SCHEMA.replace("unique", ""))
    settings = {"DATABASE_URL": postgres_url, "REVOCATION_CHANNEL": "watchout_sessions"}
    ended = await doctor(**settings)
    assert ended.code == 0
    index = line(ended, "schema", "warning", "has no index")
    assert index.endswith('CREATE INDEX ON "session" ("token")')
    assert line(ended, "store", "warning", "no trigger of the session table notifies it")
    postgres.run_sql(postgres_url, index[index.index("CREATE") :])
    postgres.run_sql(
        postgres_url,
        "create function tell() returns trigger language plpgsql as $$ begin perform "
        "pg_notify('watchout_sessions', '{}'); return null; end $$;"
        "create trigger tell after delete on session for each row execute function tell();",
    )
    ended = await doctor(**settings)
    assert line(ended, "store", "ok", "The trigger of REVOCATION_CHANNEL exists.")
    assert "has no index" not in ended.out


@pytest.mark.real
async def test_a_stopped_postgres_is_wrong_without_its_password(doctor: Doctor, own_postgres: Postgres) -> None:
    own_postgres.stop()
    ended = await doctor(DATABASE_URL=own_postgres.url())
    assert ended.code == 1
    sentence = line(ended, "store", "wrong", "PostgreSQL cannot be reached")
    assert f"at 127.0.0.1:{own_postgres.port}" in sentence
    assert "Start PostgreSQL" in sentence
    assert own_postgres.password not in ended.out


@pytest.mark.real
async def test_a_wrong_password_is_wrong_and_not_shown(doctor: Doctor, postgres: Postgres) -> None:
    ended = await doctor(DATABASE_URL=f"postgres://postgres:canary-pw@127.0.0.1:{postgres.port}/postgres")
    assert ended.code == 1
    assert "Set user and password in DATABASE_URL." in line(ended, "store", "wrong", "password authentication failed")
    assert "canary" not in ended.out
