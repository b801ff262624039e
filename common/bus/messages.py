"""Every message that crosses the bus, and its bytes (docs/bus.md). Pure.

Control messages are small msgpack maps in a numbered envelope; frames have a fixed binary header, because they are
many and large. Nothing here knows sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args

import msgpack
import msgspec

from watchout.common.alerts.model import Alert, AlertId, FrameId, Milliseconds, Severity, StreamId
from watchout.common.errors import BusError
from watchout.common.media.codecs import LAST_NUMBER, LAST_VALUE
from watchout.common.toolbox.globs import MAX_PATTERN_CHARS, MAX_PATTERNS, PATTERN

VERSION: Final = 1
#: A control message over this is refused on both sides. The largest is an `Answer` with every stream.
MAX_CONTROL_BYTES: Final = 16 << 20
#: Streams in one `Report`, so that it stays far below `MAX_CONTROL_BYTES`.
REPORT_CHUNK: Final = 500
#: Streams in one `Coverage`: the least covered ones of a bridge.
MAX_COVERAGE_ROWS: Final = 1_000
MEMBER_ID_BYTES: Final = 8

MemberId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Kind = Literal["gateway", "mlbridge", "ctl"]
StreamStatus = Literal["streaming", "online", "offline"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Glob = Annotated[str, msgspec.Meta(max_length=MAX_PATTERN_CHARS, pattern=PATTERN)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
#: Why a frame was skipped: a word.
Reason = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,16}\Z")]
SettingName = Annotated[str, msgspec.Meta(max_length=64)]
SettingText = Annotated[str, msgspec.Meta(max_length=256)]
#: Organizations that a stream's owner belongs to, for the policy that lets their members watch.
Organizations = Annotated[tuple[Text, ...], msgspec.Meta(max_length=1000)]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag=str.lower):
    """Root of the control messages; the class name in lower case is the tag on the wire."""


# ── member → router ──────────────────────────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True):
    """First message of a member, and again after each loss: "I am here, and will tell you all I hold".

    `attempt` counts a member's greetings: greetings that piled up while the router hung are answered one by one, and
    only the answer to the last one counts. A bridge gets frames of the streams that match one of `streams`, which are
    patterns as `common.toolbox.globs` has them; without any it gets all.
    """

    kind: Kind
    name: Text
    pid: Count
    version: Count = VERSION
    group: Text = ""
    max_fps: Rate | None = None
    streams: Annotated[tuple[Glob, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    attempt: Count = 0
    #: Of the program, and the settings that differ from their defaults (`common.process.about`).
    release: Annotated[str, msgspec.Meta(max_length=64)] = ""
    settings: Annotated[dict[SettingName, SettingText], msgspec.Meta(max_length=256)] = {}


class Hold(Message, frozen=True):
    """A camera's stream on this gateway, as it now is."""

    stream: StreamId
    user: Text
    term: Count
    status: StreamStatus
    producing: bool
    wants_alerts: bool
    frame_id: FrameId
    total_frames: Count
    fps: float
    started_at: Milliseconds
    last_frame_at: Milliseconds | None = None
    organizations: Organizations = ()


class Interest(Message, frozen=True):
    """What this gateway's viewers want of a stream, as it now is; no viewers and no alert viewers: nothing.

    `floor` is the last frame id seen here, `user` whose the stream is as far as known: a new router learns from it.
    """

    stream: StreamId
    viewers: Count
    alert_viewers: Count
    max_fps: Rate | None = None
    floor: FrameId = 0
    user: Text | None = None
    organizations: Organizations = ()


class Synced(Message, frozen=True):
    """End of the snapshot after a `Hello`; how much was told.

    `alerts_heard` is the number of the last alert that a gateway was told, by the router of `alerts_epoch`: it gets
    those that came after it.
    """

    holds: Count
    interests: Count
    alerts_epoch: Count = 0
    alerts_heard: Count = 0


class Report(Message, frozen=True):
    """Moving figures of streams: rows of (stream, frame id, total frames, fps, last frame at).

    `missed`: frames that viewers here did not get since the last report, as rows of (stream, why, how many).
    """

    rows: list[tuple[StreamId, FrameId, Count, float, Milliseconds | None]] = []
    missed: list[tuple[StreamId, Reason, Count]] = []


class Heartbeat(Message, frozen=True):
    """Proof of life from the loop that does the work, with the member's metrics."""

    metrics: dict[str, float] = msgspec.field(name="figures")


class Coverage(Message, frozen=True):
    """How well this bridge looks at its streams: rows of (stream, share of the last seconds, 0 to 1).

    In the place of what was told before; of more than 1000 streams the least covered ones.
    """

    rows: Annotated[list[tuple[StreamId, Share]], msgspec.Meta(max_length=MAX_COVERAGE_ROWS)]


class Claim(Message, frozen=True):
    """A camera wants to publish a stream; `Granted` or `Refused` answers."""

    request: Count
    stream: StreamId
    user: Text
    producing: bool = False
    floor: FrameId = 0
    organizations: Organizations = ()


class Release(Message, frozen=True):
    """The camera of that term is gone; `frame_id` was its last."""

    stream: StreamId
    term: Count
    frame_id: FrameId = 0


class Reserved(Message, frozen=True):
    """Whose streams were whose cameras went from this gateway: rows of (stream, user, organizations, term, last frame
    id, seconds since then). Told to a router that has just begun, which may not know it.
    """

    rows: Annotated[
        list[tuple[StreamId, Text, Organizations, Count, FrameId, Annotated[float, msgspec.Meta(ge=0)]]],
        msgspec.Meta(max_length=REPORT_CHUNK),
    ]


class Lookup(Message, frozen=True):
    """Whose is this stream? `Found` answers."""

    request: Count
    stream: StreamId


class Newest(Message, frozen=True):
    """Send me the newest frame of a stream, once."""

    stream: StreamId


class RaiseAlert(Message, frozen=True):
    """An alert for everybody who may see it; `Accepted` or `Refused` answers.

    `term` is that of the frame it speaks of, when the frame's picture is sent too. `accepted_at` is set when a former
    router accepted it then, and may have been killed before it told anybody.
    """

    request: Count
    alert: Alert
    term: Count = 0
    accepted_at: Milliseconds | None = None


class Picture(Message, frozen=True):
    """Send me the picture that is kept of an alert's frame, once, over the frame sockets."""

    stream: StreamId
    term: Count
    frame_id: FrameId


class BadFrame(Message, frozen=True):
    """A frame of this stream could not be decoded here: tell the camera once."""

    stream: StreamId
    frame_id: FrameId
    reason: Text


class Unreserve(Message, frozen=True):
    """An operator lets anybody register the id of a stream whose camera is gone; `Answer` answers with its former
    user, or null when it was not reserved.
    """

    request: Count
    stream: StreamId


class Reach(msgspec.Struct, frozen=True):
    """Whose alerts a caller may have, whatever the stream.

    `own`: those of his own streams. `organizations`: those of streams whose owner is in one of these. `everybodys`:
    those of every owner. `nobodys`: those of streams that nobody was known to own when they came.
    """

    user: Text
    own: bool = False
    organizations: Organizations = ()
    everybodys: bool = False
    nobodys: bool = False

    def has(self, alert_owner: str | None, organizations: Iterable[str]) -> bool:
        """Whether an alert is among them. `organizations` are those of its owner, none when the stream is another's."""
        if alert_owner is None:
            return self.nobodys
        if self.everybodys:
            return True
        if alert_owner == self.user:
            return self.own
        return not frozenset(organizations).isdisjoint(self.organizations)

    def owners(self) -> frozenset[str | None] | None:
        """The owners whose alerts they all are, None among them for nobody's; None: any owner's may be."""
        if self.everybodys or self.organizations:
            return None
        return frozenset([self.user] * self.own + [None] * self.nobodys)


class Query(Message, frozen=True):
    """A question of an operator or of an HTTP client; `Answer` answers."""

    request: Count
    what: Literal["stats", "streams", "alerts", "alert", "reservations", "processes"]
    stream: StreamId | None = None
    id: AlertId | None = None
    user: Text | None = None
    since: Milliseconds = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    #: Of alerts: of at least this severity, and with no stream named, those within this reach.
    severity: Severity = "low"
    reach: Reach | None = None


class Bye(Message, frozen=True):
    """The member ends now, in order."""


# ── router → member ──────────────────────────────────────────────────────────────────────────────────────────────


class Welcome(Message, frozen=True):
    """Answer to the `Hello` of this `attempt`: send the snapshot."""

    attempt: Count = 0


class Rejoin(Message, frozen=True):
    """The router does not know this member, or missed something of it: say `Hello` again."""


class Beat(Message, frozen=True):
    """Proof of life from the router's loop."""


class Granted(Message, frozen=True):
    """The claim holds: frames carry this term, and ids from `first_frame_id` on."""

    request: Count
    stream: StreamId
    term: Count
    first_frame_id: FrameId


class Refused(Message, frozen=True):
    """The request does not hold; `code` is one of the edge protocol's."""

    request: Count
    code: Text
    message: Text


class Found(Message, frozen=True):
    """Answer to `Lookup`; a stream that is not known has no user, no term, and is offline."""

    request: Count
    stream: StreamId
    status: StreamStatus
    user: Text | None = None
    organizations: Organizations = ()
    term: Count = 0


class Accepted(Message, frozen=True):
    """The alert was taken, `at` this time. `duplicate`: its id was already known, nobody gets it again."""

    request: Count
    id: Text
    duplicate: bool = False
    receivers: Count = 0
    at: Milliseconds = 0


class Answer(Message, frozen=True):
    """Answer to `Query`: a map or a list as JSON has them."""

    request: Count
    body: Any


class Forward(Message, frozen=True):
    """Push the frames of this stream to the router, at most so many per second; `wanted` false: stop.

    `viewers` is how many watch it on other gateways, for the camera's `demand`.
    """

    stream: StreamId
    term: Count
    wanted: bool
    max_fps: Rate | None = None
    viewers: Count = 0


class SendNewest(Message, frozen=True):
    """Push the newest frame of this stream for one member."""

    stream: StreamId
    to: MemberId


class Revoke(Message, frozen=True):
    """The claim of that term is void: somebody took the stream over."""

    stream: StreamId
    term: Count


class Status(Message, frozen=True):
    """A stream's status and owner, for members that showed interest."""

    stream: StreamId
    status: StreamStatus
    timestamp: Milliseconds
    term: Count = 0
    user: Text | None = None
    organizations: Organizations = ()


class Notify(Message, frozen=True):
    """An alert for this member's viewers and cameras. `number` counts the alerts of this router's life.

    `at` is set when the alert is told again after a loss, and says when a router first had it: whoever came later than
    that is not told.
    """

    alert: Alert
    number: Count = 0
    at: Milliseconds | None = None


class Unreserved(Message, frozen=True):
    """The id of this stream is nobody's any more: what is known of a camera up to this term is not told again."""

    stream: StreamId
    term: Count


class TellCamera(Message, frozen=True):
    """An error that the camera of a stream on this gateway is told, once per term."""

    stream: StreamId
    code: Text
    message: Text


FromMember = (
    Hello | Hold | Interest | Synced | Report | Heartbeat | Coverage | Claim | Release | Reserved | Lookup | Newest
    | RaiseAlert | Picture | BadFrame | Unreserve | Query | Bye
)  # fmt: skip
FromRouter = (
    Welcome | Rejoin | Beat | Granted | Refused | Found | Accepted | Answer | Forward | SendNewest | Revoke
    | Status | Notify | TellCamera | Unreserved
)  # fmt: skip


M = TypeVar("M", covariant=True)


@dataclass(frozen=True, slots=True)
class Envelope(Generic[M]):
    """One control message with what orders it: the router's epoch, and the sender's count since the last `Hello`."""

    epoch: int
    seq: int
    body: M


def encode(epoch: int, seq: int, body: Message) -> bytes:
    """The msgpack array ``[version, epoch, seq, body]``. Raises `BusError` when it is over `MAX_CONTROL_BYTES`."""
    plain = msgspec.to_builtins(body, builtin_types=(bytes,), enc_hook=_write)
    data: bytes = msgpack.packb([VERSION, epoch, seq, plain])
    if len(data) > MAX_CONTROL_BYTES:
        raise BusError(f"{type(body).__name__} has {len(data)} bytes, expected at most {MAX_CONTROL_BYTES}")
    return data


def decode_from_member(data: bytes) -> Envelope[FromMember]:
    """What the router receives. Raises `BusError`."""
    epoch, seq, body = _open(data)
    return Envelope(epoch, seq, _convert(body, FromMember))


def decode_from_router(data: bytes) -> Envelope[FromRouter]:
    """What a member receives. Raises `BusError`."""
    epoch, seq, body = _open(data)
    return Envelope(epoch, seq, _convert(body, FromRouter))


def _write(value: object) -> bytes:
    """An alert crosses the bus as the JSON that it is."""
    if isinstance(value, Alert):
        return value.json
    raise NotImplementedError(type(value).__name__)


def _read(kind: type, value: object) -> Alert:
    if kind is not Alert or not isinstance(value, bytes):
        raise ValueError(f"an alert is bytes, got {type(value).__name__}")
    return Alert.from_json(value)


def _open(data: bytes) -> tuple[int, int, object]:
    if len(data) > MAX_CONTROL_BYTES:
        raise BusError(f"control message of {len(data)} bytes, expected at most {MAX_CONTROL_BYTES}")
    try:
        value = msgpack.unpackb(data, strict_map_key=True)
    except Exception as exc:  # msgpack raises ValueError, OverflowError, UnicodeError and its own tree
        raise BusError(f"not msgpack: {type(exc).__name__}") from None
    match value:
        case [int(version), int(epoch), int(seq), body] if epoch >= 0 and seq >= 0:
            if version != VERSION:
                raise BusError(f"bus version {version}, expected {VERSION}")
            return epoch, seq, body
    raise BusError("expected [version, epoch, seq, body]")


def _convert(body: object, kind: Any) -> Any:
    try:
        return msgspec.convert(body, kind, dec_hook=_read)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise BusError(str(exc)) from None


# ── docs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def render_markdown() -> str:
    """The table of control messages for docs/bus.md."""
    lines: list[str] = []
    for title, union in (("Member → router", FromMember), ("Router → member", FromRouter)):
        lines += [f"### {title}", "", "| `t` | fields | what |", "|---|---|---|"]
        for kind in get_args(union):
            fields = ", ".join(f"`{f.encode_name}`" + ("" if f.required else "?") for f in msgspec.structs.fields(kind))
            what = " ".join((kind.__doc__ or "").split())
            lines.append(f"| `{kind.__struct_config__.tag}` | {fields or '–'} | {what} |")
        lines.append("")
    return "\n".join(lines)


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

#: magic, version, form, codec, frame id, timestamp, term, receiver, length of the stream id
_FRAME: Final = struct.Struct(">BBBBIQQ8sB")
#: Header and longest stream id.
MAX_FRAME_HEAD_BYTES: Final = _FRAME.size + 255
FRAME_MAGIC: Final = 0x46
FORM_JSON_TEXT: Final = 0
FORM_PICTURE: Final = 1
FORM_JSON_FIELDS: Final = 2
_FIELDS_SIZE: Final = struct.Struct(">I")
EVERYBODY: Final = bytes(MEMBER_ID_BYTES)
#: Stands for a receiver in the picture of an alert, which is for nobody's screen: from a bridge to the router, which
#: keeps it, and from there to the gateway that asked. No member has this id: none begins with a zero.
FOR_ALERT: Final = bytes(MEMBER_ID_BYTES - 1) + b"\x01"


class BusFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame between processes. `payload` is what the camera sent, in the form that it sent.

    `form` `FORM_JSON_TEXT`: a JSON string token, quotes included, and the codec that the picture in it has, 0 when it
    holds none; `FORM_PICTURE`: the encoded picture, and the codec that the camera said; `FORM_JSON_FIELDS`: as the
    first, and before it `more`, the camera's other fields as JSON members with a comma before each, and their size.
    `to`: all zero for everybody with interest, or the one member that asked, or `FOR_ALERT`.
    """

    stream: str
    term: int
    frame_id: int
    timestamp: int
    form: int
    codec: int
    payload: bytes | memoryview
    to: bytes = EVERYBODY
    more: bytes = b""

    def parts(self) -> tuple[bytes, bytes | memoryview]:
        """Header and payload; one behind the other they are the frame."""
        name = self.stream.encode("ascii")
        head = _FRAME.pack(
            FRAME_MAGIC, VERSION, self.form, self.codec, self.frame_id, self.timestamp, self.term, self.to, len(name)
        )
        if self.form == FORM_JSON_FIELDS:
            name += _FIELDS_SIZE.pack(len(self.more)) + self.more
        return head + name, self.payload

    def encode(self) -> bytes:
        """Header and payload in one."""
        return b"".join(self.parts())


class FrameHead(msgspec.Struct, frozen=True, gc=False):
    """What the router reads of a frame; `payload_at` is where the picture begins."""

    stream: str
    term: int
    frame_id: int
    timestamp: int
    form: int
    codec: int
    to: bytes
    payload_at: int


def read_frame_head(data: bytes) -> FrameHead:
    """The header of a frame. Raises `BusError`."""
    at = _FRAME.size
    if len(data) < at:
        raise BusError(f"frame of {len(data)} bytes, expected at least {at}")
    magic, version, form, codec, frame_id, timestamp, term, to, length = _FRAME.unpack_from(data)
    if magic != FRAME_MAGIC or version != VERSION:
        raise BusError(f"frame with magic {magic:#x} and version {version}, expected {FRAME_MAGIC:#x} and {VERSION}")
    most = LAST_NUMBER if form == FORM_PICTURE else LAST_VALUE
    if form > FORM_JSON_FIELDS or codec > most:
        raise BusError(f"frame with form {form} and codec {codec}, expected 0–{FORM_JSON_FIELDS} and 0–{most}")
    name = data[at : at + length]
    if not length or len(name) < length or not name.isascii():
        raise BusError(f"frame with a stream id of {len(name)} bytes, expected {length or 'some'} in ASCII")
    return FrameHead(name.decode("ascii"), term, frame_id, timestamp, form, codec, to, at + length)


def decode_frame(data: bytes) -> BusFrame:
    """A whole frame; its payload is a view of `data`, and not copied. Raises `BusError`."""
    head = read_frame_head(data)
    at, more = head.payload_at, b""
    if head.form == FORM_JSON_FIELDS:
        begin = at + _FIELDS_SIZE.size
        if len(data) < begin or len(data) < (at := begin + _FIELDS_SIZE.unpack_from(data, at)[0]):
            raise BusError(f"frame of {len(data)} bytes ends within the camera's other fields")
        more = data[begin:at]
    payload = memoryview(data)[at:]
    return BusFrame(
        head.stream, head.term, head.frame_id, head.timestamp, head.form, head.codec, payload, head.to, more
    )
