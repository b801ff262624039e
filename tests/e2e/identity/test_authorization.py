"""What organizations, roles and owners may see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.identity.support import ENDED_WITHIN_S, House, furnished
from tests.kit.clients import JPEG, Camera, Clients, Viewer, eventually, http, new_name
from tests.kit.services import Postgres, SignedIn

pytestmark = [pytest.mark.e2e, pytest.mark.real]


@pytest.fixture(scope="module")
def club(postgres: Postgres, each_better_auth: str) -> Iterator[House]:
    """The same where members of an organization share their streams, and what they may depends on their roles."""
    rights = "member:view,watchman:alerts,admin:view,guest:none,*:publish+view"
    with furnished(postgres, each_better_auth, {}, STREAM_ACCESS="organization", ROLE_RIGHTS=rights) as made:
        yield made


async def watches(viewer: Viewer, stream: str) -> None:
    await viewer.subscribe(stream)
    await viewer.frame(streamId=stream)


async def may_not_subscribe(client: Viewer, stream: str, *consumes: str) -> None:
    await client.send("subscribe", streamId=stream, consumes=list(consumes or ["video-frame", "alert"]))
    assert (await client.find("error"))["code"] == "UNAUTHORIZED"


async def may_subscribe(client: Viewer, stream: str) -> bool:
    """Subscribe; whether it may. A socket hears of a change within two seconds, HTTP requests sooner or later."""
    await client.send("subscribe", streamId=stream, consumes=["video-frame", "alert"])
    while (answer := await client.next())["type"] not in ("success", "error"):
        pass
    return bool(answer["type"] == "success")


async def streams_of(url: str, user: SignedIn) -> list[str]:
    return [row["id"] for row in (await http(f"{url}/streams", token=user.token)).json["streams"]]


async def picture(url: str, stream: str, user: SignedIn) -> tuple[int, bytes]:
    answer = await http(f"{url}/streams/{stream}/frame.jpg", token=user.token)
    return answer.status, answer.body


async def may_see(house: House, stream: str, user: SignedIn) -> bool:
    return stream in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 200


async def may_not_see(house: House, stream: str, user: SignedIn) -> bool:
    return stream not in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 404


async def without_picture(house: House, stream: str, user: SignedIn) -> bool:
    return stream in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 404


async def no_frame_comes(viewer: Viewer, camera: Camera) -> None:
    """The camera still sends, and this viewer gets nothing of it."""
    await viewer.rest()
    seen = len(viewer.frames)
    for _ in range(5):
        await camera.show()
        await asyncio.sleep(0.1)
    await viewer.rest()
    assert len(viewer.frames) == seen


async def test_a_member_of_the_owners_organization_may_watch_until_put_out_of_it(club: House, clients: Clients) -> None:
    alice, bob, carol = (club.app.sign_up(name) for name in ("alice", "bob", "carol"))
    organization = club.app.create_organization(alice.token, "acme")
    membership = club.app.add_member(alice.token, organization, bob)
    club.app.create_organization(carol.token, "others")
    camera = await clients.camera(club.url, alice.token)
    stream = await camera.register(new_name())
    member, stranger = await clients.viewer(club.url, bob.token), await clients.viewer(club.url, carol.token)
    async with camera.streaming():
        await watches(member, stream)
        await may_not_subscribe(stranger, stream)
        await may_not_subscribe(stranger, stream, "alert")
        assert await streams_of(club.url, bob) == [stream]
        assert await streams_of(club.url, carol) == []
        assert await picture(club.url, stream, bob) == (200, JPEG)
        assert (await picture(club.url, stream, carol))[0] == 404
        club.app.remove_member(alice.token, organization, membership)
        assert (await member.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(member, camera)
    await eventually(lambda: may_not_see(club, stream, bob))
    await may_not_subscribe(member, stream)
    club.app.add_member(alice.token, organization, bob)
    await eventually(lambda: may_see(club, stream, bob))
    await eventually(lambda: may_subscribe(member, stream))


async def test_streams_leave_the_organization_with_their_owner(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    organization = club.app.create_organization(bob.token, "acme")
    membership = club.app.add_member(bob.token, organization, alice)
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name())
    async with camera.streaming():
        await watches(viewer, stream)
        club.app.remove_member(bob.token, organization, membership)
        assert (await viewer.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await eventually(lambda: may_not_see(club, stream, bob))


async def test_a_stream_comes_into_the_organization_that_its_owner_joins_later(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name())
    await camera.show()
    await may_not_subscribe(viewer, stream)
    club.app.add_member(bob.token, club.app.create_organization(bob.token, "acme"), alice)
    await eventually(lambda: may_see(club, stream, bob))
    await eventually(lambda: may_subscribe(viewer, stream))
    await viewer.frame(streamId=stream)


async def test_what_a_member_may_follows_his_role_in_the_organization(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    organization = club.app.create_organization(alice.token, "acme")
    club.app.add_member(alice.token, organization, bob)
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name(), produces=["video-frame", "alert"])

    def give(role: str) -> None:
        club.sql(f"""update member set role = '{role}' where "userId" = '{bob.user_id}'""")

    async with camera.streaming():
        await watches(viewer, stream)
        give("watchman")
        assert (await viewer.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await may_not_subscribe(viewer, stream, "video-frame")
    await viewer.subscribe(stream, consumes=["alert"])
    await camera.send("alert", severity="high", message="fire")
    await viewer.find("alert", message="fire")
    await eventually(lambda: without_picture(club, stream, bob))
    give("admin,watchman")
    await eventually(lambda: may_see(club, stream, bob))
    await eventually(lambda: may_subscribe(viewer, stream))
    await viewer.frame(streamId=stream)


async def test_what_a_user_may_follows_his_own_role(
    postgres: Postgres, clients: Clients, each_better_auth: str
) -> None:
    rights = "camera:publish,viewer:view,guard:alerts,nobody:none,*:publish+view"
    with furnished(postgres, each_better_auth, {}, STREAM_ACCESS="authenticated", ROLE_RIGHTS=rights) as house:
        users: dict[str, SignedIn] = {}
        for role in ("camera", "viewer", "guard", "nobody", "other"):
            users[role] = house.app.sign_up(role)
            house.set_role(users[role], role)
        stream = await _try_all_paths(house, clients, users)
        house.set_role(users["viewer"], "nobody")
        house.set_role(users["nobody"], "viewer")
        await eventually(lambda: may_see(house, stream, users["nobody"]))
        await eventually(lambda: may_not_see(house, stream, users["viewer"]))


async def _try_all_paths(house: House, clients: Clients, users: dict[str, SignedIn]) -> str:
    url, stream = house.url, new_name()
    for role, user in users.items():
        camera = await clients.camera(url, user.token)
        if role in ("camera", "other"):
            await camera.register(stream if role == "camera" else None, produces=["video-frame", "alert"])
            await camera.show()
            continue
        await camera.send("register", produces=["video-frame"])
        assert (await camera.expect("error"))["code"] == "UNAUTHORIZED"
    for role, user in users.items():
        viewer = await clients.viewer(url, user.token)
        sees, hears = role in ("viewer", "other"), role in ("viewer", "other", "guard")
        if sees:
            await watches(viewer, stream)
        else:
            await may_not_subscribe(viewer, stream)
        if hears:
            await viewer.subscribe(stream, consumes=["alert"])
        else:
            await may_not_subscribe(viewer, stream, "alert")
        assert (await picture(url, stream, user))[0] == (200 if sees else 404)
        assert (stream in await streams_of(url, user)) is hears
    return stream


async def test_a_user_whose_role_is_taken_away_neither_watches_nor_publishes_any_more(
    club: House, clients: Clients
) -> None:
    alice = club.app.sign_up("alice")
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, alice.token)
    stream = await camera.register(new_name())
    await camera.show()
    await watches(viewer, stream)
    club.set_role(alice, "guest")
    for client in (camera, viewer):
        assert (await client.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await eventually(lambda: may_not_see(club, stream, alice))
    club.set_role(alice, "user")
    await eventually(lambda: _may_register(camera))


async def _may_register(camera: Camera) -> bool:
    await camera.send("register", produces=["video-frame"])
    return bool((await camera.next())["type"] == "success")


@pytest.mark.parametrize("path", ["/streams/{}/frame.jpg", "/alerts?streamId={}"])
async def test_a_stream_that_is_not_yours_looks_like_one_that_is_not_there(
    house: House, clients: Clients, path: str
) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, alice.token)
    stream = await camera.register(new_name(), produces=["video-frame", "alert"])
    await camera.show()
    await camera.send("alert", severity="low", message="x")
    assert await camera.rest() == []  # the gateway has taken both
    unknown = "".join(reversed(stream))
    first = await http(house.url + path.format(stream), token=bob.token)
    second = await http(house.url + path.format(unknown), token=bob.token)
    assert (first.status, first.body) == (second.status, second.body)
    assert (await http(house.url + path.format(stream), token=alice.token)).status == 200
