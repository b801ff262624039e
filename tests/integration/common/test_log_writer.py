"""Log lines are written in order by a thread; nobody who logs waits, and what is lost is counted and said."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from watchout.common.log_writer import LINE_COST_BYTES, MAX_LINE_BYTES, PIPE_CHUNK_BYTES, LogWriter


def lost(count: int) -> bytes:
    return b"lost %d\n" % count


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


class Pipe:
    """A pipe whose reading end the test has."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.came = b""

    def read(self) -> bytes:
        """What there is."""
        os.set_blocking(self.read_end, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_end, 1 << 20):
                self.came += data
        return self.came

    def close(self) -> None:
        for each in (self.read_end, self.write_end):
            with contextlib.suppress(OSError):
                os.close(each)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_of_many_threads_are_whole_and_each_threads_in_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, lost)

    def say(name: int) -> None:
        for number in range(500):
            writer.put(b"%d %d %s\n" % (name, number, b"x" * (number % 90)))

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: pipe.read() and not any(thread.is_alive() for thread in threads) and writer.flush(0))
    assert writer.close(5)
    rows = [tuple(map(int, line.split()[:2])) for line in pipe.read().decode().splitlines()]
    assert len(rows) == 2000
    for name in range(4):
        assert [number for who, number in rows if who == name] == list(range(500))
    assert writer.dropped == 0


def test_a_reader_that_stops_costs_lines_past_the_bound_and_they_are_said_when_it_reads_again(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(pipe.write_end, b"#" * 4095 + b"\n")  # full: the writer cannot make room meanwhile
    writer = LogWriter(pipe.write_end, lost, max_bytes=20_000)
    for number in range(2000):
        writer.put(b"line %d\n" % number)
        assert writer.waiting_bytes <= 20_000
    dropped = writer.dropped
    assert dropped > 1000
    until(lambda: b"lost" in pipe.read())
    writer.put(b"after\n")
    until(lambda: b"after\n" in pipe.read())
    _, *lines, said, after = pipe.came.splitlines()
    assert lines == [b"line %d" % number for number in range(2000 - dropped)]
    assert said == b"lost %d" % dropped
    assert after == b"after"
    assert writer.close(5)


def test_a_pipe_that_does_not_block_gets_everything_in_pieces(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)
    writer = LogWriter(pipe.write_end, lost)
    text = os.urandom(30_000).hex().encode() + b"\n"
    assert len(text) > 4 * PIPE_CHUNK_BYTES
    writer.put(text)
    writer.put(b"and\n")
    until(lambda: pipe.read().endswith(b"and\n"))
    assert pipe.came == text + b"and\n"


def test_a_reader_that_is_gone_raises_nothing_and_the_next_one_gets_what_waits(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)
    writer = LogWriter(writing, lost)
    os.close(first)
    writer.put(b"nobody reads this yet\n")
    assert not writer.flush(0.5)
    second = os.open(fifo, os.O_RDONLY)
    until(lambda: writer.flush(0))
    assert os.read(second, 100) == b"nobody reads this yet\n"
    writer.close(1)
    os.close(second)
    os.close(writing)


def test_a_full_disk_keeps_lines_up_to_the_bound_and_the_end_is_not_held_up() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(full, lost, max_bytes=10 * (LINE_COST_BYTES + 5))
    for _ in range(25):
        writer.put(b"line\n")
    assert writer.dropped == 15
    began = time.monotonic()
    assert not writer.close(0.3)
    assert time.monotonic() - began < 5
    writer.put(b"too late\n")
    assert writer.dropped >= 16
    os.close(full)


def test_without_a_descriptor_lines_are_counted() -> None:
    writer = LogWriter(None, lost)
    writer.put(b"x\n")
    assert writer.dropped == 1
    assert writer.close(0)


def test_a_line_of_any_length_is_cut(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, lost)
    writer.put(b"x" * (MAX_LINE_BYTES + 100) + b"\n")
    until(lambda: pipe.read().endswith(b"...\n"))
    assert len(pipe.came) == MAX_LINE_BYTES


def wait_for_success(child: int) -> None:
    """The forked child ended, and with 0."""
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_writes_its_own_lines_and_none_of_its_parents(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)
    writer = LogWriter(pipe.write_end, lost)
    lines = [b"parent %d %s" % (number, b"x" * 60) for number in range(300)]
    for line in lines:
        writer.put(line + b"\n")
    child = os.fork()
    if child == 0:
        writer.put(b"child\n")
        os._exit(0 if writer.close(20) else 1)
    # Whatever waits is more than the pipe takes: it is read until all of it is written.
    until(lambda: b"child\n" in pipe.read() and writer.flush(0))
    wait_for_success(child)
    assert writer.close(20)
    came = pipe.read().splitlines()
    assert came.count(b"child") == 1
    came.remove(b"child")
    assert came == lines


def test_a_child_that_is_forked_while_another_thread_holds_the_lock_writes_its_lines(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, lost)
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with writer._lock:
            held.set()
            forked.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that waits for the lock
        writer.put(b"child\n")
        os._exit(0 if writer.close(10) else 1)
    forked.set()
    holder.join()
    wait_for_success(child)
    writer.put(b"parent\n")
    assert writer.close(20)
    assert pipe.read() == b"child\nparent\n"
