"""Removes secrets from texts that an ML service sends, since a service may echo what it received. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from watchout.common.settings import Settings

#: What stands in place of a secret.
REMOVED: Final = "***"
#: A text may be cut within a secret: this many of its first or last characters identify it.
ENOUGH: Final = 8
#: Parts shorter than this are not removed: they are no secrets, and would occur in other words.
SHORTEST: Final = 4


def scrubber_of(settings: Settings) -> Callable[[str], str]:
    """Return a function that replaces the secrets in ``ML_HEADERS``, ``ML_SERVICE_URL`` and ``ML_FALLBACK_URL``."""
    found: set[str] = set()
    for _, value in settings.ml_headers:
        found |= _of_header(value)
    for url in (settings.ml_service_url, settings.ml_fallback_url):
        if url is not None:
            found |= _of_url(url)
    secrets = sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)
    if not secrets:
        return str
    cut = [secret for secret in secrets if len(secret) >= 2 * ENOUGH]
    pattern = re.compile(
        "|".join(
            (
                *map(re.escape, secrets),
                *(re.escape(secret[:ENOUGH]) + r"\S*" for secret in cut),
                *(r"\S*" + re.escape(secret[-ENOUGH:]) for secret in cut),
            )
        )
    )
    return lambda text: pattern.sub(REMOVED, text)


def _of_header(value: str) -> set[str]:
    """Return the value of a header, and the credentials behind a scheme such as ``Bearer``."""
    return {value, value.rpartition(" ")[2]}


def _of_url(url: str) -> set[str]:
    """Return user, password and values of the query, as written and decoded."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    written = {credentials, *credentials.split(":", 1), *_values(parts.query)}
    return written | {unquote(each) for each in written} | {value for _, value in parse_qsl(parts.query)}


def _values(query: str) -> Iterable[str]:
    return (pair.partition("=")[2] for pair in query.split("&"))
