"""Commands of a `ClientProtocol`: what its caller, `ClientHandler`, has to do next, in the order of the list. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import CloseCode
from watchout.common.media.codecs import Codec
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner, StreamState


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this message to the client; `wire` is a whole WebSocket frame, made by `gateway.wire`."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket with this code and reason, after the replies before it; no command follows."""

    code: CloseCode
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """Verify a token of an `auth` message; the result goes to `on_verified` or `on_store_unavailable`.

    The identity that the client had until now, from the upgrade request, ends with this command.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimStream:
    """Claim a stream at the router; the result goes to `on_claimed`, `on_refused` or `on_router_unavailable`."""

    stream: str
    owner: Owner
    producing: bool


@dataclass(frozen=True, slots=True)
class Publish:
    """Register the publication of a granted stream at the hub.

    `term` and `first_frame_id` come from the router. `producing`: whether frames will follow; the `wants_…` fields are
    what the publisher receives about its own stream.
    """

    stream: str
    owner: Owner
    term: int
    first_frame_id: int
    producing: bool
    wants_alerts: bool
    wants_demand: bool = False
    wants_status: bool = False


@dataclass(frozen=True, slots=True)
class ChangePublication:
    """Change what the publisher sends and receives, because it registered the same stream again.

    Term and frame ids of the publication go on.
    """

    producing: bool
    wants_alerts: bool
    wants_demand: bool
    wants_status: bool


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Release the publication at the hub, because the permission ended or another stream was registered instead.

    The socket stays open.
    """


@dataclass(frozen=True, slots=True)
class ChangeOwner:
    """Replace the owner of the publication: its user belongs to other organizations now."""

    owner: Owner


class PublishFrame(msgspec.Struct, frozen=True, gc=False):
    """Deliver a frame of the registered stream; made for each frame that is not plain.

    The picture is either `picture`, with its `codec`, or the JSON string token at `span` in `text` (all of `text` when
    `span` is None), quotes included. `is_base64`: the token is known to hold base64 without escapes. `more`: further
    fields of the message as JSON members, each with a comma before it. `timestamp` in milliseconds since the epoch.
    """

    text: bytes | None
    picture: bytes | None
    codec: Codec | None
    timestamp: int
    span: tuple[int, int] | None = None
    is_base64: bool = False
    more: bytes = b""


@dataclass(frozen=True, slots=True)
class SubmitAlert:
    """Send an alert of the publisher to the router; a failure goes to `on_alert_failed` or `on_alert_rate_exceeded`."""

    draft: AlertDraft
    stream: str


@dataclass(frozen=True, slots=True)
class FindStream:
    """Find state and owner of a stream; the result goes to `on_found`, `on_refused` or `on_router_unavailable`."""

    stream: str


@dataclass(frozen=True, slots=True)
class BeginSubscription:
    """Start to deliver a stream to this viewer.

    `state` is what is known of the stream. `alerts_since`, in milliseconds since the epoch: replay the alerts kept
    since then first; None: no replay.
    """

    subscription: Subscription
    state: StreamState
    alerts_since: int | None


@dataclass(frozen=True, slots=True)
class EndSubscription:
    """End a subscription at the hub: no frames and alerts of its stream are delivered to this viewer any more."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class WriteWaiting:
    """Write the frames that wait: an acknowledgement may have opened a subscription's window."""


Command = (
    Reply | Close | VerifyToken | ClaimStream | Publish | Unpublish | ChangeOwner | PublishFrame | SubmitAlert
    | FindStream | BeginSubscription | EndSubscription | WriteWaiting | ChangePublication
)  # fmt: skip
