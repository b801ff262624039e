"""When each of many sockets has to be checked for silence, in one table, without a timer for each. Pure; in seconds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

M = TypeVar("M", bound=Hashable)

#: How late a socket may be found due, in seconds; `due` is to be called this often.
LOOK_EVERY_S: Final = 0.25


class SilenceTable(Generic[M]):
    """The sockets that are pinged in a silence, by the time at which their silence may be long enough.

    A socket that is due checks whether it was silent, and is entered again for the end of its next possible silence. So
    a busy socket costs one check per silence, not one per message. `Housekeeping` calls `take_due`; a socket is removed
    when it closes.
    """

    def __init__(self) -> None:
        self._turns: dict[int, dict[M, None]] = {}
        self._turn_of: dict[M, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._turn_of)

    def enter(self, socket: M, due_s: float) -> None:
        """Make a socket due at `due_s`, in place of any time before."""
        self.remove(socket)
        turn = max(self._next, -int(-due_s // LOOK_EVERY_S))  # rounded up: never early
        self._turn_of[socket] = turn
        self._turns.setdefault(turn, {})[socket] = None

    def remove(self, socket: M) -> None:
        """Remove a socket, if it is here."""
        turn = self._turn_of.pop(socket, None)
        if turn is not None:
            of_turn = self._turns[turn]
            del of_turn[socket]
            if not of_turn:
                del self._turns[turn]

    def take_due(self, now: float) -> list[M]:
        """Remove and return the sockets that are due at `now`."""
        last = int(now // LOOK_EVERY_S)
        due: list[M] = []
        if last - self._next > len(self._turns):  # after a pause
            turns = sorted(turn for turn in self._turns if turn <= last)
        else:
            turns = [turn for turn in range(self._next, last + 1) if turn in self._turns]
        for turn in turns:
            due += self._turns.pop(turn)
        for socket in due:
            del self._turn_of[socket]
        self._next = max(self._next, last + 1)
        return due
