"""Recent alerts: each id has one effect, the newest are kept, and no longer than they may be."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common.alerts.model import MAX_METADATA_BYTES, Alert
from watchout.common.bus.messages import AlertScope
from watchout.router.alerts.ids import KNOWN_S, MAX_KNOWN, AlertIds
from watchout.router.alerts.log import ALERT_COST_BYTES, AlertLog
from watchout.router.alerts.recent import MAX_EXAMINED, MAX_REPLY_BYTES, RecentAlerts
from watchout.router.bounded_store import BoundedStore


def alert(name: str, stream: str = "cam-1", timestamp: int = 0, **more: object) -> Alert:
    fields: dict[str, Any] = {"severity": "high", "message": "fire", "timestamp": timestamp, **more}
    return Alert(id=name, stream_id=stream, **fields)


def names(book: RecentAlerts, stream: str | None = None, since: int = 0, limit: int = 1000) -> list[str]:
    rows = book.recent(stream, since=since, limit=limit)
    assert [name for name, *_ in rows] == [json.loads(row[2])["id"] for row in rows]
    return [name for name, *_ in rows]


@pytest.fixture
def book() -> RecentAlerts:
    return RecentAlerts(limit=3, minutes=1)


def test_alerts_are_kept_in_the_order_in_which_they_came(book: RecentAlerts) -> None:
    assert [book.accept(alert(name, timestamp=-ord(name) % 7), 0) for name in "cab"] == [True] * 3
    assert names(book) == ["c", "a", "b"]


def test_an_id_that_is_known_has_no_second_effect(book: RecentAlerts) -> None:
    assert book.accept(alert("a"), 0)
    assert not book.accept(alert("a"), 5)
    assert names(book) == ["a"]


def test_the_same_id_of_another_stream_is_another_alert(book: RecentAlerts) -> None:
    assert book.accept(alert("a"), 0)
    assert book.accept(alert("a", stream="cam-2"), 5)
    assert names(book, "cam-2") == ["a"]


def test_a_noisy_stream_forgets_its_own_alerts() -> None:
    book = RecentAlerts(limit=3, minutes=1)
    book.accept(alert("quiet", stream="cam-2"), 0)
    for number in range(10):
        book.accept(alert(str(number)), number)
    assert names(book, "cam-2") == ["quiet"]
    assert len(book) == 3


def test_past_the_limit_the_oldest_is_forgotten(book: RecentAlerts) -> None:
    for name in "abcd":
        book.accept(alert(name), 0)
    assert names(book) == ["b", "c", "d"]
    assert len(book) == 3
    assert book.accept(alert("a"), 0)


def test_past_its_time_an_alert_is_forgotten(book: RecentAlerts) -> None:
    book.accept(alert("a"), 0)
    book.accept(alert("b"), 30_000)
    book.prune(60_000)
    assert names(book) == ["a", "b"]
    book.prune(60_001)
    assert names(book) == ["b"]
    assert book.accept(alert("a"), 60_001)


def test_accepting_prunes_too(book: RecentAlerts) -> None:
    book.accept(alert("a"), 0)
    book.accept(alert("b"), 90_000)
    assert len(book) == 1


def test_a_book_without_room_takes_every_alert_and_keeps_none() -> None:
    book = RecentAlerts(limit=0, minutes=60)
    assert book.accept(alert("a"), 0)
    assert book.accept(alert("a"), 0)
    assert names(book) == []


def test_alerts_of_one_stream_are_found(book: RecentAlerts) -> None:
    book.accept(alert("a"), 0)
    book.accept(alert("b", stream="cam-2"), 0)
    book.accept(alert("c"), 0)
    assert names(book, "cam-1") == ["a", "c"]
    assert names(book, "cam-3") == []


def test_the_newest_are_found_when_there_are_more_than_asked_for(book: RecentAlerts) -> None:
    for name in "abc":
        book.accept(alert(name), 0)
    assert names(book, limit=2) == ["b", "c"]


def test_since_counts_the_alerts_own_time_and_its_arrival(book: RecentAlerts) -> None:
    book.accept(alert("arrived late", timestamp=10), 100)
    book.accept(alert("dated ahead", timestamp=300), 100)
    assert names(book, since=100) == ["arrived late", "dated ahead"]
    assert names(book, since=101) == ["dated ahead"]
    assert names(book, since=301) == []


def test_whose_the_stream_was_when_the_alert_came_is_kept_with_it(book: RecentAlerts) -> None:
    book.accept(alert("a"), 0, owner="ann")
    book.accept(alert("b"), 0, owner="bob")
    book.accept(alert("c"), 0)
    assert [owner for _, owner, *_ in book.recent("cam-1", since=0, limit=10)] == ["ann", "bob", None]


def test_an_answer_is_bounded_in_bytes() -> None:
    book = RecentAlerts(limit=1000, minutes=60, max_bytes=1 << 30)
    large = {"x": "y" * (MAX_METADATA_BYTES - 10)}
    for number in range(1000):
        book.accept(alert(str(number), metadata=large), 0)
    found = book.recent(None, since=0, limit=1000)
    assert sum(len(row[2]) for row in found) <= MAX_REPLY_BYTES + len(found[0][2])
    assert found[-1][0] == "999"
    assert len(found) > 400


@settings(max_examples=100)
@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 8).map(str), st.sampled_from("xy"), st.integers(0, 40_000)), max_size=40),
)
def test_a_book_is_the_last_distinct_alerts_of_each_stream(limit: int, steps: list[tuple[str, str, int]]) -> None:
    book = RecentAlerts(limit=limit, minutes=1)
    kept: list[tuple[int, str, str]] = []
    now = 0
    for name, stream, gap in steps:
        now += gap
        book.prune(now)
        kept = [entry for entry in kept if now - entry[0] <= 60_000]
        known = (name, stream) in {entry[1:] for entry in kept}
        assert book.accept(alert(name, stream), now) is not known
        if not known:
            kept.append((now, name, stream))
        while len(kept) > limit:  # the stream with the most loses its oldest
            counts = {s: sum(entry[2] == s for entry in kept) for s in "xy"}
            most = max(counts.values())
            if counts["x"] == counts["y"]:
                return  # either may
            longest = next(s for s in "xy" if counts[s] == most)
            kept.remove(next(entry for entry in kept if entry[2] == longest))
        assert len(book) == len(kept)
        for which in "xy":
            assert names(book, which) == [entry[1] for entry in kept if entry[2] == which]


# ── one effect per id ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_id_has_its_effect_once_for_longer_than_a_signed_request_is_good() -> None:
    ids = AlertIds()
    assert ids.add("cam-1", "a", 0.0)
    for now in (0.0, 600.0, KNOWN_S):
        ids.prune(now)
        assert not ids.add("cam-1", "a", now)
    assert KNOWN_S >= 600 + 60
    assert ids.add("cam-1", "a", KNOWN_S + 0.1)  # counted from the effect, not from the last repeat


def test_the_same_id_of_another_stream_has_an_effect_of_its_own() -> None:
    ids = AlertIds()
    assert [ids.add(stream, "a", 0.0) for stream in ("cam-1", "cam-2", "cam-1")] == [True, True, False]


def test_a_stream_that_floods_makes_only_itself_forget() -> None:
    ids = AlertIds(limit=100)
    quiet = [(f"quiet-{number}", str(number % 2)) for number in range(20)]
    assert all(ids.add(stream, name, 0.0) for stream, name in quiet)
    assert all(ids.add("noisy", str(number), 1.0) for number in range(10_000))
    assert len(ids) == 100
    assert not any(ids.add(stream, name, 2.0) for stream, name in quiet)
    assert not ids.add("noisy", "9999", 2.0)
    assert ids.add("noisy", "0", 2.0)


def test_ids_that_are_too_old_are_forgotten_in_all_streams() -> None:
    ids = AlertIds(keep_s=10)
    for number in range(10):
        ids.add(f"cam-{number}", "a", float(number))
    ids.prune(15.0)
    assert len(ids) == 5
    ids.prune(100.0)
    assert len(ids) == 0


def test_so_many_ids_are_known_as_is_said() -> None:
    ids = AlertIds()
    for number in range(MAX_KNOWN + 10):
        ids.add(f"cam-{number % 100}", str(number), 0.0)
    assert len(ids) == MAX_KNOWN


@settings(max_examples=200)
@given(
    st.integers(0, 6),
    st.lists(st.tuples(st.integers(0, 5).map(str), st.sampled_from("xyz"), st.integers(0, 4)), max_size=60),
)
def test_only_the_fullest_stream_ever_forgets_before_its_time(limit: int, steps: list[tuple[str, str, int]]) -> None:
    ids = AlertIds(limit=limit, keep_s=10)
    known: dict[str, list[tuple[int, str]]] = {stream: [] for stream in "xyz"}
    now = 0
    for name, stream, gap in steps:
        now += gap
        ids.prune(now)
        known = {each: [entry for entry in kept if now - entry[0] <= 10] for each, kept in known.items()}
        is_known = name in {entry[1] for entry in known[stream]}
        assert ids.add(stream, name, now) is not is_known
        if not is_known:
            known[stream].append((now, name))
        while sum(map(len, known.values())) > limit:
            most = max(map(len, known.values()))
            fullest = [each for each, kept in known.items() if len(kept) == most]
            forgot = next(each for each in fullest if len(ids._store.of(each)) < most)  # any of them
            known[forgot].pop(0)
        for each, kept in known.items():
            assert [entry[1] for entry in kept] == list(ids._store.of(each))
        assert len(ids) == sum(map(len, known.values())) <= limit


def test_the_frame_of_an_alert_is_found_by_its_id_in_every_stream_that_has_it(book: RecentAlerts) -> None:
    book.accept(alert("a", frame_id=7), 0, owner="ann", term=5)
    book.accept(alert("a", stream="cam-2"), 0, owner="bob")
    first, second = alert("a", frame_id=7).json, alert("a", stream="cam-2").json
    assert book.of_id("a") == [("cam-1", "ann", 5, 7, first, 0), ("cam-2", "bob", 0, 0, second, 0)]
    assert book.of_id("b") == []


def test_an_alert_that_is_forgotten_is_not_found_by_its_id(book: RecentAlerts) -> None:
    for name in "abcd":
        book.accept(alert(name, frame_id=1), 0, term=1)
    assert book.of_id("a") == []
    assert len(book.of_id("b")) == 1
    book.prune(60_001)
    assert book.of_id("d") == []


def test_a_row_says_when_the_alert_arrived(book: RecentAlerts) -> None:
    book.accept(alert("a"), 70)
    assert [arrived for _, _, _, arrived, *_ in book.recent("cam-1", since=0, limit=9)] == [70]


def add(log: AlertLog, name: str, at: int = 0, size_bytes: int = 10, now: float = 0.0) -> int:
    """An alert whose JSON has about so many bytes, with what it costs beside it."""
    one = alert(name)
    one = alert(name, message="x" * max(1, size_bytes - ALERT_COST_BYTES - len(one.to_json()) + len(one.message)))
    return log.add(one, one.to_json(), at, now)


def logged(log: AlertLog, after: int, limit: int = 100) -> list[tuple[int, str]]:
    return [(each.number, each.alert.id) for each in log.after(after, limit)]


def test_the_log_gives_what_came_after_a_number_in_order_and_so_many() -> None:
    log = AlertLog()
    assert [add(log, name, 9) for name in "abcd"] == [1, 2, 3, 4]
    assert logged(log, 0) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert logged(log, 2) == [(3, "c"), (4, "d")]
    assert logged(log, 1, limit=2) == [(2, "b"), (3, "c")]
    assert logged(log, 4) == logged(log, 99) == []
    assert log.after(3, 1)[0].at == 9


def test_the_log_gives_the_last_of_one_stream_after_a_number_in_order() -> None:
    log = AlertLog(max_alerts=5)
    for number, stream in enumerate(("cam", "cam", "door", "cam", "door", "cam"), 1):
        log.add(one := alert(str(number), stream), one.to_json(), 0, 0.0)

    def found(stream: str, after: int, limit: int = 10) -> list[int]:
        return [each.number for each in log.of_stream_after(stream, after, limit)]

    assert found("cam", 0) == found("cam", 1) == [2, 4, 6], "the first one is not kept any more"
    assert found("cam", 2) == [4, 6]
    assert found("door", 2) == [3, 5]
    assert found("cam", 0, limit=2) == [4, 6]
    assert found("cam", 6) == found("cam", 9) == found("yard", 0) == []


def test_the_log_is_bounded_in_number_bytes_and_age_and_says_what_is_left() -> None:
    few = AlertLog(max_alerts=2)
    small = AlertLog(max_bytes=5000)
    brief = AlertLog(keep_s=10)
    for number, name in enumerate("abc"):
        for log in (few, small, brief):
            add(log, name, size_bytes=2000, now=5.0 * number)
    assert logged(few, 0) == logged(small, 0) == [(2, "b"), (3, "c")]
    assert small.size_bytes == 4000
    brief.prune(15)
    assert logged(brief, 0) == [(2, "b"), (3, "c")]
    brief.prune(100)
    assert logged(brief, 0) == []
    assert brief.size_bytes == 0
    assert add(brief, "d", now=100) == 4


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(0, 50))
def test_the_log_never_leaves_out_one_in_the_middle(sizes: list[int], after: int) -> None:
    log = AlertLog(max_alerts=10, max_bytes=20_000)
    for number, size in enumerate(sizes):
        add(log, str(number), size_bytes=2000 + 100 * size)
    numbers = [each.number for each in log.after(after, 1000)]
    assert numbers == list(range(len(sizes) - len(numbers) + 1, len(sizes) + 1))
    assert len(log) <= 10
    assert log.size_bytes <= 20_000


def test_a_logged_alert_is_the_one_that_came() -> None:
    log, told = AlertLog(), alert("a", metadata={"x": [1, {"y": None}]}, frame_id=7)
    log.add(told, told.to_json(), 0, 0)
    assert log.after(0, 1)[0].alert == told


# ── bounds in bytes ──────────────────────────────────────────────────────────────────────────────────────────────


def heavy(name: str, stream: str = "cam-1") -> Alert:
    """One that takes 10 000 bytes."""
    one = alert(name, stream, message="x")
    return alert(name, stream, message="x" * (10_001 - ALERT_COST_BYTES - len(one.to_json())))


def heavy_book(alerts: int) -> RecentAlerts:
    """With room for so many of them."""
    return RecentAlerts(limit=100_000, minutes=60, max_bytes=alerts * 10_000)


def test_a_stream_has_a_quarter_of_the_bytes_and_loses_its_oldest() -> None:
    book = heavy_book(16)
    for number in range(10):
        book.accept(heavy(str(number)), number, owner="ann")
    assert names(book, "cam-1") == ["6", "7", "8", "9"]
    assert (book.size_bytes, book.evicted) == (40_000, 6)


def test_a_user_has_half_of_the_bytes_and_loses_his_oldest_whichever_stream_has_it() -> None:
    book = heavy_book(16)
    book.accept(heavy("bobs", "bobs"), 0, owner="bob")
    for number in range(12):
        book.accept(heavy(str(number), f"cam-{number % 6}"), number, owner="ann")
    assert sorted(names(book), key=str) == ["10", "11", "4", "5", "6", "7", "8", "9", "bobs"]


def test_past_the_bytes_of_all_whoever_has_the_most_gives_way() -> None:
    book = heavy_book(16)
    book.accept(heavy("quiet", "quiet"), 0, owner="cy")
    for number in range(60):
        user = ("ann", "bob", "eve")[number % 3]
        book.accept(heavy(str(number), f"{user}{number % 7}"), number, owner=user)
    assert names(book, "quiet") == ["quiet"]
    assert book.size_bytes == 160_000
    counts = Counter(owner for _, owner, *_ in book.recent(None, since=0, limit=1000))
    assert counts["cy"] == 1
    assert max(counts.values()) == 5


def test_one_alert_has_always_room() -> None:
    book = RecentAlerts(limit=10, minutes=60, max_bytes=100)
    for name in "ab":
        assert book.accept(alert(name), 0, owner="ann")
        assert names(book) == [name]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.sampled_from("uvw"), st.integers(1, 40),
                  st.integers(0, 9)),
        max_size=80,
    )
)  # fmt: skip
def test_a_bounded_store_keeps_its_bounds_and_their_indexes_agree(steps: list[tuple[str, str, str, int, int]]) -> None:
    store: BoundedStore[None] = BoundedStore(limit=12, keep=50, stream_bytes=60, user_bytes=80, total_bytes=120)
    now = 0
    for name, stream, user, size, gap in steps:
        now += gap
        store.add(stream, name, None, now, user=user, size_bytes=size)
        kept = [(key, each) for key, each in store.newest_first()]
        assert len(kept) == len(store) <= 12
        assert all(now - each.added_at <= 50 for _, each in kept)
        assert sum(each.size_bytes for _, each in kept) == store.bytes <= 120
        for index, bound in ((lambda key, _: key[0], 60), (lambda _, each: each.user, 80)):
            sums: Counter[Any] = Counter()
            for key, each in kept:
                sums[index(key, each)] += each.size_bytes  # type: ignore[no-untyped-call]
            assert all(size <= bound for size in sums.values())
        assert {(s, n) for s in "xyz" for n in store.of(s)} == {key for key, _ in kept}
        assert {(s, n) for n in "abcdef" for s in store.streams_with(n)} == {key for key, _ in kept}
    store.prune(now + 51)
    maps = (store._all, store._streams, store._of_user, store._ids, store._counts, store._bytes_of_user)
    assert [len(each) for each in maps] == [0] * 6


def test_alerts_are_chosen_by_the_least_severity_and_by_whose_they_are_before_they_are_counted() -> None:
    book = RecentAlerts(limit=100, minutes=1)
    severities = ["low", "medium", "high", "critical"]
    for number in range(12):
        one = alert(f"a{number}", f"cam-{number % 3}", number, severity=severities[number % 4])
        assert book.accept(one, number, owner=f"user-{number % 2}")

    def found(**wanted: Any) -> list[str]:
        return [row[0] for row in book.recent(None, since=0, **wanted)]

    assert found(limit=1000) == [f"a{number}" for number in range(12)]
    assert found(limit=1000, severity="high") == ["a2", "a3", "a6", "a7", "a10", "a11"]
    assert found(limit=2, severity="critical") == ["a7", "a11"]
    assert found(limit=2, wanted=lambda stream, _: stream == "cam-1") == ["a7", "a10"]
    assert found(limit=2, severity="high", wanted=lambda _, owner: owner == "user-1") == ["a7", "a11"]
    rows = book.recent("cam-1", since=5, limit=10, severity="medium")
    assert [(row[0], row[1], row[4]) for row in rows] == [("a7", "user-1", "cam-1"), ("a10", "user-0", "cam-1")]


def test_a_callers_own_alerts_are_found_without_a_look_at_others() -> None:
    book = RecentAlerts(limit=100_000, minutes=60, max_bytes=1 << 30)
    book.accept(alert("first", "mine"), 0, owner="ann")
    for number in range(MAX_EXAMINED + 10):
        book.accept(alert(str(number), f"s{number % 9}"), number, owner="bob")
    book.accept(alert("nobodys", "free"), 50_000)
    book.accept(alert("last", "mine"), 60_000, owner="ann")

    def ids(users: set[str | None] | None) -> list[str]:
        return [row[0] for row in book.recent(None, since=0, limit=10, users=users, wanted=lambda _, o: o != "bob")]

    assert ids({"ann"}) == ["first", "last"]
    assert ids({"ann", None}) == ["first", "nobodys", "last"]
    assert ids(set()) == []
    assert ids(None) == ["nobodys", "last"]  # the first is behind too many others


def test_who_may_have_only_his_own_alerts_is_known_from_his_reach() -> None:
    assert AlertScope(user="ann", own=True).owners() == {"ann"}
    assert AlertScope(user="ann", own=True, unowned=True).owners() == {"ann", None}
    assert AlertScope(user="ann").owners() == set()
    assert AlertScope(user="ann", organizations=("acme",)).owners() is None
    assert AlertScope(user="ann", any_owner=True).owners() is None
