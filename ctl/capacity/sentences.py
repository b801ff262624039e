"""What `watchout-ctl capacity` says: the needs of a load in sentences, and the same for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from watchout.ctl.capacity.figures import Costs, Figure
from watchout.ctl.capacity.model import (
    MOST_OF_A_CORE,
    MOST_OF_A_NETWORK,
    NETWORK_FACTOR,
    Load,
    Needs,
    scale,
)

#: Cores below this are said with three decimals.
_SMALL: Final = 0.1
#: A multiple of the measured times that is worth a word.
_TOLD: Final = 1.05


def describe(load: Load, plan: Needs, costs: Costs, figures: Mapping[str, Figure]) -> Iterator[str]:
    """Give the sentences about a plan, one a line; an empty one between its parts."""
    yield (
        f"{_count(load.cameras, 'camera')} at {load.fps:g} frames a second of {load.picture_bytes} bytes "
        f"({'JSON' if load.format == 'json' else load.format}), {load.viewers:g} "
        f"{'viewer' if load.viewers == 1 else 'viewers'} of each: "
        f"{plan.frames_in:.0f} frames/s in, {plan.frames_out:.0f} frames/s to viewers, {plan.ml_frames:.0f} frames/s "
        "to the ML service."
    )
    yield ""
    parts = [f"{cores(plan.cpu.crossing)} of it for frames between gateways"] if plan.cpu.crossing else []
    parts += [f"{cores(plan.cpu.tls)} of it for TLS"] if plan.cpu.tls else []
    spread = f" ({', '.join(parts)})" if parts else ""
    yield f"Gateways: {_count(plan.gateways, 'process')}, {cores(plan.cpu.gateways)} busy{spread}."
    yield (
        f"Routers: {_count(plan.routers, 'process')}, {cores(plan.cpu.routers)} busy, and {plan.registrations_s:.2g} s "
        "of CPU when all cameras register at once, as after a restart of everything."
    )
    if load.ml_fps:
        yield f"Bridges: {_count(plan.bridges, 'process')}, {cores(plan.cpu.bridges)} busy."
    yield (
        f"CPU in all: plan for {cores(plan.cores)}. {cores(plan.cpu.busy)} will be busy; no process is planned to use "
        f"more than {MOST_OF_A_CORE:.0%} of a core, as a margin for bursts."
    )
    yield (
        f"Memory: {size(plan.memory)}, and up to {size(plan.memory_at_most)} when viewers are so slow that every bound "
        "of stored frames is reached (WAITING_FRAME_BYTES, NEWEST_FRAME_BYTES, ML_RING_BYTES). The system's socket "
        "buffers are not in it."
    )
    further = f", {rate(plan.network_ml)} to the ML service" if load.ml_fps else ""
    between = f", {rate(plan.network_between)} between machines" if plan.network_between else ""
    yield (
        f"Network: {rate(plan.network_in)} in, {rate(plan.network_out)} out to viewers{further}{between}; "
        f"{NETWORK_FACTOR - 1:.0%} for headers are in it."
    )
    yield f"Open connections: {plan.connections:.0f}."
    yield ""
    yield from _machines(load, plan)
    first, *others = plan.limits
    if first.times < 1:
        yield f"Too much already for {first.what}: full at {times(first.times)} this load. Add: {first.add}."
    else:
        yield f"First limit: {first.what}, at {times(first.times)} this load. Then add: {first.add}."
    if others:
        yield f"After that: {', '.join(f'{limit.what} at {times(limit.times)}' for limit in others)}."
    yield ""
    yield from _notes(load, plan, costs, figures)


def _machines(load: Load, plan: Needs) -> Iterator[str]:
    """Say whether one machine is enough, where its size was given."""
    given = [f"{load.cores} {'core' if load.cores == 1 else 'cores'}"] if load.cores is not None else []
    given += [rate(load.network)] if load.network is not None else []
    if not given:
        return
    of = " and ".join(given)
    if plan.machines == 1:
        yield f"One machine of {of} is enough."
    else:
        yield (
            f"It needs {plan.machines} machines of {of} each: a cluster (docs/cluster.md). Of the busy cores "
            f"{cores(plan.cpu.crossing)} are for frames between gateways."
            + ("" if load.beside else " With viewers beside their camera there are none: --beside calculates that.")
        )


def _notes(load: Load, plan: Needs, costs: Costs, figures: Mapping[str, Figure]) -> Iterator[str]:
    """Say what the figures do not know."""
    dates = sorted({str(figure.date) for figure in figures.values()})
    yield (
        f"Measured from {dates[0]} to {dates[-1]} on 2 cores of one machine, loopback (docs/capacity.md has every "
        "figure); other processors differ, so measure one gateway of yours and compare."
    )
    if (factor := scale(load, costs)) >= _TOLD:
        yield (
            f"CPU was measured with pictures of {costs.picture_bytes:.0f} bytes only. It is taken {factor:.2g} times "
            "as high for these, in proportion to their size, which is more than they will need."
        )
    elif load.picture_bytes < costs.picture_bytes / 2:
        yield (
            f"CPU was measured with pictures of {costs.picture_bytes:.0f} bytes only, and is taken to be no less for "
            "smaller ones."
        )
    if load.tls:
        yield "TLS with clients was not measured: its cost is that of a frame between two hosts, which is."
    if load.ml_fps and plan.bridges > 1:
        yield "A further bridge was not measured: only what its frames need is in the memory."
    if load.network is not None:
        yield f"A network is planned to be {MOST_OF_A_NETWORK:.0%} full at most."


def as_json(load: Load, plan: Needs) -> dict[str, Any]:
    """Return load and plan for programs; units are in the names."""
    limits = [{"what": limit.what, "timesThisLoad": round(limit.times, 3), "add": limit.add} for limit in plan.limits]
    return {
        "load": asdict(load),
        "framesPerSecond": {"in": plan.frames_in, "out": plan.frames_out, "ml": plan.ml_frames},
        "messageBytes": round(plan.message_bytes),
        "processes": {"gateway": plan.gateways, "router": plan.routers, "mlbridge": plan.bridges},
        "busyCores": {
            "gateway": round(plan.cpu.gateways, 4), "router": round(plan.cpu.routers, 4),
            "mlbridge": round(plan.cpu.bridges, 4), "ofGatewayForOtherGateways": round(plan.cpu.crossing, 4),
            "ofGatewayForTls": round(plan.cpu.tls, 4),
        },
        "coresToPlan": round(plan.cores, 3),
        "mostOfACore": MOST_OF_A_CORE,
        "machines": plan.machines,
        "memoryBytes": round(plan.memory),
        "memoryBytesAtMost": round(plan.memory_at_most),
        "networkBitsPerSecond": {
            "in": round(plan.network_in), "out": round(plan.network_out), "ml": round(plan.network_ml),
            "betweenMachines": round(plan.network_between),
        },
        "connections": round(plan.connections),
        "firstLimit": limits[0],
        "limits": limits,
    }  # fmt: skip


def cores(value: float) -> str:
    """Return a number of cores, such as ``2.1 cores``."""
    return f"{value:.1f} cores" if value >= _SMALL else f"{value:.3f} cores"


def times(value: float) -> str:
    """Return how many times, such as ``1.8 times``."""
    return f"{value:.1f} times" if value < 10 else f"{value:.0f} times"


def size(value: float) -> str:
    """Return bytes in the unit that suits, of 1000."""
    return _in_units(value, ("bytes", "kB", "MB", "GB", "TB"))


def rate(value: float) -> str:
    """Return bits a second in the unit that suits, of 1000."""
    return _in_units(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"))


def _in_units(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} {units[-1]}" if value < 1000 else f"{value:.0f} {units[-1]}"


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"
