from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.kit.ctl_command import Ctl, Ended
from tests.kit.processes import Watchout
from tests.kit.services import BetterAuth, Postgres
from watchout.common.settings import Settings, table
from watchout.ctl.commands.doctor import CHECKS, ORDER, _bounded
from watchout.ctl.doctor.findings import Finding, Level
from watchout.identity.embedded_store import mint_token

#: What the doctor may take at most, the start of the interpreter included; its checks run at the same time.
BOUND_S = 14
NAIVE = """
create table "user" (id text primary key);
create table session (id text primary key, "expiresAt" timestamp, token text unique, "userId" text);
"""
SCHEMA = NAIVE.replace("timestamp", "timestamptz")
VERIFICATION = 'create table verification (id text primary key, identifier text, value text, "expiresAt" timestamptz);'


def lines(ended: Ended, check: str, level: str) -> list[str]:
    """The sentences of one check and level."""
    assert ended.err == ""
    return [m[1] for m in re.finditer(rf"^{level} +{check} +(.+)$", ended.out, re.MULTILINE)]


def line(ended: Ended, check: str, level: str, words: str) -> str:
    """The one sentence of that check and level that has these words."""
    (found,) = [text for text in lines(ended, check, level) if words in text]
    return found


@asynccontextmanager
async def served(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = handler(request)
        return answer

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Doctor = Callable[..., Awaitable[Ended]]


@pytest.fixture
def doctor(ctl: Ctl, unused_port: int) -> Doctor:
    """The command to its end, on a port of its own unless said otherwise."""

    async def doctor(*arguments: object, **environ: str) -> Ended:
        return await ctl("doctor", *arguments, **{"WATCHOUT_PORT": str(unused_port), **environ})

    return doctor


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def jwks() -> bytes:
    key = jwt.get_algorithm_by_name("EdDSA").to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True)
    return json.dumps({"keys": [key | {"kid": "k1"}, {"kty": "oct", "k": "AAAA"}]}).encode()


def everything_below(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# ── nothing runs ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_where_nothing_is_yet_nothing_is_wrong_and_nothing_is_made(
    doctor: Doctor, home: Path, tmp_path: Path, unused_port: int
) -> None:
    ended = await doctor("--home", home / "new", WATCHOUT_HOST="127.0.0.1")
    assert ended.code == 0
    assert line(ended, "home", "ok", "is not there yet, `watchout-gateway` makes it")
    assert line(ended, "store", "ok", "is not there yet, `watchout-gateway` makes it")
    assert line(ended, "ports", "ok", f"Port {unused_port} is free; no gateway runs on this home.")
    assert line(ended, "ports", "ok", "No router runs")
    assert lines(ended, "(?:home|store|clock|keys|tls|ml)", "(?:wrong|warning)") == []
    assert list(home.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


async def test_json_is_for_machines(doctor: Doctor, home: Path) -> None:
    ended = await doctor("--json")
    assert (ended.code, ended.err) == (0, "")
    body = json.loads(ended.out)
    assert body["status"] in ("ok", "warning")
    assert {"settings", "home", "store", "clock", "keys", "tls", "ports", "ml"} == {
        f["check"] for f in body["findings"]
    }
    assert all({"check", "level", "says"} <= set(finding) for finding in body["findings"])
    assert all(finding["level"] in ("ok", "warning") for finding in body["findings"])
    assert next(f["facts"]["path"] for f in body["findings"] if f["check"] == "home") == str(home)


@pytest.mark.parametrize("as_json", [False, True])
async def test_every_wrong_setting_is_named_and_no_secret_shown(doctor: Doctor, as_json: bool) -> None:
    ended = await doctor(*["--json"] * as_json,
        WATCHOUT_PORT="many", STATS_TOKEN="canary", JWT_JWKS_URL="ftp://user:canary-jwks@host/keys",
    )  # fmt: skip
    assert ended.code == 2
    assert ended.err.count("watchout-ctl: wrong setting: ") == 3
    assert "WATCHOUT_PORT is 'many', expected a whole number from 1 to 65535" in ended.err
    assert "canary" not in ended.err + ended.out
    if as_json:
        assert [f["level"] for f in json.loads(ended.out)["findings"]] == ["wrong"] * 3
    else:
        assert ended.out == ""


async def test_an_env_file_that_cannot_be_read_ends_with_2(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A='")
    ended = await doctor()
    assert (ended.code, ended.out) == (2, "")
    assert ".env in this directory cannot be read" in ended.err


async def test_the_env_file_is_looked_at(ctl: Ctl, tmp_path: Path, unused_port: int) -> None:
    (tmp_path / ".env").write_text(f"WATCHOUT_PORT={unused_port}\nSTATS_TOKEN=canary-stats-token\nALOWED_ORIGINS=x\n")
    (tmp_path / ".env").chmod(0o644)
    ended = await ctl("doctor")
    assert ended.code == 0
    assert line(ended, "settings", "ok", "STATS_TOKEN, WATCHOUT_PORT from .env")
    assert line(ended, "settings", "warning", ".env has mode 0644")
    assert line(ended, "settings", "warning", "Is ALLOWED_ORIGINS meant?")
    assert "canary" not in ended.out


async def test_an_embedded_store_that_is_there_is_looked_at_and_left_as_it_is(doctor: Doctor, home: Path) -> None:
    mint_token(home / "sessions.db")
    (home / "sessions.db").chmod(0o644)
    before = everything_below(home)
    ended = await doctor()
    assert ended.code == 1
    assert line(ended, "store", "ok", f"at {home}/sessions.db answers; a look-up takes")
    assert line(ended, "schema", "ok", "Sessions are in session, users in user: camelCase")
    assert line(ended, "home", "wrong", f"chmod 600 {home}/sessions.db")
    assert everything_below(home) == before


async def test_an_embedded_store_without_tables_is_wrong_and_not_mended(
    doctor: Doctor, home: Path, unused_port: int
) -> None:
    with contextlib.closing(sqlite3.connect(home / "sessions.db")) as db:
        db.execute("create table other (a)")
    (home / "sessions.db").chmod(0o600)
    before = everything_below(home)
    ended = await doctor()
    assert ended.code == 1
    assert line(ended, "store", "wrong", 'there is no table "session" here')
    assert everything_below(home) == before


async def test_a_file_that_is_no_database_is_wrong(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "app.db").write_bytes(b"not a database" * 1000)
    for name, words in (("app.db", "file is not a database"), ("none.db", "No such file")):
        ended = await doctor(DATABASE_URL=f"sqlite:{tmp_path / name}")
        assert ended.code == 1
        assert line(ended, "store", "wrong", words)
    assert not (tmp_path / "none.db").exists()


async def test_a_stranger_on_the_port_is_wrong(doctor: Doctor, silent: int) -> None:
    ended = await doctor(WATCHOUT_PORT=str(silent))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", f"Another program listens on port {silent}")
    async with served(lambda _: web.json_response({"status": "ok"})) as url:
        ended = await doctor(WATCHOUT_PORT=url.rpartition(":")[2])
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "Another program listens")


async def test_a_host_that_is_not_ours_is_wrong(doctor: Doctor) -> None:
    ended = await doctor(WATCHOUT_HOST="192.0.2.1")
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "Set WATCHOUT_HOST to an address of this machine")


async def test_an_ml_service_that_is_away_is_a_warning_without_its_password(doctor: Doctor, unused_port: int) -> None:
    ended = await doctor(ML_SERVICE_URL=f"http://u:canary-ml@127.0.0.1:{unused_port}/canary")
    assert ended.code == 0
    assert line(ended, "ml", "warning", f"at 127.0.0.1:{unused_port} cannot be reached")
    assert "canary" not in ended.out
    async with served(lambda _: web.Response()) as url:
        ended = await doctor(ML_SERVICE_URL=url)
    assert line(ended, "ml", "ok", "takes connections")


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_certificate(folder: Path, days: float) -> dict[str, str]:
    """Files of a certificate that ends in so many days, and the settings for them."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cam.example")]), critical=False)
        .sign(key, SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[1].chmod(0o600)
    return {"TLS_CERT": str(files[0]), "TLS_KEY": str(files[1])}


async def test_an_expired_certificate_is_wrong(doctor: Doctor, tmp_path: Path) -> None:
    ended = await doctor(**make_certificate(tmp_path, -1))
    assert ended.code == 1
    assert line(ended, "tls", "wrong", "The certificate for cam.example expired on")


async def test_a_key_of_another_certificate_is_wrong_and_one_that_all_may_read_a_warning(
    doctor: Doctor, tmp_path: Path
) -> None:
    settings = make_certificate(tmp_path, 60)
    ended = await doctor(**settings)
    assert ended.code == 0
    assert line(ended, "tls", "ok", "is good until")
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", 60)["TLS_KEY"]
    Path(other).chmod(0o644)
    ended = await doctor(TLS_CERT=settings["TLS_CERT"], TLS_KEY=other)
    assert ended.code == 1
    assert line(ended, "tls", "wrong", "TLS_KEY does not belong to the certificate in TLS_CERT")
    assert line(ended, "tls", "warning", "everybody on this machine may read the private key")


# ── keys, introspection, clocks ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behind_s", "level", "words"),
    [
        (0, "ok", "agrees with that of the JWT issuer"),
        (10, "warning", "s ahead of that of the JWT issuer"),
        (-600, "wrong", "s behind that of the JWT issuer"),
    ],
)
async def test_the_clock_of_the_issuer_is_compared(doctor: Doctor, behind_s: float, level: str, words: str) -> None:
    def answer(_: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) - timedelta(seconds=behind_s), usegmt=True)
        return web.Response(body=jwks(), headers={"Date": date})

    async with served(answer) as url:
        ended = await doctor(JWT_JWKS_URL=f"{url}/jwks", JWT_ISSUER="https://app")
    assert ended.code == (1 if level == "wrong" else 0)
    assert line(ended, "clock", level, words)
    assert line(ended, "keys", "ok", "publishes 1 of 2 keys that can be used (Ed25519 EdDSA)")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=404), "it answered with status 404"),
        (lambda: web.Response(text="<html>"), "its answer is not JSON"),
        (lambda: web.json_response({"keys": []}), "publishes 0 keys, none of which can be used"),
    ],
)
async def test_an_issuer_without_keys_is_wrong(doctor: Doctor, answer: Callable[[], web.Response], words: str) -> None:
    async with served(lambda _: answer()) as url:
        ended = await doctor(JWT_JWKS_URL=f"{url}/jwks", JWT_ISSUER="https://app")
    assert ended.code == 1
    assert line(ended, "keys", "wrong", words)


async def test_a_key_that_cannot_be_used_is_wrong(doctor: Doctor) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----"
    ended = await doctor(JWT_PUBLIC_KEY=pem)
    assert ended.code == 1
    assert line(ended, "keys", "wrong", "JWT_PUBLIC_KEY is no public key in PEM")


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (lambda _: web.json_response({"active": False}), "ok", "made up to be nobody's"),
        (lambda _: web.json_response({"active": True, "sub": "u"}), "wrong", "everybody can sign in"),
        (lambda _: web.Response(status=401), "wrong", "INTROSPECTION_AUTH_HEADER_NAME and _VALUE"),
        (lambda _: web.Response(status=404), "warning", "the path is wrong"),
        (lambda _: web.Response(status=500), "wrong", "it answered with status 500"),
    ],
)
async def test_the_introspection_endpoint_is_asked_about_nobody(
    doctor: Doctor, answer: Callable[[web.Request], web.Response], level: str, words: str
) -> None:
    asked: list[str | None] = []

    def handle(request: web.Request) -> web.Response:
        if request.method == "POST":
            asked.append(request.headers.get("X-Proof"))
        return answer(request)

    async with served(handle) as url:
        ended = await doctor(
            INTROSPECTION_URL=f"{url}/introspect?key=canary-key",
            INTROSPECTION_AUTH_HEADER_NAME="X-Proof",
            INTROSPECTION_AUTH_HEADER_VALUE="canary-proof",
        )
    assert asked == ["canary-proof"]
    assert ended.code == (1 if level == "wrong" else 0)
    assert line(ended, "keys", level, words)
    assert "canary" not in ended.out


# ── the checks themselves ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (PermissionError(13, "Permission denied", "/srv/w"), "cannot look: Permission denied, /srv/w. Run it as"),
        (OSError("canary"), "This check cannot look: OSError."),
        (KeyError("canary"), "a fault of this program, KeyError."),
        (TimeoutError("canary"), "did not end within"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", sorted({name for name, _ in CHECKS}))
async def test_a_check_that_fails_is_a_sentence_and_stops_no_other(name: str, fault: Exception, words: str) -> None:
    async def check(_: Settings) -> list[Finding]:
        raise fault

    (finding,) = await _bounded(name, check, Settings())
    assert finding.check in ORDER
    assert finding.level is Level.WRONG
    assert words in finding.sentence
    assert "canary" not in finding.sentence


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────────────


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
    assert "dates are timestamp with time zone, ids are text, bans count" in schema
    assert line(ended, "schema", "ok", "are taken from verification")
    assert line(ended, "clock", "ok", "PostgreSQL")
    assert line(ended, "clock", "ok", "the JWT issuer")
    assert line(ended, "clock", "ok", "the introspection endpoint")
    assert line(ended, "keys", "ok", "publishes 1 key that can be used (EdDSA)")
    assert line(ended, "keys", "ok", "made up to be nobody's")
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
    assert line(ended, "store", "ok", "change nothing here: pgbouncer")
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
    assert line(ended, "schema", "ok", "are taken from verification")
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
    assert line(ended, "store", "warning", "no trigger of the session table speaks on it")
    postgres.run_sql(postgres_url, index[index.index("CREATE") :])
    postgres.run_sql(
        postgres_url,
        "create function tell() returns trigger language plpgsql as $$ begin perform "
        "pg_notify('watchout_sessions', '{}'); return null; end $$;"
        "create trigger tell after delete on session for each row execute function tell();",
    )
    ended = await doctor(**settings)
    assert line(ended, "store", "ok", "The trigger of REVOCATION_CHANNEL is there.")
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


async def test_whoever_does_not_answer_is_waited_for_a_bounded_time(doctor: Doctor, silent: int) -> None:
    url = f"http://127.0.0.1:{silent}/"
    began = time.monotonic()
    ended = await doctor(DATABASE_URL=f"postgres://u:canary-pw@127.0.0.1:{silent}/app", WATCHOUT_PORT=str(silent),
        JWT_JWKS_URL=url, JWT_ISSUER="https://app", INTROSPECTION_URL=url, ML_SERVICE_URL=url, STORE_TIMEOUT_S="60",
    )  # fmt: skip
    assert time.monotonic() - began < BOUND_S
    assert ended.code == 1
    assert line(ended, "store", "wrong", "gave no answer within 3 s")
    assert "no whole answer within 3 s" in line(ended, "keys", "wrong", "JWT_JWKS_URL")
    assert "no whole answer within 3 s" in line(ended, "keys", "wrong", "INTROSPECTION_URL at")
    assert "fault of this program" not in ended.out


# ── canaries ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_secret_of_any_setting_is_ever_shown(doctor: Doctor, unused_port: int) -> None:
    def answer(request: web.Request) -> web.Response:
        said = f"{request.headers} {request.path_qs}"
        return web.Response(status=500, text=said, reason="canary-echo", headers={"X-Echo": said})

    async with served(answer) as url:
        at = url.removeprefix("http://")
        environ = {
            "WATCHOUT_PORT": at.rpartition(":")[2],
            "WATCHOUT_TOKEN": "canary-token",
            "DATABASE_URL": f"postgres://canary-user:canary-db@127.0.0.1:{unused_port}/canary-name?password=canary-more",
            "BETTER_AUTH_SECRET": "canary-better",
            "JWT_JWKS_URL": f"http://who:canary-jwks@{at}/canary-path?key=canary-key",
            "JWT_ISSUER": "https://app",
            "INTROSPECTION_URL": f"http://{at}/canary-path?key=canary-key",
            "INTROSPECTION_AUTH_HEADER_VALUE": "Bearer canary-header",
            "ML_SERVICE_URL": f"http://who:canary-ml@{at}/canary-path",
            "ML_FALLBACK_URL": f"http://who:canary-fallback@{at}/canary-path",
            "ML_HEADERS": '{"Authorization":"Bearer canary-ml-header"}',
            "ALERT_WEBHOOK_URL": f"https://{at}/canary-path?key=canary-webhook",
            "ALERT_WEBHOOK_SECRETS": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
            "STATS_TOKEN": "canary-stats-token",
            "SERVICE_TOKEN": "canary-service-token",
            "SERVICE_WEBHOOK_SECRETS": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
        }
        assert {spec.env for _, spec, _ in table() if spec.secret} - {"JWT_SECRET"} <= environ.keys()
        for arguments in ([], ["--json"]):
            for more in ({}, {"LOG_LEVEL": "debug"}, {"JWT_JWKS_URL": "", "JWT_SECRET": "canary-jwt-secret"}):
                ended = await doctor(*arguments, **environ | more)
                assert ended.code == 1
                assert "canary" not in ended.out + ended.err
                assert "Y2Fu" not in ended.out + ended.err
                assert "Traceback" not in ended.out + ended.err


# ── a watchout that runs ─────────────────────────────────────────────────────────────────────────────────────────


def of(watchout: Watchout, **environ: str) -> dict[str, str]:
    names = ("WATCHOUT_HOME", "WATCHOUT_HOST", "WATCHOUT_PORT")
    return {name: watchout.environ[name] for name in names} | environ


@pytest.mark.e2e
async def test_a_watchout_that_runs_is_well(doctor: Doctor, plain_watchout: Watchout, tmp_path: Path) -> None:
    token = plain_watchout.token()
    ended = await doctor(**of(plain_watchout))
    assert ended.code == 0, ended.out
    assert line(ended, "home", "ok", "is private")
    assert line(ended, "store", "ok", "sessions.db answers")
    assert line(ended, "ports", "ok", f"The gateway on port {plain_watchout.port} answers, and is healthy.")
    assert re.search("1 gateway, 1 mlbridge, 0 streams", line(ended, "ports", "ok", "The router answers, up "))
    assert re.search(r"^\S+ +ports +The gateway \(process \d+\) may open", ended.out, re.MULTILINE)
    assert token not in ended.out
    assert plain_watchout.get("/streams", token)[0] == 200
    with_bridge = await doctor(**of(plain_watchout, ML_SERVICE_URL=plain_watchout.url))
    assert "no mlbridge runs" not in with_bridge.out


@pytest.mark.e2e
async def test_a_watchout_of_another_home_on_the_port_is_wrong(
    doctor: Doctor, plain_watchout: Watchout, home: Path
) -> None:
    ended = await doctor(**of(plain_watchout, WATCHOUT_HOME=str(home)))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "A watchout with another WATCHOUT_HOME listens on port")


@pytest.mark.e2e
async def test_another_port_than_the_gateways_is_a_warning(
    doctor: Doctor, plain_watchout: Watchout, unused_port: int
) -> None:
    ended = await doctor(**of(plain_watchout, WATCHOUT_PORT=str(unused_port)))
    assert ended.code == 0
    assert line(ended, "ports", "warning", f"a gateway of this home does on {plain_watchout.port}")


@pytest.mark.e2e
async def test_what_is_missing_of_a_watchout_is_said(doctor: Doctor, watchout: Callable[..., Watchout]) -> None:
    half = watchout(start=False)
    half.start("router").wait_for_output("router ready")
    ended = await doctor(**of(half))
    assert ended.code == 0
    assert line(ended, "ports", "warning", "a router runs on this home, but no gateway")
    half.start("gateway")
    half.wait_ready()
    half.one("router").kill()
    ended = await doctor(**of(half))
    assert ended.code == 1
    assert line(
        ended, "ports", "wrong", "answers, but is not healthy: the router is unreachable. Start `watchout-router`"
    )
    assert line(ended, "ports", "wrong", "No router answers")
    half.one("gateway").pause()
    ended = await doctor(**of(half))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "does not answer: no answer within 3 s. It hangs or is overloaded")


@pytest.mark.e2e
async def test_a_gateway_with_tls_is_asked_over_tls(
    doctor: Doctor, watchout: Callable[..., Watchout], tmp_path: Path
) -> None:
    settings = make_certificate(tmp_path, 60)
    secure = watchout(start=False, environ=settings)
    secure.start("gateway").wait_for_output("gateway ready")
    ended = await doctor(**of(secure, **settings))
    assert line(ended, "ports", "wrong", "answers, but is not healthy: the router is unreachable")
    assert "another certificate" not in ended.out
    ended = await doctor(**of(secure))
    assert line(ended, "ports", "wrong", "speaks TLS, but TLS_CERT is not set")
    (tmp_path / "new").mkdir()
    ended = await doctor(**of(secure, **make_certificate(tmp_path / "new", 60)))
    assert line(ended, "ports", "warning", "shows another certificate than TLS_CERT has")


async def test_a_pipe_that_closes_early_is_no_traceback(start: Callable[..., Any]) -> None:
    command = await start("doctor")
    command.process.stdout._transport.close()
    await asyncio.wait_for(command.process.wait(), BOUND_S)
    assert b"Traceback" not in await command.process.stderr.read()
