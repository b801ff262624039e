"""Which connections to a port of the bus are turned away before their peers have proved who they are. No I/O."""

from __future__ import annotations

from collections import Counter, deque


class Arrivals:
    """Counts the connections whose peers have not proved who they are.

    Made by `TcpRouterTransport`: libzmq accepts whoever comes, and ends a connection that proves nothing after a time.

    Args:
        most: Most of them at once.
        most_of_one: Most of them of one address.
        within_s: After so many seconds such a connection has ended.
    """

    def __init__(self, most: int, most_of_one: int, within_s: float) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._within_s = within_s
        self._waiting: deque[tuple[float, str]] = deque()
        self._of_one: Counter[str] = Counter()

    def comes(self, address: str, now: float) -> bool:
        """Return whether there is room for a connection, and count it if there is; the caller closes it if not.

        Args:
            address: Where it comes from.
            now: Monotonic seconds.
        """
        while self._waiting and self._waiting[0][0] <= now - self._within_s:
            self._forget(*self._waiting.popleft())
        if len(self._waiting) >= self._most or self._of_one[address] >= self._most_of_one:
            return False
        self._waiting.append((now, address))
        self._of_one[address] += 1
        return True

    def proved(self, address: str) -> None:
        """Take one off: a peer from this address has proved who it is."""
        for entry in self._waiting:
            if entry[1] == address:
                self._waiting.remove(entry)
                self._forget(*entry)
                return

    def _forget(self, _: float, address: str) -> None:
        self._of_one[address] -= 1
        if not self._of_one[address]:
            del self._of_one[address]
