"""Where a slot's router keeps what has to survive it, as Protocols: in files of its home, or in the cluster. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from watchout.common.reservations import Reservation

#: A stream id and what is known of it; None: nothing any more. `ended_at` in ms since the epoch; infinite: it has a
#: camera.
ReservationChange = tuple[str, Reservation | None]


class RecordStore(Protocol):
    """The records of one kind of one slot: bytes under keys, whose meaning the user of the store knows.

    `load` once, then `change` and `write`, at last `close`. Changes that could not be written are kept and written with
    the next ones.
    """

    @property
    def unwritten(self) -> int:
        """Number of changes that are not written yet."""

    @property
    def failing(self) -> bool:
        """Whether the last write failed."""

    async def load(self) -> dict[str, bytes]:
        """Return all records by key; none when there is nothing usable, which is logged."""

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Note changes for the next `write`.

        Args:
            changes: A body for each changed record, None for one to delete.
        """

    async def write(self) -> bool:
        """Write what was changed; what fails stays for the next call.

        Returns:
            Whether all that was changed before the call survives this process now.
        """

    async def close(self) -> None:
        """Write what is left and close the store. Further calls do nothing."""


class ReservationStore(Protocol):
    """The reservations of one slot. Used through `ReservationSync`: `load` once, then `save`, at last `close`.

    `failed` is called in the loop when changes could not be written: everything is saved the next time.
    """

    failed: Callable[[], None]

    @property
    def failing(self) -> bool:
        """Whether the last write failed."""

    async def load(self, now_ms: int) -> list[tuple[str, Reservation]]:
        """Return what a former router wrote, oldest first; nothing when there is nothing usable.

        Args:
            now_ms: Now, in ms since the epoch: the end of streams that had a publisher. `ended_at` is in ms too.
        """

    def ready(self, now: float) -> bool:
        """Return whether `save` may be called: no write is in progress, and the pause after a failure is over."""

    def save(self, changes: list[ReservationChange], now: float, *, whole: bool) -> None:
        """Begin to write changes.

        Args:
            changes: The changed ids.
            now: The monotonic clock, in seconds.
            whole: Whether ids that are not among them are deleted.
        """

    async def wait(self) -> None:
        """Wait until no write is in progress."""

    async def close(self) -> None:
        """Wait for a write in progress and close the store. Further calls do nothing."""


@dataclass(frozen=True, slots=True)
class SlotRecords:
    """All that a slot's router keeps; made for it by `router.app`, closed by the router."""

    reservations: ReservationStore
    shares: RecordStore
    escalations: RecordStore
