"""The connection to Redis or Valkey that both kinds of Redis targets share: server or Sentinel, TLS, errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from redis._parsers.resp2 import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.ml_targets.sentinel import parse as parse_sentinel_url
from watchout.common.toolbox.reason import reason_with_text
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.address import Channels, without_credentials
from watchout.mlbridge.targets.pending_results import PendingResults
from watchout.mlbridge.targets.reconnecting import CONNECTION_WAIT_S, OPEN_S, Reconnecting
from watchout.mlbridge.targets.results import MAX_RESULT_BYTES
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, discard_alerts
from watchout.mlbridge.targets.tls import ClientTls

#: A server that is silent for `QUIET_S` gets a ping, and has `DEAD_S` to reply, in seconds.
QUIET_S: Final = 2.0
DEAD_S: Final = 10.0

C = TypeVar("C")


class TooLarge(InvalidResponse):
    """A message from Redis is over `MAX_RESULT_BYTES`; raised by `_BoundedParser`.

    It ends the connection, and `Reconnecting` opens a new one.
    """


class _BoundedParser(_AsyncRESP2Parser):
    """Reply parser of the redis library that raises `TooLarge` before it reads a message over `MAX_RESULT_BYTES`.

    The bound is needed because any client of the Redis server can publish an alert of any length.
    """

    async def _read(self, length: int) -> bytes:
        if length > MAX_RESULT_BYTES:
            raise TooLarge(f"a message of {length} bytes, expected at most {MAX_RESULT_BYTES}")
        return await super()._read(length)


class _Connection(Connection):
    """A connection whose end waits for nobody. Made by the pools of `RedisTarget`.

    The library closes it, which would wait until the server has taken the frame that it was sent: one that hangs would
    keep a socket and a frame for each frame that was given up.
    """

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Drop the connection with what waits in it."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


class _TlsConnection(_Connection, SSLConnection):
    """The same over TLS. It is connected again and again, each time with the certificates that the files then hold."""

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Drop the connection, and the certificates with it: the library would keep those of the first time."""
        await super().disconnect(*args, **options)
        self.ssl_context.context = None


@dataclass(frozen=True, slots=True)
class RedisServer:
    """The address of one Redis server, and how to sign in to it.

    Attributes:
        host: name or address.
        port: TCP port.
        database: number of the database.
        username: user; None: the default one.
        password: password; None: none.
    """

    host: str
    port: int
    database: int
    username: str | None
    password: str | None


class RedisTarget(ABC, Generic[C]):
    """The client of an ML service behind a Redis server: what Pub/Sub and Streams have in common.

    A `Target`, made as one of the subclasses by `targets.redis.open_target`, used by the dispatcher. `C` is the
    connection from which a subclass reads alerts. `analyse` raises `TargetFailure` when Redis does not take the frame.

    Args:
        url: URL of the server, or of its Sentinels.
        timeout_s: deadline of a command, in seconds.
        connections: most connections for frames at once.
        tls: files for ``rediss://``.
    """

    declaration: ClassVar = kinds.REDIS

    def __init__(self, url: str, *, timeout_s: float, connections: int, tls: ClientTls) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connections = connections
        self._tls = tls
        self._client: Redis | None = None
        self._at: RedisServer | None = None
        self._reconnecting: Reconnecting[C] | None = None
        self.channels = Channels.of(url)
        self.results = PendingResults(discard_alerts)

    @property
    def public_url(self) -> str:
        """Scheme, host, port and database of the URL."""
        return without_credentials(self._url)

    async def open(self, on_alerts: OnAlerts) -> None:
        """Start to connect. `on_alerts` receives alerts that belong to no pending frame."""
        self.results = PendingResults(on_alerts)
        self._reconnecting = Reconnecting(
            self._connect, self.serve, on_lost=self._on_lost, reason=_reason, url=self._url
        )

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Send the frame while the connection for alerts is up. Raises as `Target.analyse`.

        Each command has a connection to itself, so that every frame is isolated anyway.
        """
        del isolated
        assert self._reconnecting is not None, "open comes first"
        await self._reconnecting.get()
        assert self._client is not None, "there is a connection"
        try:
            return await self.send(self._client, frame)
        except (RedisError, OSError) as exc:
            raise TargetFailure(_reason(exc), blame=_blame(exc)) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._reconnecting is not None:
            await self._reconnecting.close()

    def _on_lost(self, reason: str, _: BaseException | None) -> None:
        self.results.on_connection_lost(reason)

    @abstractmethod
    def connected(self) -> AbstractAsyncContextManager[C]:
        """Return a context manager that opens the connection from which alerts are read."""

    @abstractmethod
    async def serve(self, connection: C) -> None:
        """Read alerts until the connection ends. Returns or raises then."""

    @abstractmethod
    async def send(self, client: Redis, frame: Frame) -> list[object]:
        """Send one frame; called by `analyse`, which turns errors of the connection into `TargetFailure`.

        Args:
            client: the client for frames, with a pool of connections.
            frame: the frame; it holds a picture.

        Returns:
            The alerts in the result of the frame, decoded but not checked; empty when the service returns none.

        Raises:
            TargetFailure: nobody receives the frame, or the service returned no result for it.
        """

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[C]:
        """Open the connection for alerts, and a pool for frames to the same server."""
        self._at = await self._master()
        self._client = client = self.make_client(self._connections, self._timeout_s)
        try:
            async with self.connected() as connection:
                yield connection
        finally:
            await client.aclose()

    async def _master(self) -> RedisServer:
        """Return the server in the URL, or the current master as a Sentinel reports it."""
        parts = urlsplit(self._url)
        if not parts.scheme.endswith("+sentinel"):
            path = parts.path.strip("/")
            return RedisServer(
                parts.hostname or "127.0.0.1",
                parts.port or self.declaration.ports[parts.scheme],
                int(path or 0),
                unquote(parts.username) if parts.username else None,
                unquote(parts.password) if parts.password else None,
            )
        url = parse_sentinel_url(self._url)
        options = {
            "socket_timeout": CONNECTION_WAIT_S * 2,
            "socket_connect_timeout": CONNECTION_WAIT_S * 2,
            **self._tls_options(),
        }
        if self._tls_options():
            options["ssl"] = True
        sentinel: Any = Sentinel(list(url.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        async with AsyncExitStack() as stack:  # all of them, also where the end of one is cancelled
            for one in sentinel.sentinels:
                stack.push_async_callback(one.aclose)
            host, port = await sentinel.discover_master(url.name)
        return RedisServer(str(host), int(port), url.database, url.username, url.password)

    def _tls_options(self) -> dict[str, Any]:
        if not self._url.startswith("rediss"):
            return {}
        return {
            "ssl_ca_certs": None if self._tls.ca is None else str(self._tls.ca),
            "ssl_certfile": None if self._tls.cert is None else str(self._tls.cert),
            "ssl_keyfile": None if self._tls.cert is None else str(self._tls.key or self._tls.cert),
            "ssl_check_hostname": True,
        }

    def make_client(self, connections: int, timeout_s: float) -> Redis:
        """Return a client of the server that is in use now.

        Args:
            connections: most connections at once.
            timeout_s: deadline of each reply, in seconds.
        """
        assert self._at is not None, "only while it is connected"
        tls = self._tls_options()
        at = self._at
        return Redis.from_pool(
            BlockingConnectionPool(
                connection_class=_TlsConnection if tls else _Connection,
                max_connections=connections,
                timeout=CONNECTION_WAIT_S,
                host=at.host,
                port=at.port,
                db=at.database,
                username=at.username,
                password=at.password,
                socket_timeout=timeout_s,
                socket_connect_timeout=OPEN_S,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                parser_class=_BoundedParser,
                **tls,
            )
        )


def _blame(exc: Exception) -> Blame:
    """Return what to blame for a command that failed while the connection for alerts is up.

    The server replies to a value over its ``proto-max-bulk-len`` with a protocol error or closes the connection without
    one, as it does over its ``client-query-buffer-limit``. Out of memory (``maxmemory``) it may accept smaller values.
    """
    match exc:
        case AuthenticationError() | NoPermissionError() | ReadOnlyError() | BusyLoadingError() | TimeoutError():
            return Blame.SERVICE
        case ResponseError() if "bulk length" in str(exc):
            return Blame.FRAME
    return Blame.UNSURE


def _reason(exc: BaseException) -> str:
    text = str(exc)[:150]
    match exc:
        case MasterNotFoundError():
            return "its sentinels do not know the master of this name, or none of them answers"
        case NoPermissionError():
            return f"its user may not do that ({text})"
        case AuthenticationError():
            return f"it lets nobody in with this user and password ({text}): redis://user:password@host"
        case ReadOnlyError():
            return "it is a replica: the URL has to lead to the master, or use redis+sentinel://"
        case ResponseError() if text.startswith(("MOVED", "CLUSTERDOWN", "CROSSSLOT")):
            return "it is a Redis Cluster, whose streams are not supported: use ML_REDIS_MODE=pubsub"
        case ResponseError() if "DB index" in text:
            return f"it has no database of the number in the URL ({text})"
        case RedisConnectionError() if "protected mode" in text:
            return "it is in protected mode, and takes connections from its own machine only: set a password there"
        case OutOfMemoryError():
            return "it has no memory left (maxmemory with noeviction)"
        case TimeoutError() | RedisTimeoutError():
            return "the server does not answer"
    return reason_with_text(exc)
