"""Runs a source in a thread of its own and hands its pictures to the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

#: Pictures that the thread makes ahead of the loop.
AHEAD: Final = 3


@dataclass(frozen=True, slots=True)
class Notice:
    """What a source has to say between two pictures, as one line for people: why it reconnects, what it passed over."""

    text: str
    passed_over: int = 0  # pictures that cannot be used, told with this line


#: What a source brings: encoded pictures, and notices between them.
Pictures = Generator[bytes | Notice, None, None]


class Pump:
    """Runs an iterator in a thread of its own and hands its items to the loop; at most `AHEAD` wait.

    `on_notice` is called in the loop with the text of each notice. `passed_over` counts pictures that could
    not be used.
    """

    def __init__(self, make: Callable[[], Pictures], on_notice: Callable[[str], None] = lambda _: None) -> None:
        self.passed_over = 0
        self._make = make
        self._on_notice = on_notice
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[bytes | Notice | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)  # what bounds the queue
        self._stopped = threading.Event()
        # A daemon, because a camera that hangs cannot be interrupted and must not hold the process.
        self._thread = threading.Thread(target=self._work, name="source", daemon=True)
        self._thread.start()

    async def get(self) -> bytes | None:
        """The next picture, None at the end. Raises what the source raised."""
        while True:
            item = await self._items.get()
            self._room.release()
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, Notice):
                return item
            self.passed_over += item.passed_over
            self._on_notice(item.text)

    def stop(self) -> None:
        """Let the thread end; what waits is thrown away."""
        self._stopped.set()
        self._room.release()

    def _work(self) -> None:
        last: Exception | None = None
        pictures = self._make()
        try:
            for picture in pictures:
                if not self._hand(picture):
                    return
        except Exception as exc:  # told to the loop, which raises it
            last = exc
        finally:
            pictures.close()
        self._hand(last)

    def _hand(self, item: bytes | Notice | Exception | None) -> bool:
        self._room.acquire()
        if self._stopped.is_set():
            return False
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed
            return False
        return True
