"""A transport that replaces the real one after a connection has ended: it accepts every call and does nothing.

A TLS transport of asyncio refers to its protocol. Replacing it breaks that reference cycle, so that the memory of the
connection is freed at once and not by the next garbage collection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final


class _ClosedTransport(asyncio.Transport):
    """Replaces the transport of a connection that has ended: every method does nothing.

    One instance, `CLOSED_TRANSPORT`, serves all connections. It lets the memory of the real transport be freed at once.
    """

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
        """Discard the bytes."""

    def abort(self) -> None:
        """Do nothing: the connection has ended."""

    close = write_eof = pause_reading = resume_reading = abort

    def can_write_eof(self) -> bool:
        return False


CLOSED_TRANSPORT: Final = _ClosedTransport()
