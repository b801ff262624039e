"""Joins what one process receives over two connections at a time, so that each message is handled once. Pure.

While a process changes from one NATS server to another it is subscribed at both, and gets each message from both. Each
connection keeps the order of each sender. First what the old one brings is handled, and what the new one brings is
held. At the change the held messages that the old one did not bring are handled; from then on those of the new one
alone, without what the old one has brought already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

#: Most messages that are held, and their bytes; past it the process stays with the old connection.
MAX_HELD: Final = 20_000
MAX_HELD_BYTES: Final = 32 << 20

T = TypeVar("T")


class Overlap(Generic[T]):
    """The messages of the time in which there are two connections.

    Args:
        key: Returns what tells a message from others, with the subscription that got it; equal for both copies.
        size: Returns the bytes of a message.

    """

    def __init__(self, key: Callable[[T], Hashable], size: Callable[[T], int]) -> None:
        self._key = key
        self._size = size
        self._brought: Counter[Hashable] = Counter()
        self._held: list[T] = []
        self._number = self._bytes = 0
        self._changed = False
        #: Whether more was to be held than may be: the new connection is of no use any more.
        self.is_full = False

    def from_old(self, message: T) -> list[T]:
        """Return what is to be handled when the old connection brings a message: before the change, the message.

        After it nothing: where the old connection could not be drained, the new one brings it too.
        """
        if self._changed:
            return []
        if self._has_room(message):
            self._brought[self._key(message)] += 1
        return [message]

    def from_new(self, message: T) -> list[T]:
        """Return what is to be handled when the new connection brings a message: nothing before the change."""
        if not self._changed:
            if self._has_room(message):
                self._held.append(message)
            return []
        return self._unless_brought(message)

    def change(self) -> list[T]:
        """Return what is to be handled at the change: what the new connection brought, and the old one did not."""
        self._changed = True
        held, self._held = self._held, []
        return [each for message in held for each in self._unless_brought(message)]

    def _unless_brought(self, message: T) -> list[T]:
        key = self._key(message)
        if self._brought[key] > 0:
            self._brought[key] -= 1
            return []
        return [message]

    def _has_room(self, message: T) -> bool:
        self._number += 1
        self._bytes += self._size(message)
        if self._number > MAX_HELD or self._bytes > MAX_HELD_BYTES:
            self.is_full = True
            self._held.clear()
            self._brought.clear()
        return not self.is_full
