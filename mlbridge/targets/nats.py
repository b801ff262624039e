"""Target behind NATS: frames to subject ``video-frames``, alerts from ``ml-alerts``, both in MessagePack.

A frame is published with a reply subject. Once a service has replied there, mlbridge waits for the reply to each frame.
A service that only sends alerts is limited by the server, which disconnects a subscriber that lags. When nobody is
subscribed, the server reports it at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from watchout.common.media.frames import Frame
from watchout.common.ml_targets import kinds
from watchout.common.settings import Settings
from watchout.common.toolbox.futures import retrieve_exception
from watchout.common.toolbox.nats_client import StrictClient
from watchout.common.toolbox.reason import reason_with_text
from watchout.common.toolbox.renewed import Renewed
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.address import Channels, without_credentials
from watchout.mlbridge.targets.bodies import packed_body
from watchout.mlbridge.targets.pending_results import MAX_RECENT, PendingResults, ResultFuture
from watchout.mlbridge.targets.reconnecting import OPEN_S, Reconnecting
from watchout.mlbridge.targets.results import MAX_RESULT_BYTES, Key, Undecodable, key_of, read_msgpack
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, TargetTimeout, discard_alerts
from watchout.mlbridge.targets.tls import ClientTls

#: Most alerts that wait in this process, by number and by bytes.
PENDING_MESSAGES: Final = 1_000
PENDING_BYTES: Final = 8 << 20
#: Most bytes that wait in this process to be written to the server.
WRITE_BYTES: Final = 2 << 20
#: Interval of pings, in seconds. A second ping without a pong ends the connection.
PING_S: Final = 5
#: How long a frame waits for the reason why its connection ended, in seconds.
REASON_S: Final = 1.0
#: Deadline of a flush, in seconds: longer than a connection lasts whose server does not reply to pings (`PING_S`).
FLUSH_S: Final = 60
#: Status of a reply of the server itself that nobody is subscribed (NATS ADR-4).
NO_RESPONDERS: Final = "503"


class NatsTarget:
    """The `Target` of a service that is joined over one NATS server. Built by `open_target`.

    Args:
        url: URL of the server, with credentials and the names of subjects.
        timeout_s: deadline of a frame, in seconds, for error texts; the caller enforces it.
        group: bridges of one group share the alerts (a NATS queue group).
        tls: TLS context of each new connection; None: no TLS.
    """

    declaration: ClassVar = kinds.NATS

    def __init__(self, url: str, *, timeout_s: float, group: str, tls: Renewed[ssl.SSLContext] | None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._queue = f"watchout-{group}"
        self._tls = tls
        self._channels = Channels.of(url)
        self._reconnecting: Reconnecting[_Connection] | None = None
        self._results = PendingResults(discard_alerts)

    @property
    def public_url(self) -> str:
        """Scheme, host and port of the server."""
        return without_credentials(self._url)

    async def open(self, on_alerts: OnAlerts) -> None:
        """Start to connect. `on_alerts` receives alerts that belong to no pending frame."""
        self._results = PendingResults(on_alerts)
        self._reconnecting = Reconnecting(self._connect, _ended, on_lost=self._on_lost, reason=_reason, url=self._url)

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Publish the frame, and wait until the server has it, or for the result if the service returns one for each.

        `isolated` changes nothing: the server states the largest message that it accepts, so that no frame ends the
        connection. Raises as `Target.analyse`.
        """
        del isolated
        assert self._reconnecting is not None, "open comes first"
        body = packed_body(frame)
        try:
            return await self._analyse(await self._reconnecting.get(), frame, body)
        except TimeoutError:
            raise TargetTimeout(f"no answer within {self._timeout_s:g} s") from None
        except (NatsError, OSError) as exc:
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None

    async def close(self) -> None:
        """End the connection."""
        if self._reconnecting is not None:
            await self._reconnecting.close()

    async def _analyse(self, connection: _Connection, frame: Frame, body: bytes) -> list[object]:
        client, results = connection.client, self._results
        if len(body) > client.max_payload:
            raise TargetFailure(
                f"a frame of {len(body)} bytes; the server's max_payload is {client.max_payload}, see its settings",
                blame=Blame.FRAME,
            )
        result = results.expect(frame)
        reply = connection.expect(frame)
        began = asyncio.get_running_loop().time()
        flushed = False
        try:
            await client.publish(self._channels.frames, body, reply=reply)
            _raise_swallowed_cancellation()
            if results.for_each_frame:
                flushed = True
                return await result
            await connection.flush(result)
            flushed = True
            return await results.wait(result, frame.stream_id)
        except NatsError as exc:
            if client.is_closed:
                connection.ended.set()  # nats-py does not say so while it waits for a server that hangs
            await asyncio.wait((result,), timeout=REASON_S)  # `on_connection_lost` sets what is to blame
            if result.done() and not result.cancelled() and (failure := result.exception()) is not None:
                raise failure from None
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None
        except asyncio.CancelledError:
            if results.on_timeout(began) and not flushed:
                connection.ended.set()  # frames that wait in it are stale by now
            raise
        finally:
            results.forget(frame, result)

    def _on_lost(self, reason: str, exc: BaseException | None) -> None:
        self._results.on_connection_lost(reason, too_large="maximum payload" in str(exc).lower())

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[_Connection]:
        ended = asyncio.Event()

        async def closed() -> None:
            ended.set()

        async def failed(_: Exception) -> None:
            """Ignore: when an error ends the connection, `closed` is called too."""

        parts = urlsplit(self._url)
        client = StrictClient(demand_tls=parts.scheme == "tls")
        try:
            await client.connect(
                f"{parts.scheme}://{_host(parts.hostname or '')}:{parts.port or self.declaration.ports[parts.scheme]}",
                name="watchout-mlbridge",
                user=unquote(parts.username) if parts.username and parts.password is not None else None,
                password=unquote(parts.password) if parts.password is not None else None,
                token=unquote(parts.username) if parts.username and parts.password is None else None,
                tls=None if self._tls is None else self._tls.look(),
                allow_reconnect=False,
                connect_timeout=int(OPEN_S),
                ping_interval=PING_S,
                max_outstanding_pings=2,
                pending_size=WRITE_BYTES,
                error_cb=failed,
                closed_cb=closed,
                disconnected_cb=closed,
            )
            connection = _Connection(client, ended, self._results)
            limits: dict[str, Any] = {"pending_msgs_limit": PENDING_MESSAGES, "pending_bytes_limit": PENDING_BYTES}
            await client.subscribe(self._channels.alerts, queue=self._queue, cb=connection.on_alert, **limits)
            await client.subscribe(f"{connection.inbox}.*", cb=connection.on_reply, **limits)
            await client.flush(timeout=int(OPEN_S))
            yield connection
        finally:
            client.abandon(linger_s=0)  # frames that wait for a server that hangs are stale


class _Connection:
    """One connection of `NatsTarget` to the server, from its start to its end, and the reply subjects of its frames.

    Attributes:
        client: the connected client.
        ended: set when the connection ended, or when it has to end.
        inbox: prefix of the reply subjects.
    """

    def __init__(self, client: Client, ended: asyncio.Event, results: PendingResults) -> None:
        self.client = client
        self.ended = ended
        self.inbox = client.new_inbox()
        self._results = results
        self._keys: OrderedDict[str, Key] = OrderedDict()
        self._flushes: set[asyncio.Future[None]] = set()
        self._number = 0

    async def flush(self, result: ResultFuture) -> None:
        """Wait until the server has everything that was published, or `result` is set, also to a failure.

        The flush is not cancelled with its caller: the client ends the connection at a pong for a cancelled flush.
        """
        flush = asyncio.ensure_future(self.client.flush(timeout=FLUSH_S))
        self._flushes.add(flush)
        flush.add_done_callback(self._flush_ended)
        await asyncio.wait((flush, result), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            flush.result()

    def _flush_ended(self, flush: asyncio.Future[None]) -> None:
        self._flushes.discard(flush)
        retrieve_exception(flush)

    def expect(self, frame: Frame) -> str:
        """Return a new subject for the reply to this frame."""
        self._number += 1
        subject = f"{self.inbox}.{self._number}"
        self._keys[subject] = key_of(frame)
        if len(self._keys) > MAX_RECENT:
            self._keys.popitem(last=False)
        return subject

    async def on_alert(self, message: Msg) -> None:
        """Handle a message on the subject of alerts."""
        self._results.on_message(_read(message))

    async def on_reply(self, message: Msg) -> None:
        """Handle the reply to a frame. Its subject identifies the frame."""
        key = self._keys.get(message.subject)
        if key is None:
            return  # over `MAX_RECENT` frames ago
        if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
            self._results.fail(key, TargetFailure("nobody subscribes to the frames"))
            return
        self._results.on_reply(_read(message), key)


def _raise_swallowed_cancellation() -> None:
    """Raise `CancelledError` when this task was cancelled while nats-py wrote: it goes on as if nothing had come."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ended(connection: _Connection) -> None:
    await connection.ended.wait()
    if (error := connection.client.last_error) is not None:
        raise error


def _read(message: Msg) -> object:
    if len(message.data) > MAX_RESULT_BYTES:
        return Undecodable(f"a message of {len(message.data)} bytes, expected at most {MAX_RESULT_BYTES}")
    return read_msgpack(message.data)


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "the server does not answer"
    return reason_with_text(exc)


def open_target(url: str, settings: Settings) -> NatsTarget:
    """Build the target of a checked ``nats://`` or ``tls://`` URL.

    Args:
        url: a checked ``nats://`` or ``tls://`` URL.
        settings: ``ML_*``: time-out, group and TLS files.

    Raises:
        StartError: a certificate or key file in the settings cannot be used.
    """
    tls = ClientTls.of(settings)
    secure = NatsTarget.declaration.uses_tls(url) or tls != ClientTls()
    return NatsTarget(
        url, timeout_s=settings.ml_timeout_s, group=settings.ml_group, tls=tls.renewed() if secure else None
    )
