"""What the runs say: each rule on results that are made up, and what holds for all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import figures
from benchmarks.figures import POINTS, SYSTEMS, Figure, ResultsFault, Runs, read, remarks
from benchmarks.goals import GOALS, Goal, Verdict, judge
from tests.unit.benchmarks.made_up import idle, raw, run

AMOUNTS = st.floats(min_value=0.01, max_value=1e6)


def runs_of(*runs: dict[str, Any]) -> Runs:
    return Runs(read(raw(*runs)).runs)


def goal(name: str) -> Goal:
    (found,) = (g for g in GOALS if g.name == name)
    return found


def verdict(name: str, *runs: dict[str, Any]) -> Verdict:
    return judge(goal(name), runs_of(*runs))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_later_benchmark_adds_is_passed_over() -> None:
    results = read(raw(run(surprise=1)))
    assert results.runs[0].load.sent == 100
    assert not results.quick


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "input data was truncated"),
        (b"[]", "expected `object`, got `array`"),
        (b"{}", "missing required field `machine`"),
        (b'\xff{"machine":{}}', "malformed"),
        (b"[" * 100_000, "expected `object`"),
        (raw(run(corrupt=-1)), r"`\$.runs\[0\].load.corrupt`"),
        (raw(run(sent="many")), r"`\$.runs\[0\].load.sent`"),
        (raw(run("")), r"`\$.runs\[0\].point`"),
    ],
)
def test_bytes_that_are_no_results_say_where(data: bytes, said: str) -> None:
    with pytest.raises(ResultsFault, match=f"(?i)not the raw results of a benchmark: .*{said}"):
        read(data)


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_percentile_is_one_of_the_values() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [figures.percentile(hundred, share) for share in (0, 0.5, 0.99, 0.999, 1)] == [1, 50, 99, 100, 100]
    assert figures.percentile([7.0], 0.99) == 7


@given(st.lists(AMOUNTS, min_size=1).map(sorted), st.floats(0, 1))
def test_a_percentile_has_its_share_of_the_values_at_or_below_it(values: list[float], share: float) -> None:
    found = figures.percentile(values, share)
    below = sum(value <= found for value in values)
    assert below >= share * len(values) - 1e-5
    assert sum(value < found for value in values) <= max(0.0, share * len(values))


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1), ([1.0], math.nan)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        figures.percentile(values, share)


def test_a_figure_whose_rounds_differ_by_more_than_a_quarter_is_noisy() -> None:
    assert not Figure((1.0,)).noisy
    assert not Figure((0.9, 1.0, 1.1)).noisy
    assert Figure((0.9, 1.0, 1.2)).noisy
    assert not Figure((0.0, 0.0)).noisy


@pytest.mark.parametrize(
    ("rounds", "cut"), [(1, 0), (2, 0), (4, 0), (6, 0), (7, 1), (9, 1), (10, 2), (12, 3), (30, 10)]
)
def test_the_interval_of_a_median_leaves_out_as_many_rounds_as_its_confidence_permits(rounds: int, cut: int) -> None:
    values = tuple(float(n) for n in range(rounds))
    assert Figure(values[::-1]).interval == (cut, rounds - 1 - cut)
    inside = sum(math.comb(rounds, below) for below in range(cut + 1, rounds - cut)) / 2**rounds
    closer = sum(math.comb(rounds, below) for below in range(cut + 2, rounds - cut - 1)) / 2**rounds
    assert rounds < 4 or inside >= figures.CONFIDENCE > closer


@given(st.lists(AMOUNTS, min_size=1, max_size=40))
def test_the_interval_of_a_median_holds_it(values: list[float]) -> None:
    figure = Figure(tuple(values))
    low, high = figure.interval
    assert figure.low <= low <= figure.median <= high <= figure.high


def test_cpu_is_that_of_a_delivered_frame() -> None:
    (one,) = read(raw(run(cpu_us=6.0, delivered=4000))).runs
    assert figures.cpu_us(one) == pytest.approx(6.0)
    (none,) = read(raw(run(delivered=0))).runs
    assert figures.cpu_us(none) is None


def test_a_frame_that_the_camera_could_not_send_was_not_delivered() -> None:
    (one,) = read(raw(run(sent=50, not_sent=50, expected=2500, delivered=2500))).runs
    assert figures.delivered_share(one) == 0.5


def test_a_ratio_is_made_of_runs_of_the_same_round() -> None:
    # The machine was twice as slow in the second round, and the third has no run of the other.
    runs = runs_of(
        run(system="watchout", number=0, cpu_us=5), run(system="bun", number=0, cpu_us=10),
        run(system="watchout", number=1, cpu_us=10), run(system="bun", number=1, cpu_us=20),
        run(system="watchout", number=2, cpu_us=1),
    )  # fmt: skip
    ratio = runs.ratio("json-1x50", "watchout", "json-1x50", "bun", figures.cpu_us)
    assert ratio is not None
    assert ratio.values == pytest.approx((0.5, 0.5))


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=5), AMOUNTS)
def test_a_ratio_does_not_depend_on_how_fast_the_machine_is(costs: list[tuple[float, float]], speed: float) -> None:
    def at(factor: float) -> Figure:
        runs = runs_of(
            *(run(number=n, cpu_us=a * factor) for n, (a, _) in enumerate(costs)),
            *(run(system="nchan", number=n, cpu_us=b * factor) for n, (_, b) in enumerate(costs)),
        )
        found = runs.ratio("json-1x50", "watchout", "json-1x50", "nchan", figures.cpu_us)
        assert found is not None
        return found

    assert at(speed).values == pytest.approx(at(1.0).values)


def test_a_ratio_to_what_did_not_run_or_took_nothing_is_none() -> None:
    runs = runs_of(run(), run(system="bun", cpu_us=0), run(system="nchan", number=1))
    for other in ("ws", "bun", "nchan"):
        assert runs.ratio("json-1x50", "watchout", "json-1x50", other, figures.cpu_us) is None


def test_a_run_with_a_wrong_frame_gives_no_figure() -> None:
    runs = runs_of(run(number=0, cpu_us=1, corrupt=1), run(number=1, cpu_us=6), run(number=2, cpu_us=2, reordered=3))
    found = runs.figure("json-1x50", "watchout", figures.cpu_us)
    assert found is not None
    assert found.values == pytest.approx((6.0,))
    assert remarks(runs, "json-1x50", "watchout") == ["INVALID: 1 corrupt and 3 reordered frames in 2 rounds"]


def test_the_best_peer_is_the_one_with_the_least_median_of_those_that_lose_nothing() -> None:
    runs = runs_of(
        run(), run(system="bun", cpu_us=8), run(system="nchan", cpu_us=7), run(system="ws", cpu_us=1, delivered=2500)
    )
    assert runs.best("json-1x50", figures.PEERS, figures.cpu_us) == "nchan"
    assert runs.best("json-1x50", ("ws",), figures.cpu_us) is None
    assert runs.best("bin-1x50", figures.PEERS, figures.cpu_us) is None


def test_systems_come_in_the_order_of_tables_and_unknown_ones_last() -> None:
    runs = runs_of(run(system="stranger"), run(system="floor-c"), run(system="bun"), run())
    assert runs.systems("json-1x50") == ["watchout", "bun", "floor-c", "stranger"]


def test_a_quiet_run_needs_no_remark() -> None:
    assert remarks(runs_of(run(number=0), run(number=1)), "json-1x50", "watchout") == []


def test_each_thing_that_makes_a_figure_unfair_is_remarked() -> None:
    late = {"p50": 1, "p99": 4.5, "p999": 6, "max": 7}
    runs = runs_of(
        run(number=0, delivered=4000, lateness_ms=late, load_cpu_s=1.8),
        run(number=1, delivered=4000, lateness_ms=late, load_cpu_s=1.8),
    )
    assert remarks(runs, "json-1x50", "watchout") == [
        "drops 20 % of the frames: CPU not comparable",
        "load was late by 4.5 ms",
        "load took 90 % of a core",
    ]


# ── goals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_goal_has_a_name_of_its_own_and_points_that_the_tables_know() -> None:
    assert len({g.name for g in GOALS}) == len(GOALS)
    assert {point for g in GOALS for point in g.points} == set(POINTS)
    assert all(g.sentence.endswith(".") for g in GOALS)
    known = {*figures.PEERS, *figures.FRONTS, figures.SUBJECT, figures.FLOOR_UVLOOP, figures.FLOOR_C}
    assert known == set(SYSTEMS)


@pytest.mark.parametrize("each", GOALS, ids=lambda g: g.name)
def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed(each: Goal) -> None:
    assert judge(each, runs_of()).reached is None
    assert judge(each, runs_of(run("json-1x50", "bun"))).reached is None


def both(point: str, other: str, a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    return [run(point, **a), run(other, **b)]


def beside(point: str, a: float, **others: float) -> list[dict[str, Any]]:
    """CPU of watchout and of others at one point."""
    return [run(point, cpu_us=a)] + [run(point, name.replace("_", "-"), cpu_us=us) for name, us in others.items()]


def ages(most: float) -> dict[str, float]:
    return {"p50": 1, "p99": 1, "p999": 1, "max": most}


@pytest.mark.parametrize(
    ("name", "just", "over"),
    [
        ("CPU, JSON, 1 → 50", beside("json-1x50", 7, bun_raw=8, nchan=7), beside("json-1x50", 7.1, bun_raw=8, nchan=7)),
        ("CPU, JSON, 1 → 10", beside("json-1x10", 8, bun_raw=8, nchan=9), beside("json-1x10", 8.1, bun_raw=8, nchan=9)),
        ("CPU, JSON, 50 × (1 → 1)", beside("json-50x1", 10, bun_raw=10), beside("json-50x1", 10.1, bun_raw=10)),
        (
            "CPU, JSON, 1 → 10, 15 fps",
            beside("json-1x10-low", 10, bun_raw=10, bun=1),
            beside("json-1x10-low", 10.1, bun_raw=10, bun=1),
        ),
        (
            "CPU, JSON, 200 kB, 1 → 10",
            beside("json-200k-1x10", 10, nchan=10),
            beside("json-200k-1x10", 10.1, nchan=10),
        ),
        (
            "CPU, JSON with spaces, 50 × (1 → 1), against compact JSON",
            both("json-spaces-50x1", "json-50x1", {"cpu_us": 10.5}, {"cpu_us": 10}),
            both("json-spaces-50x1", "json-50x1", {"cpu_us": 10.6}, {"cpu_us": 10}),
        ),
        (
            "CPU, JSON with three more fields, 1 → 50, against compact JSON",
            both("json-fields-1x50", "json-1x50", {"cpu_us": 11.5}, {"cpu_us": 10}),
            both("json-fields-1x50", "json-1x50", {"cpu_us": 11.6}, {"cpu_us": 10}),
        ),
        ("CPU, binary, 1 → 10", beside("bin-1x10", 11, nchan=10, bun=1), beside("bin-1x10", 11.1, nchan=10, bun=1)),
        (
            "CPU, binary, 1 → 50, against JSON",
            [*beside("bin-1x50", 6), *beside("json-1x50", 9, bun=8)],
            [*beside("bin-1x50", 6), *beside("json-1x50", 7.9, bun=8)],
        ),
        (
            "p99, binary, 1 → 10",
            [run("bin-1x10", p99=2.2), run("bin-1x10", "ws", p99=2.0)],
            [run("bin-1x10", p99=2.3), run("bin-1x10", "ws", p99=2.0)],
        ),
        ("CPU with ML", both("ml-on", "ml-off", {"cpu_us": 12.5}, {"cpu_us": 10}),
                        both("ml-on", "ml-off", {"cpu_us": 12.6}, {"cpu_us": 10})),
        ("CPU across gateways", both("two-gateways", "one-gateway", {"cpu_us": 18}, {"cpu_us": 10}),
                                both("two-gateways", "one-gateway", {"cpu_us": 19}, {"cpu_us": 10})),
        ("CPU of three hosts", both("hosts-3", "one-gateway", {"cpu_us": 11}, {"cpu_us": 10}),
                               both("hosts-3", "one-gateway", {"cpu_us": 12}, {"cpu_us": 10})),
        ("CPU across hosts", both("two-hosts", "one-gateway", {"cpu_us": 22}, {"cpu_us": 10}),
                             both("two-hosts", "one-gateway", {"cpu_us": 23}, {"cpu_us": 10})),
        ("p99 across gateways", both("two-gateways", "one-gateway", {"p99": 3.0}, {"p99": 1.0}),
                                both("two-gateways", "one-gateway", {"p99": 3.1}, {"p99": 1.0})),
        ("CPU, JSON, 1 → 50, against the uvloop floor",
         beside("json-1x50", 5, floor_uvloop=4), beside("json-1x50", 5.1, floor_uvloop=4)),
        ("CPU, JSON, 50 × (1 → 1), against the uvloop floor",
         beside("json-50x1", 40, floor_uvloop=20), beside("json-50x1", 41, floor_uvloop=20)),
        ("Idle connection", [idle(kb=10)], [idle(kb=10.1)]),
        ("Idle connections held", [idle(held=10_000)], [idle(held=9_999)]),
        ("p99 beside a slow viewer", both("slow-on", "slow-off", {"p99": 1.1}, {"p99": 1.0}),
                                     both("slow-on", "slow-off", {"p99": 1.2}, {"p99": 1.0})),
        (
            "Age of a slow viewer's frame",
            [run("slow-on", slow={"received": 9, "transfer_ms": 100, "age_ms": ages(200)})],
            [run("slow-on", slow={"received": 9, "transfer_ms": 100, "age_ms": ages(201)})],
        ),
        ("Memory of a slow viewer", both("slow-on", "slow-off", {"memory": 2 * 2**20}, {"memory": 2**20}),
                                    both("slow-on", "slow-off", {"memory": 2 * 2**20 + 1}, {"memory": 2**20})),
        ("CPU of many streams", both("streams-1000", "streams-50", {"cpu_us": 12}, {"cpu_us": 10}),
                                both("streams-1000", "streams-50", {"cpu_us": 12.1}, {"cpu_us": 10})),
        ("Wrong frames", [run()], [run(), run(number=1, reordered=1)]),
    ],
)  # fmt: skip
def test_a_goal_is_reached_up_to_its_bound_and_no_further(
    name: str, just: list[dict[str, Any]], over: list[dict[str, Any]]
) -> None:
    assert verdict(name, *just).reached is True
    assert verdict(name, *over).reached is False


def test_the_median_round_decides_and_the_rounds_that_reach_it_are_counted() -> None:
    costs = (0.9, 0.95, 1.2, 0.8, 1.1)
    found = verdict(
        "CPU, JSON, 1 → 50",
        *(run(number=n, cpu_us=10 * ratio) for n, ratio in enumerate(costs)),
        *(run(system="bun-raw", number=n, cpu_us=10) for n in range(5)),
    )
    assert found.reached is True
    assert found.rounds_reached == 3
    assert found.measured is not None
    assert found.measured.against == "bun-raw"
    assert found.measured.figure.median == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("ratios", "reached", "decided"),
    [
        ((0.9, 0.95, 0.97, 0.99), True, True),
        ((0.9, 0.95, 0.97, 1.01), True, False),
        ((1.1, 1.02, 1.3, 0.9), False, False),
        ((1.1, 1.02, 1.3, 1.01), False, True),
        ((0.9,) * 6 + (5.0,), True, True),
        ((0.9,) * 5 + (5.0, 5.0), True, False),
        ((1.0, 1.0, 1.0, 1.0), True, True),
    ],
)
def test_a_goal_whose_bound_lies_among_the_rounds_is_undecided(
    ratios: tuple[float, ...], reached: bool, decided: bool
) -> None:
    found = verdict(
        "CPU, JSON, 1 → 50",
        *(run(number=n, cpu_us=10 * ratio) for n, ratio in enumerate(ratios)),
        *(run(system="nchan", number=n, cpu_us=10) for n in range(len(ratios))),
    )
    assert (found.reached, found.decided) == (reached, decided)


def test_what_misses_a_goal_in_any_case_is_decided() -> None:
    costs = [run(number=n, cpu_us=us, delivered=4000) for n, us in enumerate((8, 9, 11, 12))]
    found = verdict("CPU, JSON, 1 → 50", *costs, *(run(system="nchan", number=n, cpu_us=10) for n in range(4)))
    assert (found.reached, found.decided, found.why) == (False, True, "drops frames")


def test_who_loses_frames_reaches_nothing() -> None:
    cheap = run(cpu_us=1, delivered=4949)
    found = verdict("CPU, JSON, 1 → 50", cheap, run(system="bun-raw", cpu_us=10))
    assert (found.reached, found.why) == (False, "drops frames")


def test_who_delivers_a_wrong_frame_reaches_nothing() -> None:
    found = verdict(
        "CPU, JSON, 1 → 50", run(number=0), run(number=1, corrupt=1), run(system="bun-raw", cpu_us=10)
    )  # fmt: skip
    assert (found.reached, found.why) == (False, "wrong frames")
    only_wrong = verdict("CPU, JSON, 1 → 50", run(corrupt=1), run(system="bun-raw", cpu_us=10))
    assert (only_wrong.reached, only_wrong.measured) == (False, None)


def test_a_wrong_frame_in_one_round_of_five_is_no_noise() -> None:
    found = verdict("Wrong frames", *(run(number=n, corrupt=int(n == 3)) for n in range(5)))
    assert found.reached is False
    assert verdict("Wrong frames", run(), run(system="ws", corrupt=9)).reached is True


@given(st.lists(AMOUNTS, min_size=1, max_size=7), st.lists(AMOUNTS, min_size=1, max_size=7))
def test_a_goal_that_every_round_reaches_is_reached(own: list[float], peer: list[float]) -> None:
    found = verdict(
        "CPU, JSON, 1 → 50",
        *(run(number=n, cpu_us=us) for n, us in enumerate(own)),
        *(run(system="nchan", number=n, cpu_us=us) for n, us in enumerate(peer)),
    )
    assert found.measured is not None
    rounds = len(found.measured.figure.values)
    assert rounds == min(len(own), len(peer))
    if found.rounds_reached in (0, rounds):
        assert found.reached is (found.rounds_reached == rounds)
