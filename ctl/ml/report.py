"""The record of a dry run: frames, alerts, latency and coverage of one service or two. Pure.

`at_s` is a time in the footage, in seconds; latency is in ms of the clock.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from watchout.common.alerts.model import Alert
from watchout.ctl.terminal import counted, printable
from watchout.mlbridge.cooldown import Cooldown, kind_of

#: Alerts, and refused alerts, that are kept of a run; more are only counted.
MAX_KEPT: Final = 10_000
#: Frames that are listed when two services disagree; more are only counted.
MAX_DISAGREEMENTS: Final = 1_000
#: Upper borders of the latency histogram in ms; the last bar is open.
BORDERS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
_BAR: Final = 40


class Outcome(enum.StrEnum):
    """The outcome of a frame that was sent: a result, a failure, or no result in time."""

    ANSWERED = "answered"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame that was sent to an ML service in a dry run; made by `RecordingTarget`.

    Attributes:
        frame_id: number of the frame.
        at_s: its time in the footage, in seconds.
        latency_ms: time until the outcome, in ms.
        outcome: the outcome.
        reason: why it failed; empty: it did not.
    """

    frame_id: int
    at_s: float
    latency_ms: float
    outcome: Outcome
    reason: str = ""

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        found: dict[str, Any] = {
            "frameId": self.frame_id,
            "atS": round(self.at_s, 3),
            "outcome": str(self.outcome),
            "latencyMs": round(self.latency_ms, 1),
        }
        return found | ({"reason": printable(self.reason)} if self.reason else {})


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """One valid alert of a dry run; made by `ServiceRecord.alert`.

    Attributes:
        alert: the alert.
        told: whether mlbridge would send it on; False: its cooldown would hold it back.
        at_s: time of its frame in the footage, in seconds; None: it names no frame of the run.
        after_ms: time between sending the frame and receiving the alert, in ms; None: as `at_s`.
    """

    alert: Alert
    told: bool
    at_s: float | None
    after_ms: float | None

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        found: dict[str, Any] = msgspec.json.decode(self.alert.to_json())
        found |= {"told": self.told}
        if self.at_s is not None:
            found["atS"] = round(self.at_s, 3)
        if self.after_ms is not None:
            found["afterMs"] = round(self.after_ms, 1)
        return found


@dataclass(frozen=True, slots=True)
class FrameRefusal:
    """One alert of a dry run that is not valid; made by `ServiceRecord.refused`.

    Attributes:
        reason: what is wrong with it.
        frame_id: the frame of its result; None: it belongs to no frame.
    """

    reason: str
    frame_id: int | None

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        return {"reason": printable(self.reason), "frameId": self.frame_id}


@dataclass(slots=True)
class ServiceRecord:
    """What one service returned in a run. Filled by `RecordingTarget`.

    Attributes:
        service: URL of the service, for reports.
        cooldown: decides which alerts mlbridge would hold back.
        looks: the frames that were sent.
        alerts: valid alerts, up to `MAX_KEPT`.
        refusals: invalid alerts, up to `MAX_KEPT`.
        alert_count: number of valid alerts, with those that were not kept.
        refusal_count: number of invalid alerts, with those that were not kept.
        kinds: number of alerts by kind, for each frame id.
    """

    service: str
    cooldown: Cooldown
    looks: list[FrameRecord] = field(default_factory=list)
    alerts: list[AlertRecord] = field(default_factory=list)
    refusals: list[FrameRefusal] = field(default_factory=list)
    alert_count: int = 0
    refusal_count: int = 0
    kinds: dict[int, Counter[str]] = field(default_factory=dict)

    def shown(self, look: FrameRecord) -> None:
        """Add a frame that was sent."""
        self.looks.append(look)

    def alert(self, alert: Alert, at_s: float | None, after_ms: float | None, now_s: float) -> AlertRecord:
        """Add a valid alert and return its record; `now_s` is the time for the cooldown, in seconds."""
        passed = self.cooldown.take(alert, now_s)
        told = AlertRecord(alert if passed is None else passed, passed is not None, at_s, after_ms)
        self.alert_count += 1
        if len(self.alerts) < MAX_KEPT:
            self.alerts.append(told)
            if alert.frame_id is not None:
                self.kinds.setdefault(alert.frame_id, Counter())[kind_of(alert)] += 1
        return told

    def refused(self, reason: str, frame_id: int | None) -> None:
        """Add an invalid alert."""
        self.refusal_count += 1
        if len(self.refusals) < MAX_KEPT:
            self.refusals.append(FrameRefusal(reason, frame_id))

    def count(self, outcome: Outcome) -> int:
        """Return the number of frames with this outcome."""
        return sum(look.outcome is outcome for look in self.looks)

    def latencies(self) -> list[float]:
        """Return the latencies of all results, in ms, sorted."""
        return sorted(look.latency_ms for look in self.looks if look.outcome is Outcome.ANSWERED)

    def coverage(self, length_s: float) -> float:
        """Return the share of the footage's seconds in which a frame has a result; 0 without footage."""
        seconds = math.ceil(length_s - 1e-9)
        seen = {math.floor(look.at_s) for look in self.looks if look.outcome is Outcome.ANSWERED}
        return min(1.0, len(seen) / seconds) if seconds > 0 else 0.0

    def failures(self) -> list[tuple[str, int]]:
        """Return the ten most frequent reasons of failures, each with its number."""
        return Counter(look.reason for look in self.looks if look.outcome is not Outcome.ANSWERED).most_common(10)


def quantile(ranked: Sequence[float], share: float) -> float:
    """Return the quantile for a share from 0 to 1 of sorted values (nearest rank); 0 without values."""
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else 0.0


def histogram(values_ms: Iterable[float]) -> list[int]:
    """Return the number of values up to each of `BORDERS_MS`, and in the last place the number above."""
    bars = [0] * (len(BORDERS_MS) + 1)
    for value in values_ms:
        bars[next((n for n, border in enumerate(BORDERS_MS) if value <= border), len(BORDERS_MS))] += 1
    return bars


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A frame for which two services returned different kinds of alerts.

    Attributes:
        frame_id: number of the frame.
        at_s: its time in the footage, in seconds.
        only_first: kinds of alerts that only the first service returned.
        only_second: kinds of alerts that only the second service returned.
    """

    frame_id: int
    at_s: float
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        return {
            "frameId": self.frame_id,
            "atS": round(self.at_s, 3),
            "onlyFirst": [printable(kind) for kind in self.only_first],
            "onlySecond": [printable(kind) for kind in self.only_second],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two services of a dry run compared over the frames for which both have a result; made by `Replay.comparison`.

    Alerts are compared by frame and kind, without the cooldown.

    Attributes:
        compared: number of frames.
        agreed: number of frames with the same kinds of alerts.
        disagreements: the other frames, up to `MAX_DISAGREEMENTS`.
    """

    compared: int
    agreed: int
    disagreements: tuple[Disagreement, ...]

    @classmethod
    def of(cls, first: ServiceRecord, second: ServiceRecord) -> Comparison:
        """Compare two records of the same run."""
        answered = {look.frame_id for look in second.looks if look.outcome is Outcome.ANSWERED}
        both = [look for look in first.looks if look.outcome is Outcome.ANSWERED and look.frame_id in answered]
        found = []
        for look in sorted(both, key=lambda look: look.frame_id):
            here, there = (record.kinds.get(look.frame_id, Counter()) for record in (first, second))
            if here != there:
                only = (tuple(sorted((a - b).elements())) for a, b in ((here, there), (there, here)))
                found.append(Disagreement(look.frame_id, look.at_s, *only))
        return cls(len(both), len(both) - len(found), tuple(found[:MAX_DISAGREEMENTS]))

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        return {
            "compared": self.compared,
            "agreed": self.agreed,
            "disagreed": self.compared - self.agreed,
            "disagreements": [each.body() for each in self.disagreements],
        }


@dataclass(frozen=True, slots=True)
class Replay:
    """A finished dry run over footage, with one service or two. Made by ``watchout-ctl ml replay``.

    Attributes:
        footage: name of the source.
        length_s: length of the footage, in seconds.
        took_s: duration of the run, in seconds.
        frames: number of frames of the footage.
        fps: frames per second of footage that were sent.
        speed: multiple of real time; None: each frame was sent after the result of the last one.
        first: the record of the service.
        second: the record of the second service; None: there is none.
        interrupted: whether the user ended the run early.
    """

    footage: str
    length_s: float
    took_s: float
    frames: int
    fps: float
    speed: float | None
    first: ServiceRecord
    second: ServiceRecord | None = None
    interrupted: bool = False

    @property
    def comparison(self) -> Comparison | None:
        """The comparison of the two services, None with one."""
        return None if self.second is None else Comparison.of(self.first, self.second)

    @property
    def reached(self) -> float:
        """The multiple of real time that was reached."""
        return self.length_s / self.took_s if self.took_s > 0 else 0.0

    def body(self) -> dict[str, Any]:
        """Return the content for the JSON report."""
        comparison = self.comparison
        return {
            "footage": printable(self.footage),
            "lengthS": round(self.length_s, 3),
            "tookS": round(self.took_s, 3),
            "frames": self.frames,
            "fps": self.fps,
            "speed": self.speed,
            "speedReached": round(self.reached, 2),
            "interrupted": self.interrupted,
            "service": self._body_of(self.first),
            "shadow": None if self.second is None else self._body_of(self.second),
            "comparison": None if comparison is None else comparison.body(),
        }

    def _body_of(self, record: ServiceRecord) -> dict[str, Any]:
        ranked = record.latencies()
        bars = histogram(ranked)
        return {
            "service": record.service,
            "shown": len(record.looks),
            **{str(outcome): record.count(outcome) for outcome in Outcome},
            "coverage": round(record.coverage(self.length_s), 4),
            "latencyMs": {name: round(quantile(ranked, share), 1) for name, share in _SHARES},
            "histogram": [{"upToMs": up_to, "answers": n} for up_to, n in zip((*BORDERS_MS, None), bars, strict=True)],
            "failures": [{"reason": printable(reason), "frames": n} for reason, n in record.failures()],
            "alertCount": record.alert_count,
            "alerts": [told.body() for told in record.alerts],
            "refusedCount": record.refusal_count,
            "refused": [refusal.body() for refusal in record.refusals],
            "looks": [look.body() for look in record.looks],
        }

    def text(self) -> str:
        """Return the report as plain text."""
        speed = "as fast as possible" if self.speed is None else f"at {self.speed:g} times its speed"
        lines = [
            f"{printable(self.footage)}: {clock_of(self.length_s)} of footage, {counted(self.frames, 'frame')}"
            + (", then interrupted" if self.interrupted else ""),
            f"played {speed}, {counted_rate(self.fps)}; took {self.took_s:.1f} s ({self.reached:.2g} times its speed)",
            "",
            *self._lines_of(self.first),
        ]
        comparison = self.comparison
        if self.second is not None and comparison is not None:
            lines += ["", "shadow", "", *self._lines_of(self.second), "", *self._compared(comparison)]
        return "\n".join(lines) + "\n"

    def _lines_of(self, record: ServiceRecord) -> list[str]:
        ranked = record.latencies()
        answered, failed, late = (record.count(outcome) for outcome in Outcome)
        found = [
            record.service,
            f"  shown {len(record.looks)} · answered {answered} · failed {failed} · too late {late}",
            f"  coverage {record.coverage(self.length_s):.1%} of the seconds",
            "  latency " + " · ".join(f"{name} {quantile(ranked, share):.0f} ms" for name, share in _SHARES),
        ]
        found += [f"    {line}" for line in bars_of(histogram(ranked))]
        found += [f"  failed {n} ×: {printable(reason)}" for reason, n in record.failures()]
        held = sum(not told.told for told in record.alerts)
        found.append(f"  {counted(record.alert_count, 'alert')}, of which the cooldown would hold back {held}")
        found += [f"    {alert_text(told)}" for told in record.alerts if told.told]
        reasons = Counter(refusal.reason for refusal in record.refusals).most_common(10)
        found += [f"  refused {n} ×: {printable(reason)}" for reason, n in reasons]
        return found

    def _compared(self, comparison: Comparison) -> list[str]:
        found = [f"the two agree on {comparison.agreed} of {counted(comparison.compared, 'frame')} that both answered"]
        for each in comparison.disagreements:
            only = [f"only the {which}: {', '.join(map(printable, kinds))}" for which, kinds in
                    (("first", each.only_first), ("shadow", each.only_second)) if kinds]  # fmt: skip
            found.append(f"  {clock_of(each.at_s)} frame {each.frame_id}: {'; '.join(only)}")
        more = comparison.compared - comparison.agreed - len(comparison.disagreements)
        return [*found, f"  and {more} more"] if more else found


_SHARES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


def counted_rate(fps: float) -> str:
    """Return a frame rate as text."""
    return f"{fps:g} {'frame' if fps == 1 else 'frames'} per second"


def clock_of(seconds: float) -> str:
    """Return a time in the footage as text: ``0:07.5``, ``1:02:03.0``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{minutes:02d}" if hours else f"{minutes}"
    return f"{f'{hours}:' if hours else ''}{shown}:{rest / 10:04.1f}"


def alert_text(told: AlertRecord) -> str:
    """Return one alert as one line."""
    alert = told.alert
    where = "--:--" if told.at_s is None else clock_of(told.at_s)
    frame = "" if alert.frame_id is None else f" (frame {alert.frame_id})"
    return f"{where} {alert.severity} {printable(alert.message)}{frame}"


def bars_of(bars: Sequence[int]) -> list[str]:
    """Return a histogram as lines, from the first bar that is not empty to the last such one."""
    filled = [n for n, bar in enumerate(bars) if bar]
    most = max(bars, default=0)
    found = []
    for n in range(filled[0], filled[-1] + 1) if filled else ():
        label = f"≤ {BORDERS_MS[n]} ms" if n < len(BORDERS_MS) else f"> {BORDERS_MS[-1]} ms"
        found.append(f"{label:>9} {'█' * math.ceil(_BAR * bars[n] / most)} {bars[n]}")
    return found
