"""Which runs there are, and in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from benchmarks import micro
from benchmarks.__main__ import spread
from benchmarks.load.model import Plan
from benchmarks.plan import COMPARED, NAMES, POINTS, REVISION_ROUNDS, REVISIONS, ROUNDS, Selection, Turn, quick
from benchmarks.repeats import REPEAT_UNTIL_S
from benchmarks.runner import load_plan
from benchmarks.systems import ALL, Running


def order(selection: Selection) -> list[tuple[int, str, str]]:
    return [(turn.round, turn.point.name, turn.system) for turn in selection.turns()]


def test_every_system_runs_at_every_point_in_every_round():
    turns = order(Selection())
    assert len(turns) == len(set(turns))
    for point in POINTS:
        rounds = min(ROUNDS, point.rounds_at_most)
        assert {t for t in turns if t[1] == point.name} == {
            (number, point.name, system) for number in range(1, rounds + 1) for system in point.systems
        }


def test_every_other_round_is_the_one_before_backwards():
    points = tuple(name for name in NAMES if name != "idle")
    turns = order(Selection(points, rounds=2))
    half = len(turns) // 2
    assert [t[1:] for t in turns[half:]] == [t[1:] for t in turns[:half]][::-1]


@pytest.mark.parametrize(
    "pair",
    [
        ("json-spaces-1x50", "json-1x50"),
        ("json-spaces-50x1", "json-50x1"),
        ("ml-off", "ml-on"),
        ("one-gateway", "two-gateways"),
        ("streams-50", "streams-1000"),
        ("slow-off", "slow-on"),
        ("alerts-off", "alerts-on"),
    ],
)
def test_points_that_are_compared_run_one_after_the_other(pair):
    names = [turn.point.name for turn in Selection(rounds=1).turns()]
    at = names.index(pair[0])
    assert tuple(names[at : at + 2]) == pair


def test_a_selection_takes_only_what_it_names():
    assert order(Selection(("bin-1x50", "idle"), ("bun", "floor-uvloop"), 2)) == [
        (1, "bin-1x50", "bun"),
        (1, "bin-1x50", "floor-uvloop"),
        (1, "idle", "bun"),
        (2, "bin-1x50", "floor-uvloop"),
        (2, "bin-1x50", "bun"),
    ]


def test_points_have_names_of_their_own_and_known_systems():
    assert len(set(NAMES)) == len(POINTS)
    assert {system for point in POINTS for system in point.systems} == set(ALL)


@pytest.mark.parametrize("point", [*POINTS, *map(quick, POINTS)], ids=lambda point: point.name)
def test_the_load_takes_what_each_point_asks_of_it(point):
    plan = msgspec.convert({**point.load(), "dialect": "watchout", "ports": (1, 2), "token": None}, Plan)
    assert plan.idle or plan.fps * plan.warmup_s >= 1
    assert bool(plan.slow) == (point.name == "slow-on")


def test_make_bench_takes_less_than_40_minutes():
    functions_s = 2 * len(micro.CASES) * micro.ROUNDS * micro.SLICE_S
    turns = list(Selection().turns())
    longest_s = max(turn.estimate_s for turn in turns)
    assert sum(turn.estimate_s for turn in turns) < REPEAT_UNTIL_S
    assert functions_s + REPEAT_UNTIL_S + longest_s < 40 * 60
    assert sum(turn.estimate_s for turn in Selection(rounds=1, quick=True).turns()) < 5.5 * 60


def test_a_turn_is_estimated_with_what_its_system_takes_to_start() -> None:
    points = {point.name: point for point in POINTS}
    low = points["json-1x10-low"]
    assert Turn(1, low, "nchan").estimate_s == pytest.approx(1 + 4 + 1 + 0.011)
    assert Turn(1, low, "watchout").estimate_s - Turn(1, low, "nchan").estimate_s == pytest.approx(1.5)
    assert Turn(1, points["two-hosts"], "watchout").estimate_s > Turn(1, points["one-gateway"], "watchout").estimate_s
    assert Turn(1, points["idle"], "nchan").estimate_s > 10


def test_each_system_runs_first_in_half_of_the_rounds():
    first = Counter((turn.point.name, turn.system) for turn in Selection(("json-1x50",), ("watchout", "nchan")).turns())
    assert ROUNDS % 2 == 0
    assert set(first.values()) == {ROUNDS}


def test_cameras_write_their_json_in_each_form_where_it_matters():
    assert {
        (p.envelope, p.streams, p.viewers_per_stream) for p in POINTS if p.envelope not in ("compact", "alert")
    } == {
        *((form, *shape) for form in ("spaces", "fields", "slashes") for shape in ((1, 50), (50, 1))),
        ("fragments", 50, 1),
    }
    frames = [p for p in POINTS if p.envelope != "alert"]
    assert {p.picture_bytes for p in frames} == {0, 8000, 200_000}
    low = {(p.streams, p.viewers_per_stream) for p in frames if p.fps == 15 and not p.name.startswith("alerts-")}
    assert low == {(1, 50), (1, 10), (50, 1)}


def test_alerts_to_many_viewers_are_beside_bun_and_frames_beside_alerts_are_beside_frames_without() -> None:
    points = {point.name: point for point in POINTS}
    (many,) = (point for point in POINTS if point.envelope == "alert")
    assert (many.streams, many.viewers_per_stream, many.systems) == (1, 5000, ("watchout", "bun"))
    assert (many.fps * many.duration_s >= 8, quick(many).viewers_per_stream) == (True, 1000)
    without, beside = points["alerts-off"], points["alerts-on"]
    assert (without.alerts_per_s, beside.alerts_per_s, beside.viewers_per_stream) == (0, 500, 100)
    assert replace(beside, name=without.name, what=without.what, alerts_per_s=0) == without


def test_a_server_that_knows_no_alerts_gets_frames_in_place_of_those_of_cameras() -> None:
    points = {point.name: point for point in POINTS}
    of = {
        has_alerts: load_plan(
            points["alert-1x5000"], Running((1,), (2,), "watchout", has_alerts=has_alerts), None, None
        )
        for has_alerts in (True, False)
    }
    assert [of[has_alerts]["envelope"] for has_alerts in (True, False)] == ["alert", "like-alert"]
    assert of[True] | {"envelope": ""} == of[False] | {"envelope": ""}
    plain = load_plan(points["json-1x50"], Running((1,), (2,), "watchout"), Path("/authority.pem"), "secret")
    assert (plain["envelope"], plain["trust"], plain["service_token"]) == ("compact", "/authority.pem", "secret")


def test_an_option_takes_all_the_names_behind_it():
    said = ["--only", "a", "b", "--quick", "--systems", "x", "--rounds", "2", "--systems", "y", "z"]
    assert spread(said) == [
        *("--only", "a", "--only", "b", "--quick", "--systems", "x", "--rounds", "2"),
        *("--systems", "y", "--systems", "z"),
    ]
    assert spread([]) == []


def test_each_revision_runs_as_often_as_the_other_and_first_as_often() -> None:
    turns = list(Selection(rounds=REVISION_ROUNDS, among=COMPARED).turns())
    count = Counter((turn.point.name, turn.system) for turn in turns)
    first = Counter((turn.point.name, turn.system) for turn in turns[::2])
    for point in COMPARED:
        now, before = ((point.name, system) for system in REVISIONS)
        assert count[now] == count[before] >= 2
        assert first[now] == first[before]
    assert all(a.point is b.point and a.system != b.system for a, b in zip(turns[::2], turns[1::2], strict=True))


def test_the_comparison_has_every_load_and_idle_connections_and_is_bounded() -> None:
    def seconds(selection: Selection) -> float:
        return sum(t.point.warmup_s + t.point.duration_s + 4 * t.point.settle_s for t in selection.turns())

    assert {point.name for point in COMPARED} == {
        *("json-1x50", "json-1x10", "json-50x1", "bin-1x50", "bin-1x10", "bin-50x1", "idle")
    }
    assert seconds(Selection(rounds=REVISION_ROUNDS, among=COMPARED)) < 5 * 60
    assert seconds(Selection(rounds=2, quick=True, among=COMPARED)) < 60
