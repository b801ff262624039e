"""Which client of a rehearsal does what, and when. Pure: chance is an argument."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

#: Most cameras, viewers, frames per second of a camera, bytes of a frame, and minutes.
MAX_CAMERAS: Final = 2_000
MAX_VIEWERS: Final = 20_000
MAX_FPS: Final = 60.0
MAX_FRAME_BYTES: Final = 4_000_000
MAX_MINUTES: Final = 24 * 60.0
#: Most gateways of a system of its own.
MAX_GATEWAYS: Final = 16
#: Most seconds over which clients come.
RAMP_S: Final = 3.0
#: Frames per second, sent and received, for which one process is enough, and the clients.
FRAMES_PER_PROCESS: Final = 1_000.0
CLIENTS_PER_PROCESS: Final = 250
MAX_PROCESSES: Final = 16
#: Least and most seconds for which a flapping viewer is there, and a hidden one is shown; and for which they are not.
ON_S: Final = (2.0, 6.0)
OFF_S: Final = (0.5, 3.0)


class ViewerRole(enum.StrEnum):
    """What a viewer is like. STEADY takes every frame at once; SLOW takes a frame, then looks at it for long; FLAPPING
    comes and goes with its connection; HIDDEN pauses its view, as a tab in the background does, and keeps its alerts.
    """

    STEADY = "steady"
    SLOW = "slow"
    FLAPPING = "flapping"
    HIDDEN = "hidden"


class Scenario(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is rehearsed, as it was asked for. Made by the command.

    Attributes:
        cameras: Number of cameras.
        fps: Frames per second of each.
        frame_bytes: Size of a frame; 0: as the footage has them.
        viewers: Viewers of each role, over all streams.
        slow_fps: Frames per second that a slow viewer takes.
        seconds: How long the load lasts.
    """

    cameras: int
    fps: float
    frame_bytes: int
    viewers: dict[ViewerRole, int]
    slow_fps: float
    seconds: float


class CameraPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One camera: its stream, the number of its token, and when it begins, in seconds of the rehearsal."""

    stream: str
    token: int
    begins_s: float


class ViewerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One viewer: as `CameraPlan`, and for how long in turns it is there or shown (`on_s`) and not (`off_s`).

    `on_s` is 0 for one that is always there.
    """

    stream: str
    token: int
    begins_s: float
    role: ViewerRole
    on_s: float = 0.0
    off_s: float = 0.0

    def spans(self, seconds: float) -> Iterator[tuple[float, float]]:
        """Yield when it is there, or its view is shown: begin and end, in seconds of a rehearsal that lasts `seconds`.

        Spans are in order, do not touch, and none is empty.
        """
        begin = self.begins_s
        if not self.on_s:
            if begin < seconds:
                yield begin, seconds
            return
        while begin < seconds:
            yield begin, min(begin + self.on_s, seconds)
            begin += self.on_s + self.off_s


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What every client does; see `make_plan`. `share_out` makes plans of a part of the clients, one for a process."""

    seconds: float
    fps: float
    slow_fps: float
    cameras: list[CameraPlan]
    viewers: list[ViewerPlan]


def make_plan(scenario: Scenario, *, prefix: str, tokens: int, chance: Callable[[], float]) -> LoadPlan:
    """Return the plan of a scenario; with the same chance it is the same plan.

    Viewers are spread evenly over the streams, those of each role apart. A stream is viewed with the token of its
    camera, so that the viewers may see it.

    Args:
        scenario: What is asked for.
        prefix: Stream ids begin with it.
        tokens: How many tokens there are.
        chance: Returns numbers of at least 0 and below 1.
    """
    ramp_s = min(RAMP_S, scenario.seconds / 10)
    cameras = [
        CameraPlan(stream=f"{prefix}-{number}", token=number % tokens, begins_s=chance() * ramp_s)
        for number in range(scenario.cameras)
    ]
    viewers = []
    for role in ViewerRole:
        interrupted = role in (ViewerRole.FLAPPING, ViewerRole.HIDDEN)
        for number in range(scenario.viewers.get(role, 0)):
            camera = cameras[number % len(cameras)]
            viewers.append(
                ViewerPlan(
                    stream=camera.stream, token=camera.token, begins_s=chance() * ramp_s, role=role,
                    on_s=_between(ON_S, chance) if interrupted else 0.0,
                    off_s=_between(OFF_S, chance) if interrupted else 0.0,
                )
            )  # fmt: skip
    return LoadPlan(
        seconds=scenario.seconds, fps=scenario.fps, slow_fps=scenario.slow_fps, cameras=cameras, viewers=viewers
    )


def _between(limits: tuple[float, float], chance: Callable[[], float]) -> float:
    return limits[0] + chance() * (limits[1] - limits[0])


def processes_for(plan: LoadPlan, cores: int) -> int:
    """Return over how many processes the clients are to be spread, so that the load itself is not the limit."""
    frames = plan.fps * (len(plan.cameras) + len(plan.viewers))
    clients = len(plan.cameras) + len(plan.viewers)
    wanted = math.ceil(max(frames / FRAMES_PER_PROCESS, clients / CLIENTS_PER_PROCESS))
    return max(1, min(wanted, MAX_PROCESSES, 2 * cores))


def share_out(plan: LoadPlan, processes: int) -> Sequence[LoadPlan]:
    """Return one plan for each process: every client is in exactly one, and their numbers differ by one at most."""
    return [
        msgspec.structs.replace(
            plan,
            cameras=plan.cameras[number::processes],
            viewers=plan.viewers[(number - len(plan.cameras)) % processes :: processes],
        )
        for number in range(processes)
    ]
