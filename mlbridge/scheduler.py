"""Decides which frame is sent to the ML service next, and when. Pure: events and `now` in, commands and outcomes out.

Of each stream one frame waits (the newest wins) and at most one request is in flight, at a limited rate. Among
streams, the one whose last turn is longest ago is next. A frame over the age limit is dropped, a request has a
deadline. `Failover` decides how many requests may be in flight, and at which endpoint. A stream whose frames the
service refuses is backed off (`watchout.mlbridge.refusals`): all such streams share a small part of the time, one
request at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from watchout.common.media.drop_policy import STANDALONE, FrameKind
from watchout.mlbridge.commands import CancelRequest, Command, FrameCounts, OfferOutcome, ResultOutcome, SendFrame
from watchout.mlbridge.failover import Failover, Turn
from watchout.mlbridge.refusals import LONGEST_RETRY_GAP_S, RETRY_SHARE, STRIKES, Blame
from watchout.mlbridge.requests_in_flight import RequestInFlight, RequestsInFlight
from watchout.mlbridge.scheduled_stream import FrameOrder, ScheduledStream
from watchout.mlbridge.turn_queues import QueuedStream, TurnQueues, first_fitting
from watchout.mlbridge.waiting_frames import FramesForService, WaitingFrame

#: A stream without frames for this long is forgotten, and its waiting frame dropped, in seconds.
FORGET_AFTER_S: Final = 60.0
#: Coverage of a stream is reported until this long after its newest frame, in seconds.
REPORTED_FOR_S: Final = 10.0
#: Most bytes of waiting frames; past it the one that waits longest is dropped.
MAX_WAITING_BYTES: Final = 256 << 20
#: Most bytes of frames in flight; a larger frame is sent when nothing else is in flight.
MAX_IN_FLIGHT_BYTES: Final = 64 << 20

F = TypeVar("F")


class Scheduler(Generic[F]):
    """The schedule of one ML service. The dispatcher calls `due` after each event, and at the time `next_at` returns.

    All times are seconds of one monotonic clock, which the caller reads.

    Args:
        endpoints: the endpoints of the service.
        max_fps: most frames per second of each stream.
        max_age_s: age over which a waiting frame is dropped.
        timeout_s: deadline of a request.
        max_streams: most streams that are remembered; past it the one without frames for longest is forgotten.
        max_waiting_bytes: most bytes of waiting frames.
        max_in_flight_bytes: most bytes of frames in flight.
    """

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
        self.counts = FrameCounts()
        self.endpoints = endpoints
        self._max_fps = max_fps
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        most_in_flight = sum(endpoint.limiter.bound for endpoint in endpoints.each)
        self._max_streams = max(max_streams, most_in_flight + 1)  # one of them can always be forgotten
        self._max_waiting_bytes = max_waiting_bytes
        self._max_in_flight_bytes = max_in_flight_bytes
        self._streams: OrderedDict[str, ScheduledStream] = OrderedDict()  # the one not seen for longest is first
        self._waiting = FramesForService[F]()
        self._latest_came_at = -math.inf
        self._queues = TurnQueues()
        self._requests = RequestsInFlight(endpoints)
        self._retry_from = -math.inf  # no retry before, so that retries keep to their share of the time
        self._now = -math.inf
        self._turns = 0
        self._tickets = 0

    @property
    def in_flight(self) -> int:
        """Number of requests in flight, at all endpoints."""
        return len(self._requests)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the frames in flight."""
        return self._requests.bytes

    @property
    def waiting(self) -> int:
        """Number of waiting frames."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the waiting frames."""
        return self._waiting.bytes

    @property
    def streams(self) -> int:
        """Number of streams that are remembered."""
        return len(self._streams)

    def offer(
        self,
        stream: str,
        order: FrameOrder,
        frame: F,
        size_bytes: int,
        now: float,
        *,
        came_at: float | None = None,
        kind: FrameKind = STANDALONE,
    ) -> OfferOutcome:
        """Take in a frame.

        Each frame is sent in a request of its own to any of the endpoints, and most are replaced before their turn. So
        only frames that can be decoded by themselves are sent.

        Args:
            stream: the stream id.
            order: term and frame id; a frame that is not newer than the last one is dropped.
            frame: the frame; returned in `SendFrame`.
            size_bytes: size of its picture.
            now: the current time.
            came_at: when the bridge received the frame; None: now.
            kind: whether it can be decoded by itself.
        """
        self.counts.offered += 1
        known = self._see(stream, now)
        known.counts.offered += 1
        if not known.is_newer(order, now):
            self.counts.replaced += 1
            known.counts.replaced += 1
            return OfferOutcome.OVERTAKEN
        known.coverage.on_frame(now)
        if not kind.is_key:
            self.counts.dependent += 1
            known.counts.dependent += 1
            return OfferOutcome.DEPENDENT
        # Frames are offered in the order in which they came, so the first one that waits is the oldest.
        came_at = self._latest_came_at = max(now if came_at is None else came_at, self._latest_came_at)
        if now - came_at >= self._max_age_s:
            self.counts.too_old += 1
            known.counts.too_old += 1
            return OfferOutcome.TOO_OLD
        outcome = OfferOutcome.WAITS
        if known.health.ends_pause(size_bytes):
            self._unqueue(known)
        if self._waiting.take(stream) is not None:
            if not self._count_excused(known):
                self.counts.replaced += 1
                known.counts.replaced += 1
            outcome = OfferOutcome.REPLACED_ONE
        self._waiting.put(stream, WaitingFrame(frame, size_bytes, came_at))
        if known.queued is None and not known.in_flight:
            self._queue(stream, known, now)
        while self._waiting.bytes > self._max_waiting_bytes and len(self._waiting) > 1:
            oldest = self._waiting.oldest()
            assert oldest is not None
            self._drop(oldest[0])
            self.counts.over_bytes += 1
            self._streams[oldest[0]].counts.over_bytes += 1
        return outcome

    def on_result(self, ticket: int, now: float) -> ResultOutcome:
        """Handle a result of the service. Returns how to use it."""
        request = self._end(ticket, now)
        if request is None:
            self.counts.late += 1
            return ResultOutcome.LATE
        if request.isolated:
            self.endpoints.on_isolated_result(request.turn, now)
        else:
            may_measure = self._requests.trials <= self._requests.stuck(now)
            self.endpoints.on_result(request.turn, now, may_measure=may_measure)
        if request.copy:
            return ResultOutcome.COPY
        self._requests.latest[request.turn.endpoint].add(request.stream, request.turn.sent_at, now)
        known = self._streams[request.stream]
        known.health.clear()
        known.counts.answered += 1
        known.coverage.on_result(now)
        self._release(request, now)
        return ResultOutcome.COUNTS

    def on_failure(
        self, ticket: int, now: float, retry_after_s: float | None = None, blame: Blame = Blame.SERVICE
    ) -> Blame | None:
        """Handle a failed request.

        Args:
            ticket: number of the request.
            now: the current time.
            retry_after_s: seconds after which the service wants the next request, if it said so.
            blame: what the failure by itself shows.

        Returns:
            What the failure is attributed to; None: the request was cancelled before.
        """
        request = self._end(ticket, now)
        return None if request is None else self._fail(request, now, retry_after_s, blame)

    def due(self, now: float) -> list[Command[F]]:
        """Return what has to be done now, in order."""
        commands: list[Command[F]] = []
        self._now = now
        while (first := self._requests.first()) is not None and first[1].deadline <= now:
            ticket, request = first
            self._remove(ticket, now)
            commands.append(CancelRequest(ticket, request.stream, self._fail(request, now, None, Blame.UNSURE)))
        self._forget_unseen(now)
        self._drop_old(now)
        while (stream := self._queues.pop_due(now)) is not None:
            self._queue(stream, self._streams[stream], now)
        while (place := self._next(now)) is not None:
            turns = self.endpoints.begin(now, self._requests.stuck(now))
            if not turns:
                break
            known = self._streams[place.stream]
            self._unqueue(known)
            commands += self._send(place.stream, known, turns, now)
        return commands

    def next_at(self) -> float | None:
        """Return when to call `due` again if no event happens before; None: only after an event."""
        now, queues = self._now, self._queues
        times: list[float] = []
        if (first := self._requests.first()) is not None:
            times.append(first[1].deadline)
        if (old_at := self._old_at()) is not None:
            times.append(old_at)
            times.extend(at for at in self._requests.stuck_at() if now < at < math.inf)
            opens_at = self.endpoints.opens_at(now, self._requests.stuck(now))
            if opens_at is not None:
                if first_fitting(queues.ready, self._fits) is not None:
                    times.append(opens_at)
                if first_fitting(queues.ready_on_trial, self._fits) is not None:
                    times.append(max(self._requests.trial_opens_at(now), opens_at))
                if queues.retries and not self._requests.retry_in_flight and self._fits(queues.retries[0]):
                    times.append(max(self._retry_from, opens_at, self._requests.trial_opens_at(now, retry=True)))
                if queues.later:
                    times.append(max(queues.later[0].key, opens_at))
        if self._streams:
            times.append(next(iter(self._streams.values())).seen_at + FORGET_AFTER_S)
        return min(times, default=None)

    def coverage(self, now: float) -> list[tuple[str, float]]:
        """Return the coverage, from 0 to 1, of each stream with a frame in the last `REPORTED_FOR_S`."""
        found: list[tuple[str, float]] = []
        for stream, known in reversed(self._streams.items()):
            if known.seen_at < now - REPORTED_FOR_S:
                break
            found.append((stream, known.coverage.share(now)))
        return found

    def backed_off(self, now: float) -> list[str]:
        """Return the streams of `coverage` that are backed off."""
        return [
            stream
            for stream, known in self._streams.items()
            if known.seen_at >= now - REPORTED_FOR_S and known.health.retry_at is not None
        ]

    def stream(self, stream: str) -> ScheduledStream | None:
        """Return what is remembered of a stream; None: nothing."""
        return self._streams.get(stream)

    def is_waiting(self, stream: str) -> bool:
        """Return whether a frame of this stream waits."""
        return stream in self._waiting

    def names(self) -> list[str]:
        """Return the streams that are remembered, the one seen last first."""
        return list(reversed(self._streams))

    def drop_waiting(self) -> None:
        """Drop all waiting frames. Requests in flight continue."""
        for stream in self._waiting.streams():
            self._drop(stream)
            self.counts.forgotten += 1

    # ── whose turn it is ─────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, now: float) -> QueuedStream | None:
        """Return the stream whose frame is sent next, if there is room for it."""
        ready, retries = self._next_ready(now), self._queues.retries
        if (
            not retries
            or self._requests.retry_in_flight
            or not self._fits(retries[0])
            or self._requests.trial_opens_at(now, retry=True) > now
        ):
            return ready
        # Retries have their share, and beyond it what no other stream uses. A probe uses a stream that gets results.
        if ready is None and not self._requests:
            return retries[0]
        return retries[0] if now >= self._retry_from and not (ready and self.endpoints.away) else ready

    def _next_ready(self, now: float) -> QueuedStream | None:
        """Return the ready stream whose last turn is longest ago.

        Streams on trial leave room to others. While no endpoint responds, their frames are probes only if there are no
        others: when their frames are the ones that fail, the service would not be found to be back.
        """
        ready = first_fitting(self._queues.ready, self._fits)
        if ready is not None and self.endpoints.away:
            return ready
        preferred = self._is_proven if self.endpoints.away else None
        trial = first_fitting(self._queues.ready_on_trial, self._fits, preferred)
        if trial is None or self._requests.trial_opens_at(now) > now:
            return ready
        return trial if ready is None else min(ready, trial)

    def _is_proven(self, place: QueuedStream) -> bool:
        return self._streams[place.stream].health.is_proven

    def _fits(self, place: QueuedStream) -> bool:
        """Return whether the bytes of the stream's frame fit beside those in flight."""
        size_bytes = self._waiting[place.stream].size_bytes
        return not self._requests or self._requests.bytes + size_bytes <= self._max_in_flight_bytes

    def _queue(self, stream: str, known: ScheduledStream, now: float) -> None:
        health = known.health
        known.queued = self._queues.add(
            stream, due_at=known.sampler.due_at(), retry_at=health.retry_at, turn=known.turn,
            on_trial=health.on_trial, now=now,
        )  # fmt: skip

    def _unqueue(self, known: ScheduledStream) -> None:
        if known.queued is not None:
            self._queues.remove(known.queued)
            known.queued = None

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, stream: str, known: ScheduledStream, turns: list[Turn], now: float) -> list[Command[F]]:
        """Take the stream's frame out and return the commands that send it: one, and one for each copy."""
        known.in_flight = True
        known.turn = self._next_turn()
        known.sampler.take(now)
        taken = self._waiting.take(stream)
        assert taken is not None, "a stream is queued only while a frame of it waits"
        self.counts.sent += 1
        known.counts.sent += 1
        health = known.health
        retry, trial, isolated = health.retry_at is not None, health.on_trial, not health.is_clear
        deadline = now + self._timeout_s
        commands: list[Command[F]] = []
        for turn in turns:
            copy = turn is not turns[-1]
            self.counts.copies += copy
            self._tickets += 1
            request = RequestInFlight(
                stream, deadline, turn, copy, taken.size_bytes, retry and not copy, trial and not copy, isolated
            )
            self._requests.add(self._tickets, request)
            commands.append(
                SendFrame(
                    self._tickets, stream, taken.frame, deadline, taken.came_at, turn.endpoint, copy,
                    isolated=isolated,
                )
            )  # fmt: skip
        return commands

    def _end(self, ticket: int, now: float) -> RequestInFlight | None:
        """Take out a request that ended by itself. After its deadline it is left to `due`, which cancels it."""
        request = self._requests.get(ticket)
        if request is None or now >= request.deadline:
            return None
        self._remove(ticket, now)
        return request

    def _remove(self, ticket: int, now: float) -> None:
        request = self._requests.remove(ticket)
        if request.retry:
            took_s = now - request.turn.sent_at
            self._retry_from = now + min(LONGEST_RETRY_GAP_S, took_s * (1 / RETRY_SHARE - 1))

    def _fail(self, request: RequestInFlight, now: float, retry_after_s: float | None, blame: Blame) -> Blame:
        """Attribute the failure of a request that was taken out, and let its stream go on. Returns the attribution."""
        blame = self._attribute(request, now, blame)
        if blame is Blame.SERVICE:
            self.endpoints.on_failure(request.turn, now, retry_after_s)
        else:
            self.endpoints.on_refusal(request.turn, now)
        if request.trial and not request.retry and blame is not Blame.SERVICE:
            self._requests.trial_from = now + now - request.turn.sent_at
        if not request.copy:
            self._streams[request.stream].counts.failed += 1
            if blame is Blame.FRAME:
                self.counts.refused += 1
                self._streams[request.stream].health.refuse(request.size_bytes, now)
            self._release(request, now)
        return blame

    def _attribute(self, request: RequestInFlight, now: float, blame: Blame) -> Blame:
        """Return what a failure is attributed to, from what it shows by itself and from results of other streams."""
        if blame is Blame.OTHER:  # a probe that shows nothing has to be repeated
            return Blame.SERVICE if request.turn.probe else blame
        if blame is not Blame.UNSURE or request.copy:
            return Blame.SERVICE if blame is Blame.UNSURE else blame
        health = self._streams[request.stream].health
        health.strike(now)
        if request.turn.probe:
            return Blame.SERVICE
        sent_at, latest = request.turn.sent_at, self._requests.latest[request.turn.endpoint]
        others_at = latest.received.except_of(request.stream)
        if health.strikes >= STRIKES and others_at >= health.struck_at:
            return Blame.FRAME
        if not health.is_proven and now >= request.deadline and latest.sent.except_of(request.stream) > sent_at:
            return Blame.FRAME  # a frame that was sent later has its result; of this stream none was ever analysed
        # A result for another stream while this request was in flight shows that the service works. A frame on trial
        # is sent while no others are, and stays suspected until there was no result for as long as a request may take.
        since = sent_at - self._timeout_s if request.trial else sent_at
        return Blame.UNSURE if others_at >= since else Blame.SERVICE

    def _release(self, request: RequestInFlight, now: float) -> None:
        """Let the stream of a request that ended have its next turn."""
        known = self._streams[request.stream]
        known.in_flight = False
        if request.stream in self._waiting:
            self._queue(request.stream, known, now)

    # ── streams and waiting frames ───────────────────────────────────────────────────────────────────────────────

    def _see(self, stream: str, now: float) -> ScheduledStream:
        """Return the record of a stream that has a frame now; a new one if it is not remembered."""
        known = self._streams.pop(stream, None)
        if known is None:
            if len(self._streams) >= self._max_streams:
                self._forget(next(name for name, other in self._streams.items() if not other.in_flight))
            known = ScheduledStream(self._max_fps, self._next_turn(), now)
        known.seen_at = now
        self._streams[stream] = known
        return known

    def _forget_unseen(self, now: float) -> None:
        while self._streams:
            stream, known = next(iter(self._streams.items()))
            if known.seen_at + FORGET_AFTER_S > now:
                return
            if known.in_flight:  # kept until its request ends, and checked again after the same time
                self._drop_forgotten(stream)
                self._see(stream, now)
            else:
                self._forget(stream)

    def _forget(self, stream: str) -> None:
        self._drop_forgotten(stream)
        del self._streams[stream]

    def _drop_forgotten(self, stream: str) -> None:
        if self._drop(stream):
            self.counts.forgotten += 1

    def _drop(self, stream: str) -> bool:
        """Drop the waiting frame of a stream and take the stream out of its queue. Returns whether one waited."""
        if self._waiting.take(stream) is None:
            return False
        self._unqueue(self._streams[stream])
        return True

    def _old_at(self) -> float | None:
        """Return when the frame that waits longest reaches the age limit, None when nothing waits."""
        oldest = self._waiting.oldest()
        return None if oldest is None else oldest[1].came_at + self._max_age_s

    def _drop_old(self, now: float) -> None:
        while (oldest := self._waiting.oldest()) is not None and oldest[1].came_at + self._max_age_s <= now:
            stream = oldest[0]
            self._drop(stream)
            if not self._count_excused(self._streams[stream]):
                self.counts.too_old += 1
                self._streams[stream].counts.too_old += 1

    def _count_excused(self, known: ScheduledStream) -> bool:
        """Count a dropped frame that could not be sent however fast the service is. Returns False for other frames."""
        if self.endpoints.away:
            self.counts.away += 1
            known.counts.away += 1
        elif known.health.retry_at is not None:
            self.counts.backed_off += 1
            known.counts.backed_off += 1
        else:
            return False
        return True
