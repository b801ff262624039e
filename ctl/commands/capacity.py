"""``watchout-ctl capacity``: says what a load needs, by measured figures."""

from __future__ import annotations

import click
import msgspec

from watchout.common.settings import Settings
from watchout.ctl.capacity import sentences
from watchout.ctl.capacity.figures import derive, recorded
from watchout.ctl.capacity.model import Bounds, Load, plan
from watchout.ctl.environment import read_environment


@click.command("capacity", short_help="Say what CPU, memory and network a load needs.")
@click.option("--cameras", type=int, required=True, metavar="N", help="Cameras that send at the same time.")
@click.option("--fps", type=float, required=True, metavar="F", help="Frames a second of each camera.")
@click.option("--size", type=int, required=True, metavar="BYTES", help="Size of a picture (JPEG), on average.")
@click.option(
    "--viewers-per-camera",
    "viewers",
    type=float,
    default=1.0,
    show_default=True,
    metavar="V",
    help="Viewers of each camera, on average, who take every frame.",
)
@click.option(
    "--ml-fps",
    type=float,
    default=0.0,
    show_default=True,
    metavar="F",
    help="Frames a second of each camera that the ML service gets (ML_FPS).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "binary"]),
    default="json",
    show_default=True,
    help="How frames are sent.",
)
@click.option("--tls", is_flag=True, help="The gateways themselves speak TLS with clients (TLS_CERT).")
@click.option("--cores", type=int, metavar="C", help="Cores of a machine: does one do, and how many are needed?")
@click.option("--network", type=float, metavar="GBIT", help="Network of a machine in Gbit/s, in each direction.")
@click.option("--beside", is_flag=True, help="Viewers connect to the gateway that has their camera (docs/cluster.md).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def capacity(
    cameras: int, fps: float, size: int, viewers: float, ml_fps: float, form: str, tls: bool, cores: int | None,
    network: float | None, beside: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what a load needs: cores by kind of process, memory, network, gateways, what is full first, what to add.

    It asks no running process: it calculates with figures that were measured once (docs/capacity.md), and with the
    bounds of your settings, such as MAX_CONNECTIONS.
    """
    bits = None if network is None else network * 1e9
    load = Load(cameras, fps, size, viewers, ml_fps, form, tls, cores, bits, beside)
    figures = recorded()
    costs = derive(figures)
    try:
        needed = plan(load, costs, bounds_of(read_environment().settings))
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    if as_json:
        click.echo(msgspec.json.encode(sentences.as_json(load, needed)))
        return
    for line in sentences.describe(load, needed, costs, figures):
        click.echo(line)


def bounds_of(settings: Settings) -> Bounds:
    """Return the settings that bound a process."""
    return Bounds(
        connections=settings.max_connections,
        streams=settings.max_streams,
        slots=settings.cluster_slots,
        message_bytes=settings.max_message_bytes,
        waiting_frame_bytes=settings.waiting_frame_bytes,
        newest_frame_bytes=settings.newest_frame_bytes,
        ml_ring_bytes=settings.ml_ring_bytes,
    )
