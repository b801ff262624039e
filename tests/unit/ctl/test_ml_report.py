"""What a dry run saw, as figures, text, JSON and a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.ctl.ml import report
from watchout.ctl.ml.drawing import MAX_MARKS, draw
from watchout.ctl.ml.report import (
    BORDERS_MS,
    Comparison,
    FrameRecord,
    Outcome,
    Replay,
    ServiceRecord,
    clock_of,
    histogram,
    quantile,
)
from watchout.mlbridge.cooldown import Cooldown

looks = st.lists(
    st.tuples(st.floats(0, 30, exclude_max=True), st.floats(0, 20_000), st.sampled_from(list(Outcome))), max_size=60
)


def record_of(rows: list[tuple[float, float, Outcome]], service: str = "http://a/analyze") -> ServiceRecord:
    record = ServiceRecord(service, Cooldown(5.0))
    for number, (at_s, latency_ms, outcome) in enumerate(rows, 1):
        record.shown(
            FrameRecord(number, at_s, latency_ms, outcome, "" if outcome is Outcome.ANSWERED else f"why {number}")
        )
    return record


def alert(frame_id: int | None, message: str = "a person", severity: str = "high") -> Alert:
    return Alert(
        id=f"{message}-{frame_id}", stream_id="s", severity=severity, message=message, timestamp=1, frame_id=frame_id
    )


def replay_of(first: ServiceRecord, second: ServiceRecord | None = None, length_s: float = 30.0) -> Replay:
    return Replay(
        footage="people.mp4", length_s=length_s, took_s=3.0, frames=300, fps=2.0, speed=10.0, first=first, second=second
    )


@given(looks)
def test_every_answer_is_in_one_bar_and_coverage_is_a_share(rows: list[tuple[float, float, Outcome]]) -> None:
    record = record_of(rows)
    answered = [row for row in rows if row[2] is Outcome.ANSWERED]
    assert sum(histogram(record.latencies())) == len(answered)
    assert sum(record.count(outcome) for outcome in Outcome) == len(rows)
    assert record.coverage(30.0) == pytest.approx(len({int(at_s) for at_s, _, _ in answered}) / 30)


@given(looks, looks)
def test_any_run_is_a_page_json_and_a_well_formed_picture(first: list, second: list) -> None:
    run = replay_of(record_of(first), record_of(second, "<b>&"))
    assert run.text().endswith("\n")
    body = json.loads(json.dumps(run.body()))
    assert body["service"]["shown"] == len(first)
    assert body["shadow"]["shown"] == len(second)
    assert ET.fromstring(draw(run)).tag.endswith("svg")


def test_no_footage_and_no_answers_are_no_division_by_zero() -> None:
    run = Replay(footage="f", length_s=0.0, took_s=0.0, frames=0, fps=2.0, speed=None, first=record_of([]))
    assert run.first.coverage(0.0) == 0
    assert "coverage 0.0%" in run.text()
    ET.fromstring(draw(run))
    assert run.body()["speedReached"] == 0


@given(st.lists(st.floats(0, 1e5), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_that_this_share_does_not_pass(values: list[float], share: float) -> None:
    ranked = sorted(values)
    found = quantile(ranked, share)
    assert found in ranked
    assert sum(value <= found for value in ranked) >= share * len(ranked) - 1e-6


def test_an_answer_at_a_border_is_within_it() -> None:
    bars = histogram([BORDERS_MS[0], BORDERS_MS[0] + 0.1, BORDERS_MS[-1], BORDERS_MS[-1] + 1])
    assert (bars[0], bars[1], bars[-2], bars[-1]) == (1, 1, 1, 1)


def test_what_the_cooldown_would_hold_back_is_told_apart_and_counted() -> None:
    record = record_of([(n, 10.0, Outcome.ANSWERED) for n in range(10)])
    told = [record.alert(alert(n + 1), float(n), 10.0, float(n)).told for n in range(10)]
    assert told == [True, False, False, False, False, True, False, False, False, False]
    text = replay_of(record).text()
    assert "10 alerts, of which the cooldown would hold back 8" in text
    assert text.count("a person") == 2
    assert replay_of(record).body()["service"]["alerts"][5]["metadata"] == {"suppressed": 4}


def test_services_disagree_by_frame_and_kind_whatever_the_cooldown() -> None:
    rows = [(n / 2, 10.0, Outcome.ANSWERED) for n in range(4)]
    first, second = record_of(rows), record_of([*rows[:3], (1.5, 10.0, Outcome.FAILED)])
    for record, numbers in ((first, (1, 2, 4)), (second, (1, 3))):
        for number in numbers:
            record.alert(alert(number), number / 2, 1.0, 0.0)
    first.alert(alert(1, "fire"), 0.0, 1.0, 0.0)
    comparison = Comparison.of(first, second)
    assert (comparison.compared, comparison.agreed) == (3, 0)
    assert [(d.frame_id, d.only_first, d.only_second) for d in comparison.disagreements] == [
        (1, ("message fire",), ()),
        (2, ("message a person",), ()),
        (3, (), ("message a person",)),
    ]
    text = replay_of(first, second).text()
    assert "agree on 0 of 3 frames" in text
    assert "0:01.0 frame 3: only the shadow: message a person" in text


def test_numbers_in_a_message_are_no_disagreement() -> None:
    first, second = (record_of([(0.0, 1.0, Outcome.ANSWERED)]) for _ in range(2))
    first.alert(alert(1, "person 0.87"), 0.0, 1.0, 0.0)
    second.alert(alert(1, "person 0.91"), 0.0, 1.0, 0.0)
    assert Comparison.of(first, second).agreed == 1


def test_what_is_kept_is_bounded_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_KEPT", 3)
    monkeypatch.setattr(report, "MAX_DISAGREEMENTS", 2)
    first, second = (record_of([(0.0, 1.0, Outcome.ANSWERED)] * 9) for _ in range(2))
    for number in range(1, 10):
        first.alert(alert(number), 0.0, 1.0, 0.0)
        first.refused("bad", number)
    assert (len(first.alerts), first.alert_count, len(first.refusals), first.refusal_count) == (3, 9, 3, 9)
    text = replay_of(first, second).text()
    assert "9 alerts" in text
    assert "and 1 more" in text


def test_a_long_run_is_a_picture_of_bounded_size() -> None:
    record = record_of([(n / 1000, 10.0, Outcome.ANSWERED) for n in range(30_000)])
    assert draw(replay_of(record)).count("<circle") <= MAX_MARKS


def test_what_a_service_wrote_cannot_steer_a_terminal_or_a_browser() -> None:
    record = record_of([(0.0, 1.0, Outcome.ANSWERED)])
    record.alert(alert(1, "\x1b[31m<script>alert(1)</script>"), 0.0, 1.0, 0.0)
    record.refused("\x1b[2J", 1)
    run = replay_of(record)
    assert "\x1b" not in run.text()
    assert "<script>" not in draw(run)
    assert "\x1b" not in draw(run)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.0"), (7.54, "0:07.5"), (59.96, "1:00.0"), (3723, "1:02:03.0")]
)
def test_a_place_in_the_footage_is_shown_as_players_do(seconds: float, shown: str) -> None:
    assert clock_of(seconds) == shown
