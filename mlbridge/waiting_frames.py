"""The frames that wait for the ML service: the newest of each stream, the oldest first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class WaitingFrame(Generic[F]):
    """A frame that waits to be sent to the ML service; kept in `FramesForService`.

    Attributes:
        frame: the frame.
        size_bytes: size of its picture.
        came_at: when the bridge received it, in seconds.
    """

    frame: F
    size_bytes: int
    came_at: float


class FramesForService(Generic[F]):
    """The newest frame of each stream that waits for the ML service. Owned by the scheduler.

    Attributes:
        bytes: sizes of all pictures that wait.
    """

    __slots__ = ("_frames", "bytes")

    def __init__(self) -> None:
        self._frames: OrderedDict[str, WaitingFrame[F]] = OrderedDict()  # the one that waits longest is first
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, stream: object) -> bool:
        return stream in self._frames

    def __getitem__(self, stream: str) -> WaitingFrame[F]:
        return self._frames[stream]

    def put(self, stream: str, frame: WaitingFrame[F]) -> None:
        """Let a frame wait. The caller takes an older one of the stream out before."""
        self._frames[stream] = frame
        self.bytes += frame.size_bytes

    def take(self, stream: str) -> WaitingFrame[F] | None:
        """Take the frame of a stream out. Returns None when none waits."""
        taken = self._frames.pop(stream, None)
        if taken is not None:
            self.bytes -= taken.size_bytes
        return taken

    def oldest(self) -> tuple[str, WaitingFrame[F]] | None:
        """Return the stream and frame that wait longest, None when nothing waits."""
        return next(iter(self._frames.items()), None)

    def streams(self) -> list[str]:
        """Return the streams of which a frame waits."""
        return list(self._frames)
