"""The ML service as the bridge sees it: one interface, one file a kind of service.

A target only carries: which frame goes when is the scheduler's, what an alert may be is `common.alerts`'. Some kinds
answer each frame (HTTP), others send alerts by themselves and in any order (WebSocket, queues): both ways are here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from common.errors import StartError, WatchoutError
from common.frames import Frame
from common.settings import Settings

#: Takes alerts, decoded but not checked, that came without belonging to a frame the target knows.
Heard = Callable[[list[object]], None]


class TargetFailure(WatchoutError):
    """The service did not take or answer a frame: count it, pause, go on with a newer one."""


class TargetTimeout(TargetFailure):
    """It took longer than its deadline."""


class Target(Protocol):
    """One ML service."""

    @property
    def shown_as(self) -> str:
        """The service as it may stand in logs: no credentials."""

    async def open(self, heard: Heard) -> None:
        """Prepare; must not fail or wait because the service is away: it may come later."""

    async def show(self, frame: Frame) -> list[object]:
        """Show one frame; the alerts of its answer, decoded but not checked.

        Returns when the service is done with the frame as far as one can know, so that the frames under way are
        bounded. Cancelled when the deadline is past. A kind whose alerts come by themselves returns none and gives
        them to `heard`. Raises `TargetFailure`, and `common.alerts.AlertFault` for an answer that is none.
        """

    async def close(self) -> None:
        """Let go of connections."""


def open_target(settings: Settings) -> Target | None:
    """The target that ``ML_SERVICE_URL`` names, not yet opened; None when it is not set. Raises `StartError`."""
    if settings.ml_service_url is None:
        return None
    match scheme := urlsplit(settings.ml_service_url).scheme:
        case "http" | "https":
            from mlbridge.targets.http import HttpTarget  # a kind's library is loaded only where it is used

            return HttpTarget(
                settings.ml_service_url,
                timeout_s=settings.ml_timeout_s,
                connections=settings.ml_in_flight,
            )
    raise StartError(f"ML_SERVICE_URL begins with {scheme}://, expected http:// or https://")
