"""The ML service as the bridge sees it: one interface, one file a kind of service.

A target only carries: which frame goes when is the scheduler's, what an alert may be is `common.alerts.model`'. Some
kinds answer each frame (HTTP), others send alerts by themselves and in any order (WebSocket, queues): both ways are
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from watchout.common.errors import StartError, WatchoutError
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.common.settings.ml_url import SCHEMES
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.tls import ClientTls

#: Takes alerts, decoded but not checked, that came without belonging to a frame the target knows.
#: An `UnusableMessage` among them stands for a message that is none.
Heard = Callable[[list[object]], None]


def discard(values: list[object]) -> None:
    """Drop alerts: what a target gives them to before `Target.open` names a receiver."""
    del values


class UnusableMessage(str):
    """Says what came in place of alerts, with its beginning, and what was expected."""

    __slots__ = ()


class TargetFailure(WatchoutError):
    """The service did not take or answer a frame: count it, pause, go on with a newer one.

    `retry_after_s`: after how many seconds it wants to be asked again, if it said so; bounded. `blame`: whose fault it
    is, as far as the failure by itself tells.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None, blame: Blame = Blame.SERVICE) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.blame = blame


class TargetTimeout(TargetFailure):
    """It took longer than its deadline."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, blame=Blame.UNSURE)


class UnusableAnswer(TargetFailure):
    """The service answered, and not in the form of an answer: count it apart; the frame was not looked at.

    The text says what came, with its beginning, and what was expected. `key`: stream and frame id that it names.
    `counted`: it was given to `Heard` before.
    """

    def __init__(
        self,
        reason: str,
        *,
        blame: Blame = Blame.UNSURE,
        key: tuple[str, int] | None = None,
        counted: bool = False,
    ) -> None:
        super().__init__(reason, blame=blame)
        self.key = key
        self.counted = counted


class Target(Protocol):
    """One ML service."""

    @property
    def shown_as(self) -> str:
        """The service as it may stand in logs: no credentials."""

    async def open(self, heard: Heard) -> None:
        """Prepare; must not fail or wait because the service is away: it may come later."""

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Show one frame; the alerts of its answer, decoded but not checked.

        `apart`: the frame may be one that ends its connection or spoils its request: others must not fail with it.

        Returns when the service is done with the frame as far as one can know, so that the frames under way are
        bounded; a kind that cannot know bounds them by its transport. The deadline is its caller's, who cancels it when
        that is past. Alerts that come by themselves, or late, go to `heard`. Raises `TargetFailure`, and
        `common.alerts.model.AlertFault` for an answer that is none.
        """

    async def close(self) -> None:
        """Let go of connections."""


def open_target(settings: Settings, url: str | None = None) -> Target | None:
    """The target of this URL, or of ``ML_SERVICE_URL``, not yet opened; None when it is not set.

    Raises `StartError` when it cannot be used here.
    """
    url = settings.ml_service_url if url is None else url
    if url is None:
        return None
    scheme = urlsplit(url).scheme
    timeout_s, connections, group = settings.ml_timeout_s, settings.ml_in_flight, settings.ml_group
    tls = ClientTls(settings.ml_tls_ca, settings.ml_tls_cert, settings.ml_tls_key)
    try:  # a kind's library is loaded only where it is used
        match scheme:
            case "http" | "https":
                from watchout.mlbridge.targets.http import HttpTarget

                return HttpTarget(
                    url,
                    timeout_s=timeout_s,
                    connections=connections,
                    raw=settings.ml_http_format == "raw",
                    batch=settings.ml_batch,
                    headers=dict(settings.ml_headers),
                    tls=tls.context() if scheme == "https" else None,
                )
            case "ws" | "wss":
                from watchout.mlbridge.targets.websocket import WebSocketTarget

                return WebSocketTarget(
                    url,
                    timeout_s=timeout_s,
                    headers=dict(settings.ml_headers),
                    tls=tls.context() if scheme == "wss" else None,
                )
            case "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" if settings.ml_redis_mode == "streams":
                from watchout.mlbridge.targets.redis_streams import RedisStreamsTarget

                return RedisStreamsTarget(url, timeout_s=timeout_s, connections=connections, tls=tls, group=group)
            case "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel":
                from watchout.mlbridge.targets.redis import RedisPubSubTarget

                return RedisPubSubTarget(url, timeout_s=timeout_s, connections=connections, tls=tls)
            case "nats" | "tls":
                from watchout.mlbridge.targets.nats import NatsTarget

                secure = scheme == "tls" or tls != ClientTls()
                return NatsTarget(url, timeout_s=timeout_s, group=group, tls=tls.context() if secure else None)
            case "tcp":
                from watchout.mlbridge.targets.zeromq import ZeroMqTarget

                return ZeroMqTarget(url)
    except ModuleNotFoundError as missing:
        extra = {"nats": "nats", "tls": "nats"}.get(scheme, "redis")
        raise StartError(
            f"ML_SERVICE_URL begins with {scheme}://, which needs the package {missing.name}: "
            f"pip install 'watchout[{extra}]'"
        ) from None
    raise StartError(f"ML_SERVICE_URL begins with {scheme}://, expected one of {', '.join(SCHEMES)}")
