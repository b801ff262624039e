"""The capacity model: what a load needs, by what each thing costs, and what is full first. Pure.

Each process has one event loop, so it uses one core at most; it is planned to use `MOST_OF_A_CORE` of one. Viewers are
taken to be spread over all gateways at random, as the kernel and most balancers do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from watchout.ctl.capacity.figures import Costs

#: How much of a core a process may use: frames come in bursts, and a loop that is full makes everybody late.
MOST_OF_A_CORE: Final = 0.6
#: How much of a network may be used.
MOST_OF_A_NETWORK: Final = 0.8
#: Bytes on the network for each byte of a message: headers of IP, TCP, TLS and WebSocket.
NETWORK_FACTOR: Final = 1.05
MOST_CAMERAS: Final = 1_000_000
MOST_VIEWERS: Final = 1_000_000.0
LEAST_FPS: Final = 0.001
MOST_FPS: Final = 1_000.0
MOST_CORES: Final = 4_096
MOST_MACHINES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The settings that bound a process, and the slots of a cluster.

    Made by `ctl.commands.capacity` from the operator's own settings.
    """

    connections: int
    streams: int
    slots: int
    message_bytes: int
    waiting_frame_bytes: int
    newest_frame_bytes: int
    ml_ring_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is planned for.

    Attributes:
        cameras: Cameras that send at the same time.
        fps: Frames a second of each.
        picture_bytes: Size of a picture.
        viewers: Viewers of each camera, on average, who take every frame.
        ml_fps: Frames a second of each camera that the ML service gets.
        format: ``json`` or ``binary``.
        tls: Whether the gateways themselves speak TLS with clients.
        cores: Cores of a machine; None: all in one.
        network: Network of a machine in bits a second, in each direction; None: not looked at.
        beside: Whether viewers connect to the gateway that has their camera.

    """

    cameras: int
    fps: float
    picture_bytes: int
    viewers: float = 1.0
    ml_fps: float = 0.0
    format: str = "json"
    tls: bool = False
    cores: int | None = None
    network: float | None = None
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Cpu:
    """Cores that are busy, by kind of process; `crossing` and `tls` are parts of `gateways`."""

    gateways: float
    routers: float
    bridges: float
    crossing: float
    tls: float

    @property
    def busy(self) -> float:
        """Cores that are busy in all."""
        return self.gateways + self.routers + self.bridges


@dataclass(frozen=True, slots=True)
class Limit:
    """A thing that is full when the load is `times` as high as planned, and what to add then."""

    what: str
    times: float
    add: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load needs, with the margins.

    Attributes:
        frames_in: Frames a second from all cameras.
        frames_out: Frames a second to all viewers.
        ml_frames: Frames a second to the ML service.
        message_bytes: Size of a frame's message.
        connections: Open connections.
        gateways: Gateway processes on all machines.
        routers: Router processes, of which each has a slot or more.
        bridges: Bridge processes.
        machines: Machines.
        cpu: Cores that are busy.
        cores: Cores to plan for, with the margin.
        memory: Memory in bytes.
        memory_at_most: The same when every bounded store of frames is full.
        network_in: Bits a second from cameras.
        network_out: Bits a second to viewers.
        network_ml: Bits a second to the ML service.
        network_between: Bits a second between machines.
        registrations_s: CPU seconds of the routers to register all cameras, after everything was restarted.
        limits: What is full first, in this order.

    """

    frames_in: float
    frames_out: float
    ml_frames: float
    message_bytes: float
    connections: float
    gateways: int
    routers: int
    bridges: int
    machines: int
    cpu: Cpu
    cores: float
    memory: float
    memory_at_most: float
    network_in: float
    network_out: float
    network_ml: float
    network_between: float
    registrations_s: float
    limits: tuple[Limit, ...]


def faults(load: Load, costs: Costs, bounds: Bounds) -> list[str]:
    """Return what is wrong with a load, each with what came and what is expected."""
    found = []
    for name, value, least, most in (
        ("--cameras", load.cameras, 1, MOST_CAMERAS),
        ("--viewers-per-camera", load.viewers, 0, MOST_VIEWERS),
        ("--cores", 1 if load.cores is None else load.cores, 1, MOST_CORES),
    ):
        if not least <= value <= most:
            found.append(f"{name} is {value:g}, expected {least:g} to {most:g}")
    if not LEAST_FPS <= load.fps <= MOST_FPS:
        found.append(f"--fps is {load.fps:g}, expected {LEAST_FPS:g} to {MOST_FPS:g}")
    elif load.ml_fps != 0 and not LEAST_FPS <= load.ml_fps <= load.fps:
        found.append(
            f"--ml-fps is {load.ml_fps:g}, expected 0, or {LEAST_FPS:g} to {load.fps:g}, the frames a second of a "
            "camera"
        )
    if load.network is not None and not (math.isfinite(load.network) and load.network > 0):
        found.append(f"--network is {load.network / 1e9:g}, expected Gbit/s over 0")
    if load.picture_bytes < 1:
        found.append(f"--size is {load.picture_bytes}, expected bytes of a picture, at least 1")
    elif (size := message_bytes(load, costs)) > bounds.message_bytes:
        found.append(
            f"--size is {load.picture_bytes}: the message would have {size:.0f} bytes, and MAX_MESSAGE_BYTES is "
            f"{bounds.message_bytes}"
        )
    return found


def message_bytes(load: Load, costs: Costs) -> float:
    """Return the size of the message of a frame."""
    form = costs.formats[load.format]
    return load.picture_bytes * form.factor + form.further_bytes


def scale(load: Load, costs: Costs) -> float:
    """Return by what the CPU times of the benchmark's pictures are multiplied for pictures of another size.

    Larger ones: in proportion, though a part of the work does not depend on the size. Smaller ones: not less.
    """
    return max(1.0, load.picture_bytes / costs.picture_bytes)


def plan(load: Load, costs: Costs, bounds: Bounds) -> Needs:
    """Return what a load needs.

    Raises:
        ValueError: The load cannot be; the text has each fault of `faults` on a line, or says that it needs too much.

    """
    wrong = faults(load, costs, bounds)
    if wrong:
        raise ValueError("\n".join(wrong))
    fleet = _Fleet(load, costs, bounds)
    machines = fleet.machines()
    gateways = fleet.gateways(machines)
    cpu = fleet.cpu(gateways, machines)
    memory = (
        costs.base_bytes * machines
        + costs.gateway_bytes * (gateways - machines)
        + costs.connection_bytes * fleet.connections
        + load.cameras * (fleet.message + costs.camera_bytes)
        + (costs.bridge_ml_bytes * fleet.bridges if load.ml_fps else 0.0)
    )
    at_most = (
        memory
        + gateways * (bounds.waiting_frame_bytes + bounds.newest_frame_bytes)
        + (fleet.bridges * bounds.ml_ring_bytes if load.ml_fps else 0)
    )
    return Needs(
        frames_in=fleet.frames_in,
        frames_out=fleet.frames_out,
        ml_frames=fleet.ml_frames,
        message_bytes=fleet.message,
        connections=fleet.connections,
        gateways=gateways,
        routers=fleet.router_count(machines),
        bridges=fleet.bridges,
        machines=machines,
        cpu=cpu,
        cores=cpu.busy / MOST_OF_A_CORE,
        memory=memory,
        memory_at_most=at_most,
        network_in=fleet.bits(fleet.frames_in),
        network_out=fleet.bits(fleet.frames_out),
        network_ml=fleet.bits(fleet.ml_frames),
        network_between=fleet.between(gateways, machines),
        registrations_s=load.cameras * costs.registration_s,
        limits=_limits(fleet, gateways, machines, cpu),
    )


class _Fleet:
    """What a load costs on a number of gateways and machines. Made by `plan`."""

    def __init__(self, load: Load, costs: Costs, bounds: Bounds) -> None:
        self.load, self.costs, self.bounds = load, costs, bounds
        self.message = message_bytes(load, costs)
        self.frames_in = load.cameras * load.fps
        self.frames_out = self.frames_in * load.viewers
        self.ml_frames = load.cameras * load.ml_fps
        self.connections = load.cameras * (1 + load.viewers)
        size, form = scale(load, costs), costs.formats[load.format]
        self._crossing_s, self._crossing_hosts_s = costs.crossing_s * size, costs.crossing_hosts_s * size
        self.tls = (self.frames_in + self.frames_out) * costs.tls_s * size if load.tls else 0.0
        #: Busy cores of all gateways, without frames that cross.
        self.serving = (
            size * (self.frames_in * form.frame_in_s + self.frames_out * form.frame_out_s)
            + size * self.ml_frames * costs.ml_gateway_s
            + self.tls
        )
        self.routers = costs.router_idle + size * self.ml_frames * costs.ml_router_s
        asking = size * self.ml_frames * costs.ml_bridge_s
        self.bridges = max(1, math.ceil(asking / (MOST_OF_A_CORE - costs.bridge_idle)))
        self.bridge_cpu = asking + costs.bridge_idle * self.bridges

    def router_count(self, machines: int) -> int:
        """Return the number of routers: one on each machine, as far as there are slots."""
        return min(machines, self.bounds.slots)

    def bits(self, frames: float) -> float:
        """Return bits a second on the network for frames a second."""
        return frames * self.message * 8 * NETWORK_FACTOR

    def _reached(self, gateways: int) -> float:
        """Return the probability that a gateway has viewers of a stream; at most one viewer is at one at most."""
        viewers = self.load.viewers
        return viewers / gateways if viewers <= 1 else -math.expm1(viewers * math.log1p(-1 / gateways))

    def _hops(self, gateways: int, machines: int) -> tuple[float, float]:
        """Return the frames a second that go to another gateway: of the same machine, and of other machines."""
        if gateways == 1 or self.load.beside:
            return 0.0, 0.0
        reached = self.frames_in * self._reached(gateways)
        return reached * (gateways / machines - 1), reached * gateways * (1 - 1 / machines)

    def crossing(self, gateways: int, machines: int) -> float:
        """Return the busy cores for frames that go to another gateway."""
        near, far = self._hops(gateways, machines)
        return near * self._crossing_s + far * self._crossing_hosts_s

    def between(self, gateways: int, machines: int) -> float:
        """Return bits a second between machines."""
        return self.bits(self._hops(gateways, machines)[1])

    def cpu(self, gateways: int, machines: int) -> Cpu:
        """Return the busy cores."""
        crossing = self.crossing(gateways, machines)
        routers = self.routers + self.costs.router_idle * (self.router_count(machines) - 1)
        return Cpu(self.serving + crossing, routers, self.bridge_cpu, crossing, self.tls)

    def gateways(self, machines: int) -> int:
        """Return the least number of gateways of which none has too much to do, or too many connections."""

        def enough(count: int) -> bool:
            return self.serving + self.crossing(count, machines) <= count * MOST_OF_A_CORE

        least = max(machines, math.ceil(self.connections / self.bounds.connections))
        if enough(least):
            return least
        # The load of one gateway is concave in 1/count, so from here on there is one number from which on it fits.
        too_few, many = least, 2 * least
        while not enough(many):
            too_few, many = many, 2 * many
        while many - too_few > 1:
            middle = (too_few + many) // 2
            too_few, many = (too_few, middle) if enough(middle) else (middle, many)
        return many

    def machines(self) -> int:
        """Return the least number of machines whose cores and networks carry the load. Raises `ValueError`."""
        cores, network = self.load.cores or math.inf, self.load.network or math.inf
        first = 1
        if self.load.cores is not None:
            first = max(first, math.ceil(self.serving / MOST_OF_A_CORE / cores))
        if self.load.network is not None:
            first = max(first, math.ceil(self.bits(self.frames_out) / (network * MOST_OF_A_NETWORK)))
        for count in range(first, MOST_MACHINES + 1):
            gateways = self.gateways(count)
            needed = self.cpu(gateways, count).busy / MOST_OF_A_CORE
            out, into = self.traffic(gateways, count)
            if needed <= count * cores and max(out, into) <= count * network * MOST_OF_A_NETWORK:
                return count
        raise ValueError(
            f"it needs over {MOST_MACHINES} machines of this size: plan it in parts, each with a cluster of its own"
        )

    def traffic(self, gateways: int, machines: int) -> tuple[float, float]:
        """Return bits a second out of and into all machines."""
        between = self.between(gateways, machines)
        return (
            self.bits(self.frames_out) + self.bits(self.ml_frames) + between,
            self.bits(self.frames_in) + between,
        )


def _limits(fleet: _Fleet, gateways: int, machines: int, cpu: Cpu) -> tuple[Limit, ...]:
    """Return what is full first when all of the load grows, least first."""
    load, bounds, routers = fleet.load, fleet.bounds, fleet.router_count(machines)
    slots = 1 if machines == 1 else bounds.slots
    found = [
        Limit("the CPU of the gateways", gateways * MOST_OF_A_CORE / cpu.gateways, "another gateway process"),
        Limit(
            "the connections of the gateways (MAX_CONNECTIONS)", gateways * bounds.connections / fleet.connections,
            "another gateway process, or a higher MAX_CONNECTIONS with as many file descriptors",
        ),
        Limit(
            "the streams of the routers (MAX_STREAMS)", slots * bounds.streams / load.cameras,
            "a higher MAX_STREAMS, or in a cluster more slots (docs/cluster.md)",
        ),
    ]  # fmt: skip
    if load.ml_fps:
        idle = fleet.costs.router_idle
        found += [
            Limit(
                "the CPU of the bridges", fleet.bridges * MOST_OF_A_CORE / cpu.bridges,
                "another bridge of the same --group",
            ),
            Limit(
                "the CPU of the routers", routers * (MOST_OF_A_CORE - idle) / (fleet.routers - idle),
                "more machines with routers (docs/cluster.md)",
            ),
        ]  # fmt: skip
    if load.cores is not None:
        found.append(Limit(
            "the cores of the machines", machines * load.cores * MOST_OF_A_CORE / cpu.busy,
            "a machine, or cores; before that, bring viewers beside their camera (docs/cluster.md)",
        ))  # fmt: skip
    if load.network is not None:
        most = max(fleet.traffic(gateways, machines))
        found.append(Limit(
            "the network of the machines", machines * load.network * MOST_OF_A_NETWORK / most,
            "a machine, or a faster network; before that, let viewers ask for maxFps or smaller pictures",
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda limit: limit.times))
