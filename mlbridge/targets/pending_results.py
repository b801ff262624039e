"""Matches frames under way over a kept connection with the results that arrive, in any order."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.toolbox.futures import retrieve_exception
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets.results import Key, Undecodable, key_of, read_message
from watchout.mlbridge.targets.target import OnAlerts, TargetFailure, UnusableMessage, UnusableResult

#: Frames that are remembered after they were sent, so that a late result is recognized.
MAX_RECENT: Final = 1_024

#: A frame that was sent at most this long before the connection ended may have ended it, in seconds.
SUSPECT_S: Final = 1.0
#: Delivered frames that are remembered for that.
MAX_DELIVERED: Final = 64
#: Suspected streams that are remembered; past it the one that is suspected for longest is forgotten.
MAX_SUSPECTS: Final = 1_024

#: How long the first frames of a connection wait to learn whether the service returns a result for each, in seconds.
LEARN_S: Final = 0.5

#: Set to the alerts of one frame, or to the `TargetFailure` that explains why there are none.
ResultFuture = asyncio.Future[list[object]]


class PendingResults:
    """The results that one target waits for. Created by the targets with kept connections, one for each `open`.

    A service may return a result for every frame, or only alerts. `for_each_frame` holds which: True, False, or None
    while that is unknown; then a frame waits up to `LEARN_S` for its result.

    Args:
        on_alerts: receives alerts that belong to no pending frame.
    """

    def __init__(self, on_alerts: OnAlerts) -> None:
        self._on_alerts = on_alerts
        self._pending: dict[Key, ResultFuture] = {}
        self._recent: OrderedDict[Key, None] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._unusable: UnusableResult | None = None
        self._delivered: deque[tuple[float, str]] = deque(maxlen=MAX_DELIVERED)
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self.for_each_frame: bool | None = None
        self.last_message_at = 0.0

    def expect(self, frame: Frame) -> ResultFuture:
        """Return a future for the result of a frame that is about to be sent. The caller calls `forget` in the end."""
        result: ResultFuture = asyncio.get_running_loop().create_future()
        key = key_of(frame)
        self._pending[key] = result
        self._sizes[key] = frame.size_bytes
        self._recent[key] = None
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return result

    async def wait(self, result: ResultFuture, stream: str) -> list[object]:
        """Wait for the result of a frame that was sent, if the service returns one.

        Args:
            result: what `expect` returned.
            stream: the stream of the frame.

        Returns:
            The alerts of the frame; empty for a service that returns no results, whose alerts go to `on_alerts`.

        Raises:
            TargetFailure: the connection was lost.
            UnusableResult: the service sends messages that are no results.
        """
        if self.for_each_frame is None and not result.done():
            await asyncio.wait((result,), timeout=LEARN_S)
            if not result.done() and self.for_each_frame is None:
                self.for_each_frame = False
        if result.done() or self.for_each_frame:
            return await result
        self.on_delivered(stream)
        return []

    def on_delivered(self, stream: str) -> None:
        """Record that a frame of this stream was delivered to a service that returns no result for it.

        Raises:
            UnusableResult: an unusable message arrived before that names no frame; it is charged to this frame.
        """
        self._delivered.append((asyncio.get_running_loop().time(), stream))
        unusable, self._unusable = self._unusable, None
        if unusable is not None:
            raise unusable

    def is_suspect(self, stream: str) -> bool:
        """Return whether a frame of this stream may have made the service end a connection.

        It stays a suspect until `clear_suspect`, whatever happens to other streams: two suspects must not hide each
        other.
        """
        return stream in self._suspects

    def clear_suspect(self, stream: str) -> None:
        """Record that a frame of this stream was sent over a connection of its own, which did not end."""
        self._suspects.pop(stream, None)

    def forget(self, frame: Frame, result: ResultFuture) -> None:
        """Stop waiting for the result of a frame.

        Args:
            frame: the frame.
            result: what `expect` returned for it.
        """
        key = key_of(frame)
        if self._pending.get(key) is result:
            del self._pending[key]
            self._sizes.pop(key, None)
        if not result.cancel():
            retrieve_exception(result)

    def on_message(self, message: object) -> None:
        """Handle a decoded message of the service: complete the frames that it names, pass on other alerts."""
        self.last_message_at = asyncio.get_running_loop().time()
        try:
            parts = read_message(message)
        except UnusableResult as fault:
            self._on_unusable(fault)
            return
        except AlertFault as fault:
            # A text is no alert: `watchout.mlbridge.alerts` refuses, counts and logs it.
            self._on_alerts([str(fault)])
            return
        self._unusable = None
        for part in parts:
            result = None if part.key is None else self._pending.pop(part.key, None)
            if part.ends_frame and part.key in self._recent:
                self.for_each_frame = True
            if result is not None and not result.done():
                result.set_result(part.alerts)
            elif part.alerts:
                self._on_alerts(part.alerts)

    def on_reply(self, message: object, key: Key) -> None:
        """Handle a decoded message that arrived as the reply to one frame, so that it need not name the frame.

        Args:
            message: an object or a list of alerts; None stands for an empty message, `Undecodable` for one that is
                neither JSON nor MessagePack.
            key: stream and frame id of the frame.
        """
        stream, number = key
        if message is not None and not isinstance(message, dict | list):
            reason = message.reason if isinstance(message, Undecodable) else f"{message!r:.100}, expected an object"
            self._on_unusable(UnusableResult(reason, key=key))
            return
        if message is None or (isinstance(message, dict) and "severity" not in message):
            message = {"streamId": stream, "frameId": number, **(message or {})}
        elif isinstance(message, dict):
            message = {"streamId": stream, "frameId": number, "alert": message}
        elif isinstance(message, list):
            message = {"streamId": stream, "frameId": number, "alerts": message}
        self.on_message(message)

    def on_timeout(self, since: float) -> bool:
        """Handle the deadline of a frame that was sent at `since` (loop time).

        Returns:
            Whether no message at all arrived since then. It is then unknown again whether the service returns a result
            for each frame: another service may listen by now.
        """
        if self.last_message_at >= since:
            return False
        self.for_each_frame = None
        return True

    def fail(self, key: Key, failure: TargetFailure) -> None:
        """Complete a pending frame with a failure; a frame that is not pending is ignored.

        Args:
            key: stream and frame id of the frame.
            failure: raised to whoever waits for the result.
        """
        result = self._pending.pop(key, None)
        if result is not None and not result.done():
            result.set_exception(failure)

    def on_connection_lost(self, reason: str, *, too_large: bool = False) -> None:
        """Fail all pending frames: the connection ended, and the next one may lead to another service.

        Args:
            reason: why it ended, for the log.
            too_large: it ended because a frame was larger than the service accepts. The largest pending frame is
                blamed.
        """
        largest = max(self._pending, key=lambda key: self._sizes.get(key, 0), default=None) if too_large else None
        for key, result in self._pending.items():
            blame = Blame.UNSURE if largest is None else Blame.FRAME if key == largest else Blame.OTHER
            if not result.done():
                result.set_exception(TargetFailure(reason, blame=blame))
        if largest is None:
            since = asyncio.get_running_loop().time() - SUSPECT_S
            for at, stream in self._delivered:
                if at >= since:
                    self._suspects[stream] = None
            while len(self._suspects) > MAX_SUSPECTS:
                self._suspects.popitem(last=False)
        self._pending.clear()
        self._sizes.clear()
        self._delivered.clear()
        self.for_each_frame = None

    def _on_unusable(self, fault: UnusableResult) -> None:
        """Fail the frame that an unusable message names, or report the message by itself."""
        result = None if fault.key is None else self._pending.pop(fault.key, None)
        if fault.key is not None and fault.key in self._recent:
            self.for_each_frame = True
        if result is not None and not result.done():
            result.set_exception(fault)
        else:
            self._on_alerts([UnusableMessage(fault)])
            if not self.for_each_frame:  # it names no pending frame: `on_delivered` charges it to the next one
                self._unusable = UnusableResult(str(fault), blame=Blame.SERVICE, counted=True)
