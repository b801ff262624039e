"""What fills each row of the table of bounds in docs/security.md, from many sockets at once, through real processes.

A filler is a function of this module with `filler("name of the row")`. It gets a `Scene`, fills the place as far as
the processes let it, and returns while all that it opened is still open; the test then looks at the bystanders.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.kit.clients import (
    BINARY,
    CLOSE,
    JPEG,
    PING,
    TEXT,
    Clients,
    RawSocket,
    Viewer,
    eventually,
    http,
    new_name,
    web_socket_frame,
)
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout
from watchout.common.alerts.model import MAX_METADATA_BYTES, MAX_METADATA_VALUES

PAGE: Final = Path(__file__).parents[2] / "docs/security.md"
#: Columns of the table.
COLUMNS: Final = ("by whom", "what", "bound each", "bound in total", "who gives way", "metric", "filler")
#: Columns of the table of what no client fills by itself.
COLUMNS_WITHIN: Final = ("by whom", "what", "bound", "who gives way", "metric", "held by")
#: Where strangers come from: what they fill by address is not the bystanders' (all of 127.0.0.0/8 is this machine).
STRANGE_ADDRESS: Final = "127.0.0.2"


#: Memory that a process may have beside what it has when it is ready: past it an allocation fails.
HEADROOM_BYTES: Final = 192 << 20


@contextlib.asynccontextmanager
async def no_service() -> AsyncIterator[str]:
    """Nothing."""
    yield ""


@contextlib.asynccontextmanager
async def silent_service() -> AsyncIterator[str]:
    """A service that takes connections and requests as far as the kernel does, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.asynccontextmanager
async def alerting_service() -> AsyncIterator[str]:
    """An ML service that sees something in every frame."""

    async def analyze(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"alert": {"severity": "high", "message": f"seen {new_name()}"}})

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/analyze", analyze)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Scene:
    """A watchout with small limits, and the clients that fill it."""

    watchout: Watchout
    clients: Clients

    def token(self, user: str) -> str:
        """A token of the user of this name."""
        return self.watchout.token(user)

    async def raw(self, *, receive_bytes: int | None = None) -> RawSocket:
        """A connection of a stranger, from an address of its own; for whom the kernel holds so much that came."""
        if receive_bytes is None:
            return await self.clients.raw(self.watchout.url, local_addr=(STRANGE_ADDRESS, 0))
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.bind((STRANGE_ADDRESS, 0))
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.watchout.port))
        return await self.clients.raw(self.watchout.url, sock=connection)

    async def metric(self, name: str) -> float:
        """What all processes count under this name together."""
        _, page = await asyncio.to_thread(self.watchout.text, "/metrics")
        return sum(float(value) for value in re.findall(rf"^watchout_{name}{{.*}} (\S+)$", page, re.MULTILINE))

    async def reached(self, name: str, least: float = 1) -> None:
        """Wait until this metric shows that a bound was reached."""

        async def is_there() -> bool:
            return await self.metric(name) >= least

        await eventually(is_there, 30, f"{name} is not {least:g}: the bound was not reached")

    async def viewer(self, user: str) -> Viewer:
        """A signed-in viewer."""
        return await self.clients.viewer(self.watchout.url, self.token(user))


#: The URL of a service that runs while the context is open.
Service = Callable[[], contextlib.AbstractAsyncContextManager[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the watchout of one row has that others have not.

    `environ` are settings; `{service}` in one stands for the URL of `service`. `gateway` is the command that starts the
    gateway, `headroom_bytes` the memory that a process may take beside what it has when it is ready.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    service: Service = no_service
    gateway: tuple[str, ...] = ()
    headroom_bytes: int = HEADROOM_BYTES
    expected: tuple[str, ...] = ()

    def environ_with(self, url: str) -> dict[str, str]:
        """The settings, with the URL of the service."""
        return {name: text.replace("{service}", url) for name, text in self.environ.items()}


Filler = Callable[[Scene], Awaitable[None]]
FILLERS: Final[dict[str, Filler]] = {}
NEEDS: Final[dict[str, Needs]] = {}


def filler(name: str, needs: Needs | None = None) -> Callable[[Filler], Filler]:
    """Register the filler of one row."""

    def register(function: Filler) -> Filler:
        assert name not in FILLERS, name
        FILLERS[name] = function
        NEEDS[name] = needs or Needs()
        return function

    return register


def rows(table: str = "bounds", columns: tuple[str, ...] = COLUMNS) -> list[dict[str, str]]:
    """The rows of a table of the page, by the names of its columns."""
    page = PAGE.read_text()
    text = page[page.index(f"<!-- {table} -->") : page.index(f"<!-- end of {table} -->")]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    assert tuple(head) == columns, head
    return [dict(zip(columns, row, strict=True)) for row in body]


@filler("strangers")
async def fill_strangers(scene: Scene) -> None:
    async def one() -> None:
        raw = await scene.raw()
        with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError):
            await raw.upgrade("/streams/subscribe")

    await asyncio.gather(*(one() for _ in range(300)))


def compressed_fragment(size_bytes: int) -> bytes:
    """An unfinished message that inflates to so much (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(b"a" * size_bytes) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return web_socket_frame(TEXT, data, fin=False, rsv=4)


async def unfinished(
    scene: Scene, path: str, data: bytes, sockets: int, *, local: str = STRANGE_ADDRESS, within_frame: bool = False
) -> list[int | None]:
    """Send this, and nothing more, from many sockets; the codes of those that were closed at once.

    A `PING` after it tells when the gateway has read it, unless it ends within a WebSocket frame (`within_frame`): a
    socket that is kept open then answers nothing, and no codes are known.
    """

    async def one() -> int | None:
        raw = await scene.clients.raw(scene.watchout.url, local_addr=(local, 0))
        with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError, TimeoutError):
            await raw.upgrade(path, "Sec-WebSocket-Extensions: permessage-deflate")
            await raw.send(data)
            if within_frame:
                return None
            await raw.send(web_socket_frame(PING))
            frame = await raw.frame()
            return int.from_bytes(frame.payload[:2], "big") if frame.opcode == CLOSE else None
        return None

    return [code for _ in range(sockets // 20) for code in await asyncio.gather(*(one() for _ in range(20)))]


@filler("messages of strangers")
async def fill_messages_of_strangers(scene: Scene) -> None:
    await unfinished(scene, "/streams/subscribe", compressed_fragment(60_000), 200, local="127.0.0.3")
    await unfinished(scene, "/streams/subscribe", compressed_fragment(1 << 20), 200, local="127.0.0.4")
    await unfinished(scene, "/streams/subscribe", web_socket_frame(TEXT, bytes(60_000))[:-1], 200, local="127.0.0.5")


@filler("heads")
async def fill_heads(scene: Scene) -> None:
    async def one(number: int) -> None:
        raw = await scene.clients.raw(scene.watchout.url, local_addr=(f"127.0.1.{number % 8}", 0))
        with contextlib.suppress(OSError):
            await raw.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 8000 + b"\r\nY: " + b"y" * 8000)

    await asyncio.gather(*(one(number) for number in range(800)))


@filler("messages of users")
async def fill_messages_of_users(scene: Scene) -> None:
    bomb, half = compressed_fragment(15 << 20), web_socket_frame(BINARY, bytes(15 << 20))[: 12 << 20]
    for user in range(4):
        path = f"/streams/register?token={scene.token(f'mallory-{user}')}"
        await unfinished(scene, path, bomb, 20)
        closed = await scene.metric("closed_unfinished_total")
        await unfinished(scene, path, half, 20, within_frame=True)
        await scene.reached("closed_unfinished_total", closed + 15)


@filler("viewers")
async def fill_viewers(scene: Scene) -> None:
    """Viewers that stop in the middle of different large frames, and others whose slots keep different ones."""
    token = scene.token("mallory")
    camera = await scene.clients.camera(scene.watchout.url, token)
    stream = await camera.register()
    for frame in range(30):
        for rate in ("", ',"maxFps":0.001'):
            raw = await scene.raw(receive_bytes=4096)
            await raw.upgrade(f"/streams/subscribe?token={token}")
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wish = f'{{"type":"subscribe","streamId":"{stream}","consumes":["video-frame","alert"]{rate}}}'
            await raw.send(web_socket_frame(TEXT, wish.encode()))
        await camera.show_binary(JPEG + bytes([frame]) * (6 << 20))
    await scene.reached("waiting_frames_evicted_total")


@filler("subscriptions")
async def fill_subscriptions(scene: Scene) -> None:
    camera = await scene.clients.camera(scene.watchout.url, scene.token("mallory"))
    streams = [f"own-{number}" for number in range(20)]
    cameras = [camera, *[await scene.clients.camera(scene.watchout.url, scene.token("mallory")) for _ in streams[1:]]]
    for each, stream in zip(cameras, streams, strict=True):
        await each.register(stream)
    refused = 0
    for _ in range(20):
        viewer = await scene.viewer("mallory")
        for stream in streams:
            await viewer.send("subscribe", streamId=stream, consumes=["video-frame", "alert"])
        for _ in streams:
            while (message := await viewer.next())["type"] not in ("success", "error"):
                pass
            refused += message["type"] == "error"
    assert refused >= 100, "the bound of a user was not reached"


@filler("floods")
async def fill_floods(scene: Scene) -> None:
    async def one(number: int) -> None:
        raw = await scene.raw()
        await raw.upgrade(f"/streams/subscribe?token={scene.token('mallory')}")
        message = web_socket_frame(PING, b"p" * 100) if number % 2 else web_socket_frame(TEXT, b'{"type":"no"}')
        with contextlib.suppress(OSError, TimeoutError):
            for _ in range(20):
                await raw.send(message * 500)
                await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(10)))


@filler("sockets")
async def fill_sockets(scene: Scene) -> None:
    token = scene.token("mallory")

    async def one() -> None:
        raw = await scene.raw()
        with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError):
            await raw.upgrade(f"/streams/subscribe?token={token}")

    for _ in range(15):
        await asyncio.gather(*(one() for _ in range(20)))


@filler("tokens", Needs(environ={"STORE_WAITING": "50", "AUTH_TIMEOUT_S": "120"}))
async def fill_tokens(scene: Scene) -> None:
    """Made-up tokens that could be some, and all come in one moment: while the gateway stood still."""
    gateway = scene.watchout.one("gateway")
    raws = [await scene.raw() for _ in range(190)]
    for raw in raws:
        await raw.upgrade("/streams/subscribe")
    gateway.pause()
    try:
        for number, raw in enumerate(raws):
            token = f"made-up-{number}-" + "x" * 400
            await raw.send(web_socket_frame(TEXT, b'{"type":"auth","token":"%s"}' % token.encode()))
    finally:
        gateway.resume()
    await scene.reached("auth_unavailable_total")
    await scene.reached("auth_refused_total")


#: The gateway with its output in a pipe that `cat` reads; it keeps the id of the process.
PIPED: Final = ("/bin/bash", "-c", f"exec {BIN}/watchout-gateway > >(exec cat) 2>&1")


@filler("log lines", Needs(environ={"LOG_LEVEL": "debug"}, gateway=PIPED))
async def fill_log_lines(scene: Scene) -> None:
    """Requests with made-up signatures, each of them a line of a log whose reader has stopped."""
    (reader,) = (child for child in scene.watchout.one("gateway").children if child.name() == "cat")
    reader.suspend()
    try:

        async def one(number: int) -> None:
            raw = await scene.clients.raw(scene.watchout.url, local_addr=(f"127.0.1.{number}", 0))
            head = raw.head(
                "/alerts", "Content-Length: 2", f"webhook-id: {number}", f"webhook-timestamp: {int(time.time())}",
                "webhook-signature: v1,AAAA", method="POST",
            )  # fmt: skip
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                for _ in range(500):
                    await raw.send(head + b"{}")
                    await raw.answer()

        for _ in range(4):
            await asyncio.gather(*(one(number) for number in range(8)))
            if await scene.metric("log_lines_dropped_total"):
                break
        await scene.reached("log_lines_dropped_total")
    finally:
        reader.resume()


@filler("waits")
async def fill_waits(scene: Scene) -> None:
    async def one(number: int) -> None:
        viewer = await scene.viewer("mallory")
        for stream in range(300):
            await viewer.send("subscribe", streamId=f"nobody-{number}-{stream}", consumes=["video-frame", "alert"])

    await asyncio.gather(*(one(number) for number in range(10)))


@filler("reservations")
async def fill_reservations(scene: Scene) -> None:
    async def one(user: str) -> None:
        for _ in range(20):
            camera = await scene.clients.camera(scene.watchout.url, scene.token(user))
            await camera.register(new_name())
            await camera.leave()

    await asyncio.gather(*(one(f"user{number % 4}") for number in range(12)))


@filler("recent alerts")
async def fill_recent_alerts(scene: Scene) -> None:
    nasty = {"a": [{}] * (MAX_METADATA_VALUES - 3), "b": "x" * (MAX_METADATA_BYTES - 4000)}

    async def one(number: int) -> None:
        camera = await scene.clients.camera(scene.watchout.url, scene.token(f"user{number % 4}"))
        await camera.register(new_name(), produces=["alert"], consumes=["alert"])
        for _ in range(60):
            await camera.send("alert", severity="low", message="x", metadata=nasty)

    async def push(number: int) -> None:
        many = [{"streamId": f"nobody-{number}", "severity": "low", "message": "x", "metadata": nasty}] * 80
        await http(f"{scene.watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=many)

    await asyncio.gather(*(one(number) for number in range(12)), *(push(number) for number in range(10)))


@filler("newest frames")
async def fill_newest_frames(scene: Scene) -> None:
    for number in range(60):
        camera = await scene.clients.camera(scene.watchout.url, scene.token(f"user{number % 4}"))
        await camera.register(new_name())
        await camera.show_binary(JPEG + bytes(6 << 20))


@filler("answers")
async def fill_answers(scene: Scene) -> None:
    """Many readers of recent alerts, of pictures and of open pages, which read nothing."""
    url, token = scene.watchout.url, scene.token("mallory")
    camera = await scene.clients.camera(url, token)
    stream = await camera.register()
    for number in range(20):
        metadata = {"x": "y" * 16_000}
        alerts = [{"streamId": stream, "severity": "low", "message": str(number), "metadata": metadata}] * 25
        assert (await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alerts)).status == 202
    await camera.show_binary(JPEG + bytes(4 << 20))
    bearer = f"Authorization: Bearer {token}"

    async def one(path: str, *headers: str) -> None:
        raw = await scene.clients.raw(url, local_addr=(STRANGE_ADDRESS, 0), limit=1024)
        await raw.send(raw.head(path, *headers) * 20)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await asyncio.wait_for(raw.reader.readline(), 10)

    wanted = [
        one("/alerts?limit=1000", bearer),
        one(f"/streams/{stream}/frame.jpg", bearer),
        one("/metrics"),
        one("/stats"),
    ]
    await asyncio.gather(*wanted, *(one(f"/alerts?limit=1000&streamId={stream}", bearer) for _ in range(100)))


@filler("moving-pictures")
async def fill_moving_pictures(scene: Scene) -> None:
    """Readers of large moving pictures, which read nothing."""
    url, token = scene.watchout.url, scene.token("mallory")
    camera = await scene.clients.camera(url, token)
    stream = await camera.register()
    for _ in range(20):
        raw = await scene.clients.raw(url, local_addr=(STRANGE_ADDRESS, 0), limit=1024)
        await raw.send(raw.head(f"/streams/{stream}/mjpeg", f"Authorization: Bearer {token}"))
        await asyncio.wait_for(raw.reader.readline(), 30)
    for number in range(10):
        await camera.show_binary(JPEG + bytes([number]) * (2 << 20))


@filler("bodies")
async def fill_bodies(scene: Scene) -> None:
    """Bodies of a stranger with made-up signatures, which never end."""

    async def one(number: int) -> None:
        raw = await scene.raw()
        head = raw.head(
            "/alerts", "Content-Length: 2000000", f"webhook-id: {number}", f"webhook-timestamp: {int(time.time())}",
            "webhook-signature: v1,AAAA", method="POST",
        )  # fmt: skip
        with contextlib.suppress(OSError):
            await raw.send(head + bytes(1_900_000))

    await asyncio.gather(*(one(number) for number in range(100)))


@filler("json")
async def fill_json(scene: Scene) -> None:
    """Messages that are deep, wide or endless in one value; what is kept of them is nothing."""
    deep = b'{"type":"subscribe","streamId":"x","consumes":' + b"[" * 60_000
    wide = b'{"type":"subscribe",' + b",".join(b'"k%d":{}' % number for number in range(100_000)) + b"}"
    long = b'{"type":"subscribe","streamId":"' + b"x" * (1 << 20) + b'"}'

    async def one(number: int) -> None:
        raw = await scene.raw()
        await raw.upgrade(f"/streams/subscribe?token={scene.token('mallory')}")
        with contextlib.suppress(OSError, TimeoutError):
            for _ in range(2):
                await raw.send(web_socket_frame(TEXT, (deep, wide, long)[number % 3]))

    await asyncio.gather(*(one(number) for number in range(30)))
    await scene.reached("client_errors_total", 30)


@filler("requests")
async def fill_requests(scene: Scene) -> None:
    """Claims of cameras and questions of viewers, while the router answers nothing."""
    router = scene.watchout.one("router")
    cameras = [await scene.clients.camera(scene.watchout.url, scene.token("mallory")) for _ in range(50)]
    router.pause()
    try:
        for camera in cameras:
            for _ in range(5):
                await camera.send("register", streamId=new_name(), produces=["video-frame"])
        for camera in cameras:
            await camera.expect("error", code="ROUTING_ERROR")
    finally:
        router.resume()

    async def healthy() -> bool:
        return bool((await asyncio.to_thread(scene.watchout.get, "/health"))[0] == 200)

    await eventually(healthy, 30)


@filler("replays")
async def fill_replays(scene: Scene) -> None:
    """Recent alerts of many streams, asked for again on many sockets at once."""
    metadata = {"x": "y" * 16_000}
    for number in range(10):
        alerts = [{"streamId": f"replay-{at}", "severity": "low", "message": str(number), "metadata": metadata}
                  for at in range(20)]  # fmt: skip
        await http(f"{scene.watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alerts)

    async def one(number: int) -> None:
        raw = await scene.raw(receive_bytes=4096)
        await raw.upgrade(f"/streams/subscribe?token={scene.token(f'mallory-{number % 4}')}")
        for at in range(10):
            wish = f'{{"type":"subscribe","streamId":"replay-{at}","consumes":["alert"],"alertsSince":1}}'
            await raw.send(web_socket_frame(TEXT, wish.encode()))

    await asyncio.gather(*(one(number) for number in range(80)))


@filler(
    "bridge",
    Needs(
        environ={"ML_SERVICE_URL": "{service}", "ML_MAX_AGE_S": "60", "ML_TIMEOUT_S": "300"},
        service=silent_service,
        headroom_bytes=640 << 20,
    ),
)
async def fill_bridge(scene: Scene) -> None:
    """Large frames of many streams, for an ML service that never answers."""
    cameras = [await scene.clients.camera(scene.watchout.url, scene.token(f"user{n % 4}")) for n in range(60)]
    for camera in cameras:
        await camera.register(new_name())

    async def over() -> bool:
        for camera in cameras:
            await camera.show_binary(JPEG + bytes(6 << 20))
        return await scene.metric("ml_frames_over_bytes_total") > 0

    await eventually(over, 60, "the bound of the frames that wait was not reached")
    assert await scene.metric("ml_in_flight_bytes") <= 64 << 20


@filler(
    "webhook",
    Needs(
        environ={
            "ALERT_WEBHOOK_URL": "{service}/hook",
            "ALERT_WEBHOOK_SECRETS": "whsec_" + base64.b64encode(b"s" * 32).decode(),
            "ALERT_WEBHOOK_ALLOW_PRIVATE": "true",
            "ALERT_WEBHOOK_TIMEOUT_S": "60",
            "DRAIN_S": "1",
        },
        service=silent_service,
    ),
)
async def fill_webhook(scene: Scene) -> None:
    """Large alerts for a webhook that never answers."""
    for number in range(20):
        metadata = {"x": "y" * 16_000}
        alerts = [{"streamId": f"s{number}", "severity": "low", "message": "m", "metadata": metadata}] * 64
        answer = await http(f"{scene.watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alerts)
        assert answer.status == 202
    await scene.reached("alert_webhook_dead_total")


@filler(
    "alert pictures",
    Needs(
        environ={"ML_SERVICE_URL": "{service}", "ML_FPS": "1000", "ALERT_COOLDOWN_S": "0",
                 "ALERT_PICTURE_BYTES": str(4 << 20)},
        service=alerting_service,
        expected=("Connect call failed",),
    ),
)  # fmt: skip
async def fill_alert_pictures(scene: Scene) -> None:
    """Frames of many streams, each with an alert, so that the router gets the picture of each."""
    cameras = [await scene.clients.camera(scene.watchout.url, scene.token(f"user{n % 4}")) for n in range(16)]
    for camera in cameras:
        await camera.register(new_name())

    async def many() -> bool:
        for camera in cameras:
            await camera.show_binary(JPEG + bytes(700_000))
        pictures, kept = await scene.metric("alert_pictures_total"), await scene.metric("alert_picture_bytes")
        return pictures > 100 and kept > 2 << 20  # the bridge and the router count them, and report one by one

    await eventually(many, 60, "the pictures of alerts did not come")
    assert await scene.metric("alert_picture_bytes") <= 4 << 20
