"""Divides processing time fairly among clients whose bytes are expensive, such as compressed messages.

A compressed message may inflate to a thousand times its size. In one turn of the event loop all clients together get
`TURN_S` for such bytes, and at least one message; then everything else runs, and the next user continues.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

#: Seconds of processing in one turn of the event loop.
TURN_S: Final = 0.005


class Turns:
    """Divides processing time among clients with compressed messages, whose inflated size may be a thousand times
    larger.

    In one turn of the event loop all clients together get `TURN_S` seconds and at least one message; then other work
    runs, and the next user continues. One per gateway, in `Context`; called by the socket readers.

    Args:
        soon: Runs a function in the next turn of the event loop.
        clock: Returns seconds of a monotonic clock; not the loop's, which may stand still within a turn (as uvloop's).
    """

    def __init__(
        self, soon: Callable[[Callable[[], None]], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._soon = soon
        self.clock = clock
        #: Callbacks that wait, by user, both in order.
        self._waiting: OrderedDict[Hashable, OrderedDict[Callable[[], None], None]] = OrderedDict()
        #: When this turn's time is over; None: no time was used in this turn.
        self._until: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether this turn of the event loop has no time left; the first call of a turn starts its time."""
        if self._until is None:
            self._until = self.clock() + TURN_S
            self._soon(self._next_turn)
            return False
        return self.clock() > self._until

    def enqueue(self, user: Hashable, process: Callable[[], None]) -> None:
        """Call `process` when it is its turn: one client of each user in rotation, in the order of their calls."""
        self._waiting.setdefault(user, OrderedDict())[process] = None
        if self._until is None:
            self._until = self.clock() + TURN_S
            self._soon(self._next_turn)

    def _next_turn(self) -> None:
        self._until = None
        if not self._waiting:
            return
        self._until = self.clock() + TURN_S
        self._soon(self._next_turn)
        rounds = sum(map(len, self._waiting.values()))  # those enqueued meanwhile wait for the next turn
        while self._waiting and rounds:
            rounds -= 1
            user, of_user = self._waiting.popitem(last=False)
            process, _ = of_user.popitem(last=False)
            if of_user:
                self._waiting[user] = of_user
            process()
            if self.clock() > self._until:
                return
