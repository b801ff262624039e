"""Replies of the router to the requests of a member, found again by their number, `request`. Pure."""

from __future__ import annotations

import msgspec

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import FrameId, Milliseconds, StreamId
from watchout.common.bus.messages.fields import Count, Info, Message, Organizations, StreamStatus, Text


class GrantedReply(Message, frozen=True, tag="granted"):
    """Reply to a `Claim`: the stream is registered. Its frames carry `term`, and ids from `first_frame_id` on.

    `user` and `organizations` are set when the stream keeps another owner than the one who claims it.
    """

    request: Count
    stream: StreamId
    term: Count
    first_frame_id: FrameId
    user: Text | None = None
    organizations: Organizations = ()


class RefusedReply(Message, frozen=True, tag="refused"):
    """Reply to a `Claim`, `RaiseAlert` or other request that the router refuses; `code` is an error code of the edge
    protocol. The gateway sends it to its client.
    """

    request: Count
    code: Text
    message: Text


class OwnerReply(Message, frozen=True, tag="found"):
    """Reply to an `OwnerLookup`: owner and status of the stream.

    An unknown stream has no user, term 0, and is offline. `info` is what the camera says of itself, as JSON. `host` and
    `url`, if they were asked for, are those that the publisher's gateway gave in its `Hello`. `last_alert`
    (`alerts_heard` on the wire) is the number of the last alert that the router of epoch `alerts_epoch` had accepted
    then, of whichever stream: a viewer whose subscription begins with this reply gets the later ones.
    """

    request: Count
    stream: StreamId
    status: StreamStatus
    user: Text | None = None
    organizations: Organizations = ()
    term: Count = 0
    info: Info = ""
    host: Text = ""
    url: Text = ""
    alerts_epoch: Count = 0
    last_alert: Count = msgspec.field(default=0, name="alerts_heard")


class AcceptedReply(Message, frozen=True, tag="accepted"):
    """Reply to a `RaiseAlert`: the router accepted the alert `at` this time (ms).

    `duplicate`: an alert of this stream and id was accepted before, and is not delivered again. `receivers` is the
    number of clients that the alert was sent to.
    """

    request: Count
    id: Text
    duplicate: bool = False
    receivers: Count = 0
    at: Milliseconds = 0


class AcknowledgedReply(Message, frozen=True, tag="acknowledged"):
    """Reply to an `AcknowledgeRequest`: the alert is acknowledged.

    `duplicate`: it was before, by `acknowledgement` (`acked` on the wire), and nobody is told again.
    """

    request: Count
    acknowledgement: Acknowledgement = msgspec.field(name="acked")
    duplicate: bool = False


class QueryReply(Message, frozen=True, tag="answer"):
    """Reply to a `Query` or `Unreserve`; `body` is one of the records of `common.bus.reply_records`, as msgpack."""

    request: Count
    body: object


#: Every reply: a future of the member's client resolves to one of these.
Reply = GrantedReply | RefusedReply | OwnerReply | AcceptedReply | AcknowledgedReply | QueryReply
