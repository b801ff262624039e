"""Bounds of HTTP clients that are kept apart from their library, which not every process loads. Pure."""

from __future__ import annotations

from typing import Final

#: Idle connections are closed after this many seconds. Common servers close theirs after 5 s, and a request that
#: crosses such a close is lost.
KEEPALIVE_S: Final = 4.0


class BodyTooLarge(Exception):
    """An HTTP response has more bytes than the limit that its reader has, which raises this.

    The response is closed; its status and headers are valid.

    Attributes:
        max_bytes: What the reader takes.
        announced_bytes: The response's ``Content-Length``, None when it had none.
    """

    def __init__(self, max_bytes: int, announced_bytes: int | None) -> None:
        if announced_bytes is None:
            super().__init__(f"its answer has over {max_bytes} bytes")
        else:
            super().__init__(f"its answer has {announced_bytes} bytes, expected at most {max_bytes}")
        self.max_bytes = max_bytes
        self.announced_bytes = announced_bytes
