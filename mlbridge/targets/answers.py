"""The frames under way over a lasting connection, and the answers to them, in whatever order they come."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from common.alerts import AlertFault
from common.frames import Frame
from mlbridge.targets import Heard, TargetFailure
from mlbridge.targets.codec import Key, key_of, read_push

#: Frames that are remembered after they were shown, so that a late answer is known for what it is.
MAX_RECENT: Final = 1_024

#: How long the first frames of a connection wait to learn whether the service answers each, seconds.
LEARN_S: Final = 0.5

#: What `asyncio` gives for one frame: its alerts, or why it failed.
Answer = asyncio.Future[list[object]]


class Answers:
    """Waits for the answers of one connection; what belongs to no frame under way goes to `heard`.

    `answers_each`: whether the service answers every frame, and not only those with an alert. Not known at first:
    then a frame waits for its answer for `LEARN_S`.
    """

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._under_way: dict[Key, Answer] = {}
        self._recent: OrderedDict[Key, None] = OrderedDict()
        self.answers_each: bool | None = None
        self.came_at = 0.0

    def expect(self, frame: Frame) -> Answer:
        """A future for the answer to this frame; `forget` it in the end."""
        answer: Answer = asyncio.get_running_loop().create_future()
        key = key_of(frame)
        self._under_way[key] = answer
        self._recent[key] = None
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return answer

    async def wait(self, answer: Answer) -> list[object]:
        """After the frame was given to the service: its alerts where it answers each frame, or has answered this one.

        None of a service that does not: its alerts go to `heard`. Raises `TargetFailure` when the connection is lost.
        """
        if self.answers_each is None and not answer.done():
            await asyncio.wait((answer,), timeout=LEARN_S)
            if not answer.done() and self.answers_each is None:
                self.answers_each = False
        return await answer if answer.done() or self.answers_each else []

    def forget(self, frame: Frame, answer: Answer) -> None:
        """Wait for it no longer."""
        key = key_of(frame)
        if self._under_way.get(key) is answer:
            del self._under_way[key]
        if not answer.cancel() and not answer.cancelled():
            answer.exception()  # known by now, or of no interest

    def came(self, message: object) -> None:
        """A message of the service, decoded."""
        self.came_at = asyncio.get_running_loop().time()
        try:
            parts = read_push(message)
        except AlertFault as fault:
            # What is no alert is refused, counted and told by whoever checks alerts.
            self._heard([str(fault)])
            return
        for said in parts:
            answer = None if said.key is None else self._under_way.pop(said.key, None)
            if said.answers and said.key in self._recent:
                self.answers_each = True
            if answer is not None and not answer.done():
                answer.set_result(said.alerts)
            elif said.alerts:
                self._heard(said.alerts)

    def replied(self, message: object, key: Key) -> None:
        """An answer that came on a way of its own, and so is one to this frame, whatever it names."""
        stream, number = key
        if message is None or (isinstance(message, dict) and "severity" not in message):
            message = {"streamId": stream, "frameId": number, **(message or {})}
        elif isinstance(message, dict):
            message = {"streamId": stream, "frameId": number, "alert": message}
        elif isinstance(message, list):
            message = {"streamId": stream, "frameId": number, "alerts": message}
        self.came(message)

    def missed(self, since: float) -> bool:
        """A frame shown at `since` had no answer in time; whether nothing at all came meanwhile.

        Then it is no longer known whether it answers each: it may be another service by now.
        """
        if self.came_at >= since:
            return False
        self.answers_each = None
        return True

    def fail(self, key: Key, failure: TargetFailure) -> None:
        """The service cannot have this frame."""
        answer = self._under_way.pop(key, None)
        if answer is not None and not answer.done():
            answer.set_exception(failure)

    def lost(self, reason: str) -> None:
        """The connection ended: nothing under way will be answered, and the next one may be another service."""
        for answer in self._under_way.values():
            if not answer.done():
                answer.set_exception(TargetFailure(reason))
        self._under_way.clear()
        self.answers_each = None
