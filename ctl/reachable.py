"""The addresses by which browsers reach the console, and what keeps a phone from using them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

#: Values of `WATCHOUT_HOST` that mean every address of the machine.
_EVERY: Final = ("", "*", "::", "0.0.0.0")  # noqa: S104 - compared, never bound


@dataclass(frozen=True, slots=True)
class Reachable:
    """Where the console of one gateway is reached. Made by `reachable`.

    Attributes:
        here: URL of the console on this machine.
        others: URLs for other devices of the network, the best first; empty: they cannot reach it.
        hints: Sentences on what is missing for other devices and their cameras, and which setting changes it.
    """

    here: str
    others: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def best(self) -> str:
        """The URL to give to a phone, or else the one of this machine."""
        return self.others[0] if self.others else self.here


def reachable(
    *, host: str, port: int, own: Sequence[str], names: Sequence[str] | None, console: bool = True
) -> Reachable:
    """Return the addresses of a gateway.

    Args:
        host: The setting `WATCHOUT_HOST`.
        port: The setting `WATCHOUT_PORT`.
        own: Addresses of this machine in its networks, the best first; without loopback.
        names: Host names and addresses of the certificate in `TLS_CERT`; None: no TLS.
        console: The setting `CONSOLE`.
    """
    scheme = "http" if names is None else "https"
    hints = []
    every = host in _EVERY
    if not every and _is_loopback(host):
        hosts: list[str] = []
        hints.append(
            f"only this machine reaches the gateway, because WATCHOUT_HOST={host}: unset it, or set it to an address "
            "of your network, so that phones reach it too"
        )
    else:
        hosts = [each for each in own if not _is_loopback(each)] if every else [host]
        if not hosts:
            hints.append("this machine has no address in a network, so no other device reaches it")
    if names is not None:
        # A browser takes the certificate only under a name that it holds.
        named = [name for name in names if not name.startswith("*") and not _is_loopback(name)]
        if hosts and named:
            hosts = [*[each for each in named if each in hosts], *[each for each in named if each not in hosts]]
        elif hosts:
            hints.append("the certificate in TLS_CERT names no address of this machine: browsers will warn of it")
    elif hosts:
        hints.append(
            "over plain http browsers open no camera but on this machine: set TLS_CERT and TLS_KEY (mkcert makes a "
            "certificate for your own network), or put a proxy with a certificate before the gateway"
        )
    if not console:
        hints.append("the console is switched off by CONSOLE=false: browsers get the plain list of paths")
    own_name = "localhost" if every or _is_loopback(host) else host
    return Reachable(
        f"{scheme}://{_bracketed(own_name)}:{port}/",
        tuple(f"{scheme}://{_bracketed(each)}:{port}/" for each in hosts),
        tuple(hints),
    )


def signing_in(url: str, token: str) -> str:
    """Return the URL of the console with a token in its fragment, which browsers send to no server."""
    return f"{url}#token={quote(token, safe='')}"


def socket_url(url: str) -> str:
    """Return the address of the sockets that belongs to a URL of the console."""
    return url.replace("http", "ws", 1) + "streams/…"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
