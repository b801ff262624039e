"""Settings of ports, addresses, certificates and the home directory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import Reload, SettingsGroup

_GROUP: Final = SettingsGroup("Network and files")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class NetworkSettings:
    """The settings of the section "Network and files": where the processes listen and keep files. See `Settings`."""

    port: int = _GROUP.setting(
        "WATCHOUT_PORT", parsers.whole(1, 65535), 3000, expects="1–65535",
        help="TCP port of the gateway, for WebSocket and HTTP. If it is not set, `PORT` is used, except under honcho, "
        "which sets another `PORT` for each process. Ignored is a value `tcp://…`, which Kubernetes sets for a Service "
        "named `watchout`.",
    )  # fmt: skip
    host: str = _GROUP.setting(
        "WATCHOUT_HOST", url_parsers.host, "", expects="host or address",
        help="Address on which the gateway listens, without a port. Empty: all IPv4 and IPv6 addresses of the machine. "
        "Set `127.0.0.1` behind a reverse proxy on the same machine.",
    )  # fmt: skip
    public_url: str | None = _GROUP.setting(
        "PUBLIC_URL", url_parsers.public_url, None, expects="http(s)://host[:port]",
        help="Where clients reach the gateways of this machine, and no other machine's: `https://a.watchout.example`. "
        "`GET /streams/{id}/where` tells it to those who ask on which machine a stream is published. Not set: they are "
        "told the name of the machine only.",
    )  # fmt: skip
    home: Path = _GROUP.setting(
        "WATCHOUT_HOME", parsers.home, Path(".watchout"), expects="directory",
        help="Directory of the bus's sockets, lock files, keys and the embedded session store; created with mode 0700. "
        "Processes with the same home work together. Use a local file system.",
    )  # fmt: skip
    tls_cert: Path | None = _GROUP.setting(
        "TLS_CERT", parsers.file, None, expects="file",
        reload=Reload.REPLACED,
        help="Certificate with its chain, in PEM. If it is set, the port accepts TLS only. A changed file is loaded "
        "within a minute, without a restart.",
    )  # fmt: skip
    tls_key: Path | None = _GROUP.setting(
        "TLS_KEY", parsers.file, None, expects="file",
        reload=Reload.YES,
        help="Private key of the certificate, in PEM. If it is not set, the key is read from the file of `TLS_CERT`.",
    )  # fmt: skip
    console: bool = _GROUP.setting(
        "CONSOLE", parsers.flag, True, expects="true, false",
        help="Serve the web console to browsers at `/`. It can do only what its user may do anyway. `false`: browsers "
        "get the plain list of paths, like everybody else.",
    )  # fmt: skip
    router_listen: str | None = _GROUP.setting(
        "ROUTER_LISTEN", url_parsers.tcp_address, None, expects="tcp://address:port",
        help="Address on which the router also accepts bridges of other machines; `tcp://*:5550`: all IPv4 addresses. "
        "Always encrypted (CURVE), and only for keys allowed by `watchout-ctl keys allow`. Not set: the router accepts "
        "processes of its own machine only.",
    )  # fmt: skip
    router_address: str | None = _GROUP.setting(
        "ROUTER_ADDRESS", url_parsers.tcp_address, None, expects="tcp://host:port",
        help="Router of another machine that mlbridge joins; requires `ROUTER_PUBLIC_KEY` and `BRIDGE_KEY_FILE`. Not "
        "set: the router of `WATCHOUT_HOME`.",
    )  # fmt: skip
    router_public_key: str | None = _GROUP.setting(
        "ROUTER_PUBLIC_KEY", key_parsers.curve_key, None, expects="64 hexadecimal digits",
        help="Public key of the router at `ROUTER_ADDRESS`, as `watchout-ctl keys server` prints it on the router's "
        "machine.",
    )  # fmt: skip
    bridge_key_file: Path | None = _GROUP.setting(
        "BRIDGE_KEY_FILE", parsers.file, None, expects="file",
        help="Key pair of the bridge, mode 0600, as `watchout-ctl keys client FILE` creates it.",
    )  # fmt: skip
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _GROUP.setting(
        "TRUSTED_PROXIES", url_parsers.networks, (), expects="addresses, networks",
        reload=Reload.YES,
        help="Reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are used. From other peers these headers "
        "are ignored, so that no client can choose its own address.",
    )  # fmt: skip
