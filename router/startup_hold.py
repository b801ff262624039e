"""Requests held after the router's start until the gateways have reported the streams that they have. Pure.

A router that replaces another one does not know yet which streams have a publisher. A claim, lookup or alert decided
before the gateways joined again could give away a stream that has one.
"""

from __future__ import annotations

import math
from typing import Final

from watchout.common.bus.messages import AcknowledgeRequest, Claim, OwnerLookup, RaiseAlert

#: Seconds after a start in which gateways report their streams before requests are decided.
SYNC_GRACE_S: Final = 1.0
#: Requests that are held at most; further ones are refused.
MAX_HELD: Final = 10_000

#: Messages whose effect depends on which streams have a publisher.
HeldRequest = Claim | OwnerLookup | RaiseAlert | AcknowledgeRequest


class StartupHold:
    """Holds claims, owner lookups and alerts after the router's start, until the gateways have reported their streams.

    Created by `SlotRouter`, used by its `MessageHandler`. `syncing`: another router ran in this home before, so
    that requests are held at first.
    """

    def __init__(self, *, syncing: bool) -> None:
        self._held: list[tuple[bytes, HeldRequest]] | None = [] if syncing else None

    @property
    def syncing(self) -> bool:
        """Whether requests are held."""
        return self._held is not None

    @property
    def is_full(self) -> bool:
        """Whether `MAX_HELD` requests are held: a further one has to be refused."""
        return self._held is not None and len(self._held) >= MAX_HELD

    def hold(self, member: bytes, request: HeldRequest) -> None:
        """Hold a request of a member. Raises `RuntimeError` when `syncing` is over, or `is_full`."""
        if self._held is None or self.is_full:
            raise RuntimeError("requests are not held now")
        self._held.append((member, request))

    def release(self) -> list[tuple[bytes, HeldRequest]]:
        """End the hold. Return the held requests with their senders, in the order in which they are to be decided.

        First what a former router had accepted, in the order of its acceptance: each process sends its own part again,
        and what is new may arrive before. Then all others, in the order of arrival.
        """
        held, self._held = self._held or [], None
        return sorted(held, key=lambda each: _accepted_at(each[1]))


def _accepted_at(request: HeldRequest) -> float:
    """Return when a former router accepted an alert, in ms since the epoch; infinite for what is new."""
    at = request.accepted_at if isinstance(request, RaiseAlert | AcknowledgeRequest) else None
    return math.inf if at is None else at
