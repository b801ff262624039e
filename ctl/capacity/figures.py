"""Reads the measured figures of ``figures.toml``, and derives from them what each thing costs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Final

import msgspec

FIGURES_FILE: Final = "figures.toml"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measured figure.

    Attributes:
        what: What was measured.
        value: The median of the rounds.
        least: The least of them.
        greatest: The greatest of them.
        unit: Its unit.
        command: The command that measured it.
        date: When.
        source: The file of the repository in which it is recorded.

    """

    what: str
    value: float
    least: float
    greatest: float
    unit: str
    command: str
    date: date
    source: str


@dataclass(frozen=True, slots=True)
class FormatCosts:
    """What frames of one format cost a gateway, at the size of the benchmark's picture.

    Attributes:
        frame_in_s: CPU seconds for each frame of a camera.
        frame_out_s: CPU seconds for each frame that a viewer gets.
        factor: Bytes of a message for each byte of its picture.
        further_bytes: Bytes of a message beside its picture.

    """

    frame_in_s: float
    frame_out_s: float
    factor: float
    further_bytes: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What each thing costs: CPU in seconds, memory in bytes.

    Attributes:
        picture_bytes: Size of the picture with which the CPU times were measured.
        formats: The costs of frames by format, ``json`` and ``binary``.
        crossing_s: A frame that goes to another gateway of the same machine, both gateways together.
        crossing_hosts_s: A frame that goes to a gateway of another machine over TLS, both gateways together.
        tls_s: Encryption or decryption of one frame.
        ml_gateway_s: A frame for the ML service, at the gateway.
        ml_router_s: The same, at the router.
        ml_bridge_s: The same, at the bridge.
        router_idle: CPU seconds a second of a router.
        bridge_idle: CPU seconds a second of a bridge.
        registration_s: CPU of the router for one registration of a stream.
        base_bytes: Memory of a router, a gateway and a bridge.
        gateway_bytes: Memory of each further gateway.
        connection_bytes: Memory of each connection.
        camera_bytes: Memory of each camera beside its connection and its newest frame.
        bridge_ml_bytes: What a bridge that asks an ML service needs more.

    """

    picture_bytes: float
    formats: Mapping[str, FormatCosts]
    crossing_s: float
    crossing_hosts_s: float
    tls_s: float
    ml_gateway_s: float
    ml_router_s: float
    ml_bridge_s: float
    router_idle: float
    bridge_idle: float
    registration_s: float
    base_bytes: float
    gateway_bytes: float
    connection_bytes: float
    camera_bytes: float
    bridge_ml_bytes: float


def recorded() -> dict[str, Figure]:
    """Return the figures of the file that is installed with this package, by name."""
    text = resources.files(__package__).joinpath(FIGURES_FILE).read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Figure])


def derive(figures: Mapping[str, Figure]) -> Costs:
    """Return the costs that follow from the figures.

    A gateway's CPU for a delivered frame is ``out + in / viewers``: both follow from the points with 50 viewers and
    with one. The point with 10 viewers is not used; a test compares it with what follows for it. What an ML service
    adds is little beside the rest: it is the median of the differences within each round.

    Args:
        figures: All figures, by name.

    """
    value = {name: figure.value for name, figure in figures.items()}
    picture = value["picture"]
    formats = {}
    for name, short, factor in (("json", "json", 4 / 3), ("binary", "bin", 1.0)):
        many, one = value[f"gateway-{short}-1x50"], value[f"gateway-{short}-50x1"]
        frame_in = (one - many) / (1 - 1 / 50)
        formats[name] = FormatCosts(
            frame_in / 1e6, (one - frame_in) / 1e6, factor, value[f"message-{short}"] - picture * factor
        )
    whole = formats["json"].frame_in_s + formats["json"].frame_out_s
    ml_frames = 50 * 2  # a second, at the point ml-on

    pair = (value["memory-streams-1000"] - value["memory-streams-50"]) / (1000 - 50)
    connection = value["memory-connection"]
    return Costs(
        picture_bytes=picture,
        formats=formats,
        crossing_s=(value["crossing-gateways"] - 1) * whole,
        crossing_hosts_s=(value["crossing-hosts"] - 1) * whole,
        tls_s=value["tls-frame"] / 1e6,
        ml_gateway_s=value["gateway-ml"] / 1e3 / ml_frames,
        ml_router_s=value["router-ml"] / 1e3 / ml_frames,
        ml_bridge_s=value["mlbridge-ml"] / 1e3 / ml_frames,
        router_idle=value["router-idle"] / 1e3,
        bridge_idle=value["mlbridge-idle"] / 1e3,
        registration_s=value["router-registration"] / 1e6,
        base_bytes=value["memory-base"],
        gateway_bytes=value["memory-two-gateways"] - value["memory-one-gateway"],
        connection_bytes=connection,
        # A camera and a viewer, without their connections and without the newest frame.
        camera_bytes=max(pair - 2 * connection - value["message-json"], 0),
        bridge_ml_bytes=value["memory-ml-on"] - value["memory-ml-off"],
    )
