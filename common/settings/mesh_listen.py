"""Parser of ``MESH_LISTEN``, where a process accepts frames of other hosts: address, ports, advertised name. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from watchout.common.settings.spec import InvalidValue
from watchout.common.toolbox.hosts import bracketed, checked_host, is_unspecified

_FORM: Final = re.compile(
    r"tls://(?P<host>\[[^\]]*\]|[^:/?#\[\]@]*)"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?(?:\?advertise=(?P<advertise>[^&#]*))?",
    re.ASCII,
)
_EXPECTED: Final = (
    "tls://address:port, tls://address:first-last (each process takes a free port of these) or tls://address:0, such "
    "as tls://10.0.0.5:7400-7409"
)


@dataclass(frozen=True, slots=True)
class MeshListen:
    """A checked ``MESH_LISTEN``; `str` is its text.

    Attributes:
        host: host name or IP address on which to listen, IPv6 without brackets.
        first: first port of the range; 0: any free port.
        last: last port of the range.
        advertise: host name or IP address that other hosts connect to, IPv6 without brackets.
    """

    host: str
    first: int
    last: int
    advertise: str

    def __str__(self) -> str:
        ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        shown = "" if self.advertise == self.host else f"?advertise={bracketed(self.advertise)}"
        return f"tls://{bracketed(self.host)}:{ports}{shown}"


def mesh_listen(raw: str) -> MeshListen:
    """Parse ``tls://HOST:PORT``, ``tls://HOST:FIRST-LAST``, both with or without ``?advertise=HOST``."""
    found = _FORM.fullmatch(raw)
    if found is None or found["first"] is None:
        raise InvalidValue(_EXPECTED)
    host = checked_host(found["host"])
    if host is None:
        raise InvalidValue(f"a host name or an IP address (IPv6 in brackets) behind tls://: {_EXPECTED}")
    first = int(found["first"])
    last = first if found["last"] is None else int(found["last"])
    if last > 65_535 or first > last or (first == 0 and last > 0):
        raise InvalidValue("ports from 1 to 65535, the first one not above the last, or 0 for any")
    return MeshListen(host, first, last, _advertised(host, found["advertise"]))


def _advertised(host: str, given: str | None) -> str:
    """Return what other hosts connect to. Raises `InvalidValue`."""
    name = host if given is None else checked_host(given)
    if name is None:
        raise InvalidValue("a host name or an IP address (IPv6 in brackets) behind ?advertise=")
    if is_unspecified(name):
        own = "an address of this host that the other hosts reach"
        if given is None:
            raise InvalidValue(f"{own}, because it is told to them; to listen on all, add ?advertise= and that address")
        raise InvalidValue(f"{own} behind ?advertise=")
    return name
