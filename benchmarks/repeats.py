"""Which runs are repeated after the planned rounds: those of goals whose figures are too noisy to decide them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from benchmarks.figures import SUBJECT, Results, Runs
from benchmarks.goals import GOALS, Goal, judge
from benchmarks.plan import Selection, Turn

#: No goal gets more rounds than this, however noisy it is.
MOST_ROUNDS: Final = 12
#: No run is repeated later than this after the beginning, in seconds.
REPEAT_UNTIL_S: Final = 38 * 60.0


def undecided(runs: Runs, goals: tuple[Goal, ...] = GOALS) -> list[list[tuple[str, str]]]:
    """The runs that each undecided goal needs once more, as point and system, in the order of goals."""
    found = []
    for goal in goals:
        verdict = judge(goal, runs)
        if verdict.decided or verdict.measured is None:
            continue
        others = goal.points if verdict.measured.against is None else (goal.against_at or goal.points[0],)
        needed = [(goal.points[0], SUBJECT), *((point, verdict.measured.against or SUBJECT) for point in others)]
        found.append(list(dict.fromkeys(needed)))
    return found


def with_repeats(selection: Selection, raw: dict[str, Any], elapsed_s: Callable[[], float]) -> Iterator[Turn]:
    """The turns of a selection, and then those that decide more goals, a round of them after the other.

    Args:
        selection: What is measured.
        raw: The results, to which each turn has been added when the next one is asked for.
        elapsed_s: Seconds since the beginning.
    """
    yield from selection.turns()
    if selection.quick:
        return
    points = {point.name: point for point in selection.chosen}
    for number in range(selection.rounds + 1, MOST_ROUNDS + 1):
        results = msgspec.convert(raw, Results)
        wanted = dict.fromkeys(
            (name, system)
            for runs in undecided(Runs(results.runs, results.failed))
            if all(name in points and selection.takes(points[name], system, number) for name, system in runs)
            for name, system in runs
        )
        if not wanted:
            return
        for name, system in list(wanted) if number % 2 else reversed(wanted):
            if elapsed_s() > REPEAT_UNTIL_S:
                return
            yield Turn(number, points[name], system)
