"""Keeps the leases of a router process, and runs the router of each slot that it has. Decides nothing: edges only.

`LeaseMachine` decides. Its requests go to the key-value store, its beats to the other router processes, and what it
starts and stops are `SlotRouter`s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from watchout.common import clock, log, supervisor
from watchout.common.bus.key_value import Broadcast, BucketUnavailable, KeyValue, RevisionConflict
from watchout.common.bus.slot_entries import Beat, Shape, decode_beat, decode_entry, decode_shape, encode
from watchout.common.errors import StartError
from watchout.common.process import about
from watchout.common.service import Tasks
from watchout.router.slots.commands import Command, CompareAndSet, Known, Read, SendBeat, StartRouter, StopRouter
from watchout.router.slots.lease import SILENCE_S, SPURNED_S, LeaseMachine
from watchout.router.slots.slot_state import Role

#: Seconds between two ticks of the machine.
TICK_S: Final = 0.1
#: Key of the shape of the cluster, and seconds for which the start waits for it.
SHAPE_KEY: Final = "cluster"
SHAPE_WAIT_S: Final = 3.0
#: Seconds between two attempts to read the shape; from a success to the next one; and between two log lines about the
#: store.
SHAPE_EVERY_S: Final = 1.0
SHAPE_AGAIN_S: Final = 30.0
LOG_EVERY_S: Final = 60.0
#: Seconds between two looks where the leader of the store is.
LEADER_EVERY_S: Final = 5.0
#: Seconds that the router of a slot gets to write its records before the slot is released.
STOP_S: Final = 1.0
#: Seconds after which a slot is taken again whose router no member could reach, at first.
UNREACHED_S: Final = 5.0
#: Seconds that a process that ends waits for its slots to be released.
LEAVE_S: Final = 2.0

_log: Final = log.get("router.slots.keeper")


class RunningRouter(Protocol):
    """What the keeper needs of a `SlotRouter`."""

    async def start(self) -> None:
        """Start. Raises `StartError`."""

    def silence(self) -> None:
        """Send and receive nothing more."""

    async def save(self) -> None:
        """Write the records, so that the next router of the slot finds them."""

    async def drain(self) -> None:
        """Send what waits for others than members: alerts for the webhook."""

    async def stop(self) -> None:
        """Close everything."""


#: Makes the router of a slot and an epoch.
MakeRouter = Callable[[int, int], RunningRouter]


@dataclass(slots=True)
class LeaseCounts:
    """What the keeper counts: slots taken, leases lost, and writes that another process was ahead of."""

    taken: int = 0
    lost: int = 0
    conflicts: int = 0


@dataclass(slots=True)
class _Place:
    """The router of one slot in this process: the one that is to run, and the one that runs."""

    wanted: int | None = None
    router: RunningRouter | None = None
    epoch: int | None = None
    tell: bool = False
    task: asyncio.Task[None] | None = None
    #: How often in turn no member could reach its router here, and until when it is not taken for that.
    unreached: int = 0
    barred_until: float = float("-inf")


class SlotKeeper:
    """The slots of one router process, from its start to its end. The router's app creates one.

    Args:
        me: Id of this run of the process.
        name: Name of the process.
        host: Name of its machine.
        slots: Number of slots.
        store: The bucket of the slots.
        open_beats: Opens the channel of beats, given what handles them.
        make_router: Makes the router of a slot.
    """

    def __init__(
        self,
        *,
        me: str,
        name: str,
        host: str,
        slots: int,
        store: KeyValue,
        open_beats: Callable[[Callable[[bytes], None]], Broadcast],
        make_router: MakeRouter,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._slots = slots
        self._store = store
        self._make_router = make_router
        self._machine = LeaseMachine(me, slots, self._loop.time(), name, host)
        self._places = [_Place() for _ in range(slots)]
        self._tasks = Tasks()
        self._ending: set[asyncio.Task[None]] = set()
        self._is_gone = asyncio.Event()
        self._leaves = False
        #: What the other routers of the site have that does not fit; empty: it fits, as far as is known.
        self._differs = ""
        self._agreed = False
        self._agreed_at = float("-inf")
        self._why = ""
        self._shape_logged_at = float("-inf")
        self._ticking: supervisor.Periodic | None = None
        self._agreeing: supervisor.Periodic | None = None
        self._looking: supervisor.Periodic | None = None
        self._beats = open_beats(self._on_beat)
        self.counts = LeaseCounts()

    # ── for stats ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def held(self) -> list[int]:
        """The slots that this process has."""
        return self._machine.held

    def renewed_ago_s(self, slot: int) -> float:
        """Return the seconds since the last write of a held slot that succeeded was sent."""
        return max(0.0, self._loop.time() - self._machine.slots[slot].confirmed_at)

    def has(self, slot: int, epoch: int) -> bool:
        """Return whether the router of a slot and epoch may speak at this moment."""
        return self._machine.has(slot, epoch, self._loop.time())

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Agree on the number of slots, and begin to take them.

        Raises `StartError` when the cluster has another number. When the store cannot be asked within `SHAPE_WAIT_S`,
        the process goes on, and takes no slot before it can.
        """
        until = self._loop.time() + SHAPE_WAIT_S
        while not self._agreed and self._loop.time() < until:
            if not await self._agree():
                await asyncio.sleep(TICK_S)
        if self._agreed:
            await self._look_for_leader()
        else:
            self._log_shape(f"the key-value store of the cluster cannot be used: {self._why}")
        self._looking = supervisor.current().every(LEADER_EVERY_S, self._look_for_leader, "leader of the store")
        self._agreeing = supervisor.current().every(SHAPE_EVERY_S, self._agree_later, "shape of the cluster")
        self._ticking = supervisor.current().every(TICK_S, self._tick, "leases", first_s=0.0)

    async def leave(self) -> None:
        """Release all slots, for `LEAVE_S` at most."""
        self._leaves = True
        self._run(self._machine.leave(self._loop.time(), clock.now_ms()))
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._is_gone.wait()
        except TimeoutError:
            _log.warning(f"slots were not released in time, others take them after {SILENCE_S:g} s", slots=self.held)

    async def finished(self) -> None:
        """Wait until the routers that had slots have sent what they accepted."""
        while self._ending:
            await asyncio.wait(set(self._ending))

    async def stop(self) -> None:
        """End what still runs."""
        for periodic in (self._ticking, self._agreeing, self._looking):
            if periodic is not None:
                periodic.cancel()
        for place in self._places:
            self._want(place, None)
        for place in self._places:
            if place.task is not None:
                await asyncio.wait([place.task])
        for task in set(self._ending):
            task.cancel()
        self._beats.close()
        await self._tasks.close()

    def epoch_seen(self, slot: int, epoch: int) -> None:
        """Note that a member of a slot knows a later epoch than that of the slot's router."""
        self._run(self._machine.epoch_seen(slot, epoch, self._loop.time(), clock.now_ms()))

    def cannot_serve(self, slot: int, epoch: int) -> None:
        """Release a slot whose router here no member reaches, so that another process takes it.

        This one takes none for `UNREACHED_S`, which doubles each time, up to `SPURNED_S`, and then tries again.
        """
        place, now = self._places[slot], self._loop.time()
        if place.wanted != epoch:
            return
        if now - place.barred_until > SPURNED_S:
            place.unreached = 0
        pause_s = min(SPURNED_S, UNREACHED_S * 2**place.unreached)
        place.unreached, place.barred_until = min(place.unreached + 1, 10), now + pause_s
        why = "no member can reach its router here"
        self._run(self._machine.release(slot, now, clock.now_ms(), why, barred_s=pause_s))

    # ── the shape of the cluster ─────────────────────────────────────────────────────────────────────────────────

    async def _agree(self) -> bool:
        """Return whether all processes have the same number of slots. Raises `StartError` if this one has another."""
        try:
            found = await self._store.read(SHAPE_KEY)
            shape = decode_shape(found.data)
            if shape is None:
                await self._store.compare_and_set(SHAPE_KEY, encode(Shape(self._slots)), found.revision)
                shape = Shape(self._slots)
        except (BucketUnavailable, RevisionConflict) as fault:
            self._why = str(fault)
            return False
        if shape.slots != self._slots:
            raise StartError(
                f"CLUSTER_SLOTS is {self._slots} here, and the other routers of this site have {shape.slots}, as the "
                f"key `{SHAPE_KEY}` of the bucket of leases says: expected the same number everywhere"
            )
        self._agreed, self._agreed_at = True, self._loop.time()
        return True

    async def _agree_later(self) -> None:
        """Ask again until there was a reply; afterwards see that the shape is still there, and fits.

        While it does not, this process has no slots: a stream would be in another slot for it than for others.
        """
        if self._leaves or (self._agreed and self._loop.time() - self._agreed_at < SHAPE_AGAIN_S):
            return
        try:
            is_known = await self._agree()
        except StartError as error:
            self._step_aside(str(error))
            return
        if not is_known and not self._agreed:
            self._log_shape(f"the key-value store of the cluster cannot be used: {self._why}")
        if is_known and self._differs and not self._leaves:
            self._differs = ""
            self._is_gone.clear()
            _log.info("this process takes slots again: the number of slots fits", slots=self._slots)
            self._run(self._machine.come_back(self._loop.time(), clock.now_ms()))

    def _step_aside(self, differs: str) -> None:
        """Release all slots, and take none while the shape is another one."""
        if self._leaves:
            return
        text = f"this process takes no slot while that lasts: {differs}"
        if differs == self._differs:
            self._log_shape(text)
            return
        self._differs, self._shape_logged_at = differs, self._loop.time()
        _log.error(text)
        now = self._loop.time()
        self._run(self._machine.leave(now, clock.now_ms(), "the other routers of the site have another CLUSTER_SLOTS"))

    def _log_shape(self, text: str) -> None:
        now = self._loop.time()
        if now - self._shape_logged_at >= LOG_EVERY_S:
            self._shape_logged_at = now
            _log.error(text)

    async def _look_for_leader(self) -> None:
        """Tell the machine whether the leader of the store is on this host; what is not known now stays as it was."""
        with contextlib.suppress(BucketUnavailable):
            self._machine.leader_seen(await self._store.is_led_here(), self._loop.time())

    # ── events and commands ──────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        if self._agreed:
            self._run(self._machine.tick(self._loop.time(), clock.now_ms()))

    def _on_beat(self, data: bytes) -> None:
        beat = decode_beat(data)
        if beat is not None:
            self._run(self._machine.heard(beat, self._loop.time(), clock.now_ms()))

    def _run(self, commands: list[Command]) -> None:
        """Run commands of the machine."""
        for command in commands:
            match command:
                case Read():
                    self._tasks.start(self._read(command), "reading a lease")
                case CompareAndSet():
                    self._tasks.start(self._write(command), "writing a lease")
                case StartRouter(slot, epoch):
                    self.counts.taken += 1
                    _log.info("slot taken", slot=slot, epoch=epoch)
                    self._want(self._places[slot], epoch)
                case StopRouter(slot, why, tell):
                    self.counts.lost += not tell
                    level = _log.info if tell else _log.warning
                    level("slot given up", slot=slot, why=why)
                    self._places[slot].tell = tell
                    self._want(self._places[slot], None)
                case SendBeat(beat):
                    self._beats.send(encode(self._described(beat)))
        if self._machine.gone:
            self._is_gone.set()

    def _described(self, beat: Beat) -> Beat:
        """Return a beat with what operators want to know of this process."""
        now = self._loop.time()
        up_s = round(max(0.0, now - self._began_at), 1)
        takes_none = beat.leaving or any(now < place.barred_until for place in self._places)
        return msgspec.structs.replace(beat, pid=os.getpid(), version=about.VERSION, up_s=up_s, leaving=takes_none)

    async def _read(self, command: Read) -> None:
        try:
            found = await self._store.read(f"slot.{command.slot}")
        except BucketUnavailable as fault:
            self._failed(command, fault)
            return
        known = Known(found.revision, decode_entry(found.data))
        if found.revision == 0 and self._machine.slots[command.slot].role is not Role.NONE:
            self._agreed_at = float("-inf")  # the store was lost, the shape too: it is written again at once
        self._run(
            self._machine.was_read(command.slot, command.request, known, self._loop.time(), clock.now_ms())
        )  # fmt: skip

    async def _write(self, command: CompareAndSet) -> None:
        slot, request = command.slot, command.request
        try:
            revision = await self._store.compare_and_set(f"slot.{slot}", encode(command.entry), command.expected)
        except RevisionConflict:
            self.counts.conflicts += 1
            self._run(self._machine.conflicted(slot, request, self._loop.time(), clock.now_ms()))
        except BucketUnavailable as fault:
            self._failed(command, fault)
        else:
            self._run(self._machine.written(slot, request, revision, self._loop.time(), clock.now_ms()))

    def _failed(self, command: Read | CompareAndSet, fault: BucketUnavailable) -> None:
        if self._machine.slots[command.slot].role is not Role.NONE:
            self._log_shape(f"the lease of slot {command.slot} cannot be renewed, it ends after 10 s: {fault}")
        self._run(self._machine.failed(command.slot, command.request, self._loop.time(), clock.now_ms()))

    # ── routers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _want(self, place: _Place, epoch: int | None) -> None:
        """Let the router of this epoch run, or none. The present one is silent from now on."""
        place.wanted = epoch
        if place.router is not None and place.epoch != epoch:
            place.router.silence()
        if place.task is None or place.task.done():
            place.task = self._loop.create_task(self._converge(place), name="router of a slot")

    async def _converge(self, place: _Place) -> None:
        """Stop and start routers until the wanted one runs."""
        slot = self._places.index(place)
        while place.epoch != place.wanted or place.tell:
            if place.router is not None:
                await self._end(place.router)
                place.router, place.epoch = None, None
            if place.wanted is not None:
                place.tell = False
                await self._begin(slot, place, place.wanted)
            elif place.tell:
                place.tell = False
                self._run(self._machine.stopped(slot, self._loop.time(), clock.now_ms()))

    async def _begin(self, slot: int, place: _Place, epoch: int) -> None:
        router = place.router = self._make_router(slot, epoch)
        place.epoch = epoch
        try:
            await router.start()
        except Exception as error:
            _log.error("the router of a slot cannot start", slot=slot, reason=str(error),
                       exc_info=None if isinstance(error, StartError) else error)  # fmt: skip
            await self._end(router)
            place.router, place.epoch = None, None
            if place.wanted == epoch:
                place.wanted = None
            self._run(self._machine.release(slot, self._loop.time(), clock.now_ms()))
            return
        if place.wanted != epoch:
            router.silence()

    async def _end(self, router: RunningRouter) -> None:
        """Stop a router, for `STOP_S` at most."""
        router.silence()
        try:
            async with asyncio.timeout(STOP_S):
                await router.save()
        except TimeoutError:
            _log.warning("the router of a slot did not write everything", after_s=STOP_S)
        except Exception as error:
            supervisor.current().failed("the end of a slot's router", error)
        task = self._tasks.start(self._finish(router), "end of a slot's router")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _finish(self, router: RunningRouter) -> None:
        """Let a router that has no slot any more send what it accepted to the webhook, and close it."""
        try:
            await router.drain()
        finally:
            await router.stop()
