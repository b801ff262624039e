"""The numbers of a stream's frames: each frame has one more than the last, but where the stream moves. Pure."""

from __future__ import annotations

from typing import Final

#: Frame ids left out when a stream moves to another process, since the former one may have sent more frames than it
#: reported.
FRAME_ID_JUMP: Final = 1 << 16
#: A router's record of a stream may be so many frames behind what it was told: the id after the jump is above it,
#: and above what was sent since the last report.
FRAME_IDS_UNSAVED: Final = FRAME_ID_JUMP // 2
#: Above this the frame ids of a stream start again at 1: they have 32 bits.
FRAME_ID_HIGH: Final = 2**32 - (1 << 24)


def frames_between(last: int, frame_id: int) -> int:
    """Return how many frames a viewer did not get between two that came one after another.

    Args:
        last: Frame id of the former one.
        frame_id: That of the later one.

    Returns:
        The number; 0 when the ids began anew, or were left out because the stream moved: of how many frames it is not
        known then.
    """
    gap = frame_id - last - 1
    return gap if 0 < gap < FRAME_ID_JUMP else 0
