"""What is measured again: the runs of goals that the rounds so far do not decide, until they do or the time is over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from benchmarks.figures import Runs, read
from benchmarks.goals import GOALS
from benchmarks.plan import ROUNDS, Selection, Turn
from benchmarks.repeats import MOST_ROUNDS, REPEAT_UNTIL_S, undecided, with_repeats
from tests.unit.benchmarks.made_up import raw, run

CpuUs = Callable[[Turn], float]


def measured(selection: Selection, cpu_us: CpuUs, turn_s: float = 0.0) -> list[Turn]:
    """The turns of a run in which each system takes what `cpu_us` says."""
    results, done = json.loads(raw()), []
    for turn in with_repeats(selection, results, lambda: turn_s * len(done)):
        done.append(turn)
        results["runs"].append(run(turn.point.name, turn.system, turn.round, cpu_us=cpu_us(turn)))
    return done


def repeated(turns: list[Turn]) -> list[tuple[int, str, str]]:
    return [(turn.round, turn.point.name, turn.system) for turn in turns if turn.round > ROUNDS]


ONE = Selection(("json-1x50",), ("watchout", "nchan", "bun-raw", "ws"))


def test_nothing_is_repeated_where_every_round_says_the_same() -> None:
    turns = measured(ONE, lambda turn: 9 if turn.system == "watchout" else 10)
    assert turns == list(ONE.turns())


def test_a_noisy_goal_gets_more_rounds_of_the_two_that_it_compares_until_it_is_decided() -> None:
    def cpu_us(turn: Turn) -> float:
        if turn.system == "watchout":
            return 11 if turn.round == 2 else 9
        return {"nchan": 10, "bun-raw": 12, "ws": 30}[turn.system]

    assert repeated(measured(ONE, cpu_us)) == [
        (number, "json-1x50", system)
        for number in (5, 6, 7)
        for system in (("watchout", "nchan") if number % 2 else ("nchan", "watchout"))
    ]


def test_a_goal_that_stays_noisy_is_given_up_after_the_most_rounds() -> None:
    turns = measured(ONE, lambda turn: 9 + 2 * (turn.round % 2) if turn.system == "watchout" else 10)
    assert Counter(turn.system for turn in turns) == {
        "watchout": MOST_ROUNDS, "bun-raw": MOST_ROUNDS, "nchan": ROUNDS, "ws": ROUNDS,
    }  # fmt: skip


def test_no_run_is_repeated_when_the_time_is_over() -> None:
    def noisy(turn: Turn) -> float:
        return 9 + 2 * (turn.round % 2) if turn.system == "watchout" else 10

    planned = len(list(ONE.turns()))
    turns = measured(ONE, noisy, turn_s=REPEAT_UNTIL_S / (planned + 3))
    assert len(turns) == planned + 4, "the last one begins when the time is just not over"


def test_a_quick_run_repeats_nothing() -> None:
    quick = Selection(("json-1x50",), quick=True)
    assert measured(quick, lambda turn: 9 + 2 * (turn.round % 2)) == list(quick.turns())


def test_what_was_not_selected_is_not_repeated() -> None:
    few = Selection(("json-spaces-50x1", "bin-50x1"), ("watchout",))
    assert repeated(measured(few, lambda turn: 9 + 2 * (turn.round % 2))) == []


def test_a_point_that_is_compared_with_another_is_repeated_with_it() -> None:
    two = Selection(("json-spaces-50x1", "json-50x1"), ("watchout",))
    turns = measured(two, lambda turn: 10 + turn.round * (turn.point.name == "json-spaces-50x1") * 0.2)
    assert repeated(turns)[:2] == [(5, "json-spaces-50x1", "watchout"), (5, "json-50x1", "watchout")]


def test_a_goal_against_the_best_at_another_point_needs_that_one() -> None:
    goals = tuple(goal for goal in GOALS if goal.name == "CPU, binary, 1 → 50, against JSON")
    runs = [run("bin-1x50", number=n, cpu_us=us) for n, us in enumerate((7, 7, 8, 8))]
    runs += [run("json-1x50", "bun", number=n, cpu_us=10) for n in range(4)]
    found = undecided(Runs(read(raw(*runs)).runs), goals)
    assert found == [[("bin-1x50", "watchout"), ("json-1x50", "bun")]]
