"""Has the NATS server that leads the bucket of leases lead the bucket of records too.

A host with slots is not the one whose NATS server leads the leases (`router.slots.lease`). When it is lost, its slots
are taken at once; what is stored of them can be read at once only if its NATS server did not lead the records either.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from watchout.common import log
from watchout.common.bus.key_value import BucketUnavailable, KeyValue

#: Seconds from one move, or one that failed, to the next; and after several that failed: NATS before 2.11 refuses it,
#: and a permission may be missing.
AGAIN_S: Final = 60.0
AGAIN_AFTER_FAULTS_S: Final = 600.0

_log: Final = log.get("router.slots.bucket_leaders")


class BucketLeaders:
    """Moves the leader of the records; one process of the site calls `look` every few seconds.

    Args:
        leases: The bucket whose leader stays where it is.
        records: The bucket whose leader is moved.
        clock: Returns monotonic seconds.
    """

    def __init__(self, leases: KeyValue, records: KeyValue, clock: Callable[[], float] = time.monotonic) -> None:
        self._leases = leases
        self._records = records
        self._clock = clock
        #: The leaders of both at the last look, where the second can be moved to the first.
        self._apart: tuple[str, str] | None = None
        self._again_at = float("-inf")
        #: Why the last move failed; empty: it did not.
        self._fault = ""

    def forget(self) -> None:
        """Begin anew: another process looks now."""
        self._apart = None

    async def look(self) -> None:
        """Move the leader of the records, if both leaders have been the same two servers at two looks."""
        former, self._apart = self._apart, None
        with contextlib.suppress(BucketUnavailable):
            leases, records = await self._leases.servers(), await self._records.servers()
            if leases and leases[0] in records[1:]:
                self._apart = leases[0], records[0]
        if self._apart is not None and self._apart == former and self._clock() >= self._again_at:
            await self._move(self._apart[0])

    async def _move(self, server: str) -> None:
        former, self._fault = self._fault, ""
        try:
            await self._records.move_leader(server)
        except BucketUnavailable as fault:
            self._fault = str(fault)
            if self._fault != former:
                _log.warning("the leader of the records cannot be moved to that of the leases", reason=self._fault)
        else:
            _log.info("the leader of the records moves to the server that leads the leases", server=server)
        self._again_at = self._clock() + (AGAIN_AFTER_FAULTS_S if former and self._fault else AGAIN_S)
