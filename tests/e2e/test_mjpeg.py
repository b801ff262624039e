"""`GET /streams/{id}/mjpeg`: pictures as a browser's `img` reads them, by clients written from the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.kit.clients import DEADLINE_S, JPEG, PNG, WEBP, RawSocket, base64_of, eventually, http, new_name
from tests.kit.readers import Reader, can_vanish, gateway_figures

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def watchout_loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True, slots=True)
class Part:
    headers: dict[str, str]
    picture: bytes

    @property
    def frame_id(self) -> int:
        return int(self.headers["x-frame-id"])


class Screen:
    """Reads parts, by their boundary and length, out of a chunked answer."""

    def __init__(self, raw: RawSocket) -> None:
        self._raw = raw
        self._body = b""
        self._boundary = b""
        self._last = 0

    async def begin(self) -> int:
        """Read the head of the answer; its status."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self._raw.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        if status == 200:
            assert "transfer-encoding: chunked" in head
            found = re.search(r"content-type: multipart/x-mixed-replace; ?boundary=\"?([^\s\";]+)", head)
            assert found is not None, head
            self._boundary = b"--" + found[1].encode() + b"\r\n"
        return status

    async def _more(self) -> None:
        size = int(await self._raw.reader.readline(), 16)
        chunk = await self._raw.reader.readexactly(size + 2)
        if not size:
            raise EOFError
        self._body += chunk[:-2]

    async def part(self, timeout_s: float = DEADLINE_S, *, again: bool = False) -> Part:
        """The next new picture; with `again` also the one before, when it comes again in a silence."""
        async with asyncio.timeout(timeout_s):
            while (part := await self._part()).frame_id == self._last and not again:
                pass
        self._last = part.frame_id
        return part

    async def _part(self) -> Part:
        while b"\r\n\r\n" not in self._body:
            await self._more()
        head, _, _ = self._body.partition(b"\r\n\r\n")
        assert head.startswith(self._boundary), head[:80]
        lines = [line.split(": ", 1) for line in head[len(self._boundary) :].decode().split("\r\n")]
        headers = {name.lower(): value for name, value in lines}
        begin, length = len(head) + 4, int(headers["content-length"])
        while len(self._body) < begin + length + 2:
            await self._more()
        picture = self._body[begin : begin + length]
        assert self._body[begin + length :].startswith(b"\r\n")
        self._body = self._body[begin + length + 2 :]
        return Part(headers, picture)

    async def over(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait for the end of the answer."""
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(EOFError, ConnectionError, asyncio.IncompleteReadError, ValueError):
                while True:
                    await self._more()


@contextlib.asynccontextmanager
async def watching(clients, watchout, stream: str, token: str, query: str = "", tiny=False) -> AsyncIterator[Screen]:
    raw = await (small(watchout.port) if tiny else clients.raw(watchout.url))
    async with raw:
        await raw.send(raw.head(f"/streams/{stream}/mjpeg{query}", f"Authorization: Bearer {token}"))
        screen = Screen(raw)
        assert await screen.begin() == 200
        yield screen


async def small(port: int) -> RawSocket:
    """A connection whose reader holds next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return RawSocket(*await asyncio.open_connection(sock=sock, limit=4096), f"127.0.0.1:{port}")


async def viewers(watchout, stream: str, token: str) -> int:
    listed = (await http(f"{watchout.url}/streams", token=token)).json["streams"]
    return next((row["viewers"] for row in listed if row["id"] == stream), 0)


@pytest.fixture
def token(plain_watchout) -> str:
    return plain_watchout.token(new_name("ann"))


async def test_each_picture_comes_as_the_camera_sent_it_in_either_form(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    await camera.show(timestamp=1001)
    async with watching(clients, plain_watchout, stream, token) as screen:
        first = await screen.part()
        assert (first.picture, first.headers["content-type"]) == (JPEG, "image/jpeg")
        assert (first.frame_id, first.headers["x-frame-time"]) == (1, "1001")
        await camera.show_binary()
        assert ((part := await screen.part()).picture, part.frame_id) == (JPEG, 2)
        await camera.show("data:image/jpeg;base64,!!!")
        assert (await camera.find("error"))["code"] == "INVALID_MESSAGE"
        await camera.show()
        assert (await screen.part()).frame_id == 4
        assert await viewers(plain_watchout, stream, token) == 1


async def test_no_more_pictures_come_than_were_asked_for(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    began = time.monotonic()  # of the first picture at the earliest: it may wait for its reader
    async with watching(clients, plain_watchout, stream, token, "?fps=5") as screen, camera.streaming(fps=50):
        for _ in range(6):
            await screen.part()
        assert time.monotonic() - began > 0.9


async def test_a_reader_that_is_slow_skips_and_never_goes_back(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    quick = await clients.viewer(plain_watchout.url, token)
    stream = await camera.register()
    await quick.subscribe(stream)
    picture = b"\xff\xd8\xff" + b"x" * 200_000
    async with watching(clients, plain_watchout, stream, token, tiny=True) as screen:
        for number in range(1, 101):
            await camera.show_binary(picture)
            await quick.frame(frameId=number)
        ids: list[int] = []
        while not ids or ids[-1] < 100:
            part = await screen.part()
            assert part.picture == picture
            ids.append(part.frame_id)
        assert ids == sorted(set(ids))
        assert len(ids) < 60


async def test_a_reader_that_is_gone_is_no_viewer_any_more(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    async with watching(clients, plain_watchout, stream, token):
        await eventually(lambda: viewers(plain_watchout, stream, token))

    async def none() -> bool:
        return await viewers(plain_watchout, stream, token) == 0

    await eventually(none)


async def test_a_camera_that_asks_is_told_of_this_viewer_too(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register(consumes=["demand"])
    assert (await camera.find("demand", viewers=0, fps=0))["streamId"] == stream
    async with watching(clients, plain_watchout, stream, token, "?fps=4"):
        await camera.find("demand", viewers=1, fps=4)
        viewer = await clients.viewer(plain_watchout.url, token)
        await viewer.subscribe(stream)
        await camera.find("demand", viewers=2, fps=30)
        await viewer.leave()
        await camera.find("demand", viewers=1, fps=4)
    await camera.find("demand", viewers=0, fps=0)


async def test_with_the_session_the_pictures_end(plain_watchout, clients):
    user = new_name("ann")
    token, other = plain_watchout.token(user), plain_watchout.token(user, 3600.0)
    camera = await clients.camera(plain_watchout.url, other)
    stream = await camera.register()
    async with watching(clients, plain_watchout, stream, token) as screen, camera.streaming(fps=10):
        await screen.part()
        with sqlite3.connect(plain_watchout.home / "sessions.db") as store:
            store.execute('delete from "session" where "token" = ?', (token,))
        store.close()
        await screen.over()
    await camera.rest()
    assert camera.open


@pytest.mark.parametrize("reads", [True, False])
async def test_who_loses_the_stream_to_another_user_sees_nothing_of_it(watchout, clients, reads):
    started = watchout(environ={"STREAM_ACCESS": "owner"})
    ann, bob = started.token("ann"), started.token("bob")
    camera = await clients.camera(started.url, ann)
    stream = await camera.register()
    await camera.show()
    async with watching(clients, started, stream, ann) as screen:
        if reads:
            await screen.part()
        await camera.leave()
        home = started.home / "sessions.db"
        with sqlite3.connect(home) as store:  # the shortest way to another user: his session is somebody else's now
            store.execute('update "session" set "userId" = (select "userId" from "session" where "token" = ?)', (bob,))
        store.close()
        await screen.over()


async def test_who_may_not_watch_is_told_the_same_as_of_a_stream_that_is_not_there(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    stranger = plain_watchout.token(new_name("eve"))
    answers = [
        await http(f"{plain_watchout.url}/streams/{name}/mjpeg", token=stranger) for name in (stream, "no-such-stream")
    ]
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].body == answers[1].body
    assert (await http(f"{plain_watchout.url}/streams/{stream}/mjpeg")).status == 401
    for fps in ("0", "nan", "-1", "x", "1e9"):
        answer = await http(f"{plain_watchout.url}/streams/{stream}/mjpeg?fps={fps}", token=token)
        assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
    assert (await http(f"{plain_watchout.url}/streams/{stream}/mjpeg", method="POST", token=token)).status == 405


async def test_these_viewers_count_against_their_user(watchout, clients):
    started = watchout(environ={"MAX_CONNECTIONS_PER_USER": "2"})
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register()
    async with watching(clients, started, stream, token):
        answer = await http(f"{started.url}/streams/{stream}/mjpeg", token=token)
        assert (answer.status, answer.error) == (503, "TOO_MANY_CONNECTIONS")

    async def again() -> bool:
        raw = await clients.raw(started.url)
        await raw.send(raw.head(f"/streams/{stream}/mjpeg", f"Authorization: Bearer {token}"))
        return await Screen(raw).begin() == 200

    await eventually(again)


async def test_a_gateway_that_ends_lets_these_viewers_go(watchout, clients):
    started = watchout(environ={"DRAIN_S": "1"})
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register()
    async with watching(clients, started, stream, token) as screen:
        assert await asyncio.to_thread(started.one("gateway").terminate) == 0
        await screen.over()


async def test_a_viewer_on_another_gateway_sees_it_and_is_counted_for_the_camera(watchout, clients):
    started = watchout(gateways=2)
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register(consumes=["demand"])
    await camera.find("demand", viewers=0, fps=0)
    async with contextlib.AsyncExitStack() as stack, camera.streaming(fps=10):
        for number in range(1, 9):  # the kernel puts some of them on the other gateway
            screen = await stack.enter_async_context(watching(clients, started, stream, token, "?fps=2"))
            assert (await screen.part()).picture == JPEG
            await camera.find("demand", viewers=number, fps=2)


# ── what is no picture ───────────────────────────────────────────────────────────────────────────────────────────

#: What a camera may send that is no picture, as JSON `data` or as a binary frame with a codec.
NO_PICTURES = (
    "null", "*not base64*", "data:image/jpeg;base64,AAAA", "/9j", (b"null", 1), (b"\xff\xd8", 1), (b"h264", 0),
)  # fmt: skip


async def test_what_is_no_picture_is_no_part_and_hides_no_picture(plain_watchout, clients):
    url, token = plain_watchout.url, plain_watchout.token(new_name("alice"))
    camera = await clients.camera(url, token)
    stream = await camera.register()
    viewer = await clients.viewer(url, token)
    await viewer.subscribe(stream, format="binary", lastFrame=False)
    async with watching(clients, plain_watchout, stream, token) as screen:
        await camera.show()
        assert (await screen.part()).picture == JPEG
        for bad in NO_PICTURES:
            if isinstance(bad, str):
                await camera.show(bad)
            else:
                await camera.show_binary(bad[0], codec=bad[1])
        await camera.show(base64_of(PNG))
        last = await screen.part()
        assert (last.picture, last.headers["content-type"]) == (PNG, "image/png")
        assert last.frame_id == len(NO_PICTURES) + 2
    told = await camera.find("error")
    assert (told["code"], told["streamId"]) == ("INVALID_MESSAGE", stream)
    assert [(await viewer.frame())["picture"] for _ in range(3)] == [JPEG, b"h264", PNG]
    await camera.show("null")
    await camera.show_binary(b"h264", codec=0)
    assert (await viewer.frame())["picture"] == b"h264"
    newest = await http(f"{url}/streams/{stream}/frame.jpg", token=token)
    assert (newest.status, newest.body, newest.headers["x-frame-id"]) == (200, PNG, str(last.frame_id))
    late = await clients.viewer(url, token)
    await late.subscribe(stream)
    assert (await late.frame())["frameId"] == last.frame_id
    assert await camera.rest() == [], "it is told once, and its socket stands"


async def test_the_newest_picture_comes_again_when_the_camera_is_silent(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    async with watching(clients, plain_watchout, stream, token) as screen:
        began = time.monotonic()  # the gateway waits from when it sent the picture, at whatever time it is read
        await camera.show(timestamp=1001)
        first = await screen.part()
        again = await screen.part(again=True)
        assert time.monotonic() - began > 0.9
        assert (again.frame_id, again.picture, again.headers) == (1, JPEG, first.headers)
        await camera.show(timestamp=1002)
        assert (await screen.part()).frame_id == 2
    assert (await gateway_figures(plain_watchout.url))["mjpeg_parts_repeated_total"] >= 1


async def test_who_waits_for_a_first_picture_hears_that_the_connection_stands(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    async with watching(clients, plain_watchout, stream, token) as screen:
        waiting = asyncio.create_task(screen.part())

        async def told() -> bool:
            return b"X-Waiting: yes" in screen._body

        await eventually(told, 30)
        await camera.show()
        assert (await waiting).headers["x-waiting"] == "yes"


@pytest.mark.skipif(not can_vanish, reason="no filter on sockets")
@pytest.mark.parametrize("streams", [True, False])
async def test_a_reader_that_vanished_is_found(watchout, clients, streams):
    started = watchout(environ={"IDLE_TIMEOUT_S": "4"})
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register()
    await camera.show()
    async with await Reader.connect(started.port) as reader, contextlib.AsyncExitStack() as stack:
        await reader.get(f"/streams/{stream}/mjpeg", token)
        await eventually(lambda: viewers(started, stream, token))
        if streams:
            await stack.enter_async_context(camera.streaming(fps=5))
        reader.vanish()

        async def nobody() -> bool:
            return await viewers(started, stream, token) == 0

        await eventually(nobody, 30.0)


async def test_a_reader_that_is_there_and_only_rests_for_a_while_goes_on(watchout, clients):
    started = watchout(environ={"IDLE_TIMEOUT_S": "20"})
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register()
    picture = JPEG + bytes(1 << 20)
    async with watching(clients, started, stream, token, tiny=True) as screen:
        for _ in range(5):
            await camera.show_binary(picture)
        await asyncio.sleep(11.0)  # longer than who reads a still picture may rest
        assert (await screen.part()).picture == picture
        assert await viewers(started, stream, token) == 1


async def test_a_reader_of_the_first_version_of_http_gets_the_parts_as_they_are(plain_watchout, token, clients):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    await camera.show()
    raw = await clients.raw(plain_watchout.url)
    path = f"/streams/{stream}/mjpeg"
    await raw.send(raw.head(path, f"Authorization: Bearer {token}", version="HTTP/1.0"))
    async with asyncio.timeout(DEADLINE_S):
        head = (await raw.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert "chunked" not in head
        boundary = re.search(r"boundary=(\S+)", head)
        assert boundary is not None
        assert await raw.reader.readline() == f"--{boundary[1]}\r\n".encode()
        part = (await raw.reader.readuntil(b"\r\n\r\n")).decode()
        assert f"Content-Length: {len(JPEG)}\r\n" in part
        assert await raw.reader.readexactly(len(JPEG)) == JPEG


def _encoded(kind: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("RGB", (8, 8), "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ((), (True, True, True, False, True, True)),
        (("Accept: */*", "User-Agent: Lavf/61.7.100"), (False, False, False, False, False, True)),
        (("Accept: image/png",), (False, False, False, False, True, False)),
        (("Accept: image/avif,image/*",), (False, False, False, False, True, True)),
    ],
)
async def test_a_reader_gets_the_pictures_that_it_takes(plain_watchout, token, clients, headers, taken):
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    raw = await clients.raw(plain_watchout.url)
    await raw.send(raw.head(f"/streams/{stream}/mjpeg", f"Authorization: Bearer {token}", *headers))
    screen = Screen(raw)
    assert await screen.begin() == 200
    pictures = (JPEG, PNG, WEBP, b"null", _encoded("PNG"), _encoded("JPEG"))
    for number, (picture, takes) in enumerate(zip(pictures, taken, strict=True), 1):
        await camera.show_binary(picture, codec=0)
        await camera.rest()
        if takes:
            part = await screen.part()
            assert (part.frame_id, part.picture) == (number, picture)
