"""An ML service behind Redis or Valkey, by pub/sub: frames to channel ``video-frames``, alerts from ``ml-alerts``.

Nothing is kept for a service that is not there, and the server drops a subscriber that lags
(``client-output-buffer-limit pubsub``). A service that answers each frame is waited for. Streams: `redis_streams`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from redis._parsers.resp2 import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
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
from watchout.common.settings.ml_url import sentinels_of
from watchout.common.toolbox.default_ports import DEFAULT_PORTS
from watchout.common.toolbox.reason import reason_with_text
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, discard
from watchout.mlbridge.targets.address import Channels, without_credentials
from watchout.mlbridge.targets.answers import Answers
from watchout.mlbridge.targets.codec import MAX_ANSWER_BYTES, json_body, read_json
from watchout.mlbridge.targets.reconnecting import OPEN_S, PATIENCE_S, Reconnecting
from watchout.mlbridge.targets.tls import ClientTls

#: When nothing comes for so long the server is asked whether it lives, and has `DEAD_S` to say so, seconds.
QUIET_S: Final = 2.0
DEAD_S: Final = 10.0

C = TypeVar("C")


class TooLarge(InvalidResponse):
    """A text in Redis is longer than is read."""


class _BoundedParser(_AsyncRESP2Parser):
    """Reads no text of over `MAX_ANSWER_BYTES`: whoever may write into Redis decides how long an alert is."""

    async def _read(self, length: int) -> bytes:
        if length > MAX_ANSWER_BYTES:
            raise TooLarge(f"a message of {length} bytes, expected at most {MAX_ANSWER_BYTES}")
        return await super()._read(length)


@dataclass(frozen=True, slots=True)
class Server:
    """One Redis, and how to sign in to it."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None


class RedisTarget(ABC, Generic[C]):
    """What both ways of using a server share. A subclass says how alerts are read and what becomes of a frame."""

    def __init__(self, url: str, *, timeout_s: float, connections: int, tls: ClientTls) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connections = connections
        self._tls = tls
        self._client: Redis | None = None
        self._at: Server | None = None
        self._lasting: Reconnecting[C] | None = None
        self.channels = Channels.of(url)
        self.answers = Answers(discard)

    @property
    def shown_as(self) -> str:
        """Scheme, host, port and database."""
        return without_credentials(self._url)

    async def open(self, heard: Heard) -> None:
        """Begin to listen for alerts."""
        self.answers = Answers(heard)
        self._lasting = Reconnecting(self._connect, self.serve, lost=self._lost, reason=_reason, url=self._url)

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Give the frame to the server, while alerts can be heard.

        A command has its connection to itself, so that every frame is `apart`.
        """
        del apart
        assert self._lasting is not None, "open comes first"
        await self._lasting.get()
        assert self._client is not None, "there is a connection"
        try:
            return await self.send(self._client, frame)
        except (RedisError, OSError) as exc:
            raise TargetFailure(_reason(exc), blame=_blame(exc)) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._lasting is not None:
            await self._lasting.close()

    def _lost(self, reason: str, _: BaseException | None) -> None:
        self.answers.lost(reason)

    @abstractmethod
    def connected(self) -> AbstractAsyncContextManager[C]:
        """What alerts are read from, connected."""

    @abstractmethod
    async def serve(self, connection: C) -> None:
        """Read alerts until the connection ends."""

    @abstractmethod
    async def send(self, client: Redis, frame: Frame) -> list[object]:
        """Give one frame to the server; the alerts of the answer, if that is known."""

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[C]:
        """Connected to the server, or to the one that is master now; frames go where alerts come from."""
        self._at = await self._master()
        self._client = client = self.make_client(self._connections, self._timeout_s)
        try:
            async with self.connected() as connection:
                yield connection
        finally:
            await client.aclose()

    async def _master(self) -> Server:
        """Where the server is: as the URL says, or its sentinels."""
        parts = urlsplit(self._url)
        if not parts.scheme.endswith("+sentinel"):
            path = parts.path.strip("/")
            return Server(
                parts.hostname or "127.0.0.1",
                parts.port or DEFAULT_PORTS[parts.scheme],
                int(path or 0),
                unquote(parts.username) if parts.username else None,
                unquote(parts.password) if parts.password else None,
            )
        url = sentinels_of(self._url)
        options = {"socket_timeout": PATIENCE_S * 2, "socket_connect_timeout": PATIENCE_S * 2, **self._tls_options()}
        if self._tls_options():
            options["ssl"] = True
        sentinel: Any = Sentinel(list(url.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(url.name)
        finally:
            for one in sentinel.sentinels:
                await one.aclose()
        return Server(str(host), int(port), url.database, url.username, url.password)

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
        """A client with so many connections at most; each answer of the server has `timeout_s`."""
        assert self._at is not None, "only while it is connected"
        tls = self._tls_options()
        at = self._at
        return Redis.from_pool(
            BlockingConnectionPool(
                connection_class=SSLConnection if tls else Connection,
                max_connections=connections,
                timeout=PATIENCE_S,
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


class RedisPubSubTarget(RedisTarget[PubSub]):
    """Frames are published, alerts subscribed to."""

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[PubSub]:
        """Subscribed to alerts."""
        client = self.make_client(1, DEAD_S)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(self.channels.alerts)
                if await pubsub.get_message(timeout=OPEN_S) is None:
                    raise TimeoutError
                yield pubsub
        finally:
            await client.aclose()

    async def serve(self, connection: PubSub) -> None:
        """Read what is published as alerts."""
        clock = asyncio.get_running_loop().time
        asked_at: float | None = None
        while True:
            message = await connection.get_message(timeout=QUIET_S)
            if message is not None:
                asked_at = None
                if message["type"] == "message":
                    self.answers.came(read_json(message["data"]))
            elif asked_at is None:
                asked_at = clock()
                await connection.ping()
            elif clock() - asked_at > DEAD_S:
                raise TimeoutError

    async def send(self, client: Redis, frame: Frame) -> list[object]:
        """Publish the frame; its alerts if the service answers each frame."""
        body = json_body(frame)
        began = asyncio.get_running_loop().time()
        answer = self.answers.expect(frame)
        try:
            if not await client.publish(self.channels.frames, body):
                raise TargetFailure(f"nobody subscribes to {self.channels.frames}")
            return await self.answers.wait(answer, frame.stream_id)
        except asyncio.CancelledError:
            self.answers.missed(began)
            raise
        finally:
            self.answers.forget(frame, answer)


def _blame(exc: Exception) -> Blame:
    """Whose fault it is that a command failed while the connection for alerts stands.

    The server answers a text over its ``proto-max-bulk-len`` with a protocol error, or closes the connection without
    a word, as it does over its ``client-query-buffer-limit``; without memory (``maxmemory``) it may take smaller ones.
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
