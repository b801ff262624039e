"""Targets behind Redis or Valkey: pub/sub or Streams, as ``ML_REDIS_MODE`` says."""

from __future__ import annotations

from watchout.common.settings import Settings
from watchout.mlbridge.targets.redis_pubsub import RedisPubSubTarget
from watchout.mlbridge.targets.redis_streams import RedisStreamsTarget
from watchout.mlbridge.targets.target import Target
from watchout.mlbridge.targets.tls import ClientTls


def open_target(url: str, settings: Settings) -> Target:
    """Build the target of the mode that ``ML_REDIS_MODE`` names.

    Args:
        url: a checked URL of a Redis server or of its Sentinels.
        settings: ``ML_*``: mode, time-out, requests in flight, group and TLS files.
    """
    timeout_s, connections, tls = settings.ml_timeout_s, settings.ml_in_flight, ClientTls.of(settings)
    if settings.ml_redis_mode == "streams":
        return RedisStreamsTarget(url, timeout_s=timeout_s, connections=connections, tls=tls, group=settings.ml_group)
    return RedisPubSubTarget(url, timeout_s=timeout_s, connections=connections, tls=tls)
