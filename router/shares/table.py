"""The shares of all streams, by id, bounded per stream, per user and in total. Pure; times in ms since the epoch.

A share over a bound is refused: no share ever ends another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from watchout.common.alerts.model import Milliseconds, StreamId
from watchout.common.bus.messages import ShareId, Text


class StreamShare(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that its owner shares: whoever has the share's token may view it until `ends_at`.

    Attributes:
        id: Its id, a random part of the token; the token cannot be made from it without the gateways' key.
        stream: Id of the stream.
        owner: Id of the user who shares it: the share is void while the stream belongs to somebody else.
        alerts: Whether the alerts of the stream are shared as well.
        created_at: When it was made.
        ends_at: When it ends.
    """

    id: ShareId
    stream: StreamId
    owner: Text
    alerts: bool
    created_at: Milliseconds
    ends_at: Milliseconds


class Shares:
    """All shares of a home. Made by `SlotRouter`, changed by `ShareHandler`.

    Args:
        per_stream: Most shares of one stream.
        per_user: Most shares of one owner.
        total: Most shares of all.
    """

    def __init__(self, *, per_stream: int, per_user: int, total: int) -> None:
        self._per_stream = per_stream
        self._per_user = per_user
        self._total = total
        self._all: dict[str, StreamShare] = {}
        self._of_stream: dict[str, dict[str, None]] = {}
        self._of_owner: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, share: StreamShare, now_ms: int) -> str | None:
        """Add a share, unless a bound is reached.

        Args:
            share: The new share; one that is there already stays.
            now_ms: Now; what has ended does not count.

        Returns:
            The bound that is reached, as a sentence for the owner; None when the share is there.
        """
        if share.id in self._all:
            return None
        self.prune(now_ms)
        if len(self._of_stream.get(share.stream, ())) >= self._per_stream:
            return f"this stream has {self._per_stream} shares, the most of one stream: end one first"
        if self._of_owner[share.owner] >= self._per_user:
            return f"you have {self._per_user} shares, the most of one user: end one first"
        if len(self._all) >= self._total:
            return f"there are {self._total} shares of all users, the most: try again later"
        self._put(share)
        return None

    def restore(self, shares: Iterable[StreamShare]) -> None:
        """Add shares of a former router, whatever the bounds are now.

        Args:
            shares: The shares of the file.
        """
        for share in shares:
            self._put(share)

    def get(self, share_id: str, now_ms: int) -> StreamShare | None:
        """Return a share that has not ended.

        Args:
            share_id: Its id.
            now_ms: Now.
        """
        share = self._all.get(share_id)
        return share if share is not None and share.ends_at > now_ms else None

    def of_stream(self, stream: str, owner: str, now_ms: int) -> list[StreamShare]:
        """Return what a user shares of a stream, in the order in which it was made.

        Args:
            stream: Id of the stream.
            owner: Id of the user.
            now_ms: Now; what has ended is left out.
        """
        found = (self._all[share_id] for share_id in self._of_stream.get(stream, ()))
        return [share for share in found if share.owner == owner and share.ends_at > now_ms]

    def end(self, share_id: str) -> StreamShare | None:
        """Remove a share.

        Args:
            share_id: Its id.

        Returns:
            The share; None when there was none.
        """
        share = self._all.pop(share_id, None)
        if share is not None:
            of_stream = self._of_stream[share.stream]
            del of_stream[share_id]
            if not of_stream:
                del self._of_stream[share.stream]
            self._of_owner[share.owner] -= 1
            if not self._of_owner[share.owner]:
                del self._of_owner[share.owner]
        return share

    def prune(self, now_ms: int) -> list[str]:
        """Remove the shares that have ended.

        Args:
            now_ms: Now.

        Returns:
            Their ids.
        """
        ended = [share.id for share in self._all.values() if share.ends_at <= now_ms]
        for share_id in ended:
            self.end(share_id)
        return ended

    def _put(self, share: StreamShare) -> None:
        self.end(share.id)
        self._all[share.id] = share
        self._of_stream.setdefault(share.stream, {})[share.id] = None
        self._of_owner[share.owner] += 1
