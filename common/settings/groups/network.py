"""Where the processes listen and connect, and where their files live. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Network and files")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Network and files: one field a setting. `Settings` inherits them."""

    port: int = _GROUP.setting(
        "WATCHOUT_PORT", parsers.whole(1, 65535), 3000, expects="1–65535",
        help="Port of the gateway, for WebSocket and HTTP. `PORT` is used when this is not set, but only outside "
        "honcho, which hands each process a `PORT` of its own. What Kubernetes makes of a Service named `watchout` "
        "(`tcp://…`) is passed over.",
    )  # fmt: skip
    host: str = _GROUP.setting(
        "WATCHOUT_HOST", url_parsers.host, "", expects="host or address",
        help="Address that the gateway listens on; empty: every address of the machine, IPv4 and IPv6.",
    )  # fmt: skip
    home: Path = _GROUP.setting(
        "WATCHOUT_HOME", parsers.home, Path(".watchout"), expects="directory",
        help="Sockets of the bus, lock files and the embedded session store. Made with mode 0700. Processes that "
        "share a home are one watchout.",
    )  # fmt: skip
    tls_cert: Path | None = _GROUP.setting(
        "TLS_CERT", parsers.file, None, expects="file",
        help="Certificate with its chain, in PEM: the port then speaks TLS only. A new file is taken up within a "
        "minute, without a restart.",
    )  # fmt: skip
    tls_key: Path | None = _GROUP.setting(
        "TLS_KEY", parsers.file, None, expects="file",
        help="The certificate's private key, in PEM; not set: it is in the same file.",
    )  # fmt: skip
    router_listen: str | None = _GROUP.setting(
        "ROUTER_LISTEN", url_parsers.tcp_address, None, expects="tcp://address:port",
        help="Where the router also listens for bridges on other machines, `tcp://*:5550` for every address of the "
        "machine (IPv4). Always encrypted (CURVE), for those whose keys `watchout-ctl keys allow` let in. Not set: "
        "nowhere.",
    )  # fmt: skip
    router_address: str | None = _GROUP.setting(
        "ROUTER_ADDRESS", url_parsers.tcp_address, None, expects="tcp://host:port",
        help="The router of another machine that mlbridge joins, with `ROUTER_PUBLIC_KEY` and `BRIDGE_KEY_FILE`. Not "
        "set: the router of `WATCHOUT_HOME`.",
    )  # fmt: skip
    router_public_key: str | None = _GROUP.setting(
        "ROUTER_PUBLIC_KEY", key_parsers.curve_key, None, expects="64 hexadecimal digits",
        help="That router's public key: `watchout-ctl keys server` shows it there.",
    )  # fmt: skip
    bridge_key_file: Path | None = _GROUP.setting(
        "BRIDGE_KEY_FILE", parsers.file, None, expects="file",
        help="The bridge's own key pair, made by `watchout-ctl keys client FILE`, mode 0600.",
    )  # fmt: skip
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _GROUP.setting(
        "TRUSTED_PROXIES", url_parsers.networks, (), expects="addresses, networks",
        help="Reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. From anybody else they "
        "are ignored.",
    )  # fmt: skip
