"""Keeps secrets out of the doctor's report: which texts are secret, and what of a URL may be shown. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from watchout.common.settings import table
from watchout.common.settings.bus_servers import bus_servers
from watchout.common.settings.parsers import split_list
from watchout.common.settings.spec import InvalidValue
from watchout.common.toolbox.default_ports import DEFAULT_PORTS
from watchout.ctl.doctor.findings import Finding

#: Shorter secrets are not removed from sentences: removing a common word would reveal that it is the secret.
SCRUBBED_CHARACTERS: Final = 6


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts of an environment that must not be shown: secret settings, and credentials in URLs."""
    known = {spec.env: spec.secret for _, spec, _ in table()} | {"WATCHOUT_TOKEN": True, "PGPASSWORD": True}
    found: set[str] = set()
    for name, secret in known.items():
        raw = environ.get(name, "").strip()
        if name == "WATCHOUT_BUS" and (credentials := _of_servers(raw)) is not None:
            found |= credentials
            continue
        if secret:
            found |= {raw, *raw.replace(",", " ").split()}
        if "://" in raw:
            found |= _credentials(raw)
    return tuple(sorted((text for text in found if len(text) >= SCRUBBED_CHARACTERS), key=len, reverse=True))


def _of_servers(raw: str) -> set[str] | None:
    """Return the passwords and tokens of a list of NATS servers, encoded and decoded; None: it cannot be read."""
    try:
        servers = bus_servers(raw)
    except InvalidValue:
        return None
    before = {item.partition("://")[2].rpartition("@")[0] or item.rpartition("@")[0] for item in split_list(raw)}
    encoded = {text.partition(":")[2] or text for text in before}
    return encoded | {secret for server in servers for secret in (server.password, server.token) if secret}


def _credentials(url: str) -> set[str]:
    """Return the password and the values of all query fields of a URL, encoded and decoded."""
    before, _, _ = url.partition("://")[2].rpartition("@")
    found = {before.partition(":")[2]}
    with contextlib.suppress(ValueError):
        found |= {value for _, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    return found | {unquote(text) for text in found}


def scrubbed(finding: Finding, secrets: Sequence[str]) -> Finding:
    """Return the finding with each of the secrets replaced by an ellipsis."""

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "…")
        return text

    facts = {name: clean(value) if isinstance(value, str) else value for name, value in finding.facts.items()}
    return replace(finding, says=clean(finding.says), remedy=clean(finding.remedy), facts=facts)


def visible_address(url: str, default_port: int | None = None) -> str:
    """Return ``host:port`` of a URL; empty where it could be part of a password with unencoded characters.

    `default_port` is for schemes that `DEFAULT_PORTS` does not have.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or default_port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ""
    if not parts.hostname or url.count("@") != parts.netloc.count("@") or url.count("@") > 1:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}" if port else host


def is_local(host: str | None) -> bool:
    """Whether a host is a loopback address, `localhost` or a name below `.localhost`; no name is resolved."""
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
