"""What an ML service may say, and what waits for the router."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import Raised
from watchout.common.media.frames import Frame
from watchout.mlbridge.alerts import AlertQueue, ReadAlerts, content_id, mark_stale, read_alerts

FRAME = Frame("stream_1", 7, 1_700_000_000_000, picture=b"\xff\xd8\xff")


def read(*values: object, frame: Frame | None = FRAME) -> ReadAlerts:
    return read_alerts(values, frame, now_ms=5)


def an_alert(number: int = 1) -> Alert:
    return Alert(id=f"a{number}", stream_id="s", severity="low", message="m", timestamp=1)


def test_what_an_alert_leaves_out_is_taken_from_the_frame_it_answers() -> None:
    ((alert, size),) = read({"severity": "high", "message": "a person"}).alerts
    assert alert == Alert(
        id=content_id(alert),
        stream_id="stream_1",
        severity="high",
        message="a person",
        timestamp=1_700_000_000_000,
        frame_id=7,
    )
    assert size > 50


def test_what_an_alert_says_itself_wins() -> None:
    ((alert, _),) = read(
        {"id": "own", "severity": "low", "message": "m", "streamId": "other", "timestamp": 9, "frameId": 3}
    ).alerts
    assert (alert.id, alert.stream_id, alert.timestamp, alert.frame_id) == ("own", "other", 9, 3)


def test_an_alert_that_answers_no_frame_needs_its_stream() -> None:
    found = read({"severity": "low", "message": "m"}, {"severity": "low", "message": "m", "streamId": "s"}, frame=None)
    assert [(alert.stream_id, alert.timestamp, alert.frame_id) for alert, _ in found.alerts] == [("s", 5, None)]
    assert found.refused == ["streamId is missing"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        [],
        {},
        {"severity": "high"},
        {"severity": "extreme", "message": "m"},
        {"severity": "high", "message": ""},
        {"severity": "high", "message": "m" * 5000},
        {"severity": "high", "message": "m", "streamId": "no such/id"},
        {"severity": "high", "message": "m", "timestamp": float("nan")},
        {"severity": "high", "message": "m", "timestamp": -1},
        {"severity": "high", "message": "m", "frameId": 2**40},
        {"severity": "high", "message": "m", "metadata": {"confidence": float("nan")}},
        {"severity": "high", "message": "m", "metadata": {"confidence": float("inf")}},
        {"severity": "high", "message": "m", "metadata": {"x": "y" * 20_000}},
        {"severity": "high", "message": "m", "metadata": []},
    ],
)
def test_an_alert_that_does_not_fit_is_refused_with_a_reason(value: object) -> None:
    found = read(value)
    assert not found.alerts
    assert len(found.refused) == 1
    assert found.refused[0]


def test_deep_metadata_is_refused() -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert read({"severity": "low", "message": "m", "metadata": {"x": deep}}).refused


def test_one_that_does_not_fit_does_not_keep_the_others_back() -> None:
    found = read({"severity": "low", "message": "1"}, "no", {"severity": "low", "message": "2"})
    assert [alert.message for alert, _ in found.alerts] == ["1", "2"]
    assert len(found.refused) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({"severity": st.just("low"), "message": st.text(), "metadata": JSON, "id": JSON}))
def test_nothing_that_a_service_may_say_raises(value: object) -> None:
    found = read(value)
    assert len(found.alerts) + len(found.refused) == 1


@given(st.fixed_dictionaries({"severity": st.just("low"), "message": st.text(min_size=1), "metadata": JSON}))
def test_the_same_answer_to_the_same_frame_has_the_same_id_both_times(value: object) -> None:
    first, second = read(value), read(value)
    assert [alert.id for alert, _ in first.alerts] == [alert.id for alert, _ in second.alerts]


def test_an_id_is_made_from_stream_frame_time_and_content_and_from_each_of_them() -> None:
    least = {"severity": "low", "message": "m"}
    other_frames = [
        Frame("stream_2", 7, 1_700_000_000_000, picture=b"x"),
        Frame("stream_1", 8, 1_700_000_000_000, picture=b"x"),
        Frame("stream_1", 7, 1_700_000_000_001, picture=b"x"),
    ]
    found = read(
        least, {**least, "severity": "high"}, {**least, "message": "n"}, {**least, "metadata": {"a": 1}},
        {**least, "metadata": {"a": 2}},
    )  # fmt: skip
    ids = [alert.id for alert, _ in found.alerts]
    ids += [alert.id for frame in other_frames for alert, _ in read(least, frame=frame).alerts]
    assert len(set(ids)) == 8
    assert all(len(each) == 32 for each in ids)


def test_the_order_of_metadata_does_not_change_an_id() -> None:
    found = read(
        {"severity": "low", "message": "m", "metadata": {"a": 1, "b": {"c": 1, "d": 2}}},
        {"metadata": {"b": {"d": 2, "c": 1}, "a": 1}, "message": "m", "severity": "low"},
    )
    assert len({alert.id for alert, _ in found.alerts}) == 1


def test_a_stale_alert_says_how_old_its_frame_was_and_keeps_what_it_said() -> None:
    ((alert, _),) = read({"severity": "low", "message": "m", "metadata": {"objectType": "car"}}).alerts
    assert mark_stale(alert, 2_500).metadata == {"objectType": "car", "ageMs": 2_500, "stale": True}
    assert alert.metadata == {"objectType": "car"}
    assert mark_stale(an_alert(), 1_001).metadata == {"ageMs": 1_001, "stale": True}


def raised(number: int, size_bytes: int = 1) -> Raised:
    return Raised(an_alert(number), size_bytes)


def test_alerts_wait_in_order_and_stay_until_they_are_done() -> None:
    queue = AlertQueue()
    first, second = raised(1, 10), raised(2, 20)
    assert queue.put(first) == 0
    assert queue.put(second) == 0
    assert queue.first() is first
    assert queue.first() is first
    queue.done(first)
    assert queue.first() is second
    assert queue.bytes == 20
    queue.done(second)
    assert queue.first() is None
    assert queue.bytes == 0


def test_past_its_bounds_the_queue_drops_the_oldest() -> None:
    by_count = AlertQueue(max_alerts=2)
    alerts = [raised(number) for number in range(4)]
    assert [by_count.put(alert) for alert in alerts] == [0, 0, 1, 1]
    assert by_count.first() is alerts[2]
    by_bytes = AlertQueue(max_bytes=100)
    assert [by_bytes.put(raised(number, 40)) for number in range(3)] == [0, 0, 1]
    assert by_bytes.put(raised(3, 500)) == 2
    assert len(by_bytes) == 1


def test_an_alert_that_was_dropped_while_it_was_sent_takes_no_other_with_it() -> None:
    queue = AlertQueue(max_alerts=1)
    first, second = raised(1), raised(2)
    queue.put(first)
    queue.put(second)
    queue.done(first)
    assert queue.first() is second


def test_alerts_of_each_slot_wait_in_their_order_and_the_bounds_are_of_all_together() -> None:
    queue = AlertQueue(max_alerts=3, max_bytes=100)
    alerts = [raised(number, 10) for number in range(6)]
    assert [queue.put(alert, number % 2) for number, alert in enumerate(alerts[:3])] == [0, 0, 0]
    assert (queue.first(0), queue.first(1), queue.first(2)) == (alerts[0], alerts[1], None)
    queue.done(alerts[1], 0)
    assert len(queue) == 3, "it is not the first of that slot"
    assert queue.put(alerts[3], 1) == 1, "the oldest of all slots is dropped"
    assert (queue.first(0), queue.first(1)) == (alerts[2], alerts[1])
    queue.done(alerts[1], 1)
    assert (queue.first(1), len(queue), queue.bytes) == (alerts[3], 2, 20)
    assert queue.put(raised(9, 95), 0) == 2
    assert (queue.first(1), len(queue), queue.bytes) == (None, 1, 95)
