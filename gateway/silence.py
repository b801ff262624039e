"""When each of many members is due for a look, in one table and without a timer for each. Pure; times in seconds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

M = TypeVar("M", bound=Hashable)

#: How late a member may be found due, in seconds; `due` is to be called this often.
LOOK_EVERY_S: Final = 0.25


class SilenceTable(Generic[M]):
    """The members that are pinged in a silence, by when their silence may be long enough.

    A member that is found due says itself whether it was silent, and is entered again for the end of its next possible
    silence. So a busy member costs one look per silence, not one per message. `Housekeeping` calls `take_due`; the
    members are sockets, which leave when they close.
    """

    def __init__(self) -> None:
        self._turns: dict[int, dict[M, None]] = {}
        self._turn_of: dict[M, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._turn_of)

    def enter(self, member: M, due_s: float) -> None:
        """Look at a member at `due_s`, and at no other time."""
        self.remove(member)
        turn = max(self._next, -int(-due_s // LOOK_EVERY_S))  # rounded up: never early
        self._turn_of[member] = turn
        self._turns.setdefault(turn, {})[member] = None

    def remove(self, member: M) -> None:
        """Look at a member no more, if it is here."""
        turn = self._turn_of.pop(member, None)
        if turn is not None:
            of_turn = self._turns[turn]
            del of_turn[member]
            if not of_turn:
                del self._turns[turn]

    def take_due(self, now: float) -> list[M]:
        """Remove and return the members that are due at `now`."""
        last = int(now // LOOK_EVERY_S)
        due: list[M] = []
        if last - self._next > len(self._turns):  # after a pause
            turns = sorted(turn for turn in self._turns if turn <= last)
        else:
            turns = [turn for turn in range(self._next, last + 1) if turn in self._turns]
        for turn in turns:
            due += self._turns.pop(turn)
        for member in due:
            del self._turn_of[member]
        self._next = max(self._next, last + 1)
        return due
