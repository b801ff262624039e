"""Phones and hybrid apps: cookies that their jars attach unasked, and the headers that their sockets really have."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.kit.clients import BINARY, JPEG, TEXT, Clients, RawSocket, http, new_name, pack_frame, web_socket_frame
from tests.kit.processes import Watchout, running
from tests.kit.services import BetterAuth, Postgres, running_better_auth

pytestmark = [pytest.mark.e2e, pytest.mark.real]

CAPACITOR: Final = "capacitor://localhost"
#: What `ALLOWED_ORIGINS` says.
LISTS: Final = {"no list": "", "a web app": "https://app.example.com", "hybrid apps": f"{CAPACITOR},ionic://localhost"}


@dataclass(frozen=True, slots=True)
class House:
    """A web app with Better Auth, and a watchout for its users."""

    app: BetterAuth
    watchout: Watchout


@pytest.fixture(scope="module", params=LISTS)
def house(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[House]:
    url = postgres.create_database()
    with running_better_auth(url) as app:
        environ = {
            "DATABASE_URL": url, "BETTER_AUTH_SECRET": app.ready["secret"], "ALLOWED_ORIGINS": LISTS[request.param],
            "DRAIN_S": "0.1",
        }  # fmt: skip
        with running(environ=environ, start=False) as watchout:
            watchout.start("router")
            watchout.start("gateway")
            watchout.wait_ready()
            yield House(app, watchout)


def ios(address: str, path: str, cookie: str) -> list[str]:
    """The handshake of React Native on iOS (SocketRocket): the jar's cookies, and no Origin."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return [
        f"GET {path} HTTP/1.1", f"Host: {address}", "Sec-WebSocket-Version: 13", "Upgrade: websocket",
        f"Sec-WebSocket-Key: {key}", "Connection: Upgrade", f"Cookie: {cookie}",
    ]  # fmt: skip


def android(address: str, path: str, cookie: str) -> list[str]:
    """That of React Native on Android (OkHttp): the jar's cookies, and the gateway's own origin."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return [
        f"GET {path} HTTP/1.1", f"origin: http://{address}", f"Cookie: {cookie}", "Upgrade: websocket",
        "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Extensions: permessage-deflate", f"Host: {address}", "Accept-Encoding: gzip",
        "User-Agent: okhttp/4.12.0",
    ]  # fmt: skip


PLATFORMS: Final = {"ios": ios, "android": android}


def cookies(house: House) -> dict[str, str]:
    """What a jar may hold."""
    live, stale = house.app.sign_up("carol"), house.app.sign_up("dave")
    house.app.sign_out(stale.token)
    name = house.app.ready["cookieName"]
    return {
        "live": live.cookie,
        "stale": stale.cookie,
        "unsigned": f"{name}={live.token}",
        "undecodable": f"{name}=%ff%zz",
        "of two apps": f"{stale.cookie}; {live.cookie}",
        "many": f"a={'x' * 9000}; {live.cookie}",
    }


async def shaken(clients: Clients, house: House, platform: str, path: str, cookie: str) -> RawSocket:
    raw = await clients.raw(house.watchout.url)
    address = house.watchout.url.removeprefix("http://")
    await raw.send("\r\n".join([*PLATFORMS[platform](address, path, cookie), "", ""]).encode())
    assert (await raw.answer()).status == 101
    return raw


async def say(raw: RawSocket, **message: object) -> None:
    await raw.send(web_socket_frame(TEXT, json.dumps(message).encode()))


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_phone_gets_in_with_its_token_whatever_cookie_its_jar_attaches(house, clients, platform):
    alice = house.app.sign_up("alice")
    for cookie in cookies(house).values():
        stream = new_name()
        camera = await shaken(clients, house, platform, "/streams/register", cookie)
        await camera.sign_in(alice.token)
        await say(camera, type="register", streamId=stream, produces=["video-frame"])
        assert (await camera.json("success"))["event"] == "registered"
        viewer = await shaken(clients, house, platform, "/streams/subscribe", cookie)
        await viewer.sign_in(alice.token)
        await say(viewer, type="subscribe", streamId=stream, consumes=["video-frame"])
        await camera.send(web_socket_frame(BINARY, pack_frame(JPEG)))
        frame = await viewer.json("video-frame")
        assert base64.b64decode(frame["data"]) == JPEG
        answer = await http(f"{house.watchout.url}/streams", token=alice.token)
        assert [row["userId"] for row in answer.json["streams"] if row["id"] == stream] == [alice.user_id]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_phone_without_its_token_is_told_to_authenticate_unless_its_cookie_counts(house, clients, platform):
    for kind, cookie in cookies(house).items():
        raw = await shaken(clients, house, platform, "/streams/subscribe", cookie)
        await say(raw, type="subscribe", streamId="x")
        if platform == "android" and kind in (
            "live",
            "many",
        ):  # its origin is the gateway's own
            assert (await raw.json("success"))["event"] == "subscribed"
        else:
            assert (await raw.json("error"))["code"] == "AUTH_REQUIRED"


async def test_a_hybrid_apps_page_uses_the_cookie_where_its_origin_is_listed(house, clients):
    carol = house.app.sign_up("carol")
    listed = CAPACITOR in house.watchout.environ["ALLOWED_ORIGINS"]
    raw = await clients.raw(house.watchout.url)
    await raw.upgrade("/streams/subscribe", f"Origin: {CAPACITOR}", f"Cookie: {carol.cookie}")
    await say(raw, type="subscribe", streamId="x")
    assert (await raw.frame()).payload.startswith(b'{"type":"success"' if listed else b'{"type":"error"')
    headers = {"Origin": CAPACITOR, "Cookie": carol.cookie}
    answer = await http(f"{house.watchout.url}/streams", headers=headers)
    assert answer.status == (200 if listed else 401)
    assert answer.headers.get("access-control-allow-origin") == (CAPACITOR if listed else None)


async def test_the_own_origin_uses_the_cookie_whatever_the_list_says(house, clients):
    carol = house.app.sign_up("carol")
    url = house.watchout.url
    raw = await clients.raw(url)
    await raw.upgrade("/streams/subscribe", f"Origin: {url}", f"Cookie: {carol.cookie}")
    await say(raw, type="subscribe", streamId="x")
    assert (await raw.json("success"))["event"] == "subscribed"
    assert (await http(f"{url}/streams", headers={"Origin": url, "Cookie": carol.cookie})).status == 200
    own = {"Sec-Fetch-Site": "same-origin", "Cookie": carol.cookie}
    assert (await http(f"{url}/streams", headers=own)).status == 200
