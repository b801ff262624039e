"""Messages that the router sends to its members; its replies to their requests are in `replies`. Pure."""

from __future__ import annotations

from watchout.common.alerts.model import Alert, Milliseconds, StreamId
from watchout.common.bus.messages.fields import (
    Count,
    MemberId,
    Message,
    Organizations,
    Rate,
    StreamStatus,
    Text,
)
from watchout.common.bus.messages.replies import AcceptedReply, GrantedReply, OwnerReply, QueryReply, RefusedReply


class Welcome(Message, frozen=True, tag="welcome"):
    """Reply to the `hello` of this `attempt`: the member is known, and sends its snapshot."""

    attempt: Count = 0


class Rejoin(Message, frozen=True, tag="rejoin"):
    """The router does not know this member, or missed one of its messages: the member sends `hello` again."""


class RouterHeartbeat(Message, frozen=True, tag="beat"):
    """Sent every 500 ms from the event loop that does the work."""


class Forward(Message, frozen=True, tag="forward"):
    """The gateway of the publisher sends the frames of this stream to the router, at most `max_fps` per second, or
    stops with `wanted` false.

    `viewers` is the number of viewers at other gateways, for the `demand` message to the publisher.
    """

    stream: StreamId
    term: Count
    wanted: bool
    max_fps: Rate | None = None
    viewers: Count = 0


class SendNewest(Message, frozen=True, tag="sendnewest"):
    """The gateway of the publisher sends the newest frame of this stream once, for the member `to`."""

    stream: StreamId
    to: MemberId


class Revoke(Message, frozen=True, tag="revoke"):
    """The claim of this term is void: another publisher took the stream over."""

    stream: StreamId
    term: Count


class StatusUpdate(Message, frozen=True, tag="status"):
    """Status and owner of a stream, for members with interest in it; `timestamp` is in ms since 1970."""

    stream: StreamId
    status: StreamStatus
    timestamp: Milliseconds
    term: Count = 0
    user: Text | None = None
    organizations: Organizations = ()


class AlertNotification(Message, frozen=True, tag="notify"):
    """An alert for this gateway's viewers and publishers. `number` counts the alerts of this epoch.

    `at` (ms) is set when the alert is sent again after a loss, and is the time at which a router first accepted it:
    clients that subscribed later do not receive it.
    """

    alert: Alert
    number: Count = 0
    at: Milliseconds | None = None


class ReservationEnded(Message, frozen=True, tag="unreserved"):
    """The id of this stream is no longer reserved: the gateway forgets publishers of it up to this term."""

    stream: StreamId
    term: Count


class ErrorForPublisher(Message, frozen=True, tag="tellcamera"):
    """An error that the gateway passes on to the publisher of this stream; `code` is one of the edge protocol's."""

    stream: StreamId
    code: Text
    message: Text


FromRouter = (
    Welcome | Rejoin | RouterHeartbeat | GrantedReply | RefusedReply | OwnerReply | AcceptedReply | QueryReply
    | Forward | SendNewest | Revoke | StatusUpdate | AlertNotification | ErrorForPublisher | ReservationEnded
)  # fmt: skip
