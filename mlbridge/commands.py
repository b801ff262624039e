"""What the scheduler returns to its caller: commands to carry out, outcomes of calls, counts of frames. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from watchout.mlbridge.refusals import Blame

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class SendFrame(Generic[F]):
    """Command to send a frame to an endpoint. Returned by `Scheduler.due`, carried out by the dispatcher.

    Attributes:
        ticket: number of the request; the dispatcher passes it to `Scheduler.on_result` or `on_failure`.
        stream: the stream of the frame.
        frame: the frame.
        deadline: time after which a result no longer counts, in seconds of the caller's clock.
        came_at: when the bridge received the frame, on the same clock.
        endpoint: number of the endpoint, 0 for ``ML_SERVICE_URL``.
        copy: the frame also goes to another endpoint. This request only tests whether the endpoint responds.
        isolated: an earlier frame of this stream failed. The target must send this one so that no other fails with it.
    """

    ticket: int
    stream: str
    frame: F
    deadline: float
    came_at: float
    endpoint: int = 0
    copy: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Command to cancel a request whose deadline is past. Returned by `Scheduler.due`; its result no longer counts.

    Attributes:
        ticket: number of the request.
        stream: the stream of its frame.
        blame: what the timeout is attributed to, for logs and metrics.
    """

    ticket: int
    stream: str
    blame: Blame = Blame.SERVICE


Command = SendFrame[F] | CancelRequest


class OfferOutcome(enum.Enum):
    """What `Scheduler.offer` did with a frame that the dispatcher offered. The values are descriptions."""

    WAITS = "it waits for its turn"
    REPLACED_ONE = "it waits in place of an older frame, which is dropped"
    OVERTAKEN = "dropped: the same or a newer frame of the stream was offered before"
    TOO_OLD = "dropped: it is over the age limit"
    DEPENDENT = "dropped: it cannot be decoded without the frame before it"


class ResultOutcome(enum.Enum):
    """How the dispatcher has to use a result. Returned by `Scheduler.on_result`; the values are descriptions."""

    COUNTS = "the frame is analysed; report its alerts"
    COPY = "the endpoint responds; the result of the other endpoint counts, not this one"
    LATE = "it arrived after its deadline and must not be used"


@dataclass(slots=True)
class FrameCounts:
    """Counters of frames, kept by the scheduler. Each offered frame is in ``sent``, in ``not_sent``, or still waits.

    Attributes:
        offered: frames that were offered.
        sent: frames that were sent.
        replaced: dropped because the same or a newer frame of the stream was there.
        too_old: dropped because they were over the age limit before their turn.
        away: as the last two, while no endpoint responded.
        backed_off: as `replaced` and `too_old`, while their stream was backed off.
        over_bytes: dropped because too many bytes waited and they had waited longest.
        forgotten: dropped because their stream was forgotten or the bridge stopped.
        dependent: delta frames, dropped because a service that gets single frames cannot decode them.
        copies: requests beside those in `sent`, to test an endpoint.
        late: results after their deadline.
        refused: sent frames that the service refused for their content.
    """

    offered: int = 0
    sent: int = 0
    replaced: int = 0
    too_old: int = 0
    away: int = 0
    backed_off: int = 0
    over_bytes: int = 0
    forgotten: int = 0
    dependent: int = 0
    copies: int = 0
    late: int = 0
    refused: int = 0

    @property
    def not_sent(self) -> int:
        """Number of frames that were dropped."""
        unsent = self.replaced + self.too_old + self.away + self.backed_off
        return unsent + self.over_bytes + self.forgotten + self.dependent
