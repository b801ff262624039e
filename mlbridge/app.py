"""The mlbridge process: builds the parts from the settings, starts and drains them. Wiring only."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from watchout.common import log, metric_names, service
from watchout.common.alerts.unconfirmed import FENCED_KEEP_S, KEEP_S
from watchout.common.bus.mesh import MemberCarrier
from watchout.common.bus.messages import (
    AskWhy,
    BadFrame,
    CoverageReport,
    FromRouter,
    Hello,
    Message,
    WhyAnswered,
)
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.transport_choice import bridge_carrier
from watchout.common.latency.ledger import LatencyLedger
from watchout.common.latency.reporter import LatencyReporter, objectives_of
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.command import GivenOptions, SettingOption, process_command
from watchout.common.process.process_name import member_name
from watchout.common.settings import Settings
from watchout.mlbridge.alert_sender import AlertSender
from watchout.mlbridge.dispatcher import Dispatcher
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.incidents import BridgeIncidents
from watchout.mlbridge.latency import BridgeLatency
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.scrubber import scrubber_of
from watchout.mlbridge.shown_frames import ShownFrames
from watchout.mlbridge.targets import Target, open_target

#: Share of the drain time for sending alerts, after the requests in flight had theirs.
ALERT_SHARE: Final = 0.25

_log = log.get("mlbridge.app")


class Bridge:
    """One mlbridge process. Run by `watchout.common.service`.

    Without ``ML_SERVICE_URL`` it joins the router, requests no frames, and waits.

    Args:
        settings: the settings of the process.
        carrier: what carries the messages to the router and from gateways; None: the one that the settings select.
    """

    def __init__(self, settings: Settings, carrier: MemberCarrier | None = None) -> None:
        self._settings = settings
        self._carrier = carrier
        self._metrics = Metrics()
        self._incidents = BridgeIncidents(settings, member_name(settings, "mlbridge"))
        self._links: RouterLinks | None = None
        self._dispatcher: Dispatcher | None = None
        self._alert_sender: AlertSender | None = None
        self._latency_reporter: LatencyReporter | None = None

    async def start(self) -> None:
        """Open the targets and start to connect to the router. Raises `StartError` for unusable settings."""
        settings = self._settings
        target = open_target(settings)
        self._metrics.set(metric_names.ML_CONFIGURED, 0 if target is None else 1)
        carrier = self._carrier or bridge_carrier(settings)
        self._links = links = RouterLinks(
            Hello(
                kind="mlbridge",
                name=member_name(settings, "mlbridge"),
                pid=os.getpid(),
                release=about.VERSION,
                settings=about.reported_settings(settings),
                group=settings.ml_group,
                max_fps=None if target is None else settings.ml_fps,
                streams=settings.ml_streams,
                host=socket.gethostname() if settings.bus else "",
            ),
            carrier=carrier,
            request_timeout_s=settings.router_timeout_s,
            snapshot=_no_snapshot,
            metrics=self._read_metrics,
            on_message=self._on_message,
            on_frame=None if target is None else self._on_frame,
            on_joined=self._on_joined,
            on_lost=self._on_lost,
        )
        links.open()
        if target is None:
            _log.info("mlbridge waits: ML_SERVICE_URL is not set")
        else:
            await self._open_dispatcher(target, links)

    async def missing(self) -> str | None:
        """Return whether the router is missing. An ML service that is away is no reason: the bridge waits for it."""
        return None if self._links is not None and self._links.live else "the router is unreachable"

    async def drain(self) -> None:
        """Ignore further frames, and wait for requests in flight and for alerts to be sent, within ``DRAIN_S``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.drain_s
        if self._dispatcher is not None:
            await self._dispatcher.close(self._settings.drain_s * (1 - ALERT_SHARE))
        if self._alert_sender is not None:
            await self._alert_sender.close(max(0.0, until - loop.time()))

    def hurry(self) -> None:
        """Wait for requests and alerts as before: nobody goes elsewhere."""

    def prepare_reload(self, new: Settings) -> Callable[[], None]:  # noqa: ARG002 - of these settings all are read anew
        """Return what takes new settings up: nothing more is to be done."""
        return lambda: None

    async def stop(self) -> None:
        """Close all connections."""
        if self._dispatcher is not None:
            await self._dispatcher.close(0)
        if self._alert_sender is not None:
            await self._alert_sender.close(0)
        if self._latency_reporter is not None:
            self._latency_reporter.stop()
        if self._links is not None:
            await self._links.close()

    async def _open_dispatcher(self, target: Target, links: RouterLinks) -> None:
        settings = self._settings
        scrub = scrubber_of(settings)
        latency = BridgeLatency(LatencyLedger(objectives_of(settings)), lambda stream: links.of(stream).clock)
        self._latency_reporter = LatencyReporter(links, latency.ledger)
        self._latency_reporter.start()
        frames = ShownFrames(max_bytes=settings.ml_ring_bytes, max_age_s=settings.ml_ring_s, clock=time.monotonic)
        self._alert_sender = alert_sender = AlertSender(
            links.all(),
            metrics=self._metrics,
            cooldown_s=settings.alert_cooldown_s,
            max_age_s=settings.ml_max_age_s,
            frames=frames,
            scrub=scrub,
            keep_s=FENCED_KEEP_S if links.fenced else KEEP_S,
            latency=latency,
            incidents=self._incidents,
        )
        targets = [target]
        fallback = None if settings.ml_fallback_url is None else open_target(settings, settings.ml_fallback_url)
        if fallback is not None:
            targets.append(fallback)
        scheduler = Scheduler[Frame](
            Failover(len(targets), settings.ml_in_flight, chance=random.random),
            max_fps=settings.ml_fps,
            max_age_s=settings.ml_max_age_s,
            timeout_s=settings.ml_timeout_s,
            max_streams=settings.max_streams,
        )
        dispatcher = Dispatcher(
            targets,
            scheduler,
            metrics=self._metrics,
            on_alerts=alert_sender.on_alerts,
            on_refused=alert_sender.on_refused,
            report=self._report,
            max_age_s=settings.ml_max_age_s,
            on_sent=frames.add,
            scrub=scrub,
            latency=latency,
            incidents=self._incidents,
        )
        await dispatcher.open()
        self._dispatcher = dispatcher
        _log.info(
            "mlbridge serves an ML service",
            service=target.public_url,
            fallback=None if fallback is None else fallback.public_url,
            fps=settings.ml_fps,
        )

    def _on_frame(self, data: bytes | memoryview) -> None:
        if self._dispatcher is not None:
            self._dispatcher.on_frame(data)

    def _on_message(self, slot: int, body: FromRouter) -> None:
        """Answer a question of `watchout-ctl why`; bridges receive no other unsolicited messages."""
        links = self._links
        if isinstance(body, AskWhy) and links is not None:
            answer = self._incidents.answer(body.about, asyncio.get_running_loop().time(), links.own_id)
            links.at(slot).send(WhyAnswered(request=body.request, body=answer))

    def _report(self, body: BadFrame | CoverageReport) -> bool:
        """Send a report to the router that it is for; return whether that is there, or any of several."""
        links = self._links
        assert links is not None
        if isinstance(body, BadFrame):
            return links.of(body.stream).send(body)
        sent = False
        for link in links.all():
            own = links.streams_of(link.slot)
            part = body if own is None else CoverageReport(rows=[row for row in body.rows if own(row[0])])
            sent = link.send(part) or sent
        return sent

    def _on_joined(self, slot: int, new_epoch: bool) -> None:
        assert self._links is not None
        if self._latency_reporter is not None:
            self._latency_reporter.tell_all()
        _log.info("joined the router", new_epoch=new_epoch, **self._links.where(slot))
        if self._alert_sender is not None:
            self._alert_sender.on_joined(slot)

    def _on_lost(self, slot: int) -> None:
        assert self._links is not None
        self._metrics.count(metric_names.ROUTER_LOST)
        _log.warning("the router is away; alerts wait for it", **self._links.where(slot))
        if self._alert_sender is not None:
            self._alert_sender.on_lost(slot)

    def _read_metrics(self) -> dict[str, float]:
        if self._dispatcher is not None:
            self._dispatcher.update_metrics()
        bad = self._dispatcher.bad_messages if self._dispatcher is not None else 0
        bad += self._links.bad_messages if self._links is not None else 0
        self._metrics.set(metric_names.BUS_BAD_MESSAGES, bad)
        self._metrics.values.update({} if self._links is None else self._links.mesh_figures())
        return self._metrics.read()


async def _no_snapshot(_slot: int = 0) -> AsyncIterator[Message]:
    """Yield nothing: a bridge has no state that the router needs after it joined."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


OPTIONS: Final = (
    SettingOption("--streams", "PATTERNS", "ML_STREAMS", "Only streams that match, such as 'cam-*,door-?'"),
    SettingOption("--fps", "N", "ML_FPS", "Frames per second of each stream"),
    SettingOption("--group", "NAME", "ML_GROUP", "Bridges of one group share the streams"),
    SettingOption("--router", "tcp://HOST:PORT", "ROUTER_ADDRESS", "A router on another machine"),
    SettingOption("--router-key", "KEY", "ROUTER_PUBLIC_KEY", "That router's public key"),
    SettingOption("--key-file", "FILE", "BRIDGE_KEY_FILE", "This bridge's own key pair"),
)


@process_command(
    "mlbridge", ("ML_SERVICE_URL", "ML_FPS", "ML_STREAMS", "ML_GROUP", "WATCHOUT_HOME", "LOG_LEVEL"), OPTIONS
)
def main(given: GivenOptions) -> None:
    """Send the newest frames of the streams to an ML service, ML_SERVICE_URL, and its alerts to the router.

    All settings come from the environment; an option overrides the setting that is named with it.
    """
    service.run("mlbridge", Bridge, given)
