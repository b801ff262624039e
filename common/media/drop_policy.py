"""Which frames of a stream a queue may drop, and which it must drop after that. Pure.

Queues of frames hold the newest frame of each stream and drop the one it replaces. That is right where each frame can
be decoded by itself, as JPEGs can. Video codecs send key frames, and between them delta frames, each of which needs
the frame before it: a queue that dropped one must drop all that follow up to the next key frame. Which of the two
holds is a property of the codec (`common.media.codecs`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Protocol

#: Most keys for which `AwaitedKeyFrames` remembers that a key frame is missing.
MAX_AWAITED: Final = 4096


class DropPolicy(Protocol):
    """Says which frames of a codec a queue may drop. One instance, without state, serves all streams.

    Each `Codec` has one. `AwaitedKeyFrames` (for `PeerQueue`) and `OutboundQueue` ask `replaces` before they drop a
    frame.
    """

    @property
    def needs_keyframe(self) -> bool:
        """Whether a receiver that misses a frame can use later ones only from the next key frame on."""

    def replaces(self, old: FrameKind, new: FrameKind) -> bool:
        """Return whether the queued frame `old` may be dropped for `new`, a later frame of the same stream.

        When it may not, the queue keeps `old` and drops `new`.
        """


@dataclass(frozen=True, slots=True)
class FrameKind:
    """What a queue has to know about a frame to drop it or not; made by `Codec.kind_of`.

    `policy` is that of the frame's codec. `is_key`: the frame can be decoded by itself. A frame that is not key needs
    the frame with the next lower id of the same stream and term.
    """

    policy: DropPolicy
    is_key: bool


class NewestWins:
    """Drop policy of codecs in which each frame can be decoded by itself: a later frame replaces any earlier one."""

    needs_keyframe: Final = False

    def replaces(self, old: FrameKind, new: FrameKind) -> bool:  # noqa: ARG002 - the signature of a policy
        """Return True: any frame may be dropped for a later one."""
        return True


class KeyFrames:
    """Drop policy of codecs with delta frames: only a key frame replaces a queued frame."""

    needs_keyframe: Final = True

    def replaces(self, old: FrameKind, new: FrameKind) -> bool:  # noqa: ARG002 - the signature of a policy
        """Return whether `new` is a key frame. A delta frame cannot be decoded without `old`, or what follows it."""
        return new.is_key


NEWEST_WINS: Final = NewestWins()
KEY_FRAMES: Final = KeyFrames()
#: A frame that can be decoded by itself, of a codec in which all can.
STANDALONE: Final = FrameKind(NEWEST_WINS, is_key=True)


class AwaitedKeyFrames:
    """Remembers the queue keys (streams, or a stream and its one receiver) of which a frame was dropped that later
    frames need.

    Until the next key frame, `admits` refuses frames with such a key. `PeerQueue` calls `admits` before it takes a
    frame in, and `dropped` for each queued frame that it drops. Past `MAX_AWAITED` keys the oldest is forgotten.
    """

    __slots__ = ("keys",)

    def __init__(self) -> None:
        #: These keys; it stays the same object.
        self.keys: OrderedDict[Hashable, None] = OrderedDict()

    def admits(self, key: Hashable, waiting: FrameKind | None, new: FrameKind) -> bool:
        """Return whether the frame `new` may take the place of `waiting` (None: nothing waits) under `key`.

        When it returns False, the queue drops `new`; that needs no call of `dropped`.
        """
        if not new.policy.needs_keyframe:
            return waiting is None or new.policy.replaces(waiting, new)
        if new.is_key:
            self.keys.pop(key, None)
        elif key in self.keys:
            return False
        if waiting is None or new.policy.replaces(waiting, new):
            return True
        self.dropped(key, new)
        return False

    def dropped(self, key: Hashable, kind: FrameKind) -> None:
        """Record that a frame was dropped: delta frames that follow it under `key` are not admitted."""
        if kind.policy.needs_keyframe:
            self.keys[key] = None
            if len(self.keys) > MAX_AWAITED:
                self.keys.popitem(last=False)
