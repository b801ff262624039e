"""Which router a stream belongs to, where several routers share the streams: its slot. Pure.

In a cluster the streams are divided into a fixed number of slots, and each slot has one router at a time. Every process
has to find the same slot for a stream, in every release: the hash is part of the contract (docs/bus.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def slot_of(stream: str, slots: int) -> int:
    """Return the slot of a stream: the first 8 bytes of BLAKE2b of its id, big-endian, modulo the number of slots.

    Args:
        stream: Id of the stream.
        slots: Number of slots, at least 1.

    Returns:
        The slot, from 0.

    """
    if slots == 1:
        return 0
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % slots


def by_slot(items: Iterable[T], slots: int, stream_of: Callable[[T], str]) -> dict[int, list[T]]:
    """Divide items by the slots of their streams; their order is kept.

    Args:
        items: The items.
        slots: Number of slots, at least 1.
        stream_of: Returns the id of an item's stream.

    Returns:
        The items of each slot that has any.

    """
    if slots == 1:
        return {0: found} if (found := list(items)) else {}
    divided: dict[int, list[T]] = {}
    for item in items:
        divided.setdefault(slot_of(stream_of(item), slots), []).append(item)
    return divided
