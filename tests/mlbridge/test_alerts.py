"""What an ML service may say, and what waits for the router."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alerts import Alert
from common.frames import Frame
from mlbridge.alerts import AlertQueue, ReadAlerts, read_alerts

FRAME = Frame("stream_1", 7, 1_700_000_000_000, picture=b"\xff\xd8\xff")


def read(*values: object, frame: Frame | None = FRAME) -> ReadAlerts:
    numbers = itertools.count(1)
    return read_alerts(values, frame, new_id=lambda: f"new{next(numbers)}", now_ms=5)


def an_alert(number: int = 1) -> Alert:
    return Alert(id=f"a{number}", stream_id="s", severity="low", message="m", timestamp=1)


def test_what_an_alert_leaves_out_is_taken_from_the_frame_it_answers() -> None:
    ((alert, size),) = read({"severity": "high", "message": "a person"}).alerts
    assert alert == Alert(
        id="new1",
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
        {"severity": "high", "message": "\ud800"},
        {"severity": "high", "message": "m", "streamId": "no such/id"},
        {"severity": "high", "message": "m", "timestamp": float("nan")},
        {"severity": "high", "message": "m", "timestamp": -1},
        {"severity": "high", "message": "m", "frameId": 2**40},
        {"severity": "high", "message": "m", "metadata": {"confidence": float("nan")}},
        {"severity": "high", "message": "m", "metadata": {"confidence": float("inf")}},
        {"severity": "high", "message": "m", "metadata": {"x": 2**70}},
        {"severity": "high", "message": "m", "metadata": {"x": "\ud800"}},
        {"severity": "high", "message": "m", "metadata": {"\ud800": 1}},
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


def test_alerts_wait_in_order_and_stay_until_they_are_done() -> None:
    queue = AlertQueue()
    first, second = an_alert(1), an_alert(2)
    assert queue.put(first, 10) == 0
    assert queue.put(second, 20) == 0
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
    alerts = [an_alert(number) for number in range(4)]
    assert [by_count.put(alert, 1) for alert in alerts] == [0, 0, 1, 1]
    assert by_count.first() is alerts[2]
    by_bytes = AlertQueue(max_bytes=100)
    assert [by_bytes.put(alert, 40) for alert in alerts[:3]] == [0, 0, 1]
    assert by_bytes.put(alerts[3], 500) == 2
    assert len(by_bytes) == 1


def test_an_alert_that_was_dropped_while_it_was_sent_takes_no_other_with_it() -> None:
    queue = AlertQueue(max_alerts=1)
    first, second = an_alert(1), an_alert(2)
    queue.put(first, 1)
    queue.put(second, 1)
    queue.done(first)
    assert queue.first() is second
