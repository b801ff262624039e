"""A session store that goes away while clients are connected."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from tests.e2e.test_why import causes, said
from tests.faults.processes.support import healthy, push, served
from tests.kit.clients import eventually, http
from tests.kit.processes import BIN, REPOSITORY
from tests.kit.services import Postgres

pytestmark = pytest.mark.e2e

STORE = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
insert into session values ('s1', now() + interval '1 hour', '{token}', 'u1');
"""


@pytest.mark.real
async def test_who_is_authenticated_goes_on_while_the_session_store_is_down(watchout, clients, own_postgres: Postgres):
    token, database = "t" * 32, own_postgres.create_database()
    own_postgres.run_sql(database, STORE.format(token=token))
    started = watchout(environ={"DATABASE_URL": database})
    url = started.url
    camera, viewer = await served(url, token, clients)
    await asyncio.to_thread(own_postgres.stop)

    async def unavailable() -> bool:
        late = await clients.viewer(url, None)
        await late.send("auth", token="u" * 32)
        return (await late.next())["code"] == "AUTH_UNAVAILABLE" and await late.closed() == 1013

    await eventually(unavailable)
    await healthy(started, 503, 30)
    assert (await http(f"{url}/health/live")).status == 200
    await camera.show()
    await viewer.frame()
    await push(url, camera.stream, "goes on")
    await viewer.find("alert", message="goes on")
    await asyncio.to_thread(own_postgres.start)
    await healthy(started, 200, 30)
    await said(started, "127.0.0.1", lambda one: "store_away" in causes(one["past"]))
    late = await clients.viewer(url, token)
    await camera.show()  # the last one may be so long ago that the camera does not count as one that streams
    await viewer.frame()
    assert await late.subscribe(camera.stream) == "streaming"


def test_the_procfile_starts_the_three_processes():
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["router", "gateway", "mlbridge"]
    done = subprocess.run(
        [BIN / "honcho", "-f", REPOSITORY / "Procfile", "-e", os.devnull, "check"],
        capture_output=True, text=True, timeout=60, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
