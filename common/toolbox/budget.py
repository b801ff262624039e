"""Bytes that many hold at once, bounded for each group of holders and in total: the largest gives way. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Budget(Generic[H]):
    """What each holder has, such as the unfinished message of a socket.

    Args:
        total: Most bytes of all holders together.
        of_group: Most bytes of one group, such as a user; None: a group has no bound of its own.

    `total_bytes <= total`, and each group's bytes `<= of_group`, after each `hold` whose answer was obeyed.
    """

    __slots__ = ("_groups", "_held", "_of_group", "_total", "total_bytes")

    def __init__(self, total: int, of_group: int | None = None) -> None:
        self._total = total
        self._of_group = of_group
        self._held: dict[H, tuple[Hashable, int]] = {}
        self._groups: dict[Hashable, int] = {}
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, holder: H, group: Hashable, size_bytes: int) -> list[H]:
        """Set what a holder has from now on, all in all.

        Returns:
            Who has to give way, possibly `holder` itself: the largest of the group while the group is over its bound,
            then the largest of all. They are counted no more; the caller lets go of what they hold, at once.
        """
        self.release(holder)
        if size_bytes <= 0:
            return []
        self._held[holder] = group, size_bytes
        self._groups[group] = self._groups.get(group, 0) + size_bytes
        self.total_bytes += size_bytes
        gave_way: list[H] = []
        while self._of_group is not None and self._groups.get(group, 0) > self._of_group:
            gave_way.append(self._drop_largest([each for each, (of, _) in self._held.items() if of == group]))
        while self.total_bytes > self._total:
            gave_way.append(self._drop_largest(list(self._held)))
        return gave_way

    def release(self, holder: H) -> None:
        """A holder has nothing any more."""
        group, size_bytes = self._held.pop(holder, (None, 0))
        if size_bytes:
            self.total_bytes -= size_bytes
            self._groups[group] -= size_bytes
            if not self._groups[group]:
                del self._groups[group]

    def of(self, group: Hashable) -> int:
        """Bytes of a group."""
        return self._groups.get(group, 0)

    def _drop_largest(self, among: list[H]) -> H:
        largest = max(among, key=lambda holder: self._held[holder][1])
        self.release(largest)
        return largest
