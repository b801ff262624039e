"""The declaration of a kind of ML service, and the registry of all kinds. Pure.

The check of ``ML_SERVICE_URL``, ``watchout-ctl doctor``, the documentation and `watchout.mlbridge.targets.registry`
take what they need to know about a kind from here. The built-in kinds are in `watchout.common.ml_targets.kinds`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit


class InvalidMlUrl(ValueError):
    """A URL of an ML service that cannot be used; raised by `common.settings.ml_url.check`.

    The parser of the setting reports it as a fault, and the process does not start.

    Args:
        expected: what would have been accepted.
        received: what may be shown of the URL; None where it may hold a secret.
    """

    def __init__(self, expected: str, received: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.received = received


class Results(enum.Enum):
    """Whether a kind of ML service returns a result for each frame, or alerts alone; part of `TargetDeclaration`.

    The value is shown in docs/targets.md.
    """

    EACH_FRAME = "for each frame"
    LEARNED = "for each frame, or alerts alone; mlbridge learns which"
    ALERTS_ONLY = "alerts alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One way in which frames and alerts travel: a row of the table "Ways to receive frames" in docs/ml-team.md.

    Attributes:
        url: the URL, with the setting that selects this way if there is one, in Markdown.
        frames: how a frame reaches the service.
        alerts: how the service returns alerts.
        example: file name of the example in examples/ml_service.
    """

    url: str
    frames: str
    alerts: str
    example: str


def _accept(parts: SplitResult, options: Mapping[str, str]) -> None:
    """Accept every path and every option."""


def _address(url: str, default_port: int) -> list[tuple[str, int]]:
    """Return the one address in a URL."""
    parts = urlsplit(url)
    return [(parts.hostname or "", parts.port or default_port)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetDeclaration:
    """A kind of ML service, such as HTTP or NATS: its URLs and how to reach it. Declared in `common.ml_targets.kinds`.

    Used by the settings, by mlbridge and for the documentation. Compared by identity.

    Attributes:
        name: name of the module in `watchout.mlbridge.targets` whose `open_target` builds the client.
        title: name for people.
        ports: the URL schemes, each with the port that it means when the URL has none; 0: the URL must have one.
        forms: how URLs of this kind look, for error texts.
        results: whether the service returns a result for each frame.
        exchanges: the ways in which frames travel, for the documentation.
        tls: the schemes without TLS, each with the one that means the same over TLS.
        instead: schemes that users may try and that are refused, each with what to write in place of it.
        extra: the extra of the package ``watchout`` that installs the client library; None: it is always installed.
        options: names of the URL's query parameters, for the documentation.
        check_parts: raises `InvalidMlUrl` when path or options of a URL do not fit.
        addresses_of: returns every (host, port) that a checked URL leads to; gets the URL and the default port.
        several_hosts: schemes of URLs with more than one host, from which `urllib.parse` reads no port.
        greets_first: whether a server without TLS sends something before the client does.
        plain_probe: bytes to send to a server without TLS, and the first bytes of which it returns one; None: a server
            without TLS already returns something to the first bytes of a TLS client.
    """

    name: str
    title: str
    ports: Mapping[str, int]
    forms: tuple[str, ...]
    results: Results
    exchanges: tuple[Exchange, ...] = ()
    tls: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    extra: str | None = None
    options: tuple[str, ...] = ()
    check_parts: Callable[[SplitResult, Mapping[str, str]], None] = _accept
    addresses_of: Callable[[str, int], list[tuple[str, int]]] = _address
    several_hosts: frozenset[str] = frozenset()
    greets_first: bool = False
    plain_probe: tuple[bytes, tuple[bytes, ...]] | None = None

    def uses_tls(self, url: str) -> bool:
        """Return whether the scheme of this URL means TLS."""
        return urlsplit(url).scheme in self.tls.values()


_BY_SCHEME: Final[dict[str, TargetDeclaration]] = {}


def declare(declaration: TargetDeclaration) -> TargetDeclaration:
    """Add a kind to the registry and return it. Raises `ValueError` when one of its schemes is taken."""
    taken = declaration.ports.keys() & _BY_SCHEME.keys()
    if taken:
        raise ValueError(f"schemes {sorted(taken)} belong to another kind of ML service")
    _BY_SCHEME.update(dict.fromkeys(declaration.ports, declaration))
    return declaration


def withdraw(declaration: TargetDeclaration) -> None:
    """Remove a kind. For tests that declared one of their own."""
    for scheme in declaration.ports:
        del _BY_SCHEME[scheme]


def schemes() -> list[str]:
    """Return all schemes that the URL of an ML service may have, in the order of declaration."""
    return list(_BY_SCHEME)


def declarations() -> Iterator[TargetDeclaration]:
    """Iterate over all kinds, in the order of declaration."""
    return iter(dict.fromkeys(_BY_SCHEME.values()))


def of_scheme(scheme: str) -> TargetDeclaration | None:
    """Return the kind with this URL scheme, None for a scheme that is not known."""
    return _BY_SCHEME.get(scheme)


def of_url(url: str) -> TargetDeclaration:
    """Return the kind of a checked URL. Raises `KeyError` for a scheme that is not known."""
    return _BY_SCHEME[urlsplit(url).scheme]


def addresses(url: str) -> list[tuple[str, int]]:
    """Return every (host, port) that a checked URL leads to: more than one for Redis behind Sentinel."""
    return of_url(url).addresses_of(url, of_url(url).ports[urlsplit(url).scheme])


def expected_forms() -> str:
    """Return how the URL of an ML service may look, for error texts."""
    *others, last = (form for declaration in declarations() for form in declaration.forms)
    return f"{', '.join(others)} or {last}"


def instead_of(scheme: str) -> str | None:
    """Return what to write in place of a scheme that some kind refuses, None when no kind knows it."""
    return next((each.instead[scheme] for each in declarations() if scheme in each.instead), None)
