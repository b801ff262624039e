"""The router process: creates its parts, joins them to the bus and the clock, and ends them. Wiring only."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from watchout.common import clock, log, supervisor
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.transport import OpenRouterTransport, RouterTransport
from watchout.common.bus.transport_choice import router_transport
from watchout.common.home import lock_home
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.process.command import process_command
from watchout.common.service import run
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.alerts.escalation_sender import EscalationSender
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay
from watchout.router.epoch import next_epoch
from watchout.router.handler import MessageHandler
from watchout.router.members import Members
from watchout.router.outbox import Outbox
from watchout.router.queries import QueryHandler
from watchout.router.reservation_file import ReservationFile
from watchout.router.reservation_sync import ReservationSync
from watchout.router.shares.handler import ShareHandler
from watchout.router.shares.table import Shares
from watchout.router.startup_hold import SYNC_GRACE_S, StartupHold
from watchout.router.streams.registry import Streams
from watchout.router.webhook.sender import WebhookSender

#: Seconds between two runs that drop what is too old.
PRUNE_EVERY_S: Final = 10.0
#: Seconds between two writes of changed reservations.
SAVE_EVERY_S: Final = 0.5
#: Seconds between two attempts to write changes of shares that are not written yet.
SHARES_EVERY_S: Final = 2.0
#: Seconds between two checks for alerts that nobody acknowledged in time.
ESCALATE_EVERY_S: Final = 1.0

_log: Final = log.get("router.app")


class Router:
    """The router of one `WATCHOUT_HOME`, from its start to its end; `common.service.run` creates and runs it.

    `transport` opens the bus; None: the transport that the settings select.
    """

    def __init__(self, settings: Settings, transport: OpenRouterTransport | None = None) -> None:
        self._settings = settings
        self._open_transport = transport or router_transport(settings)
        self._metrics = Metrics()
        self._webhook: WebhookSender | None = None
        self._reservations: ReservationSync | None = None
        self._shares: ShareHandler | None = None
        self._escalations: EscalationSender | None = None
        self._lock = -1
        self._bus: RouterTransport | None = None
        self._periodic: list[Periodic] = []

    async def start(self) -> None:
        """Take the lock of the home, open the bus and start the timers.

        Raises `StartError` when another router runs in this home, or the bus cannot be opened.
        """
        settings, loop = self._settings, asyncio.get_running_loop()
        self._lock = lock_home(settings.home)
        started_at, now_ms = loop.time(), clock.now_ms()
        epoch, had_former = next_epoch(settings.home, now_ms)
        self._members = Members(epoch)
        self._streams = Streams(
            epoch,
            max_streams=settings.max_streams,
            syncing=had_former,
            reserved_s=settings.stream_reserved_s,
            reserved_per_user=settings.stream_reserved_per_user,
            reserved_max=settings.stream_reserved_max,
        )
        file = ReservationFile(settings.home, failed=self._streams.change_all)
        self._reservations = ReservationSync(self._streams, file)
        self._reservations.restore(started_at, now_ms)
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
        if settings.alert_webhook_url is not None:
            self._webhook = WebhookSender(settings, self._metrics)
            await self._webhook.open()
            if settings.alert_escalate_s > 0:
                self._escalations = EscalationSender(
                    settings.home, settings.alert_escalate_severity, settings.alert_escalate_s, self._metrics,
                    self._webhook,
                )  # fmt: skip
                self._escalations.restore()
        elif settings.alert_escalate_s > 0:
            _log.warning(
                "ALERT_ESCALATE_S does nothing without ALERT_WEBHOOK_URL: nobody would get the escalated alerts"
            )
        outbox = Outbox(epoch, self._members)
        self._shares = shares = ShareHandler(
            settings.home,
            Shares(per_stream=settings.shares_per_stream, per_user=settings.shares_per_user, total=settings.shares_max),
            outbox,
        )
        shares.restore(now_ms)
        handler = MessageHandler(
            metrics=self._metrics,
            members=self._members,
            streams=self._streams,
            alerts=AlertDelivery(
                epoch=epoch,
                metrics=self._metrics,
                streams=self._streams,
                ids=self._alert_ids,
                recent=self._recent,
                log=self._alert_log,
                replay=AlertReplay(self._alert_log),
                outbox=outbox,
                webhook=self._webhook,
                escalations=None if self._escalations is None else self._escalations.escalations,
            ),
            shares=shares,
            pictures=self._pictures,
            hold=StartupHold(syncing=had_former),
            outbox=outbox,
            loop=loop,
            checked_at=started_at,
        )
        handler.alerts.restore_waiting(started_at)
        self._bus = self._open_transport(on_control=handler.on_control, on_frame=handler.on_frame)
        queries = QueryHandler(
            settings=settings,
            metrics=self._metrics,
            epoch=epoch,
            started_at=started_at,
            members=self._members,
            streams=self._streams,
            alerts=self._recent,
            shares=shares,
            pictures=self._pictures,
            reservations=file,
            bus=self._bus,
            webhook=self._webhook,
        )
        handler.attach(self._bus, queries)
        if had_former:
            loop.call_later(SYNC_GRACE_S, handler.end_startup)
        every = supervisor.current().every
        self._periodic = [
            every(HEARTBEAT_EVERY_S, handler.send_heartbeats, "beats"),
            every(HEARTBEAT_EVERY_S, handler.drop_silent_members, "silent members"),
            every(PRUNE_EVERY_S, self._prune, "pruning"),
            every(SAVE_EVERY_S, self._save_reservations, "saving of reservations"),
            every(SHARES_EVERY_S, shares.save, "saving of shares"),
        ]
        if self._escalations is not None:
            self._periodic.append(every(ESCALATE_EVERY_S, self._escalations.run, "escalation of alerts"))
        _log.info("router listens", home=str(settings.home), epoch=epoch)

    async def drain(self) -> None:
        """Give the webhook `DRAIN_S` for the alerts that wait for it. Members go on without a router."""
        if self._webhook is not None:
            await self._webhook.drain(self._settings.drain_s)

    async def stop(self) -> None:
        """Close the bus and the webhook, write the reservations and release the lock."""
        for periodic in self._periodic:
            periodic.cancel()
        if self._bus is not None:
            self._bus.close()
        if self._webhook is not None:
            await self._webhook.close()
        if self._reservations is not None:
            await self._reservations.close(asyncio.get_running_loop().time(), clock.now_ms())
        if self._shares is not None:
            await self._shares.close()
        if self._escalations is not None:
            await self._escalations.close()
        if self._lock >= 0:
            os.close(self._lock)

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


@process_command(
    "router", ("WATCHOUT_HOME", "ROUTER_LISTEN", "RECENT_ALERTS", "ALERT_WEBHOOK_URL", "LOG_LEVEL")
)  # fmt: skip
def main() -> None:
    """Join gateways and bridges: who publishes and watches what, and the way of frames and alerts between them.

    One for each WATCHOUT_HOME. It opens no port, unless ROUTER_LISTEN lets bridges of other machines in.
    """
    run("router", Router)
