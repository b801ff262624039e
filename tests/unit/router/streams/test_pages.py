"""Pages of streams: what comes and goes between two of them, their bounds, and the sums that no question walks for."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import pytest

from tests.unit.router.streams.room import NOW_MS, A, B, Room
from watchout.common.bus.messages import Claim, GrantedReply, Interest
from watchout.common.bus.reply_records import Totals
from watchout.router.streams import registry

IDS = ("a", "b", "c", "d")
SUBSETS = [frozenset(chosen) for size in range(len(IDS) + 1) for chosen in combinations(IDS, size)]
NAMES = {A: "gateway.1", B: "gateway.2"}


@cache
def page(present: frozenset[str], after: str, limit: int) -> tuple[tuple[str, ...], bool]:
    """The page of a registry in which these streams are published, and others were."""
    room = Room()
    for name in reversed(IDS):
        term = room.granted(A, stream=name).term
        if name not in present:
            room.release(A, term, stream=name)
    rows, more = room.streams.page(after, limit, NAMES, NOW_MS)
    return tuple(row.stream_id for row in rows), more


def walks(present: frozenset[str], after: str, limit: int, *, changes: bool) -> list[tuple[list[str], frozenset[str]]]:
    """All walks from here: what each found, and what was there all the while.

    With `changes` any set of streams follows on each page.
    """
    rows, more = page(present, after, limit)
    if not more:
        return [(list(rows), present)]
    following = SUBSETS if changes else [present]
    return [
        ([*rows, *found], present & stayed)
        for now in following
        for found, stayed in walks(now, rows[-1], limit, changes=changes)
    ]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_stream_that_is_there_all_the_while_is_found_once_whatever_comes_and_goes(limit: int) -> None:
    for present in SUBSETS:
        for found, stayed in walks(present, "", limit, changes=True):
            assert found == sorted(set(found))
            assert stayed <= set(found)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_without_changes_the_pages_are_the_whole_list(limit: int) -> None:
    for present in SUBSETS:
        [(found, _)] = walks(present, "", limit, changes=False)
        assert found == sorted(present)


def test_a_page_may_begin_at_an_id_that_is_gone_or_never_was() -> None:
    assert page(frozenset("abcd"), "bb", 2) == (("c", "d"), False)
    assert page(frozenset("acd"), "b", 1) == (("c",), True)
    assert page(frozenset("abcd"), "d", 2) == ((), False)


def test_a_page_ends_early_where_what_clients_chose_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PAGE_CHARS", 10)
    room = Room()
    for name, info, organizations in (
        ("a", '{"x":"0123456789"}', ()), ("b", "", ("0123456789", "0")), ("c", "", ()), ("d", "", ()),
    ):  # fmt: skip
        claim = Claim(request=1, stream=name, user="ann", info=info, organizations=organizations)
        [sent] = room.streams.claim(A, claim, 1.0, NOW_MS)
        assert isinstance(sent.body, GrantedReply)
    pages = []
    after, more = "", True
    while more:
        rows, more = room.streams.page(after, 100, NAMES, NOW_MS)
        after = rows[-1].stream_id
        pages.append([row.stream_id for row in rows])
    assert pages == [["a"], ["b"], ["c", "d"]]


def test_rows_of_a_page_are_those_of_the_whole_list() -> None:
    room = Room()
    for name in IDS:
        room.granted(A, stream=name)
    assert room.streams.page("", 4, NAMES, NOW_MS)[0] == room.streams.rows(NAMES, NOW_MS)
    shares = {"a": 0.5}
    rows = room.streams.page("", 2, NAMES, NOW_MS, shares)[0]
    assert rows == room.streams.rows(NAMES, NOW_MS, shares)[:2]
    assert [row.coverage for row in rows] == [0.5, None]


@pytest.mark.parametrize(("producing", "wants_alerts"), list(product([True, False], repeat=2)))
def test_the_sums_follow_what_changes(producing: bool, wants_alerts: bool) -> None:
    room = Room()

    def sums(producers: int, video: int, alerts: int) -> Totals:
        return Totals(producers=producers, video_consumers=video, alert_consumers=alerts, connections=7)

    term = room.granted(A).term
    room.hold(A, term, producing=producing, wants_alerts=wants_alerts)
    room.hold(A, term, producing=producing, wants_alerts=wants_alerts)
    assert room.streams.totals(connections=7) == sums(producing, 0, wants_alerts)
    for member, viewers in ((A, 2), (B, 3), (B, 1)):
        interest = Interest(stream="cam", viewers=viewers, alert_viewers=1)
        room.streams.set_interest(member, interest, room.now, NOW_MS)
    assert room.streams.totals(connections=7) == sums(producing, 3, 2 + wants_alerts)
    room.gone(B)
    assert room.streams.totals(connections=7) == sums(producing, 2, 1 + wants_alerts)
    room.release(A, term)
    assert room.streams.totals(connections=7) == sums(0, 2, 1)
    room.gone(A)
    assert room.streams.totals(connections=7) == sums(0, 0, 0)
