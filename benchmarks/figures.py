"""The figures of benchmark runs: percentiles, medians over rounds, and ratios. Pure.

Every round runs all systems one after the other. A ratio is that of two runs of the same round; reported are the median
of those ratios, the least and the greatest. A run with one wrong frame gives no figure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

SUBJECT: Final = "watchout"
PEERS: Final = ("bun", "bun-raw", "nchan", "ws", "broadcast")
#: The two that the goals of CPU are set against: they look at no frame.
STRONG_PEERS: Final = ("bun-raw", "nchan")
#: watchout behind a proxy that does the TLS.
FRONTS: Final = ("nginx", "haproxy", "caddy")
FLOOR_UVLOOP: Final = "floor-uvloop"
FLOOR_C: Final = "floor-c"
SYSTEMS: Final = {
    SUBJECT: "watchout",
    "bun": "Bun publish",
    "bun-raw": "Bun publish, raw",
    "nchan": "Nchan",
    "ws": "ws on Node",
    "broadcast": "websockets broadcast",
    FLOOR_UVLOOP: "floor: uvloop",
    FLOOR_C: "floor: C",
    "nginx": "watchout behind nginx",
    "haproxy": "watchout behind HAProxy",
    "caddy": "watchout behind Caddy",
}
"""Each system and its name in tables, in their order."""
LOADS: Final = ("json-1x50", "json-1x10", "json-50x1", "bin-1x50", "bin-1x10", "bin-50x1")
"""The loads at which all peers are measured."""
MORE_LOADS: Final = ("json-1x50-low", "json-1x10-low", "json-50x1-low", "json-8k-1x10", "json-200k-1x10")
"""Those at which the strong ones are: few frames a second, and frames of other sizes."""
WRITTEN: Final = {
    "json-1x50": ("json-spaces-1x50", "json-fields-1x50", "json-slashes-1x50"),
    "json-50x1": ("json-spaces-50x1", "json-fields-50x1", "json-slashes-50x1", "json-fragments-50x1"),
}
"""Loads with compact JSON, and the same with cameras that write it in other ways."""
TLS_LOADS: Final = ("tls-1x10", "tls-20x1")
"""Those with TLS, in the process itself and by a proxy in front."""
ALERT_LOADS: Final = ("alert-1x5000",)
"""Alerts of a camera to many viewers."""
POINTS: Final = {
    "json-1x50": "JSON, 1 → 50",
    "json-1x10": "JSON, 1 → 10",
    "json-50x1": "JSON, 50 × (1 → 1)",
    "json-1x50-low": "JSON, 1 → 50, 15 fps",
    "json-1x10-low": "JSON, 1 → 10, 15 fps",
    "json-50x1-low": "JSON, 50 × (1 → 1), 15 fps",
    "json-8k-1x10": "JSON, 8 kB, 1 → 10",
    "json-200k-1x10": "JSON, 200 kB, 1 → 10",
    "json-spaces-1x50": "JSON with spaces, 1 → 50",
    "json-fields-1x50": "JSON with three more fields, 1 → 50",
    "json-slashes-1x50": "JSON with escaped slashes, 1 → 50",
    "json-spaces-50x1": "JSON with spaces, 50 × (1 → 1)",
    "json-fields-50x1": "JSON with three more fields, 50 × (1 → 1)",
    "json-slashes-50x1": "JSON with escaped slashes, 50 × (1 → 1)",
    "json-fragments-50x1": "JSON in fragments, 50 × (1 → 1)",
    "bin-1x50": "binary, 1 → 50",
    "bin-1x10": "binary, 1 → 10",
    "bin-50x1": "binary, 50 × (1 → 1)",
    "ml-off": "50 streams, no ML",
    "ml-on": "50 streams, ML takes 2 fps of each",
    "ml-hangs": "the same, the ML service hangs",
    "one-gateway": "camera and viewer on one gateway",
    "two-gateways": "camera on one gateway, viewer on the other",
    "two-hosts": "camera on one host, viewer on another",
    "hosts-3": "three hosts, viewers beside the cameras",
    "streams-50": "50 streams at 100 fps",
    "streams-1000": "1000 streams at 5 fps",
    "slow-off": "50 viewers",
    "slow-on": "50 viewers and a slow one",
    "alert-1x5000": "an alert, 1 → 5000",
    "alerts-off": "100 viewers, 15 fps",
    "alerts-on": "the same beside 500 alerts a second",
    "tls-1x10": "TLS, 1 → 10",
    "tls-20x1": "TLS, 20 × (1 → 1)",
    "idle": "idle connections",
}
"""Each point of the plan and its name in tables, in their order."""

#: Below this share of the expected frames, a system's CPU per delivered frame is that of other work than its peers'.
WHOLE: Final = 0.99
#: Greatest less least over median; above this a figure is called noisy.
NOISY_SPREAD: Final = 0.25
#: How sure a goal is reached or not before its figure counts as decided.
CONFIDENCE: Final = 0.85
#: When the load itself writes later than this at p99, its latencies are partly its own.
LATE_MS: Final = 3.0
#: When the load takes more of a core than this, it may be what limits.
BUSY_CORES: Final = 0.8
MIB: Final = 2**20

Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ResultsFault(ValueError):
    """Bytes that are no raw results; the text says where and what was expected."""


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of a time over the frames of a run, in ms."""

    p50: Amount
    p99: Amount
    p999: Amount
    max: Amount


class Slow(msgspec.Struct, frozen=True):
    """Viewers that read slowly: the age of their frames when received; `transfer_ms` is what one frame takes."""

    received: Count
    transfer_ms: Amount
    age_ms: Spread | None = None


class Load(msgspec.Struct, frozen=True):
    """What the load saw in the measured time.

    `expected`: frames sent times viewers, slow ones left out. `not_sent`: frames that a camera left out because the
    server took no more. `latency_ms`: from the camera's write until a viewer has the whole frame. `lateness_ms`: how
    much later than planned the load wrote.
    """

    sent: Count = 0
    expected: Count = 0
    delivered: Count = 0
    corrupt: Count = 0
    reordered: Count = 0
    not_sent: Count = 0
    latency_ms: Spread | None = None
    load_cpu_s: Amount = 0.0
    lateness_ms: Spread | None = None
    measured_s: Amount = 0.0
    slow: Slow | None = None
    idle: Count = 0


class Process(msgspec.Struct, frozen=True):
    """What one process of the system took of `Run.server_cpu_s`; `name` is the kernel's, at most 15 characters."""

    name: str
    cpu_s: float


class Run(msgspec.Struct, frozen=True):
    """One system at one point in one round.

    `pss_bytes`: resident memory of all its processes, with `pss_before_bytes` before `Load.idle` connections came.
    `ml_requests`: frames that the ML service was asked about, warm-up included.
    """

    point: Name
    system: Name
    round: Count
    server_cpu_s: Amount = 0.0
    pss_bytes: Count = 0
    pss_before_bytes: Count | None = None
    ml_requests: Count | None = None
    processes: tuple[Process, ...] = ()
    load: Load = Load()

    @property
    def valid(self) -> bool:
        """Whether each received frame was a sent one, in order."""
        return self.load.corrupt == 0 and self.load.reordered == 0


class Failed(msgspec.Struct, frozen=True):
    """A run that came to no end: a server or a load that failed."""

    point: Name
    system: Name
    round: Count
    why: str


class Point(msgspec.Struct, frozen=True):
    """What stood at a point, in words; times in s."""

    what: str
    warmup_s: Amount = 0.0
    duration_s: Amount = 0.0


class Results(msgspec.Struct, frozen=True):
    """A raw file. `missing`: systems that could not run, each with its reason."""

    machine: dict[str, Any]
    command: str
    quick: bool
    began: str
    runs: Annotated[tuple[Run, ...], msgspec.Meta(max_length=100_000)]
    failed: tuple[Failed, ...] = ()
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    points: dict[str, Point] = msgspec.field(default_factory=dict)


def read(data: bytes) -> Results:
    """The results in a raw file. Fields that are not known are passed over. Raises `ResultsFault`."""
    try:
        return msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ResultsFault(f"not the raw results of a benchmark: {fault}") from None


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` (0 to 1) of the ascending values do not exceed (nearest rank)."""
    if not ordered:
        raise ValueError("no values, expected at least one")
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}, expected 0 to 1")
    # Rounded first: 0.99 × 100 is a little more than 99 in binary.
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over the rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ by more than `NOISY_SPREAD` of the median."""
        return self.high - self.low > NOISY_SPREAD * abs(self.median)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the median of very many rounds is, with at least `CONFIDENCE` if there are four rounds or more.

        It is bounded by two of the values, whatever distribution they have: the number of rounds below that median is
        binomial with probability 1/2. With fewer rounds it is all between the least and the greatest.
        """
        ordered, rounds = sorted(self.values), len(self.values)
        cut, outside = 0, 2 / 2**rounds
        while (
            2 * (cut + 1) < rounds
            and 1 - (outside := outside + 2 * math.comb(rounds, cut + 1) / 2**rounds) >= CONFIDENCE
        ):
            cut += 1
        return ordered[cut], ordered[-1 - cut]


Quantity = Callable[[Run], float | None]


def cpu_us(run: Run) -> float | None:
    """CPU time of all processes of the system, in µs per delivered frame."""
    return run.server_cpu_s * 1e6 / run.load.delivered if run.load.delivered else None


def p50_ms(run: Run) -> float | None:
    return run.load.latency_ms.p50 if run.load.latency_ms is not None else None


def p99_ms(run: Run) -> float | None:
    return run.load.latency_ms.p99 if run.load.latency_ms is not None else None


def p999_ms(run: Run) -> float | None:
    return run.load.latency_ms.p999 if run.load.latency_ms is not None else None


def max_ms(run: Run) -> float | None:
    return run.load.latency_ms.max if run.load.latency_ms is not None else None


def memory_mib(run: Run) -> float | None:
    """Resident memory of all processes of the system (proportional set size), in MiB."""
    return run.pss_bytes / MIB if run.pss_bytes else None


def delivered_share(run: Run) -> float | None:
    """Delivered frames of those that were to be, 0 to 1; what a camera could not send counts as not delivered."""
    load = run.load
    return load.delivered / wanted(load) if load.expected else None


def wanted(load: Load) -> float:
    """Frames that viewers would have had, had every camera been able to send all of its own."""
    return load.expected * (1 + load.not_sent / load.sent) if load.sent else float(load.expected)


def lateness_ms(run: Run) -> float | None:
    """How late the load itself was at p99, in ms."""
    return run.load.lateness_ms.p99 if run.load.lateness_ms is not None else None


def load_cores(run: Run) -> float | None:
    """Cores that the load took."""
    return run.load.load_cpu_s / run.load.measured_s if run.load.measured_s else None


def idle_connections(run: Run) -> float | None:
    return float(run.load.idle) if run.load.idle else None


def idle_kb(run: Run) -> float | None:
    """Resident memory per idle connection, in kB of 1000 bytes."""
    if not run.load.idle or run.pss_before_bytes is None:
        return None
    return (run.pss_bytes - run.pss_before_bytes) / run.load.idle / 1000


def slow_age(run: Run) -> float | None:
    """The greatest age of a frame that the slow viewer received, in times that one frame takes to reach it."""
    slow = run.load.slow
    return slow.age_ms.max / slow.transfer_ms if slow is not None and slow.age_ms and slow.transfer_ms else None


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and the system that it is compared with."""

    figure: Figure
    against: str | None = None


class Runs:
    """The valid runs of one raw file, by point, system and round, and those that failed."""

    def __init__(self, runs: Iterable[Run], failed: Iterable[Failed] = ()) -> None:
        self.all = tuple(runs)
        self._failed = tuple(failed)
        self._valid: dict[tuple[str, str], dict[int, Run]] = {}
        for run in self.all:
            if run.valid:
                self._valid.setdefault((run.point, run.system), {})[run.round] = run

    def at(self, point: str, system: str) -> Mapping[int, Run]:
        """The valid runs of a system at a point, by round."""
        return self._valid.get((point, system), {})

    def invalid(self, point: str, system: str) -> list[Run]:
        """Those in which a frame was wrong or out of order."""
        return [r for r in self.all if not r.valid and (r.point, r.system) == (point, system)]

    def failed(self, point: str, system: str) -> list[Failed]:
        """Those that came to no end."""
        return [f for f in self._failed if (f.point, f.system) == (point, system)]

    def systems(self, point: str) -> list[str]:
        """Who ran at a point, in the order of tables; those that the table does not know come last."""
        ran = dict.fromkeys(r.system for r in self.all if r.point == point)
        ran |= dict.fromkeys(f.system for f in self._failed if f.point == point)
        return [s for s in SYSTEMS if s in ran] + [s for s in ran if s not in SYSTEMS]

    def figure(self, point: str, system: str, quantity: Quantity) -> Figure | None:
        """A quantity over the rounds; None when no valid run has it."""
        found = tuple(v for run in self.at(point, system).values() if (v := quantity(run)) is not None)
        return Figure(found) if found else None

    def pairs(
        self, point: str, system: str, other_point: str, other: str, quantity: Quantity
    ) -> list[tuple[float, float]]:
        """The quantity of both in each round that has both."""
        theirs = self.at(other_point, other)
        found = []
        for number, run in self.at(point, system).items():
            beside = theirs.get(number)
            if beside is not None and (a := quantity(run)) is not None and (b := quantity(beside)) is not None:
                found.append((a, b))
        return found

    def ratio(self, point: str, system: str, other_point: str, other: str, quantity: Quantity) -> Figure | None:
        """One over the other, round by round."""
        found = tuple(a / b for a, b in self.pairs(point, system, other_point, other, quantity) if b)
        return Figure(found) if found else None

    def difference(self, point: str, system: str, other_point: str, other: str, quantity: Quantity) -> Figure | None:
        """One less the other, round by round."""
        found = tuple(a - b for a, b in self.pairs(point, system, other_point, other, quantity))
        return Figure(found) if found else None

    def whole(self, point: str, system: str) -> bool:
        """Whether it delivered what was expected, or nothing was: `WHOLE` of it in the median round."""
        share = self.figure(point, system, delivered_share)
        return share is None or share.median >= WHOLE

    def best(self, point: str, among: Iterable[str], quantity: Quantity) -> str | None:
        """Who has the least median, of those that delivered whole."""
        found = [
            (figure.median, system)
            for system in among
            if self.whole(point, system) and (figure := self.figure(point, system, quantity)) is not None
        ]
        return min(found)[1] if found else None

    def against_best(
        self, point: str, among: Iterable[str], quantity: Quantity, *, other_point: str | None = None
    ) -> Measured | None:
        """watchout at `point` over the best of `among` at `other_point` (the same point when None)."""
        beside = other_point or point
        best = self.best(beside, among, quantity)
        if best is None:
            return None
        figure = self.ratio(point, SUBJECT, beside, best, quantity)
        return Measured(figure, best) if figure is not None else None


def remarks(runs: Runs, point: str, system: str) -> list[str]:
    """What a reader must know of these runs before he compares their figures."""
    found = []
    wrong = runs.invalid(point, system)
    if wrong:
        corrupt, reordered = sum(r.load.corrupt for r in wrong), sum(r.load.reordered for r in wrong)
        found.append(f"INVALID: {corrupt} corrupt and {reordered} reordered frames in {_rounds(len(wrong))}")
    if failed := runs.failed(point, system):
        found.append(f"FAILED in {_rounds(len(failed))}")
    share = runs.figure(point, system, delivered_share)
    if share is not None and share.median < WHOLE:
        found.append(f"drops {100 * (1 - share.median):.0f} % of the frames: CPU not comparable")
    return found + strained(runs, point, system)


def strained(runs: Runs, point: str, system: str) -> list[str]:
    """Why the load itself may be in these figures: late by more than `LATE_MS`, or busy for more than `BUSY_CORES`."""
    found = []
    if (late := runs.figure(point, system, lateness_ms)) is not None and late.median > LATE_MS:
        found.append(f"load was late by {late.median:.1f} ms")
    if (cores := runs.figure(point, system, load_cores)) is not None and cores.median > BUSY_CORES:
        found.append(f"load took {100 * cores.median:.0f} % of a core")
    return found


def _rounds(number: int) -> str:
    return f"{number} round" if number == 1 else f"{number} rounds"
