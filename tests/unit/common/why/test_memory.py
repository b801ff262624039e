"""The memory of incidents is bounded in every way, and what gives way is what there is most of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import watchout.common.why.memory as memory_module
from watchout.common.settings import Settings
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import JOINED_MS, IncidentMemory, memory_of

HOUR_MS = 3_600_000


def closed(at: int, user: str = "ann", stream: str = "cam", **more: object) -> Incident:
    return Incident(what=IncidentKind.CLOSED, at=at, user=user, streams=(stream,), **more)  # type: ignore[arg-type]


def test_an_incident_is_found_by_each_of_its_subjects_and_by_no_other_name() -> None:
    memory = IncidentMemory()
    one = Incident(
        what=IncidentKind.CLOSED, at=5, user="ann", streams=("a", "b"), connection="gw/1.2", alert="x", address="::1"
    )
    memory.add(one)
    for subject in ("ann", "a", "b", "gw/1.2", "x", "::1"):
        assert memory.about(subject, 5) == [one], subject
    assert memory.about("c", 5) == []
    assert memory.of_everybody(5) == []
    assert memory.known(5) == ["::1", "x", "gw/1.2", "ann", "b", "a"]


def test_what_has_no_subject_concerns_everybody() -> None:
    memory = IncidentMemory()
    memory.add(Incident(what=IncidentKind.DRAIN, at=5))
    assert [each.what for each in memory.of_everybody(5)] == [IncidentKind.DRAIN]
    assert memory.known(5) == []


def test_incidents_come_in_the_order_of_their_times_across_kinds() -> None:
    memory = IncidentMemory()
    memory.add(closed(1))
    memory.add(Incident(what=IncidentKind.ERROR, at=2, user="ann"))
    memory.add(closed(3))
    assert [each.at for each in memory.about("ann", 3)] == [1, 2, 3]


def test_of_one_subject_and_kind_the_oldest_gives_way_and_other_kinds_stay() -> None:
    memory = IncidentMemory(per_subject=3)
    memory.add(Incident(what=IncidentKind.CLAIMED, at=0, streams=("cam",)))
    for at in range(1, 11):
        memory.add(Incident(what=IncidentKind.DROPPED, at=at, streams=("cam",), user=f"user-{at}"))
    assert [(each.what, each.at) for each in memory.about("cam", 10)] == [
        (IncidentKind.CLAIMED, 0), (IncidentKind.DROPPED, 8), (IncidentKind.DROPPED, 9), (IncidentKind.DROPPED, 10),
    ]  # fmt: skip
    assert memory.about("user-1", 10) == []  # it is forgotten by all its names
    assert (memory.evicted, memory.evicted_until) == (7, 7)


def test_ends_of_connections_that_give_way_are_summed_up_by_how_they_ended() -> None:
    memory = IncidentMemory(per_subject=3)
    for at in range(1, 41):
        code, numbers = (
            (4400, {"frames_out": 10.0, "messages_waiting": 5.0}) if at % 4 == 0 else (1000, {"frames_out": 10.0})
        )
        memory.add(
            closed(at, stream=f"cam-{at % 2}", code=code, connection=f"gw/1.{at}", address="::1", numbers=numbers)
        )
    for stream, closes in (("cam-0", {1000: 10, 4400: 10}), ("cam-1", {1000: 20})):
        found = memory.about(stream, 41)
        for code, count in closes.items():
            assert sum(each.count for each in found if each.code == code) == count
        assert sum(each.numbers["frames_out"] for each in found) == 200
        assert sum(each.numbers.get("messages_waiting", 0) for each in found) == 5 * closes.get(4400, 0)
        assert [each.connection for each in found if each.summed] == [""] * len(closes)
        assert all(each.until <= 37 for each in found if each.summed)
    for subject in ("ann", "::1"):
        assert sum(each.count for each in memory.about(subject, 41)) == 40
    assert memory.about("gw/1.1", 41) == []
    assert [each.at for each in memory.about("ann", 41) if not each.summed] == [38, 39, 40]
    assert (memory.evicted, memory.since(0, 41), memory.since(0, 41, IncidentKind.CLOSED)) == (0, 0, 0)


def test_sums_of_one_subject_are_bounded_too_and_what_is_lost_then_is_told() -> None:
    memory = IncidentMemory(per_subject=3)
    memory.add(closed(0, user="bob", stream="bobs"))
    for at in range(1, 101):
        memory.add(closed(at, stream=f"cam-{at}"))
    found = memory.about("ann", 101)
    assert [(each.at, each.summed) for each in found] == [
        (95, True), (96, True), (97, True), (98, False), (99, False), (100, False),
    ]  # fmt: skip
    assert (memory.evicted, len(memory)) == (94, 7)
    assert memory.since(0, 101, IncidentKind.CLOSED) == memory.since(0, 101) == 94
    assert memory.since(0, 101, IncidentKind.REFUSED) == 0
    assert memory.about("bob", 101) == [closed(0, user="bob", stream="bobs")]


def test_what_gave_way_for_others_of_one_name_is_missing_of_that_name_and_of_those_named_with_it() -> None:
    memory = IncidentMemory(per_subject=2, max_entries=8)
    for at in range(1, 6):
        memory.add(Incident(what=IncidentKind.DRAIN, at=at, user="ann", streams=(f"cam-{at}",)))
    since = {name: memory.since(0, 10, about=name) for name in ("ann", "cam-3", "cam-1", "cam-4", "bob", "")}
    assert since == {"ann": 3, "cam-3": 3, "cam-1": 1, "cam-4": 0, "bob": 0, "": 0}
    assert memory.since(0, 10) == 3
    for at in range(6, 10):  # what concerns everybody
        memory.add(Incident(what=IncidentKind.DRAIN, at=at))
    assert {memory.since(0, 10, about=name) for name in ("bob", "cam-4", "ann")} == {7}
    for at in range(10, 20):
        memory.add(Incident(what=IncidentKind.DRAIN, at=at, user=f"user-{at}"))
    assert memory.since(0, 20, about="nobody") == 11, "in total the oldest gave way, whomever they were about"


def test_of_so_many_names_it_is_known_what_gave_way_and_then_it_counts_for_all(monkeypatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_LOST", 4)
    memory = IncidentMemory(per_subject=1)
    for at in range(1, 6):
        for number in range(2):
            memory.add(Incident(what=IncidentKind.DRAIN, at=10 * at + number, user=f"user-{at}"))
    assert [memory.since(0, 99, about=f"user-{at}") for at in (1, 2, 5)] == [10, 20, 50]
    assert memory.since(0, 99, about="nobody") == 10


def test_a_sum_is_forgotten_when_the_newest_in_it_is_too_old() -> None:
    memory = IncidentMemory(keep_s=10, per_subject=1)
    for at in (0, 4_000, 8_000):
        memory.add(closed(at))
    assert [(each.count, each.at, each.until) for each in memory.about("cam", 14_000)] == [(2, 0, 4_000), (1, 8_000, 0)]
    assert [each.at for each in memory.about("cam", 14_001)] == [8_000]
    assert memory.about("cam", 18_001) == []


def test_in_total_the_kind_with_most_bytes_gives_way_so_that_a_storm_pushes_out_itself() -> None:
    memory = IncidentMemory(max_entries=100)
    memory.add(closed(0))
    for number in range(1000):
        memory.add(Incident(what=IncidentKind.REFUSED, at=number, address=f"10.0.{number // 250}.{number % 250}"))
    assert len(memory) == 100
    assert memory.about("ann", 1000) == [closed(0)]
    assert memory.about("10.0.3.249", 1000)


def test_the_bytes_are_bounded_too() -> None:
    memory = IncidentMemory(max_bytes=20_000)
    for at in range(200):
        memory.add(closed(at, user=f"user-{at}", stream=f"cam-{at}", reason="x" * 200))
    assert memory.bytes <= 20_000
    assert 5 < len(memory) < 40
    assert memory.evicted == 200 - len(memory)


def test_what_is_older_than_its_time_is_forgotten_and_is_not_said_to_have_given_way() -> None:
    memory = IncidentMemory(keep_s=3600)
    memory.add(closed(0))
    memory.add(closed(1000, user="bob"))
    assert len(memory.about("cam", HOUR_MS)) == 2
    assert [each.user for each in memory.about("cam", HOUR_MS + 1)] == ["bob"]
    assert memory.known(HOUR_MS + 1001) == []
    assert (len(memory), memory.bytes, memory.evicted) == (0, 0, 0)


def test_a_memory_without_bytes_or_minutes_remembers_nothing() -> None:
    for memory in (IncidentMemory(max_bytes=0), memory_of(Settings(why_minutes=0))):
        memory.add(closed(5))
        assert (len(memory), memory.about("ann", 5)) == (0, [])
    assert len(memory_of(Settings())) == 0


def test_events_alike_within_a_minute_are_one_incident_with_their_numbers_added_up() -> None:
    memory = IncidentMemory()

    def drop(at: int, count: int) -> None:
        numbers = {"slow": float(count)}
        memory.add(Incident(what=IncidentKind.DROPPED, at=at, streams=("cam",), numbers=numbers), ("d", "cam"))

    drop(1000, 3)
    drop(2000, 4)
    drop(1000 + JOINED_MS - 1, 1)
    (one,) = memory.about("cam", 70_000)
    assert (one.at, one.until, one.count, one.numbers) == (1000, JOINED_MS + 999, 3, {"slow": 8.0})
    drop(1000 + JOINED_MS, 5)
    assert [each.numbers["slow"] for each in memory.about("cam", 70_000)] == [8, 5]


def test_since_when_nothing_is_missing() -> None:
    memory = IncidentMemory(keep_s=10, per_subject=1)
    assert memory.since(5000, 6000) == 5000
    assert memory.since(5000, 60_000) == 50_000
    for at in (58_000, 59_000):
        memory.add(Incident(what=IncidentKind.DROPPED, at=at, streams=("cam",)))
    assert memory.since(5000, 60_000) == 58_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(IncidentKind)), st.integers(0, 200_000), st.sampled_from("abcd"),
            st.sampled_from(["", "u", "v"]), st.sampled_from([None, "j", "k"]), st.integers(0, 300),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_whatever_happens_the_bounds_hold_and_nothing_is_left_of_what_is_gone(events: list[tuple]) -> None:  # type: ignore[type-arg]
    memory = IncidentMemory(max_entries=12, max_bytes=9_000, per_subject=3, keep_s=100)
    latest = 0
    for number, (what, at, stream, user, joins, length) in enumerate(events):
        latest = max(latest, at)
        memory.add(
            Incident(what=what, at=at, streams=(stream,), user=user, reason="x" * length),
            None if joins is None else (what, stream, user, joins),
        )
        assert len(memory) <= 12
        assert memory.bytes <= 9_000
        for subject in (*"abcd", "u", "v"):
            found = memory.about(subject, at)
            assert all(subject in each.subjects() for each in found)
            for kind in IncidentKind:
                assert sum(each.what == kind and not each.summed for each in found) <= 3
                assert sum(each.what == kind and each.summed for each in found) <= 3
            if memory.since(-1, at, IncidentKind.CLOSED) == -1:
                known = sum(each.count for each in found if each.what is IncidentKind.CLOSED)
                assert known == sum(
                    what is IncidentKind.CLOSED and subject in (of, of_user)
                    for what, _, of, of_user, *_ in events[: number + 1]
                )
    memory.known(latest + 200_000)
    assert (len(memory), memory.bytes) == (0, 0)
    assert not memory._by_subject
    assert not memory._by_kind
    assert not memory._joins
    assert not memory._join_of
