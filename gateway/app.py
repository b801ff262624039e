"""The gateway process: builds its parts, opens the port, drains, and closes in order. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from watchout.common import log, supervisor
from watchout.common.bus.mesh import MemberCarrier
from watchout.common.errors import StoreUnavailable
from watchout.common.metrics import Metrics
from watchout.common.process import descriptors
from watchout.common.process.command import GivenOptions, process_command
from watchout.common.service import Tasks, run
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.common.why.incident import IncidentKind
from watchout.common.why.memory import memory_of
from watchout.gateway.authorization import Authorization
from watchout.gateway.context import HEALTH_TIMEOUT_S, Context
from watchout.gateway.drain import Drain
from watchout.gateway.home_keys import share_key, stream_key
from watchout.gateway.housekeeping import Housekeeping
from watchout.gateway.http.on_demand import HttpOnDemand
from watchout.gateway.hub.registry import Hub
from watchout.gateway.listen.dispatch import ConnectionDispatcher, first_requests
from watchout.gateway.listen.port import BACKLOG, ListeningPort, accept_waiting
from watchout.gateway.listen.tls import Certificate
from watchout.gateway.presence import Presence
from watchout.gateway.quotas import AlertRates, Connections
from watchout.gateway.revalidation import Revalidation
from watchout.gateway.router_client import RouterClient
from watchout.gateway.shares.requests import ShareRequests
from watchout.gateway.shares.source import GatewayShares
from watchout.gateway.shares.tokens import ShareTokens
from watchout.gateway.stream_ids import StreamIds
from watchout.gateway.why.measuring import Measuring
from watchout.gateway.why.recorder import Recorder
from watchout.identity import make_authenticator

_log = log.get("gateway.app")


class Gateway:
    """One gateway process; `common.service.run` creates, starts and ends it.

    The constructor opens nothing. The constructor and `start` raise `StartError` for what an operator has to correct:
    the port, the certificate, or the session store's settings.
    """

    def __init__(self, settings: Settings, carrier: MemberCarrier | None = None) -> None:
        self._settings = settings
        metrics, memory = Metrics(), memory_of(settings)
        self._tasks = Tasks()
        self._link = RouterClient(
            settings, metrics, sockets=lambda: self._context.connections.authenticated, memory=memory, carrier=carrier
        )
        hub = Hub(
            wake=self._link.wake,
            to_bus=self._link.frame_to_bus,
            to_members=self._link.frame_to_members,
            unlimited_fps=settings.demand_fps,
            newest_bytes=settings.newest_frame_bytes,
            reserved_s=settings.stream_reserved_s,
            reserved_per_user=settings.stream_reserved_per_user,
            latency=self._link.latency,
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
            ShareTokens(share_key(settings.home)),
            Recorder(settings, memory, self._link.name),
        )
        hub.delivery.on_told = self._context.recorder.told
        self._shares = GatewayShares(
            self._context.share_tokens, ShareRequests(self._link), enabled=settings.share_max_s > 0
        )
        self._context.authenticator.shares = self._shares
        self._port = ListeningPort(settings.host, settings.port, settings.home)
        self._certificate: Certificate | None = None
        self._servers: list[asyncio.Server] = []
        #: Open connections that are no WebSockets.
        self._unended: set[ConnectionDispatcher] = set()
        self._drain = Drain(self._context, self._port.is_shared, self._stop_accepting)
        self._http = HttpOnDemand(self._context)
        self._linked = False
        self._periodic: list[Periodic] = []
        self._listeners: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the port, the session store and the connection to the router; the latter two may be away."""
        settings, context = self._settings, self._context
        self._certificate = certificate = Certificate.of(settings)
        self._port.open()
        await context.authenticator.open()
        self._link.start(context.hub)
        self._link.on_ask = Measuring(context, self._link.links).on_ask
        self._linked = True
        loop = asyncio.get_running_loop()
        for listening in self._port.sockets:
            server = await loop.create_server(
                self._make_dispatcher,
                sock=listening,
                backlog=BACKLOG,  # the loop's own would replace that of the socket
            )
            self._servers.append(server)
        revalidation = Revalidation(settings, context.metrics, context.presence, context.authenticator, self._shares)
        self._periodic = [*Housekeeping(context, certificate).begin(), *revalidation.begin()]
        keep, channel = supervisor.current().keep, settings.revocation_channel
        self._listeners = [keep(revalidation.check_changed, "changed sessions")]
        if channel is not None:
            self._listeners.append(
                keep(lambda: context.authenticator.listen(channel, revalidation.on_changed), "listen for revocations")
            )
        if context.connections.most < settings.max_connections:
            _log.warning(
                "few file descriptors: raise the limit (ulimit -n, LimitNOFILE) or lower MAX_CONNECTIONS",
                connections=context.connections.most,
                wanted=settings.max_connections,
            )
        _log.info("gateway listens", **self._port.where())

    async def missing(self) -> str | None:
        """Return what keeps this gateway from serving clients: the router or the session store; None: nothing."""
        if not self._link.live:
            return self._link.links.explain_slots() or "the router is unreachable"
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._context.authenticator.check()
        except (StoreUnavailable, TimeoutError):
            return StoreUnavailable.public
        return None

    async def drain(self) -> None:
        """Ask the clients to reconnect, and wait until they have left; from when on none is accepted: `Drain`."""
        self._link.ending = True
        self._context.recorder.of_everybody(IncidentKind.DRAIN)
        await self._drain.run()
        await first_requests(self._unended)
        await self._http.finish_requests()

    def hurry(self) -> None:
        """Ask all clients at once: whoever started this gateway ends all of them."""
        self._drain.hurry()

    def prepare_reload(self, new: Settings) -> Callable[[], None]:
        """Load the certificate of new settings; return what takes it and the rates up. Raises `StartError`."""
        pair = self._certificate
        use = None if pair is None or new.tls_cert is None else pair.prepare(new.tls_cert, new.tls_key)

        def take_up() -> None:
            if use is not None:
                use()
            self._context.alert_rates.change(self._settings.alert_rate)
            self._context.service_alert_rate.change(self._settings.service_alert_rate)
            self._link.report_settings()

        return take_up

    async def _stop_accepting(self) -> None:
        """Close the port, and take the connections that wait at it, unless the service manager keeps them."""
        servers, self._servers = self._servers, []
        spares = self._port.spares() if servers else []
        for server in servers:
            server.close()
        await asyncio.sleep(0)  # the loop lets go of them
        accepted = []
        for spare in spares:
            with spare:
                accepted += accept_waiting(spare)
        for connection in accepted:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._make_dispatcher, connection)

    def _make_dispatcher(self) -> ConnectionDispatcher:
        return ConnectionDispatcher(self._context, self._http.make_connection, self._certificate, self._unended)

    async def stop(self) -> None:
        """Close everything; also after a `start` that failed half-way, and without `drain`."""
        for server in self._servers:
            server.close()
        await self._http.close()
        for connection in list(self._unended):  # of which no request, or no end of one, has come
            connection.end()
        if self._linked:
            await self._link.close()
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*(periodic.close() for periodic in self._periodic))
        await self._context.authenticator.close()  # it has threads, which would keep the process alive
        await self._tasks.close()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._context.recorder.record_all_ends()
        self._port.close()


@process_command(
    "gateway", ("WATCHOUT_PORT", "WATCHOUT_HOST", "WATCHOUT_HOME", "DATABASE_URL", "ALLOWED_ORIGINS", "STREAM_ACCESS",
                "TLS_CERT", "LOG_LEVEL")
)  # fmt: skip
def main(given: GivenOptions) -> None:
    """Serve phones and viewers: WebSocket and HTTP on one port.

    It authenticates each caller, delivers the frames of its own publishers to its own viewers, and joins the router of
    WATCHOUT_HOME for everything else. Several gateways may share the port.
    """
    run("gateway", Gateway, given)
