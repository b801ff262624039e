"""The goals of the benchmarks, and which of them the runs reach. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import (
    FLOOR_UVLOOP,
    LOADS,
    MORE_LOADS,
    PEERS,
    POINTS,
    STRONG_PEERS,
    SUBJECT,
    TLS_LOADS,
    Figure,
    Measured,
    Quantity,
    Runs,
    cpu_us,
    idle_connections,
    idle_kb,
    memory_mib,
    p99_ms,
    slow_age,
)


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. `sentence` states it; `points` are those at which watchout must deliver all frames.

    `subject`: the point and the quantity in which peers and floors are compared beside the goal, if there is one.
    `against_at`: the point at which the peers run that it is set against; None: the first of `points`.
    """

    name: str
    sentence: str
    measure: Callable[[Runs], Measured | None]
    bound: float
    points: tuple[str, ...]
    unit: str = "×"
    at_least: bool = False
    subject: tuple[str, Quantity] | None = None
    against_at: str | None = None

    def holds(self, value: float) -> bool:
        """Whether the value is on the right side of the bound, or on it."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal is reached; None: it was not measured. `why`: why it counts as missed whatever the figure is.

    `decided`: whether more rounds are not expected to change that; False: the interval of the figure holds the bound.
    """

    goal: Goal
    measured: Measured | None
    reached: bool | None
    rounds_reached: int = 0
    why: str = ""
    decided: bool = True


def judge(goal: Goal, runs: Runs) -> Verdict:
    """Whether a goal is reached: by the median, with no run failed, no frame wrong and no more than 1 % lost."""
    why = _against(goal, runs)
    measured = goal.measure(runs)
    if measured is None:
        return Verdict(goal, None, False if why else None, why=why)
    figure = measured.figure
    decided = bool(why) or len({goal.holds(end) for end in figure.interval}) == 1
    return Verdict(
        goal, measured, goal.holds(figure.median) and not why, sum(map(goal.holds, figure.values)), why, decided
    )


def _against(goal: Goal, runs: Runs) -> str:
    if any(runs.invalid(point, SUBJECT) for point in goal.points):
        return "wrong frames"
    if any(runs.failed(point, SUBJECT) for point in goal.points):
        return "a run failed"
    if not all(runs.whole(point, SUBJECT) for point in goal.points):
        return "drops frames"
    return ""


def _versus_peers(name: str, sentence: str, bound: float, point: str, peers: tuple[str, ...], q: Quantity) -> Goal:
    return Goal(
        f"{name}, {POINTS[point]}", sentence, lambda runs: runs.against_best(point, peers, q), bound, (point,),
        subject=(point, q),
    )  # fmt: skip


def _binary(point: str, json_point: str) -> Goal:
    return Goal(
        f"CPU, {POINTS[point]}, against JSON",
        "CPU per delivered frame, binary to binary: ≤ 0.75 of the best JSON figure.",
        lambda runs: runs.against_best(point, (SUBJECT, *PEERS), cpu_us, other_point=json_point),
        0.75,
        (point, json_point),
        subject=(point, cpu_us),
        against_at=json_point,
    )


def _written(point: str, plain: str, how: str, bound: float) -> Goal:
    return _two_points(
        f"CPU, {POINTS[point]}, against compact JSON",
        f"CPU per delivered frame of cameras whose JSON has {how}: ≤ {bound} of that with compact JSON.",
        bound, point, plain, cpu_us,
    )  # fmt: skip


def _floor(point: str, bound: float) -> Goal:
    return Goal(
        f"CPU, {POINTS[point]}, against the uvloop floor",
        f"CPU per delivered frame: ≤ {bound} of the uvloop floor, which reads and writes the same bytes, nothing else.",
        lambda runs: runs.against_best(point, (FLOOR_UVLOOP,), cpu_us),
        bound,
        (point,),
        subject=(point, cpu_us),
    )


def _two_points(name: str, sentence: str, bound: float, point: str, other: str, quantity: Quantity) -> Goal:
    def measure(runs: Runs) -> Measured | None:
        figure = runs.ratio(point, SUBJECT, other, SUBJECT, quantity)
        return Measured(figure) if figure is not None else None

    return Goal(name, sentence, measure, bound, (point, other))


def _more(
    name: str, sentence: str, bound: float, point: str, other: str, quantity: Quantity, unit: str
) -> Goal:  # fmt: skip
    def measure(runs: Runs) -> Measured | None:
        figure = runs.difference(point, SUBJECT, other, SUBJECT, quantity)
        return Measured(figure) if figure is not None else None

    return Goal(name, sentence, measure, bound, (point, other), unit)


def _own(
    name: str, sentence: str, bound: float, point: str, quantity: Quantity, unit: str, *, at_least: bool = False
) -> Goal:
    def measure(runs: Runs) -> Measured | None:
        figure = runs.figure(point, SUBJECT, quantity)
        return Measured(figure) if figure is not None else None

    return Goal(name, sentence, measure, bound, (point,), unit, at_least)


def _wrong_frames(runs: Runs) -> Measured | None:
    by_round: dict[int, float] = {}
    for run in runs.all:
        if run.system == SUBJECT:
            by_round[run.round] = by_round.get(run.round, 0) + run.load.corrupt + run.load.reordered
    # The worst round decides: this goal knows no median.
    return Measured(Figure((max(by_round.values()),))) if by_round else None


GOALS: Final[tuple[Goal, ...]] = (
    *(
        _versus_peers(
            "CPU",
            "CPU per delivered frame, JSON, many frames and few, small and large ones: ≤ 1.0 of the better one of Bun's"
            " publish, which looks at nothing, and Nchan.",
            1.0, point, STRONG_PEERS, cpu_us,
        )
        for point in ("json-1x50", "json-1x10", "json-50x1", *MORE_LOADS)
    ),
    *(
        _written(f"json-{envelope}-{shape}", f"json-{shape}", how, bound)
        for envelope, how, bound in (
            ("spaces", "spaces", 1.05),
            ("fields", "three more fields", 1.15),
            ("slashes", "escaped slashes", 1.15),
        )
        for shape in ("1x50", "50x1")
    ),
    _written("json-fragments-50x1", "json-50x1", "two fragments a frame", 1.5),
    *(
        _versus_peers(
            "CPU", "CPU per delivered frame, binary to binary: ≤ 1.1 of Nchan's.", 1.1, point, ("nchan",), cpu_us
        )
        for point in ("bin-1x50", "bin-1x10", "bin-50x1")
    ),
    *(_binary(f"bin-{shape}", f"json-{shape}") for shape in ("1x50", "1x10", "50x1")),
    *(
        _versus_peers("p99", "Latency p99 at those loads: ≤ 1.1 of the best of the peers.", 1.1, point, PEERS, p99_ms)
        for point in (*LOADS, *MORE_LOADS)
    ),
    _two_points(
        "CPU with ML",
        "With mlbridge taking 2 fps of each of 50 streams at 20 fps: ≤ 1.25 of the CPU without.",
        1.25, "ml-on", "ml-off", cpu_us,
    ),
    _two_points(
        "p99 beside an ML service that hangs",
        "With an ML service that answers nothing: viewers' p99 ≤ 1.1 of that with one that answers.",
        1.1, "ml-hangs", "ml-on", p99_ms,
    ),
    _two_points(
        "CPU across gateways",
        "Two gateways, camera on one, viewer on the other: ≤ 1.8 times the CPU of one gateway.",
        1.8, "two-gateways", "one-gateway", cpu_us,
    ),
    _two_points(
        "CPU across hosts",
        "Two hosts with TLS between them, camera on one, viewer on the other: ≤ 2.2 times the CPU of one gateway.",
        2.2, "two-hosts", "one-gateway", cpu_us,
    ),
    _two_points(
        "CPU of three hosts",
        "Three hosts with the load of one on each, viewers beside the cameras: CPU per frame ≤ 1.11 of that of one.",
        1.11, "hosts-3", "one-gateway", cpu_us,
    ),
    _more(
        "p99 across gateways",
        "Two gateways, camera on one, viewer on the other: ≤ 2 ms more at p99 than one gateway.",
        2.0, "two-gateways", "one-gateway", p99_ms, "ms",
    ),
    *(
        _versus_peers(
            name, f"{what} with TLS, at both loads: ≤ 1.15 of Bun with TLS.", 1.15, point, ("bun",), quantity
        )
        for name, what, quantity in (("CPU", "CPU per delivered frame", cpu_us), ("p99", "Latency p99", p99_ms))
        for point in TLS_LOADS
    ),
    *(
        _versus_peers(
            name, f"{what}, one alert to 5000 viewers: ≤ 1.2 of Bun's publish of as many bytes.",
            1.2, "alert-1x5000", ("bun",), quantity,
        )
        for name, what, quantity in (("CPU", "CPU per delivered alert", cpu_us), ("p99", "Latency p99", p99_ms))
    ),
    _two_points(
        "p99 beside alerts",
        "Frames to 100 viewers beside 500 alerts a second to each of them: p99 ≤ 1.2 of that without.",
        1.2, "alerts-on", "alerts-off", p99_ms,
    ),
    _floor("json-1x50", 1.25),
    _floor("json-50x1", 2.0),
    _own("Idle connection", "An idle authenticated connection: ≤ 10 kB resident.", 10.0, "idle", idle_kb, "kB"),
    _own(
        "Idle connections held", "10 000 idle authenticated connections held on one gateway.",
        10_000, "idle", idle_connections, "connections", at_least=True,
    ),
    _two_points(
        "p99 beside a slow viewer",
        "One viewer reading at a tenth of the rate beside 50 normal ones: the others' p99 ≤ 1.1 of that without it.",
        1.1, "slow-on", "slow-off", p99_ms,
    ),
    _own(
        "Age of a slow viewer's frame",
        "A slow viewer's own newest frame is never older than two frames' transfer time.",
        2.0, "slow-on", slow_age, "transfer times",
    ),
    _more(
        "Memory of a slow viewer", "One viewer reading at a tenth of the rate: its memory ≤ 1 MiB.",
        1.0, "slow-on", "slow-off", memory_mib, "MiB",
    ),
    _two_points(
        "CPU of many streams",
        "1000 streams, one viewer each, at 5 fps: ≤ 1.2 of the CPU per frame of 50 streams at 100 fps.",
        1.2, "streams-1000", "streams-50", cpu_us,
    ),
    Goal(
        "Wrong frames",
        "At every benchmark point each received frame is byte-identical to a sent one and frameId never falls.",
        _wrong_frames, 0, (), "frames",
    ),
)  # fmt: skip
