"""Entity tags of pictures and conditional requests (RFC 9110 sections 8.8.3 and 13.1.2). Pure.

There is no `Last-Modified`: its resolution is one second, and a camera changes its picture many times in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: A list of entity tags; what is no such list is ignored, as if the header was not there.
_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST: Final = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")


def entity_tag(stream: str, term: int, frame_id: int) -> str:
    """The tag of a frame's picture: a frame id alone can come again, when a stream ended and begins anew."""
    return f'"{stream}/{term:x}-{frame_id:x}"'


def not_modified(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether a client that sent these values of `If-None-Match` has what `tag` names already.

    Tags are compared weakly, as the RFC has it for this header: a proxy that compresses makes strong ones weak.
    """
    came = ", ".join(if_none_match).strip(" \t")
    if came == "*":
        return True
    return _LIST.fullmatch(came) is not None and tag[1:-1] in _TAG.findall(came)
