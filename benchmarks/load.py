"""The load: cameras and viewers of one run, in a process of its own (`python -m benchmarks.load`).

Takes a `Plan` as JSON on standard input, gives its result as JSON on standard output, and says on standard error when
the measured time begins and ends (`MARKS`). Cameras keep to their schedule whatever the server does (open loop).
Every frame that comes is compared with what was sent, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import secrets
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import pybase64
import uvloop

from benchmarks.clientwire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Inbox,
    LengthInbox,
    WebSocketInbox,
    WireFault,
    check_upgraded,
    header,
    masked,
    message,
    upgrade,
)
from benchmarks.figures import percentile

HOST: Final = "127.0.0.1"
DATA: Final = Path(__file__).parent / "data"
MARKS: Final = ("before", "start", "stop", "idle")

#: Cameras whose socket takes no more than this leave frames out, and say so.
MAX_UNSENT_BYTES: Final = 8 * 1024 * 1024
#: After the last frame was sent, what is still under way may take this long.
GRACE_S: Final = 2.0
SETUP_S: Final = 30.0
SETUP_PER_CONNECTION_S: Final = 0.01
#: Connections that are set up at once.
AT_ONCE: Final = 64
SLOW_TICK_S: Final = 0.01
#: The timer that wakes the cameras is not finer than this.
FINEST_TICK_S: Final = 0.000_25
SPARE_FILES: Final = 200
IDLE_BUFFER_BYTES: Final = 4096
#: Buffers of so many viewers at most hold several messages.
FEW_VIEWERS: Final = 200


class LoadFault(Exception):
    """The run is worth nothing: a server that refused, closed, or sent what it may not send."""


class Slow(msgspec.Struct, forbid_unknown_fields=True):
    """Viewers of stream 0 beside the others that read slowly."""

    viewers: int
    bytes_per_s: float
    receive_buffer_bytes: int = 16 * 1024


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """One run. Cameras connect to `ports[0]`, viewers to `ports[-1]`."""

    dialect: Literal["watchout", "nchan", "raw"]
    ports: tuple[int, ...]
    token: str | None = None
    format: Literal["json", "binary"] = "json"
    streams: int = 0
    viewers_per_stream: int = 1
    fps: float = 1.0
    warmup_s: float = 1.0
    duration_s: float = 2.0
    slow: Slow | None = None
    idle: int = 0
    settle_s: float = 2.0


# The messages


class Envelope(msgspec.Struct):
    """A frame as JSON, without its picture."""

    type: str
    streamId: str  # noqa: N815 - the protocol's word
    data: str
    timestamp: int
    frameId: int = 0  # noqa: N815


_envelope = msgspec.json.Decoder(Envelope)
_BINARY_HEAD: Final = struct.Struct(">BBBBIQBB")
_BEFORE_DATA: Final = b'"data":"'
#: The data of a JSON frame begins within so many bytes.
_ENVELOPE_BYTES: Final = 400


class Corrupt(Exception):
    """A received frame is not one that was sent."""


class Messages:
    """The frames of one run as bytes: what cameras write, and how viewers know them again.

    Frame n of a stream carries picture n modulo their number and the timestamp `base` + n.
    """

    def __init__(self, plan: Plan, pictures: Sequence[bytes], *, base: int, mask: bytes) -> None:
        self._json = plan.format == "json"
        self._raw = plan.dialect == "raw"
        self._base = base
        self._mask = mask
        self.ids = [f"cam-{i:05}" for i in range(max(1, plan.streams))]
        self.opcode = TEXT if self._json else BINARY
        if self._json:
            self._bodies = [pybase64.b64encode(picture) for picture in pictures]
            self._heads = [b'{"type":"video-frame","streamId":"%b",%b' % (i.encode(), _BEFORE_DATA) for i in self.ids]
        else:
            self._bodies = list(pictures)
            self._heads = [_BINARY_HEAD.pack(0x57, 1, 1, 0, 0, base, 1, len(i.encode())) + i.encode() for i in self.ids]
        self._head_bytes = len(self._heads[0])
        # All heads are equally long, so one masked body serves every stream.
        self._masked = self._bodies if self._raw else [masked(b, mask, self._head_bytes) for b in self._bodies]
        self._tail_bytes = len(self._tail(0))
        self._starts = [[self._start(head, body) for body in self._bodies] for head in self._heads]
        self.largest_bytes = self._head_bytes + self._tail_bytes + max(len(b) for b in self._bodies)

    def _tail(self, n: int) -> bytes:
        return b'","timestamp":%d}' % (self._base + n) if self._json else b""

    def _start(self, head: bytes, body: bytes) -> bytes:
        length = len(head) + len(body) + self._tail_bytes
        if self._raw:
            return length.to_bytes(4, "big") + head
        return header(self.opcode, length, self._mask) + masked(head, self._mask)

    def pieces(self, stream: int, n: int) -> tuple[bytes, ...]:
        """Frame n of a stream, to be written one piece after the other."""
        k = n % len(self._bodies)
        start, body, tail = self._starts[stream][k], self._masked[k], self._tail(n)
        at = self._head_bytes + len(body)
        if self._json:
            return start, body, tail if self._raw else masked(tail, self._mask, at)
        stamp = (self._base + n).to_bytes(8, "big")
        cut = len(start) - self._head_bytes + 8
        return start[:cut] + (stamp if self._raw else masked(stamp, self._mask, 8)) + start[cut + 8 :], body

    def known(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        """(n, frameId) of the frame that stands there, wholly compared; None: it is no frame. Raises `Corrupt`.

        `guess` is the n that is likely; a wrong one costs time only.
        """
        return (self._known_json if self._json else self._known_binary)(buffer, begin, end, stream, guess)

    def _known_json(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        at = buffer.find(_BEFORE_DATA, begin, min(end, begin + _ENVELOPE_BYTES))
        if at < 0:
            return None
        at += len(_BEFORE_DATA)
        k = self._picture(buffer, at, end, guess)
        try:
            envelope = _envelope.decode(buffer[begin:at] + buffer[at + len(self._bodies[k]) : end])
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise Corrupt(f"around the data: {e}") from e
        if envelope.type != "video-frame" or envelope.data:
            raise Corrupt("around the data")
        return self._number(envelope.streamId, envelope.timestamp, k, stream), envelope.frameId

    def _known_binary(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        if end - begin < _BINARY_HEAD.size or buffer[begin] != 0x57:
            return None
        _, version, kind, flags, frame_id, stamp, codec, size = _BINARY_HEAD.unpack_from(buffer, begin)
        at = begin + _BINARY_HEAD.size + size
        k = self._picture(buffer, at, end, guess)
        if (version, kind, flags, codec) != (1, 1, 0, 1) or end - at != len(self._bodies[k]):
            raise Corrupt("its header or its length")
        stream_id = buffer[at - size : at].decode("ascii", "replace")
        return self._number(stream_id, stamp, k, stream), frame_id

    def _picture(self, buffer: bytearray, at: int, end: int, guess: int) -> int:
        bodies = self._bodies
        for k in islice(cycle(range(len(bodies))), guess % len(bodies), guess % len(bodies) + len(bodies)):
            if buffer.startswith(bodies[k], at, end):  # memcmp in place; memoryviews compare byte by byte
                return k
        raise Corrupt("its picture")

    def _number(self, stream_id: str, stamp: int, k: int, stream: int) -> int:
        n = stamp - self._base
        if stream_id != self.ids[stream] or n < 0 or n % len(self._bodies) != k:
            raise Corrupt(f"stream {stream_id!r}, timestamp {stamp}, picture {k}")
        return n


def pictures() -> list[bytes]:
    """The JPEGs that every benchmark sends. Raises `LoadFault` when they are not there."""
    found = [path.read_bytes() for path in sorted(DATA.glob("*.jpg"))]
    if not found:
        raise LoadFault(f"no *.jpg in {DATA}")
    return found


# The connections


class Connection(asyncio.BufferedProtocol):
    """One socket of the load: opens, says what it is, and hands on what it is told."""

    def __init__(self, run: Run, what: str, inbox: Inbox) -> None:
        self._run = run
        self._what = what
        self.inbox = inbox
        self.transport: asyncio.Transport
        self._until: bytes | None = None
        self._key: bytes | None = None
        self._awaited: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(f"the server ended the connection ({exc or 'end of file'})")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self.inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._until is not None:
                head = self.inbox.until(self._until, nbytes)
                if head is None:
                    return
                self._until = None
                if self._key is not None:
                    check_upgraded(head, self._key)  # now: whoever refuses closes next
                self._answered(head)
                nbytes = 0
            for opcode, begin, end in self.inbox.filled(nbytes):
                self.message(opcode, begin, end)
        except WireFault as e:
            self._failed(str(e))

    def message(self, opcode: int, begin: int, end: int) -> None:
        """What is not a frame for a viewer."""
        payload = bytes(self.inbox.buffer[begin:end])
        if opcode == PING:
            self.transport.write(message(PONG, payload, self._run.mask))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self._failed(f"the server closed with {code} {payload[2:].decode(errors='replace')}".rstrip())
        elif opcode != PONG:
            try:
                said = msgspec.json.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                said = None
            if not isinstance(said, dict) or said.get("type") == "error":
                self._failed(f"the server said {payload[:300].decode(errors='replace')}")
            elif said.get("type") == "success":
                self._answered(payload)

    def _answered(self, said: bytes) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(said)

    def _failed(self, why: str) -> None:
        self._run.failed(f"{self._what}: {why}")

    async def ask(self, said: bytes, *, until: bytes | None = None) -> bytes:
        """Write this, and wait for the answer: a success message, or all up to `until`."""
        self._awaited = asyncio.get_running_loop().create_future()
        self._until = until
        self.transport.write(said)
        return await self._awaited

    async def open_websocket(self, path: str) -> None:
        self._key = os.urandom(16)
        await self.ask(upgrade(HOST, path, self._key), until=b"\r\n\r\n")

    async def tell(self, **said: Any) -> None:
        """Send a message of the protocol, and wait for its success."""
        await self.ask(message(TEXT, msgspec.json.encode(said), self._run.mask))

    async def join(self, path: str) -> None:
        """A WebSocket of the dialect `watchout`, authenticated."""
        await self.open_websocket(path)
        if self._run.plan.token is not None:
            await self.tell(type="auth", token=self._run.plan.token)


class Camera(Connection):
    """Publishes one stream."""

    def __init__(self, run: Run, stream: int) -> None:
        super().__init__(run, f"camera {stream}", run.inbox(IDLE_BUFFER_BYTES))
        self.stream = stream
        self.sent_at = array("d")
        self.not_sent = 0

    async def set_up(self) -> None:
        run, stream_id = self._run, self._run.messages.ids[self.stream]
        match run.plan.dialect:
            case "watchout":
                await self.join("/streams/register")
                await self.tell(type="register", clientType="mobile", streamId=stream_id, produces=["video-frame"])
            case "nchan":
                await self.open_websocket(f"/pub?id={stream_id}")
            case "raw":
                await self.ask(f"P {stream_id}\n".encode(), until=b"ok\n")
        self.transport.set_write_buffer_limits(high=0)  # each frame goes to the kernel in its own turn

    def message(self, opcode: int, begin: int, end: int) -> None:
        if self._run.plan.dialect != "nchan" or opcode not in (TEXT, BINARY):  # it tells publishers how many listen
            super().message(opcode, begin, end)

    def send(self) -> None:
        """Send the next frame, now."""
        n = len(self.sent_at)
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.not_sent += 1
            return
        pieces = self._run.messages.pieces(self.stream, n)
        self.sent_at.append(time.perf_counter())
        self.transport.writelines(pieces)


class Viewer(Connection):
    """Watches one stream, and looks at every byte of it."""

    def __init__(self, run: Run, camera: Camera, size: int) -> None:
        super().__init__(run, f"viewer of {camera.stream}", run.inbox(size))
        self._camera = camera
        self._newest = -1
        self._newest_id = 0
        self._numbered = run.plan.dialect == "watchout"

    async def set_up(self) -> None:
        run, stream_id = self._run, self._run.messages.ids[self._camera.stream]
        match run.plan.dialect:
            case "watchout":
                await self.join("/streams/subscribe")
                await self.tell(
                    type="subscribe",
                    clientType="dashboard",
                    streamId=stream_id,
                    consumes=["video-frame"],
                    format=run.plan.format,
                )
            case "nchan":
                await self.open_websocket(f"/sub?id={stream_id}")
            case "raw":
                await self.ask(f"S {stream_id}\n".encode(), until=b"ok\n")

    def message(self, opcode: int, begin: int, end: int) -> None:
        now = time.perf_counter()
        run, camera = self._run, self._camera
        if opcode in (TEXT, BINARY):
            try:
                known = run.messages.known(self.inbox.buffer, begin, end, camera.stream, self._newest + 1)
                if known is not None:
                    n, frame_id = known
                    if n >= len(camera.sent_at):
                        raise Corrupt(f"number {n} was not sent yet")
                    if n <= self._newest or (self._numbered and frame_id <= self._newest_id):
                        run.reordered += 1
                    self._newest, self._newest_id = n, frame_id
                    self.received(camera.sent_at[n], now)
                    return
            except Corrupt as e:
                run.corrupted(f"{self._what}: {e}")
                return
        super().message(opcode, begin, end)

    def received(self, sent_at: float, now: float) -> None:
        if self._run.begun <= sent_at < self._run.ended:
            self._run.latencies.append(now - sent_at)


class SlowViewer(Viewer):
    """Takes so many bytes a second from its socket and no more."""

    def __init__(self, run: Run, camera: Camera, size: int, slow: Slow) -> None:
        super().__init__(run, camera, size)
        self._rate = slow.bytes_per_s
        self._may = 0
        self._throttled = False
        self.ages_s = array("d")

    def get_buffer(self, sizehint: int) -> memoryview:
        space = super().get_buffer(sizehint)
        return space[: self._may] if self._throttled else space

    def buffer_updated(self, nbytes: int) -> None:
        if self._throttled:
            self._may -= nbytes
            if self._may <= 0:
                self.transport.pause_reading()
        super().buffer_updated(nbytes)

    async def read_slowly(self) -> None:
        self._throttled = True
        self.transport.pause_reading()
        before, owed = time.perf_counter(), 0.0
        while True:
            await asyncio.sleep(SLOW_TICK_S)
            now = time.perf_counter()
            # What the server did not have is not saved up.
            owed = min(owed - int(owed) + (now - before) * self._rate, self._rate)
            before = now
            self._may = int(owed)
            if self._may > 0 and not self.transport.is_closing():
                self.transport.resume_reading()

    def received(self, sent_at: float, now: float) -> None:
        if self._run.begun <= now < self._run.ended:
            self.ages_s.append(now - sent_at)


class Idle(Connection):
    """Authenticates and does nothing."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "idle connection", run.inbox(IDLE_BUFFER_BYTES))

    async def set_up(self) -> None:
        match self._run.plan.dialect:
            case "watchout":
                await self.join("/streams/subscribe")
            case "nchan":
                await self.open_websocket(f"/sub?id={self._run.messages.ids[0]}")
            case "raw":
                raise LoadFault("the floors have no idle connections")


# The run


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.mask = bytes(secrets.randbelow(255) + 1 for _ in range(4))
        self.messages = Messages(plan, pictures(), base=int(time.time() * 1000), mask=self.mask)
        self.begun = self.ended = float("inf")
        self.latencies = array("d")
        self.lateness = array("d")
        self.corrupt = 0
        self.reordered = 0
        self.first_corrupt: str | None = None
        self._broken: asyncio.Future[None] | None = None
        self._ending = False

    def inbox(self, size: int) -> Inbox:
        return LengthInbox(size) if self.plan.dialect == "raw" else WebSocketInbox(size)

    def corrupted(self, what: str) -> None:
        self.corrupt += 1
        self.first_corrupt = self.first_corrupt or what

    def failed(self, why: str) -> None:
        """End the run with this; only the first one counts."""
        if self._broken is not None and not self._broken.done() and not self._ending:
            self._broken.set_exception(LoadFault(why))

    async def result(self) -> dict[str, Any]:
        """Set up, run, and say what was seen. Raises `LoadFault`."""
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        work = loop.create_task(self._worked())
        try:
            await asyncio.wait((work, self._broken), return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            return await work
        finally:
            self._ending = True
            work.cancel()
            self._broken.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _worked(self) -> dict[str, Any]:
        plan = self.plan
        connections = plan.streams * (1 + plan.viewers_per_stream) + plan.idle + (plan.slow.viewers if plan.slow else 0)
        _room_for(connections)
        size = self.messages.largest_bytes + 512
        if plan.streams * plan.viewers_per_stream <= FEW_VIEWERS:
            size *= 3
        cameras = [Camera(self, i) for i in range(plan.streams)]
        viewers = [Viewer(self, camera, size) for _ in range(plan.viewers_per_stream) for camera in cameras]
        slow = [SlowViewer(self, cameras[0], size, plan.slow) for _ in range(plan.slow.viewers)] if plan.slow else []
        idle = [Idle(self) for _ in range(plan.idle)]
        if idle:
            await _marked("before", plan.settle_s)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(SETUP_S + SETUP_PER_CONNECTION_S * connections):
                await self._set_up(cameras, plan.ports[0])
                await self._set_up(viewers, plan.ports[-1])
                await self._set_up(slow, plan.ports[-1], plan.slow.receive_buffer_bytes if plan.slow else None)
                await self._set_up(idle, plan.ports[-1])
        except TimeoutError:
            raise LoadFault(f"{connections} connections were not set up in time") from None
        connect_s = time.perf_counter() - began
        if idle:
            await _marked("idle", plan.settle_s)
        result: dict[str, Any] = {"connect_s": connect_s, "idle": plan.idle}
        if cameras:
            result |= await self._ran(cameras, slow)
        self._ending = True
        for connection in (*cameras, *viewers, *slow, *idle):
            connection.transport.abort()
        return result

    async def _set_up(
        self, connections: Sequence[Camera | Viewer | Idle], port: int, buffer: int | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(connection: Camera | Viewer | Idle) -> None:
            async with turn:
                sock = socket.socket()
                try:
                    sock.setblocking(False)
                    if buffer is not None:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                    # Thousands of ports are free again at once, not after a minute.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(sock, (HOST, port))
                    await loop.create_connection(lambda: connection, sock=sock)
                except OSError as e:
                    sock.close()
                    raise LoadFault(f"cannot connect to {HOST}:{port}: {e.strerror or e}") from e
                await connection.set_up()
                if isinstance(connection, Viewer):
                    # One way of acknowledging for all: see docs/performance.md, "What is measured".
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(one(connection))
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None

    async def _ran(self, cameras: list[Camera], slow: list[SlowViewer]) -> dict[str, Any]:
        plan, loop = self.plan, asyncio.get_running_loop()
        slow_tasks = [loop.create_task(viewer.read_slowly()) for viewer in slow]
        rate = plan.streams * plan.fps
        warm, total = round(plan.warmup_s * rate), round((plan.warmup_s + plan.duration_s) * rate)
        if warm < 1 or total <= warm:
            raise LoadFault(f"no frame in {plan.warmup_s:g} s and then {plan.duration_s:g} s at {rate:g} frames per s")
        done: asyncio.Future[float] = loop.create_future()
        began_cpu = 0.0
        start = time.perf_counter() + 0.02
        turn = 0

        def wake() -> None:
            nonlocal turn, began_cpu
            now = time.perf_counter()
            while not done.done() and start + turn / rate <= now:
                if turn == warm:
                    began_cpu = time.process_time()
                    mark("start")
                    self.begun = time.perf_counter()
                elif turn == total:
                    mark("stop")
                    self.ended = time.perf_counter()
                    done.set_result(time.process_time() - began_cpu)
                    return
                if turn >= warm:
                    self.lateness.append(now - start - turn / rate)
                cameras[turn % len(cameras)].send()
                turn += 1
                now = time.perf_counter()

        with _ticking(max(1 / rate, FINEST_TICK_S), wake):
            load_cpu_s = await done
        for task in slow_tasks:
            task.cancel()
        sent = sum(sum(self.begun <= at < self.ended for at in camera.sent_at) for camera in cameras)
        expected = sent * plan.viewers_per_stream
        give_up = loop.time() + GRACE_S
        while len(self.latencies) < expected and loop.time() < give_up:  # noqa: ASYNC110 - nobody tells of the last one
            await asyncio.sleep(0.02)
        delivered = len(self.latencies)
        return {
            "sent": sent,
            "not_sent": sum(camera.not_sent for camera in cameras),
            "expected": expected,
            "delivered": delivered,
            "missing": expected - delivered,
            "corrupt": self.corrupt,
            "first_corrupt": self.first_corrupt,
            "reordered": self.reordered,
            "latency_ms": _spread_ms(self.latencies),
            "lateness_ms": _spread_ms(self.lateness),
            "load_cpu_s": load_cpu_s,
            "measured_s": self.ended - self.begun,
            "message_bytes": self.messages.largest_bytes,
            "slow": self._slow_result(slow),
        }

    def _slow_result(self, slow: list[SlowViewer]) -> dict[str, Any] | None:
        if self.plan.slow is None:
            return None
        ages = array("d", (age for viewer in slow for age in viewer.ages_s))
        return {
            "received": len(ages),
            "age_ms": _spread_ms(ages),
            "transfer_ms": 1000 * self.messages.largest_bytes / self.plan.slow.bytes_per_s,
        }


@contextlib.contextmanager
def _ticking(every_s: float, call: Callable[[], None]) -> Iterator[None]:
    """`call` about every so many seconds; loop timers would come on whole milliseconds only."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise LoadFault(f"timerfd_create: {os.strerror(ctypes.get_errno())}")
    try:
        seconds, rest = divmod(round(every_s * 1e9), 10**9)
        libc.timerfd_settime(fd, 0, struct.pack("@4l", seconds, rest, seconds, rest), None)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            call()

        loop = asyncio.get_running_loop()
        loop.add_reader(fd, read)
        yield
        loop.remove_reader(fd)
    finally:
        os.close(fd)


def mark(what: str) -> None:
    """Tell the runner of this moment."""
    os.write(2, f"{what}\n".encode())


async def _marked(what: str, settle_s: float) -> None:
    """Tell the runner, and hold still while it looks."""
    await asyncio.sleep(settle_s)
    mark(what)
    await asyncio.sleep(settle_s)


def _spread_ms(values_s: array[float]) -> dict[str, float] | None:
    if not values_s:
        return None
    ordered = sorted(values_s)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: 1000 * percentile(ordered, share) for name, share in shares.items()}


def _room_for(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadFault(f"{connections} connections need {wanted} open files, the hard limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Standard input → standard output; 1 and a sentence on standard error when the run failed."""
    try:
        plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
        gc.disable()  # a pause here would be counted as the server's latency
        result = uvloop.run(Run(plan).result())
    except (LoadFault, msgspec.MsgspecError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
