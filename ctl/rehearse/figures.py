"""What clients of a rehearsal counted, second by second and in all, and how that of several processes adds up. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from watchout.common.latency.histogram import Histogram
from watchout.ctl.rehearse.plan import ViewerRole

#: Most points of a series; beyond it neighbours are joined, and each point is of twice the time.
MAX_POINTS: Final = 600
#: Most different texts of faults that are kept.
MAX_FAULTS: Final = 20


class Durations(msgspec.Struct, frozen=True):
    """A histogram as it goes from process to process."""

    pairs: list[int] = []
    sum_ms: float = 0.0
    negative: int = 0

    @classmethod
    def of(cls, found: Histogram) -> Durations:
        """Return what a histogram has."""
        return cls(found.pairs(), found.sum_ms, found.negative)

    def histogram(self) -> Histogram:
        """Return the histogram."""
        return Histogram.of_pairs(self.pairs, sum_ms=self.sum_ms, negative=self.negative)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of clients counted in one second.

    Attributes:
        at_s: The second of the rehearsal.
        sent: Frames that cameras wrote.
        received: Frames that viewers read, `missing`: that never came to them.
        received_bytes: Bytes of the pictures.
        alerts: Alerts that clients read.
        glass: From the capture of a frame to its reading by a steady viewer.
        alert: From the capture of the frame of an alert to its reading by a client.
        lag: How late the process itself was for timers.
        cpu_s: CPU seconds that it used.
        seconds: How many seconds it is of, 1 unless joined.
    """

    at_s: int
    sent: int = 0
    received: int = 0
    missing: int = 0
    received_bytes: int = 0
    alerts: int = 0
    glass: Durations = Durations()
    alert: Durations = Durations()
    lag: Durations = Durations()
    cpu_s: float = 0.0
    seconds: int = 1


class RoleCounts(msgspec.Struct, kw_only=True, rename="camel"):
    """What the viewers of one role counted.

    Attributes:
        viewers: How many viewers.
        received: Frames that they read.
        missing: Frames whose numbers were left out between two that they read: dropped on the way.
        replaced: Frames that had come, but were replaced by newer ones before the viewer took them.
        alerts: Alerts that they read, `alerts_lost` those whose number was left out, `alerts_twice` that came again.
    """

    viewers: int = 0
    received: int = 0
    missing: int = 0
    replaced: int = 0
    alerts: int = 0
    alerts_lost: int = 0
    alerts_twice: int = 0

    def add(self, other: RoleCounts) -> None:
        """Add what others counted."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class StreamTally(msgspec.Struct, kw_only=True):
    """What all clients of one stream counted: connections that were established, and frames as in `RoleCounts`."""

    connections: int = 0
    received: int = 0
    missing: int = 0

    def add(self, other: StreamTally) -> None:
        """Add what others counted."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Counts(msgspec.Struct, kw_only=True):
    """All that the clients counted from begin to end.

    Attributes:
        due: Frames that cameras were to send.
        sent: Frames that they sent.
        held: Frames that they left out because the frames before were not confirmed: the way was full.
        camera_alerts: Alerts that cameras read.
        roles: What viewers counted, by role.
        streams: What is compared with the memory of the gateways.
        lost: Connections that ended without the client's doing, by the code of the reason.
        faults: What went wrong, in sentences with how often; no more than `MAX_FAULTS` different ones.
    """

    due: int = 0
    sent: int = 0
    held: int = 0
    camera_alerts: int = 0
    roles: dict[ViewerRole, RoleCounts] = {}
    streams: dict[str, StreamTally] = {}
    lost: dict[str, int] = {}
    faults: dict[str, int] = {}

    def add(self, other: Counts) -> None:
        """Add what the clients of another process counted."""
        self.due += other.due
        self.sent += other.sent
        self.held += other.held
        self.camera_alerts += other.camera_alerts
        for role, counted in other.roles.items():
            self.roles.setdefault(role, RoleCounts()).add(counted)
        for stream, found in other.streams.items():
            self.streams.setdefault(stream, StreamTally()).add(found)
        for code, count in other.lost.items():
            self.lost[code] = self.lost.get(code, 0) + count
        for text, count in other.faults.items():
            self.fault(text, count)

    def fault(self, text: str, count: int = 1) -> None:
        """Count something that went wrong."""
        if text in self.faults or len(self.faults) < MAX_FAULTS:
            self.faults[text] = self.faults.get(text, 0) + count

    def all_viewers(self) -> RoleCounts:
        """Return what viewers of all roles counted."""
        total = RoleCounts()
        for counted in self.roles.values():
            total.add(counted)
        return total


def joined_durations(found: Iterable[Durations]) -> Histogram:
    """Return one histogram of all."""
    total = Histogram()
    for each in found:
        total.merge(each.histogram())
    return total


class Series:
    """The moments of all processes, added by second, in at most `MAX_POINTS` points.

    Attributes:
        step_s: Seconds of each point.
    """

    def __init__(self) -> None:
        self.step_s = 1
        self._points: dict[int, Moment] = {}

    def add(self, moment: Moment) -> None:
        """Add what one process counted in one second."""
        self._put(moment)
        while len(self._points) > MAX_POINTS:
            self.step_s *= 2
            points, self._points = self._points, {}
            for each in points.values():
                self._put(each)

    def _put(self, moment: Moment) -> None:
        at = moment.at_s // self.step_s * self.step_s
        known = self._points.get(at)
        self._points[at] = msgspec.structs.replace(moment, at_s=at, seconds=self.step_s) if known is None else Moment(
            at_s=at, sent=known.sent + moment.sent, received=known.received + moment.received,
            missing=known.missing + moment.missing, received_bytes=known.received_bytes + moment.received_bytes,
            alerts=known.alerts + moment.alerts,
            glass=Durations.of(joined_durations((known.glass, moment.glass))),
            alert=Durations.of(joined_durations((known.alert, moment.alert))),
            lag=Durations.of(joined_durations((known.lag, moment.lag))),
            cpu_s=known.cpu_s + moment.cpu_s, seconds=self.step_s,
        )  # fmt: skip

    def points(self) -> list[Moment]:
        """Return the points in their order."""
        return [self._points[at] for at in sorted(self._points)]
