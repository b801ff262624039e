"""Pages of rows of streams from several slots, put in one order without waiting for all of them. Pure.

Each router tells its streams by id, a page at a time. A row may be passed on as soon as no slot can tell one of a lower
id any more. Each page begins above the last id of the one before: a stream that has a publisher all the while is in
exactly one of them, whatever comes and goes meanwhile.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from watchout.common.bus.reply_records import StreamRow

_ID = attrgetter("stream_id")


@dataclass(slots=True)
class _Slot:
    """What a slot told and was not passed on yet, the last id that it told, and whether it has more."""

    told: str
    rows: list[StreamRow] = field(default_factory=list)
    more: bool = True


class PageMerge:
    """Merges the pages of slots. Ask for what `wanted` says, `add` the replies, and `take` what is ready, until `done`.

    Args:
        slots: The slots.
        after: The first row is one above this id; "": the first of all.
    """

    def __init__(self, slots: Iterable[int], after: str = "") -> None:
        self._slots = {slot: _Slot(after) for slot in slots}

    @property
    def done(self) -> bool:
        """Whether all rows were taken."""
        return not any(each.rows or each.more for each in self._slots.values())

    def wanted(self) -> dict[int, str]:
        """Return the slots to ask next, each with the id that its page has to begin above; never none before `done`."""
        return {slot: each.told for slot, each in self._slots.items() if each.more and not each.rows}

    def add(self, slot: int, rows: Sequence[StreamRow], *, more: bool) -> None:
        """Take the next page of a slot.

        Args:
            slot: The slot.
            rows: The page. Rows that are not above those before are left out, and end the slot: it would not end else.
            more: Whether there are further pages.
        """
        known = self._slots[slot]
        for row in rows:
            if row.stream_id <= known.told:
                more = False
                continue
            known.told = row.stream_id
            known.rows.append(row)
        known.more = more and bool(rows)

    def end(self, slot: int) -> None:
        """Expect nothing more of a slot, which does not answer; what it told stays.

        Args:
            slot: The slot.
        """
        self._slots[slot].more = False

    def take(self) -> list[StreamRow]:
        """Return the rows that are ready, by stream id: none is returned later that belongs before one of them.

        Of two rows of one stream, as while a slot changes its router, the one that started later.
        """
        ready: dict[str, StreamRow] = {}
        limit = min((each.told for each in self._slots.values() if each.more), default=None)
        for each in self._slots.values():
            end = len(each.rows) if limit is None else bisect_right(each.rows, limit, key=_ID)
            for row in each.rows[:end]:
                known = ready.get(row.stream_id)
                if known is None or row.started_at > known.started_at:
                    ready[row.stream_id] = row
            del each.rows[:end]
        return list(ready.values()) if len(self._slots) == 1 else sorted(ready.values(), key=_ID)
