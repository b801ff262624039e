"""What slow viewers cost (docs/backpressure.md): memory, the age of what they see, and nothing once they are gone."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Final

import psutil
import pytest

from tests.kit.clients import Viewer, eventually
from tests.kit.readers import COMES_S, Reader, all_leave, can_vanish, gateway_figures, own_memory_bytes, send_queues
from tests.kit.relays import Relays, connected, first_of
from tests.kit.show import Show, read_frames

pytestmark = pytest.mark.e2e

KIB: Final = 1 << 10
MIB: Final = 1 << 20
#: What a viewer that does not read may have on the wire: the gateway's buffer, the kernel's, the window of the reader.
WIRE_BYTES: Final = 256 * KIB


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────

SLOW: Final = 5
#: What the first frames cost is no viewer's.
WARM_UP: Final = 20


@pytest.mark.parametrize("how", ["reads 1 kB/s", "stops", "vanishes"])
async def test_a_slow_viewer_costs_no_more_than_1_mib_beside_its_frame(watchout, clients, how):
    if how == "vanishes" and not can_vanish:
        pytest.skip("only Linux lets a socket drop what comes to it")
    started, size = watchout(), 100_000
    pid = started.one("gateway").pid
    show = await Show.begin(started, clients)
    readers = [await show.reader(receive_buffer=4096) for _ in range(SLOW)]

    async def read(reader: Reader, until: int) -> None:
        """One after another they are slow: each has another frame on the wire."""
        await read_frames(reader, until)
        if how == "vanishes":
            reader.vanish()
        if how == "reads 1 kB/s":
            reader.bytes_per_s = 1_000
            await read_frames(reader, 2**32)

    async with all_leave(readers):
        await show.frames(WARM_UP, size)
        for reader in readers:
            await read_frames(reader, WARM_UP)
        before = own_memory_bytes(pid)
        readings = [asyncio.create_task(read(each, WARM_UP + 5 * n)) for n, each in enumerate(readers, 1)]
        await show.frames(5 * SLOW + 200, size)
        grown = own_memory_bytes(pid) - before
        queues = send_queues(started.port)
        held = [queues[reader.local_port] for reader in readers]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
    assert grown <= SLOW * (MIB + size), f"{grown} bytes for {SLOW} viewers"
    assert max(held) <= WIRE_BYTES, f"the kernel holds {max(held)} bytes for one viewer"
    assert min(held) > 0, "this reader was never slow"


# ── the newest frame is new ──────────────────────────────────────────────────────────────────────────────────────


async def paced(show: Show, fps: float, number: int, size: int, beside: Sequence[Viewer] = ()) -> None:
    """So many frames at a steady rate, as cameras send them, whatever slow viewers do; those beside keep up."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(number):
        await show.frames(1, size)
        for viewer in beside:
            await viewer.find("video-frame", COMES_S, frameId=show.shown)
        due += 1 / fps
        await asyncio.sleep(max(0.0, due - loop.time()))


def oldest(show: Show, came: list[tuple[int, float]]) -> float:
    """How old the newest frame of a viewer ever was: that is right before the next one came. In seconds."""
    return max(at - show.sent_at[number] for (number, _), (_, at) in itertools.pairwise(came))


async def test_the_newest_frame_of_a_viewer_at_a_tenth_of_the_rate_is_no_older_than_two_transfers(
    plain_watchout, clients
):
    size, fps, number = 400_000, 10, 120
    show = await Show.begin(plain_watchout, clients)
    beside = [await clients.viewer(plain_watchout.url, show.token) for _ in range(4)]
    for viewer in beside:
        await viewer.subscribe(show.stream, format="binary")
    async with await show.reader(receive_buffer=32 * KIB) as slow:
        slow.bytes_per_s = size * fps / 10
        came: list[tuple[int, float]] = []

        async def read() -> None:
            while True:
                message = await slow.message()
                if message["type"] == "video-frame":
                    assert message["picture"] == show.pictures[message["frameId"]]
                    came.append((message["frameId"], time.monotonic()))

        reading = asyncio.create_task(read())
        await paced(show, fps, number, size, beside)
        age, seen = oldest(show, came), len(came)
        slow.bytes_per_s = None
        await eventually(lambda: came[-1][0] == number, COMES_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for viewer in beside:
            await eventually(lambda viewer=viewer: viewer.frame_ids == list(range(1, number + 1)), COMES_S)
        metrics = await show.settled((2 + len(beside)) * number)
    ids = [frame_id for frame_id, _ in came]
    assert ids == sorted(set(ids))
    assert seen >= 5
    assert metrics["frames_dropped_slow_total"] == number - len(ids)
    transfer_s, on_the_wire_s = 10 / fps, WIRE_BYTES / (size * fps / 10)
    assert age <= 2 * transfer_s + on_the_wire_s + 1.5, f"{age:.1f} s old"
    assert age < number / fps * 0.5, "the bound is too weak to show anything"


class Proxy:
    """A reverse proxy of the worst kind: it takes all that it can get, and hands it on at its client's rate."""

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._port = port
        self._bytes_per_s = bytes_per_s
        self._relays = Relays(self._serve)
        self.url = ""

    async def __aenter__(self) -> Proxy:
        await self._relays.open()
        self.url = f"http://127.0.0.1:{self._relays.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._relays.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected("127.0.0.1", self._port) as (upstream, to_gateway):
            held: asyncio.Queue[bytes] = asyncio.Queue()
            ways = (self._up(reader, to_gateway), self._take(upstream, held), self._hand_on(held, writer))
            await first_of(*ways)

    async def _up(self, reader: asyncio.StreamReader, to_gateway: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            to_gateway.write(data)

    async def _take(self, upstream: asyncio.StreamReader, held: asyncio.Queue[bytes]) -> None:
        while data := await upstream.read(16384):
            held.put_nowait(data)

    async def _hand_on(self, held: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            data = await held.get()
            writer.write(data)
            due = max(due, loop.time() - 0.02) + len(data) / self._bytes_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))


async def test_behind_a_proxy_that_buffers_all_it_gets_a_window_keeps_the_newest_frame_new(plain_watchout, clients):
    size, fps, number, window = 20_000, 40, 240, 2
    show = await Show.begin(plain_watchout, clients)
    async with Proxy(plain_watchout.port, size * fps / 10) as proxy:
        acking, plain = [await clients.viewer(proxy.url, show.token) for _ in range(2)]
        await acking.subscribe(show.stream, format="binary", lastFrame=False, window=window)
        await plain.subscribe(show.stream, format="binary", lastFrame=False)

        async def acknowledge() -> None:
            while True:
                frame = await acking.frame()
                await acking.send("ack", streamId=show.stream, frameId=frame["frameId"])

        acknowledging = asyncio.create_task(acknowledge())
        await paced(show, fps, number, size)
        ages = [
            oldest(show, [(m["frameId"], at) for m, at in zip(v.heard, v.heard_at, strict=True) if "frameId" in m])
            for v in (acking, plain)
        ]
        acknowledging.cancel()
        await asyncio.gather(acknowledging, return_exceptions=True)
        show.check(acking.frames)
        acking.cut()
        plain.cut()
    transfer_s = 10 / fps
    assert ages[0] <= (window + 2) * transfer_s + 1.0, f"{ages[0]:.1f} s old"
    assert ages[1] > 2 * ages[0], "this proxy does not buffer"
    assert (await show.since())["frames_dropped_window_total"] > number / 2


# ── who is gone leaves nothing behind ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["leaves", "stops", "vanishes"])
@pytest.mark.parametrize("over", ["websocket", "mjpeg"])
async def test_a_reader_that_is_gone_is_let_go_of_with_all_that_it_held(watchout, clients, over, how):
    if how == "vanishes" and not can_vanish:
        pytest.skip("only Linux lets a socket drop what comes to it")
    started = watchout(environ={"IDLE_TIMEOUT_S": "3"})
    gateway = psutil.Process(started.one("gateway").pid)
    show = await Show.begin(started, clients)
    await show.frames(1)
    before, files = await gateway_figures(started.url), gateway.num_fds()
    readers: list[Reader] = []
    async with all_leave(readers), show.camera_keeps_on():

        async def begin() -> None:
            if over == "websocket":
                reader = await show.reader(receive_buffer=4096)
                readers.append(reader)
            else:
                reader = await Reader.connect(started.port, receive_buffer=4096)
                readers.append(reader)
                await reader.get(f"/streams/{show.stream}/mjpeg", show.token)
            await reader.skim(1000)

        await asyncio.gather(*(begin() for _ in range(5)))  # at once: who reads no more is not there for long
        assert (await gateway_figures(started.url))["video_viewers"] == before["video_viewers"] + 5
        for reader in readers:
            if how == "vanishes":
                reader.vanish()
            if how == "leaves":
                reader.leave()

        async def as_before() -> bool:
            now = await gateway_figures(started.url)
            names = ("video_viewers", "alert_viewers", "sockets")
            return gateway.num_fds() <= files and all(now[name] <= before[name] for name in names)

        await eventually(as_before, COMES_S)
        assert show.neighbour.open
