"""Which frame goes to the ML service next, and when. Pure: events and `now` in, commands and verdicts out.

Per stream there is one slot (the newest frame wins), at most one request under way, and a rate. Over the streams there
are fair turns: the stream that was served longest ago goes first. A frame that is too old is not sent, a request has a
deadline. How many requests may be under way, and where, `endpoints` says. A stream whose frames the service refuses is
backed off (`refusals`): all such streams together get a small share of the turns, one request at a time.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from watchout.common.media.drop_policy import STANDALONE, FrameKind
from watchout.common.media.rate import Sampler
from watchout.mlbridge.coverage import Coverage
from watchout.mlbridge.failover import Failover, Turn
from watchout.mlbridge.refusals import (
    ANSWERS_LAST_S,
    LATE_TIMES,
    LONGEST_RETRY_GAP_S,
    RETRY_SHARE,
    STRIKES,
    Blame,
    LastAnswers,
    Trouble,
)

#: A stream of which nothing came for so long is forgotten, and its waiting frame with it.
FORGET_AFTER_S: Final = 60.0
#: The coverage of a stream is told for so long after its newest frame.
TOLD_FOR_S: Final = 10.0
#: Frames that wait may hold so many bytes together; past it the one that waits longest is dropped.
MAX_WAITING_BYTES: Final = 256 << 20
#: Frames under way may have so many bytes together; a larger one goes alone.
MAX_IN_FLIGHT_BYTES: Final = 64 << 20

F = TypeVar("F")

#: What tells a newer frame of a stream from an older one: the claim's term, then the frame id.
Order = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SendFrame(Generic[F]):
    """Show this frame to the endpoint of this number; its answer counts until `deadline`.

    `came_at` is when the frame came to the bridge. With `copy` the frame goes to another endpoint as well, and only
    whether it is answered is of interest. With `apart` a frame of this stream failed before: it must share no
    connection and no request with others, so that none of them fails with it.
    """

    ticket: int
    stream: str
    frame: F
    deadline: float
    came_at: float
    endpoint: int = 0
    copy: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The deadline of this request is past: let go of it, its answer no longer counts."""

    ticket: int
    stream: str
    blame: Blame = Blame.SERVICE


Command = SendFrame[F] | GiveUp


class Offered(enum.Enum):
    """What became of an offered frame."""

    WAITS = "waits"
    REPLACED_ONE = "it waits, in the place of an older one"
    OVERTAKEN = "a newer or the same frame was offered before"
    TOO_OLD = "it came too late"
    DEPENDENT = "it cannot be decoded without the frame before it"


class Answered(enum.Enum):
    """What an answer is good for."""

    COUNTS = "it counts"
    COPY = "it shows that the endpoint is there; another endpoint has the same frame"
    LATE = "it is past its deadline, and must not be used"


@dataclass(slots=True)
class Counts:
    """Every offered frame is counted once: ``offered == sent + not_sent`` + those that wait.

    Why a frame was not sent: `replaced`: a newer one of its stream was there first. `too_old`: it was past the age
    limit before its turn. `away`: one of these two while no endpoint was to be had. `backed_off`: one of these two
    while its stream was backed off. `over_bytes`: it waited longest when too many bytes waited. `forgotten`: its stream
    was, or the bridge ended. `copies`: sent beside, to try an endpoint. `late`: answers after their deadline.
    `refused`: sent, and refused by the service for what they are. `dependent`: a delta frame, which a service that
    gets single frames cannot decode.
    """

    offered: int = 0
    sent: int = 0
    replaced: int = 0
    too_old: int = 0
    away: int = 0
    backed_off: int = 0
    over_bytes: int = 0
    forgotten: int = 0
    copies: int = 0
    late: int = 0
    refused: int = 0
    dependent: int = 0

    @property
    def not_sent(self) -> int:
        """Frames that were let go."""
        kept_back = self.replaced + self.too_old + self.away + self.backed_off
        return kept_back + self.over_bytes + self.forgotten + self.dependent


class _Stream:
    """What is known of one stream. `turn` is the number of its last turn, `queued` its place among those that wait."""

    __slots__ = ("coverage", "flying", "order", "queued", "sampler", "seen_at", "trouble", "turn")

    def __init__(self, max_fps: float, turn: int, now: float) -> None:
        self.sampler = Sampler(max_fps)
        self.coverage = Coverage(now)
        self.turn = turn
        self.order: Order = (-1, -1)
        self.seen_at = now
        self.flying = False
        self.queued: _Place | None = None
        self.trouble = Trouble()


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    key: float
    stream: str


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[F]):
    frame: F
    size_bytes: int
    came_at: float


@dataclass(frozen=True, slots=True)
class _Request:
    """`retry`: its stream was backed off when it was sent. `trial`: it was on trial (`Trouble`). `apart`: as sent."""

    stream: str
    deadline: float
    turn: Turn
    copy: bool
    size_bytes: int
    retry: bool
    trial: bool
    apart: bool


class Scheduler(Generic[F]):
    """The turns of one ML service. Call `due` after each event, and at `next_at`."""

    def __init__(
        self,
        endpoints: Failover,
        *,
        max_fps: float,
        max_age_s: float,
        timeout_s: float,
        max_streams: int,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES,
    ) -> None:
        self.counts = Counts()
        self.endpoints = endpoints
        self._max_fps = max_fps
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        most_in_flight = sum(endpoint.limiter.bound for endpoint in endpoints.each)
        self._max_streams = max(max_streams, most_in_flight + 1)  # so that there is always one that can be let go
        self._max_waiting_bytes = max_waiting_bytes
        self._max_in_flight_bytes = max_in_flight_bytes
        self._streams: OrderedDict[str, _Stream] = OrderedDict()  # the one not seen for longest is first
        self._waiting: OrderedDict[str, _Waiting[F]] = OrderedDict()  # the frame that waits longest is first
        self._waiting_bytes = 0
        self._latest_came_at = -math.inf
        self._ready: list[_Place] = []  # by turn: may go now
        self._ready_on_trial: list[_Place] = []  # by turn: may go now, of streams that are on trial
        self._later: list[_Place] = []  # by time: may go then
        self._retries: list[_Place] = []  # of streams that are backed off, by time: may go now
        self._retry_under_way = False
        self._trials = 0  # under way, of streams that are on trial, retries included
        self._trial_from = -math.inf  # no trial before where there is room for one only
        self._retry_from = -math.inf  # no retry before, so that all of them have no more than their share
        self._last_answers = [LastAnswers() for _ in endpoints.each]
        self._requests: OrderedDict[int, _Request] = OrderedDict()  # by deadline, as all have the same timeout
        self._in_flight_bytes = 0
        self._now = -math.inf
        self._turns = 0
        self._tickets = 0

    @property
    def in_flight(self) -> int:
        """Requests under way, at all endpoints."""
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
    def in_flight_bytes(self) -> int:
        """Bytes of the frames under way."""
        return self._in_flight_bytes

    @property
    def streams(self) -> int:
        """Streams that are remembered."""
        return len(self._streams)

    def offer(
        self,
        stream: str,
        order: Order,
        frame: F,
        size_bytes: int,
        now: float,
        *,
        came_at: float | None = None,
        kind: FrameKind = STANDALONE,
    ) -> Offered:
        """A frame came; `came_at` when that was not now.

        Each frame goes to the service by itself, in a request to any of the endpoints, and most are replaced before
        their turn. So only frames that can be decoded by themselves are sent.
        """
        self.counts.offered += 1
        known = self._see(stream, now)
        if order <= known.order:
            self.counts.replaced += 1
            return Offered.OVERTAKEN
        known.order = order
        known.coverage.seen(now)
        if not kind.is_key:
            self.counts.dependent += 1
            return Offered.DEPENDENT
        # Frames come in order, so none came before those that wait; and so the first of them is the oldest.
        came_at = self._latest_came_at = max(now if came_at is None else came_at, self._latest_came_at)
        if now - came_at >= self._max_age_s:
            self.counts.too_old += 1
            return Offered.TOO_OLD
        verdict = Offered.WAITS
        if known.trouble.offered(size_bytes):
            self._unqueue(known)
        if self._take(stream) is not None:
            if not self._count_excused(known):
                self.counts.replaced += 1
            verdict = Offered.REPLACED_ONE
        self._waiting[stream] = _Waiting(frame, size_bytes, came_at)
        self._waiting_bytes += size_bytes
        if known.queued is None and not known.flying:
            self._queue(stream, known, now)
        while self._waiting_bytes > self._max_waiting_bytes and len(self._waiting) > 1:
            self._let_go(next(iter(self._waiting)))
            self.counts.over_bytes += 1
        return verdict

    def answered(self, ticket: int, now: float) -> Answered:
        """The service answered; what the answer is good for."""
        request = self._end(ticket, now)
        if request is None:
            self.counts.late += 1
            return Answered.LATE
        if request.apart:
            self.endpoints.answered_apart(request.turn, now)
        else:
            self.endpoints.answered(request.turn, now, may_measure=self._trials <= self._aside(now))
        if request.copy:
            return Answered.COPY
        self._last_answers[request.turn.endpoint].add(request.stream, request.turn.sent_at, now)
        known = self._streams[request.stream]
        known.trouble.clear()
        known.coverage.looked(now)
        self._land(request, now)
        return Answered.COUNTS

    def failed(
        self, ticket: int, now: float, retry_after_s: float | None = None, blame: Blame = Blame.SERVICE
    ) -> Blame | None:
        """The request failed; whose fault that is in the end, None: it had been given up before.

        `retry_after_s`: when the service wants to be asked again. `blame` is what the failure by itself says of whose
        fault it is.
        """
        request = self._end(ticket, now)
        return None if request is None else self._fail(request, now, retry_after_s, blame)

    def due(self, now: float) -> list[Command[F]]:
        """What is to be done now."""
        commands: list[Command[F]] = []
        self._now = now
        while self._requests:
            ticket, request = next(iter(self._requests.items()))
            if request.deadline > now:
                break
            self._free(ticket, now)
            commands.append(GiveUp(ticket, request.stream, self._fail(request, now, None, Blame.UNSURE)))
        self._forget_unseen(now)
        self._let_go_of_old(now)
        while self._later and self._later[0].key <= now:
            stream = self._later.pop(0).stream
            self._queue(stream, self._streams[stream], now)
        while (place := self._next(now)) is not None and (turns := self.endpoints.begin(now, self._aside(now))):
            known = self._streams[place.stream]
            self._unqueue(known)
            commands += self._send(place.stream, known, turns, now)
        return commands

    def next_at(self) -> float | None:
        """When `due` has something to do if nothing happens after its last call; None: only after an event."""
        now = self._now
        times: list[float] = []
        if self._requests:
            times.append(next(iter(self._requests.values())).deadline)
        if self._waiting:
            times.append(self._old_at())
            times.extend(at for at in self._stuck_at() if now < at < math.inf)
            opens_at = self.endpoints.opens_at(now, self._aside(now))
            if opens_at is not None:
                if self._first_fitting(self._ready) is not None:
                    times.append(opens_at)
                if self._first_fitting(self._ready_on_trial) is not None:
                    times.append(max(self._trial_opens_at(now), opens_at))
                if self._retries and not self._retry_under_way and self._fits(self._retries[0]):
                    times.append(max(self._retry_from, opens_at, self._trial_opens_at(now, retry=True)))
                if self._later:
                    times.append(max(self._later[0].key, opens_at))
        if self._streams:
            times.append(next(iter(self._streams.values())).seen_at + FORGET_AFTER_S)
        return min(times, default=None)

    def coverage(self, now: float) -> list[tuple[str, float]]:
        """The coverage of each stream that is there."""
        found: list[tuple[str, float]] = []
        for stream, known in reversed(self._streams.items()):
            if known.seen_at < now - TOLD_FOR_S:
                break
            found.append((stream, known.coverage.share(now)))
        return found

    def backed_off(self, now: float) -> list[str]:
        """The streams of `coverage` that are backed off."""
        return [
            stream
            for stream, known in self._streams.items()
            if known.seen_at >= now - TOLD_FOR_S and known.trouble.retry_at is not None
        ]

    def clear(self) -> None:
        """Let go of all that waits; requests under way go on."""
        for stream in list(self._waiting):
            self._let_go(stream)
            self.counts.forgotten += 1

    def _next(self, now: float) -> _Place | None:
        """Whose turn it is, if there is room for it; None: nobody's."""
        ready = self._next_ready(now)
        if (
            not self._retries
            or self._retry_under_way
            or not self._fits(self._retries[0])
            or self._trial_opens_at(now, retry=True) > now
        ):
            return ready
        # Retries have their share; beyond it they get what nobody else wants. A stream that is served probes better.
        if ready is None and not self._requests:
            return self._retries[0]
        return self._retries[0] if now >= self._retry_from and not (ready and self.endpoints.away) else ready

    def _next_ready(self, now: float) -> _Place | None:
        """The one of those that may go now that was served longest ago.

        Streams on trial leave room to the others. While no endpoint is to be had they are probes only where there is
        no other to send: if theirs are the frames that fail, the service is not found to be back by them.
        """
        ready = self._first_fitting(self._ready)
        if ready is not None and self.endpoints.away:
            return ready
        trial = self._first_fitting(self._ready_on_trial, proven_first=self.endpoints.away)
        if trial is None or self._trial_opens_at(now) > now:
            return ready
        return trial if ready is None else min(ready, trial)

    def _first_fitting(self, queue: list[_Place], *, proven_first: bool = False) -> _Place | None:
        found = None
        for place in queue:
            if self._fits(place):
                if not proven_first or self._streams[place.stream].trouble.is_proven:
                    return place
                found = found or place
        return found

    def _stuck_at(self) -> Iterator[float]:
        """From when each request of a stream on trial at the endpoint in use counts as one that is never answered."""
        if self._trials:
            in_use = self.endpoints.in_use
            last = self._last_answers[in_use]
            for request in self._requests.values():
                if request.trial and request.turn.endpoint == in_use:
                    yield last.stuck_at(request.turn.sent_at)

    def _aside(self, now: float) -> int:
        """Requests under way that take no room from others; half of what may be under way at most."""
        most = self.endpoints.each[self.endpoints.in_use].limiter.bound // 2
        return min(most, sum(at <= now for at in self._stuck_at()))

    def _late(self, now: float) -> int:
        """Requests of streams on trial that take longer than others did, and may yet be answered."""
        in_use = self.endpoints.in_use
        last = self._last_answers[in_use]
        since = now - LATE_TIMES * last.took_s
        return sum(
            request.trial and request.turn.endpoint == in_use and request.turn.sent_at < since
            for request in self._requests.values()
        ) - self._aside(now)

    def _trial_opens_at(self, now: float, *, retry: bool = False) -> float:
        """When a stream on trial may be shown, as far as the others are concerned; infinity: after an event.

        While others are answered, such streams have half of the room, apart from those whose time to be answered is not
        over, and half of the time where that is room for one; none while the latency alone is measured. A `retry` has
        its own share.
        """
        others_until = self._last_answers[self.endpoints.in_use].came.at + ANSWERS_LAST_S
        if self.endpoints.away or now >= others_until:
            return -math.inf
        limiter = self.endpoints.each[self.endpoints.in_use].limiter
        if limiter.measures(now):
            return others_until
        if retry or not self._trials:
            return -math.inf if retry or limiter.limit > 3 else min(others_until, self._trial_from)
        under_way = self._trials - self._aside(now)
        if under_way >= max(1, limiter.limit - 1) or self._late(now) >= max(1, limiter.limit // 2):
            return others_until
        return -math.inf if limiter.limit > 3 else min(others_until, self._trial_from)

    def _fits(self, place: _Place) -> bool:
        """Whether its frame may be under way beside those that are."""
        size_bytes = self._waiting[place.stream].size_bytes
        return not self._requests or self._in_flight_bytes + size_bytes <= self._max_in_flight_bytes

    def _send(self, stream: str, known: _Stream, turns: list[Turn], now: float) -> list[Command[F]]:
        known.flying = True
        known.turn = self._next_turn()
        known.sampler.take(now)
        taken = self._take(stream)
        assert taken is not None, "a stream is queued only while a frame of it waits"
        self.counts.sent += 1
        retry = known.trouble.retry_at is not None
        self._retry_under_way = self._retry_under_way or retry
        trial = known.trouble.on_trial
        apart = not known.trouble.is_clear
        self._trials += trial
        deadline = now + self._timeout_s
        commands: list[Command[F]] = []
        for turn in turns:
            copy = turn is not turns[-1]
            self.counts.copies += copy
            self._tickets += 1
            self._in_flight_bytes += taken.size_bytes
            self._requests[self._tickets] = _Request(
                stream,
                deadline,
                turn,
                copy,
                taken.size_bytes,
                retry and not copy,
                trial and not copy,
                apart,
            )
            commands.append(
                SendFrame(
                    self._tickets, stream, taken.frame, deadline, taken.came_at, turn.endpoint, copy,
                    apart=apart,
                )
            )  # fmt: skip
        return commands

    def _end(self, ticket: int, now: float) -> _Request | None:
        """Take out a request that ended by itself; past its deadline it is left to `due`, which gives it up."""
        request = self._requests.get(ticket)
        if request is None or now >= request.deadline:
            return None
        self._free(ticket, now)
        return request

    def _free(self, ticket: int, now: float) -> None:
        request = self._requests.pop(ticket)
        self._in_flight_bytes -= request.size_bytes
        self._trials -= request.trial
        if request.retry:
            self._retry_under_way = False
            took_s = now - request.turn.sent_at
            self._retry_from = now + min(LONGEST_RETRY_GAP_S, took_s * (1 / RETRY_SHARE - 1))

    def _fail(self, request: _Request, now: float, retry_after_s: float | None, blame: Blame) -> Blame:
        """Judge a request that is taken out, and let its stream go on; whose fault it is."""
        blame = self._judge(request, now, blame)
        if blame is Blame.SERVICE:
            self.endpoints.failed(request.turn, now, retry_after_s)
        else:
            self.endpoints.refused(request.turn, now)
        if request.trial and not request.retry and blame is not Blame.SERVICE:
            self._trial_from = now + now - request.turn.sent_at
        if not request.copy:
            if blame is Blame.FRAME:
                self.counts.refused += 1
                self._streams[request.stream].trouble.refuse(request.size_bytes, now)
            self._land(request, now)
        return blame

    def _judge(self, request: _Request, now: float, blame: Blame) -> Blame:
        if blame is Blame.OTHER:  # a probe that tells nothing has to be made again
            return Blame.SERVICE if request.turn.probe else blame
        if blame is not Blame.UNSURE or request.copy:
            return Blame.SERVICE if blame is Blame.UNSURE else blame
        trouble = self._streams[request.stream].trouble
        trouble.strike(now)
        if request.turn.probe:
            return Blame.SERVICE
        sent_at, last = request.turn.sent_at, self._last_answers[request.turn.endpoint]
        others_at = last.came.but(request.stream)
        if trouble.strikes >= STRIKES and others_at >= trouble.struck_at:
            return Blame.FRAME
        if not trouble.is_proven and now >= request.deadline and last.sent.but(request.stream) > sent_at:
            return Blame.FRAME  # of one that was sent later the service made an end in time, of this one it never did
        # One that was answered while this one was under way shows that the service works. A stream on trial has to be
        # shown when others are not, and is believed to be the cause until nothing was answered for as long again.
        since = sent_at - self._timeout_s if request.trial else sent_at
        return Blame.UNSURE if others_at >= since else Blame.SERVICE

    def _land(self, request: _Request, now: float) -> None:
        """The stream of a request, not a copy, may have its next turn."""
        known = self._streams[request.stream]
        known.flying = False
        if request.stream in self._waiting:
            self._queue(request.stream, known, now)

    def _old_at(self) -> float:
        """When the frame that waits longest is too old."""
        return next(iter(self._waiting.values())).came_at + self._max_age_s

    def _let_go_of_old(self, now: float) -> None:
        while self._waiting and self._old_at() <= now:
            stream = next(iter(self._waiting))
            self._let_go(stream)
            if not self._count_excused(self._streams[stream]):
                self.counts.too_old += 1

    def _count_excused(self, known: _Stream) -> bool:
        """Count a frame that could not be sent whatever the service's speed; False: that is not why."""
        if self.endpoints.away:
            self.counts.away += 1
        elif known.trouble.retry_at is not None:
            self.counts.backed_off += 1
        else:
            return False
        return True

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _see(self, stream: str, now: float) -> _Stream:
        known = self._streams.pop(stream, None)
        if known is None:
            if len(self._streams) >= self._max_streams:
                self._forget(next(name for name, other in self._streams.items() if not other.flying))
            known = _Stream(self._max_fps, self._next_turn(), now)
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

    def _drop_waiting(self, stream: str) -> None:
        if self._let_go(stream):
            self.counts.forgotten += 1

    def _take(self, stream: str) -> _Waiting[F] | None:
        taken = self._waiting.pop(stream, None)
        if taken is not None:
            self._waiting_bytes -= taken.size_bytes
        return taken

    def _let_go(self, stream: str) -> bool:
        """Take the frame that waits out of its slot and its queue; whether there was one. Its turn stays."""
        if self._take(stream) is None:
            return False
        self._unqueue(self._streams[stream])
        return True

    def _unqueue(self, known: _Stream) -> None:
        if known.queued is None:
            return
        for queue in (self._ready, self._ready_on_trial, self._later, self._retries):
            at = bisect.bisect_left(queue, known.queued)
            if at < len(queue) and queue[at] == known.queued:
                del queue[at]
                break
        known.queued = None

    def _queue(self, stream: str, known: _Stream, now: float) -> None:
        at = known.sampler.due_at()
        retry_at = known.trouble.retry_at
        if retry_at is not None and max(at, retry_at) <= now:
            known.queued = _Place(retry_at, stream)
            bisect.insort(self._retries, known.queued)
            return
        if retry_at is not None:
            at = max(at, retry_at)
        if at <= now:
            known.queued = _Place(known.turn, stream)
            bisect.insort(self._ready_on_trial if known.trouble.on_trial else self._ready, known.queued)
        else:
            known.queued = _Place(at, stream)
            bisect.insort(self._later, known.queued)
