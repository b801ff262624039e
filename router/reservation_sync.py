"""Keeps the stored reservations up to date with the stream registry, and restores them after a start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from watchout.common import log, supervisor
from watchout.common.reservations import Reservation
from watchout.router.record_store import ReservationChange, ReservationStore
from watchout.router.streams.registry import Streams

#: Reservations that are taken over or collected in one turn of the event loop.
AT_ONCE: Final = 1_000

_log: Final = log.get("router.reservation_sync")


class ReservationSync:
    """Copies owners of stream ids between the registry and the store. `SlotRouter` creates and calls it.

    The registry counts in seconds of the router's monotonic clock, the store in ms since the epoch.
    """

    def __init__(self, streams: Streams, store: ReservationStore) -> None:
        self._streams = streams
        self._store = store
        self._collecting: asyncio.Task[None] | None = None
        store.failed = streams.change_all

    async def restore(self, now: float, now_ms: int) -> None:
        """Load the store into the registry, at the start. `now` and `now_ms` are the same moment on both clocks."""
        refused = 0
        for number, (name, stored) in enumerate(await self._store.load(now_ms), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            term = stored.term
            if term > self._streams.highest_term:
                term, refused = 1, refused + 1
            ended_at = now - (now_ms - stored.ended_at) / 1000
            self._streams.restore(name, replace(stored, ended_at=ended_at, term=term))
        if refused:
            _log.warning(
                "stored reservations have terms that no router can have granted, their owners are taken over without",
                count=refused, expected_at_most=self._streams.highest_term,
            )  # fmt: skip

    def save(self, now: float, now_ms: int) -> None:
        """Begin to write what changed since the last call; do nothing while a write is in progress or has to wait.

        More than `AT_ONCE` changes are collected over several turns of the event loop. What changes meanwhile is
        written the next time too.
        """
        if self._is_collecting or not self._streams.changed or not self._store.ready(now):
            return
        whole = self._streams.changed_all
        taken = _in_ms(self._streams.take_changes(), now, now_ms)
        changes = list(islice(taken, AT_ONCE))
        if len(changes) < AT_ONCE:
            self._store.save(changes, now, whole=whole)
        else:
            collecting = self._collect(changes, taken, now, whole=whole)
            self._collecting = asyncio.get_running_loop().create_task(collecting, name="changed reservations")

    @property
    def _is_collecting(self) -> bool:
        return self._collecting is not None and not self._collecting.done()

    async def _collect(
        self, changes: list[ReservationChange], taken: Iterator[ReservationChange], now: float, *, whole: bool
    ) -> None:
        """Save `changes` with all that is still to be taken; when that fails, everything is saved the next time."""
        try:
            while more := list(islice(taken, AT_ONCE)):
                changes += more
                await asyncio.sleep(0)
            self._store.save(changes, now, whole=whole)
        except Exception as error:
            self._streams.change_all()
            supervisor.current().failed("saving of reservations", error)

    async def close(self, now: float, now_ms: int) -> None:
        """Write what is left, and close the store."""
        await self._collected()
        await self._store.wait()
        self.save(now, now_ms)
        await self._collected()
        await self._store.close()

    async def _collected(self) -> None:
        """Wait until changes that are being collected are given to the store."""
        if self._collecting is not None:
            await asyncio.wait([self._collecting])


def _in_ms(changes: Iterator[tuple[str, Reservation | None]], now: float, now_ms: int) -> Iterator[ReservationChange]:
    for name, known in changes:
        yield name, known and replace(known, ended_at=now_ms - (now - known.ended_at) * 1000)
