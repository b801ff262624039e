"""The router of one slot: everything from its members and streams to its alerts, on one transport. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from watchout.common import clock, log, supervisor
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.transport import OpenRouterTransport, RouterTransport
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.process.process_name import wanted_name
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.common.tracing import tracer
from watchout.common.why.memory import memory_of
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.alerts.escalation_sender import EscalationSender
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay
from watchout.router.handler import MessageHandler
from watchout.router.incidents import RouterIncidents
from watchout.router.members import Members
from watchout.router.outbox import Outbox
from watchout.router.queries import QueryHandler
from watchout.router.record_store import SlotRecords
from watchout.router.reservation_sync import ReservationSync
from watchout.router.shares.handler import ShareHandler
from watchout.router.shares.table import Shares
from watchout.router.slots.report import LeaseSource
from watchout.router.startup_hold import SYNC_GRACE_S, Reporters, StartupHold
from watchout.router.streams.registry import Streams

if TYPE_CHECKING:  # loaded where a webhook is set
    from watchout.router.webhook.sender import WebhookSender

#: Seconds between two runs that drop what is too old.
PRUNE_EVERY_S: Final = 10.0
#: Seconds between two writes of changed reservations.
SAVE_EVERY_S: Final = 0.5
#: Seconds between two attempts to write changes of shares that are not written yet.
SHARES_EVERY_S: Final = 2.0
#: Seconds between two checks for alerts that nobody acknowledged in time.
ESCALATE_EVERY_S: Final = 1.0
#: Seconds after which the router opens the bus although its records are not loaded. They are added when they come; what
#: needs all of them is refused until then.
RECORDS_WAIT_S: Final = 0.1

_log: Final = log.get("router.slot_router")


class SlotRouter:
    """The router of one slot and one epoch, from its start to its end. The router's app creates it.

    Args:
        settings: The settings of the process.
        slot: The number of the slot, 0 where there is one.
        epoch: The epoch: above those of all routers that the slot had before.
        had_former: Whether the slot may have had a router before, whose members report their streams first.
        records: What survives the router; closed by it.
        open_transport: Opens the slot's end of the bus.
        on_later_epoch: Called when a member knows a later epoch than this one; None: there is one slot, and no later
            router can be.
        has_lease: Returns whether the router may still speak; None: always. Nothing is received or sent without it.
        lease: Returns what operators are told of the lease; None: there is none.
        slots: The number of slots, which members have to have too; 0: they are not asked.
        expected: The gateways and bridges that will report their streams, by `Hello.process`; none: they are not known.
            When all have reported the router decides what it is asked, otherwise after `startup_hold.SYNC_GRACE_S`.
    """

    def __init__(
        self,
        settings: Settings,
        slot: int,
        epoch: int,
        had_former: bool,
        records: SlotRecords,
        open_transport: OpenRouterTransport,
        *,
        on_later_epoch: Callable[[int], None] | None = None,
        has_lease: Callable[[], bool] | None = None,
        lease: LeaseSource | None = None,
        slots: int = 0,
        expected: Collection[str] = (),
    ) -> None:
        self.slot = slot
        self.epoch = epoch
        self._settings = settings
        self._had_former = had_former
        self._records = records
        self._open_transport = open_transport
        self._on_later_epoch = on_later_epoch
        self._has_lease = has_lease
        self._lease = lease
        self._slots = slots
        self._expected = expected
        self._is_silent = False
        self._is_saved = False
        self._outbox: Outbox | None = None
        self._handler: MessageHandler | None = None
        self._metrics = Metrics()
        self._webhook: WebhookSender | None = None
        self._reservations: ReservationSync | None = None
        self._shares: ShareHandler | None = None
        self._escalations: EscalationSender | None = None
        self._bus: RouterTransport | None = None
        self._periodic: list[Periodic] = []
        self._tasks = Tasks()

    async def start(self) -> None:
        """Load the records, open the bus and start the timers. Raises `StartError` when the bus cannot be opened."""
        settings, epoch, loop = self._settings, self.epoch, asyncio.get_running_loop()
        started_at, now_ms = loop.time(), clock.now_ms()
        members = Members(epoch)
        outbox = self._outbox = Outbox(epoch, members, self._has_lease)
        self._streams = streams = Streams(
            epoch,
            max_streams=settings.max_streams,
            syncing=self._had_former,
            reserved_s=settings.stream_reserved_s,
            reserved_per_user=settings.stream_reserved_per_user,
            reserved_max=settings.stream_reserved_max,
        )
        self._reservations = ReservationSync(streams, self._records.reservations)
        self._shares = shares = ShareHandler(
            self._records.shares,
            Shares(per_stream=settings.shares_per_stream, per_user=settings.shares_per_user, total=settings.shares_max),
            outbox,
        )
        await self._open_webhook()
        late = await self._restore(started_at, now_ms)
        if self._is_silent:
            return
        self._recent = RecentAlerts(
            limit=settings.recent_alerts,
            minutes=settings.recent_alerts_minutes,
            max_bytes=settings.recent_alert_bytes,
            started_ms=max(now_ms, epoch),  # the epoch is the latest start of a router here, if clocks were set back
        )
        self._recent.completeness.observe(*clock.both())
        self._alert_ids, self._alert_log = AlertIds(), AlertLog()
        self._pictures: HeldFrames[bytes] = HeldFrames(
            settings.alert_picture_bytes, max_age_s=settings.recent_alerts_minutes * 60
        )
        memory = memory_of(settings)
        handler = self._handler = MessageHandler(
            metrics=self._metrics,
            members=members,
            streams=streams,
            alerts=AlertDelivery(
                epoch=epoch,
                metrics=self._metrics,
                streams=streams,
                ids=self._alert_ids,
                recent=self._recent,
                log=self._alert_log,
                replay=AlertReplay(self._alert_log),
                outbox=outbox,
                webhook=self._webhook,
                memory=memory,
                monotonic_s=loop.time,
                escalations=None if self._escalations is None else self._escalations.escalations,
                tracer=tracer.active(),
            ),
            shares=shares,
            pictures=self._pictures,
            hold=StartupHold(syncing=self._had_former, expected=self._expected),
            outbox=outbox,
            incidents=RouterIncidents(
                memory=memory,
                members=members,
                streams=streams,
                alerts=self._recent,
                name=wanted_name(settings, "router"),
                process="" if self._lease is None else f"{self._lease().process}/{self.slot}",
                started_ms=now_ms,
            ),
            loop=loop,
            checked_at=started_at,
            on_later_epoch=self._on_later_epoch,
            has_lease=self._has_lease,
            slots=self._slots,
        )
        self._bus = self._open_transport(on_control=handler.on_control, on_frame=handler.on_frame)
        queries = QueryHandler(
            settings=settings,
            metrics=self._metrics,
            epoch=epoch,
            started_at=started_at,
            members=members,
            streams=streams,
            alerts=self._recent,
            shares=shares,
            pictures=self._pictures,
            reservations=self._records.reservations,
            bus=self._bus,
            webhook=self._webhook,
            lease=self._lease,
        )
        handler.attach(self._bus, queries)
        if self._had_former:
            handler.begin_startup()
            outbox.ask_all_to_join()
        if late:
            self._tasks.start(self._await_records(late, handler), "late records")
        else:
            handler.records_loaded()
        self._start_timers(handler, shares)

    async def drain(self) -> None:
        """Give the webhook `DRAIN_S` for the alerts that wait for it. Members go on without a router."""
        if self._webhook is not None:
            await self._webhook.drain(self._settings.drain_s)

    def silence(self) -> None:
        """Send and receive nothing more, at once: another router may have the slot. `stop` does the rest."""
        self._is_silent = True
        for periodic in self._periodic:
            periodic.cancel()
        if self._handler is not None:
            self._handler.close()
        if self._outbox is not None:
            self._outbox.close()
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    async def stop(self) -> None:
        """Close the bus and the webhook, and write the records."""
        self.silence()
        await self._tasks.close()
        if self._webhook is not None:
            await self._webhook.close()
        await self.save()

    async def save(self) -> None:
        """Write the records and close them: the next router of the slot finds them. Further calls do nothing."""
        if self._is_saved:
            return
        self._is_saved = True
        await self._tasks.close()
        if self._reservations is not None:
            await self._reservations.close(asyncio.get_running_loop().time(), clock.now_ms())
        if self._shares is not None:
            await self._shares.close()
        if self._escalations is not None:
            await self._escalations.close()

    async def _open_webhook(self) -> None:
        """Open what sends alerts to the webhook and escalates them, where it is set."""
        settings = self._settings
        if settings.alert_webhook_url is None:
            return
        from watchout.router.webhook.sender import WebhookSender

        self._webhook = WebhookSender(settings, self._metrics)
        await self._webhook.open()
        if settings.alert_escalate_s > 0:
            self._escalations = EscalationSender(
                self._records.escalations, settings.alert_escalate_severity, settings.alert_escalate_s, self._metrics,
                self._webhook,
            )  # fmt: skip

    async def _restore(self, now: float, now_ms: int) -> set[asyncio.Task[None]]:
        """Begin to load the records, wait for `RECORDS_WAIT_S` at most, and return what loads those that are late.

        Args:
            now: The monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.
        """
        assert self._reservations is not None
        assert self._shares is not None
        loads = [
            self._tasks.start(self._reservations.restore(now, now_ms), "reservations"),
            self._tasks.start(self._shares.restore(now_ms), "shares"),
        ]
        if self._escalations is not None:
            loads.append(self._tasks.start(self._escalations.restore(), "escalations"))
        done, late = await asyncio.wait(loads, timeout=RECORDS_WAIT_S)
        for load in done:
            load.result()
        return late

    async def _await_records(self, loads: set[asyncio.Task[None]], handler: MessageHandler) -> None:
        """Add late records when they come. The hold of the start does not wait for them beyond `SYNC_GRACE_S`."""
        _, late = await asyncio.wait(loads, timeout=SYNC_GRACE_S - RECORDS_WAIT_S)
        if late:
            _log.warning(
                "stored records cannot be read now, the router starts without them and adds them when they come",
                slot=self.slot, what=", ".join(sorted(load.get_name() for load in late)),
            )  # fmt: skip
            await asyncio.wait(late)
        if not any(load.cancelled() or load.exception() for load in loads):
            handler.records_loaded()

    def reporters(self, now: float) -> Reporters:
        """Return the gateways and bridges that report to a new router of another slot too, as far as this one knows.

        Args:
            now: The monotonic clock, in seconds.
        """
        handler = self._handler
        return Reporters() if handler is None or self._is_silent else handler.members.reporters(now)

    def _start_timers(self, handler: MessageHandler, shares: ShareHandler) -> None:
        every, pulse = supervisor.current().every, supervisor.current().pulse

        def beat() -> None:
            handler.send_heartbeats()
            pulse()  # what else is due is done now

        self._periodic = [
            every(HEARTBEAT_EVERY_S, beat, "beats"),
            every(HEARTBEAT_EVERY_S, handler.drop_silent_members, "silent members"),
            every(PRUNE_EVERY_S, self._prune, "pruning"),
            every(SAVE_EVERY_S, self._save_reservations, "saving of reservations"),
            every(SHARES_EVERY_S, shares.save, "saving of shares"),
        ]
        if self._escalations is not None:
            self._periodic.append(every(ESCALATE_EVERY_S, self._escalations.run, "escalation of alerts"))

    def _prune(self) -> None:
        """Drop what is too old, everywhere."""
        now = asyncio.get_running_loop().time()
        self._streams.prune(now)
        self._recent.completeness.observe(*clock.both())
        self._recent.prune(clock.now_ms())
        self._alert_ids.prune(now)
        self._alert_log.prune(now)
        self._pictures.prune(now)
        if self._shares is not None:
            self._shares.prune(clock.now_ms())

    def _save_reservations(self) -> None:
        if self._reservations is not None:
            self._reservations.save(asyncio.get_running_loop().time(), clock.now_ms())
