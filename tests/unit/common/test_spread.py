"""Work on many objects is spread over turns of the event loop, and is whole."""

from __future__ import annotations

import pytest

from tests.kit.loop_turns import counted_turns
from watchout.common.toolbox.spread import a_few_in_a_turn


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 11])
async def test_all_items_come_in_their_order_and_no_more_than_a_few_in_a_turn(count: int) -> None:
    came: list[int] = []
    with counted_turns() as turns:
        async for few in a_few_in_a_turn(range(count), 5):
            for item in few:
                turns.note()
                came.append(item)
    assert came == list(range(count))
    assert turns.most == min(count, 5)
