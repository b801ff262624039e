"""Routes of frames: which members get a stream's frames, and at what rate its gateway forwards them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from watchout.common.bus.frames import EVERYBODY, FrameHead
from watchout.common.bus.messages import Forward, FrameReceiver
from watchout.common.media.rate import Sampler
from watchout.router.streams.stream import BridgeRecord, RouterStream, Send
from watchout.router.streams.table import RouterStreamTable


class Routing:
    """Decides which members get the frames of each stream: computed when interest or bridges change, looked up for each
    frame.

    Part of the registry (`Streams`). A publisher's gateway is told (`Forward`) which members want the frames, and how
    many per second. It sends them there itself. Members without an address, and all members where the gateway has none,
    get them through the router: of these the gateway is told only the highest rate, and the router sends each member no
    more than it wants.

    Args:
        table: The streams, shared by the parts of the registry.
        syncing: The router has just started, and members still report what they want: until `settle` is called, a
            `Forward` ends no request of a former router.
    """

    def __init__(self, table: RouterStreamTable, *, syncing: bool = False) -> None:
        self._table = table
        self._streams = table.streams
        self._syncing = syncing
        #: Where members accept frames of other members, by member id.
        self._addresses: dict[bytes, str] = {}
        #: Bridges by member id.
        self.bridges: dict[bytes, BridgeRecord] = {}
        #: Frames dropped because the stream has another term or no publisher.
        self.old_term_frames = 0

    def route(self, head: FrameHead, now: float) -> list[bytes]:
        """Return the members that get this frame. `now` in seconds."""
        stream = self._streams.get(head.stream)
        if stream is None or stream.gateway is None or head.term != stream.term:
            self.old_term_frames += 1
            return []
        if head.to != EVERYBODY:
            return [head.to]
        return [member for member, sampler in stream.routes if sampler is None or sampler.take(now)]

    def set_address(self, member: bytes, at: str | None) -> None:
        """Record where a member that joins accepts frames of other members; None: nowhere."""
        if at is not None:
            self._addresses[member] = at

    def remove_address(self, member: bytes) -> None:
        """Forget the address of a member that is gone."""
        self._addresses.pop(member, None)

    def direct_address(self, sender: bytes, receiver: bytes) -> str | None:
        """Return where one member sends frames for another; None: to the router."""
        return self._addresses.get(receiver) if sender in self._addresses else None

    def settle(self) -> None:
        """End `syncing`: what a former router requested and nobody wants now ends. All streams are to be rerouted."""
        self._syncing = False

    def add_bridge(self, bridge: BridgeRecord) -> None:
        """Add a bridge, which shares the streams of its group anew: all are to be rerouted."""
        self.bridges[bridge.member] = bridge

    def remove_bridge(self, member: bytes) -> bool:
        """Remove a bridge. Return whether the member was one: all streams are to be rerouted."""
        return self.bridges.pop(member, None) is not None

    def reroute(self, stream: RouterStream) -> list[Send]:
        """Compute the routes of a stream. Return the `Forward` for its gateway if that changed.

        Nothing is sent before the gateway's first `PublicationState`: it may not have received its grant yet.
        """
        if stream.gateway is None or not stream.confirmed:
            return []
        wanted: dict[bytes, float | None] = {
            member: interest.max_fps
            for member, interest in stream.interests.items()
            if interest.viewers and member != stream.gateway
        }
        stream.bridges = {}
        if stream.producing:
            for bridge in assign(stream.id, self.bridges.values()):
                stream.bridges[bridge.group] = bridge.member
                wanted[bridge.member] = bridge.max_fps
        receivers: list[FrameReceiver] = []
        relayed: dict[bytes, float | None] = {}
        for member, rate in wanted.items():
            at = self.direct_address(stream.gateway, member)
            if at is None:
                relayed[member] = rate
            else:
                receivers.append(FrameReceiver(at, rate))
        rates = list(relayed.values())
        top = None if None in rates else max((r for r in rates if r is not None), default=None)
        # Members that want the highest rate get every forwarded frame: a second sampler at that rate would drop some.
        before = dict(stream.routes)
        stream.routes = [
            (member, None if rate is None or rate == top else before.get(member) or Sampler(rate))
            for member, rate in relayed.items()
        ]
        for member, sampler in stream.routes:
            if sampler is not None:
                sampler.set_rate(relayed[member])
        viewers = sum(interest.viewers for member, interest in stream.interests.items() if member != stream.gateway)
        forward = Forward(
            stream=stream.id,
            term=stream.term,
            wanted=bool(relayed),
            max_fps=top,
            viewers=viewers,
            receivers=tuple(receivers),
            partial=self._syncing and stream.gateway in self._addresses,
            floor=stream.floor,
        )
        if stream.forward is None and not wanted and not stream.forwarding and not stream.floor:
            return []
        if forward == stream.forward:
            return []
        stream.forward = forward
        return [Send(stream.gateway, forward)]


def assign(stream: str, bridges: Iterable[BridgeRecord]) -> list[BridgeRecord]:
    """Return, for each group with a bridge for this stream, the bridge that gets it.

    By highest random weight (rendezvous hashing): when a bridge joins or leaves, only the streams that it takes or
    leaves move.
    """
    best: dict[str, tuple[bytes, BridgeRecord]] = {}
    for bridge in bridges:
        if not bridge.globs.match(stream):
            continue
        weight = hashlib.blake2b(stream.encode() + bridge.member, digest_size=8).digest()
        if bridge.group not in best or weight > best[bridge.group][0]:
            best[bridge.group] = (weight, bridge)
    return [bridge for _, bridge in best.values()]
