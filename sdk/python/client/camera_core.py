"""State machine of a camera: its registration, the frames under way, its alerts, and the demand. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from watchout.client.commands import Command, Done, Report, Wake
from watchout.client.connection_core import ConnectionCore
from watchout.client.connection_parts import ConnectionOptions, Request
from watchout.client.errors import TRANSIENT, refusal
from watchout.client.events import Demand, read_acknowledged, read_alert, read_status, whole
from watchout.common.errors import ErrorCode

#: Most alerts of a camera that wait for their confirmation.
MAX_ALERTS: Final = 100
#: Seconds without an acknowledgement after which one more frame is sent: a frame that is refused has none.
ACK_PATIENCE_S: Final = 10.0
#: After a frame that was acknowledged later than the first time, in seconds, one frame at a time is sent: on a slow
#: uplink a second one would only wait. After one that took less than the second time, the whole window is used again.
SLOW_S: Final = 0.6
QUICK_S: Final = 0.25
#: The key of `Wake` for a camera, of which a connection has one.
CAMERA: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraOptions:
    """What a camera registers as.

    Attributes:
        stream_id: the camera's stream; None: the gateway makes an id, which later connections use too.
        window: most frames under way without an acknowledgement, 1 to 32; None: no limit.
        info: what viewers may know about the camera, a JSON object of at most 4 KiB.
        alerts: whether it receives the alerts of its stream, also those of the ML service.
        demand: whether it receives the demand.
    """

    stream_id: str | None = None
    window: int | None = 2
    info: Mapping[str, Any] | None = None
    alerts: bool = True
    demand: bool = True


class CameraCore(ConnectionCore):
    """State of one camera, which returns `Wake(CAMERA)` when there may be room, a registration or an error.

    As in `ConnectionCore`, `now` is in monotonic seconds, and methods return a list of `Command`.

    Args:
        options: how the connection behaves.
        camera: what it registers as.
        chance: returns random numbers between 0 and 1.
    """

    path = "/streams/register"

    def __init__(self, options: ConnectionOptions, camera: CameraOptions, chance: Callable[[], float]) -> None:
        super().__init__(options, chance)
        self.camera = camera
        self.stream_id = camera.stream_id
        self.error: Exception | None = None
        #: Whether frames may be sent on this connection.
        self.registered = False
        #: The demand; None: the gateway has not sent it.
        self.demand: Demand | None = None
        #: Timestamp of each frame under way, and when it was sent.
        self._under_way: deque[tuple[int, float]] = deque()
        #: Whether the uplink is slow; None: not known yet. Unless it is False, one frame at a time is sent.
        self._slow: bool | None = None
        self._patient_until = 0.0
        self._windowed = False
        self._attempt_register = 0
        self._retry_at: float | None = None
        #: Alerts that the gateway has not confirmed, by id: the key for `Done`, and the message.
        self._alerts: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()
        self._next_key = 1

    # ── what the program does ────────────────────────────────────────────────────────────────────────────────────

    @property
    def placement(self) -> str | None:
        """The camera's stream."""
        return self.stream_id

    @property
    def under_way(self) -> int:
        """Frames that were sent and are not acknowledged."""
        return len(self._under_way)

    @property
    def has_room(self) -> bool:
        """Whether a frame may be sent now."""
        if not self.registered:
            return False
        window = self.camera.window
        return window is None or not self._windowed or len(self._under_way) < (window if self._slow is False else 1)

    def on_sent(self, timestamp: int, now: float) -> None:
        """Record a frame that is about to be written."""
        if self._windowed:
            self._under_way.append((timestamp, now))
            self._patient_until = now + ACK_PATIENCE_S

    def raise_alert(self, alert: dict[str, Any], now: float) -> tuple[int, list[Command]]:
        """Raise an alert, which must have an `id`. `Done` with the returned key reports its result.

        The alert is sent again after a reconnect; the router delivers no id twice.
        """
        key = self._next_key
        self._next_key += 1
        if len(self._alerts) >= MAX_ALERTS:
            text = f"{MAX_ALERTS} alerts wait for their confirmation"
            return key, [Done(key, refusal(ErrorCode.RATE_LIMITED, text, self.stream_id))]
        self._alerts[alert["id"]] = (key, alert)
        return key, [*self.start(), *(self._send_alert(alert, now) if self.registered else [])]

    def give_up_alert(self, alert_id: str) -> None:
        """Forget an alert whose result is not awaited any more; it is not sent again."""
        self._alerts.pop(alert_id, None)

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_online(self, now: float) -> list[Command]:
        camera = self.camera
        message: dict[str, Any] = {"type": "register", "clientType": "mobile"}
        if self.stream_id is not None:
            message["streamId"] = self.stream_id
        message["produces"] = ["video-frame", "alert"]
        message["consumes"] = ["alert"] * camera.alerts + ["demand"] * camera.demand
        if camera.window is not None:
            message["window"] = camera.window
        if camera.info is not None:
            message["info"] = dict(camera.info)
        return self._request(message, "register", None, now)

    def _on_lost(self) -> list[Command]:
        self.registered = False
        self.demand = None
        self._under_way.clear()
        self._slow = None
        self._retry_at = None
        self._attempt_register = 0
        return [Wake(CAMERA)]

    def _on_failed(self, error: Exception) -> list[Command]:
        self.error = self.error or error
        self.registered = False
        done = [Done(key, error) for key, _ in self._alerts.values()]
        self._alerts.clear()
        return [Wake(CAMERA), *done]

    def _on_answer(self, request: Request, message: Mapping[str, Any], now: float) -> list[Command]:
        code, text = str(message.get("code", "")), str(message.get("message", ""))
        success = message.get("type") == "success"
        if request.kind == "alert":
            return self._confirm(request.target, None if success else refusal(code, text, self.stream_id))
        if success:
            self.stream_id = str(message.get("streamId") or self.stream_id)
            self.registered, self._attempt_register = True, 0
            self._windowed = message.get("requestId") is not None and self.camera.window is not None
            again = [command for _, alert in [*self._alerts.values()] for command in self._send_alert(alert, now)]
            return [Wake(CAMERA), *again]
        if code in TRANSIENT:
            self._retry_at = now + self._retry_s(self._attempt_register)
            self._attempt_register += 1
            return self._problem(message)
        return self._fail(refusal(code, text, self.stream_id))

    def _on_other(self, message: Mapping[str, Any], now: float) -> list[Command]:
        match message.get("type"):
            case "ack":
                return self._acknowledged(whole(message.get("timestamp")), now)
            case "demand":
                viewers, fps = message.get("viewers"), message.get("fps")
                self.demand = Demand(viewers=whole(viewers), fps=float(fps) if isinstance(fps, int | float) else 0.0)
                return [Report(self.demand), Wake(CAMERA)]
            case "alert":
                return [Report(read_alert(message)), *self._confirm(str(message.get("id")), None)]
            case "status":
                return [Report(read_status(message))]
            case "alert-acknowledged":
                return [Report(read_acknowledged(message))]
            case "error":
                return self._on_error(message)
        return []

    def _on_error(self, message: Mapping[str, Any]) -> list[Command]:
        code, text = str(message.get("code", "")), str(message.get("message", ""))
        if self._alerts and not self.echoes and code == ErrorCode.UNAUTHORIZED:
            return self._confirm(next(iter(self._alerts)), refusal(code, text, self.stream_id))
        if code == ErrorCode.UNAUTHORIZED and self._windowed and message.get("streamId") == self.stream_id:
            return self._fail(refusal(code, text, self.stream_id))  # the right to publish ended
        commands = self._problem(message)
        if code in (ErrorCode.RATE_LIMITED, ErrorCode.INVALID_MESSAGE) and self._under_way:
            self._under_way.popleft()  # a frame that was refused is not acknowledged
            commands.append(Wake(CAMERA))
        return commands

    def _acknowledged(self, timestamp: int, now: float) -> list[Command]:
        """Forget the frames up to the last one with this timestamp."""
        known = [number for number, (at, _) in enumerate(self._under_way) if at == timestamp]
        if not known:
            return []
        for _ in range(known[-1] + 1):
            _, sent_at = self._under_way.popleft()
        self._slow = now - sent_at > (QUICK_S if self._slow else SLOW_S)
        self._patient_until = now + ACK_PATIENCE_S
        return [Wake(CAMERA)]

    def _send_alert(self, alert: dict[str, Any], now: float) -> list[Command]:
        message = {**alert, "type": "alert", "streamId": self.stream_id}
        commands = self._request(message, "alert", alert["id"], now)
        if not self.echoes and not self.camera.alerts:  # nothing will confirm it
            commands += self._confirm(alert["id"], None)
        return commands

    def _confirm(self, alert_id: str, error: Exception | None) -> list[Command]:
        found = self._alerts.pop(alert_id, None)
        return [] if found is None else [Done(found[0], error)]

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _due(self) -> list[float]:
        due = [] if self._retry_at is None else [self._retry_at]
        if self._under_way:
            due.append(self._patient_until)
        return due

    def _on_time(self, now: float) -> list[Command]:
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            return self._on_online(now)
        if self._under_way and now >= self._patient_until:
            self._under_way.popleft()
            self._patient_until = now + ACK_PATIENCE_S
            return [Wake(CAMERA)]
        return []
