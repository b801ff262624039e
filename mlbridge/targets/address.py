"""Parts of a service's URL: names of channels, ports, and what logs may show. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

#: Names that a URL without options means.
FRAMES_CHANNEL: Final = "video-frames"
ALERTS_CHANNEL: Final = "ml-alerts"


@dataclass(frozen=True, slots=True)
class Channels:
    """The names of a broker's channels, streams or subjects for frames and alerts; read from the URL by `of`.

    Attributes:
        frames: where mlbridge publishes frames.
        alerts: where it reads alerts.
    """

    frames: str
    alerts: str

    @classmethod
    def of(cls, url: str) -> Channels:
        """Return the names in a checked URL (``?frames=…&alerts=…``), or the default ones."""
        options = dict(parse_qsl(urlsplit(url).query))
        return cls(options.get("frames", FRAMES_CHANNEL), options.get("alerts", ALERTS_CHANNEL))


def alerts_port(url: str) -> int:
    """Return the port from which a ``tcp://`` service sends alerts: ``?alerts=PORT``, or the frames' port plus 1."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query)).get("alerts")
    return int(given) if given else (parts.port or 0) + 1


def without_credentials(url: str) -> str:
    """Return scheme, host, port and path of a URL: what logs may show."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
