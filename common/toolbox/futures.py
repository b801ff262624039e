"""What asyncio leaves to its callers about futures and tasks whose result nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

#: Tasks whose result nobody awaits: the event loop itself keeps no task alive.
_in_background: Final[set[asyncio.Task[None]]] = set()


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, whatever becomes of the caller. Its failure is dropped.

    Args:
        work: The coroutine, which ends soon, and fails only where nobody has to know of it.

    """
    task = asyncio.get_running_loop().create_task(work)
    _in_background.add(task)
    task.add_done_callback(_in_background.discard)
    task.add_done_callback(retrieve_exception)


def retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark the exception of a finished future as retrieved, so that asyncio does not log it as never retrieved.

    For a future whose awaiting caller may have left before it failed. Does nothing while the future is pending, or
    when it was cancelled; fits `asyncio.Future.add_done_callback`.
    """
    if future.done() and not future.cancelled():
        future.exception()
