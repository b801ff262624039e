"""One thing that happened to a stream, viewer, user or alert, remembered for `watchout-ctl why`. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec

#: Most streams that one incident names; it counts the others.
MAX_STREAMS: Final = 100
#: Longest reason that is kept, in characters.
MAX_REASON_CHARS: Final = 300
#: Memory that an incident takes beside its texts, that of one number in it, and of one subject, about, in bytes.
COST_BYTES: Final = 700
NUMBER_BYTES: Final = 100
SUBJECT_BYTES: Final = 600

Word = Annotated[str, msgspec.Meta(max_length=64)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class IncidentKind(enum.StrEnum):
    """What happened; the value of `Incident.what`, and on the bus. A reader shows kinds that it does not know as text.

    Each says which fields it has beside `streams` and `user`, and the names in `numbers`.
    """

    #: A connection ended: `code`, `reason`, `by`; the counts of its access log line.
    CLOSED = "closed"
    #: An upgrade, a connection before it, or a login over HTTP was refused: `code` is the HTTP status, 0 when it was
    #: cut; `reason`, which begins with method and path over HTTP.
    REFUSED = "refused"
    #: A message of a client was refused, the client stays: `reason` is the error code and its text.
    ERROR = "error"
    #: Frames were not sent to a viewer: numbers by `DropReason`.
    DROPPED = "dropped"
    #: Messages of a client were over a rate, and dropped.
    LIMITED = "limited"
    #: A viewer ended its subscription, and its connection went on.
    UNSUBSCRIBED = "unsubscribed"
    #: This process lost the router of a slot, or joined it again.
    ROUTER_LOST = "router lost"
    ROUTER_JOINED = "router joined"
    #: The gateway began to drain.
    DRAIN = "drain"
    #: A stream was registered; `reason` is the gateway.
    CLAIMED = "claimed"
    #: A registration was refused: `reason`.
    CLAIM_REFUSED = "claim refused"
    #: Another camera registered the stream: `reason` is its gateway.
    TAKEN_OVER = "taken over"
    #: The camera of a stream is gone.
    RELEASED = "released"
    #: A gateway or bridge fell silent, or its key was removed: `reason` names it.
    MEMBER_LOST = "member lost"
    #: The bridge got an alert of the ML service: `frame_id`, `took_ms`, `held_before`.
    RAISED = "raised"
    #: An alert of the stream `reason` was held back in the pause that alert `cause` began. And under the id of that
    #: one, with its stream: how many it held back.
    HELD = "held back"
    #: Too many alerts waited for the router, and the bridge dropped this one.
    ALERT_LOST = "alert lost"
    #: An alert was not valid: `reason`.
    ALERT_REFUSED = "alert refused"
    #: The router accepted an alert: `receivers`, `frame_id`.
    ACCEPTED = "accepted"
    #: The router got an alert of this id again.
    DUPLICATE = "duplicate"
    #: The router sent an alert again to a gateway that had missed it.
    REDELIVERED = "redelivered"
    #: A gateway wrote the alert to its viewers: `viewers`, `publishers`.
    TOLD = "told"
    #: A user acknowledged an alert: `after_ms`.
    ACKNOWLEDGED = "acknowledged"
    #: The ML service failed for a frame: `reason`.
    ML_FAILED = "ml failed"
    #: The bridge sent no requests to the ML service for a time, or sends them again: `reason`.
    ML_AWAY = "ml away"
    ML_BACK = "ml back"


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened, or several alike within a minute; made where it happens, kept in `IncidentMemory`.

    `what` is one of `IncidentKind`. `at` and `until` (ms; 0: the same moment) are the first and last of `count` events.
    It is found by each of its subjects: `streams`, `user`, `connection` (its id in the access log), `alert` and
    `address`. `cause` is the id of another alert. `by` says who did it: ``client``, ``gateway`` or ``network``.
    `summed`: it is the sum of `count` earlier ones, of several connections.
    """

    what: Word
    at: Milliseconds
    until: Milliseconds = 0
    count: int = 1
    streams: tuple[str, ...] = ()
    user: str = ""
    connection: str = ""
    alert: str = ""
    cause: str = ""
    address: str = ""
    code: int = 0
    reason: str = ""
    by: Word = ""
    numbers: Mapping[str, float] = {}
    summed: bool = False

    @property
    def end(self) -> int:
        """The time of the last event, in ms since the epoch."""
        return self.until or self.at

    def subjects(self) -> Iterator[str]:
        """Yield each name by which it is found, once."""
        yield from dict.fromkeys(
            name for name in (*self.streams, self.user, self.connection, self.alert, self.address) if name
        )

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, about."""
        names = list(self.subjects())
        texts = sum(len(name) for name in names) + len(self.reason) + len(self.cause)
        return COST_BYTES + texts + NUMBER_BYTES * len(self.numbers) + SUBJECT_BYTES * len(names)

    def joined(self, later: Incident) -> Incident:
        """Return this incident together with a later one of the same kind and subjects."""
        numbers = dict(self.numbers)
        for name, value in later.numbers.items():
            numbers[name] = numbers.get(name, 0) + value
        end, count = max(self.end, later.end), self.count + later.count
        return msgspec.structs.replace(self, until=end, count=count, numbers=numbers)
