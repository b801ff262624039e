"""What a run of the load is asked to do, and why it may fail. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

#: How a camera writes a JSON frame: as `JSON.stringify`; as `json.dumps` of Python, with spaces; with three fields that
#: the protocol does not name; with escaped slashes, as Swift, PHP and org.json write them; as `JSON.stringify` in two
#: WebSocket fragments; as an alert of the camera; as a frame that has as many bytes at the viewer as such an alert, for
#: a server that knows no alerts.
Envelope = Literal["compact", "spaces", "fields", "slashes", "fragments", "alert", "like-alert"]
#: Lines on standard error at which the runner reads its meters.
MARKS: Final = ("before", "start", "stop", "idle")
#: The one cipher of all connections with TLS.
CIPHER: Final = "TLS_AES_256_GCM_SHA384"


class LoadFault(Exception):
    """The run is worth nothing: a server that refused, closed, or sent what it may not send."""


class Slow(msgspec.Struct, forbid_unknown_fields=True):
    """Viewers of stream 0 beside the others that read slowly."""

    viewers: int
    bytes_per_s: float
    receive_buffer_bytes: int = 16 * 1024


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """One run. Cameras connect to `ports[0]`, viewers to `ports[-1]`; with `beside` the cameras spread over all ports,
    and the viewers of each connect where it does. `picture_bytes`: size of each picture; 0: as the JPEGs are.
    `trust`: the file of the authority, where all connections are TLS. `alerts_per_s`: the ML side, which has
    `service_token`, sends so many alerts of stream 0 beside the frames, and its viewers take them.
    """

    dialect: Literal["watchout", "nchan", "raw"]
    ports: tuple[int, ...]
    token: str | None = None
    format: Literal["json", "binary"] = "json"
    envelope: Envelope = "compact"
    picture_bytes: int = 0
    streams: int = 0
    viewers_per_stream: int = 1
    fps: float = 1.0
    warmup_s: float = 1.0
    duration_s: float = 2.0
    slow: Slow | None = None
    idle: int = 0
    settle_s: float = 2.0
    beside: bool = False
    trust: str | None = None
    alerts_per_s: float = 0.0
    service_token: str | None = None

    def port_of(self, stream: int, *, publishes: bool) -> int:
        """Where the camera of a stream connects, or a viewer of it."""
        if self.beside:
            return self.ports[stream % len(self.ports)]
        return self.ports[0 if publishes else -1]
