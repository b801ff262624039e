"""How many frames lie between two of a viewer."""

from __future__ import annotations

import pytest

from watchout.common.media.frame_ids import FRAME_ID_JUMP, frames_between


@pytest.mark.parametrize(
    ("last", "frame_id", "between"),
    [
        (1, 2, 0),
        (1, 3, 1),
        (7, 107, 99),
        (1, FRAME_ID_JUMP + 1, FRAME_ID_JUMP - 1),
        (1, FRAME_ID_JUMP + 2, 0),  # the stream moved
        (5, 5, 0),
        (5, 1, 0),  # it began anew
    ],
)
def test_frames_between(last: int, frame_id: int, between: int) -> None:
    assert frames_between(last, frame_id) == between
