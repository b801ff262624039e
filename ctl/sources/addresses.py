"""Parses the address of a camera, so that it can be opened, and shown without its secrets. Pure.

Cameras are addressed as no RFC allows: passwords with ````, ``#`` or ``[`` as they are, and user and password in the
path (``rtsp://host/user=admin&password=…``). So everything but scheme, host and port counts as a secret here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from watchout.common.toolbox import default_ports

#: Default port by scheme, of the schemes that cameras use.
DEFAULT_PORTS: Final = {scheme: default_ports.DEFAULT_PORTS[scheme] for scheme in ("rtsp", "rtsps", "http", "https")}

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?\Z")
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODE: Final = "write / as %2F, ? as %3F, # as %23, @ as %40 in user name, password and path"
_UNCLEAR: Final = f"it is not clear where user name and password end in the address; {_ENCODE}"


class AddressFault(Exception):
    """The address of a camera cannot be used; raised by `parse_camera`. The text says why and shows no secret.

    `open_source` ends the command with it, as a `Failure`.
    """


@dataclass(frozen=True, slots=True)
class CameraAddress:
    """A parsed address of a network camera, made by `parse_camera`.

    `opened_as` is the URL for FFmpeg with its secrets; `shown` is for output, without them.
    """

    scheme: str
    host: str
    port: int
    opened_as: str = field(repr=False)
    shown: str


def scheme_of(text: str) -> str | None:
    """Return the scheme of a URL in lower case; None for text without one, such as a path."""
    found = _SCHEME.match(text)
    return None if found is None else found[1].lower()


def parse_camera(text: str) -> CameraAddress:
    """Parse the address of a network camera. Raises `AddressFault`."""
    scheme = scheme_of(text)
    if scheme not in DEFAULT_PORTS:
        expected = ", ".join(f"{each}://" for each in DEFAULT_PORTS)
        raise AddressFault(f"{scheme}:// is not the address of a camera, expected {expected}")
    rest = text.partition("://")[2]
    userinfo, place, path = _split(rest)
    found = _HOST_PORT.match(place)
    if found is None or not 0 < int(found[2] or 1) < 65536:
        if userinfo is None and path:
            raise AddressFault(f"the {scheme}:// address has no recognisable host; {_ENCODE}")
        raise AddressFault(f"the {scheme}:// address has no host[:port] {'behind its @' if userinfo else 'in it'}")
    opened = f"{scheme}://{'' if userinfo is None else _encoded(userinfo) + '@'}{place}{path}"
    shown = f"{scheme}://{place}{'/…' if path.strip('/') else ''}"
    return CameraAddress(scheme, found[1].strip("[]"), int(found[2] or DEFAULT_PORTS[scheme]), opened, shown)


def _split(rest: str) -> tuple[str | None, str, str]:
    """Return user information (None for none), host and port, and the rest from the path on."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in authority:
        if "@" in path:  # `user:p@ss#1@host`, or a path with an @: the text after the first @ may be a password
            raise AddressFault(_UNCLEAR)
        userinfo, _, place = authority.rpartition("@")
        return userinfo, place, path
    if "@" not in path:
        return None, authority, path
    if _HOST_PORT.match(authority) is None:  # `user:pass#1@host`: no port is called `pass`
        return _split_at_last(rest)
    if ":" in path.rpartition("@")[0]:  # `us/er:pass@host`, or a path with `:` and ``
        raise AddressFault(_UNCLEAR)
    return None, authority, path


def _split_at_last(rest: str) -> tuple[str, str, str]:
    """Return the same, split at the last ``@``."""
    userinfo, _, behind = rest.rpartition("@")
    place = re.split(r"[/?#]", behind, maxsplit=1)[0]
    return userinfo, place, behind[len(place) :]


def _encoded(userinfo: str) -> str:
    """Return user name and password, percent-encoded where they are not yet."""
    user, colon, password = userinfo.partition(":")
    return colon.join(
        quote(_BARE_PERCENT.sub("%25", each), safe="%!$&'()*+,;=~") for each in (user, password)[: 1 + len(colon)]
    )
