"""Settings of the ML service: its URL, how frames are sent to it, and which. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("ML service")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class MlServiceSettings:
    """The settings of the section "ML service": where, how and which frames mlbridge sends. See `Settings`."""

    ml_service_url: str | None = _GROUP.setting(
        "ML_SERVICE_URL", url_parsers.ml_service_url, None, expects="URL", secret=True,
        help="ML service to which mlbridge sends frames: `http(s)://host` (`POST /analyze`); `ws(s)://host/path`; "
        "`redis(s)://host`, `redis(s)+sentinel://host/name`, `nats://host` or `tls://host` (NATS over TLS), with "
        "options `?frames=NAME&alerts=NAME`; `tcp://host:port` (ZeroMQ, option `?alerts=PORT`). Not set: mlbridge "
        "sends nothing.",
    )  # fmt: skip
    ml_http_format: str = _GROUP.setting(
        "ML_HTTP_FORMAT", parsers.one_of("auto", "json", "raw"), "auto", expects="auto, json, raw",
        help="Body of a request over HTTP. `json`: the frame in base64 in a JSON object. `raw`: the encoded picture "
        "itself, with the headers `X-Stream-Id`, `X-Frame-Id` and `X-Frame-Time`; a quarter smaller. `auto`: `json`, "
        "until the service says in `Accept` of its responses that it takes pictures.",
    )  # fmt: skip
    ml_batch: int = _GROUP.setting(
        "ML_BATCH", parsers.whole(1, 64), 1, expects="frames",
        help="Most frames in one request over HTTP. Frames that are due within 5 ms are sent together. 1: each frame "
        "in a request of its own. At most `ML_IN_FLIGHT`. Raise it for a service that analyses batches faster.",
    )  # fmt: skip
    ml_redis_mode: str = _GROUP.setting(
        "ML_REDIS_MODE", parsers.one_of("pubsub", "streams"), "pubsub", expects="pubsub, streams",
        help="How frames are sent over Redis. `pubsub`: to the services that are subscribed at that moment. `streams`: "
        "Redis Streams, from which a service can read about the last 256 frames late.",
    )  # fmt: skip
    ml_headers: tuple[tuple[str, str], ...] = _GROUP.setting(
        "ML_HEADERS", key_parsers.ml_headers, (), expects="JSON object", secret=True,
        help='Headers of each HTTP request and WebSocket handshake to the ML service: `{"Authorization":"Bearer …"}`.',
    )  # fmt: skip
    ml_tls_ca: Path | None = _GROUP.setting(
        "ML_TLS_CA", parsers.file, None, expects="file",
        help="Authorities in PEM by which the ML service's certificate is verified. Not set: the system's. A changed "
        "file is used at the next connection, without a restart.",
    )  # fmt: skip
    ml_tls_cert: Path | None = _GROUP.setting(
        "ML_TLS_CERT", parsers.file, None, expects="file",
        help="Client certificate in PEM that mlbridge presents to the ML service. A changed file is used at the next "
        "connection, without a restart.",
    )  # fmt: skip
    ml_tls_key: Path | None = _GROUP.setting(
        "ML_TLS_KEY", parsers.file, None, expects="file",
        help="Private key of the client certificate, in PEM, not encrypted. Not set: it is in the file of "
        "`ML_TLS_CERT`.",
    )  # fmt: skip
    ml_fallback_url: str | None = _GROUP.setting(
        "ML_FALLBACK_URL", url_parsers.ml_service_url, None, expects="URL", secret=True,
        help="Second ML service, which gets the frames while the first one fails. Meanwhile copies of single frames "
        "are sent to the first; when it responds, it gets all frames again.",
    )  # fmt: skip
    ml_max_age_s: float = _GROUP.setting(
        "ML_MAX_AGE_S", parsers.number(0.05, 60), 1.0, expects="0.05–60 s",
        help="Seconds that a frame may wait in mlbridge; an older one is dropped. An alert on a frame that is older "
        "when its result arrives is marked with the age.",
    )  # fmt: skip
    ml_fps: float = _GROUP.setting(
        "ML_FPS", parsers.number(0.01, 1000), 2.0, expects="frames per s",
        help="Most frames per second of each stream that are sent to the ML service. Raise it for events that are "
        "shorter than half a second, if the service can keep up.",
    )  # fmt: skip
    ml_in_flight: int = _GROUP.setting(
        "ML_IN_FLIGHT", parsers.whole(1, 1000), 16, expects="requests",
        help="Most requests at a time to the ML service, and never more than one per stream. Below this limit the "
        "number follows the service's latency: a service that analyses one frame at a time gets two or three.",
    )  # fmt: skip
    ml_timeout_s: float = _GROUP.setting(
        "ML_TIMEOUT_S", parsers.number(0.1, 300), 5.0, expects="0.1–300 s",
        help="Deadline of one request to the ML service, in seconds. Raise it for a slow model.",
    )  # fmt: skip
    ml_group: str = _GROUP.setting(
        "ML_GROUP", parsers.group_name, "default", expects="1–64 characters",
        help="Group of this bridge. The bridges of one group divide the streams among themselves; each group gets all "
        "streams. Use one group for each model.",
    )  # fmt: skip
    ml_ring_bytes: int = _GROUP.setting(
        "ML_RING_BYTES", parsers.whole(0, 16 << 30), 64 << 20, expects="bytes",
        help="Memory of mlbridge for frames that were sent to the ML service, so that an alert has its picture: at "
        "most a quarter for one stream, and half for frames with an alert. 0: none.",
    )  # fmt: skip
    ml_ring_s: float = _GROUP.setting(
        "ML_RING_S", parsers.number(0.1, 3600), 30.0, expects="0.1–3600 s",
        help="Seconds that mlbridge keeps a sent frame without an alert. Raise it for a service whose alerts come "
        "later.",
    )  # fmt: skip
    ml_streams: tuple[str, ...] = _GROUP.setting(
        "ML_STREAMS", parsers.stream_patterns, (), expects="patterns",
        help="Streams that are sent to the ML service: 64 patterns at most, such as `cam-*` or `[ab]-?`, separated "
        "by commas. Empty: all. Within a group, each stream goes to one of the bridges that match it.",
    )  # fmt: skip
