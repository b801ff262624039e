"""Keeps the reservations file up to date with the stream registry, and restores it after a start."""

from __future__ import annotations

from dataclasses import replace

from watchout.router.reservation_file import Change, ReservationFile
from watchout.router.streams.registry import Streams


class ReservationSync:
    """Copies owners of stream ids between the registry and the file. The router's app creates and calls it.

    The registry counts in seconds of the router's monotonic clock, the file in ms since the epoch.
    """

    def __init__(self, streams: Streams, file: ReservationFile) -> None:
        self._streams = streams
        self._file = file

    def restore(self, now: float, now_ms: int) -> None:
        """Load the file into the registry, at the start. `now` and `now_ms` are the same moment on both clocks."""
        for name, reservation in self._file.load(now_ms):
            ended_at = now - (now_ms - reservation.ended_at) / 1000
            self._streams.restore(name, replace(reservation, ended_at=ended_at))

    def save(self, now: float, now_ms: int) -> None:
        """Begin to write what changed since the last call; do nothing while a write is in progress or has to wait."""
        if not self._streams.changed or not self._file.ready(now):
            return
        whole = self._streams.changed_all
        changes: list[Change] = [
            (name, known and replace(known, ended_at=now_ms - (now - known.ended_at) * 1000))
            for name, known in self._streams.take_changes()
        ]
        self._file.save(changes, now, whole=whole)

    async def close(self, now: float, now_ms: int) -> None:
        """Write what is left, and close the file."""
        await self._file.wait()
        self.save(now, now_ms)
        await self._file.close()
