"""What one connection sent and received, and how it ended: counted where it happens, reported at its end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from watchout.gateway.hub.streams import Publication
from watchout.gateway.hub.subscription import Subscription

#: Most streams of one connection that its report names.
MAX_STREAMS: Final = 20
#: Close code for a connection that ended without a close frame (RFC 6455 section 7.1.5).
ABNORMAL: Final = 1006

By = Literal["client", "gateway", "network"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended: close code, its reason, and who ended it.

    `by` is ``network`` for a connection that was lost without a close frame, which may be either side's doing.
    """

    code: int
    reason: str
    by: By


class Tally:
    """The counts of one WebSocket. Owned by `WebSocket`; its handler and `Viewing` add what ends.

    Attributes:
        connection: Id of the connection in logs and in `watchout-ctl why`.
        address: The client's address.
        began_ms: When it was accepted, in ms since the epoch.
        frames_in, alerts_in: Frames and alerts that the client sent and that were taken.
        frames_out, alerts_out: Those of ended subscriptions and publications that were written to it.
        dropped: Frames that were not sent to it, by reason, of ended subscriptions.
        limited: Its messages over the rates.
        streams: The streams that it had, at most `MAX_STREAMS`, and how many more.
        waiting: Messages and bytes that waited when they were too many; None: they never were.
        ending: How it ended; None: it has not, or nobody said how.
    """

    __slots__ = (
        "address", "alerts_in", "alerts_out", "began_ms", "connection", "dropped", "ending", "frames_in", "frames_out",
        "limited", "more_streams", "streams", "waiting",
    )  # fmt: skip

    def __init__(self, connection: str, address: str, now_ms: int) -> None:
        self.connection = connection
        self.address = address
        self.began_ms = now_ms
        self.frames_in = self.frames_out = self.alerts_in = self.alerts_out = self.limited = self.more_streams = 0
        self.dropped: dict[str, int] = {}
        self.streams: dict[str, None] = {}
        self.waiting: tuple[int, int] | None = None
        self.ending: Ending | None = None

    def end(self, code: int, reason: str, by: By) -> None:
        """Record how the connection ends; the first cause counts.

        Args:
            code: Close code.
            reason: Text of the close frame, or why there is none.
            by: Who ended it.
        """
        if self.ending is None:
            self.ending = Ending(code, reason, by)

    def name_stream(self, stream: str) -> None:
        """Record a stream that the client has.

        Args:
            stream: Its id.
        """
        if stream in self.streams:
            return
        if len(self.streams) < MAX_STREAMS:
            self.streams[stream] = None
        else:
            self.more_streams += 1

    def add_subscription(self, subscription: Subscription) -> None:
        """Add the counts of a subscription that has ended.

        Args:
            subscription: The subscription, which the hub has removed.
        """
        self.frames_out += subscription.written
        self.alerts_out += subscription.alerts_counted
        for reason, count in (subscription.dropped or {}).items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def add_publication(self, publication: Publication) -> None:
        """Add the counts of a publication that has ended.

        Args:
            publication: The publication.
        """
        self.frames_in += publication.meter.total
        self.alerts_out += publication.alerts_told
