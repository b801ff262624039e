"""Bounds the memory of frames that wait for slow viewers; each frame counts once, however many viewers wait. Pure.

Past the bound the user with the most bytes loses their oldest frame, until the rest fits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Protocol

from watchout.common.toolbox.largest import Largest


class WaitingHolder(Protocol):
    """A socket, subscription or HTTP response that holds one frame until it is written.

    `WaitingFrames` calls `on_frame_evicted` when the frames of all holders exceed their memory.
    """

    def __hash__(self) -> int: ...

    def on_frame_evicted(self) -> None:
        """Handle that the held frame was evicted: discard it at once. It is not counted any more."""


class _Entry:
    """The holders of one user that hold the same frame. Created and removed by `WaitingFrames`."""

    __slots__ = ("body", "holders")

    def __init__(self, body: object) -> None:
        self.body: Final = body  # a reference, so that its `id()` is not reused
        self.holders: dict[WaitingHolder, None] = {}


class WaitingFrames:
    """Bounds the bytes of the frames that viewers have not received yet. One per gateway, in `Context`.

    Sockets report by `hold` what they hold; a frame counts once, however many of them hold it. Past the bound the user
    whose viewers hold the most bytes loses the oldest frame: each of its holders gets `on_frame_evicted`.

    Args:
        max_bytes: Most bytes of all frames together (`WAITING_FRAME_BYTES`); one single frame may exceed it.

    Attributes:
        total_bytes: Bytes of all frames.
        evicted: Evictions so far: one for each frame and user.
    """

    __slots__ = ("_entries", "_held", "_max_bytes", "_sizes", "_users", "evicted", "total_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: By user and `id()` of a body, oldest first.
        self._entries: dict[Hashable, OrderedDict[int, _Entry]] = {}
        #: User and `id()` of the body that each holder holds.
        self._held: dict[WaitingHolder, tuple[Hashable, int]] = {}
        #: Bytes and number of users of each body, by its `id()`.
        self._sizes: dict[int, tuple[int, int]] = {}
        self._users: Largest[Hashable] = Largest()
        self.total_bytes = self.evicted = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def hold(self, holder: WaitingHolder, user: Hashable, body: object, size_bytes: int) -> None:
        """Record that `holder` holds `body` instead of what it held before.

        Past the bound others are evicted before this returns, possibly `holder` itself.

        Args:
            holder: Gets `on_frame_evicted` when the body is evicted.
            user: The user whose share the body counts to.
            body: The frame, or another object that stands for it; the same object counts once.
            size_bytes: Bytes of the body; ignored when it is held already.
        """
        key = id(body)
        if (before := self._held.get(holder)) is not None:
            if before == (user, key) and self._sizes[key][0] == size_bytes:
                return
            self.release(holder)
        entries = self._entries.setdefault(user, OrderedDict())
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry(body)
            size_bytes, users = self._sizes.get(key, (size_bytes, 0))
            self._sizes[key] = size_bytes, users + 1
            self._users.add(user, size_bytes)
            if not users:
                self.total_bytes += size_bytes
        entry.holders[holder] = None
        self._held[holder] = user, key
        while self.total_bytes > self._max_bytes and len(self._sizes) > 1:
            self._evict()

    def release(self, holder: WaitingHolder) -> None:
        """Record that `holder` holds nothing. May be called again."""
        user, key = self._held.pop(holder, (None, 0))
        if not key:
            return
        entries = self._entries[user]
        holders = entries[key].holders
        del holders[holder]
        if holders:
            return
        del entries[key]
        if not entries:
            del self._entries[user]
        size_bytes, users = self._sizes[key]
        self._users.add(user, -size_bytes)
        if users > 1:
            self._sizes[key] = size_bytes, users - 1
        else:
            del self._sizes[key]
            self.total_bytes -= size_bytes

    def _evict(self) -> None:
        """Evict the oldest frame of the user with the most bytes."""
        user = self._users.largest()
        oldest = next(iter(self._entries[user].values()))
        self.evicted += 1
        for holder in list(oldest.holders):
            self.release(holder)
            holder.on_frame_evicted()
