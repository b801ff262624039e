"""What the lanes promise (docs/backpressure.md), against the real processes: viewers that are slow, stop or vanish.

Each time somebody watches the same stream beside them who must not notice. Which frames were on the wire when is asked
of `/metrics`: every frame that is offered to a viewer is sent, waits, or is counted as dropped, and the sum is exact.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.kit.clients import JPEG, eventually, http, pack_frame
from tests.kit.processes import SERVICE_TOKEN, Watchout, running
from tests.kit.readers import COMES_S, Reader, all_leave, can_vanish
from tests.kit.show import Show, picture, read_frames

pytestmark = pytest.mark.e2e

KIB: Final = 1 << 10
MIB: Final = 1 << 20
#: What a viewer that does not read may have on the wire: the gateway's buffer, the kernel's, the window of the reader.
WIRE_BYTES: Final = 256 * KIB
#: So many small frames a camera may send.
MANY_MESSAGES: Final = {"MESSAGE_RATE": "1000000"}


@pytest.fixture(scope="module")
def served() -> Iterator[Watchout]:
    """A watchout whose cameras may send very many frames."""
    with running(environ=MANY_MESSAGES) as started:
        yield started


@pytest.fixture(scope="module")
def served_by_asyncio() -> Iterator[Watchout]:
    """The same on the other loop, whose transports buffer in their own way."""
    with running(loop="asyncio", environ=MANY_MESSAGES) as started:
        yield started


@pytest.fixture(params=["served", "served_by_asyncio"])
def either(request: pytest.FixtureRequest) -> Watchout:
    found: Watchout = request.getfixturevalue(request.param)
    return found


async def push(url: str, body: Any) -> None:
    """An alert, or a list of them, from the ML side."""
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
    assert answer.status == 202, answer


# ── alerts overtake ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("behind", [10, 100])
async def test_an_alert_comes_before_every_frame_that_was_not_on_the_wire_yet(either, clients, behind):
    show = await Show.begin(either, clients)
    async with await show.reader(receive_buffer=4096) as reader:
        await show.frames(WIRE_BYTES // 30_000 + 2 + behind)
        metrics = await show.settled(2 * show.shown - 1)
        on_the_wire = int(metrics["frames_out_total"]) - show.shown
        assert on_the_wire + behind <= show.shown
        alert = {"streamId": show.stream, "severity": "high"}
        await push(either.url, [{**alert, "message": str(n)} for n in range(5)])
        await show.neighbour.find("alert", message="4", timeout_s=COMES_S)
        await show.frames(3)
        heard = [await reader.message() for _ in range(on_the_wire + 6)]
    kinds = [message["type"] for message in heard]
    assert kinds == ["video-frame"] * on_the_wire + ["alert"] * 5 + ["video-frame"]
    assert [message["message"] for message in heard if message["type"] == "alert"] == list("01234")
    assert show.check([message for message in heard if message["type"] == "video-frame"])[-1] == show.shown


# ── readers of every kind beside one who keeps up ────────────────────────────────────────────────────────────────

#: Number, size in bytes, and fragments of the frames. Those of one byte are so many that they do not fit on the wire.
FRAMES: Final = {
    "30 kB": (150, 30_000, 0),
    "one byte": (12_000, 1, 0),
    "a thousand fragments": (40, 30_000, 1000),
}


def median_latency(show: Show, first: int, last: int) -> float:
    return statistics.median(show.latencies(first, last))


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("how", ["reads 1 kB/s", "stops", "vanishes", "has a tiny buffer"])
async def test_whatever_a_reader_does_it_gets_the_newest_frame_and_its_neighbour_gets_them_all(
    served, clients, how, frames
):
    if how == "vanishes" and not can_vanish:
        pytest.skip("only Linux lets a socket drop what comes to it")
    number, size, fragments = FRAMES[frames]
    show = await Show.begin(served, clients)
    await show.frames(number // 5, size, fragments=fragments)
    alone = show.shown
    async with await show.reader(receive_buffer=1 if how == "has a tiny buffer" else 4096) as reader:
        last = alone + number
        reading: asyncio.Task[list[dict[str, Any]]] | None = None
        if how == "reads 1 kB/s":
            reader.bytes_per_s = 1_000
        if how == "vanishes":
            reader.vanish()
        if how in ("reads 1 kB/s", "has a tiny buffer"):
            reading = asyncio.create_task(read_frames(reader, last))
        await show.frames(number, size, fragments=fragments)
        slowed, usual = median_latency(show, alone + 1, last), median_latency(show, 1, alone)
        reader.bytes_per_s = None
        if how == "vanishes":
            reader.come_back()
        ids = show.check(await (reading or read_frames(reader, last)))
        assert ids[-1] == last
        if how != "has a tiny buffer":
            assert len(ids) < number, "all of it was on the wire: this reader was never slow"
        metrics = await show.settled(show.shown + number)
    assert metrics.get("frames_dropped_slow_total", 0) == number - len(ids)
    if slowed > 3 * usual + 0.05:  # a machine that became slower meanwhile is slow without the reader as well
        await show.frames(alone, size, fragments=fragments)
        usual = max(usual, median_latency(show, last + 1, show.shown))
    assert slowed <= 3 * usual + 0.05, "the neighbour's frames take longer"


@pytest.mark.parametrize("how", ["reads 1 kB/s", "stops"])
async def test_frames_of_16_mib_beside_a_slow_reader_reach_its_neighbour_and_a_byte_more_closes_the_camera(
    served, clients, how
):
    show = await Show.begin(served, clients)
    async with await show.reader(receive_buffer=4096) as reader:
        reader.bytes_per_s = 1_000
        reading = asyncio.create_task(read_frames(reader, 4)) if how == "reads 1 kB/s" else None
        limit = 16 * MIB - len(pack_frame(b""))
        show.pictures = {n: JPEG + bytes([n]) * (limit - len(JPEG)) for n in range(1, 5)}
        for n in range(1, 5):
            await show.camera.show_binary(show.pictures[n])
            await show.seen(n)
        metrics = await show.settled(4 + 3)
        assert metrics["frames_dropped_slow_total"] == 2
        await show.camera.show_binary(bytes(limit + 1))
        assert await show.camera.closed(COMES_S) == 1009
        reader.bytes_per_s = None
        assert show.check(await (reading or read_frames(reader, 4))) == [1, 4]


# ── no frame is lost without a reason ────────────────────────────────────────────────────────────────────────────


async def test_every_frame_that_anybody_was_to_get_was_sent_or_is_counted_with_its_reason(either, clients):
    number = 120
    show = await Show.begin(either, clients, format="json")
    url, token, stream = either.url, show.token, show.stream
    rarely, never_acks, wants_pictures = [await clients.viewer(url, token) for _ in range(3)]
    await rarely.subscribe(stream, maxFps=5)
    await never_acks.subscribe(stream, window=1)
    await wants_pictures.subscribe(stream, format="binary")
    stuck = await show.reader(receive_buffer=4096)
    screen = await Reader.connect(either.port, receive_buffer=4096)
    everybody = [show.neighbour, rarely, never_acks, wants_pictures, stuck, screen]
    async with all_leave([stuck, screen]):
        await screen.get(f"/streams/{stream}/mjpeg", token)
        for n in range(1, number + 1):
            await (show.camera.show("no base64 at all") if n % 10 == 0 else show.camera.show_binary(picture(n, 30_000)))
            await show.neighbour.frame(timeout_s=COMES_S, frameId=n)
            await asyncio.sleep(0.01)
        # One frame waits for the window at most, and one in each slot of those that do not read.
        await eventually(lambda: never_acks.frame_ids[-1:] == [number], COMES_S)
        metrics = await show.settled(len(everybody) * number - 2)
        for viewer in (rarely, never_acks, wants_pictures):
            await viewer.leave()
    await show.settled(len(everybody) * number)
    assert metrics["frames_dropped_rate_total"] == number - len(rarely.frames)
    assert metrics["frames_dropped_window_total"] == number - len(never_acks.frames)
    assert metrics["frames_dropped_undecodable_total"] >= number / 10
    assert len(wants_pictures.frames) == number - number / 10
    assert metrics["frames_dropped_slow_total"] > number
    assert (await show.since())["frames_dropped_gone_total"] == 2
    expected = {why: metrics[f"frames_dropped_{why}_total"] for why in ("rate", "window", "undecodable", "slow")}

    async def by_stream() -> bool:
        return await show.skipped() == {**expected, "gone": 2}

    await eventually(by_stream, COMES_S)
