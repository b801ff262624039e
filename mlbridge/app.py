"""The bridge's wiring: settings in, a `common.service.Process` out. Decides nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

import click

from watchout.common import log, metric_names, service
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import FromRouter, Hello, Message
from watchout.common.bus.transport import OpenMemberTransport
from watchout.common.bus.transport_choice import bridge_transport
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.command import process_command
from watchout.common.process.process_name import wanted_name
from watchout.common.settings import Settings
from watchout.mlbridge.alert_sender import AlertSender
from watchout.mlbridge.dispatcher import Dispatcher
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.scrubber import scrubber_of
from watchout.mlbridge.shown_frames import ShownFrames
from watchout.mlbridge.targets import Target, open_target

#: Part of a drain that is kept for alerts, after the requests under way had theirs.
ALERT_SHARE: Final = 0.25

_log = log.get("mlbridge.app")


class Bridge:
    """One mlbridge process. Without an ML service it joins the router, asks for no frames, and waits."""

    def __init__(self, settings: Settings, transport: OpenMemberTransport | None = None) -> None:
        self._settings = settings
        self._transport = transport
        self._metrics = Metrics()
        self._link: BusClient | None = None
        self._feed: Dispatcher | None = None
        self._outbox: AlertSender | None = None

    async def start(self) -> None:
        """Join the router, whenever it comes."""
        settings = self._settings
        target = open_target(settings)
        self._metrics.set(metric_names.ML_CONFIGURED, 0 if target is None else 1)
        self._link = link = BusClient(
            Hello(
                kind="mlbridge",
                name=_name(settings),
                pid=os.getpid(),
                release=about.version(),
                settings=about.told(settings),
                group=settings.ml_group,
                max_fps=None if target is None else settings.ml_fps,
                streams=settings.ml_streams,
            ),
            open_transport=self._transport or bridge_transport(settings),
            request_timeout_s=settings.router_timeout_s,
            snapshot=_nothing_held,
            metrics=self._read_figures,
            on_message=_pass_over,
            on_frame=None if target is None else self._frame_came,
            on_joined=self._joined,
            on_lost=self._lost,
        )
        if target is None:
            _log.info("mlbridge waits: ML_SERVICE_URL is not set")
        else:
            await self._open_feed(target, link)

    async def drain(self) -> None:
        """Take no more frames; let requests under way end, and their alerts reach the router."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.drain_s
        if self._feed is not None:
            await self._feed.close(self._settings.drain_s * (1 - ALERT_SHARE))
        if self._outbox is not None:
            await self._outbox.close(max(0.0, until - loop.time()))

    async def stop(self) -> None:
        """Close what is open."""
        if self._feed is not None:
            await self._feed.close(0)
        if self._outbox is not None:
            await self._outbox.close(0)
        if self._link is not None:
            await self._link.close()

    async def _open_feed(self, target: Target, link: BusClient) -> None:
        settings = self._settings
        scrub = scrubber_of(settings)
        ring = ShownFrames(max_bytes=settings.ml_ring_bytes, max_age_s=settings.ml_ring_s, clock=time.monotonic)
        self._outbox = outbox = AlertSender(
            link,
            metrics=self._metrics,
            cooldown_s=settings.alert_cooldown_s,
            max_age_s=settings.ml_max_age_s,
            ring=ring,
            scrub=scrub,
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
        feed = Dispatcher(
            targets,
            scheduler,
            metrics=self._metrics,
            said=outbox.said,
            refused=outbox.refused,
            report=link.send,
            max_age_s=settings.ml_max_age_s,
            sent=ring.sent,
            scrub=scrub,
        )
        await feed.open()
        self._feed = feed
        _log.info(
            "mlbridge serves an ML service",
            service=target.public_url,
            fallback=None if fallback is None else fallback.public_url,
            fps=settings.ml_fps,
        )

    def _frame_came(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed.frame_came(data)

    def _joined(self, new_epoch: bool) -> None:
        _log.info("joined the router", new_epoch=new_epoch)
        if self._outbox is not None:
            self._outbox.joined()

    def _lost(self) -> None:
        self._metrics.count(metric_names.ROUTER_LOST)
        _log.warning("the router is away; alerts wait for it")
        if self._outbox is not None:
            self._outbox.lost()

    def _read_figures(self) -> dict[str, float]:
        if self._feed is not None:
            self._feed.tell_figures()
        bad = self._feed.bad_messages if self._feed is not None else 0
        bad += self._link.bad_messages if self._link is not None else 0
        self._metrics.set(metric_names.BUS_BAD_MESSAGES, bad)
        return self._metrics.read()


async def _nothing_held() -> AsyncIterator[Message]:
    """A bridge holds nothing that the router has to be told after a greeting."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _pass_over(_: FromRouter) -> None:
    """The router tells a bridge nothing but answers and frames."""


def _name(settings: Settings) -> str:
    """What this process is called in figures and logs: of another machine's, with its host."""
    name = wanted_name(settings, "mlbridge")
    return name if settings.router_address is None else f"{name}@{socket.gethostname()}"[:255]


#: Options, and the settings that they go before.
OPTIONS: Final = {
    "streams": "ML_STREAMS",
    "fps": "ML_FPS",
    "group": "ML_GROUP",
    "router": "ROUTER_ADDRESS",
    "router_key": "ROUTER_PUBLIC_KEY",
    "key_file": "BRIDGE_KEY_FILE",
}


@process_command("mlbridge", ("ML_SERVICE_URL", "ML_FPS", "ML_STREAMS", "ML_GROUP", "WATCHOUT_HOME", "LOG_LEVEL"))
@click.option("--streams", metavar="PATTERNS", help="Only streams that match, such as 'cam-*,door-?' (ML_STREAMS).")
@click.option("--fps", metavar="N", help="Frames per second of each stream (ML_FPS).")
@click.option("--group", metavar="NAME", help="Bridges of one group share the streams (ML_GROUP).")
@click.option("--router", metavar="tcp://HOST:PORT", help="A router on another machine (ROUTER_ADDRESS).")
@click.option("--router-key", metavar="KEY", help="That router's public key (ROUTER_PUBLIC_KEY).")
@click.option("--key-file", metavar="FILE", help="This bridge's own key pair (BRIDGE_KEY_FILE).")
def main(**given: str | None) -> None:
    """Show the newest frames of the streams to an ML service, ML_SERVICE_URL, and bring back its alerts.

    All settings come from the environment; an option goes before the setting named with it.
    """
    options = {
        OPTIONS[name]: (f"--{name.replace('_', '-')}", value) for name, value in given.items() if value is not None
    }
    service.run("mlbridge", Bridge, options)
