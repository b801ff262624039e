"""The address of a gateway, as people write it; for the operator's commands and the Python client. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
#: Paths at which clients connect; they are removed from an address that was copied with one.
_OWN_PATH: Final = re.compile(r"/streams/(register|subscribe)\Z")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def gateway_url(given: str, *, name: str = "the URL", credential: str = "an argument") -> str:
    """Return the address as ``ws://`` or ``wss://`` without a trailing slash.

    Args:
        given: The address, with ``http(s)://``, ``ws(s)://`` or no scheme; a path of clients at its end is removed.
        name: What the error text calls it.
        credential: Where a token belongs, for the error text.

    Raises:
        ValueError: It is none; the text says what is expected, and holds no secret.
    """
    try:
        parts = urlsplit(given if "://" in given else f"ws://{given}")
        fits = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        fits = False
    if "@" in given:  # a secret may be before it
        raise ValueError(f"{name} holds a user name or password, expected ws://host[:port]; the token is {credential}")
    if not fits:
        raise ValueError(
            f"{name} is {given!r}, expected ws://host[:port] or wss://host[:port]; http and https do as well"
        )
    path = _OWN_PATH.sub("", parts.path.rstrip("/"))
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path}"


def http_url(url: str) -> str:
    """Return the address of the same gateway for HTTP; `url` is of `gateway_url`."""
    return url.replace("ws", "http", 1)
