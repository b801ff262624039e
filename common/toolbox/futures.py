"""What asyncio leaves to its callers about futures and tasks whose result nobody awaits."""

from __future__ import annotations

import asyncio
from typing import Any


def retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark the exception of a finished future as retrieved, so that asyncio does not log it as never retrieved.

    For a future whose awaiting caller may have left before it failed. Does nothing while the future is pending, or
    when it was cancelled; fits `asyncio.Future.add_done_callback`.
    """
    if future.done() and not future.cancelled():
        future.exception()
