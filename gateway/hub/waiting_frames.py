"""How many bytes the frames hold that viewers have not taken: each counted once however many wait for it. Pure.

Past the bound the user who has the most loses his oldest one, until what is left fits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Protocol

from watchout.common.toolbox.largest import Largest


class Holder(Protocol):
    """A socket, subscription or answer that keeps one frame."""

    def __hash__(self) -> int: ...

    def frame_evicted(self) -> None:
        """Let go of the frame at once. It is counted no more."""


class _Entry:
    """What one user's holders keep of one frame."""

    __slots__ = ("body", "holders")

    def __init__(self, body: object) -> None:
        self.body: Final = body  # kept so that its id stays its own
        self.holders: dict[Holder, None] = {}


class WaitingFrames:
    """Bodies of frames by user and holder; not over `max_bytes` together, but always room for one."""

    __slots__ = ("_entries", "_holds", "_max_bytes", "_sizes", "_users", "evicted", "total_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: By user and id of a body, in the order in which they came.
        self._entries: dict[Hashable, OrderedDict[int, _Entry]] = {}
        self._holds: dict[Holder, tuple[Hashable, int]] = {}
        #: By id of a body: its bytes, and how many users have it.
        self._sizes: dict[int, tuple[int, int]] = {}
        self._users: Largest[Hashable] = Largest()
        #: Bytes of all bodies, and how many entries gave way so far.
        self.total_bytes = self.evicted = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def hold(self, holder: Holder, user: Hashable, body: object, size_bytes: int) -> None:
        """`holder` keeps this body of so many bytes from now on, and no other. Some give way, possibly `holder`."""
        key = id(body)
        if (before := self._holds.get(holder)) is not None:
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
        self._holds[holder] = user, key
        while self.total_bytes > self._max_bytes and len(self._sizes) > 1:
            self._evict()

    def release(self, holder: Holder) -> None:
        """It keeps nothing any more. It may be called again."""
        user, key = self._holds.pop(holder, (None, 0))
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
        user = self._users.largest()
        oldest = next(iter(self._entries[user].values()))
        self.evicted += 1
        for holder in list(oldest.holders):
            self.release(holder)
            holder.frame_evicted()
