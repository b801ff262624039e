"""Records of a slot in the cluster's key-value store: loaded when a router takes the slot, written behind in chunks.

The records of one kind are divided among 64 chunks by a hash of their keys, so that a change writes little. A chunk
names the epoch of the router that wrote it: a router that has a successor overwrites nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from watchout.common import log
from watchout.common.bus.key_value import MIN_VALUE_BYTES, BucketUnavailable, KeyValue, RevisionConflict

#: Chunks of the records of one kind of one slot.
CHUNKS: Final = 64
#: Largest size of a chunk when it is unpacked, in bytes: what cannot be one of ours is not read.
MAX_CHUNK_BYTES: Final = 64 << 20
#: Reads and writes of chunks at the same time.
PARALLEL: Final = 16
#: Seconds between two attempts to load.
LOAD_AGAIN_S: Final = 0.5
#: Attempts to write a chunk that somebody else writes too.
ATTEMPTS: Final = 3

_log = log.get("router.slots.kv_records")


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """The value of one key: records, and the epoch of the router that wrote them."""

    epoch: int
    records: dict[str, bytes]


class Superseded(Exception):
    """A later router has written a chunk: this one writes no more."""


class KvRecords:
    """The records of one kind of one slot, a `RecordStore`. Made by the router's app.

    Args:
        store: The bucket.
        kind: The kind, first part of the keys.
        slot: The slot.
        epoch: The epoch of the router.
        what: What the records are, in the plural, for log lines.
        every_s: Seconds between two writes at least; 0: each is made at once.
        settle: Sees that the records are divided by the present number of slots, before they are loaded; raises
            `BucketUnavailable`. None: they are.
    """

    def __init__(
        self,
        store: KeyValue,
        kind: str,
        slot: int,
        epoch: int,
        what: str,
        *,
        every_s: float = 0.0,
        settle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._prefix = f"{kind}.{slot}"
        self._epoch = epoch
        self._what = what
        self._every_s = every_s
        self._settle = settle
        self._chunks: list[dict[str, bytes]] = [{} for _ in range(CHUNKS)]
        self._revisions = [0] * CHUNKS
        #: Keys whose change is not written, by chunk.
        self._dirty: dict[int, set[str]] = {}
        self._loaded = False
        self._superseded = False
        self._closing = asyncio.Event()
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(PARALLEL)
        self._written_at = float("-inf")
        #: Whether the last write failed.
        self.failing = False

    @property
    def unwritten(self) -> int:
        """Number of changes that are not in the store yet."""
        return sum(map(len, self._dirty.values()))

    async def load(self) -> dict[str, bytes]:
        """Return all records by key, tried again until it succeeds or the store is closed."""
        told = False
        while not self._closing.is_set():
            try:
                if self._settle is not None:
                    await self._settle()
                chunks = await self._read_all()
            except BucketUnavailable as fault:
                if not told:
                    _log.warning(f"{self._what} cannot be loaded, it is tried again", slot=self._prefix,
                                 reason=str(fault))  # fmt: skip
                told = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOAD_AGAIN_S):
                        await self._closing.wait()
                continue
            if told:
                _log.info(f"{self._what} are loaded", slot=self._prefix)
            return self._merge(chunks)
        return {}

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Note changes for the next `write`. See `RecordStore.change`."""
        for key, body in changes.items():
            number = _chunk_of(key)
            if body is None:
                self._chunks[number].pop(key, None)
            else:
                self._chunks[number][key] = body
            self._dirty.setdefault(number, set()).add(key)

    async def write(self) -> bool:
        """Write the chunks with changes. See `RecordStore.write`. False too while the last write is too recent."""
        async with self._turn:
            if not self._dirty:
                return True
            now = asyncio.get_running_loop().time()
            is_early = now - self._written_at < self._every_s and not self._closing.is_set()
            if not self._loaded or self._superseded or is_early:
                return False
            self._written_at = now
            dirty, self._dirty = self._dirty, {}
            faults: Sequence[BaseException | None] = [asyncio.CancelledError()] * len(dirty)
            try:
                faults = await asyncio.gather(*(self._write_chunk(each) for each in dirty), return_exceptions=True)
            finally:  # what may not be written is written again, also after a cancellation
                for (number, keys), fault in zip(dirty.items(), faults, strict=True):
                    if fault is not None:
                        self._dirty.setdefault(number, set()).update(keys)
            reason = None
            for fault in faults:
                if isinstance(fault, Superseded):
                    self._superseded = True
                elif isinstance(fault, BucketUnavailable):
                    reason = str(fault)
                elif fault is not None:
                    raise fault
        if reason is not None and not self.failing:
            _log.error(f"{self._what} cannot be written, it is tried again", slot=self._prefix, reason=reason)
        elif reason is None and self.failing and not self._superseded:
            _log.info(f"{self._what} are written again", slot=self._prefix)
        self.failing = reason is not None
        return not self._dirty

    async def restore_lost(self) -> bool:
        """Write the chunks again that the store has lost, as when its bucket was deleted or purged. Called regularly.

        Returns:
            False when the store could not be asked.
        """
        if not self._loaded or self._superseded or self._closing.is_set():
            return True
        known = list(self._revisions)
        try:
            there = set(await self._numbers())
        except BucketUnavailable:
            return False  # the next call finds the bucket, or makes it
        lost = 0
        for number, revision in enumerate(known):
            if revision and number not in there and self._revisions[number] == revision and self._chunks[number]:
                self._dirty.setdefault(number, set()).update(self._chunks[number])
                self._revisions[number] = 0
                lost += 1
        if lost:
            _log.warning(f"stored {self._what} were lost, they are written again", slot=self._prefix, chunks=lost)
        if self._dirty:
            await self.write()
        return True

    async def close(self) -> None:
        """Write what is left. Further calls do nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        await self.write()

    # ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read_all(self) -> dict[int, Chunk]:
        """Return all chunks, and note their revisions. Raises `BucketUnavailable`."""
        numbers = await self._numbers()
        read = await asyncio.gather(*(self._read(number) for number in numbers))
        return dict(zip(numbers, read, strict=True))

    async def _numbers(self) -> list[int]:
        """Return the chunks that are in the store. Raises `BucketUnavailable`."""
        found = [key.rpartition(".")[2] for key in await self._store.keys(self._prefix)]
        return [int(last) for last in found if last.isdecimal() and int(last) < CHUNKS]

    async def _read(self, number: int) -> Chunk:
        async with self._places:
            found = await self._store.read(f"{self._prefix}.{number}")
        self._revisions[number] = found.revision
        chunk = decode_chunk(found.data)
        if chunk is None:
            _log.error(f"a part of {self._what} cannot be read, it is lost", key=f"{self._prefix}.{number}")
        return chunk or Chunk(0, {})

    def _merge(self, chunks: dict[int, Chunk]) -> dict[str, bytes]:
        """Take over what was loaded. What was changed before is newer."""
        found: dict[str, bytes] = {}
        for number, chunk in chunks.items():
            changed = self._dirty.get(number, set())
            kept = {key: body for key, body in chunk.records.items() if key not in changed}
            self._chunks[number].update(kept)
            found.update(kept)
        self._loaded = True
        return found

    async def _write_chunk(self, number: int) -> None:
        """Write one chunk. Raises `Superseded`, `BucketUnavailable`."""
        async with self._places:
            for _ in range(ATTEMPTS):
                value = self._encoded(number)
                try:
                    self._revisions[number] = await self._store.compare_and_set(
                        f"{self._prefix}.{number}", value, self._revisions[number]
                    )
                except RevisionConflict:
                    # An own write whose reply was lost; the store was lost; or another router.
                    found = await self._store.read(f"{self._prefix}.{number}")
                    chunk = decode_chunk(found.data)
                    if chunk is not None and chunk.epoch > self._epoch:
                        raise Superseded from None
                    self._revisions[number] = found.revision
                else:
                    return
        raise BucketUnavailable("the key changes again and again")

    def _encoded(self, number: int) -> bytes:
        """Return the value of a chunk. Raises `BucketUnavailable`."""
        key = f"{self._prefix}.{number}"
        return encode_chunk(self._epoch, self._chunks[number], self._store.max_value_bytes, self._what, key)


def encode_chunk(epoch: int, records: dict[str, bytes], most: int, what: str, key: str) -> bytes:
    """Return the value of a chunk.

    Past the largest value records are left out, which is logged: those that are too large, then the oldest.

    Args:
        epoch: The epoch of the router that writes it.
        records: The records, oldest first.
        most: Largest value, in bytes.
        what: What the records are, for the log line.
        key: The key, for the log line.

    Raises:
        BucketUnavailable: The server takes hardly anything.
    """
    if most < MIN_VALUE_BYTES:
        raise BucketUnavailable(
            f"the NATS server takes values of at most {most} bytes, expected at least {MIN_VALUE_BYTES}: raise its "
            "max_payload"
        )
    value = _packed(epoch, records)
    if len(value) > most:
        fitting = {each: body for each, body in records.items() if len(_packed(epoch, {each: body})) <= most}
        _leave_out(f"{what} of which one is larger than {most} bytes", key, records, fitting)
        records, value = fitting, _packed(epoch, fitting)
    while len(value) > most and records:
        kept = dict(list(records.items())[len(records) // 8 + 1 :])
        _leave_out(f"too many {what}: the oldest ones", key, records, kept)
        records, value = kept, _packed(epoch, kept)
    return value


def _packed(epoch: int, records: dict[str, bytes]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(Chunk(epoch, records)), 1)


def _leave_out(what: str, key: str, records: dict[str, bytes], kept: dict[str, bytes]) -> None:
    if len(kept) < len(records):
        _log.error(f"{what} will not survive this router", key=key, left_out=len(records) - len(kept))


def _chunk_of(key: str) -> int:
    return zlib.crc32(key.encode()) % CHUNKS


def decode_chunk(data: bytes | None) -> Chunk | None:
    """Return a chunk, an empty one for a key without a value; None for bytes that are none."""
    if data is None:
        return Chunk(0, {})
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, MAX_CHUNK_BYTES)
        return msgspec.msgpack.decode(plain, type=Chunk)
    except (zlib.error, msgspec.DecodeError, UnicodeError):
        return None
