"""Addresses of the frame mesh: the socket of a member in its home, and where other hosts reach it. Pure.

``unix:f-xxxxxxxx`` names a member that only processes of its home reach. ``tls:HOST:PORT/f-xxxxxxxx`` names one that
other hosts reach over TLS; a process of its own home uses the socket of that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.hosts import bracketed, checked_host

_UNIX: Final = "unix:"
#: What the address of a member begins with that other hosts reach.
TLS: Final = "tls:"
#: What decoding of control messages checks; `parse` checks the host and the port as well.
PATTERN: Final = r"^(?:unix:|tls:(?:[A-Za-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\]):[1-9][0-9]{0,4}/)f-[a-z2-7]{8}\Z"
_FORM: Final = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class MeshAddress:
    """Where a member accepts frames; `str` is the text that crosses the bus.

    Attributes:
        name: name of the member's socket in its home.
        host: host name or IP address for other hosts, IPv6 without brackets; None: it accepts none of theirs.
        port: TCP port for other hosts.
    """

    name: str
    host: str | None = None
    port: int = 0

    def __str__(self) -> str:
        return _UNIX + self.name if self.host is None else f"{TLS}{bracketed(self.host)}:{self.port}/{self.name}"


def parse(text: str) -> MeshAddress:
    """Return the address of this text.

    Raises:
        ValueError: The text is no address.

    """
    if not _FORM.match(text):
        raise ValueError(f"{text[:64]!r} is no address of the frame mesh")
    place, _, name = text.rpartition("/")
    if not place:
        return MeshAddress(text.removeprefix(_UNIX))
    host_text, _, port = place.removeprefix(TLS).rpartition(":")
    host = checked_host(host_text)
    if host is None or int(port) > 65_535:
        raise ValueError(f"{text[:64]!r} names no host and port of the frame mesh")
    return MeshAddress(name, host, int(port))
