"""Writes log lines from a thread of its own, so that logging never blocks and never fails.

`put` appends to a queue that is bounded in bytes. The thread writes in order and retries every failure: a pipe whose
reader stopped or left, a full disk, a closed terminal, a descriptor that is non-blocking. Meanwhile lines stay queued;
once the queue is full new lines are dropped and counted, and one line reports their number when there is room again.
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

#: Bound of the lines queued for one file descriptor, in bytes.
MAX_WAITING_BYTES: Final = 1 << 20
#: Memory that a queued line takes beside its bytes, about.
LINE_COST_BYTES: Final = 100
#: Longer lines are cut, in bytes.
MAX_LINE_BYTES: Final = 64 << 10
#: Seconds between a failed write and the next attempt; `SOON_S` when the descriptor was only not ready.
RETRY_S: Final = 0.25
SOON_S: Final = 0.01
#: Largest write, in bytes. To a pipe it is what the kernel writes atomically (pipe(7), PIPE_BUF), so that lines of
#: processes that share a pipe do not mix.
FILE_CHUNK_BYTES: Final = 64 << 10
PIPE_CHUNK_BYTES: Final = select.PIPE_BUF
_NOT_NOW: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})

_writers: Final[weakref.WeakSet[LogWriter]] = weakref.WeakSet()


class LogWriter:
    """Writes lines to one file descriptor from a thread that starts with the first line. Created by `common.log`.

    Args:
        descriptor: Where to write; None: every line is dropped.
        dropped_line: Makes the line, with its newline, that reports a number of dropped lines.
        max_bytes: Bound of the queue, in bytes.

    """

    def __init__(
        self, descriptor: int | None, dropped_line: Callable[[int], bytes], *, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._descriptor = descriptor
        self._dropped_line = dropped_line
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
        """Set up an empty queue; also in a forked child, where the copy may be locked and holds the parent's lines."""
        # Re-entrant: garbage collection inside `put` may run a finalizer that logs.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._waiting_lines = 0
        #: Dropped lines that no line has reported yet.
        self._unreported = 0
        #: Set when the queue was full; new lines are dropped until half of it is written.
        self._full = False
        self._closing = False
        self._give_up_at = float("inf")
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Number of lines dropped so far."""
        return self._dropped

    @property
    def waiting_bytes(self) -> int:
        """Size of the queue as it counts against its bound."""
        return self._waiting_bytes

    def put(self, line: bytes) -> None:
        """Queue a line that ends with a newline. Never raises, never blocks."""
        try:
            if len(line) > MAX_LINE_BYTES:
                line = line[: MAX_LINE_BYTES - 4] + b"...\n"
            size = len(line) + LINE_COST_BYTES
            with self._lock:
                if self._waiting_bytes + size > self._max_bytes:
                    self._full = True  # until half of it is written, so that few lines report drops
                if self._full or self._closing or self._descriptor is None:
                    self._dropped += 1
                    self._unreported += 1
                else:
                    self._enqueue(line)
        except MemoryError:
            self._dropped += 1
            self._unreported += 1

    def _enqueue(self, line: bytes) -> None:
        self._queue.put(line)
        self._waiting_bytes += len(line) + LINE_COST_BYTES
        self._waiting_lines += 1
        self._idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._queue,), name="log writer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no thread can be started now: the next line tries again
                self._thread = None

    def _report_dropped(self) -> None:
        dropped, self._unreported, self._full = self._unreported, 0, False
        if dropped:
            self._enqueue(self._dropped_line(dropped))

    def flush(self, timeout_s: float) -> bool:
        """Block until the queue is empty, for `timeout_s` seconds at most. Return whether it is."""
        return self._idle.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write the queue, for `timeout_s` seconds at most, and end the thread. Return whether all was written.

        Later lines are dropped.
        """
        with self._lock:
            if not self._closing and self._descriptor is not None:
                self._report_dropped()
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
        """Write until `None` is queued or the time that `close` gave is over. Runs in the thread."""
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
        """Write these lines, retrying without end. Return False when the time that `close` gave is over."""
        left: memoryview | None = None
        assert self._descriptor is not None
        while left is None or left:
            if time.monotonic() > self._give_up_at:
                return False
            try:
                if left is None:
                    left = memoryview(b"".join(batch))
                # Not poll(2), which does not support terminals on macOS. The descriptor is small enough for select(2).
                elif select.select((), (self._descriptor,), (), RETRY_S)[1]:
                    left = left[os.write(self._descriptor, left[: self._chunk_bytes]) :]
            except (OSError, ValueError, MemoryError) as error:
                soon = isinstance(error, OSError) and error.errno in _NOT_NOW
                time.sleep(min(SOON_S if soon else RETRY_S, max(0.0, self._give_up_at - time.monotonic())))
        with self._lock:
            self._waiting_bytes -= sum(map(len, batch)) + LINE_COST_BYTES * len(batch)
            self._waiting_lines -= len(batch)
            if self._full and self._waiting_bytes <= self._max_bytes / 2 and not self._closing:
                self._report_dropped()
            if not self._waiting_lines:
                self._idle.set()
        return True


def _begin_again() -> None:
    for writer in list(_writers):
        writer._begin()


os.register_at_fork(after_in_child=_begin_again)
