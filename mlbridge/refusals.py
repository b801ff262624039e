"""What a failed request is attributed to, and how a refused stream is backed off. Pure; times in seconds.

A service may refuse the frames of one stream (too large, of another format) and analyse all others. Such a stream is
sent less and less often, while breaker and concurrency limit of the endpoint stay as they are. Some failures do not
show their cause: a connection that ends, a status of 5xx, an unusable result, a timeout. They count against the
service, unless the same stream fails again while other streams get results.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: Pause of a stream after a refusal, in seconds. It doubles with each further one up to `LONGEST_PAUSE_S`.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
#: Failures in a row after which a stream is blamed, if other streams get results meanwhile.
STRIKES: Final = 2
#: Streams on trial leave half of an endpoint's room to the others until there was no result for this long, in seconds.
RESULTS_LAST_S: Final = 10.0
#: A request on trial is late when it takes this many times what the last result took.
LATE_TIMES: Final = 2.0
#: A request on trial counts as never finishing when it is in flight for at least this long (in seconds), and for this
#: many times what a request took that was sent later and has its result.
STUCK_S: Final = 0.5
STUCK_TIMES: Final = 4.0
#: A picture with at most this share of the bytes of the smallest one that was refused ends a pause.
SMALLER: Final = 0.9
#: Share of the time that all backed-off streams together may use, with one request at a time.
RETRY_SHARE: Final = 0.05
#: Longest pause between two retries, in seconds.
LONGEST_RETRY_GAP_S: Final = 60.0
#: Shortest time between two log lines about one stream, in seconds; also the period of `MAX_LINES`.
LOG_EVERY_S: Final = 60.0
#: Streams of which the last log line is remembered, and most lines in `LOG_EVERY_S` over all streams.
MAX_LOGGED: Final = 1_000
MAX_LINES: Final = 20


class Blame(enum.Enum):
    """What a failed request to the ML service is attributed to: the service, the frame, or an unknown cause.

    A target sets it in `TargetFailure` as far as one failure shows. `Scheduler.on_failure` decides from all requests,
    and pauses the stream or the endpoint accordingly.
    """

    #: The service or its configuration: it is away, overloaded, or wants other credentials.
    SERVICE = "the service"
    #: The frame: the service does not accept it, but accepts others.
    FRAME = "the frame"
    #: Unknown: the connection ended, the deadline passed, status 5xx, an unusable result.
    UNSURE = "unsure"
    #: Another frame, which ended the connection that this one used too.
    OTHER = "another frame"


class StreamHealth:
    """Counts the failures in a row of one stream, and holds the pause after a frame was refused. One for each stream of
    the scheduler.

    Attributes:
        retry_at: when a frame may be sent again, in seconds; None: there is no pause.
        strikes: failures in a row.
        struck_at: when the first of them was, in seconds.
        is_proven: whether a frame of the stream was ever analysed.
    """

    __slots__ = ("_least_bytes", "_refusals", "is_proven", "retry_at", "strikes", "struck_at")

    def __init__(self) -> None:
        self.retry_at: float | None = None
        self.strikes = 0
        self.struck_at = -math.inf
        self.is_proven = False
        self._refusals = 0
        self._least_bytes = 0

    @property
    def is_clear(self) -> bool:
        """Whether its last request had a result, or there was none."""
        return not self.strikes

    @property
    def on_trial(self) -> bool:
        """Whether its frames may be ones that fail: none was ever analysed, or the last request failed."""
        return bool(self.strikes) or not self.is_proven

    def strike(self, now: float) -> None:
        """Record a failure that the stream may have caused."""
        if not self.strikes:
            self.struck_at = now
        self.strikes += 1

    def refuse(self, size_bytes: int, now: float) -> None:
        """Record that a frame of `size_bytes` was refused, and begin a pause."""
        self.strikes = max(1, self.strikes)
        self._least_bytes = min(self._least_bytes, size_bytes) if self._refusals else size_bytes
        self.retry_at = now + backoff_s(self._refusals, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S)
        self._refusals += 1

    def ends_pause(self, size_bytes: int) -> bool:
        """Return whether a new frame ends the pause: one clearly smaller than every frame that was refused.

        The next frame that does has to be smaller again, so that this ends.
        """
        if self.retry_at is None or size_bytes > SMALLER * self._least_bytes:
            return False
        self._least_bytes = size_bytes
        self.retry_at = None
        return True

    def clear(self) -> None:
        """Record that a frame of the stream was analysed: forget failures, end a pause."""
        self.is_proven = True
        self.retry_at = None
        self.strikes = self._refusals = self._least_bytes = 0
        self.struck_at = -math.inf


class LatestTimes:
    """Keeps the latest of the times added, and the latest of those of all other streams than a given one, in constant
    memory.

    Used by `LatestResults`: a service works if other streams than the failing one had results.

    Attributes:
        at: the latest of all, in seconds; minus infinity: there is none.
    """

    __slots__ = ("_other_at", "_stream", "at")

    def __init__(self) -> None:
        self.at = -math.inf
        self._stream = ""
        self._other_at = -math.inf

    def add(self, stream: str, at: float) -> None:
        """Add a time of a stream."""
        if stream == self._stream:
            self.at = max(self.at, at)
        elif at >= self.at:
            self._stream, self._other_at, self.at = stream, self.at, at
        else:
            self._other_at = max(self._other_at, at)

    def except_of(self, stream: str) -> float:
        """Return the latest time of the other streams, minus infinity when there is none."""
        return self._other_at if stream == self._stream else self.at


class LatestResults:
    """When an endpoint returned its latest results, by which `RequestsInFlight` finds requests that will never finish.

    All times are in seconds of the dispatcher's clock.

    Attributes:
        received: when the latest results arrived, by stream.
        sent: when the frames of these results had been sent, by stream.
        took_s: duration of the last request with a result, in seconds.
    """

    __slots__ = ("received", "sent", "took_s")

    def __init__(self) -> None:
        self.received = LatestTimes()
        self.sent = LatestTimes()
        self.took_s = 0.0

    def add(self, stream: str, sent_at: float, now: float) -> None:
        """Record a result for a frame of this stream that was sent at `sent_at`."""
        self.received.add(stream, now)
        self.sent.add(stream, sent_at)
        self.took_s = now - sent_at

    def stuck_at(self, sent_at: float) -> float:
        """Return when a request that was sent at `sent_at` starts to count as never finishing.

        That is when a request that was sent later has its result, and this one takes much longer.

        Returns:
            A time in seconds; infinity: nothing shows it so far.
        """
        if sent_at >= self.sent.at:
            return math.inf
        return sent_at + max(STUCK_S, STUCK_TIMES * self.took_s)


class RefusalLog:
    """Limits the log lines about refused streams: one in `LOG_EVERY_S` seconds for each stream, and `MAX_LINES` over
    all. Owned by the dispatcher.

    Attributes:
        unnamed: streams that had no line because of `MAX_LINES`; the caller resets it after it was logged.
    """

    def __init__(self) -> None:
        self._streams: OrderedDict[str, tuple[float, int]] = OrderedDict()  # time of the last line, refusals since
        self._minute_from = -math.inf
        self._lines = 0
        self.unnamed = 0

    def on_refusal(self, stream: str, now: float) -> int | None:
        """Record a refusal. Returns the refusals since the stream's last line if there is to be one, else None."""
        logged_at, count = self._streams.pop(stream, (-math.inf, 0))
        count += 1
        due = now - logged_at >= LOG_EVERY_S
        if now - self._minute_from >= LOG_EVERY_S:
            self._minute_from = now
            self._lines = 0
        logs = due and self._lines < MAX_LINES
        self.unnamed += due and not logs
        self._streams[stream] = (now, 0) if due else (logged_at, count)
        if len(self._streams) > MAX_LOGGED:
            self._streams.popitem(last=False)
        if not logs:
            return None
        self._lines += 1
        return count
