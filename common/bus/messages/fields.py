"""Root class of the control messages, and the types of their fields with the limits that decoding checks. Pure."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from watchout.common.bus import mesh_address
from watchout.common.toolbox import wildcards
from watchout.common.toolbox.globs import MAX_PATTERN_CHARS, PATTERN

#: Receivers of a stream's frames that one `Forward` names: as many as there may be members.
MAX_RECEIVERS: Final = 1_000
#: Version of the bus: the first element of every control message, and the second byte of every frame.
VERSION: Final = 1
#: What a process understands beyond the first release, as `Welcome` and `Hello` tell it: 1 since shares, 2 since links
#: and queries about the cluster, 3 since latencies, stamps of frames, and questions of `watchout-ctl why`, 4 since
#: heartbeats without metrics.
LEVEL: Final = 4
#: The least level of a router that understands latencies and stamps of frames.
LATENCY_LEVEL: Final = 3
#: The least level of a router that takes the query ``why``, and of a member that answers `AskWhy`.
WHY_LEVEL: Final = 3
#: The least level of a router that keeps the metrics it has when a heartbeat comes without any.
BARE_HEARTBEAT_LEVEL: Final = 4
#: Most bytes of a member's answer to `AskWhy`.
MAX_WHY_BYTES: Final = 512 << 10
#: Largest encoded control message, in bytes, on both sides. The largest in practice is a reply with every stream.
MAX_CONTROL_BYTES: Final = 16 << 20
#: Rows in one `StreamReport` or `ReservationReport`, so that each stays far below `MAX_CONTROL_BYTES`.
REPORT_CHUNK: Final = 500
#: Most rows in one `StreamPage`.
MAX_PAGE_ROWS: Final = 1_000
#: Rows in one `CoverageReport`: the least covered streams of a bridge.
MAX_COVERAGE_ROWS: Final = 1_000
#: Rows in one `LinkReport`: links without a connection first, then those with the most bytes.
MAX_LINK_ROWS: Final = 200
#: Epochs stay below this, which as ms is the year 2109: terms are built on the epoch and have 63 bits.
MAX_EPOCH: Final = 2**42
#: A router can exceed each epoch below this one. Members forget a higher one that no router has.
EXCEEDABLE_EPOCH: Final = MAX_EPOCH - 4096
#: The terms of a router's grants are above its epoch × 2²⁰ by less than this, as of epochs for a year, unless a member
#: has told it higher ones.
TERM_ROOM: Final = 2**55
#: Terms stay below this.
MAX_TERM: Final = (MAX_EPOCH << 20) + 2 * TERM_ROOM
#: Length of a member's id, in bytes.
MEMBER_ID_BYTES: Final = 8

#: A member's id in hexadecimal digits.
MemberId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
#: What a member is: `ctl` is `watchout-ctl`, which asks and leaves.
MemberKind = Literal["gateway", "mlbridge", "ctl"]
#: Where a member accepts frames of other members: the text of a `common.bus.mesh_address.MeshAddress`.
FrameAddress = Annotated[str, msgspec.Meta(pattern=mesh_address.PATTERN)]
StreamStatus = Literal["streaming", "online", "offline"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
#: One pattern of stream ids, as `common.toolbox.globs` matches it.
Glob = Annotated[str, msgspec.Meta(max_length=MAX_PATTERN_CHARS, pattern=PATTERN)]
#: One pattern of stream ids, as `common.toolbox.wildcards` matches it.
Wildcard = Annotated[str, msgspec.Meta(pattern=wildcards.PATTERN)]
#: Id of a share: 16 random bytes in base64url.
ShareId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
#: What a camera says of itself: the text of a JSON object.
Info = Annotated[str, msgspec.Meta(max_length=4096)]
#: Frames per second.
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
#: A part of a whole, 0 to 1.
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
#: Why frames were dropped, as one word: the values of the gateway's `DropReason`.
DropReasonWord = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,16}\Z")]
SettingName = Annotated[str, msgspec.Meta(max_length=64)]
SettingText = Annotated[str, msgspec.Meta(max_length=256)]
#: Ids of the organizations that a stream's owner belongs to; a policy may let their members watch the stream.
Organizations = Annotated[tuple[Text, ...], msgspec.Meta(max_length=1000)]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", gc=False):
    """Root of all control messages: a msgpack map in which `t` holds the tag of the class.

    Each subclass declares its tag, which is part of the wire format and stays when the class is renamed. A field that
    has its default is left out of the map. Decoding checks types and limits, and ignores fields that it does not know.
    Garbage collection does not examine messages: they do not change, so none can be part of a cycle.
    """
