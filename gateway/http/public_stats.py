"""The routers' stats as the public JSON of ``/stats``: totals, and the list of streams, whole or a part of it. Pure.

The list is encoded page by page as it comes, so that no step takes longer when there are more streams.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from watchout.common.bus.reply_records import StatsReply, StreamRow


class _PublicStream(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One stream in the JSON of ``/stats``, made by `PublicStreams` from a `StreamRow`.

    `fps` is the measured rate in frames per second, `total_frames` is the number of frames, and `uptime` is in whole
    seconds.
    """

    stream_id: str
    fps: float
    total_frames: int
    uptime: int


class _Totals(msgspec.Struct, frozen=True, rename="camel"):
    """The totals at the beginning of the JSON object of ``/stats`` (docs/protocol.md)."""

    total_producers: int
    total_video_consumers: int
    total_alert_consumers: int
    total_connections: int


class PublicStreams:
    """The streams that the public may see, in their order. Fill it with `add`, then read it.

    Attributes:
        missing: The slots whose streams are missing, at least in part.
    """

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self._ids: list[str] = []
        self._rows: list[_PublicStream] = []
        self._parts: list[tuple[bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, rows: Sequence[StreamRow]) -> None:
        """Add a page of rows, by stream id, above those that are here.

        Args:
            rows: The rows.
        """
        if rows:
            found = [_PublicStream(row.stream_id, row.fps, row.total_frames, row.uptime) for row in rows]
            ids = [row.stream_id for row in rows]
            self._rows += found
            self._ids += ids
            self._parts.append((_items(ids), _items(found)))

    def lists(self) -> tuple[bytes, bytes]:
        """Return the JSON of all ids, and of all streams."""
        ids, streams = zip(*self._parts, strict=True) if self._parts else ((), ())
        return b"[" + b",".join(ids) + b"]", b"[" + b",".join(streams) + b"]"

    def part(self, after: str, limit: int) -> tuple[bytes, bytes, str | None]:
        """Return the JSON of some ids and of their streams, and the last of them if there are more after it.

        Args:
            after: The part begins with the first stream above this id; "": with the first of all.
            limit: Most streams.
        """
        begin = bisect_right(self._ids, after)
        ids, rows = self._ids[begin : begin + limit], self._rows[begin : begin + limit]
        more = ids and begin + limit < len(self._ids)
        return msgspec.json.encode(ids), msgspec.json.encode(rows), ids[-1] if more else None


def missing_slots(reply: StatsReply, streams: PublicStreams | None = None) -> list[int]:
    """Return the slots that did not answer, whose streams are missing; none where there is one slot.

    Args:
        reply: The totals.
        streams: The list; None: it is not shown.
    """
    missing = set() if reply.missing_slots is msgspec.UNSET else set(reply.missing_slots)
    return sorted(missing | (set() if streams is None else streams.missing))


def stats_page(
    reply: StatsReply, ids: bytes, streams: bytes, *, missing: Sequence[int] = (), following: str | None = None
) -> bytes:
    """Return the JSON object of ``/stats`` (docs/protocol.md).

    Args:
        reply: The totals.
        ids: The JSON of the list of ids.
        streams: The JSON of the list of streams.
        missing: The slots whose streams are missing.
        following: With a part of the list: after which id the next part begins; None: there is none.
    """
    totals = reply.totals
    head = msgspec.json.encode(
        _Totals(totals.producers, totals.video_consumers, totals.alert_consumers, totals.connections)
    )
    pieces = [head[:-1], b',"activeStreams":', ids, b',"streams":', streams]
    if missing:
        pieces += b',"missingSlots":', msgspec.json.encode(missing)
    if following is not None:
        pieces += b',"next":', msgspec.json.encode(following)
    return b"".join([*pieces, b"}"])


def _items(values: Sequence[object]) -> bytes:
    """Return the JSON of a list without its brackets."""
    return msgspec.json.encode(values)[1:-1]
