"""`frame.jpg` and the pictures of alerts: rights are judged after the last thing that is awaited; 304; the headers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from tests.kit.clients import JPEG
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.http.app import make_app
from watchout.gateway.http.conditional import entity_tag
from watchout.gateway.model import Owner, StreamState
from watchout.gateway.presence import Presence
from watchout.identity import Identity

ANN: Final = Identity("ann", "session-of-ann")
PICTURE: Final = JPEG + b"secret"
FRAME: Final = Frame("cam", 7, 1001, term=3, picture=PICTURE, codec=Codec.JPEG)
TAG: Final = entity_tag("cam", 3, 7)
PATHS: Final = ("/streams/cam/frame.jpg", "/alerts/a1/frame.jpg")


class Scene:
    """A gateway's HTTP side, whose router and session store say what the test says."""

    def __init__(self) -> None:
        self.owner: Owner | None = Owner("ann")
        self.frame: Frame | None = FRAME
        #: What happens while whose the stream is is asked for this time, counted from 1.
        self.finds, self.at_find, self.then = 0, 0, lambda: None
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.presence: Presence[Any] = Presence()
        self.metrics = Metrics()
        link = SimpleNamespace(
            find=self._find,
            newest_frame=self._awaited,
            stored_picture=self._awaited,
            queries=SimpleNamespace(alert_frames=self._alert_frames),
            live=True,
        )
        self.context = SimpleNamespace(
            settings=Settings(), tasks=Tasks(), router=link, authorization=Authorization(Settings()),
            metrics=self.metrics, authenticator=SimpleNamespace(verify=self._verify), presence=self.presence,
            share_tokens=None,
        )  # fmt: skip

    async def _verify(self, *_: object, **__: object) -> Identity:
        return ANN

    async def _find(self, _: str) -> StreamState:
        self.finds += 1
        if self.finds == self.at_find:
            self.then()
        return StreamState("streaming", self.owner, 3)

    async def _awaited(self, *_: object) -> Frame | None:
        self.asked.set()
        await self.go_on.wait()
        return self.frame

    async def _alert_frames(self, *_: object) -> list[AlertFrameRow]:
        return [AlertFrameRow("cam", "ann", 3, 7, kept=True)]

    # ── what may happen meanwhile ────────────────────────────────────────────────────────────────────────────────

    def session_ends(self) -> None:
        ended, _ = self.presence.update_sessions(["session-of-ann"], {})
        for member in ended:
            member.on_session_ended()

    def becomes(self, identity: Identity) -> None:
        _, renewed = self.presence.update_sessions(["session-of-ann"], {"session-of-ann": identity})
        for member, now_is in renewed:
            member.on_identity_changed(now_is)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


Get = Callable[..., Awaitable[ClientResponse]]


@pytest.fixture
async def get(scene: Scene) -> AsyncIterator[Get]:
    client = TestClient(TestServer(make_app(scene.context)))  # type: ignore[arg-type]
    async with client:

        async def request(path: str, method: str = "GET", **headers: str) -> ClientResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers={"Authorization": "Bearer t", **named})

        yield request
    await scene.context.tasks.close()


@contextlib.asynccontextmanager
async def awaited(scene: Scene, request: Awaitable[ClientResponse]) -> AsyncIterator[asyncio.Task[ClientResponse]]:
    """The request has come so far that its picture is awaited; it goes on after the block."""
    scene.go_on.clear()
    task = asyncio.ensure_future(request)
    async with asyncio.timeout(30):
        await scene.asked.wait()
    yield task  # type: ignore[misc]
    scene.go_on.set()


@pytest.mark.parametrize("path", PATHS)
async def test_a_picture_comes_with_what_it_is_and_may_be_kept_by_its_reader_alone(scene, get, path):
    answer = await get(path)
    assert (answer.status, await answer.read()) == (200, PICTURE)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["ETag"] == TAG
    names = ("X-Stream-Id", "X-Frame-Id", "X-Frame-Time")
    assert [answer.headers[name] for name in names] == ["cam", "7", "1001"]
    head = await get(path, "HEAD")
    assert (head.status, await head.read()) == (200, b"")
    assert head.headers["Content-Length"] == str(len(PICTURE))
    assert {**head.headers, "Date": ""} == {**answer.headers, "Date": ""}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_has_the_picture_is_told_so_without_a_body(scene, get, path, method):
    for value in (TAG, f"W/{TAG}", "*", f'"x", {TAG}'):
        answer = await get(path, method, If_None_Match=value)
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["ETag"] == TAG
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Type" not in answer.headers
    assert (await get(path, method, If_None_Match=entity_tag("cam", 3, 8))).status == 200


@pytest.mark.parametrize("tag", ['"other"', TAG, "*"])
async def test_a_stream_that_changes_hands_while_its_picture_is_awaited_shows_nothing(scene, get, tag):
    async with awaited(scene, get(PATHS[0], If_None_Match=tag)) as request:
        scene.owner = Owner("eve")
    answer = await request
    assert answer.status == 404
    assert b"secret" not in await answer.read()
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_session_that_ends_while_a_picture_is_awaited_gets_nothing_more(scene, get, path):
    async with awaited(scene, get(path)) as request:
        scene.session_ends()
    answer = await request
    assert answer.status == 401
    assert b"secret" not in await answer.read()
    assert len(scene.presence) == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("tag", ['"other"', TAG])
async def test_who_leaves_the_organization_while_the_owner_is_looked_up_again_gets_nothing(scene, get, path, tag):
    of_a_club(scene)
    scene.at_find, scene.then = 2, lambda: scene.becomes(Identity("ann", "session-of-ann"))
    answer = await get(path, If_None_Match=tag)
    assert (scene.finds, answer.status) == (2, 404)
    assert b"secret" not in await answer.read()
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_who_leaves_the_organization_while_a_picture_is_awaited_gets_nothing(scene, get, path):
    of_a_club(scene)
    assert (await get(path)).status == 200
    scene.asked.clear()
    async with awaited(scene, get(path)) as request:
        scene.becomes(Identity("ann", "session-of-ann"))
    answer = await request
    assert answer.status == 404
    assert b"secret" not in await answer.read()
    assert scene.metrics.read()["unauthorized_total"] == 1


def of_a_club(scene: Scene) -> None:
    """The stream is another user's of an organization to which the caller belongs."""
    settings = Settings(stream_access="organization", database_url="postgres://x")
    scene.context.authorization = Authorization(settings)
    scene.owner = Owner("bob", frozenset({"acme"}))
    member = Identity("ann", "session-of-ann", organizations={"acme": frozenset({"member"})})

    async def verify(*_: object, **__: object) -> Identity:
        return member

    async def of_bob(*_: object) -> list[AlertFrameRow]:
        return [AlertFrameRow("cam", "bob", 3, 7, kept=True)]

    scene.context.authenticator.verify, scene.context.router.queries.alert_frames = verify, of_bob


@pytest.mark.parametrize("path", PATHS)
async def test_a_picture_that_does_not_come_is_404(scene, get, path):
    scene.frame = None
    answer = await get(path)
    assert answer.status == 404
    assert (await answer.json())["error"]["code"] in ("NOT_FOUND", "NO_FRAME")


async def test_the_head_of_a_moving_picture_is_that_of_get_and_nobody_watches_for_it(scene, get):
    answer = await get("/streams/cam/mjpeg", "HEAD")
    assert (answer.status, await answer.read()) == (200, b"")
    assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace; boundary=")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in answer.headers
    scene.owner = Owner("eve")
    assert (await get("/streams/cam/mjpeg", "HEAD")).status == 404
