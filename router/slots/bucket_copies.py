"""Gives the buckets of a site the copies that they lack: those of a bucket that was made while servers were away.

A bucket with one copy is gone with its server, although the others are there. A copy that stands still is as good as
none: that of a server whose disk was full, until it is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from watchout.common import log
from watchout.common.bus.key_value import BucketCopies, BucketUnavailable, KeyValue

#: Seconds between two looks at a bucket; and from an attempt without success to the next one.
LOOK_EVERY_S: Final = 30.0
AGAIN_S: Final = 60.0
#: A copy that is not up to date for so long, in seconds, does not catch up by itself.
STUCK_S: Final = 60.0
#: Seconds between two log lines of one bucket, while nothing changes.
LOG_EVERY_S: Final = 600.0

_log: Final = log.get("router.slots.bucket_copies")


class CopiesKeeper:
    """Sees to the copies of one bucket; one process of the site calls `look` every few seconds.

    Args:
        store: The bucket.
        what: What is in it, for log lines.
        clock: Returns monotonic seconds.
    """

    def __init__(self, store: KeyValue, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._what = what
        self._clock = clock
        self._again_at = float("-inf")
        #: What was logged last, and when; None: no copy was lacking.
        self._logged: BucketCopies | None = None
        self._logged_at = float("-inf")
        #: Since when a server's copy is behind; and which of them were logged, and when.
        self._behind: dict[str, float] = {}
        self._stuck: list[str] = []
        self._stuck_logged_at = float("-inf")

    def forget(self) -> None:
        """Begin anew: another process looks now."""
        self._logged, self._behind, self._stuck = None, {}, []

    async def look(self) -> None:
        """Add copies, if some are lacking and it is time."""
        now = self._clock()
        if now < self._again_at:
            return
        self._again_at = now + LOOK_EVERY_S
        try:
            found = await self._store.copies()
            self._see_behind(found.behind, now)
            if found.count < found.wanted:
                found = await self._store.add_copies()
        except BucketUnavailable:
            self._behind = {}  # what is behind afterwards may have been up to date meanwhile
            return
        if found.count < found.wanted:
            self._again_at = now + AGAIN_S
            self._lacks(found, now)
        elif self._logged is not None:
            self._logged = None
            _log.info(f"the bucket of the {self._what} has all its copies", copies=found.count)

    def _lacks(self, found: BucketCopies, now: float) -> None:
        if found == self._logged and now - self._logged_at < LOG_EVERY_S:
            return
        self._logged, self._logged_at = found, now
        _log.warning(
            f"the bucket of the {self._what} has {found.count} of {found.wanted} copies, so that one lost server can "
            f"stop it; more are tried every {AGAIN_S:g} s",
            reason=found.fault,
        )

    def _see_behind(self, behind: tuple[str, ...], now: float) -> None:
        """Say which copies stand still."""
        self._behind = {server: self._behind.get(server, now) for server in behind}
        former, self._stuck = self._stuck, sorted(name for name, at in self._behind.items() if now - at >= STUCK_S)
        if self._stuck and (self._stuck != former or now - self._stuck_logged_at >= LOG_EVERY_S):
            self._stuck_logged_at = now
            _log.warning(
                f"copies of the bucket of the {self._what} stand still; after a full disk: make room, and restart that "
                "nats-server",
                servers=self._stuck,
            )
        elif former and not self._stuck:
            _log.info(f"no copy of the bucket of the {self._what} stands still any more")
