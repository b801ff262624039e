"""The asyncio interface of the client: `connect`, subscriptions as async iterators, cameras that wait for room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from watchout.client.async_camera import AsyncCamera
from watchout.client.camera_core import CameraCore, CameraOptions
from watchout.client.commands import ConnectionPhase, PhaseChanged
from watchout.client.connection_parts import REPLY_S, ConnectionOptions
from watchout.client.driver import Driver
from watchout.client.errors import ClientClosed, NoAnswer
from watchout.client.events import Alert, Event, Frame, Problem
from watchout.client.http_requests import GatewayHttp
from watchout.client.tokens import Token, TokenSource
from watchout.client.viewer_core import Subscriber, SubscriptionOptions, ViewerCore
from watchout.common.alerts.model import STREAM_ID
from watchout.common.toolbox.gateway_address import gateway_url

_log: Final = logging.getLogger("watchout.client")

#: Frames that may be under way to a viewer without an acknowledgement.
VIEWER_WINDOW: Final = 4
MAX_MESSAGE_BYTES: Final = 16 << 20
#: Least `silence_s`, in seconds: a gateway sends pings at intervals of 5 s or more.
LEAST_SILENCE_S: Final = 10.0


def connect(
    url: str,
    *,
    token: Token,
    wait_s: float | None = None,
    silence_s: float = 15.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    on_phase: Callable[[PhaseChanged], None] | None = None,
    on_problem: Callable[[Problem], None] | None = None,
) -> Client:
    """Return a client of a gateway, an async context manager. Nothing is opened until something is subscribed.

    Args:
        url: the gateway: ``ws://host:port``, ``wss://…``, also ``http://`` or ``https://``.
        token: the session token, or a function that returns it or an awaitable of it. The function is called for the
            first connection, when the token is refused or its session ended, and before a JWT expires; never twice at
            a time. It may take one argument, the reason of the call: ``connect``, ``rejected``, ``ended`` or
            ``expiring``. A function that is not a coroutine function runs in a thread. It raises `NoToken` when nobody
            is signed in; after any other exception, which is logged, it is called again after a pause.
        wait_s: seconds within which the first connection must be established, else `Unreachable` is raised; None: no
            limit.
        silence_s: seconds without any message, pings included, after which a connection counts as lost and the client
            reconnects; at least 10.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.
        on_phase: called with each `PhaseChanged` of a connection; None: lost connections are logged. Exceptions that it
            raises are logged.
        on_problem: called with each `Problem`; None: problems are logged. Exceptions that it raises are logged.

    Raises:
        ValueError: an argument is wrong; the text says what is expected.
    """
    return Client(
        url,
        token,
        wait_s=wait_s,
        silence_s=silence_s,
        max_message_bytes=max_message_bytes,
        on_phase=on_phase,
        on_problem=on_problem,
    )


class Client:
    """One user at one gateway: all subscriptions over one socket, one socket per camera. Made by `connect`.

    The client reconnects and subscribes again when a connection is lost; alerts that were raised meanwhile are
    delivered once and in order. A fatal error is raised where the subscription or camera is used.

    Args:
        url: see `connect`.
        token: see `connect`.
        wait_s: see `connect`.
        silence_s: see `connect`.
        max_message_bytes: see `connect`.
        on_phase: see `connect`.
        on_problem: see `connect`.

    Raises:
        ValueError: an argument is wrong.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        wait_s: float | None,
        silence_s: float,
        max_message_bytes: int,
        on_phase: Callable[[PhaseChanged], None] | None,
        on_problem: Callable[[Problem], None] | None,
    ) -> None:
        if not LEAST_SILENCE_S <= silence_s < float("inf"):
            raise ValueError(f"silence_s is {silence_s}, expected at least {LEAST_SILENCE_S:g} seconds")
        self.url = gateway_url(url)
        self._tokens = TokenSource(token)
        self._options = ConnectionOptions(
            silence_s=silence_s, refreshable=self._tokens.refreshable, impatient=wait_s is not None
        )
        self._wait_s = wait_s
        self._max_message_bytes = max_message_bytes
        self._on_phase = on_phase
        self._on_problem = on_problem
        self._viewer: Driver[ViewerCore] | None = None
        self._former: list[Driver[ViewerCore]] = []
        self._subscriptions: dict[int, Subscription] = {}
        self._cameras: set[AsyncCamera] = set()
        self._http: GatewayHttp | None = None
        self._closed = False

    @property
    def state(self) -> ConnectionPhase:
        """The phase of the connection that subscriptions share."""
        if self._closed:
            return ConnectionPhase.CLOSED
        return ConnectionPhase.IDLE if self._viewer is None else self._viewer.core.phase

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is queued, then close all subscriptions and cameras; their iterators end."""
        self._closed = True
        async with contextlib.AsyncExitStack() as stack:  # a cancellation ends one of these, and the others as well
            if self._http is not None:
                stack.push_async_callback(self._http.close)
            stack.push_async_callback(self._tokens.close)
            for subscription in self._subscriptions.values():
                stack.callback(subscription.news.set)
            for viewer in reversed([*self._former, *([] if self._viewer is None else [self._viewer])]):
                stack.push_async_callback(viewer.close)
            for camera in self._cameras:
                stack.push_async_callback(camera.close)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(
        self,
        stream_id: str,
        *,
        frames: bool = True,
        alerts: bool = True,
        max_fps: float | None = None,
        window: int | None = VIEWER_WINDOW,
        binary: bool = True,
        last_frame: bool = True,
        alerts_since: int | None = None,
        frames_waiting: int = 1,
    ) -> Subscription:
        """Return a subscription, an async context manager and iterator of its events.

        Entering it waits until the gateway has confirmed the subscription, and raises if the gateway refuses it. All
        subscriptions of one client share one socket, also several of one stream.

        Args:
            stream_id: the stream; it need not exist yet.
            frames: whether its frames are wanted.
            alerts: whether its alerts are wanted.
            max_fps: most frames per second; None: all.
            window: most frames under way without an acknowledgement, so that none queue in proxies; None: no limit.
            binary: receive frames without base64; False: as JSON, with the fields that a camera added.
            last_frame: whether the newest frame is sent at once, before the camera sends the next.
            alerts_since: time in ms since 1970; alerts since then are delivered first.
            frames_waiting: most frames that wait here for a slow program. 1: only the newest waits. More, up to
                `window`: none is replaced here; a frame is acknowledged when the program takes it, and the gateway
                drops those that exceed the window.

        Raises:
            ValueError: an argument is wrong; the text says what is expected.
        """
        if not (frames or alerts):
            raise ValueError("frames and alerts are both False, expected one of them")
        if frames_waiting < 1 or (frames_waiting > 1 and frames_waiting > (window or 0)):
            raise ValueError(f"frames_waiting is {frames_waiting}, expected 1 up to the window, {window}")
        if max_fps is not None and not 0 < max_fps < float("inf"):
            raise ValueError(f"max_fps is {max_fps}, expected frames per second above 0")
        options = SubscriptionOptions(
            stream_id=_checked_stream(stream_id),
            frames=frames,
            alerts=alerts,
            max_fps=max_fps,
            window=window,
            binary=binary,
            last_frame=last_frame,
            alerts_since=alerts_since,
            frames_waiting=frames_waiting,
            ack_when_taken=frames_waiting > 1,
        )
        return Subscription(self, options)

    def camera(
        self,
        stream_id: str | None = None,
        *,
        window: int | None = 2,
        info: Mapping[str, Any] | None = None,
        alerts: bool = True,
        demand: bool = True,
        binary: bool = True,
        quality: int = 80,
    ) -> AsyncCamera:
        """Return a camera, an async context manager. Entering it waits until its stream is registered.

        Args:
            stream_id: the camera's stream; None: the gateway makes an id.
            window: most frames under way without an acknowledgement, 1 to 32, so that old pictures do not fill a slow
                uplink; None: no limit. There is none either for a gateway that does not acknowledge frames.
            info: what viewers may know about the device, a JSON object of at most 4 KiB.
            alerts: whether the camera receives the alerts of its stream, also those of the ML service.
            demand: whether the camera receives the demand: the frame rate and formats that are worth sending.
            binary: send frames without base64.
            quality: JPEG quality of numpy arrays, 1 to 100.

        Raises:
            ValueError: an argument is wrong; the text says what is expected.
        """
        if window is not None and not 1 <= window <= 32:
            raise ValueError(f"window is {window}, expected 1 to 32, or None")
        options = CameraOptions(
            stream_id=None if stream_id is None else _checked_stream(stream_id),
            window=window,
            info=info,
            alerts=alerts,
            demand=demand,
        )
        camera = AsyncCamera(
            lambda camera: self._driver(
                CameraCore(self._options, options, random.random), camera.on_report, camera.on_wake
            ),
            binary=binary,
            quality=quality,
            max_message_bytes=self._max_message_bytes,
            on_closed=self._cameras.discard,
        )
        self._cameras.add(camera)
        return camera

    async def acknowledge(self, alert: Alert | str, *, stream_id: str | None = None, note: str | None = None) -> None:
        """Acknowledge an alert; everybody who received the alert is notified once.

        Args:
            alert: the alert, or its id.
            stream_id: the stream of the alert; required when `alert` is an id.
            note: a text for the other users.

        Raises:
            ValueError: `stream_id` is missing.
            Refused: the gateway refuses it, or is of a release without acknowledgements.
            NoAnswer: it was not confirmed in time.
        """
        stream = alert.stream_id if isinstance(alert, Alert) else stream_id
        if stream is None:
            raise ValueError("stream_id is missing: an alert's id alone does not name its stream")
        viewer = self.viewer()
        alert_id = alert.id if isinstance(alert, Alert) else alert
        key, commands = viewer.core.acknowledge(stream, alert_id, note, viewer.now)
        try:
            await viewer.wait_done(key, commands, REPLY_S)
        except TimeoutError:
            raise NoAnswer(f"the acknowledgement of alert {alert_id} was not confirmed in time") from None
        finally:
            viewer.core.give_up(key)

    # ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────

    async def streams(self) -> list[dict[str, Any]]:
        """Return the streams that this user may view, as ``GET /streams`` describes them."""
        return await self._requests().streams()

    async def alerts(
        self,
        stream_id: str | None = None,
        *,
        since: int | None = None,
        limit: int | None = None,
        severity: str | None = None,
    ) -> list[Alert]:
        """Return recent alerts that the gateway keeps, newest last.

        Args:
            stream_id: the stream; None: all streams whose alerts this user may receive.
            since: ms since 1970; None: all that are kept.
            limit: most alerts; the newest are returned. None: the gateway's default.
            severity: the lowest severity to return; None: all.
        """
        return await self._requests().alerts(stream_id, since=since, limit=limit, severity=severity)

    async def snapshot(self, stream_id: str) -> Frame | None:
        """Return the newest frame of a stream; None when there is none, or this user may not view it."""
        return await self._requests().snapshot(_checked_stream(stream_id))

    async def share(self, stream_id: str, seconds: int, *, alerts: bool = False) -> dict[str, Any]:
        """Return a new share of a stream of one's own; its `token` lets others view the stream.

        Args:
            stream_id: the stream.
            seconds: how long the share lasts.
            alerts: whether its alerts are shared as well.
        """
        return await self._requests().share(_checked_stream(stream_id), seconds, alerts=alerts)

    async def shares(self, stream_id: str) -> list[dict[str, Any]]:
        """Return the shares of a stream of one's own, without their tokens."""
        return await self._requests().shares(_checked_stream(stream_id))

    async def unshare(self, stream_id: str, share_id: str) -> None:
        """End a share, and its sockets within two seconds.

        Args:
            stream_id: the stream.
            share_id: the `id` of the share.

        Raises:
            Refused: there is no such share, or the stream is another user's.
        """
        await self._requests().unshare(_checked_stream(stream_id), share_id)

    # ── for subscriptions and cameras ────────────────────────────────────────────────────────────────────────────

    def viewer(self) -> Driver[ViewerCore]:
        """Return the connection that subscriptions share.

        Raises:
            ClientClosed: this client is closed.
        """
        if self._closed:
            raise ClientClosed("this client is closed")
        if self._viewer is not None and self._viewer.core.is_closed:  # it is closed for good: connect anew
            self._former.append(self._viewer)
            self._viewer = None
        if self._viewer is None:
            self._viewer = self._driver(ViewerCore(self._options, random.random), self._report, self._wake)
        return self._viewer

    def enter(self, key: int, subscription: Subscription) -> None:
        """Enter a subscription, which then receives what arrives for its key.

        Args:
            key: the key that `ViewerCore.add` returned.
            subscription: the subscription.
        """
        self._subscriptions[key] = subscription

    def leave(self, key: int) -> None:
        """Remove a subscription."""
        self._subscriptions.pop(key, None)

    def _driver(self, core: Any, on_report: Callable[[Any], None], on_wake: Callable[[int], None]) -> Driver[Any]:
        if self._closed:
            raise ClientClosed("this client is closed")
        return Driver(
            core,
            url=self.url,
            tokens=self._tokens,
            max_message_bytes=self._max_message_bytes,
            wait_s=self._wait_s,
            on_phase=self._phase_changed,
            on_report=lambda event: self._report(event) if isinstance(event, Problem) else on_report(event),
            on_wake=on_wake,
        )

    def _wake(self, key: int) -> None:
        subscription = self._subscriptions.get(key)
        if subscription is not None:
            subscription.news.set()

    def _phase_changed(self, change: PhaseChanged) -> None:
        if self._on_phase is not None:
            _tell(self._on_phase, change)
        elif change.phase is ConnectionPhase.WAITING:
            _log.warning("%s: %s; trying again in %.1f s", self.url, change.reason, change.delay_s)

    def _report(self, event: Any) -> None:
        if not isinstance(event, Problem):
            return
        if self._on_problem is not None:
            _tell(self._on_problem, event)
        else:
            about = f" about {event.stream_id}" if event.stream_id else ""
            _log.warning("%s reports%s %s: %s", self.url, about, event.code, event.message)

    def _requests(self) -> GatewayHttp:
        if self._closed:
            raise ClientClosed("this client is closed")
        if self._http is None:
            self._http = GatewayHttp(self.url, self._tokens, self._max_message_bytes)
        return self._http


class Subscription(AsyncIterator[Event]):
    """A subscription of one stream: an async context manager and iterator. Made by `Client.subscribe`.

    Only the newest frame waits; alerts and status wait in order, and are returned before it. One task may iterate.

    Args:
        client: the client that made it.
        options: what to subscribe to.

    Attributes:
        news: set when an event waits, or the subscription has ended.
    """

    def __init__(self, client: Client, options: SubscriptionOptions) -> None:
        self.stream_id = options.stream_id
        self.news = asyncio.Event()
        self._client = client
        self._options = options
        self._driver: Driver[ViewerCore] | None = None
        self._subscriber: Subscriber | None = None
        self._key = 0
        self._ended = False

    @property
    def recovered(self) -> bool | None:
        """Whether no alert is missing since `alerts_since` or the last lost connection; None: not known."""
        return None if self._subscriber is None else self._subscriber.recovered

    @property
    def connection(self) -> int:
        """Number of the client's connection, from 1, one more with each reconnect; 0: none yet."""
        return 0 if self._driver is None else self._driver.core.connection

    @property
    def replaced(self) -> int:
        """Number of frames that were replaced by newer ones before the program took them."""
        return 0 if self._subscriber is None else self._subscriber.inbox.replaced

    async def __aenter__(self) -> Self:
        _, subscriber = self._open()
        try:
            while True:
                if subscriber.error is not None:
                    raise subscriber.error
                if subscriber.confirmed:
                    return self
                self._check_open()
                await self._wait()
        except BaseException:
            self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    async def __anext__(self) -> Event:
        """Wait for the next event and return it.

        Raises `StopAsyncIteration` after this program closed the subscription, else the error that ended it.
        """
        driver, subscriber = self._open()
        while not self._ended:
            event, commands = driver.core.take(self._key, driver.now)
            driver.do(commands)
            if event is not None:
                return event
            if subscriber.error is not None:
                raise subscriber.error
            if self._client.state is ConnectionPhase.CLOSED:
                break
            await self._wait()
        raise StopAsyncIteration

    def pause(self) -> None:
        """Receive no frames until `resume`; alerts and status continue."""
        self._change(frames=False)

    def resume(self) -> None:
        """Receive frames again, if the subscription is for frames."""
        self._change(frames=self._options.frames)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the frames only."""
        async for event in self:
            if isinstance(event, Frame):
                yield event

    def _open(self) -> tuple[Driver[ViewerCore], Subscriber]:
        if self._driver is None or self._subscriber is None:
            driver = self._driver = self._client.viewer()
            self._key, commands = driver.core.add(self._options, driver.now)
            self._subscriber = driver.core.subscriber(self._key)
            self._client.enter(self._key, self)
            driver.do(commands)
        return self._driver, self._subscriber

    def _change(self, *, frames: bool) -> None:
        driver, _ = self._open()
        if not self._ended:
            driver.do(driver.core.change(self._key, replace(self._options, frames=frames), driver.now))

    async def _wait(self) -> None:
        self.news.clear()
        await self.news.wait()

    def _check_open(self) -> None:
        if self._client.state is ConnectionPhase.CLOSED:
            raise ClientClosed("this client is closed")

    def _end(self) -> None:
        if self._driver is not None and not self._ended:
            self._ended = True
            self.news.set()
            driver = self._driver
            driver.do(driver.core.remove(self._key, driver.now))
            self._client.leave(self._key)


def _tell(listener: Callable[[Any], None], news: Any) -> None:
    """Call a function of the program; log an exception that it raises, so that subscriptions and cameras go on."""
    try:
        listener(news)
    except Exception:
        _log.exception("%r failed on %r", listener, news)


def _checked_stream(stream_id: str) -> str:
    if not STREAM_ID.match(stream_id):
        raise ValueError(f"{stream_id!r} is not a stream id: 1 to 128 of A-Z a-z 0-9 _ . : -")
    return stream_id


__all__ = ["Client", "Subscription", "connect"]
