"""The streams that have a publisher or viewers, with their indexes by member. Pure.

A stream without a publisher and without viewers is only a reservation, so nothing here grows with the number of streams
that ended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from watchout.common.bus.messages import Interest
from watchout.common.media.frame_ids import FRAME_ID_HIGH, FRAME_IDS_UNSAVED
from watchout.router.streams.infos import StreamInfos
from watchout.router.streams.ownership import Ownership
from watchout.router.streams.stream import RouterStream
from watchout.router.streams.totals import StreamTotals


class RouterStreamTable:
    """All streams of one router. Created by `Streams`, shared by `StreamClaims`, `Interests` and `Routing`.

    At most `max_streams` streams have a publisher. As many more, of known owners, may have viewers alone, and as many
    of unknown owners.
    """

    def __init__(self, max_streams: int, *, reserved_s: float, reserved_per_user: int, reserved_max: int) -> None:
        self.max_streams = max_streams
        self.streams: dict[str, RouterStream] = {}
        #: Streams of unknown owner that only have viewers.
        self.awaited: set[str] = set()
        #: Ids of the streams with a publisher, in order.
        self.published_ids: list[str] = []
        #: Sums over all streams.
        self.totals = StreamTotals()
        #: Ids of the streams whose publisher is connected to a gateway, by the gateway's member id.
        self.published_at: dict[bytes, set[str]] = {}
        #: Ids of the streams that a gateway has viewers of, by member id.
        self.viewed_at: dict[bytes, set[str]] = {}
        #: What cameras say of themselves.
        self.infos = StreamInfos()
        self.ownership = Ownership(
            self.streams, reserved_s=reserved_s, reserved_per_user=reserved_per_user, reserved_max=reserved_max
        )

    @property
    def published_count(self) -> int:
        """How many streams have a publisher."""
        return len(self.published_ids)

    def get(self, name: str) -> RouterStream | None:
        """Return a stream that has a publisher or viewers."""
        return self.streams.get(name)

    def published(self) -> list[RouterStream]:
        """Return the streams that have a publisher, by id."""
        return [self.streams[name] for name in self.published_ids]

    def published_after(self, name: str, limit: int) -> list[RouterStream]:
        """Return up to `limit` streams that have a publisher, by id, from the first one above an id; "": the first."""
        begin = bisect_right(self.published_ids, name)
        return [self.streams[each] for each in self.published_ids[begin : begin + limit]]

    def claimed_by(self, name: str, now: float) -> str | None:
        """Return the only user who may register a stream now, None when every user may. `now` in seconds."""
        stream = self.streams.get(name)
        if stream is not None and stream.gateway is not None:
            return stream.user
        return self.ownership.reserved_for(name, now)

    def add_published(self, name: str) -> RouterStream | None:
        """Return the stream, which is about to get a publisher; None when `max_streams` have one.

        A new stream continues with the owner, term and frame id of its reservation, which ends.
        """
        stream = self.streams.get(name)
        if stream is None or stream.gateway is None:
            if self.published_count >= self.max_streams:
                return None
            reserved = self.ownership.take(name)
            if stream is None:
                stream = self.streams[name] = RouterStream(name)
                stream.recall(reserved)
            self.awaited.discard(name)
        return stream

    def has_room_to_publish(self, name: str) -> bool:
        """Return whether a stream may get a publisher; also when it has one."""
        stream = self.streams.get(name)
        return self.published_count < self.max_streams or (stream is not None and stream.gateway is not None)

    def has_room_to_view(self, name: str) -> bool:
        """Return whether a stream may get viewers, whoever owns it."""
        awaited = len(self.awaited)
        of_owners = len(self.streams) - self.published_count - awaited
        return name in self.streams or max(awaited, of_owners) < self.max_streams

    def add_viewed(self, interest: Interest) -> RouterStream | None:
        """Add a stream that has viewers and no publisher; None when too many are awaited."""
        name = interest.stream
        reserved = self.ownership.get(name)
        if reserved is None and interest.user is None:
            if len(self.awaited) >= self.max_streams:
                return None
            self.awaited.add(name)
        elif len(self.streams) - self.published_count - len(self.awaited) >= self.max_streams:
            return None
        stream = self.streams[name] = RouterStream(name)
        stream.recall(reserved)
        return stream

    def remove_if_unused(self, stream: RouterStream) -> None:
        """Remove a stream that has neither a publisher nor viewers."""
        if stream.gateway is None and not stream.interests:
            self.streams.pop(stream.id, None)
            self.awaited.discard(stream.id)

    def set_gateway(self, stream: RouterStream, member: bytes) -> None:
        """Record the gateway that the publisher of a stream is connected to."""
        if stream.gateway is None:
            insort(self.published_ids, stream.id)
        stream.gateway = stream.last_gateway = member
        self.published_at.setdefault(member, set()).add(stream.id)
        self._save(stream)

    def raise_frame_id(self, stream: RouterStream, frame_id: int) -> None:
        """Record the id of the last frame, and save it when what was saved is too far behind it."""
        stream.frame_id = max(stream.frame_id, frame_id)
        if stream.gateway is not None and stream.frame_id - stream.saved_frame_id >= FRAME_IDS_UNSAVED:
            self._save(stream)

    def raise_floor(self, stream: RouterStream, last: int) -> bool:
        """Let the frame ids of a stream with a publisher go on above an id that viewers had before.

        Returns:
            Whether that changes anything: its gateway is told with the next `Forward`.
        """
        if last <= stream.frame_id or last >= FRAME_ID_HIGH:
            return False
        stream.floor = last
        self.raise_frame_id(stream, last)
        return True

    def _save(self, stream: RouterStream) -> None:
        stream.saved_frame_id = stream.frame_id
        self.ownership.mark_changed(stream.id)

    def clear_gateway(self, stream: RouterStream) -> None:
        """Record that a stream has no publisher."""
        if stream.gateway is not None:
            discard(self.published_at, stream.gateway, stream.id)
            del self.published_ids[bisect_left(self.published_ids, stream.id)]
        self.infos.remove(stream)
        stream.gateway = None


def discard(index: dict[bytes, set[str]], member: bytes, name: str) -> None:
    """Remove a stream id from a member's set, and the set once it is empty."""
    names = index.get(member)
    if names is not None:
        names.discard(name)
        if not names:
            del index[member]
