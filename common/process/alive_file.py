"""Renews the time of a file while the event loop works (`ALIVE_FILE`).

What starts containers has no watchdog of its own: it looks at that time, and ends a process whose loop is stuck.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from watchout.common import supervisor
from watchout.common.supervisor import Periodic

EVERY_S: Final = 5.0


class AliveFile:
    """The file of one process; `common.service` makes one.

    A failure, such as a missing folder, is logged and counted as that of any periodic task, and tried again.

    Args:
        path: the file, which is created; None: nothing is done.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._beat: Periodic | None = None

    def begin(self) -> None:
        """Renew the time now, and every `EVERY_S` from a timer of the loop."""
        if self._path is not None:
            self._beat = supervisor.current().every(EVERY_S, self._path.touch, "alive file", first_s=0)

    def close(self) -> None:
        """Renew it no more; the loop is about to end."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
