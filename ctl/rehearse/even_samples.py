"""A bounded list of samples that stays evenly spaced, however many come. Pure.

A list that leaves out every second sample whenever it is full has few early samples and many late ones: a slope through
them then is that of the last minutes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class EvenSamples(Generic[T]):
    """The first sample, each n-th after it, and the newest; n doubles when there are too many.

    Args:
        most: Most samples that are kept, 2 or more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._every = 1
        self._count = 0
        self._kept: list[T] = []
        self._newest: list[T] = []

    def add(self, sample: T) -> None:
        """Add the next sample."""
        self._newest = [sample]
        if self._count % self._every == 0:
            self._kept.append(sample)
            if len(self._kept) == self._most:
                del self._kept[1::2]
                self._every *= 2
        self._count += 1

    def values(self) -> list[T]:
        """Return the samples that are kept, in order."""
        newest_kept = (len(self._kept) - 1) * self._every
        return self._kept + (self._newest if newest_kept < self._count - 1 else [])
