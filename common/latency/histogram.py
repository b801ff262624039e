"""A histogram of durations with a fixed set of log-spaced buckets, so that two can be added. Pure.

A bucket is 4.4 % wide: 16 of them double the duration. What is read from a histogram is off by half a bucket at most,
2.2 %, between 0.25 ms and 131 s; shorter durations share the first bucket, longer ones the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

#: Upper edge of the first bucket, in ms, and the buckets in which the duration doubles.
FIRST_MS: Final = 0.25
PER_DOUBLING: Final = 16
#: Doublings from the first edge to the last: 131 s.
DOUBLINGS: Final = 19
#: Buckets in all: the numbers run from 0 to this less one.
BUCKETS: Final = PER_DOUBLING * DOUBLINGS + 2


def bucket_of(ms: float) -> int:
    """Return the number of the bucket of a duration in ms; a negative one is in the first."""
    if ms < FIRST_MS:
        return 0
    bucket = int(math.log2(ms / FIRST_MS) * PER_DOUBLING) + 1
    return bucket if bucket < BUCKETS else BUCKETS - 1


def edge_ms(bucket: int) -> float:
    """Return the upper edge of a bucket in ms; infinite for the last one."""
    return math.inf if bucket >= BUCKETS - 1 else FIRST_MS * 2.0 ** (bucket / PER_DOUBLING)


class Histogram:
    """Durations counted by bucket, of which there are `BUCKETS` at most; only those in use take memory.

    Attributes:
        count: how many durations.
        sum_ms: their sum in ms, negative ones counted as 0.
        negative: those among them that were negative: two clocks are apart by more than the way took.
        buckets: count of each bucket in use.
    """

    __slots__ = ("buckets", "count", "negative", "sum_ms")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ms = 0.0
        self.negative = 0
        self.buckets: dict[int, int] = {}

    def add(self, ms: float, times: int = 1) -> None:
        """Count a duration in ms, so many `times`."""
        self.add_to(bucket_of(ms), ms, times)

    def add_to(self, bucket: int, ms: float, times: int) -> None:
        """Do the same where the bucket of the duration is known."""
        self.count += times
        if ms < 0:
            self.negative += times
        else:
            self.sum_ms += ms * times
        self.buckets[bucket] = self.buckets.get(bucket, 0) + times

    def merge(self, other: Histogram) -> None:
        """Add all that another histogram has."""
        self.count += other.count
        self.sum_ms += other.sum_ms
        self.negative += other.negative
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile_ms(self, share: float) -> float | None:
        """Return the duration that this share (0 to 1) of all does not exceed, in ms; None of an empty histogram.

        It is the middle of the bucket of the value with the rank ``ceil(share × count)``.
        """
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                if bucket == 0:
                    return FIRST_MS / 2
                return edge_ms(bucket - 1) * (2.0 ** (0.5 / PER_DOUBLING) if bucket < BUCKETS - 1 else 1.0)
        return None

    @property
    def mean_ms(self) -> float | None:
        """The mean in ms; None of an empty histogram."""
        return self.sum_ms / self.count if self.count else None

    def pairs(self) -> list[int]:
        """Return the buckets in use, each followed by its count, as `of_pairs` takes them."""
        return list(chain.from_iterable(sorted(self.buckets.items())))

    @classmethod
    def of_pairs(cls, pairs: Sequence[int], *, sum_ms: float, negative: int) -> Histogram:
        """Return the histogram of what `pairs` returned; a bucket that there is not is left out."""
        made = cls()
        made.sum_ms, made.negative = sum_ms, negative
        for bucket, count in zip(pairs[::2], pairs[1::2], strict=False):
            if bucket < BUCKETS:
                made.buckets[bucket] = made.buckets.get(bucket, 0) + count
                made.count += count
        return made

    def below(self, edges: Iterable[int]) -> list[int]:
        """Return how many durations are in the buckets up to each of these, which ascend."""
        found: list[int] = []
        total, at = 0, 0
        ordered = sorted(self.buckets)
        for edge in edges:
            while at < len(ordered) and ordered[at] <= edge:
                total += self.buckets[ordered[at]]
                at += 1
            found.append(total)
        return found

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Histogram)
            and self.buckets == other.buckets
            and self.negative == other.negative
            and math.isclose(self.sum_ms, other.sum_ms, rel_tol=1e-9, abs_tol=1e-6)
        )

    __hash__ = None  # type: ignore[assignment]
