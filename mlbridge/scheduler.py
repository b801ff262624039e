"""Which frame goes to the ML service next, and when. Pure: events and `now` in, commands and verdicts out.

Per stream there is one slot (the newest frame wins), at most one request under way, and a rate. Over the streams there
are `in_flight` requests at most and fair turns: the stream that was served longest ago goes first. A request has a
deadline; after failures there is a short pause. Whether a frame may go at all is decided in one place, `_open`.
"""

from __future__ import annotations

import bisect
import enum
import math
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from common.pacing import Sampler

#: A stream of which nothing came for so long is forgotten, and its waiting frame with it.
FORGET_AFTER_S: Final = 60.0
#: Frames that wait may hold so many bytes together; past it the one that waits longest is dropped.
MAX_WAITING_BYTES: Final = 256 << 20
#: Pause after a failure; it doubles with each further failure in a row.
FIRST_PAUSE_S: Final = 0.05
#: Longest pause. With it and 2 frames per second of a stream, a service that returns is asked again within 1 s.
LONGEST_PAUSE_S: Final = 0.5

F = TypeVar("F")

#: What tells a newer frame of a stream from an older one: the claim's term, then the frame id.
Order = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SendFrame(Generic[F]):
    """Ask the ML service about this frame; its answer counts until `deadline`."""

    ticket: int
    stream: str
    frame: F
    deadline: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The deadline of this request is past: let go of it, its answer no longer counts."""

    ticket: int
    stream: str


Command = SendFrame[F] | GiveUp


class Offered(enum.Enum):
    """What became of an offered frame."""

    WAITS = "waits"
    REPLACED_ONE = "it waits, in the place of an older one"
    TOO_OLD = "a newer or the same frame was offered before"


@dataclass(slots=True)
class Counts:
    """Every offered frame is counted once: ``offered == sent + replaced + dropped`` + those that wait.

    `replaced`: a newer frame of its stream was there before the service was free. `dropped`: forgotten with its
    stream, or over a bound. `late`: answers after their deadline.
    """

    offered: int = 0
    sent: int = 0
    replaced: int = 0
    dropped: int = 0
    late: int = 0


class _Stream:
    """What is known of one stream. `turn` is the number of its last turn, `queued` its place among those that wait."""

    __slots__ = ("flying", "order", "queued", "sampler", "seen_at", "turn")

    def __init__(self, max_fps: float, turn: int) -> None:
        self.sampler = Sampler(max_fps)
        self.turn = turn
        self.order: Order = (-1, -1)
        self.seen_at = 0.0
        self.flying = False
        self.queued: _Place | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    key: float
    stream: str


@dataclass(frozen=True, slots=True)
class _Request:
    stream: str
    deadline: float


class Scheduler(Generic[F]):
    """The turns of one ML service. Call `due` after each event, and at `next_at`."""

    def __init__(
        self,
        *,
        max_fps: float,
        in_flight: int,
        timeout_s: float,
        max_streams: int,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self.counts = Counts()
        self._max_fps = max_fps
        self._in_flight = in_flight
        self._timeout_s = timeout_s
        self._max_streams = max(max_streams, in_flight + 1)  # so that there is always one that can be let go
        self._max_waiting_bytes = max_waiting_bytes
        self._streams: dict[str, _Stream] = {}  # the one not seen for longest is first
        self._waiting: dict[str, tuple[F, int]] = {}  # the frame that waits longest is first
        self._waiting_bytes = 0
        self._ready: list[_Place] = []  # by turn: may go now
        self._later: list[_Place] = []  # by time: may go then
        self._requests: dict[int, _Request] = {}  # by deadline, as all have the same timeout
        self._turns = 0
        self._tickets = 0
        self._failures = 0
        self._paused_until = -math.inf

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._requests)

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Their bytes."""
        return self._waiting_bytes

    @property
    def streams(self) -> int:
        """Streams that are remembered."""
        return len(self._streams)

    def offer(self, stream: str, order: Order, frame: F, size_bytes: int, now: float) -> Offered:
        """A frame came."""
        self.counts.offered += 1
        known = self._see(stream, now)
        if order <= known.order:
            self.counts.replaced += 1
            return Offered.TOO_OLD
        known.order = order
        verdict = Offered.WAITS
        if self._take(stream) is not None:
            self.counts.replaced += 1
            verdict = Offered.REPLACED_ONE
        self._waiting[stream] = frame, size_bytes
        self._waiting_bytes += size_bytes
        if known.queued is None and not known.flying:
            self._queue(stream, known, now)
        while self._waiting_bytes > self._max_waiting_bytes and len(self._waiting) > 1:
            self._drop_waiting(next(iter(self._waiting)))
        return verdict

    def answered(self, ticket: int, now: float) -> bool:
        """The service answered; whether in time. An answer that is not must not be used."""
        if not self._end(ticket, now):
            self.counts.late += 1
            return False
        self._failures = 0
        self._paused_until = -math.inf
        return True

    def failed(self, ticket: int, now: float) -> bool:
        """The request failed; whether it had not been given up before."""
        if not self._end(ticket, now):
            return False
        self._pause(now)
        return True

    def due(self, now: float) -> list[Command[F]]:
        """What is to be done now."""
        commands: list[Command[F]] = []
        while self._requests:
            ticket, request = next(iter(self._requests.items()))
            if request.deadline > now:
                break
            self._free(ticket, now)
            self._pause(now)
            commands.append(GiveUp(ticket, request.stream))
        self._forget_unseen(now)
        while self._later and self._later[0].key <= now:
            stream = self._later.pop(0).stream
            self._queue(stream, self._streams[stream], now)
        while self._ready and self._open(now):
            commands.append(self._send(self._ready.pop(0).stream, now))
        return commands

    def next_at(self) -> float | None:
        """When `due` has something to do if nothing happens before; None: only after an event."""
        times: list[float] = []
        if self._requests:
            times.append(next(iter(self._requests.values())).deadline)
        if len(self._requests) < self._in_flight:
            if self._ready:
                times.append(self._paused_until)
            if self._later:
                times.append(max(self._later[0].key, self._paused_until))
        if self._streams:
            times.append(next(iter(self._streams.values())).seen_at + FORGET_AFTER_S)
        return min(times, default=None)

    def clear(self) -> None:
        """Let go of all that waits; requests under way go on."""
        for stream in list(self._waiting):
            self._drop_waiting(stream)

    def _open(self, now: float) -> bool:
        """Whether the service may get one more frame now. What judges its health stands here."""
        return len(self._requests) < self._in_flight and now >= self._paused_until

    def _send(self, stream: str, now: float) -> SendFrame[F]:
        known = self._streams[stream]
        known.queued = None
        known.flying = True
        known.turn = self._next_turn()
        known.sampler.take(now)
        taken = self._take(stream)
        assert taken is not None, "a stream is queued only while a frame of it waits"
        self.counts.sent += 1
        self._tickets += 1
        deadline = now + self._timeout_s
        self._requests[self._tickets] = _Request(stream, deadline)
        return SendFrame(self._tickets, stream, taken[0], deadline)

    def _end(self, ticket: int, now: float) -> bool:
        """Free a request that ended by itself; past its deadline it is left to `due`, which gives it up."""
        request = self._requests.get(ticket)
        if request is None or now >= request.deadline:
            return False
        self._free(ticket, now)
        return True

    def _free(self, ticket: int, now: float) -> None:
        stream = self._requests.pop(ticket).stream
        known = self._streams[stream]
        known.flying = False
        if stream in self._waiting:
            self._queue(stream, known, now)

    def _pause(self, now: float) -> None:
        self._paused_until = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 16))
        self._failures += 1

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _see(self, stream: str, now: float) -> _Stream:
        known = self._streams.pop(stream, None)
        if known is None:
            if len(self._streams) >= self._max_streams:
                self._forget(next(name for name, other in self._streams.items() if not other.flying))
            known = _Stream(self._max_fps, self._next_turn())
        known.seen_at = now
        self._streams[stream] = known
        return known

    def _forget_unseen(self, now: float) -> None:
        while self._streams:
            stream, known = next(iter(self._streams.items()))
            if known.seen_at + FORGET_AFTER_S > now:
                return
            if known.flying:  # kept until it lands, and looked at again after the same time
                self._drop_waiting(stream)
                self._see(stream, now)
            else:
                self._forget(stream)

    def _forget(self, stream: str) -> None:
        self._drop_waiting(stream)
        del self._streams[stream]

    def _take(self, stream: str) -> tuple[F, int] | None:
        taken = self._waiting.pop(stream, None)
        if taken is not None:
            self._waiting_bytes -= taken[1]
        return taken

    def _drop_waiting(self, stream: str) -> None:
        if self._take(stream) is None:
            return
        self.counts.dropped += 1
        known = self._streams[stream]
        if known.queued is not None:
            for queue in (self._ready, self._later):
                at = bisect.bisect_left(queue, known.queued)
                if at < len(queue) and queue[at] == known.queued:
                    del queue[at]
                    break
            known.queued = None

    def _queue(self, stream: str, known: _Stream, now: float) -> None:
        at = known.sampler.due_at()
        if at <= now:
            known.queued = _Place(known.turn, stream)
            bisect.insort(self._ready, known.queued)
        else:
            known.queued = _Place(at, stream)
            bisect.insort(self._later, known.queued)
