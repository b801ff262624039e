"""What is measured: the points, which systems run at each, how long, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

RELAYS: Final = ("watchout", "bun", "ws", "nchan", "broadcast")
FLOORS: Final = ("floor-uvloop", "floor-c")
OURS: Final = ("watchout",)
#: The tree as it is, and one of its former revisions: `revision`.
REVISIONS: Final = ("watchout", "former")

ROUNDS: Final = 5
#: Bytes of a frame as JSON: what a reader at a tenth of the rate takes is counted in these.
FRAME_BYTES: Final = 40_000


@dataclass(frozen=True, slots=True)
class Point:
    """One load. `fps` is per stream; `slow_share` > 0 adds a viewer that reads at that share of the rate. `beside`:
    cameras spread over all gateways, and each viewer is on the gateway of its camera.
    """

    name: str
    what: str
    systems: tuple[str, ...]
    format: Literal["json", "binary"] = "json"
    streams: int = 0
    viewers_per_stream: int = 1
    fps: float = 1.0
    slow_share: float = 0.0
    idle: int = 0
    gateways: int = 1
    hosts: int = 1
    beside: bool = False
    ml_fps: float = 0.0
    ml_hangs: bool = False
    warmup_s: float = 1.0
    duration_s: float = 2.5
    settle_s: float = 0.0
    rounds_at_most: int = 100

    def load(self) -> dict[str, Any]:
        """The part of `load.model.Plan` that the point decides."""
        slow = {"viewers": 1, "bytes_per_s": FRAME_BYTES * self.fps * self.slow_share} if self.slow_share else None
        return {
            "format": self.format,
            "streams": self.streams,
            "viewers_per_stream": self.viewers_per_stream,
            "fps": self.fps,
            "warmup_s": self.warmup_s,
            "duration_s": self.duration_s,
            "slow": slow,
            "idle": self.idle,
            "settle_s": self.settle_s,
            "beside": self.beside,
        }


def _shape(form: Literal["json", "binary"], streams: int, viewers: int, fps: float) -> Point:
    name = f"{'json' if form == 'json' else 'bin'}-{streams}x{viewers}"
    what = f"{streams} camera{'s' * (streams > 1)} → {viewers} viewer{'s' * (viewers > 1)} each, {fps:g} fps, {form}"
    return Point(name, what, RELAYS + FLOORS, form, streams, viewers, fps)


_FIFTY: Final = Point("", "50 cameras → 1 viewer each, 20 fps", OURS, "json", 50, 1, 20)
_FAN_OUT: Final = Point("", "1 camera → 50 viewers, 100 fps", OURS, "json", 1, 50, 100)

POINTS: Final = (
    _shape("json", 1, 50, 150),
    _shape("json", 1, 10, 400),
    _shape("json", 50, 1, 30),
    _shape("binary", 1, 50, 150),
    _shape("binary", 1, 10, 400),
    _shape("binary", 50, 1, 30),
    replace(_FIFTY, name="ml-off", what=_FIFTY.what + ", mlbridge idle"),
    replace(_FIFTY, name="ml-on", what=_FIFTY.what + ", mlbridge takes 2 fps of each", ml_fps=2.0),
    replace(
        _FIFTY,
        name="ml-hangs",
        what=_FIFTY.what + ", the ML service takes requests and answers none",
        ml_fps=2.0,
        ml_hangs=True,
    ),
    replace(_FIFTY, name="one-gateway", what=_FIFTY.what + ", all on one gateway"),
    replace(_FIFTY, name="two-gateways", what=_FIFTY.what + ", cameras on one gateway, viewers on another", gateways=2),
    replace(
        _FIFTY,
        name="two-hosts",
        what=_FIFTY.what + ", cameras on one host, viewers on another: TLS between them, NATS for control",
        gateways=2,
        hosts=2,
    ),
    replace(
        _FIFTY,
        name="hosts-3",
        what="150 cameras → 1 viewer each, 20 fps, 50 on each of three hosts, joined by NATS",
        streams=150,
        gateways=3,
        hosts=3,
        beside=True,
    ),
    Point("streams-50", "50 cameras → 1 viewer each, 100 fps", OURS, "json", 50, 1, 100),
    Point("streams-1000", "1000 cameras → 1 viewer each, 5 fps", OURS, "json", 1000, 1, 5, warmup_s=1.5),
    replace(_FAN_OUT, name="slow-off"),
    replace(
        _FAN_OUT, name="slow-on", what=_FAN_OUT.what + ", and one that reads at a tenth of the rate", slow_share=0.1
    ),
    Point("idle", "10000 authenticated connections", RELAYS, idle=10_000, settle_s=1.0, rounds_at_most=1),
)

NAMES: Final = tuple(point.name for point in POINTS)

#: Where the tree is compared with a former revision: the loads that are compared with peers, and idle connections.
COMPARED: Final = tuple(
    replace(point, systems=REVISIONS, rounds_at_most=max(2, point.rounds_at_most))
    for point in POINTS
    if RELAYS[1] in point.systems
)
#: An even number: each revision runs first in half of the rounds.
REVISION_ROUNDS: Final = 6


def quick(point: Point) -> Point:
    """The same point in a tenth of the time: good for a look, not for a figure."""
    if point.idle:
        return replace(point, idle=2000, what="2000 authenticated connections", settle_s=0.5)
    return replace(point, warmup_s=0.4, duration_s=0.8)


@dataclass(frozen=True, slots=True)
class Turn:
    """One run: a system at a point in a round, counted from 1."""

    round: int
    point: Point
    system: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the plan is wanted; empty means everything."""

    points: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    rounds: int = ROUNDS
    quick: bool = False
    among: tuple[Point, ...] = POINTS
    chosen: tuple[Point, ...] = field(init=False)

    def __post_init__(self) -> None:
        chosen = tuple(
            quick(point) if self.quick else point
            for point in self.among
            if not self.points or point.name in self.points
        )
        object.__setattr__(self, "chosen", chosen)

    def turns(self) -> Iterator[Turn]:
        """Every run, in order.

        Pairs of points that are compared stand beside each other, systems alternate within a point, and every other
        round goes through both backwards, so that what drifts in the machine meets all alike.
        """
        for number in range(1, self.rounds + 1):
            for point in _turned(self.chosen, number):
                if number <= point.rounds_at_most:
                    for system in _turned(point.systems, number):
                        if not self.systems or system in self.systems:
                            yield Turn(number, point, system)


def _turned(sequence: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    return sequence if number % 2 else sequence[::-1]
