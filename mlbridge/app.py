"""The bridge's wiring: settings in, a `common.service.Process` out. Decides nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Final

from common import log, service
from common.frames import Frame
from common.link import Link
from common.messages import FromRouter, Hello, Message
from common.metrics import Figures
from common.settings import Settings
from mlbridge.feed import Feed
from mlbridge.outbox import Outbox
from mlbridge.scheduler import Scheduler
from mlbridge.targets import Target, open_target

#: Part of a drain that is kept for alerts, after the requests under way had theirs.
ALERT_SHARE: Final = 0.25

_log = log.get("mlbridge.app")


class Bridge:
    """One mlbridge process. Without an ML service it joins the router, asks for no frames, and waits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._figures = Figures()
        self._link: Link | None = None
        self._feed: Feed | None = None
        self._outbox: Outbox | None = None

    async def start(self) -> None:
        """Join the router, whenever it comes."""
        settings = self._settings
        target = open_target(settings)
        self._figures.set("ml_configured", 0 if target is None else 1)
        self._link = link = Link(
            Hello(
                kind="mlbridge",
                name=os.environ.get("HONCHO_PROCESS_NAME") or "mlbridge",
                pid=os.getpid(),
                group=settings.ml_group,
                max_fps=None if target is None else settings.ml_fps,
            ),
            home=settings.home,
            max_message_bytes=settings.max_message_bytes,
            request_timeout_s=settings.router_timeout_s,
            snapshot=_nothing_held,
            figures=self._read_figures,
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

    async def _open_feed(self, target: Target, link: Link) -> None:
        settings = self._settings
        self._outbox = outbox = Outbox(link, figures=self._figures)
        scheduler = Scheduler[Frame](
            max_fps=settings.ml_fps,
            in_flight=settings.ml_in_flight,
            timeout_s=settings.ml_timeout_s,
            max_streams=settings.max_streams,
        )
        feed = Feed(
            target,
            scheduler,
            figures=self._figures,
            said=outbox.said,
            refused=outbox.refused,
            report=link.send,
        )
        await feed.open()
        self._feed = feed
        _log.info("mlbridge serves an ML service", service=target.shown_as, fps=settings.ml_fps)

    def _frame_came(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed.frame_came(data)

    def _joined(self, new_epoch: bool) -> None:
        _log.info("joined the router", new_epoch=new_epoch)

    def _lost(self) -> None:
        self._figures.count("router_lost_total")
        _log.warning("the router is away; alerts wait for it")

    def _read_figures(self) -> dict[str, float]:
        bad = self._feed.bad_messages if self._feed is not None else 0
        bad += self._link.bad_messages if self._link is not None else 0
        self._figures.set("bus_bad_messages_total", bad)
        return self._figures.read()


async def _nothing_held() -> AsyncIterator[Message]:
    """A bridge holds nothing that the router has to be told after a greeting."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _pass_over(_: FromRouter) -> None:
    """The router tells a bridge nothing but answers and frames."""


def main() -> None:
    """Run the bridge."""
    service.run("mlbridge", Bridge)
