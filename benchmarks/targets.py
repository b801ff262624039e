"""Frames per second through each ML target, beside a bare loop over the same client library: `make bench-targets`.

Both show the same frames to the same service, which answers at once, with the same number of requests under way and the
same body made for each frame; the loop does nothing else: no answer is checked, nothing is bounded, no connection is
made anew. They run in turns, so that what the machine does meanwhile is in both; what counts is the ratio of a round.
Services and brokers are processes of their own, on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import msgspec
import nats
import uvloop
import zmq
import zmq.asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.micro import PICTURE, TOKEN
from benchmarks.systems import listening, process
from tests.kit.brokers import Broker
from tests.kit.ports import free_port
from watchout.common.media.frames import Frame
from watchout.common.settings import load
from watchout.mlbridge.targets import Target, TargetFailure, open_target
from watchout.mlbridge.targets.bodies import frame_headers, json_body, packed_body

ROOT: Final = Path(__file__).parent
RESULTS: Final = ROOT / "results" / "targets.json"
PAGE: Final = ROOT.parent / "docs" / "targets.md"
BEGIN, END = "<!-- benchmark: generated, see benchmarks/targets.py -->", "<!-- end of benchmark -->"
#: Frames under way at once, each of a stream of its own.
UNDER_WAY: Final = 4
GOAL: Final = 0.8
FRAMES: Final = "video-frames"
ALERTS: Final = "ml-alerts"

#: Shows one frame and returns when the service is done with it.
Show = Callable[[Frame], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to a service. `service`: what `serve_kind` runs; None: a sink of HTTP. `bare`: the loop's own client."""

    name: str
    library: str
    scheme: str
    bare: Callable[[str], Any]
    service: str | None = None
    broker: str | None = None
    settings: tuple[tuple[str, str], ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One kind: frames per second of target and loop, and their ratio; median, least and greatest of the rounds."""

    name: str
    library: str
    target_fps: tuple[float, float, float]
    bare_fps: tuple[float, float, float]
    ratio: tuple[float, float, float]


# ── the loops ────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def bare_http(url: str, *, raw: bool = False) -> AsyncIterator[Show]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=UNDER_WAY)) as session:

        async def show(frame: Frame) -> None:
            body = frame.picture if raw else json_body(frame)
            headers = frame_headers(frame) if raw else {"Content-Type": "application/json"}
            async with session.post(f"{url}/analyze", data=body, headers=headers) as response:
                await response.json()

        yield show


def bare_http_raw(url: str) -> Any:
    return bare_http(url, raw=True)


@asynccontextmanager
async def bare_websocket(url: str) -> AsyncIterator[Show]:
    waiting: dict[int, asyncio.Future[None]] = {}
    async with connect(url, compression=None, proxy=None) as connection:

        async def read() -> None:
            async for message in connection:
                waiting.pop(json.loads(message)["frameId"]).set_result(None)

        reader = asyncio.create_task(read())

        async def show(frame: Frame) -> None:
            waiting[frame.frame_id] = answer = asyncio.get_running_loop().create_future()
            await connection.send(json_body(frame), text=True)
            await answer

        try:
            yield show
        finally:
            reader.cancel()
            await asyncio.wait({reader})


@asynccontextmanager
async def bare_redis(url: str) -> AsyncIterator[Show]:
    waiting: dict[int, asyncio.Future[None]] = {}
    async with Redis.from_url(url) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(ALERTS)

        async def read() -> None:
            async for message in pubsub.listen():
                if message["type"] != "message":
                    continue
                answer = waiting.pop(json.loads(message["data"])["frameId"], None)
                if answer is not None:  # the target's answers come on the same channel
                    answer.set_result(None)

        reader = asyncio.create_task(read())

        async def show(frame: Frame) -> None:
            waiting[frame.frame_id] = answer = asyncio.get_running_loop().create_future()
            await client.publish(FRAMES, json_body(frame))
            await answer

        try:
            yield show
        finally:
            reader.cancel()
            await asyncio.wait({reader})


@asynccontextmanager
async def bare_redis_streams(url: str) -> AsyncIterator[Show]:
    async with Redis.from_url(url) as client:

        async def show(frame: Frame) -> None:
            fields: dict[Any, Any] = {
                "streamId": frame.stream_id, "frameId": frame.frame_id, "timestamp": frame.timestamp,
                "frame": frame.picture,
            }  # fmt: skip
            await client.xadd(FRAMES, fields, maxlen=100, approximate=True)

        yield show


@asynccontextmanager
async def bare_nats(url: str) -> AsyncIterator[Show]:
    client = await nats.connect(url)

    async def show(frame: Frame) -> None:
        await client.request(FRAMES, packed_body(frame), timeout=10)

    try:
        yield show
    finally:
        await client.close()


@asynccontextmanager
async def bare_zeromq(url: str) -> AsyncIterator[Show]:
    context = zmq.asyncio.Context()
    push = context.socket(zmq.PUSH)
    push.setsockopt(zmq.SNDHWM, 2)
    push.setsockopt(zmq.SNDBUF, 256 << 10)
    push.connect(url)

    async def show(frame: Frame) -> None:
        await push.send(packed_body(frame))

    try:
        yield show
    finally:
        context.destroy(linger=0)


KINDS: Final = (
    Kind("HTTP, JSON", "aiohttp", "http", bare_http),
    Kind("HTTP, raw JPEG", "aiohttp", "http", bare_http_raw, settings=(("ML_HTTP_FORMAT", "raw"),)),
    Kind("WebSocket", "websockets", "ws", bare_websocket, "websocket"),
    Kind("Redis pub/sub", "redis", "redis", bare_redis, "redis", "valkey"),
    Kind("Redis Streams", "redis", "redis", bare_redis_streams, None, "valkey", (("ML_REDIS_MODE", "streams"),)),
    Kind("NATS", "nats-py", "nats", bare_nats, "nats", "nats"),
    Kind("ZeroMQ", "pyzmq", "tcp", bare_zeromq, "zeromq"),
)


# ── services that answer at once ─────────────────────────────────────────────────────────────────────────────────


def answer_to(data: bytes | str) -> str:
    """The answer of a service that saw nothing; it reads no more of the frame than which one it is."""
    text = data if isinstance(data, str) else data.decode()
    number = text.rpartition('"frameId":')[2].rstrip("}")
    stream = text.partition('"streamId":"')[2].partition('"')[0]
    return f'{{"streamId":"{stream}","frameId":{number},"alerts":[]}}'


#: What a service prints when the broker has its subscription.
SUBSCRIBED: Final = "subscribed"


async def serve_kind(service: str, url: str) -> None:
    """Run one service until the process is ended."""
    match service:
        case "websocket":

            async def each(connection: ServerConnection) -> None:
                async for message in connection:
                    await connection.send(answer_to(message))

            port = int(url.rpartition(":")[2])
            async with serve(each, "127.0.0.1", port, compression=None, max_size=16 << 20):
                await asyncio.Event().wait()
        case "redis":
            async with Redis.from_url(url) as client, client.pubsub() as pubsub:
                await pubsub.subscribe(FRAMES)
                async for message in pubsub.listen():
                    if message["type"] == "subscribe":
                        print(SUBSCRIBED, flush=True)
                    if message["type"] == "message":
                        await client.publish(ALERTS, answer_to(message["data"]))
        case "nats":
            nc = await nats.connect(url)

            async def reply(message: Any) -> None:
                await message.respond(b"\x80")

            await nc.subscribe(FRAMES, cb=reply)
            await nc.flush()
            print(SUBSCRIBED, flush=True)
            await asyncio.Event().wait()
        case "zeromq":
            context = zmq.asyncio.Context()
            pull = context.socket(zmq.PULL)
            pull.bind(url)
            while True:
                await pull.recv()


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────


_numbers: Final = itertools.count(1)


async def fps_of(show: Show, seconds: float) -> float:
    """Frames per second with `UNDER_WAY` at once. The frames come as the bus brings them, each as the camera's text.

    A frame that fails, because there is no connection yet for example, does not count; at least one does.
    """
    until = time.perf_counter() + seconds
    shown = 0

    async def worker(stream: str) -> None:
        nonlocal shown
        while not shown or time.perf_counter() < until:
            with contextlib.suppress(TargetFailure):
                await show(Frame(stream, next(_numbers), 1_790_000_000_000, text=TOKEN))
                shown += 1

    began = time.perf_counter()
    async with asyncio.timeout(seconds + 20):
        await asyncio.gather(*(worker(f"cam-{n}") for n in range(UNDER_WAY)))
    return shown / (time.perf_counter() - began)


def subscribed(log: Path) -> None:
    """Block until a service says that it has its subscription. Raises `TimeoutError` when it does not within 60 s."""
    for _ in range(3000):
        if SUBSCRIBED in log.read_text():
            return
        time.sleep(0.02)
    raise TimeoutError(f"the service does not subscribe: {log.read_text()}")


async def measure(kind: Kind, rounds: int, seconds: float) -> Row:
    """One kind, target and loop in turns."""
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = free_port()
        url = f"{kind.scheme}://127.0.0.1:{port}"
        if kind.broker is not None:
            broker = Broker(kind.broker)
            stack.callback(broker.remove)
            await asyncio.to_thread(broker.start)
            url = broker.url
        if kind.scheme == "http":
            argv = [sys.executable, "-m", "benchmarks.sink", str(port)]
        else:
            argv = [sys.executable, "-m", "benchmarks.targets", "--serve", str(kind.service), url]
        if kind.service is not None or kind.scheme == "http":
            log = work / "service.log"
            child = await stack.enter_async_context(process(argv, log=log, cwd=ROOT.parent))
            if kind.broker is None:
                await listening(port, child, log)
            else:
                await asyncio.to_thread(subscribed, log)  # it has no port of its own to look at
        settings = load({"ML_SERVICE_URL": url, "ML_IN_FLIGHT": str(UNDER_WAY), **dict(kind.settings)})
        target: Target | None = open_target(settings)
        assert target is not None
        await target.open(lambda _: None)
        stack.push_async_callback(target.close)
        bare: Show = await stack.enter_async_context(kind.bare(url))
        ours: list[float] = []
        theirs: list[float] = []
        for show in (target.analyse, bare):
            await fps_of(show, seconds / 2)
        for number in range(rounds):
            pairs: list[tuple[Show, list[float]]] = [(target.analyse, ours), (bare, theirs)]
            for show, found in pairs if number % 2 == 0 else reversed(pairs):
                found.append(await fps_of(show, seconds))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Row(kind.name, kind.library, spread(ours), spread(theirs), spread(ratios))


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, least, greatest."""
    return statistics.median(values), min(values), max(values)


def page(rows: list[Row], command: str, seconds: float, rounds: int) -> str:
    """The section of the benchmark in docs/targets.md, in Markdown."""
    lines = [
        "Written by the benchmark: " + (__doc__ or "").partition("\n\n")[2].strip().replace("\n", " "),
        "",
        f"Command: `{command}`, {rounds} rounds of {seconds:g} s each, Python {platform.python_version()},",
        f"a picture of {len(PICTURE)} bytes, {UNDER_WAY} frames under way. Median, with the least and the greatest.",
        "Frames per second belong to this machine and hour; the ratio travels better.",
        "",
        "| target | library | frames/s | bare loop | ratio | goal |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        reached = "reached" if row.ratio[0] >= GOAL else "**not reached**"
        lines.append(
            f"| {row.name} | {row.library} | {row.target_fps[0]:.0f} | {row.bare_fps[0]:.0f} "
            f"| {row.ratio[0]:.2f} ({row.ratio[1]:.2f} to {row.ratio[2]:.2f}) | ≥ {GOAL:g}: {reached} |"
        )
    return "\n".join(lines)


def with_benchmark(text: str, section: str) -> str:
    """The text of docs/targets.md with a new section of the benchmark."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Of each turn.")
@click.option("--only", multiple=True, help="Kinds by name; all without it.")
@click.option("--report/--no-report", default=True, help="Write results and page.")
@click.option("--serve", nargs=2, hidden=True)
def main(rounds: int, seconds: float, only: tuple[str, ...], report: bool, serve: tuple[str, str] | None) -> None:
    """Measure each target against a bare loop."""
    if serve:
        uvloop.run(serve_kind(*serve))
        return
    chosen = [kind for kind in KINDS if not only or kind.name in only]
    if not chosen:
        raise click.UsageError(f"--only names none of: {', '.join(kind.name for kind in KINDS)}")
    rows = []
    for kind in chosen:
        rows.append(row := uvloop.run(measure(kind, rounds, seconds)))
        click.echo(f"{row.name:16} {row.target_fps[0]:7.0f} of {row.bare_fps[0]:7.0f} frames/s: {row.ratio[0]:.2f}")
    if report:
        command = "python -m benchmarks.targets"
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        PAGE.write_text(with_benchmark(PAGE.read_text(), page(rows, command, seconds, rounds)))


if __name__ == "__main__":
    main()
