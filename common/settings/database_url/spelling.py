"""Finds the URL in copied text: quotes, a psql command, a line of an env file, or libpq's keyword form. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

#: Text in front of a copied URL: the name in an env file, or the psql command of a provider's dashboard.
_IN_FRONT: Final = re.compile(r"(?:export\s+)?DATABASE_URL\s*=\s*|psql\s+(?:(?:-d\s*|--dbname[=\s]\s*)(?=\S))?(?!-)")
_QUOTED: Final = re.compile(r"(['\"`])(.*)\1", re.DOTALL)
#: One pair of libpq's keyword form: ``host=… dbname='…'``.
_PAIR: Final = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?:\s+|\Z)", re.DOTALL)


def as_url(text: str) -> str:
    """Return the URL in copied text: without quotes, ``psql`` or ``DATABASE_URL=`` around it.

    libpq's keyword form, ``host=… dbname=…``, is returned as a URL. Any other text is returned stripped, for `parse`
    to refuse.
    """
    found = text.strip()
    while (inner := _inner(found)) != found:
        found = inner
    pairs = _pairs(found)
    if pairs:
        return "postgresql://?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    return found


def _inner(text: str) -> str:
    """Return the text without one pair of quotes around it, or without one prefix of `_IN_FRONT`."""
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        return quoted[2].strip()
    front = _IN_FRONT.match(text)
    return text if front is None else text[front.end() :].strip()


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of a text in libpq's keyword form; an empty list when it is not in that form."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return []
        value = pair[3] if pair[2] is None else pair[2]
        found.append((pair[1], re.sub(r"\\(.)", r"\1", value)))
        at = pair.end()
    return found if {name for name, _ in found} & {"host", "hostaddr", "dbname", "user", "service"} else []
