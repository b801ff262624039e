"""Each option of a database URL against a real PostgreSQL that speaks TLS, and through PgBouncer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from tests.integration.identity.postgres_kit import ALICE, SCHEMA, SESSION, TOKEN, Database, PgBouncer, verify, who
from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.ports import free_port
from tests.kit.relays import Relays, both_ways, connected
from tests.kit.services import Postgres
from watchout.common.errors import StartError, StoreUnavailable
from watchout.identity.sources.postgres import PostgresStore

pytestmark = pytest.mark.real

TIMEOUT_S = 5.0

HBA = """
hostssl all only_tls all scram-sha-256
host all only_tls all reject
hostnossl all only_plain all scram-sha-256
host all only_plain all reject
hostssl all with_cert all scram-sha-256 clientcert=verify-ca
hostssl all in_clear all password
host all freely all trust
local all all scram-sha-256
host all all all scram-sha-256
"""


class TlsServer:
    """A PostgreSQL with a certificate for 127.0.0.1, a socket, and a role for each way of signing in."""

    def __init__(self, files: Path) -> None:
        self.server = Postgres("system", unix_socket_directories="sockets")
        (self.server.directory / "data" / "sockets").mkdir()
        self.server.give(self.server.directory / "data" / "sockets")
        (self.server.directory / "data" / "sockets").chmod(0o755)
        self.sockets = self.server.directory / "data" / "sockets"
        self.files = files
        own, client = make_key(), make_key()
        self.root = self._file("root.pem", make_certificate(own))
        self.other_root = self._file("other.pem", make_certificate(make_key()))
        self.client_cert = self._file("client.pem", make_certificate(client))
        self.client_key = self._file("client.key", pem(client))
        self.locked_key = self._file("locked.key", pem(client, b"open sesame"))
        self.other_key = self._file("other.key", pem(make_key()))
        for name, content in (
            ("server.crt", self.root.read_bytes()),
            ("server.key", pem(own)),
            ("clients.pem", self.client_cert.read_bytes()),
            ("pg_hba.conf", HBA.encode()),
        ):
            path = self.server.directory / "data" / name
            path.write_bytes(content)
            self.server.give(path)
        self.server.start()
        for setting in ("ssl = on", "ssl_ca_file = 'clients.pem'"):
            self.server.run_sql(self.server.url(), f"alter system set {setting}")
        self.server.reload()
        for role in ("only_tls", "only_plain", "with_cert", "in_clear", "freely"):
            self.server.run_sql(
                self.server.url(), f"create role {role} superuser login password '{self.server.password}'"
            )
        self.database = Database(self.server)
        self.database.run(SCHEMA + SESSION)
        self.name = self.database.url.rpartition("/")[2]

    def _file(self, name: str, content: bytes) -> Path:
        path = self.files / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def url(self, query: str = "", role: str = "postgres", host: str = "127.0.0.1", password: str | None = None) -> str:
        for name in ("root", "other_root", "client_cert", "client_key", "locked_key", "other_key", "sockets", "files"):
            query = query.replace("{" + name + "}", str(getattr(self, name)))
        password = self.server.password if password is None else password
        return f"postgresql://{role}:{password}@{host}:{self.server.port}/{self.name}?{query}"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    made = TlsServer(tmp_path_factory.mktemp("tls"))
    yield made
    made.server.remove()


@asynccontextmanager
async def opened(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, timeout_s=timeout_s, connections=2, max_waiting=20_000)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def signs_in(url: str) -> None:
    async with opened(url) as store:
        assert who(await verify(store)) == ALICE


async def why_not(url: str) -> str:
    try:
        async with opened(url) as store:
            with pytest.raises(StoreUnavailable) as caught:
                await verify(store)
            return str(caught.value)
    except StartError as exc:
        return str(exc)


async def is_private(url: str) -> bool:
    async with opened(url) as store:
        assert who(await verify(store)) == ALICE
        async with store._pool.acquire() as connection:
            private: bool = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            return private


@pytest.mark.parametrize(
    ("query", "role", "private"),
    [
        ("", "postgres", True),
        ("", "only_tls", True),
        ("", "only_plain", False),
        ("sslmode=disable", "postgres", False),
        ("sslmode=disable", "only_plain", False),
        ("sslmode=allow", "postgres", False),
        ("sslmode=allow", "only_tls", True),
        ("sslmode=prefer", "postgres", True),
        ("sslmode=prefer", "only_plain", False),
        ("sslmode=require", "postgres", True),
        ("sslmode=no-verify", "only_tls", True),
        ("ssl=true", "only_tls", True),
        ("ssl=no-verify", "only_tls", True),
        ("ssl=false", "only_plain", False),
        ("ssl=require", "only_tls", True),
        ("requiressl=1", "only_tls", True),
        ("sslmode=require&sslrootcert={root}", "postgres", True),
        ("sslmode=no-verify&sslrootcert={other_root}", "postgres", True),
        ("sslmode=verify-ca&sslrootcert={root}", "postgres", True),
        ("sslmode=verify-full&sslrootcert={root}", "postgres", True),
        ("sslmode=verify-full&sslrootcert={root}&ssl_min_protocol_version=TLSv1.3", "postgres", True),
        ("sslmode=require&ssl_max_protocol_version=TLSv1.2", "postgres", True),
        ("ssl_min_protocol_version=TLSv1.3", "postgres", True),
        ("sslaccept=accept_invalid_certs", "only_tls", True),
        ("sslmode=require&sslaccept=strict&sslcert={root}", "only_tls", True),
        ("sslmode=require&sslcert={client_cert}&sslkey={client_key}", "with_cert", True),
        ("sslcert={client_cert}&sslkey={client_key}", "with_cert", True),
        ("sslmode=require&sslcert={client_cert}&sslkey={locked_key}&sslpassword=open%20sesame", "with_cert", True),
        ("sslcert={client_cert}&sslkey={locked_key}&sslpassword=open%20sesame", "with_cert", True),
        ("sslmode=require&sslcertmode=disable&sslcert={client_cert}&sslkey={client_key}", "postgres", True),
        ("sslmode=require&channel_binding=require", "postgres", True),
        ("channel_binding=require", "only_tls", True),
        ("sslmode=verify-full&sslrootcert={root}&channel_binding=require", "postgres", True),
        ("sslmode=verify-ca&sslrootcert={root}&channel_binding=prefer", "postgres", True),
        ("sslmode=require&channel_binding=disable", "postgres", True),
        ("sslmode=require&supa=base-pooler.x&workaround=supabase-pooler.vercel", "postgres", True),
        ("sslmode=require&uselibpqcompat=true&gssencmode=disable&sslcompression=0&sslsni=1", "postgres", True),
    ],
)
async def test_tls_is_as_the_url_says(tls: TlsServer, query: str, role: str, private: bool) -> None:
    assert await is_private(tls.url(query, role)) is private


@pytest.mark.parametrize(
    ("query", "role", "names"),
    [
        ("sslmode=disable", "only_tls", "sslmode=disable"),
        ("sslmode=require", "only_plain", "pg_hba.conf"),
        ("sslmode=verify-ca&sslrootcert={other_root}", "postgres", "sslmode=verify-ca"),
        ("sslmode=require&sslrootcert={other_root}", "postgres", "sslmode=require"),
        ("sslmode=verify-full&sslrootcert={root}&hostaddr=127.0.0.1&host=other", "postgres", "sslmode=verify-full"),
        ("sslrootcert=system", "postgres", "sslmode=verify-full"),
        ("sslmode=require&sslaccept=strict", "postgres", "sslmode=verify-full"),
        (
            "sslmode=require&sslcertmode=disable&sslcert={client_cert}&sslkey={client_key}",
            "with_cert",
            "cert",
        ),
        ("sslmode=verify-full&sslrootcert=/nowhere.pem", "postgres", "sslrootcert=/nowhere.pem"),
        ("sslmode=verify-full&sslrootcert={client_key}", "postgres", "sslrootcert="),
        ("sslmode=verify-ca", "postgres", "sslrootcert"),
        ("sslmode=require&sslcert=/nowhere.pem", "postgres", "sslcert=/nowhere.pem"),
        ("sslmode=require&sslcert={client_cert}&sslkey=/no.key", "postgres", "sslkey=/no.key"),
        ("sslmode=require&sslcert={client_cert}&sslkey={other_key}", "postgres", "sslkey="),
        (
            "sslmode=require&sslcert={client_cert}&sslkey={locked_key}&sslpassword=no",
            "postgres",
            "sslkey=",
        ),
        ("sslmode=verify-ca&sslrootcert={root}&sslcrl=/no.crl", "postgres", "sslcrl=/no.crl"),
        ("sslmode=verify-ca&sslrootcert={root}&sslcrldir=/nowhere", "postgres", "sslcrldir"),
        ("passfile=/nowhere", "postgres", "passfile=/nowhere"),
        ("sslmode=require&channel_binding=require", "in_clear", "channel_binding=require"),
        ("sslmode=require&channel_binding=require", "freely", "channel_binding=require"),
        ("sslmode=require&sslnegotiation=direct", "postgres", "sslmode=require"),
    ],
)
async def test_a_fault_of_tls_names_the_option_and_the_file(tls: TlsServer, query: str, role: str, names: str) -> None:
    reason = await why_not(tls.url(query, role))
    assert names in reason
    assert tls.server.password not in reason


async def test_a_server_without_tls_is_named_with_sslmode(postgres: Postgres) -> None:
    reason = await why_not(f"{postgres.url()}?sslmode=require")
    assert "sslmode=require" in reason
    assert "offers no TLS" in reason
    assert "channel_binding=require" in await why_not(f"{postgres.url()}?sslmode=require&channel_binding=require")


async def test_a_wrong_password_with_channel_binding_is_said_and_not_shown(tls: TlsServer) -> None:
    reason = await why_not(tls.url("sslmode=require&channel_binding=require", password="hunter2"))
    assert "password authentication failed" in reason
    assert "hunter2" not in reason


async def test_with_channel_binding_another_certificate_is_not_taken(tls: TlsServer, tmp_path: Path) -> None:
    """Somebody in between, with a certificate of his own, gets TLS but never the connection."""
    key = make_key()
    (tmp_path / "pem").write_bytes(pem(key) + make_certificate(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    upstream = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    upstream.check_hostname, upstream.verify_mode = False, ssl.CERT_NONE
    request = b"\0\0\0\x08\x04\xd2\x16\x2f"

    async def in_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == request
        writer.write(b"S")
        await writer.start_tls(context)
        async with connected("127.0.0.1", tls.server.port) as (there, back):
            back.write(request)
            await there.readexactly(1)
            await back.start_tls(upstream)
            await both_ways((reader, writer), (there, back))

    async with Relays(in_between) as relays:
        url = f"postgresql://postgres:{tls.server.password}@127.0.0.1:{relays.port}/{tls.name}?sslmode=require"
        await signs_in(url)  # without it nobody would notice
        assert "channel_binding=require" in await why_not(f"{url}&channel_binding=require")


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://{login}@/{name}?host={sockets}&port={port}",
        "postgresql://{login}@{quoted}:{port}/{name}",
        "postgresql:///{name}?host={sockets}&port={port}&user=postgres&password={password}",
        "postgres://{login}@localhost:{port}/{name}?host={sockets}",
        "postgres://{login}@localhost:{port}/{name}?host={sockets}&sslmode=require",
    ],
)
async def test_a_unix_socket_is_reached_in_every_spelling(tls: TlsServer, form: str) -> None:
    await signs_in(
        form.format(
            login=f"postgres:{tls.server.password}",
            password=tls.server.password,
            name=tls.name,
            sockets=tls.sockets,
            quoted=str(tls.sockets).replace("/", "%2F"),
            port=tls.server.port,
        )
    )


async def test_hosts_are_tried_in_turn_and_a_silent_one_leaves_time_for_the_next(tls: TlsServer) -> None:
    login = f"postgres:{tls.server.password}"
    await signs_in(f"postgres://{login}@127.0.0.1:{free_port()},127.0.0.1:{tls.server.port}/{tls.name}")
    with socket.socket() as silent:  # takes connections, answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        await signs_in(f"postgres://{login}@127.0.0.1:{port},127.0.0.1:{tls.server.port}/{tls.name}")
        reason = await why_not(f"postgres://{login}@127.0.0.1:{port}/{tls.name}?connect_timeout=2")
        assert "no connection within 2 s" in reason


async def test_hostaddr_is_connected_to_and_host_is_the_name_of_the_certificate(tls: TlsServer) -> None:
    verified = "sslmode=verify-full&sslrootcert={root}"
    await signs_in(tls.url("hostaddr=127.0.0.1", host="no.such.host.invalid"))
    reason = await why_not(tls.url(f"hostaddr=127.0.0.1&{verified}", host="no.such.host.invalid"))
    assert "sslmode=verify-full" in reason
    await signs_in(tls.url(f"hostaddr=127.0.0.1&{verified}"))


async def test_target_session_attrs_are_kept(tls: TlsServer) -> None:
    for wanted in ("any", "primary", "read-write", "prefer-standby"):
        await signs_in(tls.url(f"target_session_attrs={wanted}"))
    for wanted in ("standby", "read-only"):
        assert f"target_session_attrs={wanted}" in await why_not(tls.url(f"target_session_attrs={wanted}"))
    await signs_in(tls.url("target_session_attrs=read-only&options=-c%20default_transaction_read_only%3Don"))


async def test_a_password_may_come_from_a_file_or_a_service(tls: TlsServer, tmp_path: Path) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:*:*:postgres:{tls.server.password}\n")
    passwords.chmod(0o600)
    front = f"postgresql://postgres@127.0.0.1:{tls.server.port}/{tls.name}"
    await signs_in(f"{front}?passfile={passwords}")
    passwords.chmod(0o644)
    assert "mode 0600" in await why_not(f"{front}?passfile={passwords}")
    service = tmp_path / "services"
    service.write_text(
        f"[app]\nhost=127.0.0.1\nport={tls.server.port}\nuser=postgres\npassword={tls.server.password}\n"
        f"dbname={tls.name}\nsslmode=require\n"
    )
    assert await is_private(f"postgresql://?service=app&servicefile={service}")
    assert not await is_private(f"postgresql://?service=app&servicefile={service}&sslmode=disable")


#: What changes nothing must not reach the server, which would refuse it by an "unrecognized configuration parameter".
HARMLESS = (
    "pgbouncer=true&connection_limit=1&pool_timeout=0&statement_cache_size=0&socket_timeout=3&keepalives=1&"
    "keepalives_idle=30&tcp_user_timeout=1000&client_encoding=utf8&gssencmode=prefer&replication=false&"
    "load_balance_hosts=random&sslsni=1&krbsrvname=postgres&options=-c%20statement_timeout%3D5s&supa=base-pooler.x&"
    "workaround=x&uselibpqcompat=true&application_name=app&fallback_application_name=other&connect_timeout=10&"
    "min_protocol_version=3.0&max_protocol_version=latest&prepareThreshold=0&something_new=1&schema=public"
)


async def test_what_changes_nothing_is_passed_over_with_a_word(tls: TlsServer) -> None:
    with capture_logs() as lines:
        await signs_in(tls.url(HARMLESS))
    said = {line["event"]: line.get("options", "") for line in lines}
    assert "connection_limit" in said["options of DATABASE_URL that change nothing here"]
    assert said["options of DATABASE_URL that are not known here, and are not sent to the server"] == "something_new"


async def test_it_is_passed_over_before_a_transaction_pooler_too(tls: TlsServer) -> None:
    bouncer = PgBouncer(tls.server)
    bouncer.start()
    try:
        await signs_in(f"{bouncer.url(tls.database.url)}?{HARMLESS}")
        for sent in ("options=-c%20role%3Dpostgres", "options=endpoint%3Dep-x"):
            reason = await why_not(f"{bouncer.url(tls.database.url)}?{sent}")
            assert "options" in reason
        await signs_in(f"{bouncer.url(tls.database.url)}?options=-c%20search_path%3Dpublic")
        reason = await why_not(f"{bouncer.url(tls.database.url)}?channel_binding=require&sslmode=require")
        assert "channel_binding=require" in reason
    finally:
        bouncer.remove()


@pytest.mark.parametrize(
    "query",
    [
        "schema=auth", "currentSchema=auth", "search_path=nowhere,auth", "options=-c%20search_path%3Dauth",
        "options=-csearch_path%3Dnowhere%2Cauth", "options=--search_path%3D%22auth%22",
        "schema_search_path=auth,public",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pooled", [False, True])
async def test_the_schema_of_the_url_is_where_the_tables_are(tls: TlsServer, query: str, pooled: bool) -> None:
    database = Database(tls.server)
    database.run(f"create schema auth; set search_path = auth; {SCHEMA} {SESSION}")
    # Tables of the same names elsewhere, without Alice's session, must not be read.
    database.run(SCHEMA)
    bouncer = PgBouncer(tls.server)
    bouncer.start()
    try:
        url = bouncer.url(database.url) if pooled else database.url
        await signs_in(f"{url}?{query}")
        async with opened(url) as store:
            assert await verify(store, TOKEN) is None
    finally:
        bouncer.remove()


async def test_a_schema_that_has_no_tables_is_named(tls: TlsServer) -> None:
    assert '"nowhere"."session"' in await why_not(tls.url("schema=nowhere"))


async def test_what_the_server_has_to_know_reaches_it(tls: TlsServer) -> None:
    async def setting(url: str, name: str) -> Any:
        async with opened(url) as store:
            assert who(await verify(store)) == ALICE
            async with store._pool.acquire() as connection:
                return await connection.fetchval("select current_setting($1)", name)

    assert await setting(tls.url("application_name=app%20one"), "application_name") == "app one"
    assert await setting(tls.url("fallback_application_name=two"), "application_name") == "two"
    assert await setting(tls.url("ApplicationName=three"), "application_name") == "three"
    assert await setting(tls.url(), "application_name") == "watchout-gateway"
    assert await setting(tls.url("options=-c%20row_security%3Doff"), "row_security") == "off"
    assert await setting(tls.url("options=--row-security%3Doff"), "row_security") == "off"


@pytest.mark.parametrize("password", ["p@ss:w/o#r?d%", "%41", "ü ñ 🎥", "a+b&c=d", "'\"\\;--", "."])
async def test_odd_passwords_and_users_are_taken_percent_encoded(tls: TlsServer, password: str) -> None:
    literal = password.replace("'", "''")
    tls.database.run(
        f"""drop role if exists "postgres.project-ref"; create role "postgres.project-ref" superuser login;
        alter role "postgres.project-ref" password '{literal}'"""
    )
    await signs_in(tls.url("", "postgres.project-ref", password=quote(password, safe="")))
    bound = tls.url(
        "channel_binding=require&sslmode=require", "postgres.project-ref", password=quote(password, safe="")
    )
    if "🎥" in password:  # SASLprep has no such characters
        assert "SASLprep" in await why_not(bound)
    else:
        await signs_in(bound)


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgres+psycopg2", "psql", "pgsql"]
)
async def test_schemes_of_other_tools_are_taken(tls: TlsServer, scheme: str) -> None:
    await signs_in(scheme + tls.url().removeprefix("postgresql"))
