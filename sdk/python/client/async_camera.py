"""A camera in asyncio: registers a stream, sends pictures when there is room, raises alerts, receives the demand."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import pybase64

from watchout.client.camera_core import CameraCore
from watchout.client.commands import ConnectionPhase
from watchout.client.connection_parts import REPLY_S
from watchout.client.driver import Driver
from watchout.client.errors import ClientClosed, FrameTooLarge, NoAnswer
from watchout.client.events import Acknowledged, Alert, Demand, Status
from watchout.client.inbox import Inbox
from watchout.common.alerts.model import check_draft
from watchout.common.clock import now_ms
from watchout.common.media import arrays
from watchout.common.media.codecs import sniff
from watchout.common.media.frames import Frame as WireFrame

#: What a camera receives.
CameraEvent: TypeAlias = Alert | Acknowledged | Status


def encode_frame(stream_id: str, timestamp: int, picture: bytes, *, binary: bool) -> bytes:
    """Return a camera's frame as a message.

    Args:
        stream_id: the camera's stream.
        timestamp: when the picture was taken, in ms since 1970.
        picture: the encoded picture.
        binary: whether to return a binary message; False: JSON text.
    """
    if binary:
        return WireFrame(stream_id, 0, timestamp, picture=picture, codec=sniff(picture)).to_binary()
    return b'{"type":"video-frame","streamId":"%b","timestamp":%d,"data":"%b"}' % (
        stream_id.encode("ascii"),
        timestamp,
        pybase64.b64encode(picture),
    )


class AsyncCamera(AsyncIterator[CameraEvent]):
    """A camera, an async context manager. Made by `Client.camera`.

    As an async iterator it yields the alerts of its stream, their acknowledgements, and the status of the stream.

    Args:
        make_driver: makes the connection, at the first use of the camera.
        binary: send frames without base64.
        quality: JPEG quality of numpy arrays, 1 to 100.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.
        on_closed: called when the camera is closed.

    Attributes:
        sent: number of frames that were written.
        sent_bytes: their bytes, as messages.
    """

    def __init__(
        self,
        make_driver: Callable[[AsyncCamera], Driver[CameraCore]],
        *,
        binary: bool,
        quality: int,
        max_message_bytes: int,
        on_closed: Callable[[AsyncCamera], None],
    ) -> None:
        self.sent = 0
        self.sent_bytes = 0
        self._make_driver = make_driver
        self._binary = binary
        self._quality = quality
        self._max_message_bytes = max_message_bytes
        self._on_closed = on_closed
        self._driver: Driver[CameraCore] | None = None
        self._closed = False
        self._waking: set[asyncio.Event] = set()
        self._inbox = Inbox()
        self._sending = asyncio.Lock()

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def stream_id(self) -> str | None:
        """Id of the stream; None until the gateway has made one for a camera without an id."""
        return None if self._driver is None else self._driver.core.stream_id

    @property
    def state(self) -> ConnectionPhase:
        """The phase of the connection."""
        return ConnectionPhase.IDLE if self._driver is None else self._driver.core.phase

    @property
    def connection(self) -> int:
        """Number of the connection, from 1, one more with each reconnect; 0: none yet."""
        return 0 if self._driver is None else self._driver.core.connection

    @property
    def demand(self) -> Demand | None:
        """The demand of the viewers; None before the gateway has sent it."""
        return None if self._driver is None else self._driver.core.demand

    @property
    def under_way(self) -> int:
        """Frames that were sent and are not acknowledged."""
        return 0 if self._driver is None else self._driver.core.under_way

    @property
    def has_room(self) -> bool:
        """Whether a frame would be sent at once."""
        driver = self._driver
        return driver is not None and not self._sending.locked() and driver.core.has_room

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        try:
            await self._until(lambda core: core.registered)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is queued, then close."""
        self._closed = True
        self.on_wake(0)
        self._on_closed(self)
        if self._driver is not None:
            await self._driver.close()

    # ── what a camera does ───────────────────────────────────────────────────────────────────────────────────────

    async def room(self) -> None:
        """Wait until a frame would be sent at once; a picture that is taken then is new when it is sent.

        Raises the error that ended the camera, such as `TakenOver` or `Unauthorized`.
        """
        await self._until(lambda _: self.has_room)

    async def wanted(self) -> Demand | None:
        """Wait until there is demand for frames and return it; None at once when the gateway sends no demand."""
        await self._until(lambda core: core.registered and (core.demand is None or core.demand.fps > 0))
        return self.demand

    async def send(self, picture: Any, *, timestamp: int | None = None) -> bool:
        """Wait until there is room, then send a picture.

        Args:
            picture: an encoded picture as bytes, or a numpy array (BGR), which is encoded in a thread.
            timestamp: when the picture was taken, in ms since 1970; None: now.

        Returns:
            False when the connection was lost while it was written.

        Raises:
            ValueError: `picture` is not a picture.
            FrameTooLarge: the message would exceed the gateway's limit.
            WatchoutClientError: the error that ended the camera.
        """
        at_ms = now_ms() if timestamp is None else int(timestamp)
        if isinstance(picture, bytes | bytearray | memoryview):
            encoded = bytes(picture)
        else:
            encoded = await asyncio.to_thread(arrays.encode, picture, self._quality)
        if not encoded:
            raise ValueError("the picture is empty")
        async with self._sending:
            driver = await self._until(lambda core: core.has_room)
            assert driver.core.stream_id is not None
            message = encode_frame(driver.core.stream_id, at_ms, encoded, binary=self._binary)
            if len(message) > self._max_message_bytes:
                raise FrameTooLarge(len(message), self._max_message_bytes)
            socket = driver.socket
            if socket is None:
                return False
            driver.core.on_sent(at_ms, driver.now)
            driver.do(())  # its timer
            written = await socket.send_and_wait(message, binary=self._binary)
        self.sent += written
        self.sent_bytes += len(message) if written else 0
        self.on_wake(0)
        return written

    async def alert(
        self,
        severity: str,
        message: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        alert_id: str | None = None,
        **fields: Any,
    ) -> str:
        """Raise an alert for this camera's stream; return its id once the gateway has confirmed it.

        The alert is sent again when the connection is lost before that; the router delivers no id twice.

        Args:
            severity: ``low``, ``medium``, ``high`` or ``critical``.
            message: one sentence for people.
            metadata: a JSON object with anything else, at most 16 KiB.
            timestamp: time of the alert, in ms since 1970; None: now.
            alert_id: id of the alert; None: a random one.
            fields: further fields, passed on unchanged.

        Raises:
            ValueError: an argument does not fit the protocol; the text says why.
            Refused: the gateway refuses the alert.
            NoAnswer: the gateway did not confirm it in time.
        """
        body: dict[str, Any] = {**fields, "severity": severity, "message": message}
        body["id"] = alert_id or f"alert_{secrets.token_hex(8)}"
        body["timestamp"] = now_ms() if timestamp is None else int(timestamp)
        if metadata is not None:
            body["metadata"] = dict(metadata)
        check_draft(body)
        driver = self._open()
        key, commands = driver.core.raise_alert(body, driver.now)
        try:
            await driver.wait_done(key, commands, REPLY_S)
        except TimeoutError:
            raise NoAnswer(f"alert {body['id']} was not confirmed within {REPLY_S:.0f} s") from None
        finally:
            driver.core.give_up_alert(body["id"])
        return str(body["id"])

    async def __anext__(self) -> CameraEvent:
        """Wait for the next alert, acknowledgement or status and return it.

        Raises `StopAsyncIteration` after this program closed the camera, else the error that ended it.
        """
        driver = self._open()
        while not self._closed:
            event = self._inbox.take()
            if isinstance(event, Alert | Acknowledged | Status):
                return event
            if driver.core.error is not None:
                raise driver.core.error
            await self._wait()
        raise StopAsyncIteration

    # ── for the driver ───────────────────────────────────────────────────────────────────────────────────────────

    def on_wake(self, _: int) -> None:
        """Wake the tasks that wait for room, for the registration or for the end."""
        for event in self._waking:
            event.set()

    def on_report(self, event: Any) -> None:
        """Queue an alert, an acknowledgement or a status for the iterator."""
        if isinstance(event, Alert | Acknowledged | Status) and self._inbox.put(event):
            self.on_wake(0)

    def _open(self) -> Driver[CameraCore]:
        if self._closed:
            raise ClientClosed("this camera is closed")
        if self._driver is None:
            self._driver = self._make_driver(self)
            self._driver.do(self._driver.core.start())
        return self._driver

    async def _until(self, condition: Callable[[CameraCore], bool]) -> Driver[CameraCore]:
        """Wait until `condition` holds. Raises the error that ended the camera."""
        driver = self._open()
        while True:
            if driver.core.error is not None:
                raise driver.core.error
            if self._closed:
                raise ClientClosed("this camera is closed")
            if condition(driver.core):
                return driver
            await self._wait()

    async def _wait(self) -> None:
        event = asyncio.Event()
        self._waking.add(event)
        try:
            await event.wait()
        finally:
            self._waking.discard(event)
