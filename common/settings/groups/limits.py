"""Bounds in count, bytes, rate and time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Limits")


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits: one field a setting. `Settings` inherits them."""

    auth_timeout_s: float = _GROUP.setting(
        "AUTH_TIMEOUT_S", parsers.number(0.1, 300), 10.0, expects="0.1–300 s",
        help="A socket that has not authenticated by then gets `AUTH_TIMEOUT` and is closed.",
    )  # fmt: skip
    handshake_timeout_s: float = _GROUP.setting(
        "HANDSHAKE_TIMEOUT_S", parsers.number(0.1, 60), 5.0, expects="0.1–60 s",
        help="Deadline for the TLS handshake, and then for the head of the first request on a connection.",
    )  # fmt: skip
    idle_timeout_s: float = _GROUP.setting(
        "IDLE_TIMEOUT_S", parsers.number(1, 3600), 120.0, expects="1–3600 s",
        help="A client from which nothing came for so long, not even an answer to a ping, is closed. Pings go out "
        "after a quarter of it.",
    )  # fmt: skip
    router_timeout_s: float = _GROUP.setting(
        "ROUTER_TIMEOUT_S", parsers.number(0.1, 60), 2.0, expects="0.1–60 s",
        help="How long the gateway waits for the router's answer before it says `ROUTING_ERROR`.",
    )  # fmt: skip
    max_message_bytes: int = _GROUP.setting(
        "MAX_MESSAGE_BYTES", parsers.whole(1024, 256 << 20), 16 << 20, expects="bytes",
        help="Largest WebSocket message; over it a socket closes with 1009. Before authentication "
        "nothing over 64 KiB is looked at.",
    )  # fmt: skip
    unfinished_bytes: int = _GROUP.setting(
        "UNFINISHED_BYTES", parsers.whole(1 << 20, 64 << 30), 96 << 20, expects="bytes",
        help="Most bytes of messages that signed-in clients of one gateway process have begun, not finished; past it "
        "the largest is closed with 1013, to come back. All strangers together have 12 MiB.",
    )  # fmt: skip
    unfinished_bytes_per_user: int = _GROUP.setting(
        "UNFINISHED_BYTES_PER_USER", parsers.whole(65536, 64 << 30), 32 << 20, expects="bytes",
        help="The same of one user. One message of `MAX_MESSAGE_BYTES` is never too much.",
    )  # fmt: skip
    max_connections: int = _GROUP.setting(
        "MAX_CONNECTIONS", parsers.whole(1, 1_000_000), 20_000, expects="connections",
        help="Most open connections of one gateway process.",
    )  # fmt: skip
    max_connections_per_user: int = _GROUP.setting(
        "MAX_CONNECTIONS_PER_USER", parsers.whole(1, 1_000_000), 5_000, expects="connections",
        help="Most authenticated sockets of one user on one gateway process.",
    )  # fmt: skip
    max_connections_per_address: int = _GROUP.setting(
        "MAX_CONNECTIONS_PER_ADDRESS", parsers.whole(1, 1_000_000), 10_000, expects="connections",
        help="Most connections from one address on one gateway process; of IPv6 the first 64 bits count. Behind a "
        "reverse proxy that is the proxy's, unless it is one of `TRUSTED_PROXIES`.",
    )  # fmt: skip
    max_strangers_per_address: int = _GROUP.setting(
        "MAX_STRANGERS_PER_ADDRESS", parsers.whole(1, 1_000_000), 4_000, expects="connections",
        help="Most connections from one address that have not authenticated. All strangers together never have more "
        "than half of `MAX_CONNECTIONS`.",
    )  # fmt: skip
    max_subscriptions: int = _GROUP.setting(
        "MAX_SUBSCRIPTIONS", parsers.whole(1, 100_000), 1_000, expects="streams",
        help="Most streams that one socket may subscribe to.",
    )  # fmt: skip
    max_subscriptions_per_user: int = _GROUP.setting(
        "MAX_SUBSCRIPTIONS_PER_USER", parsers.whole(1, 10_000_000), 20_000, expects="streams",
        help="Most subscriptions of all sockets of one user on one gateway process.",
    )  # fmt: skip
    max_waits_per_user: int = _GROUP.setting(
        "MAX_WAITS_PER_USER", parsers.whole(1, 1_000_000), 2_000, expects="streams",
        help="Most subscriptions of one user on one gateway process to streams that nobody owns yet.",
    )  # fmt: skip
    max_streams: int = _GROUP.setting(
        "MAX_STREAMS", parsers.whole(1, 1_000_000), 20_000, expects="streams",
        help="Most streams that have a camera; as many more are waited for by viewers of their owners, and as many by "
        "others.",
    )  # fmt: skip
    stream_reserved_s: float = _GROUP.setting(
        "STREAM_RESERVED_S", parsers.number(0, 31_536_000), 604_800.0, expects="0–31536000 s",
        help="How long the id of a stream stays its user's after its camera went: others who register it get "
        "`UNAUTHORIZED`. Also across restarts of the router.",
    )  # fmt: skip
    stream_reserved_per_user: int = _GROUP.setting(
        "STREAM_RESERVED_PER_USER", parsers.whole(1, 1_000_000), 5_000, expects="streams",
        help="Most ids of one user that are kept so; the one whose camera went first gives way.",
    )  # fmt: skip
    stream_reserved_max: int = _GROUP.setting(
        "STREAM_RESERVED_MAX", parsers.whole(1, 1_000_000), 100_000, expects="streams",
        help="Most ids of all users that are kept so; the user who has the most loses his oldest.",
    )  # fmt: skip
    message_rate: float = _GROUP.setting(
        "MESSAGE_RATE", parsers.number(1, 1e6), 2_000.0, expects="messages per s",
        help="Messages, frames and pings that one socket may send; two seconds' worth may come at once. Over it "
        "they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    byte_rate: float = _GROUP.setting(
        "BYTE_RATE", parsers.number(1024, 1e10), float(64 << 20), expects="bytes per s",
        help="Bytes that one socket may send; two seconds' worth may come at once.",
    )  # fmt: skip
    newest_frame_bytes: int = _GROUP.setting(
        "NEWEST_FRAME_BYTES", parsers.whole(0, 16 << 30), 128 << 20, expects="bytes",
        help="Most bytes that the newest frames of all streams hold in one gateway process, or one frame that is "
        "larger. The one that came first gives way: until its camera sends again, `lastFrame` shows nothing and "
        "`frame.jpg` is 404.",
    )  # fmt: skip
    waiting_frame_bytes: int = _GROUP.setting(
        "WAITING_FRAME_BYTES", parsers.whole(1 << 20, 64 << 30), 256 << 20, expects="bytes",
        help="Most bytes that the frames hold which viewers of one gateway process have not taken, each counted once "
        "however many wait for it, or one frame that is larger. Past it the user whose viewers hold the most loses his "
        "oldest: a viewer that waits for it skips it, one that has a part of it is cut off, to come back.",
    )  # fmt: skip
    alert_rate: float = _GROUP.setting(
        "ALERT_RATE", parsers.number(0.1, 1e6), 20.0, expects="alerts per s",
        help="Alerts that the cameras of one user may raise at one gateway process; two seconds' worth may come at "
        "once. Over it they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    service_alert_rate: float = _GROUP.setting(
        "SERVICE_ALERT_RATE", parsers.number(50, 1e6), 1_000.0, expects="alerts per s",
        help="Alerts that `POST /alerts` takes at one gateway process; two seconds' worth may come at once. Over it "
        "the answer is 429 with `Retry-After`, and none of the request is taken.",
    )  # fmt: skip
    abuse_limit: int = _GROUP.setting(
        "ABUSE_LIMIT", parsers.whole(1, 1_000_000), 100, expects="errors",
        help="`INVALID_MESSAGE` and `RATE_LIMITED` errors that a socket may earn at once; one is forgiven per "
        "second. Past it the socket is closed with 1008.",
    )  # fmt: skip
    alert_lane_messages: int = _GROUP.setting(
        "ALERT_LANE_MESSAGES", parsers.whole(1, 1_000_000), 1_000, expects="messages",
        help="Alerts and status messages that may wait for one viewer; past it `SLOW_CONSUMER`.",
    )  # fmt: skip
    alert_lane_bytes: int = _GROUP.setting(
        "ALERT_LANE_BYTES", parsers.whole(1024, 1 << 30), 1 << 20, expects="bytes",
        help="The same in bytes.",
    )  # fmt: skip
    recent_alerts: int = _GROUP.setting(
        "RECENT_ALERTS", parsers.whole(0, 1_000_000), 1_000, expects="alerts",
        help="Alerts that the router keeps for `alertsSince` and `GET /alerts`.",
    )  # fmt: skip
    recent_alerts_minutes: float = _GROUP.setting(
        "RECENT_ALERTS_MINUTES", parsers.number(0.01, 1440), 60.0, expects="0.01–1440 min",
        help="How long it keeps them.",
    )  # fmt: skip
    recent_alert_bytes: int = _GROUP.setting(
        "RECENT_ALERT_BYTES", parsers.whole(1024, 16 << 30), 32 << 20, expects="bytes",
        help="Most bytes of them, half of it of one user and a quarter of one stream at most; the user with the most "
        "bytes loses his oldest.",
    )  # fmt: skip
    demand_fps: float = _GROUP.setting(
        "DEMAND_FPS", parsers.number(0.1, 1000), 30.0, expects="frames per s",
        help="What a camera that asks for `demand` is told is worth sending while somebody watches without `maxFps`.",
    )  # fmt: skip
