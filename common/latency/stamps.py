"""The stamps that a frame carries over the bus: when it came in, and how long after its capture. Pure.

They stand in the eight bytes that name the receiver of a frame (`common.bus.frames`), which begin with a zero where no
member is named. A member of the former release takes such a frame for one to everybody, as it is.

The time is in eighths of a millisecond, modulo 32 bits: the receiver completes it by its own clock, which may be three
days apart.
"""

from __future__ import annotations

import struct
from typing import Final

from watchout.common.bus.frames import STAMP_TAG

_STAMP: Final = struct.Struct(">BBIH")
#: Eighths of a millisecond in one, and the range of what is sent.
_PARTS: Final = 8
_RANGE: Final = 1 << 32
#: Stands for a capture that is not known, and the longest delay that is sent, in ms; a longer one is not known.
_UNKNOWN: Final = 0xFFFF
LONGEST_MS: Final = _UNKNOWN - 1


class FrameStamps:
    """When a frame passed the points of its way, in ms since the epoch by the clock of this host; on sampled frames.

    Attributes:
        captured: when the camera took it; None: not known.
        gateway_in: when it came in at the publisher's gateway; None: this frame was not stamped there.
        asked: when the ML service was asked.
        answered: when its result was there.
    """

    __slots__ = ("answered", "asked", "captured", "gateway_in")

    def __init__(self, gateway_in: float | None, captured: float | None) -> None:
        self.gateway_in = gateway_in
        self.captured = captured
        self.asked: float | None = None
        self.answered: float | None = None


def encode(gateway_in: float, captured: float | None) -> bytes:
    """Return the eight bytes of a stamp.

    Args:
        gateway_in: when the frame came in, in ms since the epoch.
        captured: when it was captured; None: not known.
    """
    delay = _UNKNOWN if captured is None else round(gateway_in - captured)
    if not 0 <= delay <= LONGEST_MS:
        delay = _UNKNOWN if delay > LONGEST_MS else 0
    return _STAMP.pack(STAMP_TAG[0], STAMP_TAG[1], round(gateway_in * _PARTS) % _RANGE, delay)


def decode(stamp: bytes, now_ms: float) -> FrameStamps:
    """Return the stamps of a frame that came just now.

    Args:
        stamp: what `encode` returned.
        now_ms: the time here, in ms since the epoch.
    """
    _, _, low, delay = _STAMP.unpack(stamp)
    now = round(now_ms * _PARTS)
    apart = (low - now + _RANGE // 2) % _RANGE - _RANGE // 2
    gateway_in = (now + apart) / _PARTS
    return FrameStamps(gateway_in, None if delay == _UNKNOWN else gateway_in - delay)
