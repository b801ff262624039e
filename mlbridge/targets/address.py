"""What the URL of an ML service says besides where it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

FRAMES_CHANNEL: Final = "video-frames"
ALERTS_CHANNEL: Final = "ml-alerts"


@dataclass(frozen=True, slots=True)
class Channels:
    """Names of the channels, streams or subjects: ``?frames=…&alerts=…`` in the URL, or the contract's own."""

    frames: str
    alerts: str

    @classmethod
    def of(cls, url: str) -> Channels:
        """The names that this URL gives."""
        options = dict(parse_qsl(urlsplit(url).query))
        return cls(options.get("frames", FRAMES_CHANNEL), options.get("alerts", ALERTS_CHANNEL))


def alerts_port(url: str) -> int:
    """The port of a ``tcp://`` service that gives alerts: ``?alerts=PORT``, or the one after that of the frames."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query)).get("alerts")
    return int(given) if given else (parts.port or 0) + 1


def without_credentials(url: str) -> str:
    """Scheme, host, port and path: what may stand in logs."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
