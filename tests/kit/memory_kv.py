"""A key-value bucket and a channel of beats in memory, with faults: what `common.bus.nats.kv` has over NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from watchout.common.bus.key_value import BucketCopies, BucketUnavailable, BucketValue, RevisionConflict


class MemoryKeyValue:
    """One bucket, a `KeyValue`; several processes of a test share it.

    `down`: every request fails. `led_here`: what `is_led_here` says. `lose_replies`: so many of the next writes are
    made, and their replies are lost. `led_by`: the first of `servers`; `moved_to`: what `move_leader` was asked.
    `places`: servers for a copy; `behind`: those whose copy is not up to date; `tried`: how often `add_copies` was
    called.
    """

    def __init__(self) -> None:
        self.values: dict[str, BucketValue] = {}
        self.sequence = 0
        self.down = False
        self.lose_replies = 0
        self.max_value_bytes = 900_000
        self.led_here = False
        self.led_by: str | None = None
        self.members = ("n1", "n2", "n3")
        self.places = 3
        self.behind: tuple[str, ...] = ()
        self.tried = 0
        self.moved_to: list[str] = []
        self.writes = 0

    async def read(self, key: str) -> BucketValue:
        await self._reached()
        return self.values.get(key, BucketValue(0, None))

    async def compare_and_set(self, key: str, value: bytes, expected: int) -> int:
        await self._reached()
        if self.values.get(key, BucketValue(0, None)).revision != expected:
            raise RevisionConflict(key)
        self.sequence += 1
        self.writes += 1
        self.values[key] = BucketValue(self.sequence, value)
        if self.lose_replies:
            self.lose_replies -= 1
            raise BucketUnavailable("the reply was lost")
        return self.sequence

    async def keys(self, prefix: str) -> list[str]:
        await self._reached()
        return [key for key in self.values if key.startswith(f"{prefix}.")]

    async def is_led_here(self) -> bool:
        await self._reached()
        return self.led_here

    async def servers(self) -> list[str]:
        await self._reached()
        return [] if self.led_by is None else [self.led_by, *(each for each in self.members if each != self.led_by)]

    async def copies(self) -> BucketCopies:
        await self._reached()
        return BucketCopies(len(self.members), 3, behind=self.behind)

    async def add_copies(self) -> BucketCopies:
        self.tried += 1
        await self._reached()
        self.members = ("n1", "n2", "n3")[: max(self.places, len(self.members))]
        return BucketCopies(len(self.members), 3, "" if self.places >= 3 else "no suitable peers")

    async def move_leader(self, server: str) -> None:
        self.moved_to.append(server)
        await self._reached()
        self.led_by = server

    def lose(self) -> None:
        """The bucket is deleted; revisions begin again."""
        self.values, self.sequence = {}, 0

    async def _reached(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise BucketUnavailable("the test has taken it away")


class MemoryBeats:
    """The channel of all processes of a test; `open` is what a keeper gets."""

    def __init__(self) -> None:
        self.ends: list[MemoryBeatsEnd] = []

    def open(self, on_message: Callable[[bytes], None]) -> MemoryBeatsEnd:
        end = MemoryBeatsEnd(self, on_message)
        self.ends.append(end)
        return end


class MemoryBeatsEnd:
    """One process's end, a `Broadcast`. `deaf`: it neither sends nor receives."""

    def __init__(self, channel: MemoryBeats, on_message: Callable[[bytes], None]) -> None:
        self._channel = channel
        self.on_message = on_message
        self.deaf = False

    def send(self, message: bytes) -> None:
        for other in self._channel.ends:
            if other is not self and not (other.deaf or self.deaf):
                asyncio.get_running_loop().call_soon(other.on_message, message)

    def close(self) -> None:
        self._channel.ends.remove(self)
