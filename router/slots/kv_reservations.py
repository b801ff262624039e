"""Reservations of stream ids of a slot, as records in the cluster's key-value store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from watchout.common import log
from watchout.common.alerts.model import FrameId, Milliseconds, StreamId
from watchout.common.bus.messages.fields import Count, Organizations, Text
from watchout.common.reservations import Reservation
from watchout.router.record_store import RecordStore, ReservationChange

#: Seconds between two writes, and between two attempts to write what could not be written.
AGAIN_S: Final = 2.0

_log = log.get("router.slots.kv_reservations")


class ReservationRecord(msgspec.Struct, frozen=True, array_like=True):
    """What the store keeps of an id. `ended_at` is in ms; None: the stream had a publisher when this was written."""

    stream: StreamId
    user: Text
    organizations: Organizations
    term: Count
    frame_id: FrameId
    ended_at: Annotated[int, msgspec.Meta(ge=0)] | None


class KvReservations:
    """The reservations of one slot, a `ReservationStore`. Made by the router's app.

    Args:
        records: Where they are kept; closed with this.
    """

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._writing: asyncio.Task[None] | None = None
        #: Not called: what could not be written is kept here, and written later.
        self.failed: Callable[[], None] = _nothing

    @property
    def failing(self) -> bool:
        """Whether the last write failed."""
        return self._records.failing

    async def load(self, now_ms: Milliseconds) -> list[tuple[str, Reservation]]:
        """Return what a former router of the slot wrote, oldest first. See `ReservationStore.load`."""
        found, bad = [], 0
        for body in (await self._records.load()).values():
            try:
                record = msgspec.msgpack.decode(body, type=ReservationRecord)
            except (msgspec.DecodeError, UnicodeError):
                bad += 1
                continue
            ended_at = now_ms if record.ended_at is None else min(now_ms, record.ended_at)
            found.append(
                (record.stream, Reservation(record.user, record.organizations, record.term, record.frame_id, ended_at))
            )
        if bad:
            _log.warning("reserved stream ids that cannot be read are passed over", count=bad)
        return sorted(found, key=lambda each: each[1].ended_at)

    def ready(self, now: float) -> bool:  # noqa: ARG002
        """Return True: changes are kept until they are written."""
        return True

    def save(self, changes: list[ReservationChange], now: float, *, whole: bool) -> None:  # noqa: ARG002
        """Begin to write changes. See `ReservationStore.save`; `whole` adds nothing, as no change is ever lost here."""
        self._records.change({stream: _record(stream, known) for stream, known in changes})
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="reservations")

    async def wait(self) -> None:
        """Return at once: what is not written is kept, and written at the end."""

    async def close(self) -> None:
        """Write what is left, once. Further calls do nothing."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        await self._records.close()

    async def _write(self) -> None:
        while self._records.unwritten:
            await self._records.write()
            await asyncio.sleep(AGAIN_S)


def _nothing() -> None:
    """Nobody wants to know."""


def _record(stream: str, known: Reservation | None) -> bytes | None:
    if known is None:
        return None
    ended_at = None if math.isinf(known.ended_at) else int(known.ended_at)
    return msgspec.msgpack.encode(
        ReservationRecord(stream, known.user, tuple(known.organizations), known.term, known.frame_id, ended_at)
    )
