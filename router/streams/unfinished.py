"""What one event still has to change about many streams: kept by stream, so that it can be done a few at a time. Pure.

A gateway with thousands of streams leaves, a bridge joins: done at once, that would keep the router from everything
else. What is due for a stream is done before anything else happens to it (`Streams.finish`), so that the
others may wait. `now` is in seconds, `now_ms` in ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

V = TypeVar("V")

#: When something ended: `now` and `now_ms`.
Moment = tuple[float, int]


@dataclass(slots=True)
class EndsOfMember:
    """The streams that a gateway does not publish, or view, any more, with the moment; kept by `UnfinishedStreams`.

    `is_gone` is whether the gateway itself is gone: it is sent nothing more.
    """

    member: bytes
    is_gone: bool
    publications: dict[str, Moment] = field(default_factory=dict)
    interests: dict[str, Moment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndsOfStream:
    """What of one stream ends with one gateway, as in `EndsOfMember`; returned by `UnfinishedStreams.take`."""

    member: bytes
    is_gone: bool
    publication: Moment | None
    has_interest: bool


@dataclass(frozen=True, slots=True)
class DueForStream:
    """All that is due for one stream, to be done in this order; returned by `UnfinishedStreams.take`.

    `announce_at` is the `now_ms` of the end of `syncing`, after which the status is announced again; None: it is not.
    `reroute` is whether the routes are computed anew, `resend` whether the gateway is sent them even without a change.
    """

    ends: list[EndsOfStream]
    announce_at: int | None
    reroute: bool
    resend: bool


class UnfinishedStreams:
    """What is due for streams, by stream; part of the registry (`Streams`), which adds to it and does what it returns.

    It grows with the streams that have a publisher or viewers, not with the events: a second event that changes the
    same about a stream adds nothing.
    """

    def __init__(self) -> None:
        #: By member, and whether it is gone.
        self._endings: dict[tuple[bytes, bool], EndsOfMember] = {}
        self._announced: dict[str, int] = {}
        #: By stream, whether the routes are sent even without a change.
        self._rerouted: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._endings or self._announced or self._rerouted)

    def __len__(self) -> int:
        ends = sum(len(each.publications) + len(each.interests) for each in self._endings.values())
        return ends + len(self._announced) + len(self._rerouted)

    def end(
        self, member: bytes, publications: Iterable[str], interests: Iterable[str], moment: Moment, *, is_gone: bool
    ) -> None:
        """Add that a gateway has no publisher of some streams, and no viewers of others.

        Args:
            member: The gateway.
            publications: The streams whose publisher was connected to it.
            interests: The streams that it had viewers of.
            moment: When.
            is_gone: Whether the gateway itself is gone.
        """
        found = EndsOfMember(member, is_gone, dict.fromkeys(publications, moment), dict.fromkeys(interests, moment))
        for key in ((member, False), (member, True)) if is_gone else ((member, False),):
            before = self._endings.pop(key, None)
            if before is not None:  # what ended before keeps its moment
                found.publications |= before.publications
                found.interests |= before.interests
        if found.publications or found.interests:
            self._endings[member, is_gone] = found

    def announce(self, streams: Iterable[str], now_ms: int) -> None:
        """Add that the status of some streams is announced again."""
        self._announced |= dict.fromkeys(streams, now_ms)

    def reroute(self, streams: Iterable[str], *, resend: bool = False) -> None:
        """Add that the routes of some streams are computed anew, with `resend` to be sent even without a change."""
        added = dict.fromkeys(streams, resend)
        self._rerouted = self._rerouted | added if resend else added | self._rerouted

    def next_stream(self) -> str | None:
        """Return a stream for which something is due: first those of which something ends. None: nothing is due."""
        if (ending := self.next_ending()) is not None:
            return ending
        if self._announced:
            return _last(self._announced)
        return _last(self._rerouted) if self._rerouted else None

    def next_ending(self) -> str | None:
        """Return a stream of which something ends; None: there is none."""
        for ending in self._endings.values():
            return _last(ending.publications) if ending.publications else _last(ending.interests)
        return None

    def ending_publications(self) -> Iterator[str]:
        """Iterate over the streams whose publisher is gone, though they still have it."""
        for ending in self._endings.values():
            yield from ending.publications

    def take(self, stream: str) -> DueForStream:
        """Remove and return all that is due for a stream."""
        ends = []
        for key, ending in list(self._endings.items()):
            publication, interest = ending.publications.pop(stream, None), ending.interests.pop(stream, None)
            if publication is not None or interest is not None:
                ends.append(EndsOfStream(ending.member, ending.is_gone, publication, interest is not None))
                if not ending.publications and not ending.interests:
                    del self._endings[key]
        resend = self._rerouted.pop(stream, None)
        return DueForStream(ends, self._announced.pop(stream, None), resend is not None, bool(resend))


def _last(streams: dict[str, V]) -> str:
    """Return a key of a dict that has any. The first one would take longer the more were removed before it."""
    name, value = streams.popitem()
    streams[name] = value
    return name
