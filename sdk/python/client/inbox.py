"""What waits for the program that reads a subscription: alerts and status in order, and the newest frame. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from watchout.client.events import Alert, Event, Frame, Status
from watchout.common.media.rate import Sampler

#: Most alerts and other messages that wait. Past it, the rest is requested from the gateway once the program has read.
MAX_WAITING: Final = 1000
#: Ids of alerts that are remembered, so that a replayed alert is delivered once.
MAX_REMEMBERED: Final = 4096


class Inbox:
    """The events of one subscription that its program has not taken yet.

    When at most one frame may wait, alerts and status are returned before it. When several may, all events are returned
    in the order of their arrival.

    Args:
        max_fps: most frames per second; None: all.
        frames_waiting: most frames that wait; past it the oldest is dropped.
    """

    def __init__(self, max_fps: float | None = None, frames_waiting: int = 1) -> None:
        #: Whether alerts were left out because too many waited; they have to be requested again.
        self.lagging = False
        #: Frames that were replaced by newer ones before the program took them.
        self.replaced = 0
        self._messages: deque[Event] = deque()
        self._most_frames = frames_waiting
        self._waiting = 0
        self._last_frame: tuple[int, int] | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._sampler = Sampler(max_fps)

    def put_frame(self, frame: Frame, now: float, *, sample: bool = False) -> bool:
        """Add a frame in place of one that waits; return whether it is new to the program.

        Args:
            frame: the frame.
            now: monotonic seconds.
            sample: whether frames arrive at a higher rate than `max_fps`.
        """
        if (frame.frame_id, frame.timestamp) == self._last_frame:
            return False  # the newest frame again, after a reconnect
        self._last_frame = (frame.frame_id, frame.timestamp)
        if sample and not self._sampler.take(now):
            return False
        if self._waiting == self._most_frames:
            self.replaced += 1
            self._messages.remove(next(event for event in self._messages if isinstance(event, Frame)))
        else:
            self._waiting += 1
        self._messages.append(frame)
        return True

    def put(self, event: Event) -> bool:
        """Add any other event; return whether it is new. An alert without room sets `lagging`."""
        if isinstance(event, Alert):
            if self.lagging or event.id in self._seen:
                return False
            if len(self._messages) >= MAX_WAITING:
                self.lagging = True
                return False
            self._seen[event.id] = None
            if len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)
        elif isinstance(event, Status) and self._most_frames == 1 and self._ends_with_status():
            self._messages.pop()
        elif len(self._messages) >= MAX_WAITING:
            return False
        self._messages.append(event)
        return True

    def _ends_with_status(self) -> bool:
        return bool(self._messages) and isinstance(self._messages[-1], Status)

    def take(self) -> Event | None:
        """Remove and return the next event; None: nothing waits."""
        if not self._messages:
            return None
        event = self._messages.popleft()
        if isinstance(event, Frame):
            if self._most_frames == 1 and self._messages:
                self._messages.append(event)
                return self._messages.popleft()
            self._waiting -= 1
        return event
