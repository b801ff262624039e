"""The connection of a process to NATS, shared by its transports: made again after each loss, and never blocking.

What cannot be sent now is lost, and nothing is sent late: messages that wait when the connection ends are dropped.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import SlowConsumerError

from watchout.common import log, supervisor
from watchout.common.bus import server_connections
from watchout.common.bus.nats import sentences
from watchout.common.bus.nats.denials import Denials
from watchout.common.bus.nats.dialing import DialedClient, Dialer, DialError, close_surely, describe
from watchout.common.bus.nats.homeward import FLUSH_S, Homeward
from watchout.common.bus.nats.line import Line, cancelled
from watchout.common.bus.nats.subjects import Subjects
from watchout.common.bus.nats.subscriptions import NatsSubscription, Subscriptions
from watchout.common.settings import Settings
from watchout.common.settings.bus_servers import BusServer
from watchout.common.toolbox.outage import OutageLog
from watchout.common.toolbox.retry import backoff_s

#: Most messages that wait to be sent, by number and by bytes.
MAX_WAITING: Final = 50_000
MAX_WAITING_BYTES: Final = 64 << 20
#: Pause before the next attempt when no server can be used, in seconds: doubled each time, up to the last.
FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 0.5
#: Connections leave a server that will end within this time, in seconds, at random: not all at once.
LEAVE_WITHIN_S: Final = 0.5
#: A process that hears no router for this time, and up to half of it more, looks for one at another server, in seconds.
UNHEARD_S: Final = 10.0
#: A connection over which a subscription is denied is made anew after this time, in seconds: doubled each time, up to
#: the last, while that stays so.
FIRST_DENIED_S: Final = 5.0
LAST_DENIED_S: Final = 60.0
#: No connection is logged after this time for the first time, in seconds.
MISSING_AFTER_S: Final = 1.0

_log = log.get("common.bus.nats.connection")


class NatsConnection:
    """A connection to one of the servers of `WATCHOUT_BUS`; `connection_of` makes it, and shares it in a process.

    It connects in the background, also when no server is there yet, and again after each loss.

    Args:
        settings: ``WATCHOUT_BUS``, ``BUS_*``, ``CLUSTER_NAME``.

    Raises:
        StartError: A file of ``BUS_*`` cannot be used.

    """

    def __init__(self, settings: Settings) -> None:
        self.subjects = Subjects(settings.cluster_name)
        self._dialer = Dialer.of(settings, self.subjects.inbox())
        self._loop = asyncio.get_running_loop()
        self._client: DialedClient | None = None
        self._line: Line | None = None
        self._former: Line | None = None
        self._server: BusServer | None = None
        self._avoid: BusServer | None = None
        self._subscriptions = Subscriptions()
        self._on_connected: list[Callable[[], None]] = []
        self._waiting: deque[tuple[str, bytes, str]] = deque()
        self._waiting_bytes = 0
        self._something_waits = asyncio.Event()
        self._writing = asyncio.Lock()
        self._why = "the first connection is being made"
        self._outage = OutageLog()
        self._lost_at = self._loop.time()
        self._denials = Denials()
        self._denied_in_turn = 0
        self._users = 1
        self._heard_at = self._lost_at
        self._patience_s = UNHEARD_S * (1 + random.random() / 2)
        self._leaving: asyncio.TimerHandle | None = None
        #: Messages that were dropped: for the lack of a connection or of room, at its end, or received too fast.
        self.dropped = 0
        self._homeward = Homeward(
            self._dialer, self._subscriptions, self.subjects.inbox(),
            lambda: Line(self._on_error, self._on_leaving), self._writing, self._take,
        )  # fmt: skip
        self._keeping = supervisor.current().keep(self._keep, "connection to NATS")

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        """Whether messages go out now, and all subscriptions are in force."""
        return self._client is not None

    @property
    def client(self) -> DialedClient | None:
        """The nats-py client while connected, for JetStream; None: not connected. Another one after each loss."""
        return self._client

    @property
    def server(self) -> str:
        """The server of the present or last connection, without credentials; empty: there was none."""
        return "" if self._server is None else str(self._server)

    @property
    def max_payload(self) -> int:
        """Largest payload that the server takes, in bytes; 0: not connected."""
        return 0 if self._client is None else self._client.max_payload

    def explain(self) -> str:
        """Return why there is no connection, or what the user of this process may not do; empty: all is well."""
        if self._client is None:
            return self._why
        return self._denials.explain()

    def heard(self) -> None:
        """Record that a router was heard over this connection."""
        self._heard_at = self._loop.time()

    def look_elsewhere(self) -> None:
        """Leave the server if no router was heard over it for `UNHEARD_S`, and another server is known.

        To be called now and then while a router is missing: the server may be cut off from the others of its cluster.
        """
        if self.connected and self._dialer.knows_others and self._loop.time() - self._heard_at > self._patience_s:
            _log.info("no router is heard over this NATS server: another one is used", server=self.server)
            self.leave_server()

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        """Queue a message.

        Args:
            subject: Its subject.
            payload: At most `max_payload` bytes.
            reply: Where the server says that nobody is subscribed, and where a receiver replies; empty: nowhere.

        Returns:
            False when there is no connection or too much waits; the message is lost then.

        """
        size = len(payload)
        if (
            self._client is None
            or len(self._waiting) >= MAX_WAITING
            or (self._waiting_bytes + size > MAX_WAITING_BYTES and self._waiting)
        ):
            self.dropped += 1
            return False
        self._waiting.append((subject, payload, reply))
        self._waiting_bytes += size
        self._something_waits.set()
        return True

    def subscribe(
        self, subject: str, on_message: Callable[[Msg], None], on_denied: Callable[[], None] | None = None
    ) -> NatsSubscription:
        """Receive what is published to a subject, now and after each loss of the connection.

        Args:
            subject: The subject, with wildcards.
            on_message: Called with each message.
            on_denied: Called when the server denies it, which it may do at any time; it is subscribed to again later.

        Returns:
            The subscription, which has to be closed.

        """
        return self._subscriptions.add(subject, on_message, on_denied)

    def on_connected(self, call: Callable[[], None]) -> None:
        """Call a function after each connection, when all subscriptions are in force; not for the present one.

        Args:
            call: The function. What it raises is logged.

        """
        self._on_connected.append(call)

    def not_on_connected(self, call: Callable[[], None]) -> None:
        """Call the function no more.

        Args:
            call: What was given to `on_connected`.

        """
        self._on_connected.remove(call)

    def leave_server(self) -> None:
        """Connect to another server, if there is one: this one is of no use."""
        if self._line is not None:
            self._leave(self._line)

    # ── its end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def share(self) -> NatsConnection:
        """Return this connection to one more user, who closes it too."""
        self._users += 1
        return self

    @property
    def is_closed(self) -> bool:
        """Whether its last user has closed it."""
        return self._users <= 0

    def close(self) -> None:
        """Give the connection back. With its last user it ends; what waits is handed to the socket before."""
        self._users -= 1
        if self._users == 0:
            if self._client is not None:
                with supervisor.current().guarding("the end of the connection to NATS"):
                    self._client.send_last(self._waiting)
                self._waiting.clear()
            self._keeping.cancel()

    async def ended(self) -> None:
        """Wait until the connection is closed, after its last user closed it."""
        await cancelled(self._keeping)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        """Connect, and stay connected until the connection ends; again and again."""
        failures = 0
        while True:
            line = Line(self._on_error, self._on_leaving)
            try:
                await line.dial(self._dialer, self._avoid)
            except DialError as error:
                self._missing(str(error))
                await asyncio.sleep(
                    backoff_s(failures, first_s=FIRST_PAUSE_S, most_s=LAST_PAUSE_S, chance=random.random())
                )
                failures += 1
                continue
            failures = 0
            self._line, self._server = line, line.server
            self._subscriptions.use(line.client)
            try:
                await self._serve(line)
            except Exception as error:  # nats-py fails with many types; the next connection is made anew
                self._why = f"the connection to {self._server} ended: {describe(error)}"
            finally:
                last, self._line = self._line, None
                former, self._former = self._former, None
                self._disconnected(last.client)
                if former is not None:  # it has a task only once `_use` has begun again
                    self._homeward.forget(former)
                await close_surely(last.client)
            self._avoid = self._server
            self._missing(self._why)
            await asyncio.sleep(FIRST_PAUSE_S * random.random())

    async def _serve(self, line: Line) -> None:
        """Subscribe, then use the connection, and each one that takes its place, until the last one ends."""
        self._denials.clear()
        client = line.client
        await self._subscriptions.begin(client)
        await client.flush(FLUSH_S)
        if not line.denied:
            self._denied_in_turn = 0
        self._client = client
        self.heard()
        if self._outage.recovered():
            _log.info("NATS is there again", server=self.server, away_s=round(self._loop.time() - self._lost_at, 1))
        else:
            _log.info("NATS is there", server=self.server)
        for call in list(self._on_connected):
            with supervisor.current().guarding("what follows a connection to NATS"):
                call()
        while (next_line := await self._use(line)) is not None:
            line = next_line

    async def _use(self, line: Line) -> Line | None:
        """Send what is published, until the connection ends or another one has taken its place, which is returned."""
        client = line.client
        start = self._loop.create_task
        writer = start(self._write(client), name="messages to NATS")
        others = [start(_wait(line.over)), start(self._leave_denied(line))]
        if client.is_here:
            self._homeward.plan.there(self._loop.time())
        else:
            others.append(start(self._homeward.run(line), name="return to the own NATS server"))
        lingering = [] if self._former is None else [start(self._homeward.end_of(self._former))]
        try:
            await asyncio.wait((writer, *others), return_when=asyncio.FIRST_COMPLETED)
            if self._line is not line:
                return self._line
            if writer.done() and not writer.cancelled() and (error := writer.exception()) is not None:
                raise error
            self._why = f"the connection to {self._server} ended: {_reason(client)}"
        finally:
            await cancelled(writer, *others, *lingering)
        return None

    async def _leave_denied(self, line: Line) -> None:
        """Leave a line over which a subscription is denied, after a while: it may be permitted again, or elsewhere.

        A server drops a subscription when its configuration changes, and does not take it up when it changes back.
        """
        is_wanted = False
        while not is_wanted:
            await line.is_denied.wait()
            turn, self._denied_in_turn = self._denied_in_turn, self._denied_in_turn + 1
            await asyncio.sleep(
                backoff_s(turn, first_s=FIRST_DENIED_S, most_s=LAST_DENIED_S, chance=random.random())
            )  # fmt: skip
            is_wanted = any(self._subscriptions.of(each) or self._is_inbox(each) for each in line.denied)
            if not is_wanted:
                line.forgive()
        _log.info("what was denied is tried over a new connection", server=self.server)
        self._leave(line)

    def _is_inbox(self, subject: str) -> bool:
        """Whether a subject, in small letters, is one for replies of NATS itself."""
        return subject.startswith(f"{self.subjects.inbox().lower()}.")

    def _take(self, line: Line) -> None:
        """Use another connection in place of the present one, which is not ended here."""
        _log.info("the NATS server of this host is used again", server=str(line.server), instead_of=self.server)
        self._avoid, self._server = None, line.server
        self._former, self._line, self._client = self._line, line, line.client
        self._leave_no_more()

    def _disconnected(self, client: Client) -> None:
        """Forget the connection and all that waits: it would come too late."""
        if self._client is not None:
            self._lost_at = self._loop.time()
        self._homeward.plan.lost(self._loop.time())
        self._client = None
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._something_waits.clear()
        self._leave_no_more()
        self._subscriptions.end(client)

    async def _write(self, client: Client) -> None:
        while self._client is client:
            await self._something_waits.wait()
            async with self._writing:
                if self._client is client:
                    await self._send_waiting(client)

    async def _send_waiting(self, client: Client) -> None:
        waiting = self._waiting
        while waiting:
            subject, payload, reply = waiting.popleft()
            self._waiting_bytes -= len(payload)
            await client.publish(subject, payload, reply)
        self._something_waits.clear()

    def _missing(self, why: str) -> None:
        """Record why there is no connection, and log it once for each cause when that lasts."""
        self._why = why
        if self._loop.time() - self._lost_at >= MISSING_AFTER_S and self._outage.failed(why, self._loop.time()):
            _log.warning("NATS is missing", reason=why)

    # ── what nats-py calls ───────────────────────────────────────────────────────────────────────────────────────

    async def _on_error(self, line: Line, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self.dropped += 1
            supervisor.current().failed("reading of the bus", error)
            return
        found = sentences.of_permission(str(error))
        if found is None:
            return
        what, subject = found
        if what == "subscription":
            line.deny(subject)
        if line is not self._line:
            return  # of a server that may be used later
        if (sentence := self._denials.note(what, subject)) is not None:
            _log.error("the bus lacks a permission", reason=sentence)
        if what == "subscription":
            self._subscriptions.denied(subject)

    def _on_leaving(self, line: Line) -> None:
        if line is self._line and self._leaving is None:
            _log.info("the NATS server is going to end: another one is used", server=self.server)
            self._leaving = self._loop.call_later(LEAVE_WITHIN_S * random.random(), self._leave, line)

    def _leave_no_more(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave(self, line: Line) -> None:
        self._avoid = line.server
        line.over.set()


_connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, NatsConnection]] = (
    weakref.WeakKeyDictionary()
)


def connection_of(settings: Settings, purpose: str) -> NatsConnection:
    """Return the connection of this process to NATS, made with the first call.

    Args:
        settings: ``WATCHOUT_BUS``, ``BUS_*``, ``CLUSTER_NAME``.
        purpose: ``router`` or ``member``. A server sends no message back on the connection that it came from, so both
            in one process need their own.

    Returns:
        The connection; each caller closes it once.

    Raises:
        StartError: A file of ``BUS_*`` cannot be used.

    """
    key = (
        purpose, settings.bus, settings.bus_credentials, settings.bus_ca, settings.bus_cert, settings.bus_key,
        settings.cluster_name,
    )  # fmt: skip
    known = _connections.setdefault(asyncio.get_running_loop(), {})
    found = known.get(key)
    if found is not None and not found.is_closed:
        return found.share()
    made = known[key] = NatsConnection(settings)
    server_connections.add(made)
    return made


def _reason(client: Client) -> str:
    """Return why a connection ended."""
    error = client.last_error
    return "it was closed" if error is None else describe(error)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
