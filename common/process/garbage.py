"""When a process looks for cyclic garbage: seldom, and never at many objects that are new.

What a message allocates is freed by reference counts, so a collection finds nothing but stops the loop for as long as
it examines objects: 1000 take about 0.5 ms, 1 ms when they are not in the processor's caches.
"""

from __future__ import annotations

import gc
from typing import Final

#: The thresholds of Python's own collections: new objects, less those that were freed meanwhile, and how many
#: collections of new objects precede one that also examines those that survived the last. So one has 2000 objects at
#: most where none are freed. One of all objects comes after some twenty million new ones.
THRESHOLDS: Final = (1_000, 1, 10_000)
#: Pieces of work after which new objects are examined, whatever Python counts: where streams end or connections are
#: replaced, as many old objects are freed, and the new ones would wait for the next collection by the ten thousand.
PIECES: Final = 250


class _Work:
    """How many pieces are left until the next collection; there is one in a process, as there is one collector."""

    def __init__(self) -> None:
        self.left = PIECES


_work: Final = _Work()


def relax() -> None:
    """Collect what the start left behind, never examine again what it created, and set `THRESHOLDS`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def worked(pieces: int = 1) -> None:
    """Count pieces of work, and examine the new objects after `PIECES` of them.

    Args:
        pieces: A message of the bus counts as one, and so does a stream that is changed; each makes ten objects at
            most that stay. What makes more counts as more.
    """
    _work.left -= pieces
    if _work.left <= 0:
        _work.left = PIECES
        if gc.isenabled():
            gc.collect(1)
