"""The hosts, addresses and ports of a database URL. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from watchout.common.settings.database_url.model import Host, InvalidDatabaseUrl
from watchout.common.toolbox.default_ports import DEFAULT_PORTS

DEFAULT_PORT: Final = DEFAULT_PORTS["postgresql"]
#: Most hosts in one URL.
MAX_HOSTS: Final = 32


def read_hosts(options: Mapping[str, str]) -> tuple[Host, ...]:
    """Return the hosts of the options ``host``, ``hostaddr`` and ``port``; one for the default where none is named.

    Raises `InvalidDatabaseUrl` when their numbers differ, or when one is no host or no port.
    """
    names = options["host"].split(",") if options.get("host") else []
    addresses = options["hostaddr"].split(",") if options.get("hostaddr") else []
    if names and addresses and len(names) != len(addresses):
        raise InvalidDatabaseUrl(f"as many addresses in hostaddr as hosts: {len(addresses)} and {len(names)}")
    count = max(len(names), len(addresses), 1)
    if count > MAX_HOSTS:
        raise InvalidDatabaseUrl(f"at most {MAX_HOSTS} hosts, not {count}")
    ports = [_port(text) for text in options["port"].split(",")] if options.get("port") else [DEFAULT_PORT]
    if len(ports) == 1:
        ports *= count
    if len(ports) != count:
        raise InvalidDatabaseUrl(f"one port, or as many as hosts: {len(ports)} and {count}")
    found = []
    for n, port in enumerate(ports):
        name = names[n] if names else ""
        address = addresses[n] if addresses else ""
        if not _fits_host(name) or not _fits_host(address):
            raise InvalidDatabaseUrl("hosts that are names, addresses or directories of sockets")
        found.append(Host(address or name or None, port, name or None))
    return tuple(found)


def _fits_host(host: str) -> bool:
    if host.startswith("@"):
        raise InvalidDatabaseUrl("the directory of a Unix socket, not an abstract one (@…)")
    return host.startswith("/") or re.fullmatch(r"[^\s/@?#\[\]]*", host) is not None


def _port(raw: str) -> int:
    if not raw:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", raw) or not 1 <= int(raw) <= 65535:
        raise InvalidDatabaseUrl("a port from 1 to 65535 after the host; in a password, : @ / ? # are percent-encoded")
    return int(raw)
