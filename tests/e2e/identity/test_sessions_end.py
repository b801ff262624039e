"""Sessions that end close their sockets, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.identity.support import ENDED_WITHIN_S, House, furnished, has_ended, is_in, refused
from tests.kit.clients import Clients, http, new_name
from tests.kit.services import Postgres, SignedIn, running_better_auth

pytestmark = [pytest.mark.e2e, pytest.mark.real]


def _revoked_by_another_session(house: House, user: SignedIn) -> None:
    house.app.revoke_session(house.app.sign_in(user.email).token, user.token)


def _revoked_with_all_others(house: House, user: SignedIn) -> None:
    house.app.revoke_other_sessions(house.app.sign_in(user.email).token)


def _banned_in_the_database(house: House, user: SignedIn) -> None:
    house.sql(f"""update "user" set banned = true where id = '{user.user_id}'""")


ENDINGS: Final[dict[str, Callable[[House, SignedIn], None]]] = {
    "sign-out": lambda house, user: house.app.sign_out(user.token),
    "revoke-session": _revoked_by_another_session,
    "revoke-other-sessions": _revoked_with_all_others,
    "change-password": lambda house, user: house.app.change_password(house.app.sign_in(user.email).token),
    "ban-user": lambda house, user: house.app.ban_user(house.admin().token, user.user_id),
    "remove-user": lambda house, user: house.app.remove_user(house.admin().token, user.user_id),
    "banned by SQL": _banned_in_the_database,
    "user deleted by SQL": lambda house, user: house.sql(f"""delete from "user" where id = '{user.user_id}'"""),
    "session deleted by SQL": lambda house, user: house.sql(f"delete from session where token = '{user.token}'"),
    "expired by SQL": lambda house, user: house.sql(
        f"""update session set "expiresAt" = now() - interval '1 s' where token = '{user.token}'"""
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_session_that_ends_closes_its_sockets_and_nobody_elses(
    house: House, clients: Clients, ending: str
) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, alice.token)
    await camera.register(new_name())
    jwt = house.app.jwt(alice.token)
    sockets = [
        camera,
        await clients.viewer(house.url, alice.set_auth_token, by="header"),
        await clients.viewer(house.url, jwt, by="header"),
        await house.viewer_by_cookie(clients, alice),
        await house.viewer_by_ticket(clients, house.app.one_time_token(alice.token)),
    ]
    others = [await clients.viewer(house.url, bob.token), await house.viewer_by_cookie(clients, bob)]
    ENDINGS[ending](house, alice)
    await asyncio.gather(*map(has_ended, sockets))
    for token in (alice.token, alice.set_auth_token, jwt):
        assert (await http(f"{house.url}/streams", token=token)).status == 401
    for other in others:
        await is_in(other)


async def test_of_one_user_only_the_session_that_ended_is_closed(house: House, clients: Clients) -> None:
    alice = house.app.sign_up("alice")
    tablet = house.app.sign_in(alice.email)
    ends, stays = await clients.viewer(house.url, alice.token), await clients.viewer(house.url, tablet.token)
    house.app.revoke_other_sessions(tablet.token)
    await has_ended(ends)
    await is_in(stays)


async def test_a_session_ends_when_its_time_is_over_unless_it_is_prolonged(
    postgres: Postgres, each_better_auth: str, clients: Clients
) -> None:
    options = {"BA_OPTIONS": '{"session":{"expiresIn":5,"updateAge":1}}'}
    with furnished(postgres, each_better_auth, options) as house:
        since = time.monotonic()
        alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
        prolonged, left = await clients.viewer(house.url, alice.token), await clients.viewer(house.url, bob.token)
        while time.monotonic() - since < 8.5:
            assert (await asyncio.to_thread(house.app.session, ("Authorization", f"Bearer {alice.token}"))) is not None
            await asyncio.sleep(0.3)
        await has_ended(left)
        assert 4.5 < left.heard_at[-1] - since < 5 + ENDED_WITHIN_S
        await is_in(prolonged)
        await has_ended(prolonged, 5 + ENDED_WITHIN_S)


async def test_a_jwt_without_a_session_closes_its_socket_when_it_expires_and_not_before(
    house: House, clients: Clients
) -> None:
    issuer = house.app.ready["issuer"]
    options = f'{{"jwt":{{"jwt":{{"issuer":"{issuer}","audience":"{issuer}","expirationTime":"4s"}}}}}}'
    with running_better_auth(
        house.database_url, version=house.app.ready["version"][:3], BA_PLUGINS="bearer,jwt", BA_PLUGIN_OPTIONS=options
    ) as other:
        alice, since = other.sign_up(), time.monotonic()
        jwt = other.jwt(alice.token)
        viewer = await clients.viewer(house.url, jwt, by="header")
        other.sign_out(alice.token)
        await has_ended(viewer, 4 + ENDED_WITHIN_S)
        assert viewer.heard_at[-1] - since > 2.5
        assert await refused(clients, house.url, additional_headers={"Authorization": f"Bearer {jwt}"}) == 401
