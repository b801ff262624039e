"""The router process of a site of several machines: the slots that it has, over NATS. Wiring only."""

from __future__ import annotations

import asyncio
import secrets
import socket
import weakref
from typing import Final

from watchout.common import log, supervisor
from watchout.common.bus.key_value import ClusterLink
from watchout.common.bus.shared_mesh import SharedMesh
from watchout.common.bus.transport_choice import cluster_link, frame_mesh, router_transport
from watchout.common.process.process_name import wanted_name
from watchout.common.settings import Settings
from watchout.router.record_store import SlotRecords
from watchout.router.slot_router import SlotRouter
from watchout.router.slots.bucket_copies import CopiesKeeper
from watchout.router.slots.bucket_leaders import BucketLeaders
from watchout.router.slots.keeper import SlotKeeper
from watchout.router.slots.kv_records import KvRecords
from watchout.router.slots.kv_reservations import KvReservations
from watchout.router.slots.record_layout import RecordLayout
from watchout.router.slots.report import LeaseReport
from watchout.router.startup_hold import expected_of

#: Seconds between two writes of records that are written behind.
WRITE_EVERY_S: Final = 2.0
#: Seconds between two looks whether the store has lost records.
LOOK_EVERY_S: Final = 5.0
#: Seconds between two looks at the leaders and the copies of the buckets.
LEADERS_EVERY_S: Final = 10.0
#: Last part of the subject of beats.
BEATS: Final = "slots"

_log: Final = log.get("router.slots.cluster")


class ClusterRouter:
    """The slots of one process, from its start to its end; `router.app` creates it where `WATCHOUT_BUS` is set.

    Args:
        settings: The settings of the process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = socket.gethostname()
        self._name = wanted_name(settings, "router")
        self._me = secrets.token_hex(8)
        self._mesh = SharedMesh(frame_mesh(settings), settings.slots)
        self._link: ClusterLink | None = None
        self._keeper: SlotKeeper | None = None
        #: The records of the slots, from their router's start until they are closed.
        self._open_records: weakref.WeakSet[KvRecords] = weakref.WeakSet()
        #: The routers of the slots, from their start to their end.
        self._routers: weakref.WeakSet[SlotRouter] = weakref.WeakSet()
        self._looking: list[supervisor.Periodic] = []
        #: The epoch of this process's last router of the first slot.
        self._first_epoch = 0

    async def start(self) -> None:
        """Connect, and begin to take slots.

        Raises `StartError` when nats-py is missing, a file of ``BUS_*`` cannot be used, or the other routers of the
        site have another number of slots. NATS itself need not be there yet.
        """
        settings = self._settings
        link = self._link = cluster_link(settings)
        leases = link.bucket("slots")
        self._records = link.bucket("records")
        self._layout = RecordLayout(self._records, settings.slots, self._has_first)
        self._leaders = BucketLeaders(leases, self._records)
        self._copies = CopiesKeeper(leases, "leases"), CopiesKeeper(self._records, "records")
        self._keeper = SlotKeeper(
            me=self._me,
            name=self._name,
            host=self._host,
            slots=settings.slots,
            store=leases,
            open_beats=lambda on_beat: link.broadcast(BEATS, on_beat),
            make_router=self._make_router,
        )
        await self._keeper.start()
        self._looking = [
            supervisor.current().every(LOOK_EVERY_S, self._restore_lost, "records of the cluster"),
            supervisor.current().every(LEADERS_EVERY_S, self._look_at_buckets, "leaders and copies of the buckets"),
        ]
        _log.info("router takes part", cluster=settings.cluster_name, slots=settings.slots)

    async def drain(self) -> None:
        """Release all slots, so that others take them at once; then give the webhooks `DRAIN_S` for their alerts."""
        if self._keeper is not None:
            await self._keeper.leave()
            await self._keeper.finished()

    async def stop(self) -> None:
        """End the routers that still run, and the connection."""
        for looking in self._looking:
            await looking.close()
        if self._keeper is not None:
            await self._keeper.stop()
        if self._link is not None:
            self._link.close()

    def _make_router(self, slot: int, epoch: int) -> SlotRouter:
        """Return the router of a slot. A slot always may have had one: the store that would know may have been lost."""
        keeper = self._keeper
        assert keeper is not None

        def records(kind: str, what: str, every_s: float) -> KvRecords:
            made = KvRecords(self._records, kind, slot, epoch, what, every_s=every_s, settle=self._layout.settle)
            self._open_records.add(made)
            return made

        if slot == 0:
            self._first_epoch = epoch
        now = asyncio.get_running_loop().time()
        made = SlotRouter(
            self._settings,
            slot,
            epoch,
            True,
            SlotRecords(
                reservations=KvReservations(records("reservations", "reserved stream ids", WRITE_EVERY_S)),
                shares=records("shares", "shared streams", 0.0),
                escalations=records("escalations", "alerts that wait for their acknowledgement", WRITE_EVERY_S),
            ),
            router_transport(
                self._settings, slot, self._mesh.of(slot), on_denied=lambda: keeper.cannot_serve(slot, epoch)
            ),
            on_later_epoch=lambda later: keeper.epoch_seen(slot, later),
            has_lease=lambda: keeper.has(slot, epoch),
            lease=lambda: self._report(keeper, slot),
            slots=self._settings.slots,
            expected=expected_of(each.reporters(now) for each in self._routers),
        )
        self._routers.add(made)
        return made

    async def _restore_lost(self) -> None:
        for each in list(self._open_records):
            if not await each.restore_lost():
                return
        await self._layout.keep()

    def _has_first(self) -> bool:
        """Return whether this process has the lease of the first slot."""
        return self._keeper is not None and self._keeper.has(0, self._first_epoch)

    async def _look_at_buckets(self) -> None:
        """See to the leaders and the copies of both buckets, in the process of the site that has the first slot."""
        is_mine = self._keeper is not None and 0 in self._keeper.held
        for each in (*self._copies, self._leaders):
            if is_mine:
                await each.look()
            else:
                each.forget()

    def _report(self, keeper: SlotKeeper, slot: int) -> LeaseReport:
        ages = {each: keeper.renewed_ago_s(each) for each in keeper.held}
        return LeaseReport(
            slot=slot,
            process=self._me,
            name=self._name,
            host=self._host,
            age_s=ages.get(slot, 0.0),
            oldest_s=max(ages.values(), default=0.0),
            held=len(ages),
            taken=keeper.counts.taken,
            lost=keeper.counts.lost,
            conflicts=keeper.counts.conflicts,
        )
