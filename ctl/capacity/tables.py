"""The tables of docs/capacity.md, as the model and its figures give them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from watchout.ctl.capacity.figures import Costs, Figure
from watchout.ctl.capacity.model import MOST_OF_A_CORE, Load, scale
from watchout.ctl.capacity.sentences import size

SIZES: Final = (10_000, 30_000, 60_000, 100_000, 200_000)
RATES: Final = (5, 10, 15, 30)


def render(figures: Mapping[str, Figure], costs: Costs) -> str:
    """Return the generated part of docs/capacity.md.

    Args:
        figures: All figures, by name.
        costs: What follows from them.

    """
    loads = [
        ("JSON", Load(1, 1, 1)),
        ("binary", Load(1, 1, 1, format="binary")),
        ("JSON, TLS", Load(1, 1, 1, tls=True)),
    ]
    many: list[Iterable[object]] = []
    pairs: list[Iterable[object]] = []
    for name, load in loads:
        for picture in SIZES:
            sized = replace(load, picture_bytes=picture)
            many.append((name, _bytes(picture), *(viewers_of_one(replace(sized, fps=fps), costs) for fps in RATES)))
            pairs.append((name, _bytes(picture), *(pairs_of(replace(sized, fps=fps), costs) for fps in RATES)))
    head = ("frames", "picture", *(f"{fps} fps" for fps in RATES))
    ml = [(_bytes(picture), int(MOST_OF_A_CORE / _per_ml_frame(picture, costs))) for picture in SIZES]
    one_hop = costs.formats["json"].frame_in_s + costs.formats["json"].frame_out_s
    memory = [
        ("a router, a gateway and a bridge", size(costs.base_bytes)),
        ("each further gateway process", size(costs.gateway_bytes)),
        ("each connection", size(costs.connection_bytes)),
        ("each camera, beside its connection and its newest frame", size(costs.camera_bytes)),
        ("the bridge, when it asks an ML service", size(costs.bridge_ml_bytes)),
    ]
    cpu = [
        ("a frame from a camera, at its gateway", _us(costs.formats["json"].frame_in_s)),
        ("a frame to a viewer", _us(costs.formats["json"].frame_out_s)),
        ("a frame that goes to another gateway of the machine, both together", _us(costs.crossing_s)),
        ("a frame that goes to another machine over TLS, both together", _us(costs.crossing_hosts_s)),
        ("TLS with a client, for each frame", _us(costs.tls_s)),
        ("a frame to the ML service, at its gateway", _us(costs.ml_gateway_s)),
        ("the same, at the bridge", _us(costs.ml_bridge_s)),
        ("the same, at the router", _us(costs.ml_router_s)),
        ("a registration, at the router", _us(costs.registration_s)),
        ("a router and a bridge that have nothing to do", f"{1e3 * (costs.router_idle + costs.bridge_idle):.1f} ms/s"),
        ("for comparison: a frame to the only viewer of its camera", _us(one_hop)),
    ]
    measured = [
        (f"`{name}`", each.what, f"{each.value:g} {each.unit}", f"{each.least:g} to {each.greatest:g}",
         f"`{each.command}`", each.date, f"[{each.source}](../{each.source})")
        for name, each in figures.items()
    ]  # fmt: skip
    return "\n\n".join((
        "### Viewers of one camera at one gateway process", _table(head, many),
        "### Cameras with one viewer each at one gateway process", _table(head, pairs),
        "### Frames a second to the ML service by one bridge", _table(("picture", "frames/s"), ml),
        "### Memory", _table(("of", "memory"), memory),
        f"### CPU, with pictures of {_bytes(round(costs.picture_bytes))} as JSON", _table(("of", "CPU"), cpu),
        "## Measured figures",
        _table(("name", "what", "median", "least to greatest", "command", "date", "recorded in"), measured),
    ))  # fmt: skip


def viewers_of_one(load: Load, costs: Costs) -> int:
    """Return how many viewers of one camera a gateway process serves, with the margin."""
    form, tls = costs.formats[load.format], costs.tls_s if load.tls else 0.0
    a_second = MOST_OF_A_CORE / load.fps / scale(load, costs)
    return max(0, int((a_second - form.frame_in_s - tls) / (form.frame_out_s + tls)))


def pairs_of(load: Load, costs: Costs) -> int:
    """Return how many cameras with one viewer each a gateway process serves, with the margin."""
    form, tls = costs.formats[load.format], 2 * costs.tls_s if load.tls else 0.0
    return int(MOST_OF_A_CORE / load.fps / scale(load, costs) / (form.frame_in_s + form.frame_out_s + tls))


def _per_ml_frame(picture: int, costs: Costs) -> float:
    return costs.ml_bridge_s * scale(Load(1, 1, picture), costs)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _bytes(value: int) -> str:
    return f"{value / 1000:g} kB" if value % 1000 == 0 else f"{value} bytes"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs"
