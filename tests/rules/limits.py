"""What is full: connections, open files, memory, queues, a disk, and a log that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.kit import disks
from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.clients import BINARY, JPEG, Camera, RawSocket, new_name, web_socket_frame
from tests.kit.memory import Group, limited
from tests.kit.ports import free_port
from tests.kit.processes import BIN
from tests.kit.readers import Reader
from tests.kit.relays import first_of
from tests.rules.breakage import Shows, breaks
from tests.rules.stage import Kit, Stage, again

CONNECTIONS: Final = 40
MEMORY_BYTES: Final = 1 << 30
#: Shorter than the 1.5 s after which a process counts as gone.
STANDS_S: Final = 0.8
#: Of a large frame; more than the kernel holds for a viewer.
LARGE_BYTES: Final = 300_000
#: Settings of the gateway whose memory is small.
SMALL: Final = {"WAITING_FRAME_BYTES": str(1 << 20), "NEWEST_FRAME_BYTES": str(1 << 20)}
#: The gateway with its output in a pipe that `cat` reads; it keeps the id of the process.
PIPED: Final = ("/bin/bash", "-c", f"exec {BIN}/watchout-gateway > >(exec cat) 2>&1")
GATEWAYS: Final = ("full", "small", "silent", "odd", "behind", "secure", "unread")
#: Of a message that is not finished; a user may have one of 16 MiB.
HALF_BYTES: Final = 12 << 20
#: What each user's picture has: the first four leave no room in the 64 MiB of responses that nobody reads, and a
#: smaller one makes the largest give way. Another large one would be refused itself.
PICTURE_BYTES: Final = (*[14 << 20] * 4, *[9 << 20] * 2)


@dataclass
class Small(Stage):
    """A system with a gateway for each limit, on a small disk."""

    at: dict[str, int] = field(default_factory=dict)
    home_disk: Any = None
    group: Group | None = None
    certificate: Path = Path()
    tokens: list[str] = field(default_factory=list)

    def certify(self, days: float) -> None:
        """Write another certificate with its key, at once."""
        key = make_key()
        fresh = self.certificate.with_suffix(".new")
        fresh.write_bytes(make_certificate(key, days=days) + pem(key))
        fresh.replace(self.certificate)


@contextlib.asynccontextmanager
async def scene(kit: Kit) -> AsyncIterator[Small]:
    """The system; each gateway has small limits of its own."""
    async with contextlib.AsyncExitStack() as stack:
        system = kit.watchout(
            start=False, expected=("Traceback", "failed"),
            environ={"RECENT_ALERT_BYTES": "20000", "MESSAGE_RATE": "100000", "SERVICE_ALERT_RATE": "1000"},
        )  # fmt: skip
        place = stack.enter_context(disks.small_disk(system.home))
        here = Small(system, kit.clients, stack, [system.port], home_disk=place)
        here.at = {name: free_port() for name in GATEWAYS}
        await here.start("router", "router")
        await here.start("gateway", "plain")
        await here.start("gateway", "full", WATCHOUT_PORT=str(here.at["full"]), MAX_CONNECTIONS=str(CONNECTIONS))
        await here.start("gateway", "small", WATCHOUT_PORT=str(here.at["small"]), **SMALL)
        for name in ("odd", "behind"):
            await here.start("gateway", name, WATCHOUT_PORT=str(here.at[name]))
        await here.start(
            "gateway", "unread", WATCHOUT_PORT=str(here.at["unread"]), UNFINISHED_BYTES_PER_USER=str(1 << 20)
        )
        here.certificate = kit.folder / "port.pem"
        await asyncio.to_thread(here.certify, 90)
        secure = {"WATCHOUT_PORT": str(here.at["secure"]), "TLS_CERT": str(here.certificate)}
        await here.start("gateway", "secure", **secure)
        silent = {"WATCHOUT_PORT": str(here.at["silent"]), "LOG_LEVEL": "debug", "WATCHOUT_PROCESS_NAME": "silent"}
        here.named["silent"] = await asyncio.to_thread(system.run, "gateway", PIPED, silent)
        for name in ("files", "grows"):
            await here.start("mlbridge", name)
        await here.ready()
        here.tokens = [await asyncio.to_thread(system.token, f"user{number}") for number in range(len(PICTURE_BYTES))]
        here.group = stack.enter_context(limited(MEMORY_BYTES))
        here.group.add(here.named["grows"].pid)
        yield here


@breaks(
    "WatchoutConnectionsNearLimit", how=f"{CONNECTIONS - 2} of {CONNECTIONS} connections are open",
    where={"process": "full"},
)  # fmt: skip
async def many_connections(here: Small) -> AsyncIterator[None]:
    opened = [await here.viewer(port=here.at["full"]) for _ in range(CONNECTIONS - 2)]
    yield
    for viewer in opened:
        await viewer.leave()


@breaks(
    "WatchoutConnectionsNearLimit", how="the limit of open files of a process is just above those that it has open",
    where={"process": "files"},
)  # fmt: skip
async def many_files(here: Small) -> AsyncIterator[None]:
    process = psutil.Process(here.named["files"].pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 1, before[1]))
    yield
    process.rlimit(psutil.RLIMIT_NOFILE, before)


@breaks(
    "WatchoutMemoryNearBound", how="the limit of a control group is just above the memory that a process has",
    where={"process": "grows"},
)  # fmt: skip
async def little_memory(here: Small) -> AsyncIterator[None]:
    assert here.group is not None
    here.group.set_limit(int(psutil.Process(here.named["grows"].pid).memory_info().rss / 0.93))
    yield
    here.group.set_limit(MEMORY_BYTES)


@breaks(
    "WatchoutMemoryBoundReached", "WatchoutFramesDropped",
    how="viewers on slow links watch large frames of many cameras, for which `WAITING_FRAME_BYTES` is too small",
    where={"process": "small"},
)  # fmt: skip
async def slow_viewers(here: Small) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            camera = await large_camera(here, stack)
            reader = await stack.enter_async_context(
                await Reader.watch(here.at["small"], here.token, camera.stream, receive_buffer=4096, format="binary")
            )
            reader.bytes_per_s = 20_000.0
            await stack.enter_async_context(again(lambda reader=reader: reader.skim(1000), 0.0))
        yield


async def large_camera(here: Small, stack: contextlib.AsyncExitStack) -> Camera:
    camera = await here.clients.camera(f"http://127.0.0.1:{here.at['small']}", here.token)
    await camera.register(new_name())
    stack.push_async_callback(camera.leave)

    async def show() -> None:
        await camera.show_binary(JPEG + bytes(LARGE_BYTES), timestamp=int(time.time() * 1000))

    await stack.enter_async_context(again(show, 0.2))
    return camera


async def ended(raw: RawSocket) -> None:
    """Wait until the gateway has closed the connection."""
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(raw.reader.read(), 5)


@breaks(
    "WatchoutMemoryBoundReached",
    how="cameras send messages that they do not finish, and `UNFINISHED_BYTES_PER_USER` is small",
    where={"process": "unread"},
)  # fmt: skip
async def unfinished(here: Small) -> AsyncIterator[None]:
    url, half = f"http://127.0.0.1:{here.at['unread']}", web_socket_frame(BINARY, bytes(HALF_BYTES))[:-1000]

    async def begin() -> None:
        raws = [await here.clients.raw(url) for _ in range(2)]
        for raw in raws:
            await raw.upgrade(f"/streams/register?token={here.token}")
            with contextlib.suppress(OSError):
                await raw.send(half)
        await first_of(*(ended(raw) for raw in raws))
        for raw in raws:
            raw.writer.transport.abort()  # not waited for: that may not be cancelled

    async with again(begin, 0.5):
        yield


@breaks(
    "WatchoutMemoryBoundReached", how="many users ask for large pictures, and do not read them",
    where={"process": "unread"},
)  # fmt: skip
async def unread(here: Small) -> AsyncIterator[None]:
    url = f"http://127.0.0.1:{here.at['unread']}"
    cameras = [await here.clients.camera(url, token) for token in here.tokens]
    for camera in cameras:
        await camera.register(new_name())

    async def ask() -> None:
        raws = []
        for camera, token, size_bytes in zip(cameras, here.tokens, PICTURE_BYTES, strict=True):
            raws.append(raw := await here.clients.raw(url, limit=1024))
            await raw.send(raw.head(f"/streams/{camera.stream}/frame.jpg", f"Authorization: Bearer {token}"))
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                if b" 404 " in await asyncio.wait_for(raw.reader.readline(), 5):  # it has none yet
                    await camera.show_binary(JPEG + bytes(size_bytes))
        for raw in raws:
            raw.writer.transport.abort()  # not waited for: that may not be cancelled

    async with again(ask, 0.5):
        yield
    for camera in cameras:
        await camera.leave()


@breaks(
    "WatchoutMemoryBoundReached", how="more alerts come than `RECENT_ALERT_BYTES` holds", where={"process": "router"}
)
async def many_alerts(here: Small) -> AsyncIterator[None]:
    async with again(lambda: here.post_alerts("cam", number=50, metadata={"x": "y" * 400}), 0.3):
        yield


@breaks(
    "WatchoutFramesDropped", how="a camera sends what is no base64, and a viewer wants binary frames",
    where={"process": "odd", "reason": "undecodable"},
)  # fmt: skip
async def undecodable(here: Small) -> AsyncIterator[None]:
    camera = await here.clients.camera(f"http://127.0.0.1:{here.at['odd']}", here.token)
    viewer = await here.viewer(await camera.register(new_name()), port=here.at["odd"], format="binary")
    async with again(lambda: camera.show("no base64 at all"), 0.2):
        yield
    await camera.leave()
    await viewer.leave()


@breaks(
    "WatchoutFramesDropped", how="a gateway that takes frames of another one stands still most of the time",
    where={"process": "plain", "reason": "bus"},
)  # fmt: skip
async def gateway_behind(here: Small) -> AsyncIterator[None]:
    camera = await here.clients.camera(here.url, here.token)
    viewer = await here.viewer(await camera.register(new_name()), port=here.at["behind"], format="binary")
    behind = here.named["behind"]

    async def stand_still() -> None:
        await asyncio.to_thread(behind.pause)
        await asyncio.sleep(STANDS_S)
        behind.resume()

    async def show() -> None:
        await camera.show_binary(JPEG + bytes(LARGE_BYTES), timestamp=int(time.time() * 1000))

    async with again(show, 0.05), again(stand_still, STANDS_S / 8):
        yield
    behind.resume()
    await camera.leave()
    await viewer.leave()


@breaks(
    "WatchoutLogLinesDropped", how="nobody reads the output of a gateway that logs much", where={"process": "silent"}
)
async def log_unread(here: Small) -> AsyncIterator[None]:
    (reader,) = (child for child in here.named["silent"].children if child.name() == "cat")
    reader.suspend()
    url = f"http://127.0.0.1:{here.at['silent']}"

    async def talk() -> None:
        raw = await here.clients.raw(url)
        head = raw.head(
            "/alerts", "Content-Length: 2", "webhook-id: 1", f"webhook-timestamp: {int(time.time())}",
            "webhook-signature: v1,AAAA", method="POST",
        )  # fmt: skip
        for _ in range(200):
            await raw.send(head + b"{}")
            await raw.answer()
        raw.writer.transport.abort()  # not waited for: that may not be cancelled

    async with again(talk, 0.0):
        yield
    reader.resume()


@breaks(
    "WatchoutCertificateExpires", how="the certificate of a gateway's port is good for three days",
    where={"process": "secure"},
)  # fmt: skip
async def certificate_ends(here: Small) -> AsyncIterator[None]:
    await asyncio.to_thread(here.certify, 3)
    yield
    await asyncio.to_thread(here.certify, 90)


@breaks(
    "WatchoutReservationsUnsaved",
    how="the disk of the home is full",
    shows=[Shows(("doctor",), r"wrong +home +Only .* free")],
)
async def full_disk(here: Small) -> AsyncIterator[None]:
    filling = await asyncio.to_thread(disks.fill, here.home_disk)
    camera = await here.clients.camera(here.url, here.token)
    await camera.register(new_name())
    await camera.leave()
    yield
    filling.unlink()


STEPS: Final = (
    (unread,),
    (
        many_connections, many_files, little_memory, slow_viewers, unfinished, many_alerts, undecodable, gateway_behind,
        log_unread, certificate_ends, full_disk,
    ),
)  # fmt: skip
