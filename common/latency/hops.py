"""The parts of the way of a frame and of an alert that the latency ledger tells apart. Pure."""

from __future__ import annotations

import enum
from typing import Final


class Hop(enum.IntEnum):
    """One part of the way, from one stamp to a later one; the numbers are part of the bus.

    The last two are whole ways: from the capture of a frame to a viewer's socket, and from the capture to the socket
    that gets the alert which the ML service raised for the frame.
    """

    CAPTURE_TO_GATEWAY = 1
    GATEWAY_TO_VIEWER = 2
    GATEWAY_TO_ML = 3
    ML = 4
    ML_TO_ACCEPTED = 5
    ACCEPTED_TO_WRITTEN = 6
    GLASS_TO_GLASS = 7
    GLASS_TO_ALERT = 8

    @property
    def word(self) -> str:
        """The name in JSON and as the label ``hop`` in Prometheus."""
        return self.name.lower()

    @property
    def says(self) -> str:
        """The name in tables."""
        return SENTENCES[self]


#: What each hop is called in tables.
SENTENCES: Final = {
    Hop.CAPTURE_TO_GATEWAY: "capture → gateway in",
    Hop.GATEWAY_TO_VIEWER: "gateway in → viewer written",
    Hop.GATEWAY_TO_ML: "gateway in → ML asked",
    Hop.ML: "ML asked → ML answered",
    Hop.ML_TO_ACCEPTED: "ML answered → alert accepted",
    Hop.ACCEPTED_TO_WRITTEN: "alert accepted → alert written",
    Hop.GLASS_TO_GLASS: "glass to glass",
    Hop.GLASS_TO_ALERT: "glass to alert",
}
#: The whole ways, each of which has an objective.
WHOLE_WAYS: Final = (Hop.GLASS_TO_GLASS, Hop.GLASS_TO_ALERT)
HOP_NUMBERS: Final = frozenset(int(hop) for hop in Hop)
