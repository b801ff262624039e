"""All sessions seem to vanish under open sockets: nobody is thrown out, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.identity.support import House, has_ended, is_in, refused, start
from tests.kit.clients import Client, Clients, eventually, http
from tests.kit.processes import running
from tests.kit.services import Postgres, SignedIn, running_better_auth

pytestmark = [pytest.mark.e2e, pytest.mark.real]


@pytest.fixture(scope="module")
def house(postgres: Postgres) -> Iterator[House]:
    """A watchout that reads by a role that owns nothing."""
    url = postgres.create_database()
    role = f"reader_{url[-12:]}"
    with running_better_auth(url, BA_PLUGINS="bearer,oneTimeToken") as app:
        postgres.run_sql(
            url,
            f"""create role {role} login password 'pw'; grant select on all tables in schema public to {role};
            grant delete on verification to {role}""",
        )
        read_by = f"postgres://{role}:pw@{url.rpartition('@')[2]}"
        settings = {"DATABASE_URL": read_by, "BETTER_AUTH_SECRET": app.ready["secret"], "DRAIN_S": "0.1"}
        with running(environ=settings, start=False) as watchout:
            start(watchout)
            yield House(app, watchout, postgres, url)


async def health(house: House) -> tuple[int, str]:
    answer = await http(f"{house.url}/health")
    return answer.status, str(json.loads(answer.body).get("reason", ""))


async def is_said(house: House, words: str) -> None:
    async def so() -> bool:
        status, reason = await health(house)
        return status == 503 and words in reason

    await eventually(so, 30, f"/health does not say {words}")


async def is_healthy(house: House) -> None:
    async def so() -> bool:
        return (await health(house))[0] == 200

    await eventually(so, 30, "/health is not 200")


async def unavailable(clients: Clients, house: House, token: str) -> None:
    client = await clients.viewer(house.url, None)
    await client.send("auth", token=token)
    assert (await client.find("error"))["code"] == "AUTH_UNAVAILABLE"
    assert await client.closed() == 1013


async def viewers(clients: Clients, house: House, *users: SignedIn) -> list[Client]:
    return [await clients.viewer(house.url, user.token) for user in users]


HIDE = "alter table session enable row level security"
SHOW = "alter table session disable row level security"


@pytest.mark.parametrize(
    ("change", "back", "says"),
    [
        (HIDE, SHOW, "row level security"),
        (
            """alter table session rename to old; create table session (like old including all);
            grant select on session to public""",
            "drop table session; alter table old rename to session",
            "not the one that it was",
        ),
    ],
)
async def test_sockets_stay_strangers_come_back_later_and_health_says_why(
    clients: Clients, house: House, change: str, back: str, says: str
) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    sockets = await viewers(clients, house, alice, bob)
    house.sql(change)
    try:
        await is_said(house, says)
        await unavailable(clients, house, alice.token)
        await unavailable(clients, house, "0" * 32)
        for socket in sockets:
            await is_in(socket)
    finally:
        house.sql(back)
    await is_healthy(house)
    for socket in sockets:
        await is_in(socket)
    house.app.sign_out(alice.token)
    await has_ended(sockets[0])
    await is_in(sockets[1])


async def connects_anew(house: House, role: str) -> None:
    """The gateway's connections are ended: a role's settings count from the next one on."""
    having = f"from pg_stat_activity where usename = '{role}'"
    old = house.postgres.run_sql(house.database_url, f"select pid, pg_terminate_backend(pid) {having}")
    pids = {line.partition("|")[0] for line in old.split()}

    async def so() -> bool:
        return not pids & set(house.postgres.run_sql(house.database_url, f"select pid {having}").split())

    await eventually(so, 30, "connections that were ended are there")


async def test_a_good_ticket_at_a_read_only_database_is_to_come_again(clients: Clients, house: House) -> None:
    role = f"reader_{house.database_url[-12:]}"
    alice = house.app.sign_up("alice")
    ticket = house.app.one_time_token(alice.token)
    path = f"/streams/subscribe?ticket={ticket}"
    house.sql(f"alter role {role} set default_transaction_read_only = on")
    await connects_anew(house, role)
    try:
        for _ in range(2):
            comes = Client(await clients.connect(house.url, path))
            assert (await comes.find("error"))["code"] == "AUTH_UNAVAILABLE"
            assert await comes.closed() == 1013
    finally:
        house.sql(f"alter role {role} reset default_transaction_read_only")
        await connects_anew(house, role)
    await is_healthy(house)
    await (await clients.connect(house.url, path)).close()
    assert await refused(clients, house.url, path) == 401


async def test_the_only_user_who_signs_out_is_out(clients: Clients, house: House) -> None:
    alice = house.app.sign_up("alice")
    (socket,) = await viewers(clients, house, alice)
    house.app.sign_out(alice.token)
    await has_ended(socket)


async def test_when_everybody_is_signed_out_everybody_is_out(clients: Clients, house: House) -> None:
    users: list[Any] = [house.app.sign_up(f"user{n}") for n in range(5)]
    sockets = await viewers(clients, house, *users)
    house.sql("delete from session")
    for socket in sockets:
        await has_ended(socket)
    await is_healthy(house)


async def test_a_table_that_is_emptied_and_filled_again_throws_nobody_out(clients: Clients, house: House) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    sockets = await viewers(clients, house, alice, bob)
    house.sql("create table kept as select * from session; truncate session")
    try:
        await is_said(house, "not the one that it was")
    finally:
        house.sql("insert into session select * from kept; drop table kept")
    await is_healthy(house)
    for socket in sockets:
        await is_in(socket)
    house.app.sign_out(alice.token)
    await has_ended(sockets[0])
    await is_in(sockets[1])
