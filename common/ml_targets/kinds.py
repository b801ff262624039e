"""The kinds of ML services that watchout comes with: HTTP, WebSocket, Redis, NATS and ZeroMQ. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from watchout.common.ml_targets.declaration import Exchange, InvalidMlUrl, Results, TargetDeclaration, declare
from watchout.common.ml_targets.sentinel import SCHEMES as SENTINEL_SCHEMES
from watchout.common.ml_targets.sentinel import parse as parse_sentinel_url
from watchout.common.toolbox.default_ports import DEFAULT_PORTS

_CHANNEL: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.:-]{1,128}(?<!\.)")
_NO_UNIX: Final = "redis://host:port: Redis over a Unix socket is not supported"


def _ports(*schemes: str) -> dict[str, int]:
    return {scheme: DEFAULT_PORTS[scheme] for scheme in schemes}


def _check_channels(options: Mapping[str, str]) -> None:
    """Raise `InvalidMlUrl` unless the options name channels, streams or subjects."""
    if not options.keys() <= {"frames", "alerts"} or not all(map(_CHANNEL.fullmatch, options.values())):
        raise InvalidMlUrl("no options but frames and alerts, each 1 to 128 of A-Z a-z 0-9 _ . : -")


def _check_redis(parts: SplitResult, options: Mapping[str, str]) -> None:
    if parts.scheme in SENTINEL_SCHEMES:
        parse_sentinel_url(parts.geturl())
    elif parts.fragment or not re.fullmatch(r"(/\d*)?", parts.path):
        raise InvalidMlUrl("redis://host[:port][/number of the database], nats://host[:port]")
    _check_channels(options)


def _check_nats(parts: SplitResult, options: Mapping[str, str]) -> None:
    if parts.fragment or not re.fullmatch(r"/?", parts.path):
        raise InvalidMlUrl("redis://host[:port][/number of the database], nats://host[:port]")
    _check_channels(options)


def _check_zeromq(parts: SplitResult, options: Mapping[str, str]) -> None:
    alerts = options.get("alerts", "1")
    plain = not parts.fragment and not parts.path and parts.username is None and options.keys() <= {"alerts"}
    if not plain or parts.port in (None, 65535) or not re.fullmatch(r"[1-9]\d{0,4}", alerts) or int(alerts) > 65535:
        raise InvalidMlUrl("tcp://host:port, or tcp://host:port?alerts=port")


def _redis_addresses(url: str, default_port: int) -> list[tuple[str, int]]:
    parts = urlsplit(url)
    if parts.scheme in SENTINEL_SCHEMES:
        return list(parse_sentinel_url(url).hosts)
    return [(parts.hostname or "", parts.port or default_port)]


HTTP: Final = declare(
    TargetDeclaration(
        name="http",
        title="HTTP",
        ports=_ports("http", "https"),
        tls={"http": "https"},
        forms=("http(s)://host[:port][/path]",),
        results=Results.EACH_FRAME,
        exchanges=(
            Exchange(
                url="`http(s)://host`",
                frames="`POST /analyze`, JSON",
                alerts='in the response: `{"alert":{…}}`, `{"alerts":[…]}` or `{}`',
                example="service.py",
            ),
            Exchange(
                url="the same, `ML_HTTP_FORMAT=raw`, or `Accept: image/*` in responses",
                frames="`POST /analyze`, the JPEG itself; `X-Stream-Id`, `X-Frame-Id`, `X-Frame-Time`",
                alerts="the same",
                example="over_http_raw.py",
            ),
            Exchange(
                url="the same, `ML_BATCH=8`",
                frames='`{"frames":[…]}`, those that are due within 5 ms',
                alerts='`{"answers":[…]}`, one per frame',
                example="over_http_batch.py",
            ),
        ),
    )
)
WEBSOCKET: Final = declare(
    TargetDeclaration(
        name="websocket",
        title="WebSocket",
        ports=_ports("ws", "wss"),
        tls={"ws": "wss"},
        forms=("ws(s)://…",),
        results=Results.LEARNED,
        exchanges=(
            Exchange(
                url="`ws(s)://host/path`",
                frames="one text message per frame, JSON",
                alerts="messages, in any order",
                example="over_websocket.py",
            ),
        ),
    )
)
REDIS: Final = declare(
    TargetDeclaration(
        name="redis",
        title="Redis, Valkey",
        ports=_ports("redis", "rediss", "redis+sentinel", "rediss+sentinel"),
        tls={"redis": "rediss", "redis+sentinel": "rediss+sentinel"},
        forms=("redis(s)://…", "redis(s)+sentinel://…"),
        results=Results.LEARNED,
        exchanges=(
            Exchange(
                url="`redis(s)://host`, `redis(s)+sentinel://…`",
                frames="channel `video-frames`, JSON",
                alerts="channel `ml-alerts`",
                example="over_redis_pubsub.py",
            ),
            Exchange(
                url="the same, `ML_REDIS_MODE=streams`",
                frames="stream `video-frames`, fields",
                alerts="stream `ml-alerts`, field `alert`",
                example="over_redis_streams.py",
            ),
        ),
        instead={
            "unix": _NO_UNIX,
            "redis+unix": _NO_UNIX,
            "redis+socket": _NO_UNIX,
            "redis+cluster": "redis://any-node:port, with ML_REDIS_MODE=pubsub: streams of a Redis Cluster are not "
            "supported",
            "rediss+cluster": "rediss://any-node:port, with ML_REDIS_MODE=pubsub: streams of a Redis Cluster are not "
            "supported",
            "valkey": "redis://host[:port], which Valkey speaks",
            "valkeys": "rediss://host[:port], which Valkey speaks",
        },
        extra="redis",
        options=("frames", "alerts"),
        check_parts=_check_redis,
        addresses_of=_redis_addresses,
        several_hosts=frozenset(SENTINEL_SCHEMES),
        plain_probe=(b"PING\r\n", (b"+", b"-")),
    )
)
NATS: Final = declare(
    TargetDeclaration(
        name="nats",
        title="NATS",
        ports=_ports("nats", "tls"),
        tls={"nats": "tls"},
        forms=("nats://…", "tls://… (NATS)"),
        results=Results.LEARNED,
        exchanges=(
            Exchange(
                url="`nats://host`",
                frames="subject `video-frames`, MessagePack, with a reply subject",
                alerts="the reply, or subject `ml-alerts`",
                example="over_nats.py",
            ),
        ),
        instead={
            "nats+tls": "tls://host[:port], which is NATS over TLS",
            "natss": "tls://host[:port], which is NATS over TLS",
        },
        extra="nats",
        options=("frames", "alerts"),
        check_parts=_check_nats,
        greets_first=True,
    )
)
ZEROMQ: Final = declare(
    TargetDeclaration(
        name="zeromq",
        title="ZeroMQ",
        ports={"tcp": 0},
        forms=("tcp://host:port",),
        results=Results.ALERTS_ONLY,
        exchanges=(
            Exchange(
                url="`tcp://host:port` (ZeroMQ)",
                frames="PUSH to the port, MessagePack",
                alerts="PULL from the next port",
                example="over_zeromq.py",
            ),
        ),
        instead={"zmq": "tcp://host:port, which is ZeroMQ", "zmq+tcp": "tcp://host:port, which is ZeroMQ"},
        options=("alerts",),
        check_parts=_check_zeromq,
    )
)
