"""What processes of clients count adds up, second by second and in all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.latency.histogram import Histogram
from watchout.ctl.rehearse.figures import (
    MAX_FAULTS,
    MAX_POINTS,
    Counts,
    Durations,
    Moment,
    RoleCounts,
    Series,
    StreamTally,
    joined_durations,
)
from watchout.ctl.rehearse.plan import ViewerRole


def durations(*values: float) -> Durations:
    found = Histogram()
    for value in values:
        found.add(value)
    return Durations.of(found)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 9)), max_size=60))
def test_a_series_keeps_every_count_in_a_bounded_number_of_points(moments: list[tuple[int, int]]) -> None:
    series = Series()
    for at_s, count in moments:
        series.add(Moment(at_s=at_s, sent=count, received=2 * count, glass=durations(*([5.0] * count))))
    points = series.points()
    assert sum(point.sent for point in points) == sum(count for _, count in moments)
    assert joined_durations(point.glass for point in points).count == sum(count for _, count in moments)
    assert [point.at_s for point in points] == sorted({point.at_s for point in points})


def test_a_long_series_joins_neighbours() -> None:
    series = Series()
    for at_s in range(3 * MAX_POINTS):
        series.add(Moment(at_s=at_s, sent=10, cpu_s=0.5))
        series.add(Moment(at_s=at_s, sent=1))
    points = series.points()
    assert len(points) <= MAX_POINTS
    assert series.step_s == 4
    assert all((point.sent, point.seconds, point.cpu_s) == (44, 4, 2.0) for point in points)


def test_counts_of_processes_add_up() -> None:
    one = Counts(due=10, sent=8, held=2, camera_alerts=1, lost={"CONNECTION_LOST": 1}, faults={"a": 1})
    one.roles = {ViewerRole.STEADY: RoleCounts(viewers=1, received=5)}
    one.streams = {"s": StreamTally(connections=1, received=5)}
    two = Counts(due=1, sent=1, lost={"CONNECTION_LOST": 2, "X": 1}, faults={"a": 2, "b": 1})
    two.roles = {
        ViewerRole.STEADY: RoleCounts(viewers=2, received=7, missing=3),
        ViewerRole.SLOW: RoleCounts(alerts_lost=1),
    }
    two.streams = {"s": StreamTally(connections=2, missing=3), "t": StreamTally(connections=1)}
    one.add(two)
    assert (one.due, one.sent, one.held, one.camera_alerts) == (11, 9, 2, 1)
    assert one.roles[ViewerRole.STEADY] == RoleCounts(viewers=3, received=12, missing=3)
    assert one.all_viewers() == RoleCounts(viewers=3, received=12, missing=3, alerts_lost=1)
    assert one.streams == {"s": StreamTally(connections=3, received=5, missing=3), "t": StreamTally(connections=1)}
    assert (one.lost, one.faults) == ({"CONNECTION_LOST": 3, "X": 1}, {"a": 3, "b": 1})
    assert two.roles[ViewerRole.STEADY].received == 7


def test_texts_of_faults_are_bounded() -> None:
    counts = Counts()
    for number in range(2 * MAX_FAULTS):
        counts.fault(f"fault {number}")
        counts.fault("fault 0")
    assert len(counts.faults) == MAX_FAULTS
    assert counts.faults["fault 0"] == 2 * MAX_FAULTS + 1
