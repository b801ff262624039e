"""Messages that the router sends to its members; its replies to their requests are in `replies`. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert, FrameId, Milliseconds, StreamId
from watchout.common.bus.messages.fields import (
    MAX_RECEIVERS,
    Count,
    FrameAddress,
    Info,
    MemberId,
    Message,
    Organizations,
    Rate,
    StreamStatus,
    Text,
)
from watchout.common.bus.messages.latency_rows import AlertStamps
from watchout.common.bus.messages.replies import (
    AcceptedReply,
    AcknowledgedReply,
    GrantedReply,
    OwnerReply,
    QueryReply,
    RefusedReply,
)


class Welcome(Message, frozen=True, tag="welcome"):
    """Reply of the router to the `Hello` of this `attempt`: the member has joined, and sends its snapshot next.

    `level` says which messages the router understands: members send none of a later one. `frames_at` is where members
    send frames for the router; absent: over their own connections to it. `now` (ms) is the router's time, absent where
    all members have the same clock.
    """

    attempt: Count = 0
    level: Count = 0
    frames_at: FrameAddress | None = None
    now: Milliseconds | None = None


class SlotsDiffer(Message, frozen=True, tag="slotsdiffer"):
    """Reply of the router to the `Hello` of this `attempt` when the member has another number of slots than the
    routers, which have `slots`: it has not joined, as it would find the wrong routers for most streams.
    """

    slots: Count
    attempt: Count = 0


class Rejoin(Message, frozen=True, tag="rejoin"):
    """Sent by the router to a process that is not a member, or of which a message was lost: the process sends `Hello`
    again.
    """


class RouterHeartbeat(Message, frozen=True, tag="beat"):
    """Sent by the router to each member every 500 ms, from the event loop that does its work.

    `now` (ms) is the router's time, absent where all members have the same clock.
    """

    now: Milliseconds | None = None


class FrameReceiver(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member that the publisher's gateway sends frames to directly; part of `Forward`.

    `at` is its address, `max_fps` the most frames per second that it wants, None: every frame.
    """

    at: FrameAddress
    max_fps: Rate | None = None


class Forward(Message, frozen=True, tag="forward"):
    """Sent by the router to the publisher's gateway: who gets the frames of this stream. It replaces the one before.

    `receivers` get them directly from the gateway. Frames for members without an address go through the router, at up
    to `max_fps` per second (absent: every frame), while `wanted` is true. `viewers` is the number of viewers at other
    gateways, for the `demand` message to the publisher. `partial`: the router has just started and may not know all
    receivers yet; the gateway adds these, and keeps sending to those of before. `floor`: viewers elsewhere have had
    frames up to this id, of a former publisher that the router did not know of at its grant; the ids go on above it.
    """

    stream: StreamId
    term: Count
    wanted: bool
    max_fps: Rate | None = None
    viewers: Count = 0
    receivers: Annotated[tuple[FrameReceiver, ...], msgspec.Meta(max_length=MAX_RECEIVERS)] = ()
    partial: bool = False
    floor: FrameId = 0


class SendNewest(Message, frozen=True, tag="sendnewest"):
    """Sent by the router to the publisher's gateway: send the newest frame of this stream once, addressed to the member
    `to`: directly to its address `at`, through the router where that is absent.
    """

    stream: StreamId
    to: MemberId
    at: FrameAddress | None = None


class Revoke(Message, frozen=True, tag="revoke"):
    """Sent by the router to a gateway: the publisher with this term no longer has the stream, because another one took
    it over. The gateway ends the publication.

    Until then it got all alerts of the stream. `last_alert` (`alerts_heard` on the wire) is the number of the last one
    that the router of epoch `alerts_epoch` had accepted, of whichever stream: a gateway whose viewers want the later
    ones names it in its `Interest`.
    """

    stream: StreamId
    term: Count
    alerts_epoch: Count = 0
    last_alert: Count = msgspec.field(default=0, name="alerts_heard")


class StatusUpdate(Message, frozen=True, tag="status"):
    """Sent by the router to a gateway with interest in a stream, when the interest begins and at each change.

    The gateway passes `status` on to its viewers, and ends subscriptions of viewers who may not view streams of the
    owner (`user`, None: nobody has registered it, and `organizations`). `timestamp` is in ms since 1970. Where there
    is a publisher, `term` is its term; of an offline stream the highest one that was told holds. `info` is what the
    camera says of itself, as JSON, empty for nothing.
    """

    stream: StreamId
    status: StreamStatus
    timestamp: Milliseconds
    term: Count = 0
    user: Text | None = None
    organizations: Organizations = ()
    info: Info = ""


class AlertNotification(Message, frozen=True, tag="notify"):
    """Sent by the router to a gateway: an alert for its viewers and publishers. `number` counts the alerts of this
    epoch: the gateway has all those of its streams up to it. It is 0 where the gateway missed alerts of one stream.

    `at` (ms) is set when the alert is sent again after a loss, and is the time at which a router first accepted it:
    clients that subscribed later do not receive it. `age` (ms) is then the time since, by a clock that nobody sets: who
    subscribed later is judged by it, whatever was done to the clocks meanwhile; a router of the former release does not
    say it. With `acknowledgement` (`acked` on the wire) the message says only that the alert was acknowledged; `at` is
    set then too, so that a gateway of the former release takes it for an alert that it has delivered. `repeated`: the
    acknowledgement is sent again after a loss, with its `age`, and clients that subscribed later do not receive it.
    `stamps` are for the latency ledger, absent where an alert is sent again from the router's log.
    """

    alert: Alert
    number: Count = 0
    at: Milliseconds | None = None
    acknowledgement: Acknowledgement | None = msgspec.field(default=None, name="acked")
    repeated: bool = False
    age: Count | None = None
    stamps: AlertStamps | None = None


class ReservationEnded(Message, frozen=True, tag="unreserved"):
    """Sent by the router to all gateways when an operator has ended the reservation of a stream id.

    Each gateway deletes its own reservation of the id, if that is of this term or an earlier one.
    """

    stream: StreamId
    term: Count


class ErrorForPublisher(Message, frozen=True, tag="tellcamera"):
    """Sent by the router to the publisher's gateway, which sends the error to the publisher of this stream.

    `code` is an error code of the edge protocol (docs/protocol.md).
    """

    stream: StreamId
    code: Text
    message: Text


class AskWhy(Message, frozen=True, tag="why"):
    """Sent by the router to gateways and bridges of level 3 or above, for a query ``why``: what do they know `about`
    this stream, user, connection, alert or address? The answer is a `WhyAnswered` with this `request`.
    """

    request: Count
    about: Text


FromRouter = (
    Welcome | SlotsDiffer | Rejoin | RouterHeartbeat | GrantedReply | RefusedReply | OwnerReply | AcceptedReply
    | AcknowledgedReply | QueryReply | Forward | SendNewest | Revoke | StatusUpdate | AlertNotification
    | ErrorForPublisher | ReservationEnded | AskWhy
)  # fmt: skip
