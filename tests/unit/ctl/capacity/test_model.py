"""The capacity model: more of anything never needs less, and what is said to fit does fit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.settings import load as load_settings
from watchout.ctl.capacity.figures import derive, recorded
from watchout.ctl.capacity.model import MOST_OF_A_CORE, MOST_OF_A_NETWORK, Load, Needs, faults, plan
from watchout.ctl.capacity.sentences import cores, describe, rate, size, times
from watchout.ctl.commands.capacity import bounds_of

COSTS = derive(recorded())
BOUNDS = bounds_of(load_settings({}))

loads = st.builds(
    Load,
    cameras=st.integers(1, 3000),
    fps=st.floats(0.1, 60),
    picture_bytes=st.integers(1, 200_000),
    viewers=st.floats(0, 200),
    ml_fps=st.sampled_from([0.0, 0.1, 1.0]),
    format=st.sampled_from(["json", "binary"]),
    tls=st.booleans(),
    cores=st.none() | st.integers(8, 128),
    network=st.none() | st.floats(1e11, 4e11),
    beside=st.booleans(),
).map(lambda load: replace(load, ml_fps=load.ml_fps * load.fps))


def needs(load: Load) -> tuple[float, ...]:
    """All that is to be bought."""
    made = plan(load, COSTS, BOUNDS)
    return (
        made.gateways, made.bridges, made.routers, made.machines, made.cores, made.memory, made.memory_at_most,
        made.network_in, made.network_out, made.network_ml, made.network_between, made.connections,
    )  # fmt: skip


def not_less(more: tuple[float, ...], less: tuple[float, ...]) -> bool:
    return all(a >= b * (1 - 1e-9) for a, b in zip(more, less, strict=True))


def more_of_one(load: Load, factor: float) -> Iterator[tuple[str, Load]]:
    yield "viewers", replace(load, viewers=load.viewers * factor + 0.1)
    yield "cameras", replace(load, cameras=math.ceil(load.cameras * factor))
    yield "fps", replace(load, fps=load.fps * factor)
    yield "ml_fps", replace(load, fps=load.fps, ml_fps=min(load.fps, load.ml_fps * factor))
    yield "picture_bytes", replace(load, picture_bytes=math.ceil(load.picture_bytes * factor))
    yield "tls", replace(load, tls=True)


@given(loads, st.floats(1, 3))
def test_more_of_anything_never_needs_less(load: Load, factor: float) -> None:
    before = needs(load)
    for name, more in more_of_one(load, factor):
        assert not_less(needs(more), before), name


@given(loads)
def test_viewers_beside_their_camera_never_need_more(load: Load) -> None:
    assert not_less(needs(replace(load, beside=False)), needs(replace(load, beside=True)))


@given(loads)
def test_what_is_planned_carries_the_load_and_one_gateway_less_does_not(load: Load) -> None:
    made = plan(load, COSTS, BOUNDS)
    assert made.cpu.gateways <= made.gateways * MOST_OF_A_CORE * (1 + 1e-9)
    assert made.connections <= made.gateways * BOUNDS.connections
    assert made.gateways >= made.machines
    assert 0 <= made.cpu.crossing + made.cpu.tls <= made.cpu.gateways
    if load.cores is not None:
        assert made.cores <= made.machines * load.cores
    if load.network is not None:
        out = made.network_out + made.network_ml + made.network_between
        assert out <= made.machines * load.network * MOST_OF_A_NETWORK * (1 + 1e-9)
    if load.beside and made.machines == 1 < made.gateways:
        short = made.gateways - 1
        assert made.cpu.gateways > short * MOST_OF_A_CORE or made.connections > short * BOUNDS.connections
    own = {limit.what: limit.times for limit in made.limits}
    assert all(value >= 1 - 1e-9 for what, value in own.items() if "streams" not in what and "routers" not in what)
    assert [limit.times for limit in made.limits] == sorted(limit.times for limit in made.limits)


def test_the_first_limit_is_where_one_more_is_needed() -> None:
    load = Load(100, 10, 30_000, viewers=3)
    made = plan(load, COSTS, BOUNDS)
    first = made.limits[0]
    assert first.what == "the CPU of the gateways"
    assert plan(replace(load, fps=10 * first.times * 0.999), COSTS, BOUNDS).gateways == 1
    assert plan(replace(load, fps=10 * first.times * 1.001), COSTS, BOUNDS).gateways == 2


def test_units_and_arithmetic_by_hand() -> None:
    made = plan(Load(100, 10, 29_946, viewers=5, ml_fps=2), COSTS, BOUNDS)
    form = COSTS.formats["json"]
    assert (made.frames_in, made.frames_out, made.ml_frames, made.connections) == (1000, 5000, 200, 600)
    assert made.message_bytes == pytest.approx(40_530)
    assert made.network_out == pytest.approx(5000 * 40_530 * 8 * 1.05)
    assert made.cpu.gateways == pytest.approx(
        1000 * form.frame_in_s + 5000 * form.frame_out_s + 200 * COSTS.ml_gateway_s
    )
    assert made.cpu.bridges == pytest.approx(200 * COSTS.ml_bridge_s + COSTS.bridge_idle)
    assert made.cores == pytest.approx(made.cpu.busy / 0.6)
    assert made.registrations_s == pytest.approx(0.015)


def test_larger_pictures_cost_more_and_smaller_ones_no_less() -> None:
    cpu = [plan(Load(100, 10, picture), COSTS, BOUNDS).cpu.gateways for picture in (1, 29_946, 59_892)]
    assert cpu == pytest.approx([cpu[1], cpu[1], 2 * cpu[1]])


def test_half_a_viewer_each_reaches_half_of_what_one_does() -> None:
    """Between gateways as well: with at most one viewer a frame goes to one other gateway at most."""
    load = Load(3000, 30, 30_000, viewers=1)
    one, half = (plan(replace(load, viewers=viewers), COSTS, BOUNDS) for viewers in (1, 0.5))
    assert one.cpu.crossing == pytest.approx(90_000 * (1 - 1 / one.gateways) * COSTS.crossing_s, rel=0.01)
    assert half.cpu.crossing == pytest.approx(45_000 * (1 - 1 / half.gateways) * COSTS.crossing_s, rel=0.01)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Load(0, 1, 1), "--cameras is 0, expected 1 to 1e+06"),
        (Load(1, 0, 1), "--fps is 0, expected 0.001 to 1000"),
        (Load(1, math.nan, 1), "--fps is nan, expected 0.001"),
        (Load(1, math.inf, 1), "--fps is inf, expected 0.001"),
        (Load(1, 1, 0), "--size is 0, expected bytes of a picture"),
        (Load(1, 1, 16_000_000), "--size is 16000000: the message would have 21333935 bytes, and MAX_MESSAGE_BYTES is"),
        (Load(1, 1, 1, viewers=-1), "--viewers-per-camera is -1, expected 0 to 1e+06"),
        (Load(1, 1, 1, viewers=math.nan), "--viewers-per-camera is nan"),
        (Load(1, 1, 1, ml_fps=2), "--ml-fps is 2, expected 0, or 0.001 to 1, the frames a second of a camera"),
        (Load(1, 1, 1, ml_fps=math.nan), "--ml-fps is nan"),
        (Load(1, 1, 1, cores=-1), "--cores is -1, expected 1 to 4096"),
        (Load(1, 1, 1, cores=0), "--cores is 0, expected 1 to 4096"),
        (Load(1, 1, 1, network=0), "--network is 0, expected Gbit/s over 0"),
        (Load(1, 1, 1, network=math.inf), "--network is inf"),
        (Load(10**6, 1000, 10**6, viewers=1000, cores=1), "it needs over 10000 machines"),
        (Load(10**6, 1000, 10**6, viewers=10**6, network=1.0), "it needs over 10000 machines"),
    ],
)
def test_a_load_that_cannot_be_is_said_with_what_is_expected(load: Load, said: str) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|MAX") as error:
        plan(load, COSTS, BOUNDS)
    assert said in str(error.value)


def test_all_faults_are_said_at_once() -> None:
    assert len(faults(Load(0, 0, 0, viewers=-1, cores=0, network=-1), COSTS, BOUNDS)) == 6


def said(load: Load) -> str:
    made: Needs = plan(load, COSTS, BOUNDS)
    return "\n".join(describe(load, made, COSTS, recorded()))


def test_the_sentences_say_what_was_assumed() -> None:
    plain = said(Load(10, 10, 30_000))
    assert "1 viewer of each" in plain
    limit = re.search(
        r"First limit: the CPU of the gateways, at (\d+) times this load\. Then add: another gateway process\.", plain
    )
    assert limit is not None, plain
    assert 50 < int(limit[1]) < 300, "the figures change with each benchmark, not by so much"
    for words in ("TLS", "Bridges", "machine of", "in proportion", "between gateways"):
        assert words not in plain
    much = said(Load(500, 10, 60_000, viewers=20, ml_fps=10, tls=True, cores=16, network=10e9))
    for words in (
        "TLS with clients was not measured", "A further bridge was not measured", "2 times as high",
        "machines of 16 cores and 10 Gbit/s each", "--beside", "between machines", "80% full at most",
    ):  # fmt: skip
        assert words in much
    assert "no less for smaller ones" in said(Load(1, 1, 1000))
    assert "Too much already for the streams of the routers (MAX_STREAMS): full at 0.2 times" in said(
        Load(100_000, 0.1, 1000)
    )


def test_figures_for_people() -> None:
    assert (cores(0.0123), cores(2.04)) == ("0.012 cores", "2.0 cores")
    assert (times(1.23), times(45.6)) == ("1.2 times", "46 times")
    assert [size(value) for value in (0, 999, 1000, 9.996e8, 5e15)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "1 GB",
        "5000 TB",
    ]
    assert rate(1.5e9) == "1.5 Gbit/s"
