"""The transport of a connection that has ended: takes everything, does nothing.

It stands in place of the real one, which over TLS points back at its protocol: a circle that would keep both until a
garbage collection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final


class _Gone(asyncio.Transport):
    def is_closing(self) -> bool:
        return True

    def is_reading(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Nobody gets it."""

    def abort(self) -> None:
        """It has ended."""

    close = write_eof = pause_reading = resume_reading = abort

    def can_write_eof(self) -> bool:
        return False


GONE: Final = _Gone()
