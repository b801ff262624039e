"""The synchronous interface, for plain loops: `frames` yields the newest frame, `Camera.send` waits for no network."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from watchout.client.aio import Client, connect
from watchout.client.async_camera import AsyncCamera
from watchout.client.background import Background, first_of
from watchout.client.commands import ConnectionPhase
from watchout.client.errors import ClientClosed
from watchout.client.events import Acknowledged, Alert, Demand, Frame, Status
from watchout.client.tokens import Token
from watchout.common.clock import now_ms
from watchout.common.media import arrays
from watchout.common.media.rate import Sampler

_log: Final = logging.getLogger("watchout.client")

#: Seconds in which a camera that is closed sends its last picture.
FLUSH_S: Final = 5.0
#: Seconds that `Camera.alert` waits.
ALERT_S: Final = 20.0


def frames(
    stream_id: str,
    *,
    url: str,
    token: Token,
    max_fps: float | None = None,
    timeout_s: float | None = None,
    decode: bool = True,
    on_alert: Callable[[Alert], None] | None = None,
    **options: Any,
) -> Frames:
    """Return an iterator of (frame, image) for a plain loop: each turn of the loop gets the newest frame.

    A thread receives; a slow loop gets fewer frames, never old ones. Closing the iterator, leaving its `with` block or
    ending the loop ends the thread.

    Args:
        stream_id: the stream; it need not exist yet.
        url: see `connect`.
        token: see `connect`.
        max_fps: most frames per second; None: all.
        timeout_s: longest wait for a frame in seconds, after which `TimeoutError` is raised; None: no limit.
        decode: whether `image` is a numpy array (height × width × 3, BGR); else it is the encoded picture. Frames that
            cannot be decoded are left out.
        on_alert: called in the thread with each alert of the stream.
        options: further arguments of `connect`.

    Raises:
        MissingExtra: OpenCV, which `decode` needs, is not installed; raised by this call.
        ValueError: an argument is wrong; raised by this call.
        WatchoutClientError: the error that ended the connection; raised in the loop.
    """
    if decode:
        arrays.opencv()

    def make() -> Client:
        return connect(url, token=token, **options)

    make().subscribe(stream_id, max_fps=max_fps)  # raises for wrong arguments
    return Frames(make, stream_id, max_fps=max_fps, timeout_s=timeout_s, decode=decode, on_alert=on_alert)


class _Newest:
    """A slot for one value, where a newer one replaces an older one; shared by two threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.value: Any = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, value: Any) -> bool:
        """Put a value; return whether it replaced one that was not taken."""
        with self.changed:
            replaced, self.value = self.value is not None, value
            self.changed.notify_all()
        return replaced

    def end(self, error: BaseException | None) -> None:
        """Record that no further value follows."""
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def take(self, timeout_s: float | None) -> Any:
        """Wait for a value and return it, None after the end. Raises the error of `end`, or `TimeoutError`."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.value is not None or self.ended, timeout_s):
                raise TimeoutError(f"no frame within {timeout_s:g} s")
            value, self.value = self.value, None
            if value is None and self.error is not None:
                raise self.error
            return value


class Frames(Iterator[tuple[Frame, Any]]):
    """The iterator of `frames`.

    Args:
        make: makes the client.
        stream_id: see `frames`.
        max_fps: see `frames`.
        timeout_s: see `frames`.
        decode: see `frames`.
        on_alert: see `frames`.

    Attributes:
        status: the newest status of the stream; empty before the first.
        undecodable: frames that were left out because they could not be decoded.
    """

    def __init__(
        self,
        make: Callable[[], Client],
        stream_id: str,
        *,
        max_fps: float | None,
        timeout_s: float | None,
        decode: bool,
        on_alert: Callable[[Alert], None] | None,
    ) -> None:
        self.status = ""
        self.undecodable = 0
        self._timeout_s = timeout_s
        self._decode = decode
        self._slot = slot = _Newest()
        me = weakref.ref(self)

        async def work() -> None:
            async with make() as client:
                alerts = on_alert is not None
                async with client.subscribe(stream_id, alerts=alerts, max_fps=max_fps) as events:
                    async for event in events:
                        if isinstance(event, Frame):
                            slot.put(event)
                        elif isinstance(event, Alert) and on_alert is not None:
                            on_alert(event)
                        elif isinstance(event, Status) and (frames := me()) is not None:
                            frames.status = event.status
                            del frames

        self._background = Background(work, slot.end, f"watchout frames {stream_id}")
        self._finalizer = weakref.finalize(self, self._background.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Frame, Any]:
        """Wait for a frame that was not returned yet; return the newest one."""
        while True:
            frame = self._slot.take(self._timeout_s)
            if frame is None:
                raise StopIteration
            try:
                return frame, frame.image if self._decode else frame.picture
            except ValueError:
                self.undecodable += 1

    def close(self) -> None:
        """End the thread, and a loop that waits for a frame."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Camera:
    """A camera for plain loops: `send` returns at once, a thread sends the newest picture when there is room.

    Args:
        stream_id: the camera's stream; None: the gateway makes an id, see the property `stream_id`.
        url: see `connect`.
        token: see `connect`.
        window: see `Client.camera`.
        info: see `Client.camera`.
        quality: JPEG quality of numpy arrays, 1 to 100.
        on_demand: encode and send only what viewers want, at the rate that they want; see `demand`.
        on_event: called in the thread with each alert and status of its stream, and each acknowledgement of an alert.
        options: further arguments of `connect`.

    Raises:
        ValueError: an argument is wrong.

    Attributes:
        sent: pictures that were sent.
        dropped: pictures that were replaced by newer ones, or could not be encoded.
    """

    def __init__(
        self,
        stream_id: str | None = None,
        *,
        url: str,
        token: Token,
        window: int | None = 2,
        info: Mapping[str, Any] | None = None,
        quality: int = 80,
        on_demand: bool = False,
        on_event: Callable[[Alert | Acknowledged | Status], None] | None = None,
        **options: Any,
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._on_demand = on_demand
        self._on_event = on_event
        self._slot = _Newest()
        self._filled = asyncio.Event()
        self._registered = threading.Event()
        self._flushed = threading.Event()
        self._flushed.set()
        self._closing = self._reported = False
        self._sampler = Sampler(None)
        self._camera: AsyncCamera | None = None

        def make(client: Client) -> AsyncCamera:
            return client.camera(stream_id, window=window, info=info, quality=quality)

        make(connect(url, token=token, **options))  # raises for wrong arguments

        async def work() -> None:
            async with connect(url, token=token, **options) as client, make(client) as camera:
                await self._serve(camera)

        self._background = Background(work, self._end, f"watchout camera {stream_id or ''}".rstrip())

    # ── for the program ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def stream_id(self) -> str | None:
        """Id of the stream; None until the gateway has made one for a camera without an id, see `wait_registered`."""
        return None if self._camera is None else self._camera.stream_id

    @property
    def demand(self) -> Demand | None:
        """The demand of the viewers; None before the gateway has sent it."""
        return None if self._camera is None else self._camera.demand

    @property
    def state(self) -> ConnectionPhase:
        """The phase of the connection."""
        return ConnectionPhase.CONNECTING if self._camera is None else self._camera.state

    @property
    def wanted(self) -> bool:
        """Whether a viewer wants pictures now; True before the gateway has sent the demand."""
        demand = self.demand
        return demand is None or demand.fps > 0

    def wait_registered(self, timeout_s: float | None = None) -> str:
        """Wait until the stream is registered, and return its id.

        Args:
            timeout_s: longest wait in seconds; None: no limit.

        Raises:
            TimeoutError: the stream was not registered in time.
            WatchoutClientError: the error that ended the camera.
        """
        if not self._registered.wait(timeout_s):
            raise TimeoutError(f"not registered within {timeout_s:g} s")
        self._check()
        assert self._camera is not None
        assert self._camera.stream_id is not None
        return self._camera.stream_id

    def send(self, picture: Any, *, timestamp: int | None = None) -> bool:
        """Give the thread a picture to send; it replaces one that was not sent yet. Returns at once.

        Args:
            picture: an encoded picture as bytes, or a numpy array (BGR), which is copied, and encoded only if it is
                sent.
            timestamp: when the picture was taken, in ms since 1970; None: now.

        Returns:
            False when the picture is not sent because no viewer wants it (`on_demand`).

        Raises:
            ClientClosed: the camera was closed.
            WatchoutClientError: the error that ended the camera, such as `TakenOver`.
            ValueError: `picture` is not a picture.
        """
        self._check()
        if self._closing:
            raise ClientClosed("this camera is closed")
        if self._on_demand and not self._is_due():
            return False
        if isinstance(picture, bytes | bytearray | memoryview):
            held: Any = bytes(picture)
            if not held:
                raise ValueError("the picture is empty")
        elif hasattr(picture, "copy") and hasattr(picture, "dtype"):
            arrays.opencv()
            held = picture.copy()
        else:
            raise ValueError(f"a picture is bytes or a numpy array, got {type(picture).__name__}")
        at_ms = now_ms() if timestamp is None else int(timestamp)
        self._flushed.clear()
        self.dropped += self._slot.put((held, at_ms))
        self._background.call(self._filled.set)
        return True

    def alert(self, severity: str, message: str, **fields: Any) -> str:
        """Raise an alert for this stream, wait until the gateway has confirmed it, and return its id.

        Args:
            severity: ``low``, ``medium``, ``high`` or ``critical``.
            message: one sentence for people.
            fields: further arguments of `AsyncCamera.alert`.
        """
        self.wait_registered(ALERT_S)
        assert self._camera is not None
        return self._background.submit(self._camera.alert(severity, message, **fields), ALERT_S)

    def close(self) -> None:
        """Send the last picture, if that takes no more than a few seconds, and end the thread."""
        if not self._closing:
            self._closing = True
            self._flushed.wait(FLUSH_S)
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _is_due(self) -> bool:
        """Whether a picture is wanted now, at the rate of the demand."""
        demand = self.demand
        if demand is None:
            return True
        self._sampler.set_rate(demand.fps or None)
        return demand.fps > 0 and self._sampler.take(time.monotonic())

    def _check(self) -> None:
        if self._slot.error is not None:
            raise self._slot.error

    def _end(self, error: BaseException | None) -> None:
        self._slot.end(error)
        self._registered.set()
        self._flushed.set()

    async def _serve(self, camera: AsyncCamera) -> None:
        self._camera = camera
        self._registered.set()
        await first_of(self._send_newest(camera), self._listen(camera))

    async def _send_newest(self, camera: AsyncCamera) -> None:
        while not self._slot.ended:
            await camera.room()
            await self._filled.wait()
            self._filled.clear()
            with self._slot.changed:
                taken, self._slot.value = self._slot.value, None
            if taken is None:
                continue
            picture, at_ms = taken
            try:
                self.sent += await camera.send(picture, timestamp=at_ms)
            except ValueError as exc:
                self._unusable(exc)
            if self._slot.value is None:
                self._flushed.set()

    async def _listen(self, camera: AsyncCamera) -> None:
        async for event in camera:
            if self._on_event is not None:
                self._on_event(event)

    def _unusable(self, exc: ValueError) -> None:
        """Count a picture that cannot be sent; log the first."""
        if not self._reported:
            self._reported = True
            _log.warning("a picture of camera %s is left out: %s", self.stream_id, exc)
        self.dropped += 1
