"""State machine of a viewer: its subscriptions, which share one socket, and what they receive. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from watchout.client.commands import Command, Done, Send, Wake
from watchout.client.connection_core import ConnectionCore
from watchout.client.connection_parts import ConnectionOptions, Request
from watchout.client.errors import TRANSIENT, refusal
from watchout.client.events import (
    Acknowledged,
    Alert,
    Event,
    Frame,
    Recovery,
    read_acknowledged,
    read_alert,
    read_status,
    whole,
)
from watchout.client.inbox import Inbox

#: Alerts are requested again from this many ms before the connection was lost: clocks of gateways differ.
REPLAY_SLACK_MS: Final = 5000


_keys: Final = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """What a program subscribes to.

    Attributes:
        stream_id: the stream.
        frames: whether frames are received.
        alerts: whether alerts are received.
        max_fps: most frames per second; None: all.
        window: most frames under way to this client; None: no limit.
        binary: frames as binary messages, without base64; False: JSON, with the fields that a camera added.
        last_frame: whether the newest frame is sent at once.
        alerts_since: time in ms since 1970; alerts since then are delivered first.
        frames_waiting: most frames that wait for the program; past it the oldest is dropped.
        ack_when_taken: a frame is acknowledged when the program takes the next one; False: when it arrives, so that the
            newest frame is always here.
    """

    stream_id: str
    frames: bool = True
    alerts: bool = True
    max_fps: float | None = None
    window: int | None = None
    binary: bool = True
    last_frame: bool = True
    alerts_since: int | None = None
    frames_waiting: int = 1
    ack_when_taken: bool = False


@dataclass(slots=True)
class Subscriber:
    """One subscription of the program, made by `ViewerCore.add`; several may share the one that the gateway has of
    their stream. `error` is raised to the program when it asks for the next frame or alert.
    """

    options: SubscriptionOptions
    inbox: Inbox
    error: Exception | None = None
    #: Whether the gateway has confirmed it, now or on an earlier connection.
    confirmed: bool = False
    recovered: bool | None = None
    #: Whether alerts before the next one may be missing.
    gap: bool = False
    #: The frame that the program took last; acknowledged when it takes the next.
    taken: Frame | None = None


@dataclass(slots=True)
class _Stream:
    """The subscription at the gateway that all subscribers of one stream share."""

    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    #: The `subscribe` message that was sent on this connection; None: not sent yet.
    asked: dict[str, Any] | None = None
    confirmed: bool = False
    #: The gateway's time when the last connection with it was lost, in ms since 1970; None: never confirmed.
    alive_ms: int | None = None
    #: The gateway's time when it first confirmed the subscription: earlier alerts were not requested.
    began_ms: int | None = None
    #: Whether alerts since the last connection may be missing.
    lost: bool = False
    #: Time since which alerts are requested, in ms since 1970.
    since_ms: int | None = None
    attempt: int = 0
    retry_at: float | None = None
    #: The newest frame that was acknowledged on this connection.
    acknowledged: int = 0


class ViewerCore(ConnectionCore):
    """The subscriptions of one client; their `key` is given by `add`. As in `ConnectionCore`, `now` is in monotonic
    seconds, and methods return a list of `Command`.

    Args:
        options: how the connection behaves.
        chance: returns random numbers between 0 and 1.
    """

    path = "/streams/subscribe"

    def __init__(self, options: ConnectionOptions, chance: Callable[[], float]) -> None:
        super().__init__(options, chance)
        self._streams: dict[str, _Stream] = {}
        self._subscribers: dict[int, Subscriber] = {}
        self._acknowledgements: dict[int, dict[str, Any]] = {}

    @property
    def placement(self) -> str | None:
        """The stream, if all subscriptions are of one."""
        names = list(self._streams)
        return names[0] if len(names) == 1 else None

    # ── what the program does ────────────────────────────────────────────────────────────────────────────────────

    def add(self, options: SubscriptionOptions, now: float) -> tuple[int, list[Command]]:
        """Subscribe; return the key of the subscription, and commands."""
        key = next(_keys)
        subscriber = self._subscribers[key] = Subscriber(options, Inbox(options.max_fps, options.frames_waiting))
        stream = self._streams.setdefault(options.stream_id, _Stream())
        if options.alerts and options.alerts_since is not None:
            stream.since_ms = min(options.alerts_since, stream.since_ms or options.alerts_since)
        stream.subscribers[key] = subscriber
        self._ask_anew(stream)  # also for the same options: the new subscriber gets status and frame
        return key, [*self.start(), *self._ask(now)]

    def remove(self, key: int, now: float) -> list[Command]:
        """End a subscription; with the last one of a stream, unsubscribe at the gateway."""
        subscriber = self._subscribers.pop(key, None)
        if subscriber is None:
            return []
        name = subscriber.options.stream_id
        stream = self._streams.get(name)
        if stream is None or stream.subscribers.pop(key, None) is None:
            return []
        if not stream.subscribers:
            del self._streams[name]
            if stream.asked is None or not self.is_online:
                return self._ask(now)
            return [*self._request({"type": "unsubscribe", "streamId": name}, "unsubscribe", name, now, stream_id=name)]
        if stream.asked is not None and self._message(name, stream, None) != _wishes(stream.asked):
            self._ask_anew(stream)
        return self._ask(now)

    def change(self, key: int, options: SubscriptionOptions, now: float) -> list[Command]:
        """Change the options of a subscription.

        Args:
            key: key of the subscription.
            options: the options from now on; the stream is the same.
            now: monotonic seconds.
        """
        subscriber = self._subscribers[key]
        stream = self._streams.get(options.stream_id)
        subscriber.options = options
        if (
            stream is None
            or stream.asked is None
            or self._message(options.stream_id, stream, None) == _wishes(stream.asked)
        ):
            return []
        self._ask_anew(stream)
        return self._ask(now)

    def take(self, key: int, now: float) -> tuple[Event | None, list[Command]]:
        """Return the next event of a subscription, None when nothing waits; and commands."""
        subscriber = self._subscribers[key]
        stream = self._streams.get(subscriber.options.stream_id)
        commands: list[Command] = []
        if subscriber.taken is not None and stream is not None:
            commands += self._acknowledge(stream, subscriber.taken)
            subscriber.taken = None
        event = subscriber.inbox.take()
        if event is None and subscriber.inbox.lagging and stream is not None and stream.confirmed:
            subscriber.inbox.lagging = False
            self._ask_anew(stream)
            return None, [*commands, *self._ask(now)]
        if isinstance(event, Frame) and subscriber.options.ack_when_taken:
            subscriber.taken = event
        return event, commands

    def subscriber(self, key: int) -> Subscriber:
        """Return the state of a subscription."""
        return self._subscribers[key]

    def acknowledge(self, stream_id: str, alert_id: str, note: str | None, now: float) -> tuple[int, list[Command]]:
        """Acknowledge an alert. `Done` with the returned key reports the result.

        Args:
            stream_id: the stream.
            alert_id: the alert.
            note: a text for the other users; None: none.
            now: monotonic seconds.
        """
        key = next(_keys)
        message = {"type": "acknowledge", "streamId": stream_id, "alertId": alert_id}
        if note is not None:
            message["note"] = note
        self._acknowledgements[key] = message
        commands = self.start()
        if self.is_online:
            commands += self._request(message, "acknowledge", key, now)
        return key, commands

    def give_up(self, key: int) -> None:
        """Forget an acknowledgement whose result is not awaited any more."""
        self._acknowledgements.pop(key, None)

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame(self, frame: Frame, now: float) -> list[Command]:
        """Process a frame: for each subscriber the newest one waits."""
        if not self.is_online:
            return []
        self.on_heard(now)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            return []
        commands: list[Command] = []
        will_be_taken = False
        asked_fps = None if stream.asked is None else stream.asked.get("maxFps")
        for key, subscriber in stream.subscribers.items():
            wanted = subscriber.options
            sample = wanted.max_fps is not None and asked_fps != wanted.max_fps
            if wanted.frames and subscriber.inbox.put_frame(frame, now, sample=sample):
                will_be_taken = True
                commands.append(Wake(key))
        if not will_be_taken or not all(each.options.ack_when_taken for each in stream.subscribers.values()):
            commands += self._acknowledge(stream, frame)
        return commands

    def _acknowledge(self, stream: _Stream, frame: Frame) -> list[Command]:
        """Acknowledge all frames up to this one, if the subscription has a window."""
        asked = stream.asked
        if asked is None or "window" not in asked or frame.frame_id <= stream.acknowledged or not self.is_online:
            return []
        stream.acknowledged = frame.frame_id
        return [Send({"type": "ack", "streamId": frame.stream_id, "frameId": frame.frame_id})]

    def _on_online(self, now: float) -> list[Command]:
        commands = self._ask(now)
        for key, message in self._acknowledgements.items():
            commands += self._request(message, "acknowledge", key, now)
        return commands

    def _on_echoes(self, now: float) -> list[Command]:
        return self._ask(now)

    def _on_lost(self) -> list[Command]:
        for stream in self._streams.values():
            if stream.confirmed:
                stream.alive_ms, stream.lost = self.alive_ms, True
            stream.asked, stream.confirmed, stream.attempt, stream.retry_at = None, False, 0, None
        return []

    def _on_failed(self, error: Exception) -> list[Command]:
        for subscriber in self._subscribers.values():
            subscriber.error = subscriber.error or error
        commands: list[Command] = [Wake(key) for key in self._subscribers]
        commands += [Done(key, error) for key in self._acknowledgements]
        self._acknowledgements.clear()
        return commands

    def _on_other(self, message: Mapping[str, Any], now: float) -> list[Command]:  # noqa: ARG002 - for cameras
        stream = self._streams.get(str(message.get("streamId")))
        kind = message.get("type")
        if kind == "error":
            return self._on_error(message)
        if stream is None:
            return []
        event: Event
        if kind == "alert":
            event = read_alert(message)
        elif kind == "status":
            event = read_status(message)
        elif kind == "alert-acknowledged":
            event = read_acknowledged(message)
        else:
            return []
        commands = self._confirm_by(event) if isinstance(event, Acknowledged) else []
        for key, subscriber in stream.subscribers.items():
            if kind != "status" and not subscriber.options.alerts:
                continue
            was_lagging = subscriber.inbox.lagging
            own = replace(event, recovered=False) if isinstance(event, Alert) and subscriber.gap else event
            if subscriber.inbox.put(own):
                subscriber.gap = subscriber.gap and not isinstance(event, Alert)
                commands.append(Wake(key))
            elif subscriber.inbox.lagging and not was_lagging:
                stream.since_ms = max(0, self.alive_ms - REPLAY_SLACK_MS)
        return commands

    def _confirm_by(self, event: Acknowledged) -> list[Command]:
        """Take the notification of an acknowledgement as the reply to our own, which an older gateway does not send."""
        about = (event.stream_id, event.alert_id)
        keys = [key for key, asked in self._acknowledgements.items() if (asked["streamId"], asked["alertId"]) == about]
        for key in keys:
            del self._acknowledgements[key]
        return [Done(key) for key in keys]

    def _on_error(self, message: Mapping[str, Any]) -> list[Command]:
        """Handle an error that answers no request: it may end a subscription that was confirmed."""
        name, code = str(message.get("streamId")), str(message.get("code", ""))
        if name in self._streams and code == "UNAUTHORIZED":
            return self._end_stream(name, refusal(code, str(message.get("message", "")), name))
        return self._problem(message)

    def _on_answer(self, request: Request, message: Mapping[str, Any], now: float) -> list[Command]:
        success = message.get("type") == "success"
        code, text = str(message.get("code", "")), str(message.get("message", ""))
        if request.kind == "acknowledge":
            self._acknowledgements.pop(request.target, None)
            return [Done(request.target, None if success else refusal(code, text))]
        if request.kind == "unsubscribe":
            return [] if success else self._problem(message)
        name, asked = request.target
        stream = self._streams.get(name)
        if stream is None or stream.asked is not asked:  # it was requested again, or ended meanwhile
            return self._ask(now)
        if success:
            return [*self._confirmed(name, stream, message), *self._ask(now)]
        if code in TRANSIENT:
            stream.retry_at = now + self._retry_s(stream.attempt)
            stream.attempt += 1
            return [*self._problem(message), *self._ask(now)]
        return [*self._end_stream(name, refusal(code, text, name)), *self._ask(now)]

    def _confirmed(self, name: str, stream: _Stream, message: Mapping[str, Any]) -> list[Command]:
        stream.confirmed, stream.attempt = True, 0
        stream.lost, stream.since_ms = False, None
        stream.began_ms = self.alive_ms if stream.began_ms is None else stream.began_ms
        stream.acknowledged = 0
        recovered = message.get("recovered") is True
        commands: list[Command] = []
        for key, subscriber in stream.subscribers.items():
            since_asked = subscriber.confirmed or subscriber.options.alerts_since is not None
            if stream.asked is not None and "alertsSince" in stream.asked and subscriber.options.alerts and since_asked:
                since = message.get("from")
                subscriber.recovered = recovered
                subscriber.gap = subscriber.gap or not recovered
                subscriber.inbox.put(
                    Recovery(stream_id=name, recovered=recovered, from_ms=None if since is None else whole(since))
                )
            subscriber.confirmed = True
            commands.append(Wake(key))
        return commands

    def _end_stream(self, name: str, error: Exception) -> list[Command]:
        """End the subscriptions of one stream, not those of others."""
        stream = self._streams.pop(name)
        for subscriber in stream.subscribers.values():
            subscriber.error = error
        return [Wake(key) for key in stream.subscribers]

    def _ask_anew(self, stream: _Stream) -> None:
        """Send the subscription of a stream again; the gateway replaces the old one without a gap."""
        if stream.confirmed:
            stream.alive_ms = self.alive_ms
        stream.asked, stream.confirmed, stream.attempt, stream.retry_at = None, False, 0, None

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _due(self) -> list[float]:
        return [stream.retry_at for stream in self._streams.values() if stream.retry_at is not None]

    def _on_time(self, now: float) -> list[Command]:
        for stream in self._streams.values():
            if stream.retry_at is not None and now >= stream.retry_at:
                stream.asked = stream.retry_at = None
        return self._ask(now)

    def _ask(self, now: float) -> list[Command]:
        """Send the subscriptions that were not sent on this connection.

        A gateway without request ids gets one at a time, so that the stream of an error is known.
        """
        commands: list[Command] = []
        if not self.is_online:
            return commands
        for name, stream in self._streams.items():
            if stream.asked is not None or stream.retry_at is not None:
                continue
            if not self.echoes and self._waiting("subscribe"):
                break
            since_ms = stream.since_ms
            if stream.lost and stream.alive_ms is not None:
                alive_ms = max(stream.began_ms or 0, stream.alive_ms - REPLAY_SLACK_MS)
                since_ms = alive_ms if since_ms is None else min(since_ms, alive_ms)
            stream.asked = self._message(name, stream, since_ms)
            commands += self._request(stream.asked, "subscribe", (name, stream.asked), now, stream_id=name)
        return commands

    def _message(self, name: str, stream: _Stream, since_ms: int | None) -> dict[str, Any]:
        """Return the `subscribe` message that covers the options of all subscribers of a stream."""
        wanted = [subscriber.options for subscriber in stream.subscribers.values()]
        viewing = [options for options in wanted if options.frames]
        alerts = any(options.alerts for options in wanted)
        consumes = ["video-frame"] * bool(viewing) + ["alert"] * alerts
        message: dict[str, Any] = {"type": "subscribe", "clientType": "dashboard", "streamId": name}
        message["consumes"] = consumes
        message["format"] = "binary" if all(options.binary for options in viewing) else "json"
        rates = [options.max_fps for options in viewing]
        if viewing and None not in rates:
            message["maxFps"] = max(rate for rate in rates if rate is not None)
        windows = [options.window for options in viewing]
        if viewing and None not in windows:
            message["window"] = max(window for window in windows if window is not None)
        if viewing and not any(options.last_frame for options in viewing):
            message["lastFrame"] = False
        if alerts and since_ms is not None:
            message["alertsSince"] = since_ms
        return message


def _wishes(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key != "alertsSince"}
