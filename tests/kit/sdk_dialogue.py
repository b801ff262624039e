"""Plays a dialogue of sdk/conformance/dialogues.json against the cores of `watchout.client`.

This is the server, the app, the network and the clock, as sdk/conformance/README.md describes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.kit.processes import REPOSITORY
from watchout.client.async_camera import encode_frame
from watchout.client.camera_core import CameraCore, CameraOptions
from watchout.client.commands import (
    CloseSocket,
    Command,
    ConnectionPhase,
    Done,
    Failed,
    FetchToken,
    OpenSocket,
    PhaseChanged,
    Report,
    Send,
)
from watchout.client.connection_parts import ConnectionOptions
from watchout.client.errors import ClientClosed, Disconnected, NoToken, Refused, Unreachable
from watchout.client.events import Alert, Frame, Problem, Status, read_message
from watchout.client.viewer_core import SubscriptionOptions, ViewerCore
from watchout.common.media.frames import Frame as WireFrame
from watchout.common.media.frames import parse_binary

FILE = REPOSITORY / "sdk/conformance/dialogues.json"
#: The wall clock at the beginning, in ms since 1970.
WALL_MS = 1_760_000_000_000

Json = Any


def load(path: Path = FILE) -> Json:
    return json.loads(path.read_text())


class _Connection:
    """A core with its fake sockets."""

    def __init__(self, player: Player, core: Any) -> None:
        self.player = player
        self.core = core
        #: Messages that the client sent on the newest socket, frames as bytes.
        self.sent: list[Json] = []
        self.is_open = False
        self.opening = False
        self.error: Exception | None = None
        self.phase = PhaseChanged(ConnectionPhase.IDLE)
        self.done: dict[int, Exception | None] = {}

    def do(self, commands: list[Command]) -> None:
        for command in sorted(commands, key=lambda each: isinstance(each, FetchToken)):  # a token never comes at once
            match command:
                case Send(message):
                    assert self.is_open, f"{message} is sent without a socket"
                    self.sent.append(dict(message))
                case FetchToken(why):
                    self.player.fetch_token(self, why)
                case OpenSocket():
                    self.opening = True
                    self.player.openings.append(self)
                case CloseSocket():
                    self.is_open = self.opening = False
                case PhaseChanged():
                    self.phase = command
                case Failed(error):
                    self.error = error
                case Done(key, error):
                    self.done[key] = error
                case Report(Problem() as problem):
                    self.player.errors.append((problem.stream_id or "", problem.code))


class _View:
    """A subscription of the app."""

    def __init__(self, connection: _Connection, options: SubscriptionOptions, now: float) -> None:
        self.connection = connection
        self.options = options
        self.alerts: list[Json] = []
        self.frames: list[Frame] = []
        self.status = "waiting"
        self.asked = False
        self.key, commands = connection.core.add(options, now)
        self.subscriber = connection.core.subscriber(self.key)
        connection.do(commands)

    def drain(self, now: float) -> None:
        """Take what waits, but no frame that the app has not asked for."""
        core = self.connection.core
        if not core.is_online:
            self.status = "waiting"
        if self.subscriber.error is not None:
            self.status = "forbidden"
        while any(not isinstance(each, Frame) for each in self.subscriber.inbox._messages):
            event, commands = core.take(self.key, now)
            self.connection.do(commands)
            if isinstance(event, Alert):
                self.alerts.append({"id": event.id, "recovered": event.recovered})
            elif isinstance(event, Status):
                self.status = event.status

    def ask(self, now: float) -> None:
        event, commands = self.connection.core.take(self.key, now)
        self.connection.do(commands)
        self.asked = True
        if isinstance(event, Frame):
            self.frames.append(event)

    def take(self, now: float) -> Frame:
        if not self.frames:
            self.ask(now)
        self.asked = False
        return self.frames.pop(0)


class Player:
    """One dialogue."""

    def __init__(self, dialogue: Json) -> None:
        self.dialogue = dialogue
        self.now = 0.0
        self.errors: list[tuple[str, str]] = []
        #: Sockets that clients want to open.
        self.openings: list[_Connection] = []
        self.connections: list[_Connection] = []
        self.newest: _Connection | None = None
        self.views: dict[str, _View] = {}
        self.camera: _Connection | None = None
        self.viewer: _Connection | None = None
        self.bound: dict[str, Any] = {}
        self.calls = 0
        self.cached: str | None = None
        self.silent = self.app_closed = False
        client = dialogue["client"]
        self.options = ConnectionOptions(refreshable="tokens" in client, silence_s=15)

    def play(self) -> None:
        for number, step in enumerate(self.dialogue["steps"]):
            try:
                getattr(self, f"_on_{self._kind(step)}")(step)
                self._settle()
            except Exception as error:
                error.add_note(f"step {number}: {json.dumps(step)}")
                raise
        assert self.calls == len(self.dialogue["client"].get("tokens", [])), "calls of the callback are left over"
        for connection in self.connections:
            connection.do(connection.core.stop())
            assert not connection.is_open
            assert connection.core.due_at is None

    @staticmethod
    def _kind(step: Json) -> str:
        kinds = (
            "open refuse clientFrame client serverFrame server onlySdk close closed wait network quiet world app expect"
        )
        return next(kind for kind in kinds.split() if kind in step)

    # ── the token callback ───────────────────────────────────────────────────────────────────────────────────────

    def fetch_token(self, connection: _Connection, why: str) -> None:
        client = self.dialogue["client"]
        core = connection.core
        if "token" in client:
            connection.do(core.on_token(client["token"], None, self.now))
            return
        if why == "connect" and self.cached is not None:
            connection.do(core.on_token(self.cached, None, self.now))
            return
        assert self.calls < len(client["tokens"]), f"a token was asked for once more: {why}"
        call = client["tokens"][self.calls]
        self.calls += 1
        assert why == call["why"]
        if call.get("fail"):
            connection.do(core.on_token_failed(RuntimeError("no network"), self.now, for_good=False))
        elif call["give"] is None:
            connection.do(core.on_token_failed(NoToken("nobody is signed in"), self.now, for_good=True))
        else:
            self.cached = call["give"]
            connection.do(core.on_token(call["give"], None, self.now))

    # ── the network ──────────────────────────────────────────────────────────────────────────────────────────────

    def _on_open(self, step: Json) -> None:
        connection = self._opening(step["open"], step.get("within", 0))
        connection.opening, connection.is_open = False, True
        connection.sent.clear()
        self.newest = connection
        connection.do(connection.core.on_open(self.now))

    def _on_refuse(self, step: Json) -> None:
        connection = self._opening(step["refuse"], step.get("within", 0))
        connection.opening = False
        connection.do(connection.core.on_open_failed(Unreachable("nothing is running"), self.now, for_good=False))

    def _opening(self, path: str, within_s: float) -> _Connection:
        until = self.now + within_s
        while not self.openings and self.now < until:
            self._wait(min(0.1, until - self.now))
        assert len(self.openings) == 1, f"{len(self.openings)} sockets are opened"
        connection = self.openings.pop()
        assert connection.core.path == path
        return connection

    def _on_close(self, step: Json) -> None:
        assert self.newest is not None
        if self.newest.is_open:
            self.newest.is_open = False
            code = None if step["close"] == 1006 else step["close"]
            self.newest.do(self.newest.core.on_close(code, step.get("reason", ""), self.now))

    def _on_closed(self, _: Json) -> None:
        assert self.newest is not None
        assert not self.newest.is_open

    def _on_wait(self, step: Json) -> None:
        self._wait(step["wait"])

    def _wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + 0.05)
            self._settle()

    def _on_network(self, step: Json) -> None:
        self.silent = step["network"] == "silent"

    def _settle(self) -> None:
        """Do what is due, answer pings, take what came."""
        for connection in list(self.connections):
            due = connection.core.due_at
            if due is not None and due <= self.now:
                connection.do(connection.core.on_time(self.now))
            pings = [each for each in connection.sent if isinstance(each, dict) and each["type"] == "ping"]
            for ping in pings:
                connection.sent.remove(ping)
                if not self.silent and connection.is_open:
                    answer = {"type": "pong", "timestamp": self._wall_ms()}
                    answer |= {"requestId": ping["requestId"]} if "requestId" in ping else {}
                    connection.do(connection.core.on_message(answer, self.now))
        for view in self.views.values():
            view.drain(self.now)

    def _wall_ms(self) -> int:
        return WALL_MS + int(self.now * 1000)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_client(self, step: Json) -> None:
        assert self.newest is not None
        assert self.newest.sent, "the client has sent nothing"
        self._match(self.newest.sent.pop(0), step["client"], "message")

    def _on_clientFrame(self, step: Json) -> None:  # noqa: N802 - the key of the step
        assert self.newest is not None
        frame = parse_binary(self.newest.sent.pop(0))
        assert (frame.timestamp, frame.picture.decode()) == (
            step["clientFrame"]["timestamp"],
            step["clientFrame"]["picture"],
        )

    def _on_server(self, step: Json) -> None:
        assert self.newest is not None
        message = self._filled(step.get("server") or step.get("onlySdk"))
        if self.newest.is_open:
            self.newest.do(self.newest.core.on_message(message, self.now))

    _on_onlySdk = _on_server  # noqa: N815 - the key of the step

    def _on_serverFrame(self, step: Json) -> None:  # noqa: N802 - the key of the step
        assert self.newest is not None
        told = step["serverFrame"]
        number, at, picture = told["frameId"], told["timestamp"], told["picture"].encode()
        wire = WireFrame(told["streamId"], number, at, picture=picture).to_json()
        frame = read_message(wire)
        assert isinstance(frame, Frame)
        self.newest.do(self.newest.core.on_frame(frame, self.now))

    def _match(self, came: Any, wanted: Any, where: str) -> None:
        if isinstance(wanted, str) and wanted.startswith("$"):
            if wanted == "$past":
                assert isinstance(came, int), where
                assert self._wall_ms() - 120_000 < came <= self._wall_ms(), where
            elif wanted != "$any":
                assert came is not None, where
                assert came == self.bound.setdefault(wanted, came), where
        elif isinstance(wanted, dict):
            assert isinstance(came, dict), where
            for name, value in wanted.items():
                self._match(came.get(name), value, f"{where}.{name}")
        else:
            assert came == wanted, where

    def _filled(self, value: Any) -> Any:
        if value == "$now":
            return self._wall_ms()
        if isinstance(value, str) and value.startswith("$"):
            return self.bound[value]
        if isinstance(value, dict):
            return {name: self._filled(each) for name, each in value.items()}
        return [self._filled(each) for each in value] if isinstance(value, list) else value

    # ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_world(self, _: Json) -> None:
        """Nothing: the next steps show what it does."""

    def _on_quiet(self, _: Json) -> None:
        assert self.openings == []
        assert self.newest is None or self.newest.sent == []

    def _connect(self) -> _Connection:
        """The connection of subscriptions: another one when it had failed, as `Client.viewer` does."""
        if self.viewer is None or self.viewer.core.is_closed:
            self.viewer = _Connection(self, ViewerCore(self.options, lambda: 0.5))
            self.connections.append(self.viewer)
        return self.viewer

    def _on_app(self, step: Json) -> None:
        getattr(self, f"_app_{step['app']}")(step)

    def _app_view(self, step: Json) -> None:
        names = {"maxFps": "max_fps", "alertsSince": "alerts_since"}
        given = {names.get(key, key): value for key, value in step.items() if key not in ("app", "streamId", "format")}
        given["binary"] = step.get("format") != "json"
        options = SubscriptionOptions(stream_id=step["streamId"], ack_when_taken=True, **given)
        self.views[step["streamId"]] = _View(self._connect(), options, self.now)

    def _app_ask(self, step: Json) -> None:
        self.views[step["streamId"]].ask(self.now)

    def _app_take(self, step: Json) -> None:
        frame = self.views[step["streamId"]].take(self.now)
        payload = frame._wire._payload()
        assert (frame.frame_id, payload.decode()) == (step["frameId"], step["picture"])

    def _app_pause(self, step: Json) -> None:
        self._change(step, frames=False)

    def _app_resume(self, step: Json) -> None:
        self._change(step, frames=True)

    def _change(self, step: Json, *, frames: bool) -> None:
        from dataclasses import replace

        view = self.views[step["streamId"]]
        options = replace(view.options, frames=frames)
        view.connection.do(view.connection.core.change(view.key, options, self.now))

    def _app_unview(self, step: Json) -> None:
        view = self.views.pop(step["streamId"])
        view.connection.do(view.connection.core.remove(view.key, self.now))

    def _app_camera(self, step: Json) -> None:
        given = {key: value for key, value in step.items() if key not in ("app", "streamId")}
        camera = CameraOptions(stream_id=step.get("streamId"), **given)
        self.camera = _Connection(self, CameraCore(self.options, camera, lambda: 0.5))
        self.connections.append(self.camera)
        self.camera.do(self.camera.core.start())

    def _app_send(self, step: Json) -> None:
        assert self.camera is not None
        core = self.camera.core
        assert core.has_room is step["sent"]
        if step["sent"]:
            core.on_sent(step["timestamp"], self.now)
            picture = step["picture"].encode()
            assert core.stream_id is not None
            self.camera.sent.append(encode_frame(core.stream_id, step["timestamp"], picture, binary=True))

    def _app_alert(self, step: Json) -> None:
        assert self.camera is not None
        alert = {key: step[key] for key in ("id", "severity", "message")}
        _, commands = self.camera.core.raise_alert(alert, self.now)
        self.camera.do(commands)

    def _app_connect(self, _: Json) -> None:
        """Somebody signed in again: the app subscribes again."""
        for name, view in list(self.views.items()):
            self.views[name] = _View(self._connect(), view.options, self.now)

    def _app_close(self, _: Json) -> None:
        self.app_closed = True
        for connection in self.connections:
            connection.do(connection.core.stop())

    # ── what the app sees ────────────────────────────────────────────────────────────────────────────────────────

    def _on_expect(self, step: Json) -> None:
        getattr(self, f"_expect_{step['expect']}")(step)

    def _expect_state(self, step: Json) -> None:
        self._expect_connection(self.viewer, step)

    def _expect_camera(self, step: Json) -> None:
        self._expect_connection(self.camera, step)

    def _expect_connection(self, connection: _Connection | None, step: Json) -> None:
        assert connection is not None
        assert connection.core.phase == step["is"]
        if "code" in step:
            assert self._code(connection) == step["code"]

    def _code(self, connection: _Connection) -> str:
        match connection.error:
            case None:
                return "CLOSED" if self.app_closed else connection.phase.code
            case NoToken():
                return "SIGNED_OUT"
            case ClientClosed():
                return "CLOSED"
            case Refused(code=code) | Disconnected(code=code):
                return code
        return type(connection.error).__name__

    def _expect_status(self, step: Json) -> None:
        assert self.views[step["streamId"]].status == step["is"]

    def _expect_alerts(self, step: Json) -> None:
        view = self.views[step["streamId"]]
        assert view.alerts == step["are"]
        view.alerts = []

    def _expect_error(self, step: Json) -> None:
        stream = step.get("streamId", "")
        view = self.views.get(stream)
        if view is not None and isinstance(view.subscriber.error, Refused):
            assert view.subscriber.error.code == step["code"]
            return
        assert (stream, step["code"]) in self.errors
        self.errors.remove((stream, step["code"]))

    def _expect_room(self, step: Json) -> None:
        assert self.camera is not None
        assert self.camera.core.has_room is step["is"]

    def _expect_demand(self, step: Json) -> None:
        assert self.camera is not None
        assert self.camera.core.demand is not None
        assert self.camera.core.demand.fps == step["fps"]
