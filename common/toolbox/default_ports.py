"""The default ports of URL schemes: the one table for all services that watchout connects to."""

from __future__ import annotations

from typing import Final

DEFAULT_PORTS: Final[dict[str, int]] = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "redis": 6379,
    "rediss": 6379,
    "redis+sentinel": 26379,
    "rediss+sentinel": 26379,
    "nats": 4222,
    "tls": 4222,
    "rtsp": 554,
    "rtsps": 322,
    "postgres": 5432,
    "postgresql": 5432,
}
