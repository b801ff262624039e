"""Runs a source in a thread of its own, and passes its pictures to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

#: Pictures that the thread produces ahead of the loop.
AHEAD: Final = 3


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the user that a source yields between two pictures: why it reconnects, or what it skipped."""

    text: str
    skipped: int = 0  # pictures that cannot be used, reported with this line


#: What a source yields: encoded pictures, and notices between them.
Pictures = Generator[bytes | Notice, None, None]


class Pump:
    """Runs the iterator of a source in a thread, and passes its items to the loop; at most `AHEAD` wait.

    `Publisher` and `ml replay` create one in the running loop. `on_notice` is called in the loop with the text of each
    notice. `skipped` counts the pictures that could not be used.
    """

    def __init__(self, make: Callable[[], Pictures], on_notice: Callable[[str], None] = lambda _: None) -> None:
        self.skipped = 0
        self._make = make
        self._on_notice = on_notice
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | Notice | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)  # bounds the queue
        self._stopped = threading.Event()
        # A daemon: a camera that hangs cannot be interrupted, and must not keep the process from exiting.
        self._thread = threading.Thread(target=self._work, name="source", daemon=True)
        self._thread.start()

    async def get(self) -> bytes | None:
        """Return the next picture, None at the end. Raises what the source raises."""
        while True:
            item = await self._items.get()
            self._room.release()
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, Notice):
                return item
            self.skipped += item.skipped
            self._on_notice(item.text)

    def stop(self) -> None:
        """End the thread and discard what waits."""
        self._stopped.set()
        self._room.release()

    def _work(self) -> None:
        last: Exception | None = None
        pictures = self._make()
        try:
            for picture in pictures:
                if not self._pass(picture):
                    return
        except Exception as exc:  # passed to the loop, which raises it
            last = exc
        finally:
            pictures.close()
        self._pass(last)

    def _pass(self, item: bytes | Notice | Exception | None) -> bool:
        self._room.acquire()
        if self._stopped.is_set():
            return False
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed
            return False
        return True
