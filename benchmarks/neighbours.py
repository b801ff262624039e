"""What one costs others, as ratios in one run: `python -m benchmarks.neighbours`.

- **registrations**: a registration at the router with 100 000 streams ended that day, beside one with 100; in turns,
  CPU time of the thread.
- **alerts**: how late a user's frames are beside a sender of alerts at his limit, with metadata as nasty as is allowed,
  and without him; on the real processes, in turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import platform
import time
from collections.abc import AsyncIterator
from typing import Final

import click
import uvloop

from benchmarks.micro import Call, Case, duration, measure
from tests.kit.clients import Camera, Clients, Viewer, new_name
from tests.kit.processes import Watchout, running
from watchout.common.alerts.model import MAX_METADATA_BYTES, MAX_METADATA_VALUES
from watchout.common.bus.messages import Claim, PublicationState, Release
from watchout.common.settings import Settings
from watchout.router.streams.registry import Streams

FEW: Final = 100
MANY: Final = 100_000
MEMBER: Final = b"gateway1"
#: The neighbour's frames: as many as a phone sends, of 33 000 bytes.
FPS: Final = 30.0
DATA: Final = "/9j/" + "A" * 44_000
#: Sockets of the sender of alerts.
SENDERS: Final = 4


# ── registrations ────────────────────────────────────────────────────────────────────────────────────────────────


def _registrations(ended: int) -> Call:
    """Registers a stream and lets it go, where so many have ended; each time another one."""
    streams = Streams(1, max_streams=20_000, reserved_per_user=ended, reserved_max=ended)
    numbers = itertools.count()

    def call() -> None:
        number = next(numbers)
        name, user, now = f"stream_{number}", f"user{number % 50}", number / 1000
        *_, granted = streams.claim(MEMBER, Claim(request=1, stream=name, user=user, producing=True), now, number)
        term: int = granted.body.term  # type: ignore[union-attr]
        hold = PublicationState(
            stream=name, user=user, term=term, status="streaming", producing=True, wants_alerts=False, frame_id=0,
            total_frames=0, fps=0.0, started_at=number,
        )  # fmt: skip
        streams.set_publication(MEMBER, hold, number)
        streams.release(MEMBER, Release(stream=name, term=term, frame_id=1), now, number)
        if number % 1000 == 0:
            for _ in streams.take_changes():
                pass

    for _ in range(ended):
        call()
    return call


class _Registrations(Case):
    """The yardstick is the same with few streams ended."""

    __slots__ = ()

    @property
    def yardstick(self) -> str:
        return f"with {FEW} streams ended"

    def make_yardstick(self) -> Call:
        return _registrations(FEW)


def registrations(rounds: int) -> str:
    """One line: the cost of a registration, and its ratio."""
    case = _Registrations(f"registration with {MANY} streams ended", lambda: _registrations(MANY))
    row = measure(case, rounds, 0.05)
    low, high = row.ratio[1:]
    return (
        f"{row.name}: {duration(row.ns[0])}, {row.ratio[0]:.2f} ({low:.2f}–{high:.2f}) of that {row.yardstick}, "
        f"{duration(row.yardstick_ns[0])}"
    )


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def nasty_metadata() -> dict[str, object]:
    """As many values as are allowed, as many bytes as are allowed."""
    values: list[object] = [{} for _ in range(MAX_METADATA_VALUES - 3)]
    spare = MAX_METADATA_BYTES - len(json.dumps({"a": values, "b": ""}, separators=(",", ":")))
    return {"a": values, "b": "x" * spare}


async def _round(camera: Camera, viewer: Viewer, seconds: float) -> list[float]:
    """How late each frame of the camera was at the viewer, in ms."""
    loop = asyncio.get_running_loop()
    first, due, sent = len(viewer.heard), loop.time(), []
    until = due + seconds
    while due < until:
        sent.append(time.monotonic())
        await camera.show(DATA, timestamp=len(sent))
        due += 1 / FPS
        await asyncio.sleep(due - loop.time())
    async with asyncio.timeout(30):
        while len([m for m in viewer.heard[first:] if m["type"] == "video-frame"]) < len(sent):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    came = {m["timestamp"]: at for m, at in zip(viewer.heard[first:], viewer.heard_at[first:], strict=True)
            if m["type"] == "video-frame"}  # fmt: skip
    return [(came[number] - at) * 1000 for number, at in enumerate(sent, 1)]


@contextlib.asynccontextmanager
async def _sender(started: Watchout, clients: Clients, rate: float) -> AsyncIterator[list[int]]:
    """A user who sends alerts a little over the rate, over several sockets; what he yields counts them."""
    cameras: list[Camera] = []
    for _ in range(SENDERS):
        camera = await clients.camera(started.url, started.token("mallory"))
        await camera.register(new_name(), produces=["video-frame", "alert"], consumes=["alert"])
        cameras.append(camera)
    message = json.dumps({"type": "alert", "severity": "low", "message": "x", "metadata": nasty_metadata()})
    sent = [0]

    async def send() -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for camera in itertools.cycle(cameras):
            await camera.connection.send(message)
            sent[0] += 1
            due += 1 / (rate * 1.02)
            await asyncio.sleep(due - loop.time())

    task = asyncio.create_task(send())
    try:
        yield sent
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for camera in cameras:
            await camera.leave()


async def _alerts(rounds: int, seconds: float) -> tuple[list[list[float]], list[list[float]], float]:
    """How late frames were in each round, in ms, without the sender and beside him; alerts per second that he sent."""
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    alerts = 0
    rate = Settings().alert_rate
    with running(gateways=2, prefork=False) as started:
        clients = Clients()
        camera = await clients.camera(started.url, started.token("ann"))
        viewer = await clients.viewer(started.url, started.token("ann"))
        await viewer.subscribe(await camera.register(new_name()))
        await _round(camera, viewer, 1.0)
        for turn in range(rounds):
            for beside in (False, True) if turn % 2 == 0 else (True, False):
                async with contextlib.AsyncExitStack() as stack:
                    sent = await stack.enter_async_context(_sender(started, clients, rate)) if beside else [0]
                    found[beside].append(await _round(camera, viewer, seconds))
                    alerts += sent[0]
        await clients.close()
    return found[False], found[True], alerts / rounds / seconds


def alerts(rounds: int, seconds: float) -> str:
    """Lines: p50 and p99 without and beside the sender, and their ratio."""
    without, beside, rate = uvloop.run(_alerts(rounds, seconds))
    lines = [f"beside {rate:.0f} alerts/s of {MAX_METADATA_VALUES} values and {MAX_METADATA_BYTES} bytes:"]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        # Of all frames together: of the few of one round, a 99th percentile is what else the machine did.
        now, alone = (_percentile([late for each in turns for late in each], share) for turns in (beside, without))
        lines.append(f"frames of others, {name}: {now:.2f} ms, {alone:.2f} ms without: {now / alone:.2f}")
    return "\n".join(lines)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=6.0, show_default=True, help="For one half of a round."
)
@click.option("--only", type=click.Choice(["registrations", "alerts"]))
def main(rounds: int, seconds: float, only: str | None) -> None:
    """Measure what registrations and alerts cost others."""
    click.echo(f"Python {platform.python_version()}, {rounds} rounds: median, least and greatest")
    if only != "alerts":
        click.echo(registrations(rounds))
    if only != "registrations":
        click.echo(alerts(rounds, seconds))


if __name__ == "__main__":
    main()
