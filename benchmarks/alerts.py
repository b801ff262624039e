"""What alerts cost, and what they cost frames: `python -m benchmarks.alerts`, in turns, as ratios of one run.

- **fan-out**: one alert to thousands of viewers, beside the publish of Bun (`systems.bun`) with messages of as many
  bytes: CPU of all processes of each, and when the last viewers had it.
- **beside**: how late frames are at a hundred viewers who get 500 alerts a second, and without these alerts.
- **replay**: thousands of viewers who connect at once and ask for the alerts of the last minute (`alertsSince`): CPU of
  all processes for each viewer, and how long until the last one has all.

Each alert has to come to each viewer once and in order; a run in which one does not fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import platform
import resource
import secrets
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import click
import uvloop

from benchmarks import meter
from benchmarks.clientwire import TEXT, Inbox, WebSocketInbox, message
from benchmarks.figures import percentile
from benchmarks.load.clients import HOST, Connection, RunRecord
from benchmarks.load.model import LoadFault, Plan
from benchmarks.systems import Failed, Missing, system
from benchmarks.systems import Options as SystemOptions
from tests.kit.clients import http
from tests.kit.processes import SERVICE_TOKEN, Watchout, running

STREAM: Final = "cam-alerts"
STREAM_ID: Final = STREAM.encode()
#: Most connections that are opened at once, where the opening itself is not measured.
AT_ONCE: Final = 64
#: How long is waited for what should have come.
GIVE_UP_S: Final = 60.0
#: Frames beside the alerts: as many as a phone sends, of 33 000 bytes.
FPS: Final = 15.0
DATA: Final = b"/9j/" + b"A" * 44_000
#: Alerts of one `POST /alerts`.
BURST: Final = 20
#: A camera's own alerts are limited to so many a second; the fan-out sends fewer.
FAN_OUT_EVERY_S: Final = 0.5
REGISTER: Final = {"type": "register", "clientType": "mobile", "streamId": STREAM, "produces": ["video-frame", "alert"]}
SUBSCRIBE: Final = {"type": "subscribe", "streamId": STREAM, "consumes": ["video-frame", "alert"], "lastFrame": False}
WATCHOUT_ENVIRON: Final = {
    "MAX_CONNECTIONS_PER_USER": "20000", "MAX_CONNECTIONS_PER_ADDRESS": "20000", "ALERT_COOLDOWN_S": "0",
}  # fmt: skip


@dataclass(slots=True)
class _Record:
    """A `RunRecord` for `Connection`: what it needs of a run of the load."""

    plan: Plan
    mask: bytes = field(default_factory=lambda: bytes(secrets.randbelow(255) + 1 for _ in range(4)))
    fault: str = ""

    def inbox(self, size: int) -> Inbox:
        return WebSocketInbox(size)

    def failed(self, why: str) -> None:
        self.fault = self.fault or why


class _Receiver(Connection):
    """A viewer that notes when each message of a kind came, by the number in it."""

    def __init__(self, record: _Record, kind: bytes, size: int) -> None:
        super().__init__(cast("RunRecord", record), "viewer", record.inbox(size))
        self._record = record
        self._kind = kind
        self.came: dict[int, float] = {}
        self.frames: dict[int, float] = {}

    def message(self, opcode: int, begin: int, end: int) -> None:
        buffer = self.inbox.buffer
        if opcode == TEXT and buffer.startswith(self._kind, begin):
            self._note(self.came, buffer, begin, end, b'"number":')
        elif opcode == TEXT and buffer.startswith(b'{"type":"video-frame"', begin):
            self._note(self.frames, buffer, begin, min(end, begin + 300), b'"timestamp":')
        else:
            super().message(opcode, begin, end)

    def _note(self, place: dict[int, float], buffer: bytearray, begin: int, end: int, name: bytes) -> None:
        at = buffer.find(name, begin, end) + len(name)
        number = int(bytes(buffer[at : at + 12]).split(b"}")[0].split(b",")[0])
        if place and number <= next(reversed(place)):
            self._record.failed(f"number {number} came after {next(reversed(place))}")
        place[number] = time.perf_counter()


async def _open(connections: Sequence[Connection], port: int, path: str, ask: dict[str, Any], at_once: int) -> None:
    """Connect all, sign in, and send `ask`."""
    loop, turn = asyncio.get_running_loop(), asyncio.Semaphore(at_once)

    async def one(connection: Connection) -> None:
        async with turn:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, (HOST, port))
            await loop.create_connection(lambda: connection, sock=sock)
            await connection.join(path)
            await connection.tell(**ask)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async with asyncio.timeout(GIVE_UP_S + 0.02 * len(connections)), asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(one(connection))


async def _until(record: _Record, condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        if record.fault:
            raise LoadFault(record.fault)
        if time.monotonic() > give_up:
            raise LoadFault(f"{what} within {GIVE_UP_S:g} s")
        await asyncio.sleep(0.01)
    if record.fault:
        raise LoadFault(record.fault)


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(meter.cpu_s(pid) for pid in meter.with_children(pids))


def _pids(started: Watchout) -> list[int]:
    return [process.pid for name in ("router", "gateway", "mlbridge") for process in started.named(name)]


@contextlib.asynccontextmanager
async def _watchout() -> AsyncIterator[Watchout]:
    with running(environ=WATCHOUT_ENVIRON, prefork=False) as started:
        yield started


def _record(token: str | None, port: int) -> _Record:
    return _Record(Plan(dialect="watchout", ports=(port,), token=token))


# ── fan-out ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class FanOut:
    """One system: CPU for each delivered alert in µs, and how late they were, in ms."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    bytes: int


async def _fanned_out(
    record: _Record,
    port: int,
    pids: Sequence[int],
    viewers: int,
    alerts: int,
    sent: Callable[[int], bytes],
    kind: bytes,
) -> FanOut:
    camera = _Receiver(record, b"\0", 4096)
    await _open([camera], port, "/streams/register", REGISTER, 1)
    receivers = [_Receiver(record, kind, 2048) for _ in range(viewers)]
    await _open(receivers, port, "/streams/subscribe", SUBSCRIBE, AT_ONCE)
    sent_at: dict[int, float] = {}
    cpu = 0.0
    for number in range(1, alerts + 2):
        if number == 2:  # the first one is a warm-up
            await asyncio.sleep(FAN_OUT_EVERY_S)
            cpu = _cpu_s(pids)
        sent_at[number] = time.perf_counter()
        camera.transport.write(message(TEXT, sent(number), record.mask))
        await _until(
            record,
            lambda number=number: all(number in each.came for each in receivers),  # type: ignore[misc]
            f"alert {number} did not come to all",
        )
        await asyncio.sleep(max(0.0, sent_at[number] + FAN_OUT_EVERY_S - time.perf_counter()))
    used = _cpu_s(pids) - cpu
    late = sorted(each.came[number] - sent_at[number] for each in receivers for number in range(2, alerts + 2))
    for connection in (camera, *receivers):
        connection.transport.abort()
    await asyncio.sleep(0.2)
    return FanOut(1e6 * used / (viewers * alerts), 1e3 * percentile(late, 0.5), 1e3 * percentile(late, 0.99), 0)


def _alert(number: int) -> bytes:
    told = {"type": "alert", "streamId": STREAM, "severity": "low", "message": f"a person at the door, {number:06}",
            "timestamp": 1_700_000_000_000 + number, "metadata": {"number": number}}  # fmt: skip
    return json.dumps(told, separators=(",", ":")).encode()


def _frame_of(size: int) -> Callable[[int], bytes]:
    """What Bun's relay passes on with as many bytes as an alert has, the number in it."""

    def made(number: int) -> bytes:
        head = b'{"type":"video-frame","streamId":"%b","number":%d,"data":"' % (STREAM_ID, number)
        return head + b"A" * max(0, size - len(head) - len(b'","frameId":1}') - 1) + b'"}'

    return made


async def fan_out(viewers: int, alerts: int, name: str) -> FanOut:
    """Measure one alert to so many viewers, on watchout or on Bun. Raises `LoadFault`, `Missing`."""
    if name == "watchout":
        async with _watchout() as started:
            record = _record(started.token(), started.port)
            return await _fanned_out(record, started.port, _pids(started), viewers, alerts, _alert, b'{"type":"alert"')
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        async with system("bun").started(Path(work), options=SystemOptions()) as bun:
            record = _record(bun.token, bun.ports[0])
            # An alert comes with an id and its sender's fields: as many bytes as `_alert` has, and 40.
            made = _frame_of(len(_alert(1)) + 40)
            return await _fanned_out(record, bun.ports[0], bun.pids, viewers, alerts, made, b'{"type":"video-frame"')


# ── frames beside alerts ─────────────────────────────────────────────────────────────────────────────────────────


async def _frames(
    started: Watchout, record: _Record, camera: Connection, receivers: Sequence[_Receiver],
    numbers: itertools.count[int], alerts: itertools.count[int], *, seconds: float, rate: float,
) -> tuple[list[float], float]:  # fmt: skip
    """How late each frame was at each viewer, in s, beside so many alerts a second; and CPU of all processes, in s."""
    sent_at: dict[int, float] = {}
    told = 0
    cpu = _cpu_s(_pids(started))
    begun = time.perf_counter()

    async def show() -> None:
        for turn in range(round(seconds * FPS)):
            await asyncio.sleep(begun + turn / FPS - time.perf_counter())
            number = next(numbers)
            sent_at[number] = time.perf_counter()
            text = b'{"type":"video-frame","streamId":"%b","data":"%b","timestamp":%d}' % (STREAM_ID, DATA, number)
            camera.transport.write(message(TEXT, text, record.mask))

    async def tell() -> None:
        nonlocal told
        for turn in range(round(seconds * rate / BURST)):
            await asyncio.sleep(begun + turn * BURST / rate - time.perf_counter())
            body = b"[%b]" % b",".join(_alert(next(alerts)) for _ in range(BURST))
            answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
            if answer.status not in (200, 202):
                raise LoadFault(f"POST /alerts was answered with {answer.status}")
            told += BURST

    before = [len(each.came) for each in receivers]
    await asyncio.gather(show(), *([tell()] if rate else []))
    await _until(
        record, lambda: all(number in each.frames for each in receivers for number in sent_at), "frames did not come"
    )
    await _until(
        record,
        lambda: all(len(each.came) - had == told for each, had in zip(receivers, before, strict=True)),
        "alerts did not come",
    )
    return [each.frames[number] - at for each in receivers for number, at in sent_at.items()], _cpu_s(
        _pids(started)
    ) - cpu


async def beside(viewers: int, rate: float, rounds: int, seconds: float) -> list[str]:
    """Measure frames without alerts and beside them, in turns. Raises `LoadFault`."""
    late: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, float] = {False: 0.0, True: 0.0}
    ratios: list[float] = []
    async with _watchout() as started:
        record = _record(started.token(), started.port)
        camera = _Receiver(record, b"\0", 4096)
        await _open([camera], started.port, "/streams/register", REGISTER, 1)
        receivers = [_Receiver(record, b'{"type":"alert"', 160_000) for _ in range(viewers)]
        await _open(receivers, started.port, "/streams/subscribe", SUBSCRIBE, AT_ONCE)
        numbers, alerts = itertools.count(1), itertools.count(1)
        await _frames(started, record, camera, receivers, numbers, alerts, seconds=1.0, rate=rate)
        for turn in range(rounds):
            p99: dict[bool, float] = {}
            for with_alerts in (False, True) if turn % 2 == 0 else (True, False):
                found, used = await _frames(
                    started, record, camera, receivers, numbers, alerts, seconds=seconds,
                    rate=rate if with_alerts else 0.0,
                )  # fmt: skip
                late[with_alerts] += found
                cpu[with_alerts] += used
                p99[with_alerts] = percentile(sorted(found), 0.99)
            ratios.append(p99[True] / p99[False])
        for connection in (camera, *receivers):
            connection.transport.abort()
        await asyncio.sleep(0.2)
    shown = [f"frames at {viewers} viewers beside {rate:g} alerts/s in bursts of {BURST}, and without:"]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        now, alone = (1e3 * percentile(sorted(late[each]), share) for each in (True, False))
        shown.append(f"  {name} of all: {now:.2f} ms, {alone:.2f} ms without: {now / alone:.2f}")
    shown.append(f"  p99 by round: {_spread(ratios)}")
    more_us = 1e6 * (cpu[True] - cpu[False]) / (rate * rounds * seconds * viewers)
    shown.append(f"  CPU of all processes: {more_us:.1f} µs for each delivered alert")
    return shown


# ── replay ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def replay(viewers: int, alerts: int) -> tuple[float, float, float]:
    """CPU for each viewer in ms, and until when half of them, and the last one, had all alerts, in s."""
    async with _watchout() as started:
        record = _record(started.token(), started.port)
        camera = _Receiver(record, b"\0", 4096)
        await _open([camera], started.port, "/streams/register", REGISTER, 1)
        since = int(time.time() * 1000) - 60_000
        told = [json.loads(_alert(number)) | {"timestamp": since + number} for number in range(1, alerts + 1)]
        for at in range(0, alerts, BURST):
            body = json.dumps(told[at : at + BURST]).encode()
            await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
        receivers = [_Receiver(record, b'{"type":"alert"', 64_000) for _ in range(viewers)]
        cpu, begun = _cpu_s(_pids(started)), time.perf_counter()
        ask = {"type": "subscribe", "streamId": STREAM, "consumes": ["alert"], "alertsSince": since}
        await _open(receivers, started.port, "/streams/subscribe", ask, viewers)
        await _until(
            record, lambda: all(len(each.came) == alerts for each in receivers), "not all alerts were replayed"
        )
        used = _cpu_s(_pids(started)) - cpu
        had_all = sorted(next(reversed(each.came.values())) - begun for each in receivers)
        for connection in (camera, *receivers):
            connection.transport.abort()
        await asyncio.sleep(0.2)
        return 1e3 * used / viewers, percentile(had_all, 0.5), had_all[-1]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


async def _measured(only: Sequence[str], rounds: int, viewers: int, seconds: float) -> None:
    if "fan-out" in only:
        found: dict[str, list[FanOut]] = {"watchout": [], "bun": []}
        for turn in range(rounds):
            for name in ("watchout", "bun") if turn % 2 == 0 else ("bun", "watchout"):
                one = await fan_out(viewers, 8, name)
                found[name].append(one)
                click.echo(
                    f"  {name}: {one.cpu_us:.2f} µs for each delivered alert, "
                    f"p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} ms"
                )
        both = list(zip(found["watchout"], found["bun"], strict=True))
        click.echo(f"one alert to {viewers} viewers, of Bun: CPU {_spread([a.cpu_us / b.cpu_us for a, b in both])}, "
                   f"p99 {_spread([a.p99_ms / b.p99_ms for a, b in both])}")  # fmt: skip
    if "beside" in only:
        for line in await beside(100, 500.0, rounds, seconds):
            click.echo(line)
    if "replay" in only:
        rows = [await replay(min(2000, viewers), 100) for _ in range(rounds)]
        click.echo(f"100 alerts replayed to {min(2000, viewers)} viewers who connect at once: "
                   f"CPU {_spread([row[0] for row in rows])} ms for each viewer, "
                   f"half had all after {_spread([row[1] for row in rows])} s, "
                   f"the last after {_spread([row[2] for row in rows])} s")  # fmt: skip


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--viewers", type=click.IntRange(10, 20_000), default=5000, show_default=True, help="Of the fan-out.")
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=4.0, show_default=True, help="Half a round of `beside`."
)
@click.option("--only", multiple=True, type=click.Choice(["fan-out", "beside", "replay"]))
def main(rounds: int, viewers: int, seconds: float, only: tuple[str, ...]) -> None:
    """Measure what alerts cost, and what they cost frames."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    click.echo(f"Python {platform.python_version()}, {rounds} rounds: median, least and greatest")
    try:
        uvloop.run(_measured(only or ("fan-out", "beside", "replay"), rounds, viewers, seconds))
    except (LoadFault, Missing, Failed) as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
