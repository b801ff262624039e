"""Which number of slots the stored records are divided by, and their move to other slots after it was changed.

Records are under the keys of their slots (`KvRecords`). The bucket's key `SHAPE_KEY` says by which number of slots they
are divided. After `CLUSTER_SLOTS` was changed, the process that has the first slot moves each record to the slot that
its stream has now, before any router loads what is stored; the others wait. The lease of that slot is the lock: every
write names the revision that it replaces, and who has lost the lease writes nothing more. A record is written to its
new place before it is removed from the former one, so what was begun is done again from the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from watchout.common import log
from watchout.common.bus.key_value import BucketUnavailable, KeyValue, RevisionConflict
from watchout.common.bus.slot_entries import MAX_SLOTS, Shape, decode_shape, encode
from watchout.common.bus.slots import slot_of
from watchout.router.slots.keeper import SHAPE_KEY
from watchout.router.slots.kv_records import CHUNKS, PARALLEL, Chunk, decode_chunk, encode_chunk

#: Attempts to write a chunk that somebody else writes too.
ATTEMPTS: Final = 3

_T = TypeVar("_T")

_log = log.get("router.slots.record_layout")


class _ShareStream(msgspec.Struct, frozen=True):
    """Of a `router.shares.table.StreamShare` what says its slot."""

    stream: str


def _of_share(_key: str, body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_ShareStream).stream
    except (msgspec.DecodeError, UnicodeError):
        return None


#: The kinds of records, each with what returns the stream of a record from its key and body; None: it cannot be read.
STREAM_OF: Final[Mapping[str, Callable[[str, bytes], str | None]]] = {
    "reservations": lambda key, _: key,
    "shares": _of_share,
    "escalations": lambda key, _: key.partition(" ")[0],
}


@dataclass(frozen=True, slots=True)
class _Place:
    """One chunk: the key under which it is stored."""

    kind: str
    slot: int
    number: int

    @property
    def key(self) -> str:
        return f"{self.kind}.{self.slot}.{self.number}"


class RecordLayout:
    """Keeps the stored records divided by the number of slots. Made by `ClusterRouter`, one for a process.

    Args:
        store: The bucket of the records.
        slots: The number of slots.
        may_move: Returns whether this process has the lease of the first slot at this moment, and so moves records.
    """

    def __init__(self, store: KeyValue, slots: int, may_move: Callable[[], bool]) -> None:
        self._store = store
        self._slots = slots
        self._may_move = may_move
        self._is_settled = False
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(PARALLEL)

    async def settle(self) -> None:
        """See that all records are in their slots: the routers may load them then.

        A bucket that does not say its number is of a release before this one, or new: its records count as divided by
        the present number.

        Raises:
            BucketUnavailable: It is not so yet, with the reason; the caller tries again.
        """
        async with self._turn:
            if self._is_settled:
                return
            try:
                await self._settle()
            except RevisionConflict:
                raise BucketUnavailable("another process changes the stored records") from None
            self._is_settled = True

    async def keep(self) -> None:
        """Write the number again that the store has lost, as when its bucket was deleted. Called regularly."""
        if not self._is_settled:
            return
        try:
            found = await self._store.read(SHAPE_KEY)
            if found.data is None:
                await self._store.compare_and_set(SHAPE_KEY, encode(Shape(self._slots)), found.revision)
        except (BucketUnavailable, RevisionConflict):
            return  # the next call finds it

    async def _settle(self) -> None:
        """Raises `BucketUnavailable`, `RevisionConflict`."""
        found = await self._store.read(SHAPE_KEY)
        shape = decode_shape(found.data)
        if shape is None:
            await self._store.compare_and_set(SHAPE_KEY, encode(Shape(self._slots)), found.revision)
        elif shape.slots != self._slots:
            self._check()
            # What was read may be old. This succeeds only if it is not, and makes a former mover's end fail.
            revision = await self._store.compare_and_set(SHAPE_KEY, encode(shape), found.revision)
            moved = 0
            for kind in STREAM_OF:
                moved += await self._move(kind)
            self._check()
            await self._store.compare_and_set(SHAPE_KEY, encode(Shape(self._slots)), revision)
            _log.info("the stored records were moved to the slots that their streams have now", former=shape.slots,
                      slots=self._slots, moved=moved)  # fmt: skip

    def _check(self) -> None:
        if not self._may_move():
            raise BucketUnavailable(
                "they are divided by another number of slots; the router process of slot 0 moves them"
            )

    async def _move(self, kind: str) -> int:
        """Move all records of a kind that are of another slot now; return how many they were."""
        found = await self._chunks_of(kind)
        #: Each record that moves, by its new place; and by its former one, to be removed there.
        arriving: dict[_Place, dict[str, tuple[int, bytes]]] = {}
        leaving: dict[_Place, dict[str, bytes]] = {}
        for place, chunk in sorted(found.items(), key=lambda each: each[1].epoch):  # of two the later one holds
            for key, body in chunk.records.items():
                stream = STREAM_OF[kind](key, body)
                slot = place.slot if stream is None else slot_of(stream, self._slots)
                if slot != place.slot:
                    arriving.setdefault(_Place(kind, slot, place.number), {})[key] = chunk.epoch, body
                    leaving.setdefault(place, {})[key] = body
        await self._each(self._add(place, records) for place, records in arriving.items())
        await self._each(self._remove(place, records) for place, records in leaving.items())
        return sum(map(len, leaving.values()))

    async def _chunks_of(self, kind: str) -> dict[_Place, Chunk]:
        """Return the chunks of all slots that can be read."""
        places = []
        for key in await self._store.keys(kind):
            parts = key.split(".")
            if len(parts) == 3 and all(part.isdecimal() for part in parts[1:]):
                place = _Place(kind, int(parts[1]), int(parts[2]))
                if place.slot < MAX_SLOTS and place.number < CHUNKS and place.key == key:
                    places.append(place)
        read = await self._each(self._read(place) for place in places)
        return {place: chunk for place, (chunk, _) in zip(places, read, strict=True) if chunk is not None}

    async def _add(self, place: _Place, records: Mapping[str, tuple[int, bytes]]) -> None:
        """Add records to a chunk. What it has stays, unless they come from a chunk of a later router."""

        def added(chunk: Chunk) -> dict[str, bytes]:
            newer = {
                key: body for key, (epoch, body) in records.items() if key not in chunk.records or epoch > chunk.epoch
            }
            return {**chunk.records, **newer}

        await self._change(place, added)

    async def _remove(self, place: _Place, records: Mapping[str, bytes]) -> None:
        """Remove records from a chunk that are in their new place now."""

        def left(chunk: Chunk) -> dict[str, bytes]:
            return {key: body for key, body in chunk.records.items() if records.get(key) != body}

        await self._change(place, left)

    async def _change(self, place: _Place, change: Callable[[Chunk], dict[str, bytes]]) -> None:
        """Replace a chunk's records by what `change` returns. Raises `BucketUnavailable`, `RevisionConflict`."""
        for attempt in range(1, ATTEMPTS + 1):
            chunk, revision = await self._read(place)
            known = chunk or Chunk(0, {})  # as a router takes one that cannot be read
            records = change(known)
            if records == known.records:
                return
            value = encode_chunk(known.epoch, records, self._store.max_value_bytes, place.kind, place.key)
            self._check()
            try:
                await self._store.compare_and_set(place.key, value, revision)
            except RevisionConflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _read(self, place: _Place) -> tuple[Chunk | None, int]:
        """Return a chunk and its revision; None: it cannot be read."""
        found = await self._store.read(place.key)
        return decode_chunk(found.data), found.revision

    async def _each(self, doing: Iterable[Awaitable[_T]]) -> list[_T]:
        """Do all, `PARALLEL` at the same time, and return what they return. Raises what one of them raised."""

        async def one(each: Awaitable[_T]) -> _T:
            async with self._places:
                return await each

        done = await asyncio.gather(*map(one, doing), return_exceptions=True)
        found: list[_T] = []
        for each in done:
            if isinstance(each, BaseException):
                raise each
            found.append(each)
        return found
