"""Spreads work on many objects over turns of the event loop, so that what comes meanwhile does not wait for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def a_few_in_a_turn(items: Sequence[T], most: int) -> AsyncIterator[Sequence[T]]:
    """Yield all items in their order, in pieces, each in a later turn of the event loop than the one before.

    Args:
        items: What is to be done; it may not change meanwhile.
        most: Most items of a piece.
    """
    for begin in range(0, len(items), most):
        if begin:
            await asyncio.sleep(0)
        yield items[begin : begin + most]
