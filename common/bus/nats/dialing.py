"""Connects to one of several NATS servers: names to addresses, TLS, the user, and a race of attempts.

An attempt begins a moment after the one before, so a server that vanished delays nobody for longer than that.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from nats.errors import Error as NatsError
from nats.protocol.command import pub_cmd

from watchout.common.bus.nats import sentences
from watchout.common.bus.nats.credentials import NatsCredentials, load_credentials
from watchout.common.bus.nats.parts import MIN_PAYLOAD_BYTES
from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.common.settings.bus_servers import BusServer
from watchout.common.toolbox.futures import retrieve_exception
from watchout.common.toolbox.hosts import is_address
from watchout.common.toolbox.name_lookup import look_up
from watchout.common.toolbox.nats_client import NoTlsError, StrictClient
from watchout.common.toolbox.own_address import is_own_address
from watchout.common.toolbox.reason import reason
from watchout.common.toolbox.renewed import Renewed

#: Deadline of one attempt's steps (connection, greeting, TLS), in seconds.
CONNECT_TIMEOUT_S: Final = 2
#: Deadline of one attempt, in seconds.
ATTEMPT_S: Final = 5.0
#: A further attempt begins when none has succeeded after this time, in seconds.
NEXT_ATTEMPT_S: Final = 0.25
#: A host name is looked up for so long, in seconds.
LOOK_UP_S: Final = 1.0
#: Interval of pings in seconds; the connection is over when so many are not answered.
PING_EVERY_S: Final = 1
PINGS_UNANSWERED: Final = 2
#: Most bytes that nats-py holds for the socket before `publish` waits.
PENDING_BYTES: Final = 2 << 20
#: Most servers that are known: those of the settings, and those that servers told of.
MAX_KNOWN: Final = 128


class DialError(Exception):
    """A server that cannot be used; the text says why. Raised by `Dialer.dial` when none can."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one server; made by `Dialer`. The server's certificate has to be for `tls_name`."""

    server: BusServer
    address: str
    tls_name: str

    @property
    def url(self) -> str:
        """What nats-py connects to; without credentials."""
        return str(replace(self.server, host=self.address))


@dataclass(frozen=True, slots=True)
class DialCallbacks:
    """What a connection calls: `failed` with each error, `closed` at its end, `leaving` when its server will end."""

    failed: Callable[[Exception], Awaitable[None]]
    closed: Callable[[], Awaitable[None]]
    leaving: Callable[[], Awaitable[None]]


class DialedClient(StrictClient):
    """A client of one attempt; made by `Dialer`.

    Attributes:
        is_here: Whether its server is on this machine.
        is_used: Whether it is the one of a race that is used: what happens to others concerns nobody.

    """

    is_here = False
    is_used = False

    def send_last(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Hand all that waits to the socket without a turn of the event loop: the process is about to end.

        Args:
            messages: What is published last: subject, payload and reply subject of each.

        """
        if self.is_connected and self._transport:
            last = [pub_cmd(subject, reply, payload) for subject, payload, reply in messages]
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines([*waiting, *last])


@dataclass(slots=True)
class Dialer:
    """Connects a process to one of the servers of `WATCHOUT_BUS`; made by `NatsConnection`.

    Attributes:
        servers: The servers of the settings.
        tls: The certificates of `BUS_CA` and `BUS_CERT`; None: those of the system, where a server demands TLS.
        demand_tls: Whether a server without TLS is refused whatever its scheme.
        certificate: Whether this process shows a certificate, `BUS_CERT`.
        credentials: What is in the credentials file, `BUS_CREDENTIALS`.
        name: Name of the connection, as NATS shows it.
        inbox: First parts of the subjects of replies of NATS itself.

    """

    servers: tuple[BusServer, ...]
    tls: Renewed[BusTls] | None
    demand_tls: bool
    certificate: bool
    credentials: Renewed[NatsCredentials] | None
    name: str
    inbox: str
    #: What happened at the last attempt, by server; empty after a success.
    failures: dict[str, str] = field(default_factory=dict)
    #: Servers that others told of, with the name that their certificates have to be for.
    _told: dict[BusServer, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, inbox: str) -> Dialer:
        """Return the dialer of the settings.

        Args:
            settings: ``WATCHOUT_BUS``, ``BUS_*`` and the name of the process.
            inbox: First parts of the subjects of replies of NATS itself.

        Returns:
            The dialer.

        Raises:
            StartError: A file of ``BUS_*`` cannot be used.

        """
        user = settings.bus_credentials
        credentials = None if user is None else Renewed("credentials for NATS", [user], lambda: load_credentials(user))
        files = settings.bus_ca is not None or settings.bus_cert is not None
        secure = files or any(server.is_secure for server in settings.bus)
        name = f"watchout-{settings.process_name}" if settings.process_name else "watchout"
        paths = (settings.bus_ca, settings.bus_cert, settings.bus_key)
        tls = Renewed("certificates for NATS", paths, lambda: bus_tls(settings)) if secure else None
        return cls(settings.bus, tls, files, settings.bus_cert is not None, credentials, name, inbox)

    @property
    def knows_others(self) -> bool:
        """Whether there is more than one server."""
        return len(self.servers) + len(self._told) > 1

    async def dial(
        self, callbacks: DialCallbacks, avoid: BusServer | None = None, *, only_here: bool = False
    ) -> tuple[DialedClient, BusServer]:
        """Connect to the first server that can be used.

        Args:
            callbacks: What the connection calls.
            avoid: The server that is tried last.
            only_here: Connect to a server on this machine or to none.

        Returns:
            The connected client, and its server.

        Raises:
            DialError: No server can be used now; `failures` says why.

        """
        self.failures = {}
        for renewed in (self.tls, self.credentials):
            if renewed is not None:
                renewed.look()
        candidates = await self._candidates(avoid)
        if only_here:
            candidates = [each for each in candidates if _is_here(each.address)]
        attempts: dict[asyncio.Task[None], tuple[DialedClient, Candidate]] = {}
        connected: tuple[DialedClient, BusServer] | None = None
        try:
            while connected is None and (candidates or attempts):
                if candidates:
                    client, candidate = DialedClient(), candidates.pop(0)
                    task = asyncio.ensure_future(self._attempt(client, candidate, callbacks))
                    attempts[task] = client, candidate
                done, _ = await asyncio.wait(
                    attempts, timeout=NEXT_ATTEMPT_S if candidates else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    client, candidate = attempts[task]
                    if (error := task.exception()) is not None:
                        self.failures[str(candidate.server)] = str(error)
                    elif client.is_closed:
                        hint = self._certificate_hint(candidate)
                        self.failures[str(candidate.server)] = f"it closed the connection after its greeting{hint}"
                    elif connected is None:
                        connected = client, candidate.server
                    else:
                        continue  # it is given up with the others
                    del attempts[task]
        finally:
            for task, (client, _) in attempts.items():
                _give_up(task, client)
        if connected is None:
            raise DialError(sentences.nobody_reached(self.failures))
        self.failures = {}
        self._remember(*connected)
        connected[0].is_used = True
        return connected

    async def _candidates(self, avoid: BusServer | None) -> list[Candidate]:
        """Return all addresses of all known servers in random order: those of this machine first, of `avoid` last.

        A site with a server on each host then loses, with a host, the connections of that host only.
        """
        known = list(dict.fromkeys((*self.servers, *self._told)))
        random.shuffle(known)
        found = await asyncio.gather(*(self._look_up(server) for server in known))
        candidates = [candidate for addresses in found for candidate in addresses]
        return sorted(candidates, key=lambda each: (each.server == avoid, not _is_here(each.address)))

    async def _look_up(self, server: BusServer) -> list[Candidate]:
        by_url = Candidate(server, server.host, self._told.get(server, server.host))
        if is_address(server.host):
            return [by_url]
        try:
            async with asyncio.timeout(LOOK_UP_S):
                rows = await look_up(server.host, server.port)
        except TimeoutError:
            self.failures[str(server)] = f"its name is not resolved within {LOOK_UP_S:g} s"
            return []
        except OSError as error:
            self.failures[str(server)] = f"its name cannot be resolved: {reason(error)}"
            return []
        if server.is_websocket:
            return [by_url]  # aiohttp looks the name up again, which is known to have an address
        addresses = list(dict.fromkeys(str(row[4][0]) for row in rows))
        random.shuffle(addresses)
        return [Candidate(server, address, server.host) for address in addresses]

    async def _attempt(self, client: DialedClient, candidate: Candidate, callbacks: DialCallbacks) -> None:
        """Connect to one address. Raises `DialError`, and closes what was opened."""
        websocket = candidate.server.is_websocket
        client.is_here = _is_here(candidate.address)
        client.demand_tls = not websocket and (candidate.server.is_secure or self.demand_tls)
        opening = True

        async def failed(error: Exception) -> None:
            if opening:
                raise error  # nats-py would try the same server again
            if client.is_used:
                await callbacks.failed(error)

        async def closed() -> None:
            if client.is_used:
                await callbacks.closed()

        async def leaving() -> None:
            if client.is_used:
                await callbacks.leaving()

        try:
            async with asyncio.timeout(ATTEMPT_S):
                await client.connect(
                    candidate.url, error_cb=failed, closed_cb=closed, lame_duck_mode_cb=leaving,
                    allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=CONNECT_TIMEOUT_S,
                    ping_interval=PING_EVERY_S, max_outstanding_pings=PINGS_UNANSWERED, pending_size=PENDING_BYTES,
                    no_echo=True, name=self.name, inbox_prefix=self.inbox,
                    tls=None if self.tls is None else self.tls.current.context,
                    tls_hostname=None if websocket else candidate.tls_name,
                    **self._user(candidate.server),
                )  # fmt: skip
            if client.max_payload < MIN_PAYLOAD_BYTES:
                raise DialError(sentences.small_payload(client.max_payload))
        except BaseException as error:
            client.abandon()
            if isinstance(error, Exception) and not isinstance(error, DialError):
                hint = self._certificate_hint(candidate) if _is_reset(error) else ""
                raise DialError(f"{describe(error)}{hint}") from None
            raise
        opening = False

    def _certificate_hint(self, candidate: Candidate) -> str:
        """Return what of the certificate of this process may be why a server closed the connection; mostly empty."""
        if self.tls is None and not candidate.server.is_secure:
            return ""
        if not self.certificate:
            return f"; {sentences.no_certificate()}"
        ended = None if self.tls is None else self.tls.current.ended_at()
        return "" if ended is None else f"; {sentences.own_certificate_ended(ended)}"

    def _user(self, server: BusServer) -> dict[str, Any]:
        """Return the user for a server: that of its URL, else of the first URL that has one, or the credentials."""
        if self.credentials is not None:
            found = self.credentials.current
            return {"user_jwt_cb": found.jwt.encode, "signature_cb": found.sign}
        for known in (server, *self.servers):
            if known.token is not None:
                return {"token": known.token}
            if known.user is not None:
                return {"user": known.user, "password": known.password}
        return {}

    def _remember(self, client: StrictClient, server: BusServer) -> None:
        """Keep the servers that the connected one told of, in place of those of before."""
        name = self._told.get(server, server.host)
        names = {(known.host, known.port) for known in self.servers}
        told: dict[BusServer, str] = {}
        for parts in client.discovered_servers:
            try:
                url = urlsplit(f"//{parts.netloc}")
                host, port = url.hostname, url.port
            except ValueError:
                continue
            if host and port and (host, port) not in names and len(told) < MAX_KNOWN:
                # Servers tell addresses, and certificates have names: that of the server which told of it counts.
                told[BusServer(server.scheme, host, port)] = name if is_address(host) else host
        self._told = told


def _is_here(address: str) -> bool:
    """Return whether this is an IP address, of this machine."""
    return is_address(address) and is_own_address(address)


@dataclass(frozen=True, slots=True)
class BusTls:
    """The TLS context for NATS servers, and the certificate that it shows, in PEM; made by `bus_tls`."""

    context: ssl.SSLContext
    cert: bytes | None

    def ended_at(self) -> datetime | None:
        """Return when the certificate of this process has ended; None: it has not, or it has none."""
        if self.cert is None:
            return None
        try:
            ends = x509.load_pem_x509_certificates(self.cert)[0].not_valid_after_utc
        except ValueError:
            return None  # OpenSSL takes forms that this library does not
        return ends if ends <= datetime.now(UTC) else None


def bus_tls(settings: Settings) -> BusTls:
    """Return the TLS context for NATS servers. It always checks the name of the host.

    Args:
        settings: ``BUS_CA``, ``BUS_CERT`` and ``BUS_KEY``.

    Returns:
        The context, with the certificate that it shows.

    Raises:
        StartError: A file holds no certificate, or no unencrypted key.

    """
    ca, cert, key = settings.bus_ca, settings.bus_cert, settings.bus_key
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (ssl.SSLError, OSError, ValueError) as exc:
        raise StartError(f"BUS_CA: {ca} holds no certificates in PEM ({_short(exc)})") from None
    if cert is None:
        return BusTls(context, None)
    try:
        shown = cert.read_bytes()
        context.load_cert_chain(str(cert), None if key is None else str(key), password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as exc:
        where = "that file itself" if key is None else f"BUS_KEY {key}"
        raise StartError(
            f"BUS_CERT: {cert} with {where} is no certificate and its unencrypted key in PEM ({_short(exc)})"
        ) from None
    return BusTls(context, shown)


def describe(error: Exception) -> str:
    """Return what an exception of a connection means, without anything secret.

    Args:
        error: What nats-py raised, or the operating system.

    """
    if isinstance(error, NoTlsError):
        return sentences.no_tls()
    if isinstance(error, TimeoutError):
        return f"it does not answer within {CONNECT_TIMEOUT_S} s"
    if isinstance(error, ssl.SSLError):
        found = getattr(error, "verify_message", "")
        return sentences.tls(f"{reason(error)}: {found}" if found else reason(error))
    if isinstance(error, NatsError):
        return sentences.refused(str(error))
    if _is_reset(error):
        return "it closed the connection before its greeting"
    return reason(error)


def _is_reset(error: BaseException) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | asyncio.IncompleteReadError)


async def close_surely(client: DialedClient) -> None:
    """Close a client whatever it raises, also when the caller is cancelled.

    What was published is sent before. nats-py writes to a transport that may be broken.

    Args:
        client: The client.

    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.close()
    except Exception:  # noqa: S110 - what a broken connection raises at its end says nothing new
        pass
    finally:
        client.abandon()


def _give_up(attempt: asyncio.Task[None], client: DialedClient) -> None:
    """End an attempt, and close its connection when it has ended: it may connect although it was cancelled.

    asyncio.wait_for swallows a cancellation before Python 3.12; the deadline of the attempt ends it then.
    """

    def ended(task: asyncio.Task[None]) -> None:
        retrieve_exception(task)
        client.abandon()

    attempt.cancel()
    attempt.add_done_callback(ended)


def _no_password() -> str:
    """Raise `ValueError`. OpenSSL calls it for an encrypted key, and would otherwise prompt on the terminal."""
    raise ValueError("the key is encrypted")


def _short(exc: Exception) -> str:
    return str(getattr(exc, "reason", None) or exc)[:100]
