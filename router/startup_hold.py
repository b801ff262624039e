"""Requests held after the router's start until the gateways have reported the streams that they have. Pure.

A router that replaces another one does not know yet which streams have a publisher. A claim, lookup or alert decided
before the gateways joined again could give away a stream that has one. Requests about shares are held while those that
are stored are loaded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from watchout.common.bus.messages import (
    AcknowledgeRequest,
    Claim,
    CreateShare,
    EndShare,
    OwnerLookup,
    Query,
    RaiseAlert,
)

#: Seconds after a start in which gateways report their streams before requests are decided.
SYNC_GRACE_S: Final = 1.0
#: Seconds for which requests are held yet when all have reported that are expected to: a bridge sends what a former
#: router had accepted only after its report.
REPORTED_S: Final = 0.1
#: Requests that are held at most; further ones are refused.
MAX_HELD: Final = 10_000

#: Messages whose effect depends on the shares; of queries only that for shares is held.
AboutShares = CreateShare | EndShare | Query
#: Messages whose effect depends on which streams have a publisher, or on the shares.
HeldRequest = Claim | OwnerLookup | RaiseAlert | AcknowledgeRequest | AboutShares


@dataclass(frozen=True, slots=True)
class Reporters:
    """The gateways and bridges that the router of another slot hears, and that report to a new router too.

    Attributes:
        processes: Those that are heard, by `Hello.process`; None: one of a release that names none.
        is_certain: Whether there are any, and none joined just now: others may be about to.
    """

    processes: frozenset[str | None] = frozenset()
    is_certain: bool = False


def expected_of(known: Iterable[Reporters]) -> frozenset[str]:
    """Return the processes that report to a new router, by what those of other slots know; none: they are not known."""
    known = list(known)
    every = frozenset[str | None]().union(*(each.processes for each in known))
    named = frozenset(process for process in every if process is not None)
    return named if len(named) == len(every) and any(each.is_certain for each in known) else frozenset()


class StartupHold:
    """Holds the requests that depend on the streams of all gateways, or on the stored shares, after the router's start.

    Created by `SlotRouter`, used by its `MessageHandler`, which releases what is held after `SYNC_GRACE_S`, or sooner
    when nothing more is awaited.

    Args:
        syncing: Whether another router ran in this home before, so that requests are held at first.
        expected: The gateways and bridges that will report, by `Hello.process`; none: they are not known.
    """

    def __init__(self, *, syncing: bool, expected: Collection[str] = ()) -> None:
        self._held: deque[tuple[bytes, HeldRequest]] | None = deque() if syncing else None
        self._is_released = False
        self._expected = set(expected)
        self._knows_expected = bool(expected)
        self._is_loaded = False

    @property
    def syncing(self) -> bool:
        """Whether requests are held: until the last one of them is taken."""
        return self._held is not None

    @property
    def is_released(self) -> bool:
        """Whether the gateways have reported: `take` the held requests, while further ones wait behind them."""
        return self._is_released

    def reported(self, process: str | None) -> bool:
        """Note that a process has reported its streams; return whether with that nothing more is awaited."""
        if process not in self._expected:
            return False
        self._expected.discard(process)
        return self._is_loaded and not self._expected

    def loaded(self) -> bool:
        """Note that the stored records are loaded; return whether with that nothing more is awaited."""
        self._is_loaded = True
        return self._knows_expected and not self._expected

    @property
    def is_full(self) -> bool:
        """Whether `MAX_HELD` requests are held: a further one has to be refused."""
        return self._held is not None and len(self._held) >= MAX_HELD

    def hold(self, member: bytes, request: HeldRequest) -> None:
        """Hold a request of a member. Raises `RuntimeError` when `syncing` is over, or `is_full`."""
        if self._held is None or self.is_full:
            raise RuntimeError("requests are not held now")
        self._held.append((member, request))

    def take_about_shares(self) -> list[tuple[bytes, HeldRequest]]:
        """Remove and return the held requests about shares, each with its sender: they wait for no report."""
        held = self._held or ()
        others = deque(each for each in held if not isinstance(each[1], AboutShares))
        if self._held is not None:
            self._held = others if others or not self._is_released else None
        return [each for each in held if isinstance(each[1], AboutShares)]

    def release(self) -> None:
        """Let the held requests be taken, in the order in which they are to be decided.

        First what a former router had accepted, in the order of its acceptance: each process sends its own part again,
        and what is new may arrive before. Then all others, in the order of arrival.
        """
        self._is_released = True
        self._held = deque(sorted(self._held or (), key=lambda each: _accepted_at(each[1]))) or None

    def take(self) -> tuple[bytes, HeldRequest] | None:
        """Remove and return the next request with its sender; None: none is held, or they are not released."""
        if not self._held or not self._is_released:
            return None
        taken = self._held.popleft()
        if not self._held:
            self._held = None
        return taken


def _accepted_at(request: HeldRequest) -> float:
    """Return when a former router accepted an alert, in ms since the epoch; infinite for what is new."""
    at = request.accepted_at if isinstance(request, RaiseAlert | AcknowledgeRequest) else None
    return math.inf if at is None else at
