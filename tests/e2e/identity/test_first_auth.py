"""The first `auth` message of a client that signed in at the upgrade."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.identity.support import APP, House, _is_put_off, furnished, has_ended, is_in
from tests.kit.clients import Clients, Viewer, eventually, http, new_name
from tests.kit.ports import free_port
from tests.kit.services import Postgres, SignedIn

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def signed_in(house: House, clients: Clients, user: SignedIn, by: str) -> Viewer:
    """A viewer whom the upgrade has authenticated."""
    match by:
        case "cookie":
            return await house.viewer_by_cookie(clients, user)
        case "ticket":
            return await house.viewer_by_ticket(clients, house.app.one_time_token(user.token))
        case _:
            return await clients.viewer(house.url, user.token, by)


@pytest.mark.parametrize("by", ["cookie", "ticket", "header", "query"])
async def test_the_end_of_the_former_session_does_not_end_the_socket(house: House, clients: Clients, by: str) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    stays = await signed_in(house, clients, alice, by)
    viewer = await signed_in(house, clients, alice, by)
    await viewer.send("auth", token=bob.token)
    await viewer.expect("success", event="authenticated")
    camera = await clients.camera(house.url, bob.token)
    await camera.register(new_name())
    assert await viewer.subscribe(camera.stream) == "streaming"  # it is Bob, with his rights
    house.app.sign_out(alice.token)
    await has_ended(stays)
    await is_in(viewer)
    house.app.sign_out(bob.token)
    await has_ended(viewer)


@pytest.mark.parametrize("by", ["cookie", "ticket", "header", "query"])
async def test_a_wrong_first_auth_is_refused_whatever_the_upgrade_said(house: House, clients: Clients, by: str) -> None:
    alice = house.app.sign_up("alice")
    viewer = await signed_in(house, clients, alice, by)
    await viewer.send("auth", token="x" * 32)
    await viewer.expect("error", code="AUTH_FAILED")
    assert await viewer.closed() == 1008


async def test_auth_and_all_that_follows_may_come_at_once(house: House, clients: Clients) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, bob.token)
    await camera.register(new_name())
    viewer = await house.viewer_by_cookie(clients, alice)
    await viewer.send("auth", token=bob.token)
    await viewer.send("auth", token=alice.token)
    await viewer.send("subscribe", streamId=camera.stream, consumes=["video-frame"])
    await viewer.expect("success", event="authenticated")
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    await viewer.expect("success", event="subscribed")


async def test_after_a_subscription_the_first_auth_comes_too_late(house: House, clients: Clients) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    viewer = await house.viewer_by_cookie(clients, alice)
    await viewer.subscribe(new_name())
    await viewer.send("auth", token=bob.token)
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    house.app.sign_out(alice.token)
    await has_ended(viewer)


async def test_a_user_at_his_limit_is_counted_by_the_first_auth_and_not_by_a_cookie(
    postgres: Postgres, clients: Clients
) -> None:
    with furnished(postgres, "1.7", {}, MAX_CONNECTIONS_PER_USER="2") as house:
        alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")

        async def moved_to_bob() -> Viewer:
            viewer = await house.viewer_by_cookie(clients, alice)
            await viewer.send("auth", token=bob.token)
            await viewer.expect("success", event="authenticated")
            return viewer

        moved = [await moved_to_bob()]
        for _ in range(2):  # that one is not hers any more
            await is_in(await house.viewer_by_cookie(clients, alice))
        moved.append(await moved_to_bob())  # one too many of her, but it may be somebody else's
        refused = await house.viewer_by_cookie(clients, alice)
        await refused.send("subscribe", streamId="x")
        await refused.expect("error", code="TOO_MANY_CONNECTIONS")
        assert await refused.closed() == 1013
        third = await clients.viewer(house.url, bob.token)
        await third.expect("error", code="TOO_MANY_CONNECTIONS")
        await moved[0].leave()
        await eventually(lambda: let_in(house, clients, bob))


async def let_in(house: House, clients: Clients, user: SignedIn) -> bool:
    viewer = await clients.viewer(house.url, user.token)
    with contextlib.suppress(ConnectionClosed):  # there is one too many still
        await viewer.send("subscribe", streamId="x")
    return (await viewer.next())["type"] == "success"


async def test_while_the_store_is_away_a_cookie_still_keeps_nobody_out(
    own_postgres: Postgres, clients: Clients
) -> None:
    with furnished(own_postgres, "1.7", {}, AUTH_TIMEOUT_S="60") as house:
        hurried_port = free_port()
        hurried = house.watchout.start("gateway", {"WATCHOUT_PORT": str(hurried_port), "AUTH_TIMEOUT_S": "1"})
        hurried.wait_for_output("gateway ready")
        alice = house.app.sign_up("alice")
        stays = await house.viewer_by_cookie(clients, alice)
        await is_in(stays)
        await asyncio.to_thread(own_postgres.stop)
        for message in ({"type": "auth", "token": alice.token}, {"type": "subscribe", "streamId": "x"}):
            viewer = await house.viewer_by_cookie(clients, alice)
            assert viewer.heard == []
            await viewer.send(**message)
            await _is_put_off(viewer)
        await _is_put_off(await house.viewer_by_cookie(clients, alice, hurried_port))  # who says nothing, after 1 s
        await is_in(stays)
        answer = await http(f"{house.url}/streams", headers={"Cookie": alice.cookie, "Origin": APP})
        assert (answer.status, answer.error) == (503, "AUTH_UNAVAILABLE")
        await asyncio.to_thread(own_postgres.start)
