"""The frame sockets on real Unix sockets: among themselves, and with libzmq on the other end. On both loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
import zmq
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.frame_connection import WRITE_BYTES, FrameProtocol, FrameSender
from watchout.common.bus.zeromq.frame_sockets import KERNEL_BYTES, Pub
from watchout.common.bus.zeromq.zmtp import GREETING, command, message_head, ready
from watchout.common.errors import StartError

WAIT_S = 30.0
MAX_BYTES = 17 << 20
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work)

    return run


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wo-") as directory:
        yield Path(directory)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.linger = 0
    yield context
    context.destroy(linger=0)


async def until(condition: Callable[[], object], what: str = "") -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


def key(part: bytes | memoryview) -> bytes:
    return bytes(part[:1])


def pub(home: Path) -> Pub:
    return Pub(home / "out", MAX_BYTES, topic_bytes=8, key_of=key)


@contextlib.asynccontextmanager
async def closing(*ends: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for end in ends:
            end.close()
        await asyncio.sleep(0.02)


def frame(stream: int, number: int, size: int = 44_000) -> Parts:
    return bytes((stream,)) + number.to_bytes(4, "big"), bytes(size)


def numbers(got: list[bytes], at: int = 0) -> list[tuple[int, int]]:
    return [(message[at], int.from_bytes(message[at + 1 : at + 5], "big")) for message in got]


def test_frames_go_both_ways_whole_and_in_order(run: Run, home: Path) -> None:
    async def work() -> None:
        up: list[bytes] = []
        down: list[bytes] = []
        out, router = FrameSender(key), pub(home)
        ends = (
            router,
            frame_sockets.pull(home / "in", MAX_BYTES, up.append),
            frame_sockets.push(home / "in", MAX_BYTES, out),
            frame_sockets.sub(home / "out", MAX_BYTES, b"member-1", down.append),
        )
        async with closing(*ends):
            sizes = [0, 1, 250, 44_000, 16 << 20]
            for number, size in enumerate(sizes):
                out.offer(frame(number, number, size))
                router.offer(b"member-1", frame(number, number, size))
            await until(lambda: len(up) == len(down) == len(sizes))
            assert up == [b"".join(frame(n, n, size)) for n, size in enumerate(sizes)]
            assert down == up
            assert (out.sent, out.dropped, router.sent, router.dropped) == (5, 0, 5, 0)

    run(work())


def test_libzmq_pushes_and_subscribes(run: Run, home: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    async def work() -> None:
        up: list[bytes] = []
        router, pull = pub(home), frame_sockets.pull(home / "in", MAX_BYTES, up.append)
        push, sub = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        async with closing(push, sub, router, pull):
            push.connect(f"ipc://{home}/in")
            sub.setsockopt(zmq.HEARTBEAT_IVL, 50)
            sub.subscribe(b"member-1")
            sub.subscribe(b"a topic of another length")
            sub.connect(f"ipc://{home}/out")
            sizes = [1, 300, 44_000, 3 << 20]
            for size in sizes:
                push.send(bytes(size))
            push.send_multipart([b"in", b"parts"])
            push.send(b"last")
            await until(lambda: len(up) == len(sizes) + 1)
            assert list(map(len, up)) == [*sizes, 4]
            assert pull.malformed == 1
            for number, size in enumerate(sizes):
                router.offer(b"member-1", frame(number, number, size))
                router.offer(b"member-2", frame(number, number, size))
            got: list[bytes] = []
            while len(got) < len(sizes):
                await until(lambda: sub.poll(0))
                got.append(sub.recv())
            assert got == [b"member-1" + b"".join(frame(n, n, size)) for n, size in enumerate(sizes)]
            await asyncio.sleep(0.3)  # some heartbeats of libzmq, which have to be answered
            router.offer(b"member-1", frame(9, 9, 1))
            await until(lambda: sub.poll(0))

    run(work())


def test_libzmq_pulls_and_publishes(run: Run, home: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    async def work() -> None:
        down: list[bytes] = []
        pull, out_pub, out = context.socket(zmq.PULL), context.socket(zmq.XPUB), FrameSender(key)
        pull.bind(f"ipc://{home}/in")
        out_pub.bind(f"ipc://{home}/out")
        push = frame_sockets.push(home / "in", MAX_BYTES, out)
        sub = frame_sockets.sub(home / "out", MAX_BYTES, b"member-1", down.append)
        async with closing(push, sub, pull, out_pub):
            await until(lambda: out_pub.poll(0))
            assert out_pub.recv() == b"\x01member-1"
            for size in (1, 44_000, 3 << 20):
                out.offer((b"head", bytes(size)))
                await until(lambda: pull.poll(0))
                assert pull.recv() == b"head" + bytes(size)
                out_pub.send(b"member-1" + bytes(size))
                out_pub.send(b"member-2" + bytes(size))
            await until(lambda: len(down) == 3)
            assert list(map(len, down)) == [1, 44_000, 3 << 20]

    run(work())


def test_a_receiver_that_reads_nothing_costs_bounded_bytes_and_gets_the_newest_of_each_stream(
    run: Run, home: Path
) -> None:
    async def work() -> None:
        router = pub(home)
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        others: list[bytes] = []
        sub = frame_sockets.sub(home / "out", MAX_BYTES, b"member-2", others.append)
        async with closing(router, sub, slow):
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, str(home / "out"))
            await loop.sock_sendall(slow, GREETING + ready(b"SUB") + b"\x00\x09\x01member-1")
            rounds, streams = 100, 5
            for number in range(rounds):
                for stream in range(streams):
                    router.offer(b"member-1", frame(stream, number))
                    router.offer(b"member-2", frame(stream, number))
                # The other takes all of a round before the next, so that it never has a reason to miss one.
                await until(lambda expected=(number + 1) * streams: len(others) == expected)  # type: ignore[misc]
            outlet = router._senders[b"member-1"]
            assert len(outlet.queue) == streams
            assert outlet.sent * 44_000 < WRITE_BYTES + 2 * KERNEL_BYTES + 2 * 44_000
            assert outlet.sent + outlet.dropped + streams == rounds * streams
            # It reads again: what was under way, and then the newest of each stream.
            data = bytearray()
            size = len(message_head(44_013)) + 44_013
            expected = (outlet.sent + streams) * size + 64 + len(ready(b"PUB"))
            while len(data) < expected:
                async with asyncio.timeout(WAIT_S):
                    data += await loop.sock_recv(slow, 1 << 20)
            body = data[64 + len(ready(b"PUB")) :]
            got = numbers([bytes(body[at + 9 : at + size]) for at in range(0, len(body), size)], at=8)
            assert got[-streams:] == [(stream, rounds - 1) for stream in sorted(range(streams), key=_turn(got))]
            for stream in range(streams):
                of_it = [number for each, number in got if each == stream]
                assert of_it == sorted(of_it)

    run(work())


def _turn(got: list[tuple[int, int]]) -> Callable[[int], int]:
    last = [stream for stream, _ in got[-5:]]
    return last.index


def test_a_frame_waits_for_a_receiver_that_is_not_there_yet_until_it_is_forgotten(run: Run, home: Path) -> None:
    async def work() -> None:
        router = pub(home)
        got: list[bytes] = []
        async with closing(router):
            for number in range(3):
                router.offer(b"member-1", frame(1, number, 10))
                router.offer(b"member-2", frame(1, number, 10))
            router.forget(b"member-2")
            router.forget(b"member-3")
            assert router.dropped == 2 + 3
            ends = [
                frame_sockets.sub(home / "out", MAX_BYTES, member, got.append) for member in (b"member-1", b"member-2")
            ]
            async with closing(*ends):
                await until(lambda: got)
                router.offer(b"member-2", frame(2, 9, 10))
                await until(lambda: len(got) == 2)
                assert numbers(got) == [(1, 2), (2, 9)]

    run(work())


def test_a_receiver_that_was_forgotten_while_its_connection_was_full_stays_bounded(run: Run, home: Path) -> None:
    async def work() -> None:
        router = pub(home)
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        async with closing(router, slow):
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, str(home / "out"))
            await loop.sock_sendall(slow, GREETING + ready(b"SUB") + b"\x00\x09\x01member-1")
            await until(lambda: router._connected)
            for _ in range(3):
                for number in range(40):
                    router.offer(b"member-1", frame(1, number))
                await asyncio.sleep(0.01)
                router.forget(b"member-1")
            assert router.sent * 44_000 < WRITE_BYTES + 2 * KERNEL_BYTES + 2 * 44_000
            assert router.sent + router.dropped == 120

    run(work())


def test_a_connection_is_made_again_after_each_loss_and_what_waited_goes(run: Run, home: Path) -> None:
    async def work() -> None:
        out = FrameSender(key)
        push = frame_sockets.push(home / "in", MAX_BYTES, out)
        async with closing(push):
            for life in range(3):
                got: list[bytes] = []
                out.offer(frame(1, life, 10))
                pull = frame_sockets.pull(home / "in", MAX_BYTES, got.append)
                async with closing(pull):
                    await until(lambda: got)  # noqa: B023 - awaited within the turn
                    assert numbers(got) == [(1, life)]
                await until(lambda: out.connection is None)
            assert out.dropped == 0

    run(work())


def test_a_peer_of_another_protocol_is_disconnected_and_counted_and_others_continue(run: Run, home: Path) -> None:
    async def work() -> None:
        got: list[bytes] = []
        pull, out = frame_sockets.pull(home / "in", 1000, got.append), FrameSender(key)
        async with closing(pull):
            for data in (b"GET / HTTP/1.1\r\n\r\n", GREETING + ready(b"PUSH") + b"\x02" + b"\xff" * 8):
                reader, writer = await asyncio.open_unix_connection(home / "in")
                writer.write(data)
                async with asyncio.timeout(WAIT_S):
                    with contextlib.suppress(ConnectionError):
                        await reader.read(-1)
                writer.close()
            await until(lambda: pull.malformed == 2)
            push = frame_sockets.push(home / "in", 1000, out)
            async with closing(push):
                out.offer(frame(1, 1, 10))
                await until(lambda: got)

    run(work())


def test_a_frame_that_cannot_be_handled_costs_only_itself(run: Run, home: Path) -> None:
    async def work() -> None:
        got: list[bytes] = []

        def deliver(message: bytes) -> None:
            got.append(message)
            if len(got) == 1:
                raise ValueError("the first")

        pull, out = frame_sockets.pull(home / "in", MAX_BYTES, deliver), FrameSender(key)
        async with closing(pull, frame_sockets.push(home / "in", MAX_BYTES, out)):
            out.offer(frame(1, 1, 10))
            out.offer(frame(2, 2, 10))
            await until(lambda: len(got) == 2)

    run(work())


def test_many_small_frames_leave_turns_to_others(run: Run, home: Path) -> None:
    async def work() -> None:
        turns: list[int] = []
        got = 0

        def deliver(_: bytes) -> None:
            nonlocal got
            got += 1
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass

        pull, out = frame_sockets.pull(home / "in", MAX_BYTES, deliver), FrameSender(key)
        async with closing(pull, frame_sockets.push(home / "in", MAX_BYTES, out)):
            for number in range(200):
                out.offer(frame(number, number, 10))
            async with asyncio.timeout(WAIT_S):
                while got < 200:
                    await asyncio.sleep(0)
                    turns.append(got)
            # 200 frames of half a millisecond: not all in one turn, or a control message would wait for 0.1 s.
            assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) < 100

    run(work())


def test_frames_that_may_be_delayed_go_together_and_one_that_may_not_takes_them_along(run: Run, home: Path) -> None:
    async def work() -> None:
        got: list[bytes] = []
        pull, out = frame_sockets.pull(home / "in", MAX_BYTES, got.append), FrameSender(key)
        async with closing(pull, frame_sockets.push(home / "in", MAX_BYTES, out)):
            await until(lambda: out.connection)
            out.offer(frame(1, 1, 10), coalescing_delay_s=3600.0)
            out.offer(frame(2, 2, 10), coalescing_delay_s=3600.0)
            assert out.sent == 0
            out.offer(frame(3, 3, 10))
            assert out.sent == 3
            out.offer(frame(4, 4, 10), coalescing_delay_s=0.01)
            await until(lambda: len(got) == 4)
            assert numbers(got) == [(1, 1), (2, 2), (3, 3), (4, 4)]
            assert out.dropped == 0

    run(work())


def test_a_path_that_cannot_be_bound_is_named(run: Run, home: Path) -> None:
    async def work() -> None:
        for path in (home / "not" / "there", home / ("long" * 40)):
            with pytest.raises(StartError, match="cannot bind"):
                frame_sockets.pull(path, MAX_BYTES, lambda _: None)

    run(work())


def test_a_socket_that_a_killed_router_left_is_taken_over(run: Run, home: Path) -> None:
    async def work() -> None:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(home / "in"))
        left.close()
        got: list[bytes] = []
        out = FrameSender(key)
        pull = frame_sockets.pull(home / "in", MAX_BYTES, got.append)
        async with closing(pull, frame_sockets.push(home / "in", MAX_BYTES, out)):
            out.offer(frame(1, 1, 10))
            await until(lambda: got)
        assert not (home / "in").exists()

    run(work())


def test_a_peer_that_asks_and_reads_no_answer_costs_no_more_than_a_full_connection(home: Path, run: Run) -> None:
    async def work() -> None:
        pull = frame_sockets.pull(home / "in", MAX_BYTES, lambda _: None)
        asker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        async with closing(pull, asker):
            asker.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(asker, str(home / "in"))
            await loop.sock_sendall(asker, GREETING + ready(b"PUSH"))
            pings = command(b"PING", b"\0\0" + b"x" * 16) * 1000
            for _ in range(200):  # 5 MB of answers
                await loop.sock_sendall(asker, pings)
            (connection,) = pull._connections
            await until(lambda: connection.full)
            assert connection.transport.get_write_buffer_size() < 2 * WRITE_BYTES

    run(work())


class Kernel:
    """What a connection sees of its transport: it takes `room` bytes, then the connection is told that it is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.connection: FrameProtocol | None = None
        self.writes: list[bytes] = []

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def writelines(self, parts: list[bytes]) -> None:
        self.writes.append(b"".join(parts))
        self.room -= len(self.writes[-1])
        if self.room < 0 and self.connection is not None:
            self.connection.pause_writing()


@pytest.mark.parametrize(
    ("number", "size", "room", "sent", "writes"),
    [(1, 44_000, 1 << 30, 1, 1), (5, 44_000, 1 << 30, 5, 1), (20, 44_000, 1 << 30, 20, 4), (20, 44_000, 100, 6, 1)],
)
def test_frames_that_were_held_back_are_written_together_within_the_bound(
    run: Run, number: int, size: int, room: int, sent: int, writes: int
) -> None:
    async def work() -> None:
        kernel, out = Kernel(room), FrameSender(key)
        connection = FrameProtocol(b"PUSH", MAX_BYTES, lost=lambda _: None)
        connection.connection_made(kernel)  # type: ignore[arg-type]
        connection.attach(out)
        kernel.connection = connection
        frames = [frame(n, n, size) for n in range(number)]
        for each in frames:
            out.offer(each, 60.0)
        assert kernel.writes == []
        out.pump()
        assert (len(kernel.writes), out.sent, len(out.queue)) == (writes, sent, number - sent)
        expected = b"".join(message_head(size + 5) + head + body for head, body in frames[:sent])
        assert b"".join(kernel.writes) == expected
        kernel.connection = None
        connection.resume_writing()
        out.offer(frame(1, 99, 10))
        assert (out.sent, len(out.queue)) == (number + 1, 0)
        assert kernel.writes[-1] == message_head(15) + b"".join(frame(1, 99, 10))

    run(work())


class Wire:
    """What an outlet sees of a connection; it is full when the test says so."""

    def __init__(self) -> None:
        self.full = False
        self.written: list[tuple[int, int]] = []

    def write_frame(self, parts: tuple[bytes, ...]) -> None:
        assert not self.full
        self.written.append((parts[1][0], int.from_bytes(parts[1][1:5], "big")))

    def gather(self) -> None:
        pass

    def write_gathered(self) -> None:
        pass


STEPS = st.lists(
    st.integers(0, 3) | st.sampled_from(["full", "room", "lost", "found", "forgotten"]), max_size=120
)  # fmt: skip


@given(STEPS)
def test_whatever_a_connection_does_the_newest_gets_through_in_order_and_each_frame_is_counted(
    steps: list[int | str],
) -> None:
    out = FrameSender(key)
    wire: Wire | None = None
    got: list[tuple[int, int]] = []
    newest: dict[int, int] = {}
    offered = 0

    def connect(there: bool) -> Wire | None:
        if wire is not None:
            got.extend(wire.written)
        made = Wire() if there else None
        out.connection = made  # type: ignore[assignment]
        out.pump()
        return made

    for number, step in enumerate([*steps, "found"]):
        match step:
            case "full" if wire is not None:
                wire.full = True
            case "room" if wire is not None:
                wire.full = False
                out.pump()
            case "lost" | "found":
                wire = connect(step == "found")
            case "forgotten":
                for waiting in list(out.queue._queued):
                    newest.pop(waiting[0])  # type: ignore[index]
                out.clear()
            case int(stream):
                out.offer(frame(stream, number, 1))
                newest[stream] = number
                offered += 1
        assert len(out.queue) <= 4
        assert offered == out.sent + out.dropped + len(out.queue)
    assert wire is not None
    got.extend(wire.written)
    for stream in range(4):
        of_it = [number for each, number in got if each == stream]
        assert of_it == sorted(set(of_it))
        if stream in newest:
            assert of_it[-1] == newest[stream]
    assert not out.queue
