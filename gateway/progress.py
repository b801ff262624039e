"""Decides whether a transfer makes enough progress: neither may it stall, nor go on for ever at a trickle. Pure.

Progress counts, not the age of the transfer: a large message over a slow line is fine.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Lowest average rate, over `OVER_S` seconds during which bytes were waiting all the time.
LEAST_BYTES_PER_S: Final = 1000
OVER_S: Final = 120.0


class TransferProgress:
    """The progress of one peer that sends a message, or reads a response; its owner samples it every few seconds.

    Args:
        stalled_s: Seconds without a single byte, while bytes wait, after which the peer counts as gone.
        total: Bytes transferred so far; any count that only rises with the bytes will do.
        now: Time in seconds of any monotonic clock, the same for all calls.

    Attributes:
        began_at: `now` at the begin.
    """

    def __init__(self, stalled_s: float, total: int, now: float) -> None:
        self._stalled_s = stalled_s
        self._total = total
        self._moved_at = self.began_at = now
        #: Time and total of the samples of the last `OVER_S` seconds.
        self._samples = deque([(now, total)])

    def keeps_up(self, total: int, now: float, *, waiting: bool) -> bool:
        """Take a sample; return False when the connection is to be closed because the peer is too slow.

        `waiting`: whether bytes are waiting to be transferred. A peer with nothing to transfer is never too slow.
        """
        if not waiting:
            self._samples.clear()
        if total > self._total or not waiting:
            self._total, self._moved_at = total, now
        if now - self._moved_at >= self._stalled_s:
            return False
        self._samples.append((now, total))
        while len(self._samples) > 1 and now - self._samples[1][0] >= OVER_S:
            self._samples.popleft()
        since, total_then = self._samples[0]
        return now - since < OVER_S or total - total_then >= LEAST_BYTES_PER_S * OVER_S
