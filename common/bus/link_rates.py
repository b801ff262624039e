"""What a member reports of its links of the frame mesh: the rates since the report before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from watchout.common.bus.mesh import LinkState
from watchout.common.bus.messages import MAX_LINK_ROWS, LinkReport, LinkRow

#: Longest text of a fault in a report, in characters.
MAX_FAULT_CHARS: Final = 200


class LinkRates:
    """Makes the reports of one member; owned by its `RouterLinks`."""

    def __init__(self) -> None:
        self._before: dict[str, LinkState] = {}
        self._at = 0.0

    def report(self, states: Sequence[LinkState], now: float) -> LinkReport | None:
        """Return the report that is due.

        Args:
            states: All links at this moment.
            now: The monotonic clock, in seconds.

        Returns:
            The report, with the `MAX_LINK_ROWS` most important links: those without a connection, then those with the
            most bytes. None: there is no link now, and there was none at the last call.

        """
        before, elapsed_s = self._before, max(now - self._at, 1e-3)
        self._before, self._at = {state.at: state for state in states}, now
        if not states and not before:
            return None
        rows = [_row(state, before.get(state.at), elapsed_s) for state in states]
        rows.sort(key=lambda row: (row.connected, -row.bytes_per_s, row.at))
        return LinkReport(rows=rows[:MAX_LINK_ROWS], total=len(rows))


def _row(state: LinkState, before: LinkState | None, elapsed_s: float) -> LinkRow:
    """Return the row of a link. One that was made anew since the report before counts from 0 again."""
    known = before if before is not None and before.sent <= state.sent else None
    return LinkRow(
        at=state.at,
        connected=state.connected,
        frames_per_s=round((state.sent - (known.sent if known else 0)) / elapsed_s, 1),
        bytes_per_s=round((state.sent_bytes - (known.sent_bytes if known else 0)) / elapsed_s),
        replaced=state.replaced,
        evicted=state.evicted,
        queued=state.queued_bytes,
        fault="" if state.connected else state.fault[:MAX_FAULT_CHARS],
    )
