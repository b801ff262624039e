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
    """Command of `ClientProtocol`: `ClientHandler` sends this message to the client.

    `wire` is a whole WebSocket frame, made by `gateway.wire`.
    """

    wire: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Command of `ClientProtocol`: `ClientHandler` closes the socket with this code (RFC 6455 section 7.4) and reason,
    after the replies before it. It is the last command of a list.
    """

    code: CloseCode
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """Command of `ClientProtocol`: `ClientHandler` verifies the token of an `auth` message.

    The result goes to `on_verified` or `on_store_unavailable`. The identity that the client had from the upgrade
    request ends with this command.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RenewSession:
    """Command of `ClientProtocol`: `ClientHandler` verifies the token of an `auth` message that renews the session.

    The result goes to `on_renewed` or `on_renewal_unavailable`. Until then the socket goes on with what it has.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimStream:
    """Command of `ClientProtocol`: `ClientHandler` claims a stream at the router.

    The result goes to `on_claimed`, `on_refused` or `on_router_unavailable`.
    """

    stream: str
    owner: Owner
    producing: bool
    #: The client's token permits it whoever owns the stream.
    granted: bool = False
    info: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationOptions:
    """What a publisher sends, and what it receives about its own stream, as its registration says.

    `producing`: frames will follow. `acknowledges`: it has a window, and each of its frames is acknowledged; `window`
    is how many it has under way, 0 without one. `info` is the JSON text of its `info`, empty when it has none.
    """

    producing: bool = False
    wants_alerts: bool = False
    wants_demand: bool = False
    wants_status: bool = False
    acknowledges: bool = False
    info: str = ""
    window: int = 0


@dataclass(frozen=True, slots=True)
class Publish:
    """Command of `ClientProtocol`: `ClientHandler` registers the publication of a granted stream at the hub.

    `term` and `first_frame_id` come from the router.
    """

    stream: str
    owner: Owner
    term: int
    first_frame_id: int
    options: PublicationOptions


@dataclass(frozen=True, slots=True)
class ChangePublication:
    """Command of `ClientProtocol`: `ClientHandler` changes what the publisher sends and receives, because it registered
    the same stream again. Term and frame ids of the publication go on.
    """

    options: PublicationOptions


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Command of `ClientProtocol`: `ClientHandler` releases the publication at the hub, because the permission ended or
    another stream was registered instead. The socket stays open.
    """


@dataclass(frozen=True, slots=True)
class ChangeOwner:
    """Command of `ClientProtocol`: `ClientHandler` replaces the owner of the publication, because its user now belongs
    to other organizations.
    """

    owner: Owner


class PublishFrame(msgspec.Struct, frozen=True, gc=False):
    """Deliver a frame of the registered stream; made for each frame that is not plain.

    The picture is either `picture`, with its `codec`, or the JSON string token `text`, quotes included. `more`: further
    fields of the message as JSON members, each with a comma before it. `timestamp` in milliseconds since the epoch.
    `request_id`: the message's, for an error about the frame.
    """

    text: bytes | None
    picture: bytes | None
    codec: Codec | None
    timestamp: int
    more: bytes = b""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AcknowledgeFrame:
    """Command of `ClientProtocol`: `ClientHandler` acknowledges a frame that was refused, to a camera with a window.

    `timestamp` is the camera's, in ms since the epoch.
    """

    timestamp: int


@dataclass(frozen=True, slots=True)
class SubmitAlert:
    """Command of `ClientProtocol`: `ClientHandler` sends an alert of the publisher to the router.

    The result goes to `on_alert_accepted`, `on_alert_failed` or `on_alert_rate_exceeded`.
    """

    draft: AlertDraft
    stream: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AcknowledgeAlert:
    """Command of `ClientProtocol`: `ClientHandler` lets `Acknowledgements` acknowledge an alert for the client's user.

    The result goes to `on_acknowledged`, `on_acknowledge_refused` or `on_alert_failed`.
    """

    stream: str
    alert_id: str
    note: str | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class FindStream:
    """Command of `ClientProtocol`: `ClientHandler` finds state and owner of a stream.

    The result goes to `on_found`, `on_refused` or `on_router_unavailable`.
    """

    stream: str


@dataclass(frozen=True, slots=True)
class BeginSubscription:
    """Command of `ClientProtocol`: `ClientHandler` starts to deliver a stream to this viewer.

    `state` is what is known of the stream. `alerts_since`, in ms since the epoch: the alerts kept since then are sent
    first; None: none are. With it, whether alerts are missing goes to `on_alerts_fetched`, which confirms the
    subscription.
    """

    subscription: Subscription
    state: StreamState
    alerts_since: int | None


@dataclass(frozen=True, slots=True)
class EndSubscription:
    """Command of `ClientProtocol`: `ClientHandler` ends a subscription at the hub. The viewer gets no more frames and
    alerts of the stream.
    """

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class WriteWaiting:
    """Command of `ClientProtocol`: `ClientHandler` lets the socket write queued frames, because an acknowledgement may
    permit more of a subscription with a window.
    """


@dataclass(frozen=True, slots=True)
class PingSilence:
    """Command of `ClientProtocol`: `ClientHandler` sends the client a `ping` in every silence of this many seconds."""

    every_s: float


Command = (
    Reply | Close | VerifyToken | ClaimStream | Publish | Unpublish | ChangeOwner | PublishFrame | SubmitAlert
    | FindStream | BeginSubscription | EndSubscription | WriteWaiting | ChangePublication
    | AcknowledgeAlert | PingSilence | AcknowledgeFrame | RenewSession
)  # fmt: skip
