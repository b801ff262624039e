"""What the latency ledger costs a gateway: `python -m benchmarks.ledger`.

One camera and its viewers, by default 1→50 at 15 frames a second, as JSON with 33 kB pictures and true timestamps.

- **whole gateways** with the ledger and without it take turns under the same load; compared is the CPU time per frame
  that a viewer got, by the kernel's own books. The machine's noise is in these figures.
- **delivery alone** in one process, with sockets that write nowhere: the time that the ledger adds to a frame, which
  is little beside the noise of a whole gateway, as a share of what a frame costs that gateway.
"""

from __future__ import annotations

import asyncio
import os
import platform
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pybase64
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import meter
from benchmarks.micro import PICTURE
from benchmarks.systems import Failed, Missing, Options, Running
from benchmarks.systems.watchout import Watchout
from watchout.common.bus.messages import StreamStatus
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.media.frames import Frame
from watchout.gateway import wire
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.latency.recorder import LatencyRecorder
from watchout.gateway.model import Owner, StreamState
from watchout.identity import Identity

SCRIPTS: Final = Path(sys.executable).parent
#: The same gateway, whose hub is given no ledger: nothing is sampled, nobody is pinged.
WITHOUT: Final = """#!{python}
from watchout.gateway.hub.registry import Hub

made = Hub.__init__


def without(self, **given):
    made(self, **{{**given, "latency": None}})


Hub.__init__ = without
from watchout.gateway.app import main

main()
"""
MESSAGE: Final = '{"type":"video-frame","data":"%s","timestamp":%d}'
#: Rounds of the delivery alone, and frames of each.
ROUNDS: Final = 15
FRAMES: Final = 3_000
STREAMING: Final[StreamStatus] = "streaming"


@dataclass(frozen=True, slots=True)
class Load:
    """One camera and its viewers, for so many seconds after a warm-up."""

    viewers: int
    fps: float
    seconds: float
    warm_up_s: float = 3.0


def scripts_without(folder: Path) -> Path:
    """Make console scripts of which the gateway has no ledger; the others are those of this environment."""
    for name in ("router", "mlbridge", "ctl"):
        (folder / f"watchout-{name}").symlink_to(SCRIPTS / f"watchout-{name}")
    gateway = folder / "watchout-gateway"
    gateway.write_text(WITHOUT.format(python=sys.executable))
    gateway.chmod(gateway.stat().st_mode | stat.S_IXUSR)
    return folder


async def cpu_us_per_frame(scripts: Path, load: Load) -> float:
    """CPU time of the gateway for each frame that a viewer got, in µs. Raises `Missing` and `Failed`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        async with Watchout(scripts).started(Path(work), options=Options()) as running:
            return await _under_load(running, load)


async def _under_load(running: Running, load: Load) -> float:
    url, gateway = f"ws://127.0.0.1:{running.ports[0]}", running.pids[2]
    received = 0

    async def sign_in(path: str, ask: str) -> ClientConnection:
        client = await stack.enter_async_context(connect(f"{url}{path}", compression=None, max_size=None))
        await client.send(f'{{"type":"auth","token":"{running.token}"}}')
        await client.recv()
        await client.send(ask)
        await client.recv()
        return client

    async def view(client: ClientConnection) -> None:
        nonlocal received
        async for _ in client:
            received += 1

    async def show(client: ClientConnection) -> None:
        picture, due = pybase64.b64encode(PICTURE).decode(), time.monotonic()
        while True:
            await client.send(MESSAGE % (picture, time.time() * 1000))
            due += 1 / load.fps
            await asyncio.sleep(due - time.monotonic())

    async with AsyncExitStack() as stack:
        camera = await sign_in(
            "/streams/register", '{"type":"register","streamId":"cam","produces":["video-frame"],"window":4}'
        )
        ask = '{"type":"subscribe","streamId":"cam","consumes":["video-frame","alert"]}'
        viewers = [await sign_in("/streams/subscribe", ask) for _ in range(load.viewers)]
        tasks = [asyncio.create_task(view(client)) for client in (*viewers, camera)]
        tasks.append(asyncio.create_task(show(camera)))
        try:
            await asyncio.sleep(load.warm_up_s)
            before, cpu = received, meter.cpu_s(gateway)
            await asyncio.sleep(load.seconds)
            used, got = meter.cpu_s(gateway) - cpu, received - before
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if got < 0.8 * load.viewers * load.fps * load.seconds:
        raise Failed(f"{got} frames came, of {load.viewers * load.fps * load.seconds:.0f}: the load is too slow")
    return 1e6 * used / got


class _Nowhere:
    """A publisher and a viewer whose socket takes everything."""

    def send_message(self, message: bytes) -> None:
        """It writes nowhere."""

    def send_ping(self, data: bytes) -> None:
        """It answers nothing."""

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:  # noqa: ARG002 - as a viewer
        """It is written directly from its second frame on."""
        subscription.last_frame_id = frame.frame_id

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """It writes nowhere."""

    def on_permission_lost(self, stream: str) -> None:
        """It is never lost."""

    def on_taken_over(self, stream: str) -> None:
        """It never is."""


def _nowhere(_message: bytes) -> None:
    """Take a frame."""


async def delivery_ns(load: Load, *, measured: bool) -> float:
    """CPU time of the delivery of one frame to all viewers, without their sockets, in ns."""
    recorder = LatencyRecorder(LatencyLedger(Objectives(1000.0, 1000.0))) if measured else None
    hub = Hub(wake=_ignore, to_bus=_ignore, to_members=_ignore, latency=recorder)
    now, message = time.monotonic(), wire.text_message(b'{"data":"%b"}' % pybase64.b64encode(PICTURE))
    publication = hub.publish(
        "cam", Owner("ann"), _Nowhere(), term=1, first_frame_id=1, producing=True, wants_alerts=False, now=now,
        now_ms=int(time.time() * 1000),
    )  # fmt: skip
    identity = Identity(user_id="ann")
    subscriptions = [Subscription("cam", identity, video=True, alerts=True) for _ in range(load.viewers)]
    for subscription in subscriptions:
        hub.subscribe(subscription, _Nowhere(), StreamState(STREAMING, Owner("ann"), 1), now, 0)

    def frame(number: int) -> None:
        at = now + number / load.fps
        stamp = int(time.time() * 1000) + int(1000 * number / load.fps) - 40
        hub.delivery.on_plain_frame(
            publication, message, message.index(b'":"') + 3, len(message) - 2, stamp, -1, b"", at, stamp + 40
        )

    frame(0)
    for subscription in subscriptions:
        hub.delivery.start_direct_writes(subscription, _nowhere)
    clock = publication.camera_clock.offset
    if measured:  # as after the first pongs: its clock is known
        for at in (0.0, 1_500.0):
            clock.on_frame(int(at), at + 1, at)
    began = time.process_time_ns()
    for number in range(1, FRAMES + 1):
        frame(number)
    return (time.process_time_ns() - began) / FRAMES


def _ignore(*_: object) -> None:
    """Take what is not measured."""


async def _measured(load: Load, rounds: int) -> list[str]:
    said: list[str] = []
    alone = {True: [], False: []}  # type: dict[bool, list[float]]
    for number in range(ROUNDS):
        for measured in (True, False) if number % 2 else (False, True):
            alone[measured].append(await delivery_ns(load, measured=measured))
    added_ns = statistics.median(alone[True]) - statistics.median(alone[False])
    said.append(
        f"delivery of a frame to {load.viewers} viewers without their sockets: {statistics.median(alone[True]):.0f} ns "
        f"with the ledger, {statistics.median(alone[False]):.0f} ns without: {added_ns:.0f} ns more"
    )
    whole = {True: [], False: []}  # type: dict[bool, list[float]]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        places = {True: SCRIPTS, False: scripts_without(Path(folder))}
        for number in range(rounds):
            for measured in (True, False) if number % 2 else (False, True):
                whole[measured].append(await cpu_us_per_frame(places[measured], load))
            said.append(f"round {number + 1}: {whole[True][-1]:.2f} µs with, {whole[False][-1]:.2f} µs without")
    if not rounds:
        return said
    ratios = sorted(a / b for a, b in zip(whole[True], whole[False], strict=True))
    said.append(
        f"whole gateways, CPU for each frame that a viewer got: {statistics.median(whole[True]):.2f} µs with, "
        f"{statistics.median(whole[False]):.2f} µs without; ratio {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f}–{ratios[-1]:.3f} over {rounds} rounds)"
    )
    frame_us = load.viewers * statistics.median(whole[False])
    said.append(f"what the ledger adds to the delivery, of what a frame costs: {added_ns / 10 / frame_us:.2f} %")
    return said


@click.command()
@click.option("--viewers", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--fps", type=click.FloatRange(1, 60), default=15.0, show_default=True)
@click.option("--rounds", type=click.IntRange(0, 50), default=6, show_default=True, help="Of whole gateways; 0: none.")
@click.option("--seconds", type=click.FloatRange(1, 120), default=8.0, show_default=True)
def main(viewers: int, fps: float, rounds: int, seconds: float) -> None:
    """Say what the latency ledger costs."""
    click.echo(f"Python {platform.python_version()}, {os.cpu_count()} cores, 1→{viewers} at {fps:g} frames a second")
    try:
        lines: Sequence[str] = uvloop.run(_measured(Load(viewers, fps, seconds), rounds))
    except (Failed, Missing) as fault:
        raise click.ClickException(str(fault)) from None
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
