"""Where and how frames go to the ML service. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("ML service")


@dataclass(frozen=True, kw_only=True)
class MlServiceSettings:
    """ML service: one field a setting. `Settings` inherits them."""

    ml_service_url: str | None = _GROUP.setting(
        "ML_SERVICE_URL", url_parsers.ml_service_url, None, expects="URL", secret=True,
        help="Where mlbridge sends frames: `http(s)://host` is asked with `POST /analyze`; `ws(s)://host/path`; "
        "`redis(s)://host`, `redis(s)+sentinel://host/name`, `nats://host`, `tls://host` (NATS) (options "
        "`?frames=NAME&alerts=NAME`); `tcp://host:port` (ZeroMQ, option `?alerts=PORT`). Not set: mlbridge waits.",
    )  # fmt: skip
    ml_http_format: str = _GROUP.setting(
        "ML_HTTP_FORMAT", parsers.one_of("json", "raw"), "json", expects="json, raw",
        help="Body of a request over HTTP: JSON with base64, or the picture itself with `X-Stream-Id`, `X-Frame-Id` "
        "and `X-Frame-Time`.",
    )  # fmt: skip
    ml_batch: int = _GROUP.setting(
        "ML_BATCH", parsers.whole(1, 64), 1, expects="frames",
        help="Most frames in a request over HTTP: those that are due within 5 ms go together. 1: each goes alone. More "
        "than `ML_IN_FLIGHT` never are.",
    )  # fmt: skip
    ml_redis_mode: str = _GROUP.setting(
        "ML_REDIS_MODE", parsers.one_of("pubsub", "streams"), "pubsub", expects="pubsub, streams",
        help="How Redis is used: pub/sub, or Streams, in which a service may lag behind by some 256 frames.",
    )  # fmt: skip
    ml_headers: tuple[tuple[str, str], ...] = _GROUP.setting(
        "ML_HEADERS", key_parsers.ml_headers, (), expects="JSON object", secret=True,
        help='Headers of each HTTP request and WebSocket to the ML service: `{"Authorization":"Bearer …"}`.',
    )  # fmt: skip
    ml_tls_ca: Path | None = _GROUP.setting(
        "ML_TLS_CA", parsers.file, None, expects="file",
        help="Authorities in PEM that are trusted for the ML service, in place of the system's.",
    )  # fmt: skip
    ml_tls_cert: Path | None = _GROUP.setting(
        "ML_TLS_CERT", parsers.file, None, expects="file",
        help="Certificate in PEM that mlbridge shows to the ML service, with its key if that is in no other file.",
    )  # fmt: skip
    ml_tls_key: Path | None = _GROUP.setting(
        "ML_TLS_KEY", parsers.file, None, expects="file",
        help="Its key in PEM, not encrypted.",
    )  # fmt: skip
    ml_fallback_url: str | None = _GROUP.setting(
        "ML_FALLBACK_URL", url_parsers.ml_service_url, None, expects="URL", secret=True,
        help="A second ML service, that gets the frames while the first one is away. The first is tried meanwhile with "
        "single copies, and gets all again when it answers.",
    )  # fmt: skip
    ml_max_age_s: float = _GROUP.setting(
        "ML_MAX_AGE_S", parsers.number(0.05, 60), 1.0, expects="0.05–60 s",
        help="A frame that has waited for so long since it came to mlbridge is not sent. An alert whose frame is older "
        "when the answer comes is marked with that age.",
    )  # fmt: skip
    ml_fps: float = _GROUP.setting(
        "ML_FPS", parsers.number(0.01, 1000), 2.0, expects="frames per s",
        help="Frames of each stream that the ML service is shown.",
    )  # fmt: skip
    ml_in_flight: int = _GROUP.setting(
        "ML_IN_FLIGHT", parsers.whole(1, 1000), 16, expects="requests",
        help="Most requests under way at the ML service, and never more than one per stream. Below it the number "
        "follows the service's latency: one that works on a frame at a time gets two or three.",
    )  # fmt: skip
    ml_timeout_s: float = _GROUP.setting(
        "ML_TIMEOUT_S", parsers.number(0.1, 300), 5.0, expects="0.1–300 s",
        help="Deadline of one request to the ML service.",
    )  # fmt: skip
    ml_group: str = _GROUP.setting(
        "ML_GROUP", parsers.group_name, "default", expects="1–64 characters",
        help="Bridges of one group share the streams; each group gets them all.",
    )  # fmt: skip
    ml_ring_bytes: int = _GROUP.setting(
        "ML_RING_BYTES", parsers.whole(0, 16 << 30), 64 << 20, expects="bytes",
        help="Frames shown to the ML service that mlbridge holds, so that an alert's very frame can be had, a quarter "
        "of it for one stream at most; half of it is for those that alerts spoke of. 0: none.",
    )  # fmt: skip
    ml_ring_s: float = _GROUP.setting(
        "ML_RING_S", parsers.number(0.1, 3600), 30.0, expects="0.1–3600 s",
        help="How long it holds a frame that no alert spoke of.",
    )  # fmt: skip
    ml_streams: tuple[str, ...] = _GROUP.setting(
        "ML_STREAMS", parsers.stream_patterns, (), expects="patterns",
        help="Streams that the ML service is shown: patterns such as `cam-*` or `[ab]-?`, separated by commas, 64 at "
        "most. Empty: all. In a group, each stream goes to one of the bridges that match it.",
    )  # fmt: skip
