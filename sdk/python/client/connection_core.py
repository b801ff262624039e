"""State machine of one connection to a gateway: sign-in, back-off, watchdog, renewal, requests and answers. Pure.

Events are method calls with the time `now` (monotonic seconds); the commands that they return are carried out by
`client.driver`, in order. The subclasses `ViewerCore` and `CameraCore` add subscriptions, and a registration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from watchout.client.commands import (
    CloseSocket,
    Command,
    ConnectionPhase,
    Failed,
    FetchToken,
    OpenSocket,
    PhaseChanged,
    Report,
    Send,
)
from watchout.client.connection_parts import (
    ASKING,
    AT_ONCE_S,
    CONNECTION_LOST,
    KINDS,
    LEAST_RENEWAL_S,
    MOST_AT_ONCE,
    NETWORK_SILENT,
    PHASES,
    RENEW_AFTER_SHARE,
    RENEW_BEFORE_S,
    RENEW_RETRY_S,
    REPLY_S,
    STEADY_S,
    ConnectionOptions,
    Request,
    Step,
)
from watchout.client.errors import (
    TRANSIENT,
    Disconnected,
    Refused,
    SessionEnded,
    TakenOver,
    TokenRefused,
    may_reconnect,
    refusal,
)
from watchout.client.events import Problem, whole
from watchout.common.errors import RECONNECT_NOW, CloseCode, ErrorCode
from watchout.common.toolbox.retry import backoff_s


class ConnectionCore(ABC):
    """State of a connection to either WebSocket path. Events are method calls with the time `now` in monotonic seconds;
    each returns the list of `Command` for the driver.

    Args:
        options: how the connection behaves.
        chance: returns random numbers between 0 and 1.
    """

    path: str

    def __init__(self, options: ConnectionOptions, chance: Callable[[], float]) -> None:
        self.options = options
        #: Whether replies of the gateway carry the `requestId` of the request; it then also knows pings and windows.
        self.echoes = False
        #: Number of the connection, from 1.
        self.connection = 0
        self._chance = chance
        self._step = Step.IDLE
        self._phase = ConnectionPhase.IDLE
        self._token = ""
        #: Tokens that were refused or whose session ended since the last stable connection.
        self._replaced = 0
        #: How the session of the present token ended; None: the token may be valid.
        self._no_good: Exception | None = None
        #: Why another token is fetched; None: the first one, or the same one, is used.
        self._former_end: Exception | None = None
        self._offered: tuple[str, float | None] = ("", None)
        self._why = "connect"
        self._attempt = 0
        #: Reconnects at once, because others took over, since the connection was stable.
        self._moves = 0
        self._resume_at: float | None = None
        self._online_at = 0.0
        self._heard_at = 0.0
        self._probed_at: float | None = None
        #: When the token expires, in seconds since 1970; None: not known.
        self._expires_at_s: float | None = None
        self._renew_at: float | None = None
        self._renewing = False
        self._renew_attempt = 0
        self._requests: dict[str, Request] = {}
        self._next_request = 1
        self._last_error: tuple[str, str] = ("", "")
        #: The newest time in a message of the gateway, in ms since 1970, and when the message arrived.
        self._server_ms = 0
        self._server_at = 0.0

    @property
    def placement(self) -> str | None:
        """The one stream that the next connection is for; None: several, or it is not known yet."""
        return None

    @property
    def target(self) -> str:
        """The path of the next connection with a query: a proxy may bring all who name a stream to one machine."""
        return self.path if self.placement is None else f"{self.path}?streamId={quote(self.placement, safe=':')}"

    # ── what the paths add ───────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _on_online(self, now: float) -> list[Command]:
        """Handle that the client is signed in: subscribe or register."""

    def _on_echoes(self, now: float) -> list[Command]:  # noqa: ARG002 - for the paths
        """Handle that the gateway turned out to know request ids."""
        return []

    @abstractmethod
    def _on_answer(self, request: Request, message: Mapping[str, Any], now: float) -> list[Command]:
        """Handle the reply, success or error, to a request of the subclass."""

    @abstractmethod
    def _on_other(self, message: Mapping[str, Any], now: float) -> list[Command]:
        """Handle any other message."""

    @abstractmethod
    def _on_lost(self) -> list[Command]:
        """Handle that the connection is lost; the client will reconnect."""

    @abstractmethod
    def _on_failed(self, error: Exception) -> list[Command]:
        """Handle that the connection is closed for good."""

    def _due(self) -> list[float]:
        """Return the times at which `_on_time` is needed."""
        return []

    def _on_time(self, now: float) -> list[Command]:  # noqa: ARG002 - for the paths
        return []

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def phase(self) -> ConnectionPhase:
        """Phase of the connection."""
        return self._phase

    @property
    def is_online(self) -> bool:
        """Whether messages may be sent."""
        return self._step is Step.ONLINE

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed for good."""
        return self._step is Step.CLOSED

    @property
    def alive_ms(self) -> int:
        """The gateway's time when its last message arrived, in ms since 1970; 0: none has arrived."""
        if not self._server_ms:
            return 0
        return self._server_ms + max(0, int((self._heard_at - self._server_at) * 1000))

    @property
    def due_at(self) -> float | None:
        """Time at which to call `on_time` at the latest; None: not before another event."""
        due: list[float] = []
        if self._step is Step.PAUSE and self._resume_at is not None:
            due.append(self._resume_at)
        if self._step in (Step.SIGN_IN, Step.ONLINE):
            due += [request.deadline for request in self._requests.values()]
        if self._step is Step.ONLINE:
            if self.echoes:
                half_s = self.options.silence_s / 2
                due.append((self._heard_at if self._probed_at is None else self._probed_at) + half_s)
            if self._renew_at is not None and not self._renewing:
                due.append(self._renew_at)
            due += self._due()
        return min(due, default=None)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> list[Command]:
        """Begin to connect; does nothing after the first call."""
        return self._fetch("connect") if self._step is Step.IDLE else []

    def stop(self) -> list[Command]:
        """Close the connection for good, without an error."""
        if self._step is Step.CLOSED:
            return []
        self._step = Step.CLOSED
        return [CloseSocket(), *self._phase_changed()]

    def on_token(self, token: str, expires_at_s: float | None, now: float) -> list[Command]:
        """Handle the token that `FetchToken` asked for.

        Args:
            token: the token.
            expires_at_s: when the token expires, in seconds since 1970; None: not known.
            now: monotonic seconds.
        """
        if self._renewing and self._step is Step.ONLINE:
            return self._renew(token, expires_at_s, now)
        if self._step is not Step.TOKEN:
            return []
        if token == self._token and self._no_good is not None:
            return self._fail(self._no_good)
        self._token, self._no_good, self._former_end, self._why = token, None, None, "connect"
        self._expires_at_s = expires_at_s
        self._renewing, self._renew_attempt, self._renew_at = False, 0, None
        self._step = Step.OPENING
        return [OpenSocket(), *self._phase_changed()]

    def on_token_failed(self, error: Exception, now: float, *, for_good: bool) -> list[Command]:
        """Handle that the token callback failed.

        Args:
            error: the exception that it raised.
            now: monotonic seconds.
            for_good: close for good; False: call it again after a pause.
        """
        if self._renewing and self._step is Step.ONLINE:
            return self._retry_renewal(now)
        if self._step is not Step.TOKEN:
            return []
        if for_good and self._former_end is not None:  # how the last session ended says more
            self._former_end.__cause__ = error
            return self._fail(self._former_end)
        return self._fail(error) if for_good else self._pause(f"no token: {error}", now, "TOKEN_UNAVAILABLE")

    def on_open(self, now: float) -> list[Command]:
        """Handle that the WebSocket is open: sign in."""
        if self._step is not Step.OPENING:
            return []
        self._step = Step.SIGN_IN
        self.connection += 1
        self.echoes = False
        self._heard_at, self._probed_at = now, None
        self._last_error = ("", "")
        message = {"type": "auth", "token": self._token, "pingEvery": self.options.ping_every}
        return self._request(message, "auth", None, now)

    def on_open_failed(self, error: Exception, now: float, *, for_good: bool) -> list[Command]:
        """Handle that the WebSocket could not be opened.

        Args:
            error: why not.
            now: monotonic seconds.
            for_good: close for good; False: try again after a pause.
        """
        if self._step is not Step.OPENING:
            return []
        return self._fail(error) if for_good else self._pause(str(error), now, CONNECTION_LOST)

    def on_close(self, code: int | None, reason: str, now: float) -> list[Command]:
        """Handle that the gateway or the network closed the socket.

        Args:
            code: the close code; None: the connection was lost without a close frame.
            reason: the text of the close frame.
            now: monotonic seconds.
        """
        if self._step not in (Step.SIGN_IN, Step.ONLINE):
            return []
        error_code, said = self._last_error
        quoted = f" ({error_code}: {said})" if error_code else ""
        if not error_code and reason in tuple(ErrorCode):  # the reason of a gateway is the error's code
            error_code = reason
        lost = error_code or reason or CONNECTION_LOST
        if code is None:
            return self._lose(f"the connection was lost{quoted}", now, error_code or CONNECTION_LOST)
        sentence = f"the gateway closed the connection with {code}{f' {reason}' if reason else ''}{quoted}"
        kind = {CloseCode.TAKEN_OVER: TakenOver, CloseCode.SESSION_ENDED: SessionEnded}.get(code, Disconnected)  # type: ignore[call-overload]
        error = kind(code, sentence, lost, said)
        if code == CloseCode.SESSION_ENDED:
            return self._replace_token("ended", error, now)
        if code == CloseCode.POLICY and error_code in (ErrorCode.AUTH_FAILED, ErrorCode.AUTH_TIMEOUT):
            return self._replace_token("rejected", error, now)
        if not may_reconnect(code):
            return self._fail(error)
        at_once = code == CloseCode.RESTART and reason == RECONNECT_NOW
        return self._lose(sentence, now, lost, at_once=at_once)

    def on_heard(self, now: float) -> None:
        """Record that a message arrived: the connection is alive, and the last error did not end it."""
        self._heard_at, self._probed_at = now, None
        self._last_error = ("", "")

    def on_message(self, message: Mapping[str, Any], now: float) -> list[Command]:
        """Process a message that is not a frame."""
        if self._step not in (Step.SIGN_IN, Step.ONLINE):
            return []
        self.on_heard(now)
        kind = message.get("type")
        if kind in ("success", "status", "ping", "pong", "error"):
            at_ms = whole(message.get("timestamp"))
            if at_ms > 0:
                self._server_ms, self._server_at = at_ms, now
        if kind == "error" and (message.get("requestId") is None or self._step is Step.SIGN_IN):
            self._last_error = (str(message.get("code", "")), str(message.get("message", "")))
        request = self._request_of(message) if kind in ("success", "error") else None
        if request is not None:
            return self._answered(request, message, now)
        if kind == "pong" and not self.echoes:
            self.echoes = True
            return self._on_echoes(now)
        if kind in ("ping", "pong"):
            return []
        if (
            kind == "error"
            and message.get("code") == ErrorCode.UNKNOWN_MESSAGE_TYPE
            and not self._waiting("acknowledge")
        ):
            return []  # the answer of an older gateway to a ping
        return self._on_other(message, now)

    def on_time(self, now: float) -> list[Command]:
        """Do what is due at `now`."""
        if self._step is Step.PAUSE and self._resume_at is not None and now >= self._resume_at:
            return self._fetch(self._why)
        if self._step not in (Step.SIGN_IN, Step.ONLINE):
            return []
        for request in [each for each in self._requests.values() if now >= each.deadline]:
            if request.kind in ASKING:
                return self._lose(f"no reply to {request.kind} within {REPLY_S:.0f} s", now, NETWORK_SILENT, abort=True)
            self._drop_request(request)
            if request.kind == "renew":
                self._retry_renewal(now)
        commands: list[Command] = []
        if self._step is Step.ONLINE:
            if self.echoes:
                half_s = self.options.silence_s / 2
                # The time for the pong begins now: this process may have stood still, with unread messages.
                if self._probed_at is not None and now >= self._probed_at + half_s:
                    text = f"nothing came for {now - self._heard_at:.0f} s"
                    return self._lose(text, now, NETWORK_SILENT, abort=True)
                if self._probed_at is None and now >= self._heard_at + half_s:
                    self._probed_at = now
                    commands.append(Send({"type": "ping"}))
            if self._renew_at is not None and now >= self._renew_at and not self._renewing:
                if not self.echoes:  # it ends the session, and the next connection has a new token
                    self._renew_at = None
                    return commands
                self._renewing = True
                commands.append(FetchToken("expiring"))
            commands += self._on_time(now)
        return commands

    # ── for the paths ────────────────────────────────────────────────────────────────────────────────────────────

    def _request(
        self, message: dict[str, Any], kind: str, target: Any, now: float, *, stream_id: str | None = None
    ) -> list[Command]:
        """Send a request; its reply is passed to `_on_answer` with `kind` and `target`."""
        number = str(self._next_request)
        self._next_request += 1
        self._requests[number] = Request(kind, target, now + REPLY_S, stream_id)
        return [Send({**message, "requestId": number})]

    def _waiting(self, kind: str) -> list[Request]:
        """Return the requests of a kind that have no reply yet, oldest first."""
        return [request for request in self._requests.values() if request.kind == kind]

    def _drop_request(self, request: Request) -> None:
        self._requests = {number: each for number, each in self._requests.items() if each is not request}

    def _retry_s(self, attempt: int) -> float:
        """Return the pause before the next attempt, in seconds."""
        options = self.options
        first_s, most_s = options.backoff_first_s, options.backoff_most_s
        if options.impatient and not self.connection:
            most_s = first_s
        return backoff_s(attempt, first_s=first_s, most_s=most_s, chance=self._chance(), jitter=1.0)

    def _problem(self, message: Mapping[str, Any]) -> list[Command]:
        """Return the report of an error that ends nothing."""
        stream = message.get("streamId")
        problem = Problem(
            stream_id=stream if isinstance(stream, str) else None,
            code=str(message.get("code", "")),
            message=str(message.get("message", "")),
        )
        return [Report(problem)]

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _request_of(self, message: Mapping[str, Any]) -> Request | None:
        """Remove and return the request that a success or error answers."""
        number = message.get("requestId")
        if isinstance(number, str) and number in self._requests:
            self.echoes = True
            return self._requests.pop(number)
        request = None if number is not None else self._guess_request(message)
        if request is not None:
            self._drop_request(request)
        return request

    def _guess_request(self, message: Mapping[str, Any]) -> Request | None:
        """Return the request that a reply without a request id answers: replies have the order of the requests."""
        stream = message.get("streamId")
        about = [each for each in self._requests.values() if stream is None or each.stream_id in (None, stream)]
        if message.get("type") == "success":
            kinds: tuple[str, ...] = (KINDS.get(str(message.get("event")), ""),)
        elif message.get("code") == ErrorCode.UNKNOWN_MESSAGE_TYPE:
            kinds = ("acknowledge",)
        else:
            kinds = ASKING
        return next((each for each in about if each.kind in kinds), None)

    def _answered(self, request: Request, message: Mapping[str, Any], now: float) -> list[Command]:
        if request.kind == "renew":
            return self._renewed(message, now)
        if request.kind != "auth":
            return self._on_answer(request, message, now)
        if message.get("type") == "success":
            self._step = Step.ONLINE
            self._online_at = now
            self._plan_renewal(now)
            ask: list[Command] = (
                [] if self.echoes else [Send({"type": "ping"})]
            )  # whether it knows request ids is not known
            return [*self._phase_changed(), *ask, *self._on_online(now)]
        code, said = str(message.get("code", "")), str(message.get("message", ""))
        if code == ErrorCode.AUTH_FAILED:
            return self._replace_token("rejected", TokenRefused(code, said), now)
        if code == ErrorCode.AUTH_TIMEOUT:
            return self._replace_token("rejected", refusal(code, said), now)
        if code in TRANSIENT:
            return self._lose(f"{code}: {said}", now, code)
        return self._fail(refusal(code, said))

    # ── renewal ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_renewal(self, now: float) -> None:
        """Schedule the renewal of the token before it expires, by the clock of the gateway, which checks the expiry."""
        self._renewing, self._renew_attempt, self._renew_at = False, 0, None
        if self._expires_at_s is not None and self._server_ms and self.options.refreshable:
            expires_in_s = self._expires_at_s - self.alive_ms / 1000
            earliest, latest = RENEW_AFTER_SHARE * expires_in_s, expires_in_s - RENEW_BEFORE_S
            wait_s = max(earliest, latest)
            # Clients that signed in at one time must not renew at one time.
            self._renew_at = now + max(LEAST_RENEWAL_S, wait_s - self._chance() * 0.1 * wait_s)

    def _renew(self, token: str, expires_at_s: float | None, now: float) -> list[Command]:
        if token == self._token:
            return self._retry_renewal(now)
        self._offered = (token, expires_at_s)
        return self._request({"type": "auth", "token": token, "renew": True}, "renew", None, now)

    def _renewed(self, message: Mapping[str, Any], now: float) -> list[Command]:
        if message.get("type") == "success":
            self._token, self._expires_at_s = self._offered
            self._plan_renewal(now)
            return []
        if message.get("code") == ErrorCode.ALREADY_AUTHENTICATED:  # this gateway cannot renew
            self._renewing, self._renew_at = False, None
            return []
        return [*self._retry_renewal(now), *self._problem(message)]

    def _retry_renewal(self, now: float) -> list[Command]:
        first_s, most_s = RENEW_RETRY_S
        pause_s = backoff_s(self._renew_attempt, first_s=first_s, most_s=most_s, chance=self._chance())
        self._renewing = False
        self._renew_attempt += 1
        self._renew_at = now + pause_s
        return []

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self, why: str) -> list[Command]:
        self._why = why
        self._step = Step.TOKEN
        self._resume_at = None
        return [FetchToken(why), *self._phase_changed()]

    def _replace_token(self, why: str, error: Exception, now: float) -> list[Command]:
        """Fetch another token in place of one that is not valid, once; close for good the second time."""
        lost = self._end_connection(now)
        self._replaced += 1
        if not self.options.refreshable or self._replaced > 1:
            return [*lost, *self._fail(error)]
        self._former_end = error
        self._no_good = error if why == "ended" else None
        return [*lost, *self._fetch(why)]

    def _end_connection(self, now: float) -> list[Command]:
        """Forget the socket, and the requests that have no reply on it."""
        if self._step is Step.ONLINE and now - self._online_at >= STEADY_S:
            self._attempt = self._replaced = self._moves = 0
        lost = self._on_lost()
        self._requests.clear()
        self._renewing = False
        return [CloseSocket(), *lost]

    def _lose(self, reason: str, now: float, code: str, *, abort: bool = False, at_once: bool = False) -> list[Command]:
        commands = self._end_connection(now)
        if abort:
            commands[0] = CloseSocket(abort=True)
        return commands + self._pause(reason, now, code, at_once=at_once)

    def _pause(self, reason: str, now: float, code: str, *, at_once: bool = False) -> list[Command]:
        if at_once and self._moves < MOST_AT_ONCE:
            self._moves += 1
            delay_s = AT_ONCE_S * self._chance()
        else:
            delay_s = self._retry_s(self._attempt)
            self._attempt += 1
        self._step = Step.PAUSE
        self._resume_at = now + delay_s
        return self._phase_changed(reason, delay_s, code)

    def _fail(self, error: Exception) -> list[Command]:
        self._step = Step.CLOSED
        self._requests.clear()
        code = error.code if isinstance(error, Refused | Disconnected) else ""
        return [CloseSocket(), *self._phase_changed(str(error), code=code), *self._on_failed(error), Failed(error)]

    def fail(self, error: Exception) -> list[Command]:
        """Close for good because of an error in the driver."""
        return [] if self._step is Step.CLOSED else self._fail(error)

    def _phase_changed(self, reason: str = "", delay_s: float | None = None, code: str = "") -> list[Command]:
        phase = PHASES[self._step]
        if phase is self._phase and delay_s is None:
            return []
        self._phase = phase
        return [PhaseChanged(phase, reason, delay_s, code)]
