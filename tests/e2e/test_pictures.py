"""`GET /streams/{id}/frame.jpg` over real processes: conditional requests, and rights that end while it is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kit import clients as kit
from tests.kit.clients import JPEG, PNG, eventually, http, new_name
from tests.kit.fake_router import FakeRouter
from tests.kit.processes import Watchout, running
from watchout.common.bus.frames import FOR_ALERT
from watchout.common.bus.messages import (
    FetchNewest,
    FetchPicture,
    FromMember,
    OwnerLookup,
    OwnerReply,
    Query,
    QueryReply,
)
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame

pytestmark = pytest.mark.e2e

PICTURE = JPEG + b"secret"


class ScriptedRouter(FakeRouter):
    """Says whose the one stream is; holds its picture back until the test sends it."""

    owner = "nobody"
    frame = Frame("cam", 7, 1001, term=3, picture=PICTURE, codec=Codec.JPEG)

    def begin(self, owner: str) -> None:
        self.owner = owner
        self.asked = asyncio.Event()

    def send_picture(self) -> None:
        for to in (FOR_ALERT, bytes(len(FOR_ALERT))):
            self.push_bytes(self.frame.to_bus(to))

    def _handle(self, member: bytes, body: FromMember) -> None:
        match body:
            case OwnerLookup(request=request, stream=stream):
                self._send(
                    member, OwnerReply(request=request, stream=stream, status="streaming", user=self.owner, term=3)
                )
            case Query(request=request, what="alert"):
                self._send(member, QueryReply(request=request, body=[("cam", self.owner, 3, 7, True)]))
            case FetchNewest() | FetchPicture():
                self.asked.set()
            case _:
                super()._handle(member, body)


@pytest.fixture
def gateway() -> Iterator[Watchout]:
    """A gateway without a router."""
    with running(environ={"ROUTER_TIMEOUT_S": "20"}, start=False) as started:
        started.token("ann")
        yield started


@contextlib.asynccontextmanager
async def scripted(gateway: Watchout) -> AsyncIterator[tuple[ScriptedRouter, str]]:
    """The gateway with a router that the test is, and ann's token."""
    token, user = gateway.token("ann"), user_of(gateway, "ann")
    router = ScriptedRouter(gateway.home)
    router.begin(user)
    try:
        process = gateway.start("gateway")
        await asyncio.to_thread(process.wait_for_output, "gateway ready")
        await eventually(lambda: router.told.synced and router.receivers)
        yield router, token
    finally:
        router.close()


def user_of(gateway: Watchout, name: str) -> str:
    with contextlib.closing(sqlite3.connect(gateway.home / SESSION_STORE_FILE)) as store:
        (user,) = store.execute('select "id" from "user" where "name" = ?', (name,)).fetchone()
    return str(user)


async def test_a_stream_that_changes_hands_while_its_frame_is_awaited_is_not_shown(gateway):
    async with scripted(gateway) as (router, token):
        page = f"{gateway.url}/streams/cam/frame.jpg"
        shown = asyncio.create_task(http(page, token=token))
        await router.asked.wait()
        router.send_picture()
        answer = await shown
        assert (answer.status, answer.body) == (200, PICTURE)
        owner = router.owner
        for headers in ({}, {"If-None-Match": answer.headers["etag"]}):
            router.owner = owner
            router.asked.clear()
            hidden = asyncio.create_task(http(page, token=token, headers=headers))
            await router.asked.wait()
            router.owner = "somebody-else"
            router.send_picture()
            refused = await hidden
            assert (refused.status, refused.error) == (404, "NOT_FOUND")
            assert b"secret" not in refused.body
            assert "etag" not in refused.headers


@pytest.mark.parametrize("path", ["/streams/cam/frame.jpg", "/alerts/a1/frame.jpg"])
async def test_a_session_that_ends_while_a_picture_is_awaited_is_shown_nothing(gateway, clients, path):
    async with scripted(gateway) as (router, token):
        shown = asyncio.create_task(http(gateway.url + path, token=token))
        await router.asked.wait()
        router.send_picture()
        assert (await shown).status == 200
        viewer = await clients.viewer(gateway.url, token)
        router.asked.clear()
        hidden = asyncio.create_task(http(gateway.url + path, token=token))
        await router.asked.wait()
        with contextlib.closing(sqlite3.connect(gateway.home / SESSION_STORE_FILE)) as store, store:
            store.execute('delete from "session" where "token" = ?', (token,))
        assert await viewer.closed() == 4500
        router.send_picture()
        answer = await hidden
        assert (answer.status, answer.error) == (401, "AUTH_FAILED")
        assert b"secret" not in answer.body


async def test_a_picture_that_is_asked_for_again_comes_once(plain_watchout, clients):
    token = plain_watchout.token(new_name("ann"))
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register(f"{new_name()}:a.b-c_d")
    page = f"{plain_watchout.url}/streams/{stream}/frame.jpg"
    assert (await http(page, token=token)).error == "NOT_FOUND"
    seen: list[str] = []
    for picture, kind in ((JPEG, "image/jpeg"), (PNG, "image/png"), (kit.WEBP, "image/webp")):
        await camera.show(kit.base64_of(picture))
        await camera.rest()
        answer = await http(page, token=token)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, picture, kind)
        tag = answer.headers["etag"]
        assert tag not in seen
        for value in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = await http(page, token=token, headers={"If-None-Match": value})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == answer.headers["cache-control"] == "private, no-cache"
        for value in [*seen, "nonsense"]:
            assert (await http(page, token=token, headers={"If-None-Match": value})).status == 200
        seen.append(tag)
        raw = await clients.raw(plain_watchout.url)
        escaped = f"/%73treams/{stream.replace(':', '%3A').replace('.', '%2e')}/%66rame.jpg"
        await raw.send(raw.head(escaped, f"Authorization: Bearer {token}", f"If-None-Match: {tag}"))
        assert (await raw.reader.readline()).startswith(b"HTTP/1.1 304 ")
    stranger = plain_watchout.token(new_name("eve"))
    for headers in ({"If-None-Match": seen[-1]}, {"If-None-Match": "*"}):
        assert (await http(page, token=stranger, headers=headers)).error == "NOT_FOUND"
        assert (await http(page, headers=headers)).error == "AUTH_REQUIRED"


async def test_a_camera_that_returns_has_other_tags(plain_watchout, clients):
    token = plain_watchout.token(new_name("ann"))
    stream, tags = new_name(), set()
    for _ in range(3):
        camera = await clients.camera(plain_watchout.url, token)
        await camera.register(stream)
        await camera.show()
        await camera.rest()
        tags.add((await http(f"{plain_watchout.url}/streams/{stream}/frame.jpg", token=token)).headers["etag"])
        await camera.leave()
    assert len(tags) == 3


PATHS = ("/", "/health", "/health/live", "/stats", "/metrics", "/streams", "/alerts?streamId={}",
         "/streams/{}/frame.jpg", "/streams/{}/mjpeg", "/streams/no/frame.jpg", "/alerts/no/frame.jpg",
         "/alerts?streamId=no", "/nothing")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_the_head_of_everything_is_that_of_get_without_a_body(plain_watchout, clients, path):
    token = plain_watchout.token(new_name("ann"))
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    await camera.show()
    await camera.rest()
    raw = await clients.raw(plain_watchout.url)
    await raw.send(raw.head(path.format(stream), f"Authorization: Bearer {token}", method="HEAD"))
    head = (await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 30)).decode().lower().split("\r\n")
    names = {line.partition(":")[0] for line in head[1:] if line}
    # Nothing follows it: the next answer on the connection begins where it ends.
    await raw.send(raw.head("/health/live"))
    assert (await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 200 ")
    other = await clients.raw(plain_watchout.url)
    await other.send(other.head(path.format(stream), f"Authorization: Bearer {token}"))
    get = (await asyncio.wait_for(other.reader.readuntil(b"\r\n\r\n"), 30)).decode().lower().split("\r\n")
    assert head[0] == get[0]
    framing = {"transfer-encoding", "connection"}
    assert names - framing == {line.partition(":")[0] for line in get[1:] if line} - framing
    assert camera.open
