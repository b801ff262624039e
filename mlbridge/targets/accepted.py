"""What an ML service accepts as the body of a request, from the ``Accept`` header of its responses. Pure.

RFC 9110 section 12.5.1: sent in a response, it says which content types are preferred in a subsequent request to the
same resource. A service that wants pictures as they are, not in base64, says so by it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

#: Characters of an ``Accept`` header that are read; services send one or two types.
MAX_ACCEPT_CHARS: Final = 500


@lru_cache(maxsize=64)
def accepted_types(accept: str | None) -> frozenset[str]:
    """Return the content types that a header names, in lower case.

    Args:
        accept: the header; None: there was none. Types with a weight of 0 are left out, and so is ``*/*``, which
            servers and frameworks send that know nothing of pictures.
    """
    found: set[str] = set()
    for entry in (accept or "")[:MAX_ACCEPT_CHARS].lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        if "/" in kind and kind != "*/*" and not any(_is_zero(parameter) for parameter in parameters):
            found.add(kind)
    return frozenset(found)


def takes(accepted: frozenset[str], content_type: str) -> bool:
    """Return whether one of these types covers a content type.

    Args:
        accepted: what `accepted_types` returned.
        content_type: the content type, in lower case.
    """
    return content_type in accepted or f"{content_type.partition('/')[0]}/*" in accepted


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and not value.strip().strip("0.")
