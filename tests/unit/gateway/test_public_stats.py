"""The public JSON of `/stats`, whole and in parts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from watchout.common.bus.reply_records import StatsReply, StreamRow, Totals
from watchout.gateway.http.public_stats import PublicStreams, missing_slots, stats_page

IDS = tuple(f"cam-{number}" for number in range(6))
REPLY = StatsReply(totals=Totals(producers=1, video_consumers=2, alert_consumers=3, connections=4))


def listed(count: int, cuts: tuple[int, ...]) -> PublicStreams:
    """The list of so many streams, which came in pages with these ends."""
    rows = [StreamRow(stream_id=name, fps=1.5, total_frames=n, uptime=7) for n, name in enumerate(IDS[:count])]
    found = PublicStreams()
    for begin, end in pairwise([0, *cuts, count]):
        found.add(rows[begin:end])
    return found


def public(name: str) -> dict[str, Any]:
    return {"streamId": name, "fps": 1.5, "totalFrames": IDS.index(name), "uptime": 7}


@pytest.mark.parametrize("cuts", [(), (1,), (2, 4), (0, 0, 3), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_the_whole_list_is_the_same_in_however_many_pages_it_came(count: int, cuts: tuple[int, ...]) -> None:
    streams = listed(count, tuple(min(cut, count) for cut in cuts))
    ids, rows = streams.lists()
    assert msgspec.json.decode(stats_page(REPLY, ids, rows)) == {
        "totalProducers": 1, "totalVideoConsumers": 2, "totalAlertConsumers": 3, "totalConnections": 4,
        "activeStreams": list(IDS[:count]), "streams": [public(name) for name in IDS[:count]],
    }  # fmt: skip
    assert len(streams) == count


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
def test_parts_one_after_the_other_are_the_whole_list(limit: int) -> None:
    streams = listed(6, (2,))
    after: str | None = ""
    found: list[dict[str, Any]] = []
    while after is not None:
        ids, rows, after = streams.part(after, limit)
        assert [each["streamId"] for each in msgspec.json.decode(rows)] == msgspec.json.decode(ids)
        found += msgspec.json.decode(rows)
        assert after is None or after == found[-1]["streamId"]
    assert found == [public(name) for name in IDS]


def test_a_part_after_an_id_that_is_not_there() -> None:
    streams = listed(6, ())
    assert streams.part("cam-20", 1) == (b'["cam-3"]', msgspec.json.encode([public("cam-3")]), "cam-3")
    assert streams.part("zzz", 3) == (b"[]", b"[]", None)
    assert streams.part("", 0) == (b"[]", b"[]", None)


def test_the_page_says_what_is_missing_and_where_the_next_part_begins() -> None:
    page = msgspec.json.decode(stats_page(REPLY, b"[]", b"[]", missing=[1, 3], following="cam-3"))
    assert (page["missingSlots"], page["next"]) == ([1, 3], "cam-3")


def test_a_slot_is_missing_that_did_not_answer_at_first_or_not_to_the_end() -> None:
    streams = PublicStreams()
    streams.missing = {2}
    assert missing_slots(StatsReply(missing_slots=[0]), streams) == [0, 2]
    assert missing_slots(StatsReply(), streams) == [2]
    assert missing_slots(StatsReply()) == []
