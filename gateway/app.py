"""The gateway process: builds the rooms, opens the port, lets clients go. Wiring only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Final

from aiohttp import web

from watchout.common import log, supervisor
from watchout.common.clock import now_ms
from watchout.common.metrics import Metrics
from watchout.common.process import descriptors, memory
from watchout.common.process.command import process_command
from watchout.common.service import Tasks, run
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.gateway.authorization import Authorization
from watchout.gateway.context import Context
from watchout.gateway.http.app import JsonRequestHandler, make_app
from watchout.gateway.hub.registry import Hub
from watchout.gateway.listen.dispatch import MAX_COOKIE_BYTES, HttpConnection, Listener, open_sockets
from watchout.gateway.listen.tls import LOOK_EVERY_S as LOOK_AT_CERTIFICATE_S
from watchout.gateway.listen.tls import Certificate
from watchout.gateway.presence import Presence
from watchout.gateway.quotas import AlertRates, Connections
from watchout.gateway.revalidation import Revalidation
from watchout.gateway.router_client import RouterClient
from watchout.gateway.stream_ids import StreamIds
from watchout.gateway.stream_key import stream_key
from watchout.identity import make_authenticator

TICK_S: Final = 1.0
#: Sockets are swept for silence this often.
SWEEP_EVERY_S: Final = 5.0
#: Memory is given back so often, in seconds, when so many connections are gone that it is worth it.
GIVE_BACK_EVERY_S: Final = 5.0
WORTH_GIVING_BACK: Final = 20
#: HTTP requests that are not answered by then are cut off when the gateway ends.
HTTP_SHUTDOWN_S: Final = 0.2
#: It is looked this often whether they are gone.
LOOK_EVERY_S: Final = 0.01
#: An HTTP connection without a request is closed after this.
KEEPALIVE_S: Final = 30.0
#: A body that nobody wants is read, unheard, for so long, so that the kernel does not take the answer back.
LINGER_S: Final = 1.0

_log = log.get("gateway")


class Gateway:
    """One gateway process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        metrics = Metrics()
        self._tasks = Tasks()
        self._link = RouterClient(settings, metrics, sockets=lambda: self._context.connections.joined_total)
        hub = Hub(
            woken=self._link.woken,
            to_bus=self._link.frame_to_bus,
            unlimited_fps=settings.demand_fps,
            newest_bytes=settings.newest_frame_bytes,
            gone_kept_s=settings.stream_reserved_s,
            gone_per_user=settings.stream_reserved_per_user,
        )
        self._context = Context(
            settings,
            metrics,
            self._tasks,
            make_authenticator(settings),
            Authorization(settings),
            Presence(),
            Connections(settings, descriptors.raise_limit()),
            hub,
            self._link,
            StreamIds(stream_key(settings.home)),
            AlertRates(settings.alert_rate),
            AlertRates(settings.service_alert_rate),
        )
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None
        self._port_lock = -1
        self._linked = False
        self._periodic: list[Periodic] = []
        self._lasting: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the port, the store and the bond; none of the others has to be there."""
        loop = asyncio.get_running_loop()
        settings, context = self._settings, self._context
        certificate = Certificate.of(settings)
        self._sockets, self._port_lock = open_sockets(settings.host, settings.port, settings.home)
        await context.authenticator.open()
        self._link.start(context.hub)
        self._linked = True
        self._runner = web.AppRunner(
            make_app(context), access_log=None, handle_signals=False, shutdown_timeout=HTTP_SHUTDOWN_S
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None

        def make_http() -> HttpConnection:
            handler = JsonRequestHandler(
                server, loop=loop, keepalive_timeout=KEEPALIVE_S,
                lingering_time=LINGER_S,
                max_field_size=MAX_COOKIE_BYTES,  # `check_fields` bounds all others
                auto_decompress=False,  # nobody sends compressed bodies but who means harm
            )  # fmt: skip
            handler.access_logger = None  # nor is there an access log: a query may hold a token
            return handler

        for listening in self._sockets:
            self._servers.append(
                await loop.create_server(lambda: Listener(context, make_http, certificate), sock=listening)
            )
        revalidation = Revalidation(settings, context.metrics, context.presence, context.authenticator)
        self._periodic = [*self._begin_periodic(certificate), *revalidation.begin()]
        self._lasting = [supervisor.current().keep(revalidation.watch_changes, "changed sessions")]
        channel = settings.revocation_channel
        if channel is not None:
            self._lasting.append(
                supervisor.current().keep(
                    lambda: context.authenticator.listen(channel, revalidation.changed), "listen for revocations"
                )
            )
        if context.connections.most < settings.max_connections:
            _log.warning(
                "few file descriptors: raise the limit (ulimit -n, LimitNOFILE) or lower MAX_CONNECTIONS",
                connections=context.connections.most,
                wanted=settings.max_connections,
            )
        _log.info("gateway listens", port=settings.port, host=settings.host or "all addresses")

    async def drain(self) -> None:
        """Take no more clients, tell those that are here to come back, wait until they went."""
        self._context.draining = self._link.ending = True
        for server in self._servers:
            server.close()
        for websocket in list(self._context.sockets):
            websocket.end()
        for moving_picture in list(self._context.moving_pictures):
            moving_picture.end()
        if not self._context.sockets:
            self._context.all_gone.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self._context.all_gone.wait()
        for websocket in list(self._context.sockets):
            websocket.abort()
        if self._runner is not None:
            await _let_http_go(self._runner.server)

    async def stop(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        if not self._servers:
            for listening in self._sockets:
                listening.close()
        if self._runner is not None:
            await _let_http_go(self._runner.server)  # nothing is left, unless it was not drained
            await self._runner.cleanup()
        if self._linked:
            await self._link.close()
        for lasting in self._lasting:
            lasting.cancel()
        await asyncio.gather(*(periodic.close() for periodic in self._periodic))
        await self._context.authenticator.close()  # its thread would keep the process
        await self._tasks.close()
        await asyncio.gather(*self._lasting, return_exceptions=True)
        if self._port_lock >= 0:
            os.close(self._port_lock)

    def _begin_periodic(self, certificate: Certificate | None) -> list[Periodic]:
        every, loop, hub = supervisor.current().every, asyncio.get_running_loop(), self._context.hub
        begun = [
            every(TICK_S, lambda: hub.tick(loop.time(), now_ms()), "states of streams"),
            every(TICK_S, lambda: hub.tell_demand(loop.time(), now_ms()), "demand"),
            every(TICK_S, self._count_connections, "counts of connections"),
            every(GIVE_BACK_EVERY_S, self._give_back_memory, "memory to give back"),
            every(min(SWEEP_EVERY_S, self._settings.idle_timeout_s / 8), self._sweep, "sweep of sockets"),
        ]
        if certificate is not None:
            begun.append(every(LOOK_AT_CERTIFICATE_S, certificate.look, "certificate"))
        return begun

    def _count_connections(self) -> None:
        self._context.metrics.set("connections", self._context.connections.total)
        self._context.metrics.set("connections_limit", self._context.connections.most)
        self._context.metrics.set("strangers", self._context.connections.strangers)
        self._context.metrics.set("unfinished_bytes", self._context.unfinished.bytes)
        self._context.metrics.set("waiting_frame_bytes", self._context.waiting_frames.total_bytes)
        self._context.metrics.set("waiting_frames_evicted_total", self._context.waiting_frames.evicted)

    def _give_back_memory(self) -> None:
        """After a crowd has gone: what it had is free here, but not for anybody else yet."""
        connections = self._context.connections
        if connections.peak - connections.total >= WORTH_GIVING_BACK:
            memory.give_back()
            connections.peak = connections.total

    def _sweep(self) -> None:
        now, guarding = asyncio.get_running_loop().time(), supervisor.current().guarding
        for websocket in list(self._context.sockets):
            with guarding("sweep of a socket"):
                websocket.sweep(now)
        for moving_picture in list(self._context.moving_pictures):
            with guarding("sweep of a moving picture"):
                moving_picture.count_dropped()


async def _let_http_go(server: web.Server | None) -> None:
    """Let requests be answered for `HTTP_SHUTDOWN_S`, and cut off the others.

    Not left to `Server.shutdown`: when requests end in the turn of its deadline it fails once for each of them.
    """
    if server is None:
        return
    server.pre_shutdown()
    await _all_gone(server)
    server.handler_cancellation = True
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()
    await _all_gone(server)


async def _all_gone(server: web.Server) -> None:
    """Wait until no HTTP connection is open, at most `HTTP_SHUTDOWN_S`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HTTP_SHUTDOWN_S):
            while server.connections:  # noqa: ASYNC110 - aiohttp tells nobody
                await asyncio.sleep(LOOK_EVERY_S)


@process_command(
    "gateway", ("WATCHOUT_PORT", "WATCHOUT_HOST", "WATCHOUT_HOME", "DATABASE_URL", "ALLOWED_ORIGINS", "STREAM_ACCESS",
                "TLS_CERT", "LOG_LEVEL")
)  # fmt: skip
def main() -> None:
    """Serve phones and viewers: WebSocket and HTTP on one port.

    It knows who each caller is, delivers the frames of its own cameras by itself, and joins the router of WATCHOUT_HOME
    for everything else. Several may share the port.
    """
    run("gateway", Gateway)
