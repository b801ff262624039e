"""An ML service behind NATS: frames to subject ``video-frames``, alerts from ``ml-alerts``, bodies in MessagePack.

A frame is published with a reply subject: a service may answer there, frame by frame, and is waited for from then on.
Who does not is paced by the server alone, which drops a subscriber that lags. That nobody subscribes is known at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from watchout.common.media.frames import Frame
from watchout.common.toolbox.default_ports import DEFAULT_PORTS
from watchout.common.toolbox.futures import retrieve_exception
from watchout.common.toolbox.reason import reason_with_text
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, TargetTimeout, discard
from watchout.mlbridge.targets.address import Channels, without_credentials
from watchout.mlbridge.targets.answers import MAX_RECENT, Answer, Answers
from watchout.mlbridge.targets.codec import MAX_ANSWER_BYTES, Key, Nonsense, key_of, packed_body, read_msgpack
from watchout.mlbridge.targets.reconnecting import OPEN_S, Reconnecting

#: Alerts that wait in this process.
PENDING_MESSAGES: Final = 1_000
PENDING_BYTES: Final = 8 << 20
#: Bytes that wait in this process for the server.
WRITE_BYTES: Final = 2 << 20
#: How often the server is asked whether it lives; the second question without an answer ends the connection, seconds.
PING_S: Final = 5
#: How long a frame waits to be told why its connection ended, seconds.
WHY_S: Final = 1.0
#: Longer than a connection lives whose server does not answer (`PING_S`), seconds.
FLUSH_S: Final = 60
#: The status of a reply that says that nobody subscribes (ADR-4).
NO_RESPONDERS: Final = "503"


class NatsTarget:
    """The client of one server. Bridges of one `group` share the alerts."""

    def __init__(self, url: str, *, timeout_s: float, group: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._queue = f"watchout-{group}"
        self._tls = tls
        self._channels = Channels.of(url)
        self._lasting: Reconnecting[_Connection] | None = None
        self._answers = Answers(discard)

    @property
    def shown_as(self) -> str:
        """Scheme, host and port."""
        return without_credentials(self._url)

    async def open(self, heard: Heard) -> None:
        """Begin to connect."""
        self._answers = Answers(heard)
        self._lasting = Reconnecting(self._connect, _ended, lost=self._lost, reason=_reason, url=self._url)

    async def show(self, frame: Frame, *, apart: bool = False) -> list[object]:
        """Publish the frame, and wait until the server has it, or the service has answered it if it does that.

        The server says how large a message may be, so that no frame takes the connection with it: none goes `apart`.
        """
        del apart
        assert self._lasting is not None, "open comes first"
        body = packed_body(frame)
        try:
            return await self._show(await self._lasting.get(), frame, body)
        except TimeoutError:
            raise TargetTimeout(f"no answer within {self._timeout_s:g} s") from None
        except (NatsError, OSError) as exc:
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None

    async def close(self) -> None:
        """End the connection."""
        if self._lasting is not None:
            await self._lasting.close()

    async def _show(self, connection: _Connection, frame: Frame, body: bytes) -> list[object]:
        client, answers = connection.client, self._answers
        if len(body) > client.max_payload:
            raise TargetFailure(
                f"a frame of {len(body)} bytes; the server's max_payload is {client.max_payload}, see its settings",
                blame=Blame.FRAME,
            )
        answer = answers.expect(frame)
        reply = connection.expect(frame)
        began = asyncio.get_running_loop().time()
        flushed = False
        try:
            await client.publish(self._channels.frames, body, reply=reply)
            if answers.answers_each:
                flushed = True
                return await answer
            await connection.flushed(answer)
            flushed = True
            return await answers.wait(answer, frame.stream_id)
        except NatsError as exc:
            await asyncio.wait((answer,), timeout=WHY_S)  # the end of the connection says whose fault it was
            if answer.done() and not answer.cancelled() and (why := answer.exception()) is not None:
                raise why from None
            raise TargetFailure(_reason(exc), blame=Blame.UNSURE) from None
        except asyncio.CancelledError:
            if answers.missed(began) and not flushed:
                connection.ended.set()  # what waits in it is stale by now
            raise
        finally:
            answers.forget(frame, answer)

    def _lost(self, reason: str, exc: BaseException | None) -> None:
        self._answers.lost(reason, too_large="maximum payload" in str(exc).lower())

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[_Connection]:
        ended = asyncio.Event()

        async def closed() -> None:
            ended.set()

        async def failed(_: Exception) -> None:
            """What ends the connection is heard of by `closed`."""

        parts = urlsplit(self._url)
        client = _TlsClient() if parts.scheme == "tls" else Client()
        try:
            await client.connect(
                f"{parts.scheme}://{_host(parts.hostname or '')}:{parts.port or DEFAULT_PORTS[parts.scheme]}",
                name="watchout-mlbridge",
                user=unquote(parts.username) if parts.username and parts.password is not None else None,
                password=unquote(parts.password) if parts.password is not None else None,
                token=unquote(parts.username) if parts.username and parts.password is None else None,
                tls=self._tls,
                allow_reconnect=False,
                connect_timeout=int(OPEN_S),
                ping_interval=PING_S,
                max_outstanding_pings=2,
                pending_size=WRITE_BYTES,
                error_cb=failed,
                closed_cb=closed,
                disconnected_cb=closed,
            )
            connection = _Connection(client, ended, self._answers)
            limits: dict[str, Any] = {"pending_msgs_limit": PENDING_MESSAGES, "pending_bytes_limit": PENDING_BYTES}
            await client.subscribe(self._channels.alerts, queue=self._queue, cb=connection.heard, **limits)
            await client.subscribe(f"{connection.inbox}.*", cb=connection.replied, **limits)
            await client.flush(timeout=int(OPEN_S))
            yield connection
        finally:
            await client.close()


class _TlsClient(Client):
    """A client that sends nothing, credentials least of all, to a server that does not begin TLS."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise NatsError("the server does not begin TLS")
        await super()._process_info(info, initial_connection)


class _Connection:
    """One life of the connection: which frame is answered on which subject."""

    def __init__(self, client: Client, ended: asyncio.Event, answers: Answers) -> None:
        self.client = client
        self.ended = ended
        self.inbox = client.new_inbox()
        self._answers = answers
        self._keys: OrderedDict[str, Key] = OrderedDict()
        self._flushes: set[asyncio.Future[None]] = set()
        self._number = 0

    async def flushed(self, answer: Answer) -> None:
        """Wait until the server has all that was published, or the answer is there: also that the connection was lost.

        The flush itself goes on when its caller does not: a pong for one that was cancelled would end the connection.
        """
        flush = asyncio.ensure_future(self.client.flush(timeout=FLUSH_S))
        self._flushes.add(flush)
        flush.add_done_callback(self._flush_ended)
        await asyncio.wait((flush, answer), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            flush.result()

    def _flush_ended(self, flush: asyncio.Future[None]) -> None:
        self._flushes.discard(flush)
        retrieve_exception(flush)

    def expect(self, frame: Frame) -> str:
        """The subject for the answer to this frame."""
        self._number += 1
        subject = f"{self.inbox}.{self._number}"
        self._keys[subject] = key_of(frame)
        if len(self._keys) > MAX_RECENT:
            self._keys.popitem(last=False)
        return subject

    async def heard(self, message: Msg) -> None:
        """Alerts that came by themselves."""
        self._answers.came(_read(message))

    async def replied(self, message: Msg) -> None:
        """The answer to a frame; it need not name it."""
        key = self._keys.get(message.subject)
        if key is None:
            return  # so long ago that nobody remembers the frame
        if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
            self._answers.fail(key, TargetFailure("nobody subscribes to the frames"))
            return
        self._answers.replied(_read(message), key)


async def _ended(connection: _Connection) -> None:
    await connection.ended.wait()
    if (error := connection.client.last_error) is not None:
        raise error


def _read(message: Msg) -> object:
    if len(message.data) > MAX_ANSWER_BYTES:
        return Nonsense(f"a message of {len(message.data)} bytes, expected at most {MAX_ANSWER_BYTES}")
    return read_msgpack(message.data)


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "the server does not answer"
    return reason_with_text(exc)
