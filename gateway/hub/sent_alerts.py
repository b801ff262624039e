"""The alerts that a gateway sent last, so that a repeated one is delivered once. Pure."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import Final

#: Alerts that are remembered.
ALERTS_REMEMBERED: Final = 65_536
#: Length of a digest: of 2^64 alerts two would be taken for one.
_DIGEST_BYTES: Final = 16


class SentAlerts:
    """Remembers the alerts that were sent last. Made by `Delivery`.

    It keeps a digest of each, which takes less than half of the memory of its names,
    however long these are.

    Args:
        limit: How many are remembered; past it the oldest is forgotten.

    """

    __slots__ = ("_digests", "_limit", "_order")

    def __init__(self, limit: int = ALERTS_REMEMBERED) -> None:
        self._limit = limit
        self._digests: set[bytes] = set()
        #: The same digests, oldest first.
        self._order: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, stream_id: str, key: str) -> bool:
        """Remember an alert; return False when it was sent before.

        Args:
            stream_id: The alert's stream, without a zero byte.
            key: The alert's id, or what stands for an acknowledgement of it.

        """
        digest = blake2b(f"{stream_id}\0{key}".encode(), digest_size=_DIGEST_BYTES).digest()
        if digest in self._digests:
            return False
        self._digests.add(digest)
        self._order.append(digest)
        if len(self._order) > self._limit:
            self._digests.remove(self._order.popleft())
        return True
