"""Settings of limits: counts, bytes, rates and time-outs of the gateway and the router. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import parsers
from watchout.common.settings.spec import Reload, SettingsGroup

_GROUP: Final = SettingsGroup("Limits")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class LimitSettings:
    """The settings of the section "Limits": counts, bytes, rates and time-outs. See `Settings`."""

    auth_timeout_s: float = _GROUP.setting(
        "AUTH_TIMEOUT_S", parsers.number(0.1, 300), 10.0, expects="0.1–300 s",
        reload=Reload.YES,
        help="Seconds that a client has to authenticate after the WebSocket handshake; then it gets `AUTH_TIMEOUT` and "
        "is closed.",
    )  # fmt: skip
    handshake_timeout_s: float = _GROUP.setting(
        "HANDSHAKE_TIMEOUT_S", parsers.number(0.1, 60), 5.0, expects="0.1–60 s",
        reload=Reload.YES,
        help="Deadline of the TLS handshake, and after it of the head of the first request on a connection, in "
        "seconds.",
    )  # fmt: skip
    idle_timeout_s: float = _GROUP.setting(
        "IDLE_TIMEOUT_S", parsers.number(1, 3600), 120.0, expects="1–3600 s",
        reload=Reload.YES,
        help="Seconds after which a client that sends nothing, not even a pong, is closed. Pings are sent after a "
        "quarter of it.",
    )  # fmt: skip
    router_timeout_s: float = _GROUP.setting(
        "ROUTER_TIMEOUT_S", parsers.number(0.1, 60), 2.0, expects="0.1–60 s",
        help="Seconds that a gateway waits for a reply of the router; then the client gets `ROUTING_ERROR` and may "
        "retry.",
    )  # fmt: skip
    max_message_bytes: int = _GROUP.setting(
        "MAX_MESSAGE_BYTES", parsers.whole(1024, 256 << 20), 16 << 20, expects="bytes",
        help="Size of the largest accepted WebSocket message; a larger one closes the socket with 1009. Before "
        "authentication the limit is 64 KiB. Use the same value for all processes.",
    )  # fmt: skip
    unfinished_bytes: int = _GROUP.setting(
        "UNFINISHED_BYTES", parsers.whole(1 << 20, 64 << 30), 96 << 20, expects="bytes",
        help="Memory of one gateway process for incomplete messages of authenticated clients. Beyond it the client "
        "with the largest is closed with 1013 and may reconnect. A gateway that is late reads less at once, so that "
        "messages that wait for it take half of this memory at most. Clients that have not authenticated share 12 "
        "MiB.",
    )  # fmt: skip
    unfinished_bytes_per_user: int = _GROUP.setting(
        "UNFINISHED_BYTES_PER_USER", parsers.whole(65536, 64 << 30), 32 << 20, expects="bytes",
        help="Memory of one gateway process for incomplete messages of one user. Beyond it that user's socket with "
        "the largest is closed with 1013 and may reconnect. A single message of up to `MAX_MESSAGE_BYTES` is always "
        "allowed.",
    )  # fmt: skip
    max_connections: int = _GROUP.setting(
        "MAX_CONNECTIONS", parsers.whole(1, 1_000_000), 20_000, expects="connections",
        help="Most open connections of one gateway process. The limit of open files must be higher; `watchout-ctl "
        "doctor` checks it.",
    )  # fmt: skip
    max_connections_per_user: int = _GROUP.setting(
        "MAX_CONNECTIONS_PER_USER", parsers.whole(1, 1_000_000), 5_000, expects="connections",
        reload=Reload.YES,
        help="Most authenticated sockets of one user at one gateway process.",
    )  # fmt: skip
    max_connections_per_address: int = _GROUP.setting(
        "MAX_CONNECTIONS_PER_ADDRESS", parsers.whole(1, 1_000_000), 10_000, expects="connections",
        reload=Reload.YES,
        help="Most connections from one address at one gateway process; for IPv6 from one /64 network. Behind a "
        "reverse proxy that is the proxy's address, unless it is in `TRUSTED_PROXIES`.",
    )  # fmt: skip
    max_unauthenticated_per_address: int = _GROUP.setting(
        "MAX_UNAUTHENTICATED_PER_ADDRESS", parsers.whole(1, 1_000_000), 4_000, expects="connections",
        former_env="MAX_STRANGERS_PER_ADDRESS",
        reload=Reload.YES,
        help="Most connections from one address that have not authenticated. All of them together never have more than "
        "half of `MAX_CONNECTIONS`.",
    )  # fmt: skip
    max_subscriptions: int = _GROUP.setting(
        "MAX_SUBSCRIPTIONS", parsers.whole(1, 100_000), 1_000, expects="streams",
        reload=Reload.YES,
        help="Most streams to which one socket may subscribe.",
    )  # fmt: skip
    max_subscriptions_per_user: int = _GROUP.setting(
        "MAX_SUBSCRIPTIONS_PER_USER", parsers.whole(1, 10_000_000), 20_000, expects="streams",
        reload=Reload.YES,
        help="Most subscriptions of one user at one gateway process, over all sockets.",
    )  # fmt: skip
    max_waits_per_user: int = _GROUP.setting(
        "MAX_WAITS_PER_USER", parsers.whole(1, 1_000_000), 2_000, expects="streams",
        reload=Reload.YES,
        help="Most subscriptions of one user at one gateway process to streams that are not published yet.",
    )  # fmt: skip
    max_streams: int = _GROUP.setting(
        "MAX_STREAMS", parsers.whole(1, 1_000_000), 20_000, expects="streams",
        help="Most streams with a publisher at one router. As many again may be subscribed to before they are "
        "published by their owners, and as many by other users.",
    )  # fmt: skip
    stream_reserved_s: float = _GROUP.setting(
        "STREAM_RESERVED_S", parsers.number(0, 31_536_000), 604_800.0, expects="0–31536000 s",
        help="Seconds for which a stream's id stays reserved for its user after the publisher disconnected; other "
        "users who register it get `UNAUTHORIZED`. Reservations survive a restart of the router. The default is a "
        "week, so that a camera may be away that long.",
    )  # fmt: skip
    stream_reserved_per_user: int = _GROUP.setting(
        "STREAM_RESERVED_PER_USER", parsers.whole(1, 1_000_000), 5_000, expects="streams",
        help="Most reserved ids of one user; beyond it the oldest is released.",
    )  # fmt: skip
    stream_reserved_max: int = _GROUP.setting(
        "STREAM_RESERVED_MAX", parsers.whole(1, 1_000_000), 100_000, expects="streams",
        help="Most reserved ids of all users; beyond it the user with the most loses the oldest.",
    )  # fmt: skip
    share_max_s: int = _GROUP.setting(
        "SHARE_MAX_S", parsers.whole(0, 315_360_000), 2_592_000, expects="0–315360000 s",
        help="Most seconds for which a user may share a stream of their own (`POST /streams/{id}/shares`); the default "
        "is 30 days. 0: no streams are shared, and shares made before do not sign in.",
    )  # fmt: skip
    shares_per_stream: int = _GROUP.setting(
        "SHARES_PER_STREAM", parsers.whole(1, 10_000), 20, expects="shares", help="Most shares of one stream."
    )
    shares_per_user: int = _GROUP.setting(
        "SHARES_PER_USER", parsers.whole(1, 100_000), 200, expects="shares", help="Most shares of one user."
    )
    shares_max: int = _GROUP.setting(
        "SHARES_MAX", parsers.whole(1, 100_000), 10_000, expects="shares", help="Most shares of all users."
    )
    message_rate: float = _GROUP.setting(
        "MESSAGE_RATE", parsers.number(1, 1e6), 2_000.0, expects="messages per s",
        reload=Reload.YES,
        help="Messages, frames and pings per second that one socket may send, with a burst of two seconds' worth. "
        "Beyond it they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    byte_rate: float = _GROUP.setting(
        "BYTE_RATE", parsers.number(1024, 1e10), float(64 << 20), expects="bytes per s",
        reload=Reload.YES,
        help="Bytes per second that one socket may send, with a burst of two seconds' worth.",
    )  # fmt: skip
    newest_frame_bytes: int = _GROUP.setting(
        "NEWEST_FRAME_BYTES", parsers.whole(0, 16 << 30), 128 << 20, expects="bytes",
        help="Memory of one gateway process for the newest frame of each stream; a single larger frame is allowed. "
        "Beyond it the frame that arrived first is dropped: until the next one arrives, `lastFrame` is empty and "
        "`frame.jpg` is 404.",
    )  # fmt: skip
    waiting_frame_bytes: int = _GROUP.setting(
        "WAITING_FRAME_BYTES", parsers.whole(1 << 20, 64 << 30), 256 << 20, expects="bytes",
        help="Memory of one gateway process for frames that viewers have not received yet; each frame counts once, "
        "however many viewers wait for it, and a single larger frame is allowed. Beyond it the user whose viewers "
        "hold the most loses the oldest frame: viewers that wait for it drop it, and a viewer that has received a "
        "part is disconnected and may reconnect.",
    )  # fmt: skip
    alert_rate: float = _GROUP.setting(
        "ALERT_RATE", parsers.number(0.1, 1e6), 20.0, expects="alerts per s",
        reload=Reload.YES,
        help="Alerts per second that the publishers of one user may raise at one gateway process, with a burst of two "
        "seconds' worth. Beyond it they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    service_alert_rate: float = _GROUP.setting(
        "SERVICE_ALERT_RATE", parsers.number(50, 1e6), 1_000.0, expects="alerts per s",
        reload=Reload.YES,
        help="Alerts per second that `POST /alerts` accepts at one gateway process, with a burst of two seconds' "
        "worth. Beyond it the response is 429 with `Retry-After`, and no alert of the request is accepted.",
    )  # fmt: skip
    abuse_limit: int = _GROUP.setting(
        "ABUSE_LIMIT", parsers.whole(1, 1_000_000), 100, expects="errors",
        help="`INVALID_MESSAGE` and `RATE_LIMITED` errors that a socket may cause in a burst; one per second is "
        "forgiven. Beyond it the socket is closed with 1008.",
    )  # fmt: skip
    alert_queue_messages: int = _GROUP.setting(
        "ALERT_QUEUE_MESSAGES", parsers.whole(1, 1_000_000), 1_000, expects="messages",
        former_env="ALERT_LANE_MESSAGES",
        help="Most alerts and status messages that wait for one viewer; beyond it the viewer gets `SLOW_CONSUMER` and "
        "is closed.",
    )  # fmt: skip
    alert_queue_bytes: int = _GROUP.setting(
        "ALERT_QUEUE_BYTES", parsers.whole(1024, 1 << 30), 1 << 20, expects="bytes", former_env="ALERT_LANE_BYTES",
        help="Most bytes of alerts and status messages that wait for one viewer; beyond it the viewer gets "
        "`SLOW_CONSUMER` and is closed.",
    )  # fmt: skip
    recent_alerts: int = _GROUP.setting(
        "RECENT_ALERTS", parsers.whole(0, 1_000_000), 1_000, expects="alerts",
        help="Most alerts that the router keeps for `alertsSince` and `GET /alerts`. Raise it if clients that were "
        "away miss alerts.",
    )  # fmt: skip
    recent_alerts_minutes: float = _GROUP.setting(
        "RECENT_ALERTS_MINUTES", parsers.number(0.01, 1440), 60.0, expects="0.01–1440 min",
        help="Minutes for which the router keeps an alert for `alertsSince` and `GET /alerts`.",
    )  # fmt: skip
    recent_alert_bytes: int = _GROUP.setting(
        "RECENT_ALERT_BYTES", parsers.whole(1024, 16 << 30), 32 << 20, expects="bytes",
        help="Memory of the router for the alerts of `alertsSince` and `GET /alerts`: at most half for one user and a "
        "quarter for one stream. Beyond it the user with the most bytes loses the oldest alert.",
    )  # fmt: skip
    demand_fps: float = _GROUP.setting(
        "DEMAND_FPS", parsers.number(0.1, 1000), 30.0, expects="frames per s",
        help="Frames per second that a publisher which asks for `demand` is told to send while a viewer without "
        "`maxFps` is subscribed.",
    )  # fmt: skip
