"""Which form of a resource a client accepts: a page or plain text, compressed or not (RFC 9110 section 12). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: A weight; any other value makes its element worth nothing, like a weight of 0.
_WEIGHT: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")


def prefers_html(accept: Iterable[str]) -> bool:
    """Return whether the values of `Accept` come from a browser that opens a page.

    It names `text/html`, and likes plain text no better. `*/*` and `text/*` are not enough: `curl` and other
    programs send them, and they want text.
    """
    weights = _weights(accept)
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= weights.get("text/plain", 0.0)


def accepts_gzip(accept_encoding: Iterable[str]) -> bool:
    """Return whether the values of `Accept-Encoding` permit gzip."""
    weights = _weights(accept_encoding)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _weights(values: Iterable[str]) -> dict[str, float]:
    """Return the weight of each element of a list, by its name in lower case."""
    found: dict[str, float] = {}
    for element in ",".join(values).split(","):
        name, *parameters = (part.strip() for part in element.lower().split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = float(value.strip()) if _WEIGHT.match(value.strip()) else 0.0
        if name:
            found[name] = weight
    return found
