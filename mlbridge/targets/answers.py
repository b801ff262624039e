"""The frames under way over a lasting connection, and the answers to them, in whatever order they come."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.toolbox.futures import retrieve_exception
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import Heard, TargetFailure, UnusableAnswer, UnusableMessage
from watchout.mlbridge.targets.codec import Key, Nonsense, key_of, read_push

#: Frames that are remembered after they were shown, so that a late answer is known for what it is.
MAX_RECENT: Final = 1_024

#: Whoever was shown a frame so long before the connection ended may have ended it, seconds; most frames looked back at.
SUSPECT_S: Final = 1.0
MAX_PACED: Final = 64
#: Streams that may have ended a connection and are remembered; past it the one that is suspected for longest is not.
MAX_SUSPECTS: Final = 1_024

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
        self._sizes: dict[Key, int] = {}
        self._unusable: UnusableAnswer | None = None
        self._paced: deque[tuple[float, str]] = deque(maxlen=MAX_PACED)
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self.answers_each: bool | None = None
        self.came_at = 0.0

    def expect(self, frame: Frame) -> Answer:
        """A future for the answer to this frame; `forget` it in the end."""
        answer: Answer = asyncio.get_running_loop().create_future()
        key = key_of(frame)
        self._under_way[key] = answer
        self._sizes[key] = frame.size_bytes
        self._recent[key] = None
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return answer

    async def wait(self, answer: Answer, stream: str) -> list[object]:
        """After the frame was given to the service: its alerts where it answers each frame, or has answered this one.

        None of a service that does not: its alerts go to `heard`. Raises `TargetFailure` when the connection is lost,
        and `UnusableAnswer` when the service says nothing but what is no answer.
        """
        if self.answers_each is None and not answer.done():
            await asyncio.wait((answer,), timeout=LEARN_S)
            if not answer.done() and self.answers_each is None:
                self.answers_each = False
        if answer.done() or self.answers_each:
            return await answer
        self.paced(stream)
        return []

    def paced(self, stream: str) -> None:
        """A frame of this stream was given to a service that need not answer it.

        Raises `UnusableAnswer` for a message that came before and belongs to no frame: it stands for one of those that
        were shown.
        """
        self._paced.append((asyncio.get_running_loop().time(), stream))
        unusable, self._unusable = self._unusable, None
        if unusable is not None:
            raise unusable

    def is_suspect(self, stream: str) -> bool:
        """Whether a frame of it was not answered before a connection ended, and may have ended it.

        It stays so until `acquit`, whatever other streams do: two of them must not hide each other.
        """
        return stream in self._suspects

    def acquit(self, stream: str) -> None:
        """A frame of it was shown over a connection of its own, which stood."""
        self._suspects.pop(stream, None)

    def forget(self, frame: Frame, answer: Answer) -> None:
        """Wait for it no longer."""
        key = key_of(frame)
        if self._under_way.get(key) is answer:
            del self._under_way[key]
            self._sizes.pop(key, None)
        if not answer.cancel():
            retrieve_exception(answer)

    def came(self, message: object) -> None:
        """A message of the service, decoded."""
        self.came_at = asyncio.get_running_loop().time()
        try:
            parts = read_push(message)
        except UnusableAnswer as fault:
            self._came_unusable(fault)
            return
        except AlertFault as fault:
            # What is no alert is refused, counted and told by whoever checks alerts.
            self._heard([str(fault)])
            return
        self._unusable = None
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
        if message is not None and not isinstance(message, dict | list):
            reason = message.reason if isinstance(message, Nonsense) else f"{message!r:.100}, expected an object"
            self._came_unusable(UnusableAnswer(reason, key=key))
            return
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

    def lost(self, reason: str, *, too_large: bool = False) -> None:
        """The connection ended: nothing under way will be answered, and the next one may be another service.

        `too_large`: because a frame was larger than the service takes, which then is the largest one under way.
        """
        largest = max(self._under_way, key=lambda key: self._sizes.get(key, 0), default=None) if too_large else None
        for key, answer in self._under_way.items():
            blame = Blame.UNSURE if largest is None else Blame.FRAME if key == largest else Blame.OTHER
            if not answer.done():
                answer.set_exception(TargetFailure(reason, blame=blame))
        if largest is None:
            since = asyncio.get_running_loop().time() - SUSPECT_S
            for at, stream in self._paced:
                if at >= since:
                    self._suspects[stream] = None
            while len(self._suspects) > MAX_SUSPECTS:
                self._suspects.popitem(last=False)
        self._under_way.clear()
        self._sizes.clear()
        self._paced.clear()
        self.answers_each = None

    def _came_unusable(self, fault: UnusableAnswer) -> None:
        answer = None if fault.key is None else self._under_way.pop(fault.key, None)
        if fault.key is not None and fault.key in self._recent:
            self.answers_each = True
        if answer is not None and not answer.done():
            answer.set_exception(fault)
        else:
            self._heard([UnusableMessage(fault)])
            if not self.answers_each:  # it is of no frame in particular: the next one that gets no answer stands for it
                self._unusable = UnusableAnswer(str(fault), blame=Blame.SERVICE, counted=True)
