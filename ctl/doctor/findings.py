"""What ``watchout-ctl doctor`` finds: sentences with a level, and what keeps secrets out of them. Pure.

A finding says what there is and, unless all is well, what to do: which setting, which statement, which command. No
sentence is made of a secret; `scrubbed` stands behind that.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from watchout.common.settings import table
from watchout.common.toolbox.default_ports import DEFAULT_PORTS
from watchout.ctl.terminal import counted, printable

#: Shorter secrets are not looked for in sentences: a common word that is taken out would be told by that.
SCRUBBED_CHARACTERS: Final = 6


class Level(enum.StrEnum):
    """How bad a finding is, the worst last."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `says` what there is, `remedy` what to do, `facts` the figures for machines."""

    check: str
    level: Level
    says: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """All of it, on one line."""
        return printable(f"{self.says} {self.remedy}".strip())

    def body(self) -> dict[str, object]:
        """For `--json`."""
        found: dict[str, object] = {"check": self.check, "level": str(self.level), "says": printable(self.says)}
        if self.remedy:
            found["remedy"] = printable(self.remedy)
        if self.facts:
            found["facts"] = dict(self.facts)
        return found


Make = Callable[..., Finding]


def _maker(level: Level) -> Make:
    def make(check: str, says: str, remedy: str = "", **facts: object) -> Finding:
        return Finding(check, level, says, remedy, facts)

    return make


ok, warning, wrong = _maker(Level.OK), _maker(Level.WARNING), _maker(Level.WRONG)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them."""
    return max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each level."""
    of = {level: sum(finding.level is level for finding in findings) for level in Level}
    return f"{of[Level.WRONG]} wrong, {counted(of[Level.WARNING], 'warning')}, {of[Level.OK]} ok"


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What of an environment must never be shown: values of secret settings, and what is in URLs to prove oneself."""
    known = {spec.env: spec.secret for _, spec, _ in table()} | {"WATCHOUT_TOKEN": True, "PGPASSWORD": True}
    found: set[str] = set()
    for name, secret in known.items():
        raw = environ.get(name, "").strip()
        if secret:
            found |= {raw, *raw.replace(",", " ").split()}
        if "://" in raw:
            found |= _proofs(raw)
    return tuple(sorted((text for text in found if len(text) >= SCRUBBED_CHARACTERS), key=len, reverse=True))


def _proofs(url: str) -> set[str]:
    before, _, _ = url.partition("://")[2].rpartition("@")
    found = {before.partition(":")[2]}
    with contextlib.suppress(ValueError):
        found |= {value for _, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    return found | {unquote(text) for text in found}


def scrubbed(finding: Finding, secrets: Sequence[str]) -> Finding:
    """The finding without any of these texts, whoever put them there."""

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "…")
        return text

    facts = {name: clean(value) if isinstance(value, str) else value for name, value in finding.facts.items()}
    return replace(finding, says=clean(finding.says), remedy=clean(finding.remedy), facts=facts)


def place(url: str, default_port: int | None = None) -> str:
    """Host and port of a URL; empty where it is not certain that this is no part of a password."""
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
    """Whether a host is this machine's loopback."""
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
