"""The records of the stream registry: a stream, a bridge, and a message to send. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchout.common.bus.messages import Forward, FromRouter, Interest, StatusUpdate, StreamStatus
from watchout.common.media.rate import Sampler
from watchout.common.reservations import Reservation
from watchout.common.toolbox.globs import Globs

#: What one stream adds to the sums over all: producers, video subscriptions, those who consume alerts.
Counted = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Send:
    """Command to send a message to one member. Returned by `Streams` and its parts, carried out by `Outbox`.

    `member` is the id by which the transport knows the receiver, 8 bytes. A member that is gone gets nothing.
    """

    member: bytes
    body: FromRouter


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """A bridge that wants frames of the streams that `globs` match, at `max_fps` frames per second.

    Created when the bridge joins. Of the bridges of one `group`, one gets each stream.
    """

    member: bytes
    group: str
    max_fps: float
    globs: Globs = field(default_factory=Globs)


@dataclass(slots=True)
class RouterStream:
    """What the router knows of a stream that has a publisher or viewers; owned by `RouterStreamTable`.

    `gateway` is the member id of the gateway that the publisher is connected to, None while there is no publisher.
    `last_gateway` is the gateway whose `Release` reported the last frame id, None when nobody reported it.
    Times are in ms since the epoch, `fps` is the measured rate.
    """

    id: str
    user: str | None = None
    organizations: tuple[str, ...] = ()
    gateway: bytes | None = None
    last_gateway: bytes | None = None
    term: int = 0
    status: StreamStatus = "offline"
    producing: bool = False
    wants_alerts: bool = False
    frame_id: int = 0
    #: The frame id when the stream was last marked to be saved.
    saved_frame_id: int = 0
    #: Viewers had frames up to this id of a former term that was known late: the ids go on above it. 0: none.
    floor: int = 0
    total_frames: int = 0
    fps: float = 0.0
    started_at: int = 0
    last_frame_at: int | None = None
    #: Interest of each gateway with viewers, by member id.
    interests: dict[bytes, Interest] = field(default_factory=dict)
    #: The bridge that gets the frames, by group.
    bridges: dict[str, bytes] = field(default_factory=dict)
    #: Whether the publisher's gateway has sent a `PublicationState` of this term.
    confirmed: bool = False
    #: The last `Forward` sent to the publisher's gateway.
    forward: Forward | None = None
    #: Whether the gateway sends frames at the request of this or a former router, as its last report said.
    forwarding: bool = False
    #: Members that get the frames through the router; a sampler thins them out for a member that wants fewer than the
    #: gateway sends.
    routes: list[tuple[bytes, Sampler | None]] = field(default_factory=list)
    #: Term of which the publisher was told that a frame could not be decoded.
    bad_frame_term: int = -1
    #: The last status sent to the gateways with viewers.
    announced: StatusUpdate | None = None
    #: Frames that viewers on any gateway did not get, by reason, since this router knows the stream.
    dropped: dict[str, int] = field(default_factory=dict)
    #: What the camera says of itself, as JSON; set by `StreamInfos`.
    info: str = ""
    #: What of this stream is in the sums over all; set by `StreamTotals`.
    counted: Counted = (0, 0, 0)

    def recall(self, reservation: Reservation | None) -> None:
        """Take over owner, term and frame id from the reservation of the id, if there is one."""
        if reservation is not None:
            self.user, self.organizations = reservation.user, reservation.organizations
            self.term, self.frame_id = reservation.term, reservation.frame_id
            self.last_gateway = reservation.last_gateway

    def status_update(self, now_ms: int) -> StatusUpdate:
        """Return the message with the present status and owner."""
        return StatusUpdate(
            stream=self.id,
            status=self.status,
            timestamp=now_ms,
            term=self.term,
            user=self.user,
            organizations=self.organizations,
            info=self.info,
        )
