"""Runs a core of `watchout.client` without socket and clock: keeps what it does, and plays the gateway."""

from __future__ import annotations

from typing import Any

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
from watchout.client.events import Event, Frame
from watchout.client.viewer_core import SubscriptionOptions, ViewerCore
from watchout.common.media.frames import Frame as WireFrame

#: The gateway's time at `now` 0, in ms since 1970.
SERVER_MS = 1_700_000_000_000


class CoreRun:
    """One core, a clock that is set by hand, and a gateway of a few words.

    `auto_token`: tokens are delivered at once, `t1`, `t2`, …; `echoes`: the gateway answers with request ids.
    """

    def __init__(
        self, core: Any = None, *, refreshable: bool = True, auto_token: bool = True, echoes: bool = True,
        chance: float = 1.0, camera: CameraOptions | None = None, **options: Any,
    ) -> None:  # fmt: skip
        made = ConnectionOptions(refreshable=refreshable, **options)
        if core is None:
            core = ViewerCore(made, lambda: chance) if camera is None else CameraCore(made, camera, lambda: chance)
        self.core = core
        self.now = 0.0
        self.echoes = echoes
        self.auto_token = auto_token
        self.same_token = False
        self.expires_in_s: float | None = None
        #: What the core did, and did not do twice.
        self.sent: list[dict[str, Any]] = []
        self.opened = 0
        self.asked_tokens: list[str] = []
        self.phases: list[PhaseChanged] = []
        self.done: dict[int, Exception | None] = {}
        self.reports: list[Any] = []
        self.error: Exception | None = None
        self.closes: list[bool] = []
        self.is_open = False
        #: Token callbacks under way.
        self.fetching = 0

    # ── the core ─────────────────────────────────────────────────────────────────────────────────────────────────

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    assert self.is_open, "nothing is sent without a socket"
                    self.sent.append(dict(message))
                case FetchToken(why):
                    self.asked_tokens.append(why)
                    self.fetching += 1
                    assert self.fetching == 1, "two token callbacks at a time"
                    if self.auto_token:
                        self.token()
                case OpenSocket():
                    assert not self.is_open
                    self.opened += 1
                case CloseSocket(abort):
                    self.closes.append(abort)
                    self.is_open = False
                case PhaseChanged():
                    self.phases.append(command)
                case Done(key, error):
                    self.done[key] = error
                case Report(event):
                    self.reports.append(event)
                case Failed(error):
                    assert self.error is None
                    self.error = error

    def token(self, text: str | None = None) -> None:
        self.fetching -= 1
        number = 1 if self.same_token else len(self.asked_tokens)
        expires = None if self.expires_in_s is None else SERVER_MS / 1000 + self.now + self.expires_in_s
        self.do(self.core.on_token(text or f"t{number}", expires, self.now))

    def token_fails(self, error: Exception | None = None, *, for_good: bool = False) -> None:
        self.fetching -= 1
        self.do(self.core.on_token_failed(error or RuntimeError("no net"), self.now, for_good=for_good))

    def until(self, now: float) -> None:
        """Let time pass; the core is called whenever it asked for that."""
        for _ in range(10_000):
            due = self.core.due_at
            if due is None or due > now:
                self.now = now
                return
            self.now = max(self.now, due)
            before = due
            self.do(self.core.on_time(self.now))
            assert self.core.due_at != before or self.core.due_at is None or self.now < before, "due for ever"
        raise AssertionError("the core is due again and again")

    def keep(self, until: float) -> None:
        """Let time pass on a connection that lives: the gateway sends its pings."""
        while self.now < until:
            self.until(min(until, self.now + 5))
            if self.is_open:
                self.say("ping")

    @property
    def phase(self) -> ConnectionPhase:
        phase: ConnectionPhase = self.core.phase
        return phase

    # ── the gateway ──────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        self.is_open = True
        self.do(self.core.on_open(self.now))

    def say(self, type: str, **fields: Any) -> None:
        assert self.is_open
        message = {"type": type, "timestamp": SERVER_MS + int(self.now * 1000), **fields}
        self.do(self.core.on_message(message, self.now))

    def answer(self, request: dict[str, Any] | None = None, *, error: str | None = None, **fields: Any) -> None:
        """Answer a request, the last one that was sent, with success or this error code."""
        request = [each for each in self.sent if "requestId" in each][-1] if request is None else request
        if self.echoes:
            fields.setdefault("requestId", request["requestId"])
        events = {"auth": "authenticated", "register": "registered", "subscribe": "subscribed"}
        stream = request.get("streamId")
        if stream is not None and (self.echoes or error is None):
            fields.setdefault("streamId", stream)
        if error is not None:
            self.say("error", code=error, message="said the gateway", **fields)
        else:
            self.say("success", event=events.get(request["type"], request["type"]), message="Success", **fields)

    def sign_in(self) -> None:
        """Open and accept the token."""
        self.open()
        self.answer()

    def close(self, code: int | None, reason: str = "") -> None:
        self.is_open = False
        self.do(self.core.on_close(code, reason, self.now))

    # ── a viewer ─────────────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, stream: str = "cam", **options: Any) -> int:
        key, commands = self.core.add(SubscriptionOptions(stream_id=stream, **options), self.now)
        self.do(commands)
        return int(key)

    def unsubscribe(self, key: int) -> None:
        self.do(self.core.remove(key, self.now))

    def frame(self, number: int, stream: str = "cam") -> None:
        wire = WireFrame(stream, number, 1000 + number, picture=b"\xff\xd8\xff")
        self.do(self.core.on_frame(Frame(wire), self.now))

    def alert(self, name: str, stream: str = "cam") -> None:
        self.say("alert", id=name, streamId=stream, severity="low", message=name)

    def take(self, key: int) -> list[Event]:
        """Everything that waits for a subscription."""
        found: list[Event] = []
        while True:
            event, commands = self.core.take(key, self.now)
            self.do(commands)
            if event is None:
                return found
            found.append(event)

    def of(self, type: str) -> list[dict[str, Any]]:
        """The messages of a type that were sent."""
        return [message for message in self.sent if message["type"] == type]


def online(**options: Any) -> CoreRun:
    """A viewer with one subscription to `cam`, key 1 or later in `run.key`, confirmed."""
    run = CoreRun(**options)
    run.key = run.subscribe()  # type: ignore[attr-defined]
    run.sign_in()
    run.answer()
    return run
