"""What is measured: the points, which systems run at each, how long, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from benchmarks.load.model import Envelope

RELAYS: Final = ("watchout", "bun", "bun-raw", "ws", "nchan", "broadcast")
#: Those that a goal of CPU is set against, beside watchout.
STRONG: Final = ("watchout", "bun-raw", "nchan")
FLOORS: Final = ("floor-uvloop", "floor-c")
#: Who takes part where frames are binary.
BINARY: Final = ("watchout", "bun", "bun-raw", "ws", "nchan", "floor-uvloop")
OURS: Final = ("watchout",)
#: One alert to many viewers: Bun passes on a frame of as many bytes.
ALERTS: Final = ("watchout", "bun")
#: TLS: in the process itself, and with a proxy before a watchout that speaks none.
TLS: Final = ("watchout", "bun", "nginx", "haproxy", "caddy")
#: The tree as it is, and one of its former revisions: `revision`.
REVISIONS: Final = ("watchout", "former")

#: An even number: each system and each point runs first in half of the rounds.
ROUNDS: Final = 4
#: Bytes of a frame as JSON: what a reader at a tenth of the rate takes is counted in these.
FRAME_BYTES: Final = 40_000


@dataclass(frozen=True, slots=True)
class Point:
    """One load. `fps` is per stream; `slow_share` > 0 adds a viewer that reads at that share of the rate. `beside`:
    cameras spread over all gateways, and each viewer is on the gateway of its camera. `alerts_per_s`: the ML side sends
    so many alerts beside the frames, and all viewers take them.
    """

    name: str
    what: str
    systems: tuple[str, ...]
    format: Literal["json", "binary"] = "json"
    envelope: Envelope = "compact"
    picture_bytes: int = 0
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
    tls: bool = False
    alerts_per_s: float = 0.0
    warmup_s: float = 1.0
    duration_s: float = 2.5
    settle_s: float = 0.0
    rounds_at_most: int = 100

    def load(self) -> dict[str, Any]:
        """The part of `load.model.Plan` that the point decides."""
        slow = {"viewers": 1, "bytes_per_s": FRAME_BYTES * self.fps * self.slow_share} if self.slow_share else None
        return {
            "format": self.format,
            "envelope": self.envelope,
            "picture_bytes": self.picture_bytes,
            "streams": self.streams,
            "viewers_per_stream": self.viewers_per_stream,
            "fps": self.fps,
            "warmup_s": self.warmup_s,
            "duration_s": self.duration_s,
            "slow": slow,
            "idle": self.idle,
            "settle_s": self.settle_s,
            "beside": self.beside,
            "alerts_per_s": self.alerts_per_s,
        }


#: Frames per second of each camera where many come, by cameras and viewers of each; where few come, 15 of them.
_HIGH_FPS: Final = {(1, 50): 150, (1, 10): 400, (50, 1): 30}
_LOW_FPS: Final = 15
_ENVELOPES: Final[dict[Envelope, str]] = {
    "spaces": "JSON as `json.dumps` writes it",
    "fields": "json with three more fields",
    "slashes": "json with escaped slashes",
    "fragments": "json in two fragments",
}


def _shape(form: Literal["json", "binary"], streams: int, viewers: int, systems: tuple[str, ...]) -> Point:
    fps = _HIGH_FPS[streams, viewers]
    name = f"{'json' if form == 'json' else 'bin'}-{streams}x{viewers}"
    what = f"{streams} camera{'s' * (streams > 1)} → {viewers} viewer{'s' * (viewers > 1)} each, {fps:g} fps, {form}"
    return Point(name, what, systems, form, streams=streams, viewers_per_stream=viewers, fps=fps)


def _low(streams: int, viewers: int) -> Point:
    """The same at a low rate, for longer, so that there are frames enough."""
    high = _shape("json", streams, viewers, STRONG)
    what = high.what.replace(f"{high.fps:g} fps", f"{_LOW_FPS} fps")
    return replace(high, name=f"{high.name}-low", what=what, fps=_LOW_FPS, duration_s=4.0)


def _written(envelope: Envelope, streams: int, viewers: int) -> Point:
    """The same of cameras that write their JSON in another way."""
    plain = _shape("json", streams, viewers, OURS)
    name = plain.name.replace("json", f"json-{envelope}")
    return replace(plain, name=name, what=plain.what.replace("json", _ENVELOPES[envelope]), envelope=envelope)


def _sized(kilobytes: int, fps: float) -> Point:
    what = f"1 camera → 10 viewers each, {fps:g} fps, json, pictures of {kilobytes} kB"
    return Point(
        f"json-{kilobytes}k-1x10",
        what,
        STRONG,
        picture_bytes=1000 * kilobytes,
        streams=1,
        viewers_per_stream=10,
        fps=fps,
    )


_FIFTY: Final = Point("", "50 cameras → 1 viewer each, 20 fps", OURS, streams=50, fps=20)
_FAN_OUT: Final = Point("", "1 camera → 50 viewers, 100 fps", OURS, streams=1, viewers_per_stream=50, fps=100)
_BESIDE: Final = Point("", "1 camera → 100 viewers, 15 fps", OURS, streams=1, viewers_per_stream=100, fps=_LOW_FPS)
_TLS: Final = (
    Point("tls-1x10", "1 camera → 10 viewers, 100 fps, TLS", TLS, streams=1, viewers_per_stream=10, fps=100, tls=True),
    Point("tls-20x1", "20 cameras → 1 viewer each, 20 fps, TLS", TLS, streams=20, fps=20, tls=True),
)

POINTS: Final = (
    _written("slashes", 1, 50),
    _written("fields", 1, 50),
    _written("spaces", 1, 50),
    _shape("json", 1, 50, RELAYS + FLOORS),
    _low(1, 50),
    _shape("json", 1, 10, RELAYS + FLOORS),
    _low(1, 10),
    _sized(8, 400),
    _sized(200, 100),
    _written("fragments", 50, 1),
    _written("slashes", 50, 1),
    _written("fields", 50, 1),
    _written("spaces", 50, 1),
    _shape("json", 50, 1, RELAYS + FLOORS),
    _low(50, 1),
    _shape("binary", 1, 50, BINARY),
    _shape("binary", 1, 10, BINARY),
    _shape("binary", 50, 1, BINARY),
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
    Point("streams-50", "50 cameras → 1 viewer each, 100 fps", OURS, streams=50, fps=100),
    Point("streams-1000", "1000 cameras → 1 viewer each, 5 fps", OURS, streams=1000, fps=5, warmup_s=1.5),
    replace(_FAN_OUT, name="slow-off"),
    replace(
        _FAN_OUT, name="slow-on", what=_FAN_OUT.what + ", and one that reads at a tenth of the rate", slow_share=0.1
    ),
    *_TLS,
    Point(
        "alert-1x5000",
        "1 camera that raises 4 small alerts a second → 5000 viewers; Bun passes on frames of as many bytes",
        ALERTS,
        envelope="alert",
        picture_bytes=60,
        streams=1,
        viewers_per_stream=5000,
        fps=4,
    ),
    replace(_BESIDE, name="alerts-off"),
    replace(
        _BESIDE, name="alerts-on", what=_BESIDE.what + ", and 500 alerts a second of the ML side", alerts_per_s=500
    ),
    Point("idle", "10000 authenticated connections", RELAYS, idle=10_000, settle_s=1.0, rounds_at_most=1),
)

NAMES: Final = tuple(point.name for point in POINTS)

#: Where the tree is compared with a former revision: the loads that are compared with all peers, and idle connections.
COMPARED: Final = tuple(
    replace(point, systems=REVISIONS, rounds_at_most=max(2, point.rounds_at_most))
    for point in POINTS
    if "bun" in point.systems and not point.tls and point.envelope != "alert"
)
#: An even number: each revision runs first in half of the rounds.
REVISION_ROUNDS: Final = 6


#: Most viewers of a stream in a quick run.
QUICK_VIEWERS: Final = 1000


def quick(point: Point) -> Point:
    """The same point in a tenth of the time: good for a look, not for a figure."""
    if point.idle:
        return replace(point, idle=2000, what="2000 authenticated connections", settle_s=0.5)
    viewers = min(QUICK_VIEWERS, point.viewers_per_stream)
    return replace(point, warmup_s=0.4, duration_s=0.8, viewers_per_stream=viewers)


#: What a turn takes besides its own times, in seconds: start and end of the system and of the load.
START_S: Final = {"watchout": 2.5, "nginx": 3.0, "haproxy": 3.0, "caddy": 3.0}
START_OTHERS_S: Final = 1.0
START_HOST_S: Final = 1.5
CONNECT_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Turn:
    """One run: a system at a point in a round, counted from 1."""

    round: int
    point: Point
    system: str

    @property
    def estimate_s(self) -> float:
        """About how long it takes on a machine that does nothing else."""
        point = self.point
        connections = point.idle + point.streams * (1 + point.viewers_per_stream)
        return (
            point.warmup_s + point.duration_s + 4 * point.settle_s + connections * CONNECT_S
            + START_S.get(self.system, START_OTHERS_S) + START_HOST_S * (point.hosts - 1)
        )  # fmt: skip


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

    def takes(self, point: Point, system: str, number: int) -> bool:
        """Whether a system runs at a point of the selection in this round."""
        chosen = not self.systems or system in self.systems
        return chosen and system in point.systems and number <= point.rounds_at_most

    def turns(self) -> Iterator[Turn]:
        """Every run, in order.

        Pairs of points that are compared stand beside each other, systems alternate within a point, and every other
        round goes through both backwards, so that what drifts in the machine meets all alike.
        """
        for number in range(1, self.rounds + 1):
            for point in _turned(self.chosen, number):
                for system in _turned(point.systems, number):
                    if self.takes(point, system, number):
                        yield Turn(number, point, system)


def _turned(sequence: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    return sequence if number % 2 else sequence[::-1]
