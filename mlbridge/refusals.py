"""Whose fault a failed request is, and what it costs the stream whose frame it was. Pure; `now` in seconds.

A service may refuse the frames of one stream (too large, of another format) and serve all others. Such a refusal is
the stream's: it is shown less and less often, and breaker and concurrency limit of the endpoint stay as they are. Some
failures do not say whose fault they are: a connection that ends, a status of 5xx, an answer that cannot be used, a
deadline that is past. They count against the service, unless the same stream fails again while others are answered.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: Pause of a stream after a refusal; it doubles with each further one up to `LONGEST_PAUSE_S`.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
#: Failures in a row of one stream, others being answered meanwhile, that are the stream's own.
STRIKES: Final = 2
#: While an endpoint answers, streams of which none was answered yet, or whose last request failed, leave half of its
#: room to the others. It does so until nothing was answered for this long, seconds.
ANSWERS_LAST_S: Final = 10.0
#: Until a request of such a stream takes so many times what the last answer took, it is no worse than others.
LATE_TIMES: Final = 2.0
#: A request of such a stream takes no more room when it has been under way for so long, and for so many times what
#: one took that was sent later and is answered.
STUCK_S: Final = 0.5
STUCK_TIMES: Final = 4.0
#: A picture that has at most this share of the bytes of the smallest one that was refused is tried at once.
SMALLER: Final = 0.9
#: All streams that are backed off together get this share of the time in which an endpoint serves one request.
RETRY_SHARE: Final = 0.05
#: Longest pause between two retries, whatever the last one took.
LONGEST_RETRY_GAP_S: Final = 60.0
#: A stream is named in the log so often.
TOLD_EVERY_S: Final = 60.0
#: Streams of which it is remembered when they were named, and lines a minute over all streams.
MAX_TOLD: Final = 1_000
MAX_LINES: Final = 20


class Blame(enum.Enum):
    """Whose fault it is that a request failed."""

    #: The service's, or its operator's: it is away, overloaded, wants other credentials.
    SERVICE = "the service"
    #: The frame's: this service does not take it. Others are taken.
    FRAME = "the frame"
    #: Either may be: the connection ended, the deadline passed, 5xx, an answer that cannot be used.
    UNSURE = "unsure"
    #: Another frame's, which took the connection with it.
    OTHER = "another frame"


class Trouble:
    """The failures in a row of one stream. Not backed off at first."""

    __slots__ = ("_least_bytes", "_refusals", "is_proven", "retry_at", "strikes", "struck_at")

    def __init__(self) -> None:
        #: When a frame of the stream may be shown again; None: it is not backed off.
        self.retry_at: float | None = None
        #: Failures in a row, and when the first of them was.
        self.strikes = 0
        self.struck_at = -math.inf
        #: Whether a frame of it was ever answered.
        self.is_proven = False
        self._refusals = 0
        self._least_bytes = 0

    @property
    def is_clear(self) -> bool:
        """Whether its last request was answered, or none was made."""
        return not self.strikes

    @property
    def on_trial(self) -> bool:
        """Whether its frames may be those that are not answered: none was yet, or the last request failed."""
        return bool(self.strikes) or not self.is_proven

    def strike(self, now: float) -> None:
        """A request failed that may be the stream's fault."""
        if not self.strikes:
            self.struck_at = now
        self.strikes += 1

    def refuse(self, size_bytes: int, now: float) -> None:
        """A frame of `size_bytes` was refused: back the stream off."""
        self.strikes = max(1, self.strikes)
        self._least_bytes = min(self._least_bytes, size_bytes) if self._refusals else size_bytes
        self.retry_at = now + backoff_s(self._refusals, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S)
        self._refusals += 1

    def offered(self, size_bytes: int) -> bool:
        """A frame came; whether it ends the pause, being clearly smaller than every one that was refused.

        The next one has to be smaller again, so that this cannot go on for ever.
        """
        if self.retry_at is None or size_bytes > SMALLER * self._least_bytes:
            return False
        self._least_bytes = size_bytes
        self.retry_at = None
        return True

    def clear(self) -> None:
        """A frame of it was answered."""
        self.is_proven = True
        self.retry_at = None
        self.strikes = self._refusals = self._least_bytes = 0
        self.struck_at = -math.inf


class Latest:
    """The latest of some times of streams, and the latest of the streams but a given one."""

    __slots__ = ("_other_at", "_stream", "at")

    def __init__(self) -> None:
        #: Of all streams; minus infinity: there was none.
        self.at = -math.inf
        self._stream = ""
        self._other_at = -math.inf

    def add(self, stream: str, at: float) -> None:
        """A time of this stream."""
        if stream == self._stream:
            self.at = max(self.at, at)
        elif at >= self.at:
            self._stream, self._other_at, self.at = stream, self.at, at
        else:
            self._other_at = max(self._other_at, at)

    def but(self, stream: str) -> float:
        """The latest of the other streams; minus infinity: there was none."""
        return self._other_at if stream == self._stream else self.at


class LastAnswers:
    """When an endpoint last answered, and when what it answered had been sent; of all streams but a given one."""

    __slots__ = ("came", "sent", "took_s")

    def __init__(self) -> None:
        self.came = Latest()
        self.sent = Latest()
        #: What the last answer took, seconds.
        self.took_s = 0.0

    def add(self, stream: str, sent_at: float, now: float) -> None:
        """It answered a frame of this stream."""
        self.came.add(stream, now)
        self.sent.add(stream, sent_at)
        self.took_s = now - sent_at

    def stuck_at(self, sent_at: float) -> float:
        """From when a request that was sent then may be one that is never answered; infinity: nothing says so.

        One that was sent later was answered, and this one takes much longer than that.
        """
        if sent_at >= self.sent.at:
            return math.inf
        return sent_at + max(STUCK_S, STUCK_TIMES * self.took_s)


class Telling:
    """Which refusals are worth a line: one a minute for each stream, and `MAX_LINES` a minute in all."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when it was named, refusals since
        self._minute_from = -math.inf
        self._lines = 0
        #: Streams that should have been named since the last line, and were not because there were too many.
        self.unnamed = 0

    def refused(self, stream: str, now: float) -> int | None:
        """A frame of the stream was refused; how many were since it was last named, None: it is not named now."""
        told_at, count = self._streams.pop(stream, (-math.inf, 0))
        count += 1
        due = now - told_at >= TOLD_EVERY_S
        if now - self._minute_from >= TOLD_EVERY_S:
            self._minute_from = now
            self._lines = 0
        tells = due and self._lines < MAX_LINES
        self.unnamed += due and not tells
        self._streams[stream] = (now, 0) if due else (told_at, count)
        if len(self._streams) > MAX_TOLD:
            self._streams.popitem(last=False)
        if not tells:
            return None
        self._lines += 1
        return count
