"""Keeps the stored reservations up to date with the stream registry, and restores them after a start."""

from __future__ import annotations

from dataclasses import replace

from watchout.router.record_store import ReservationChange, ReservationStore
from watchout.router.streams.registry import Streams


class ReservationSync:
    """Copies owners of stream ids between the registry and the store. `SlotRouter` creates and calls it.

    The registry counts in seconds of the router's monotonic clock, the store in ms since the epoch.
    """

    def __init__(self, streams: Streams, store: ReservationStore) -> None:
        self._streams = streams
        self._store = store
        store.failed = streams.change_all

    async def restore(self, now: float, now_ms: int) -> None:
        """Load the store into the registry, at the start. `now` and `now_ms` are the same moment on both clocks."""
        for name, reservation in await self._store.load(now_ms):
            ended_at = now - (now_ms - reservation.ended_at) / 1000
            self._streams.restore(name, replace(reservation, ended_at=ended_at))

    def save(self, now: float, now_ms: int) -> None:
        """Begin to write what changed since the last call; do nothing while a write is in progress or has to wait."""
        if not self._streams.changed or not self._store.ready(now):
            return
        whole = self._streams.changed_all
        changes: list[ReservationChange] = [
            (name, known and replace(known, ended_at=now_ms - (now - known.ended_at) * 1000))
            for name, known in self._streams.take_changes()
        ]
        self._store.save(changes, now, whole=whole)

    async def close(self, now: float, now_ms: int) -> None:
        """Write what is left, and close the store."""
        await self._store.wait()
        self.save(now, now_ms)
        await self._store.close()
