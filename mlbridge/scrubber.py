"""Takes secrets out of texts that come from an ML service, which may echo what it was sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from watchout.common.settings import Settings

#: What stands in place of a secret.
REMOVED: Final = "***"
#: A text may be cut in the middle of a secret: so many of its first characters, and of its last, are enough.
ENOUGH: Final = 8
#: Shorter parts are no secret, and would make other words unreadable.
SHORTEST: Final = 4


def scrubber_of(settings: Settings) -> Callable[[str], str]:
    """A function that replaces what may be a secret of ``ML_HEADERS``, ``ML_SERVICE_URL`` or ``ML_FALLBACK_URL``."""
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
    """The value, and behind a scheme such as ``Bearer`` the credentials alone."""
    return {value, value.rpartition(" ")[2]}


def _of_url(url: str) -> set[str]:
    """User, password and values of the query, as they are written and as they are meant."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    written = {credentials, *credentials.split(":", 1), *_values(parts.query)}
    return written | {unquote(each) for each in written} | {value for _, value in parse_qsl(parts.query)}


def _values(query: str) -> Iterable[str]:
    return (pair.partition("=")[2] for pair in query.split("&"))
