"""Who may go on with what came from him: clients take turns where their bytes cost more than they look.

A compressed message may be a thousand times as long as its bytes. In one turn of the loop all clients together get
`TURN_S` for such things, and one message at least; then everybody else is served, and the next user goes on.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

#: Seconds in one turn of the loop.
TURN_S: Final = 0.005


class Turns:
    """The clients of one gateway that wait for their turn. `soon` runs a function in the loop's next turn."""

    def __init__(
        self, soon: Callable[[Callable[[], None]], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._soon = soon
        #: Not the loop's clock, which may stand still within a turn (uvloop's does).
        self.clock = clock
        self._waiting: OrderedDict[Hashable, OrderedDict[Callable[[], None], None]] = OrderedDict()
        self._until: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether this turn of the loop has no time left."""
        if self._until is None:
            self._until = self.clock() + TURN_S
            self._soon(self._next_turn)
            return False
        return self.clock() > self._until

    def ask(self, user: Hashable, go_on: Callable[[], None]) -> None:
        """Call `go_on` when it is its turn: users one after another, and of each user one after another."""
        self._waiting.setdefault(user, OrderedDict())[go_on] = None
        if self._until is None:
            self._until = self.clock() + TURN_S
            self._soon(self._next_turn)

    def _next_turn(self) -> None:
        self._until = None
        if not self._waiting:
            return
        self._until = self.clock() + TURN_S
        self._soon(self._next_turn)
        rounds = sum(map(len, self._waiting.values()))  # who asks again meanwhile waits for the next turn
        while self._waiting and rounds:
            rounds -= 1
            user, of_user = self._waiting.popitem(last=False)
            go_on, _ = of_user.popitem(last=False)
            if of_user:
                self._waiting[user] = of_user
            go_on()
            if self.clock() > self._until:
                return
