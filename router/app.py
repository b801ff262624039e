"""The router process: the router of the one slot, under the next epoch of its home, or a part of a cluster. Wiring."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchout.common import clock, log
from watchout.common.bus.transport import OpenRouterTransport
from watchout.common.bus.transport_choice import router_transport
from watchout.common.home import lock_home
from watchout.common.home_files import ESCALATIONS_FILE, SHARES_FILE
from watchout.common.process.command import GivenOptions, process_command
from watchout.common.service import run
from watchout.common.settings import Settings
from watchout.router.epoch import next_epoch
from watchout.router.record_file import RecordFile
from watchout.router.record_store import SlotRecords
from watchout.router.reservation_file import ReservationFile
from watchout.router.slot_router import SlotRouter

if TYPE_CHECKING:
    from watchout.router.slots.cluster import ClusterRouter

_log: Final = log.get("router.app")


class Router:
    """The router of one `WATCHOUT_HOME`, or with `WATCHOUT_BUS` one of several, from its start to its end.

    `common.service.run` creates and runs it. `transport` opens the bus; None: the transport that the settings select.
    """

    def __init__(self, settings: Settings, transport: OpenRouterTransport | None = None) -> None:
        self._settings = settings
        self._open_transport = transport or router_transport(settings)
        self._router: SlotRouter | ClusterRouter | None = None
        self._lock = -1

    async def start(self) -> None:
        """Take the lock of the home and start the router; with `WATCHOUT_BUS` there may be several in a home.

        Raises `StartError` when another router runs in this home, or the bus cannot be opened.
        """
        settings = self._settings
        if settings.alert_escalate_s > 0 and settings.alert_webhook_url is None:
            _log.warning(
                "ALERT_ESCALATE_S does nothing without ALERT_WEBHOOK_URL: nobody would get the escalated alerts"
            )
        if settings.bus:
            from watchout.router.slots.cluster import ClusterRouter

            self._router = ClusterRouter(settings)
            await self._router.start()
            return
        self._lock = lock_home(settings.home)
        epoch, had_former = next_epoch(settings.home, clock.now_ms())
        records = home_records(settings.home)
        self._router = SlotRouter(settings, 0, epoch, had_former, records, self._open_transport)
        await self._router.start()
        _log.info("router listens", home=str(settings.home), epoch=epoch)

    async def missing(self) -> str | None:
        """Return None: once it has started, a router serves whoever joins."""
        return None

    async def drain(self) -> None:
        """Give the webhook `DRAIN_S` for the alerts that wait for it. Members go on without a router."""
        if self._router is not None:
            await self._router.drain()

    def hurry(self) -> None:
        """Wait for the webhook as before: members need nothing to go elsewhere."""

    def prepare_reload(self, new: Settings) -> Callable[[], None]:  # noqa: ARG002 - of these settings all are read anew
        """Return what takes new settings up: nothing more is to be done."""
        return lambda: None

    async def stop(self) -> None:
        """End the router and release the lock."""
        if self._router is not None:
            await self._router.stop()
        if self._lock >= 0:
            os.close(self._lock)


def home_records(home: Path) -> SlotRecords:
    """Return what a router keeps in the files of its home.

    Args:
        home: `WATCHOUT_HOME`.
    """
    return SlotRecords(
        reservations=ReservationFile(home),
        shares=RecordFile(home / SHARES_FILE, "shared streams"),
        escalations=RecordFile(home / ESCALATIONS_FILE, "alerts that wait for their acknowledgement"),
    )


@process_command(
    "router", ("WATCHOUT_HOME", "ROUTER_LISTEN", "RECENT_ALERTS", "ALERT_WEBHOOK_URL", "LOG_LEVEL")
)  # fmt: skip
def main(given: GivenOptions) -> None:
    """Join gateways and bridges: who publishes and watches what, and the way of frames and alerts between them.

    One for each WATCHOUT_HOME; with WATCHOUT_BUS any number for the site, of which spare ones wait. It opens no port,
    unless ROUTER_LISTEN lets bridges of other machines in.
    """
    run("router", Router, given)
