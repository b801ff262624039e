"""Entity tags of pictures and conditional requests (RFC 9110 sections 8.8.3 and 13.1.2). Pure.

`Last-Modified` is not used: its resolution is one second, and pictures change many times in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: A list of entity tags; any other value is ignored like a missing header.
_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST: Final = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")


def entity_tag(stream: str, term: int, frame_id: int) -> str:
    """Return the entity tag of a frame's picture. The term is part of it: frame ids may recur in a later term."""
    return f'"{stream}/{term:x}-{frame_id:x}"'


def not_modified(if_none_match: Iterable[str], tag: str) -> bool:
    """Return whether a client that sent these values of `If-None-Match` has the picture with this tag.

    Tags are compared weakly, as the RFC requires for this header: a compressing proxy makes strong tags weak.
    """
    came = ", ".join(if_none_match).strip(" \t")
    if came == "*":
        return True
    return _LIST.fullmatch(came) is not None and tag[1:-1] in _TAG.findall(came)
