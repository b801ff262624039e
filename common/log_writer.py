"""Writes log lines from a thread of its own, so that nobody who logs ever waits, or hears of a full disk.

`put` appends to a queue that is bounded in bytes. The thread writes in order, and copes with whatever the file
descriptor is: a pipe that nobody reads, a pipe without a reader, a full disk, a terminal that is gone, a descriptor
that somebody has made non-blocking. While nothing can be written the lines wait; past the bound new ones are dropped
and counted, and one line says how many as soon as there is room.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

#: Lines that wait for one file descriptor have so many bytes together.
MAX_WAITING_BYTES: Final = 1 << 20
#: What a line costs beside its bytes.
LINE_COST_BYTES: Final = 100
#: A longer line is cut.
MAX_LINE_BYTES: Final = 64 << 10
#: After a failed write it is tried again after so long, in seconds; after one that only found no room, after `SOON_S`.
RETRY_S: Final = 0.25
SOON_S: Final = 0.01
#: A file gets so many bytes in one write; anything else no more than goes in whole (pipe(7) PIPE_BUF), so that lines of
#: processes that share a pipe do not mix.
FILE_CHUNK_BYTES: Final = 64 << 10
PIPE_CHUNK_BYTES: Final = select.PIPE_BUF
_NOT_NOW: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})

_writers: Final[weakref.WeakSet[LogWriter]] = weakref.WeakSet()


class LogWriter:
    """The writer of one file descriptor.

    Args:
        descriptor: Where to write; None: nowhere, everything is dropped.
        lost_line: Makes the line, with its end, that says how many lines were lost.
        max_bytes: Most bytes that wait.

    """

    def __init__(
        self, descriptor: int | None, lost_line: Callable[[int], bytes], *, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._max_bytes = max_bytes
        self._dropped = 0
        self._chunk_bytes = PIPE_CHUNK_BYTES
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    self._chunk_bytes = FILE_CHUNK_BYTES
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        """Set up the queue; also in a forked child, whose copy of it may be locked, and holds its parent's lines."""
        # Re-entrant: a garbage collection inside `put` may run what logs.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._waiting_lines = 0
        #: Lines that were dropped and not said to be.
        self._unsaid = 0
        #: Dropping until half of what waits is written.
        self._full = False
        self._closing = False
        self._give_up_at = float("inf")
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that were dropped so far."""
        return self._dropped

    @property
    def waiting_bytes(self) -> int:
        """What waits, as it is counted against the bound."""
        return self._waiting_bytes

    def put(self, line: bytes) -> None:
        """Queue a line, with its end. Never raises, never waits."""
        try:
            if len(line) > MAX_LINE_BYTES:
                line = line[: MAX_LINE_BYTES - 4] + b"...\n"
            size = len(line) + LINE_COST_BYTES
            with self._lock:
                if self._waiting_bytes + size > self._max_bytes:
                    self._full = True  # until half of it is written, so that losses are said in few lines
                if self._full or self._closing or self._descriptor is None:
                    self._dropped += 1
                    self._unsaid += 1
                else:
                    self._enqueue(line)
        except MemoryError:
            self._dropped += 1
            self._unsaid += 1

    def _enqueue(self, line: bytes) -> None:
        self._queue.put(line)
        self._waiting_bytes += len(line) + LINE_COST_BYTES
        self._waiting_lines += 1
        self._idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._queue,), name="log writer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads now: the next line tries again
                self._thread = None

    def _say_lost(self) -> None:
        lost, self._unsaid, self._full = self._unsaid, 0, False
        if lost:
            self._enqueue(self._lost_line(lost))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that waits is written, at most so long; whether it is."""
        return self._idle.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits, at most so long, and end the thread; what comes afterwards is dropped."""
        with self._lock:
            if not self._closing and self._descriptor is not None:
                self._say_lost()
            self._closing = True
            self._give_up_at = time.monotonic() + timeout_s
        written = self.flush(timeout_s)
        self._queue.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, self._give_up_at - time.monotonic()) if written else 0.0)
        return written

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, queue: SimpleQueue[bytes | None]) -> None:
        """Write until `None` comes, or there is no time left."""
        kept: bytes | None = None
        while (line := queue.get() if kept is None else kept) is not None:
            kept = None
            batch, size, ends = [line], len(line), False
            while size < self._chunk_bytes and not queue.empty():
                line = queue.get()
                if line is None:
                    ends = True
                    break
                if size + len(line) > self._chunk_bytes:
                    kept = line
                    break
                batch.append(line)
                size += len(line)
            if not self._write(batch) or ends:
                return

    def _write(self, batch: list[bytes]) -> bool:
        """Write these lines, however long that takes; False when there is no more time before the process ends."""
        left: memoryview | None = None
        assert self._descriptor is not None
        while left is None or left:
            if time.monotonic() > self._give_up_at:
                return False
            try:
                if left is None:
                    left = memoryview(b"".join(batch))
                # Not poll(2): of a terminal it knows nothing on macOS. The descriptor is one of the standard ones.
                elif select.select((), (self._descriptor,), (), RETRY_S)[1]:
                    left = left[os.write(self._descriptor, left[: self._chunk_bytes]) :]
            except (OSError, ValueError, MemoryError) as error:
                soon = isinstance(error, OSError) and error.errno in _NOT_NOW
                time.sleep(min(SOON_S if soon else RETRY_S, max(0.0, self._give_up_at - time.monotonic())))
        with self._lock:
            self._waiting_bytes -= sum(map(len, batch)) + LINE_COST_BYTES * len(batch)
            self._waiting_lines -= len(batch)
            if self._full and self._waiting_bytes <= self._max_bytes / 2 and not self._closing:
                self._say_lost()
            if not self._waiting_lines:
                self._idle.set()
        return True


def _begin_again() -> None:
    for writer in list(_writers):
        writer._begin()


os.register_at_fork(after_in_child=_begin_again)
