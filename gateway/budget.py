"""Bytes that are held for somebody: bounded for each and in total, and who holds the most gives way. Pure."""

from __future__ import annotations

from collections.abc import Callable

from watchout.common.toolbox.largest import Largest


class Share:
    """What one request or answer holds, from `Budget.open` until `release`."""

    __slots__ = ("_budget", "give_way", "key", "size")

    def __init__(self, budget: Budget, key: str, give_way: Callable[[], object]) -> None:
        self._budget = budget
        self.key = key
        self.give_way = give_way
        self.size = 0

    def grow(self, size_bytes: int) -> bool:
        """Hold so much more; False: there is no room for it, and nothing has changed."""
        return self._budget.grow(self, size_bytes)

    def release(self) -> None:
        """Hold nothing any more. It may be called again."""
        self._budget.release(self)


class Budget:
    """Shares by key, such as a user or an address.

    One key holds at most `each_bytes`, or one share of any size. When all together would hold more than `total_bytes`,
    the oldest share of the key that holds the most is released and told to give way; where that would be the key that
    asks, it is refused. So nobody who holds little has to wait for those who hold much.
    """

    def __init__(self, each_bytes: int, total_bytes: int) -> None:
        self._each_bytes = each_bytes
        self._total_bytes = total_bytes
        self._sizes: Largest[str] = Largest()
        self._shares: dict[str, dict[Share, None]] = {}
        #: Shares that had to give way.
        self.gave_way = 0

    @property
    def held_bytes(self) -> int:
        """What all hold together."""
        return self._sizes.total

    def open(self, key: str, give_way: Callable[[], object]) -> Share:
        """A share that holds nothing yet."""
        return Share(self, key, give_way)

    def grow(self, share: Share, size_bytes: int) -> bool:
        """See `Share.grow`."""
        held = self._sizes.size(share.key)
        others_of_key = held - share.size
        if others_of_key and held + size_bytes > self._each_bytes:
            return False
        while self._sizes.total and self._sizes.total + size_bytes > self._total_bytes:
            most = self._sizes.largest()
            assert most is not None
            if most == share.key or self._sizes.size(most) <= held + size_bytes:
                return False
            oldest = next(iter(self._shares[most]))
            self.gave_way += 1
            self.release(oldest)
            oldest.give_way()
        share.size += size_bytes
        self._shares.setdefault(share.key, {})[share] = None
        self._sizes.add(share.key, size_bytes)
        return True

    def release(self, share: Share) -> None:
        """See `Share.release`."""
        shares = self._shares.get(share.key)
        if shares is None or share not in shares:
            return
        del shares[share]
        if not shares:
            del self._shares[share.key]
        self._sizes.add(share.key, -share.size)
        share.size = 0
