"""The one table of settings: environment names, defaults, units, checks, and the source of docs/settings.md.

Pure: `load` takes the environment as a mapping. It reports every fault at once, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from common.errors import SettingsError

GROUPS: Final = ("Where", "Identity and rights", "Limits", "ML service", "Logs and process")

#: Longest file name that `common.bus` puts below ``WATCHOUT_HOME``, with its slash.
SOCKET_NAME_BYTES: Final = 12
#: ``sockaddr_un.sun_path`` holds 108 bytes on Linux and 104 on macOS, with the closing zero.
SOCKET_PATH_BYTES: Final = 103


class _Fault(Exception):
    """What a value should have been; `load` adds the name and what came."""


def _text(raw: str) -> str:
    return raw


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise _Fault(f"a whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise _Fault(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw.lower() not in choices:
            raise _Fault("one of " + ", ".join(choices))
        return raw.lower()

    return parse


def _secret(raw: str) -> str:
    if len(raw) < 16 or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise _Fault("at least 16 printable ASCII characters without spaces")
    return raw


def _database_url(raw: str) -> str:
    expected = "postgres://… , postgresql://… or sqlite:/path/to/file.db"
    try:
        parts = urlsplit(raw)
        _ = parts.port
    except ValueError:
        raise _Fault(expected) from None
    if parts.scheme in ("postgres", "postgresql") and (parts.netloc or parts.query):
        return raw
    if parts.scheme == "sqlite" and raw.removeprefix("sqlite:").strip("/"):
        return raw
    raise _Fault(expected)


def _ml_service_url(raw: str) -> str:
    expected = "http://host[:port][/path] or https://…"
    try:
        parts = urlsplit(raw)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise _Fault(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise _Fault(expected)
    return raw.rstrip("/")


def _host(raw: str) -> str:
    if any(c.isspace() or c in "/@?#" for c in raw):
        raise _Fault("a host name or an IP address")
    return raw


def _home(raw: str) -> Path:
    longest = SOCKET_PATH_BYTES - SOCKET_NAME_BYTES
    try:
        path = Path(raw).expanduser().absolute()
        size = len(str(path).encode(errors="surrogateescape"))
        if size > longest:
            raise _Fault(
                f"a directory whose absolute path has at most {longest} bytes (sockets live in it, and the system "
                f"allows {SOCKET_PATH_BYTES} bytes for a socket's path); {path} has {size}"
            )
        if path.exists() and not path.is_dir():
            raise _Fault("a directory; a file is in its place")
    except (OSError, RuntimeError, ValueError):  # a ~user that is not there, no right to look, no text
        raise _Fault("a directory that can be reached") from None
    return path


@dataclass(frozen=True, slots=True)
class Spec:
    """What the table knows of one setting besides its default."""

    env: str
    parse: Callable[[str], Any]
    group: str
    expects: str
    help: str
    secret: bool = False


def _setting(
    env: str,
    parse: Callable[[str], Any],
    default: Any,
    *,
    group: str,
    expects: str,
    help: str,
    secret: bool = False,
) -> Any:
    return field(default=default, metadata={"spec": Spec(env, parse, group, expects, help, secret)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of every process, checked. Made by `load`."""

    port: int = _setting(
        "WATCHOUT_PORT", _whole(1, 65535), 3000, group="Where", expects="1–65535",
        help="Port of the gateway, for WebSocket and HTTP. `PORT` is used when this is not set, but only outside "
        "honcho, which hands each process a `PORT` of its own.",
    )  # fmt: skip
    host: str = _setting(
        "WATCHOUT_HOST", _host, "", group="Where", expects="host or address",
        help="Address that the gateway listens on; empty: every address of the machine, IPv4 and IPv6.",
    )  # fmt: skip
    home: Path = _setting(
        "WATCHOUT_HOME", _home, Path(".watchout"), group="Where", expects="directory",
        help="Sockets of the bus, lock files and the embedded session store. Made with mode 0700. Processes that "
        "share a home are one watchout.",
    )  # fmt: skip
    database_url: str | None = _setting(
        "DATABASE_URL", _database_url, None, group="Identity and rights", expects="URL", secret=True,
        help="Better Auth's database: `postgres://user:password@host/name`, or `sqlite:/path/file.db`. Without it "
        "an embedded SQLite file `sessions.db` in `WATCHOUT_HOME`, with Better Auth's schema.",
    )  # fmt: skip
    store_timeout_s: float = _setting(
        "STORE_TIMEOUT_S", _number(0.1, 60), 3.0, group="Identity and rights", expects="0.1–60 s",
        help="How long one look-up in the session store may take, waiting for a connection included; then "
        "`AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    store_connections: int = _setting(
        "STORE_CONNECTIONS", _whole(1, 100), 5, group="Identity and rights", expects="1–100",
        help="Most connections that one gateway opens to PostgreSQL.",
    )  # fmt: skip
    stream_access: str = _setting(
        "STREAM_ACCESS", _one_of("owner", "authenticated"), "owner", group="Identity and rights",
        expects="owner, authenticated",
        help="Who may view a stream: only the user whose camera it is, or everybody who is signed in.",
    )  # fmt: skip
    stats_token: str | None = _setting(
        "STATS_TOKEN", _secret, None, group="Identity and rights", expects="≥ 16 characters", secret=True,
        help="When set, `/stats` and `/metrics` want it as `Authorization: Bearer …`; `/health` then says only "
        "whether it is healthy.",
    )  # fmt: skip
    service_token: str | None = _setting(
        "SERVICE_TOKEN", _secret, None, group="Identity and rights", expects="≥ 16 characters", secret=True,
        help="What an ML service sends as `Authorization: Bearer …` with `POST /alerts`. Not set: that path refuses "
        "everybody.",
    )  # fmt: skip
    auth_timeout_s: float = _setting(
        "AUTH_TIMEOUT_S", _number(0.1, 300), 10.0, group="Limits", expects="0.1–300 s",
        help="A socket that has not authenticated by then gets `AUTH_TIMEOUT` and is closed. Also the deadline for "
        "the HTTP head of a new connection.",
    )  # fmt: skip
    idle_timeout_s: float = _setting(
        "IDLE_TIMEOUT_S", _number(1, 3600), 120.0, group="Limits", expects="1–3600 s",
        help="A client from which nothing came for so long, not even an answer to a ping, is closed. Pings go out "
        "after a quarter of it.",
    )  # fmt: skip
    router_timeout_s: float = _setting(
        "ROUTER_TIMEOUT_S", _number(0.1, 60), 2.0, group="Limits", expects="0.1–60 s",
        help="How long the gateway waits for the router's answer before it says `ROUTING_ERROR`.",
    )  # fmt: skip
    max_message_bytes: int = _setting(
        "MAX_MESSAGE_BYTES", _whole(1024, 256 << 20), 16 << 20, group="Limits", expects="bytes",
        help="Largest WebSocket message; over it a socket closes with 1009. Before authentication 1 MiB at most.",
    )  # fmt: skip
    max_connections: int = _setting(
        "MAX_CONNECTIONS", _whole(1, 1_000_000), 20_000, group="Limits", expects="connections",
        help="Most open connections of one gateway process.",
    )  # fmt: skip
    max_connections_per_user: int = _setting(
        "MAX_CONNECTIONS_PER_USER", _whole(1, 1_000_000), 5_000, group="Limits", expects="connections",
        help="Most authenticated sockets of one user on one gateway process.",
    )  # fmt: skip
    max_connections_per_address: int = _setting(
        "MAX_CONNECTIONS_PER_ADDRESS", _whole(1, 1_000_000), 10_000, group="Limits", expects="connections",
        help="Most connections from one address on one gateway process. Behind a reverse proxy that is the proxy's.",
    )  # fmt: skip
    max_subscriptions: int = _setting(
        "MAX_SUBSCRIPTIONS", _whole(1, 100_000), 1_000, group="Limits", expects="streams",
        help="Most streams that one socket may subscribe to.",
    )  # fmt: skip
    max_streams: int = _setting(
        "MAX_STREAMS", _whole(1, 1_000_000), 20_000, group="Limits", expects="streams",
        help="Most streams that the router keeps with a camera or lately ended, and as many more that are only "
        "waited for.",
    )  # fmt: skip
    message_rate: float = _setting(
        "MESSAGE_RATE", _number(1, 1e6), 2_000.0, group="Limits", expects="messages per s",
        help="Messages, frames and pings that one socket may send; two seconds' worth may come at once. Over it "
        "they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    byte_rate: float = _setting(
        "BYTE_RATE", _number(1024, 1e10), float(64 << 20), group="Limits", expects="bytes per s",
        help="Bytes that one socket may send; two seconds' worth may come at once.",
    )  # fmt: skip
    abuse_limit: int = _setting(
        "ABUSE_LIMIT", _whole(1, 1_000_000), 100, group="Limits", expects="errors",
        help="`INVALID_MESSAGE` and `RATE_LIMITED` errors that a socket may earn at once; one is forgiven per "
        "second. Past it the socket is closed with 1008.",
    )  # fmt: skip
    alert_lane_messages: int = _setting(
        "ALERT_LANE_MESSAGES", _whole(1, 1_000_000), 1_000, group="Limits", expects="messages",
        help="Alerts and status messages that may wait for one viewer; past it `SLOW_CONSUMER`.",
    )  # fmt: skip
    alert_lane_bytes: int = _setting(
        "ALERT_LANE_BYTES", _whole(1024, 1 << 30), 1 << 20, group="Limits", expects="bytes",
        help="The same in bytes.",
    )  # fmt: skip
    recent_alerts: int = _setting(
        "RECENT_ALERTS", _whole(0, 1_000_000), 1_000, group="Limits", expects="alerts",
        help="Alerts that the router keeps for `alertsSince`, `GET /alerts` and to recognise a repeated id.",
    )  # fmt: skip
    recent_alerts_minutes: float = _setting(
        "RECENT_ALERTS_MINUTES", _number(0.01, 1440), 60.0, group="Limits", expects="0.01–1440 min",
        help="How long it keeps them.",
    )  # fmt: skip
    ml_service_url: str | None = _setting(
        "ML_SERVICE_URL", _ml_service_url, None, group="ML service", expects="URL", secret=True,
        help="Where mlbridge sends frames: `http(s)://host` is asked with `POST /analyze`. Not set: mlbridge waits.",
    )  # fmt: skip
    ml_fps: float = _setting(
        "ML_FPS", _number(0.01, 1000), 2.0, group="ML service", expects="frames per s",
        help="Frames of each stream that the ML service is shown.",
    )  # fmt: skip
    ml_in_flight: int = _setting(
        "ML_IN_FLIGHT", _whole(1, 1000), 4, group="ML service", expects="requests",
        help="Most requests under way at the ML service; never more than one per stream.",
    )  # fmt: skip
    ml_timeout_s: float = _setting(
        "ML_TIMEOUT_S", _number(0.1, 300), 5.0, group="ML service", expects="0.1–300 s",
        help="Deadline of one request to the ML service.",
    )  # fmt: skip
    ml_group: str = _setting(
        "ML_GROUP", _text, "default", group="ML service", expects="name",
        help="Bridges of one group share the streams; each group gets them all.",
    )  # fmt: skip
    log_level: str = _setting(
        "LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info", group="Logs and process",
        expects="debug, info, warning, error", help="Least level that is logged.",
    )  # fmt: skip
    log_format: str = _setting(
        "LOG_FORMAT", _one_of("auto", "text", "json"), "auto", group="Logs and process", expects="auto, text, json",
        help="`auto`: text on a terminal and under honcho, JSON lines elsewhere.",
    )  # fmt: skip
    loop: str = _setting(
        "WATCHOUT_LOOP", _one_of("uvloop", "asyncio"), "uvloop", group="Logs and process", expects="uvloop, asyncio",
        help="The event loop.",
    )  # fmt: skip
    drain_s: float = _setting(
        "DRAIN_S", _number(0, 3.5), 3.0, group="Logs and process", expects="0–3.5 s",
        help="How long a process that was told to end waits for its clients to close. honcho kills after 5 s.",
    )  # fmt: skip


def table() -> tuple[tuple[str, Spec, Any], ...]:
    """Every setting as (attribute, spec, default), in the order of the docs."""
    return tuple((f.name, f.metadata["spec"], f.default) for f in fields(Settings))


def load(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings. An empty value counts as not set.

    Raises `SettingsError` that names every wrong value.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    under_honcho = "HONCHO_PROCESS_NAME" in environ
    for name, spec, default in table():
        env, raw = spec.env, environ.get(spec.env, "").strip()
        if name == "port" and not raw and not under_honcho:
            env, raw = "PORT", environ.get("PORT", "").strip()
        if name == "home" and not raw:
            raw = str(default)
        if not raw:
            continue
        try:
            values[name] = spec.parse(raw)
        except _Fault as fault:
            came = "a value that is not shown" if spec.secret else repr(raw[:80])
            faults.append(f"{env} is {came}, expected {fault}")
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def render_markdown() -> str:
    """docs/settings.md, whole."""
    lines = [
        "# Settings",
        "",
        "Environment variables, all optional; `honcho` and `watchout-ctl` also read them from `.env`.",
        "Every wrong value is reported by name, all at once, before a socket opens; the exit code is then 2.",
        "This page is generated from the table in `common/settings.py` (`make docs`).",
        "",
    ]
    for group in GROUPS:
        lines += [f"## {group}", "", "| name | default | expects | what |", "|---|---|---|---|"]
        for _, spec, default in table():
            if spec.group == group:
                shown = "" if default in (None, "") else f"`{_plain(default)}`"
                lines.append(f"| `{spec.env}` | {shown} | {spec.expects} | {spec.help} |")
        lines.append("")
    return "\n".join(lines)
