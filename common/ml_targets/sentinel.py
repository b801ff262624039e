"""URLs of Redis behind Sentinel, which have several hosts and the name of a master. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from watchout.common.ml_targets.declaration import InvalidMlUrl
from watchout.common.toolbox.default_ports import DEFAULT_PORTS

#: Schemes of such URLs, without and with TLS.
SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]:@/,]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A parsed URL of Redis behind Sentinel: ``redis+sentinel://[user:password@]host[:port][,…]/name[/database]``.

    Attributes:
        hosts: (host, port) of each Sentinel.
        name: name under which the Sentinels know the master.
        database: number of the database.
        username: user of the master, None: none.
        password: password of the master, None: none.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int
    username: str | None
    password: str | None


def parse(url: str) -> SentinelUrl:
    """Return the parts of a URL of Redis behind Sentinel. Raises `InvalidMlUrl`."""
    expected = "redis+sentinel://[user:password@]host[:port][,host[:port]…]/name-of-the-master[/number of the database]"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidMlUrl(expected) from None
    credentials, _, netloc = parts.netloc.rpartition("@")
    hosts: list[tuple[str, int]] = []
    for word in netloc.split(","):
        found = _HOST_PORT.fullmatch(word)
        if found is None or not 0 < int(found[2] or 1) < 65536:
            raise InvalidMlUrl(expected)
        hosts.append((found[1].strip("[]"), int(found[2] or DEFAULT_PORTS["redis+sentinel"])))
    path = re.fullmatch(r"/([A-Za-z0-9_.-]{1,128})(?:/(\d{0,4}))?", parts.path)
    if path is None or parts.fragment:
        raise InvalidMlUrl(expected)
    user, _, password = credentials.partition(":")
    return SentinelUrl(tuple(hosts), path[1], int(path[2] or 0), unquote(user) or None, unquote(password) or None)
