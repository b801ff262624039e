"""A bound on the bytes that many holders keep at once, for each group of holders and in total. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from watchout.common.toolbox.largest import Largest

H = TypeVar("H", bound=Hashable)


class ByteBudget(Generic[H]):
    """Counts the bytes of each holder, such as a socket with an unfinished message or a request with a body.

    Past the bound either holders are evicted (`hold`), or the one that asks for more may be refused (`grow`). Evicted
    holders are no longer counted; the caller discards at once what they keep.

    Args:
        total: Most bytes of all holders together.
        per_group: Most bytes of one group, such as a user or an address; None: a group has no bound of its own.

    Attributes:
        total_bytes: Bytes of all holders; at most `total` after each call, except for one single holder of `grow`.
        evicted: Holders evicted so far.
    """

    __slots__ = ("_by_size", "_groups", "_held", "_per_group", "_total", "evicted", "total_bytes")

    def __init__(self, total: int, per_group: int | None = None) -> None:
        self._total = total
        self._per_group = per_group
        self._held: dict[H, tuple[Hashable, int]] = {}
        #: Bytes of each group, and its holders, oldest first.
        self._groups: dict[Hashable, tuple[int, dict[H, None]]] = {}
        #: Groups by size; made by the first `grow`, the only one that needs it.
        self._by_size: Largest[Hashable] | None = None
        self.total_bytes = self.evicted = 0

    def __len__(self) -> int:
        return len(self._held)

    def size_of(self, holder: H) -> int:
        """Return the bytes of a holder, 0 when it has none."""
        return self._held.get(holder, (None, 0))[1]

    def size_of_group(self, group: Hashable) -> int:
        """Return the bytes of a group, 0 when it has none."""
        return self._groups[group][0] if group in self._groups else 0

    def hold(self, holder: H, group: Hashable, size_bytes: int) -> list[H]:
        """Set the bytes of a holder to `size_bytes`; past a bound the largest holders are evicted.

        Returns:
            The evicted holders, possibly `holder` itself: the largest of the group until the group is within its bound,
            then the largest of all until the total is.
        """
        self.release(holder)
        if size_bytes <= 0:
            return []
        self._add(holder, group, size_bytes)
        evicted: list[H] = []
        while self._per_group is not None and self.size_of_group(group) > self._per_group:
            evicted.append(self._evict_largest(list(self._groups[group][1])))
        while self.total_bytes > self._total:
            evicted.append(self._evict_largest(list(self._held)))
        return evicted

    def grow(self, holder: H, group: Hashable, size_bytes: int) -> tuple[bool, list[H]]:
        """Add `size_bytes` to a holder, or refuse them. One single holder of a group may have any size.

        Refused when the group has other holders and would exceed its bound. When the total would be exceeded, the
        oldest holders of the largest group are evicted, until that would be the group that asks: then it is refused.
        So a small holder never waits for large ones.

        Returns:
            Whether the bytes were added, and the holders evicted for it (also when it was refused in the end).
        """
        if self._by_size is None:
            self._by_size = Largest()
            for name, (size, _) in self._groups.items():
                self._by_size.add(name, size)
        of_group = self.size_of_group(group)
        if self._per_group is not None and of_group > self.size_of(holder) and of_group + size_bytes > self._per_group:
            return False, []
        evicted: list[H] = []
        while self.total_bytes and self.total_bytes + size_bytes > self._total:
            largest = self._by_size.largest()
            if largest == group or self.size_of_group(largest) <= of_group + size_bytes:
                return False, evicted
            oldest = next(iter(self._groups[largest][1]))
            self.release(oldest)
            self.evicted += 1
            evicted.append(oldest)
        self._add(holder, group, size_bytes)
        return True, evicted

    def release(self, holder: H) -> None:
        """Set the bytes of a holder to 0. May be called again."""
        if holder not in self._held:
            return
        group, size_bytes = self._held.pop(holder)
        self.total_bytes -= size_bytes
        size, holders = self._groups[group]
        del holders[holder]
        if holders:
            self._groups[group] = size - size_bytes, holders
        else:
            del self._groups[group]
        if self._by_size is not None:
            self._by_size.add(group, -size_bytes)

    def _add(self, holder: H, group: Hashable, size_bytes: int) -> None:
        self._held[holder] = group, self.size_of(holder) + size_bytes
        size, holders = self._groups.get(group) or (0, {})
        holders[holder] = None
        self._groups[group] = size + size_bytes, holders
        self.total_bytes += size_bytes
        if self._by_size is not None:
            self._by_size.add(group, size_bytes)

    def _evict_largest(self, among: list[H]) -> H:
        largest = max(among, key=self.size_of)
        self.release(largest)
        self.evicted += 1
        return largest


class Share:
    """The memory of one request or response, counted in a `ByteBudget` from its creation until `release`.

    Made by `BodyReader` and `ResponseSender`.

    Args:
        budget: The budget it belongs to.
        group: The user or address it counts to.
        on_evicted: Called when the share is evicted; it discards the request or response at once.
    """

    __slots__ = ("_budget", "_group", "on_evicted")

    def __init__(self, budget: ByteBudget[Share], group: Hashable, on_evicted: Callable[[], object]) -> None:
        self._budget = budget
        self._group = group
        self.on_evicted = on_evicted

    @property
    def size(self) -> int:
        """Bytes of this share."""
        return self._budget.size_of(self)

    def grow(self, size_bytes: int) -> bool:
        """Add bytes to the share; return False, with nothing added, when there is no room for them."""
        granted, evicted = self._budget.grow(self, self._group, size_bytes)
        for share in evicted:
            share.on_evicted()
        return granted

    def release(self) -> None:
        """Set the bytes of the share to 0. May be called again."""
        self._budget.release(self)
