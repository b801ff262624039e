"""Schemas, databases and stores for the tests of PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kit import session_stores
from tests.kit.ports import free_port
from tests.kit.services import Postgres, missing
from watchout.identity import Identity, SessionStore
from watchout.identity.schema.catalogue import Layout
from watchout.identity.sources.postgres import PostgresStore

#: Of look-ups that must succeed: nothing here waits for its end.
TIMEOUT_S = 20.0
#: Of look-ups that get no answer.
SHORT_S = 1.0


UNKNOWN = "0" * 32


TOKEN = "t" * 32


OTHER = "o" * 32


TICKET = "T" * 32


SCHEMA = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
"""


SESSION = f"""insert into session values ('s1', now() + interval '1 hour', '{TOKEN}', 'u1');"""


MEMBER = 'create table member (id text primary key, "organizationId" text, "userId" text, role text);'


VERIFICATION = f"""
create table verification (id text primary key, identifier text, value text, "expiresAt" timestamptz);
insert into verification values ('v1', 'one-time-token:{TICKET}', '{TOKEN}', now() + interval '3 min');
"""


ALICE = ("u1", "s1")


ODD_TOKENS = ["", "x", "'; drop table session; --", "$1" * 16, "\0" * 32, "x" * 20 + "\0", "\ud800" * 20, "x" * 100_000]


@asynccontextmanager
async def opened(
    url: str, connections: int = 5, timeout_s: float = TIMEOUT_S, **layout: Any
) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, Layout(**layout), timeout_s=timeout_s, connections=connections, max_waiting=20_000)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def new_role(database: Database) -> tuple[str, str]:
    """A role that may log in and nothing else, and the URL with which it does."""
    role = f"r_{database.url[-12:]}"
    database.run(f"create role {role} login password 'pw'")
    return role, f"postgres://{role}:pw@{database.url.rpartition('@')[2]}"


class Database:
    """A new database with statements run in it."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.create_database()

    def run(self, sql: str) -> str:
        return self._server.run_sql(self.url, sql)


def who(identity: Identity | None) -> tuple[str, str | None] | None:
    return identity and (identity.user_id, identity.session_id)


async def verify(store: SessionStore, token: str = TOKEN) -> Identity | None:
    return await session_stores.verify(store, token)


async def refusal(store: PostgresStore, token: str = UNKNOWN, timeout_s: float = TIMEOUT_S) -> str:
    return await session_stores.refusal(store, token, timeout_s)


def ticket_rows(tickets: str, count: int) -> str:
    """Tickets from so many numbers, all of alice's session."""
    return f"""insert into verification select 'n' || i, 'one-time-token:' || {tickets}, '{TOKEN}',
      now() + interval '1 min' from generate_series(1, {count}) i;"""


class PgBouncer:
    """PgBouncer in transaction mode before a server, with two connections to it."""

    def __init__(self, server: Postgres) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            missing("no PgBouncer: the program is not installed")
        self._directory = Path(tempfile.mkdtemp(prefix="watchout-pgbouncer-"))
        self._command = [program, "-q", str(self._directory / "ini")]
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        self.port = free_port()
        (self._directory / "ini").write_text(
            f"""[databases]
            * = host=127.0.0.1 port={server.port} user=postgres password={server.password}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            """
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database_url: str) -> str:
        """The same database through it."""
        return f"postgresql://anybody@127.0.0.1:{self.port}/{database_url.rpartition('/')[2]}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" & cat >/dev/null; kill $! 2>/dev/null; wait $!', "sh", *self._command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", **self._as,
        )  # fmt: skip
        give_up = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert time.monotonic() < give_up, self.stop()
            time.sleep(0.02)

    def stop(self) -> str:
        process, self._process = self._process, None
        if process is not None:
            said, _ = process.communicate(timeout=30)
            return said.decode()
        return ""

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._directory)
