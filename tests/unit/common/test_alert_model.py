"""Alerts from outside: what is taken, what is filled in, and what is refused with which words."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common.alerts.model import (
    MAX_ALERTS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_METADATA_VALUES,
    Alert,
    AlertDraft,
    AlertFault,
    alerts_of_message,
    alerts_of_result,
    check_draft,
    complete,
)
from watchout.common.bus.messages import AlertNotification, decode_from_router, encode
from watchout.common.toolbox.jsontext import read_json

LEAST = {"severity": "high", "message": "fire"}
FULL = {
    "type": "alert", "streamId": "cam-1", "severity": "low", "message": "motion", "timestamp": 5, "frameId": 7,
    "id": "ml-1", "metadata": {"confidence": 0.9, "location": {"x": 1, "y": 2.5}, "objectType": "cat"},
}  # fmt: skip


def refusal(value: object) -> str:
    with pytest.raises(AlertFault) as caught:
        check_draft(value)
    return str(caught.value)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alert_needs_a_severity_and_a_message_and_no_more() -> None:
    assert check_draft(LEAST) == AlertDraft(severity="high", message="fire")


def test_everything_that_an_alert_may_hold_is_kept() -> None:
    assert check_draft(FULL) == AlertDraft(
        stream_id="cam-1", severity="low", message="motion", timestamp=5, frame_id=7, id="ml-1",
        metadata=FULL["metadata"],
    )  # fmt: skip


def test_null_is_the_same_as_left_out() -> None:
    optional = dict.fromkeys(("streamId", "timestamp", "frameId", "id", "metadata"))
    assert check_draft(LEAST | optional) == check_draft(LEAST)


def test_fields_that_the_protocol_does_not_name_are_passed_on() -> None:
    more = {"model": "v8", "stream_id": 7, "bbox": [1, 2.5, 2**70], "(not named)": 1, "label": "A\ud83d", "\ud83d": {}}
    draft = check_draft(LEAST | more)
    assert draft.more == more
    alert = complete(draft, alert_id="a", timestamp=5, stream_id="s", frame_id=3)
    assert read_json(alert.to_json()) == {
        "type": "alert", "id": "a", "streamId": "s", "severity": "high", "message": "fire", "timestamp": 5,
        "frameId": 3, **more,
    }  # fmt: skip
    assert Alert.from_json(alert.to_json()) == alert
    again = alert.changed(metadata={"x": 1})
    assert again.body() == alert.body() | {"metadata": {"x": 1}}
    assert (again.id, again.stream_id, again.timestamp, again.frame_id) == ("a", "s", 5, 3)


@pytest.mark.parametrize("name", ["bbox", "metadata"])
def test_what_is_passed_on_has_its_bounds(name: str) -> None:
    what = "metadata" if name == "metadata" else "what else the alert holds"
    for value, says in (
        ({"x": "y" * MAX_METADATA_BYTES}, "bytes as JSON, expected at most 16384"),
        ({"x": [{}] * MAX_METADATA_VALUES}, "has more than 1024 values"),
        (nested(MAX_METADATA_DEPTH + 1), "is nested more than 32 deep"),
        ({"x": float("inf")}, "holds a number that is not finite"),
    ):
        assert refusal(LEAST | {name: value}).startswith(what)
        assert says in refusal(LEAST | {name: value})


@pytest.mark.parametrize(("came", "read"), [(5.9, 5), (1e3, 1000), (-0.0, 0), (1729943200000.123, 1729943200000)])
def test_the_fraction_of_a_time_is_dropped(came: float, read: int) -> None:
    assert check_draft(LEAST | {"timestamp": came}).timestamp == read


@pytest.mark.parametrize("came", [-1, -0.5, 2**53, 1e300, float("nan"), float("inf"), "5", True, [], {}])
def test_a_time_that_is_none_is_refused(came: object) -> None:
    assert "timestamp" in refusal(LEAST | {"timestamp": came})


@pytest.mark.parametrize("came", [5.0, 5])
def test_a_frame_id_may_be_written_in_any_form_of_a_whole_number(came: float) -> None:
    assert check_draft(LEAST | {"frameId": came}).frame_id == 5
    assert "frameId" in refusal(LEAST | {"frameId": came + 0.5})


@pytest.mark.parametrize("severity", ["low", "medium", "high", "critical"])
def test_there_are_four_severities(severity: str) -> None:
    assert check_draft({"severity": severity, "message": "x"}).severity == severity


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), ([], "a list"), ("x", "text"), (True, "a truth value"), (1, "a number"), (1.5, "a number"),
     (b"x", "bytes")],
)  # fmt: skip
def test_what_is_no_object_is_refused_by_its_kind(value: object, kind: str) -> None:
    assert refusal(value) == f"an alert is an object, got {kind}"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"type": "alarm"}, "$.type"),
        ({"severity": "urgent"}, "$.severity"),
        ({"severity": "HIGH"}, "$.severity"),
        ({"severity": 3}, "$.severity"),
        ({"message": ""}, "$.message"),
        ({"message": "x" * 4097}, "$.message"),
        ({"message": None}, "$.message"),
        ({"streamId": ""}, "$.streamId"),
        ({"streamId": "a b"}, "$.streamId"),
        ({"streamId": "a\n"}, "$.streamId"),
        ({"streamId": "c" * 129}, "$.streamId"),
        ({"streamId": 7}, "$.streamId"),
        ({"timestamp": -1}, "$.timestamp"),
        ({"timestamp": 2**53}, "$.timestamp"),
        ({"timestamp": "now"}, "$.timestamp"),
        ({"timestamp": True}, "$.timestamp"),
        ({"frameId": -1}, "$.frameId"),
        ({"frameId": 2**32}, "$.frameId"),
        ({"id": ""}, "$.id"),
        ({"id": "two words"}, "$.id"),
        ({"id": "ünique"}, "$.id"),
        ({"id": "i" * 129}, "$.id"),
        ({"id": "x\n"}, "$.id"),
        ({"metadata": []}, "$.metadata"),
        ({"metadata": "x"}, "$.metadata"),
        ({"metadata": {1: 2}}, "$.metadata"),
    ],
    ids=repr,
)
def test_a_field_that_does_not_fit_is_named(changes: dict[str, object], names: str) -> None:
    assert names in refusal(LEAST | changes)


@pytest.mark.parametrize("missing", ["severity", "message"])
def test_a_field_that_is_missing_is_named(missing: str) -> None:
    assert f"`{missing}`" in refusal({name: value for name, value in LEAST.items() if name != missing})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["top", "list", "object"])
def test_a_number_that_json_does_not_have_is_refused(number: float, place: str) -> None:
    metadata = {"top": {"x": number}, "list": {"x": [1, [number]]}, "object": {"x": {"y": number}}}[place]
    assert refusal(LEAST | {"metadata": metadata}) == "metadata holds a number that is not finite"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_a_whole_number_of_any_length_is_passed_on(number: int) -> None:
    draft = check_draft(LEAST | {"metadata": {"x": [number]}})
    assert read_json(complete(draft, alert_id="a", timestamp=1, stream_id="s").to_json())["metadata"] == {"x": [number]}


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1.7e308, -0.0, True])
def test_the_largest_numbers_are_taken(number: float) -> None:
    assert check_draft(LEAST | {"metadata": {"x": number}}).metadata == {"x": number}


def test_metadata_is_measured_as_json() -> None:
    frame = len(b'{"x":""}')
    full = {"x": "y" * (MAX_METADATA_BYTES - frame)}
    assert check_draft(LEAST | {"metadata": full}).metadata == full
    over = {"x": "y" * (MAX_METADATA_BYTES - frame + 1)}
    assert refusal(LEAST | {"metadata": over}) == "metadata has 16385 bytes as JSON, expected at most 16384"


def test_metadata_may_be_nested_so_deep_and_no_deeper() -> None:
    assert check_draft(LEAST | {"metadata": nested(MAX_METADATA_DEPTH)}).metadata == nested(MAX_METADATA_DEPTH)
    assert refusal(LEAST | {"metadata": nested(MAX_METADATA_DEPTH + 1)}) == "metadata is nested more than 32 deep"


def test_metadata_of_any_depth_is_refused_and_breaks_nothing() -> None:
    assert "metadata" in refusal(LEAST | {"metadata": nested(100_000)})


def test_a_key_that_is_no_text_is_refused() -> None:
    assert refusal(LEAST | {"metadata": {"boxes": {1: "cat"}}}) == "metadata holds a key that is not text"


@pytest.mark.parametrize("changes", [{"message": "\ud800"}, {"metadata": {"x": "\ud800"}}, {"metadata": {"\ud800": 1}}])
def test_a_lone_surrogate_is_passed_on(changes: dict[str, object]) -> None:
    alert = complete(check_draft(LEAST | changes), alert_id="a", timestamp=1, stream_id="s")
    assert alert.body().items() >= changes.items()
    assert Alert.from_json(alert.to_json()) == alert


@pytest.mark.parametrize("name", ["id", "streamId", "severity"])
def test_a_lone_surrogate_where_a_name_stands_is_refused(name: str) -> None:
    assert refusal(LEAST | {name: "\ud800"})


@pytest.mark.parametrize("value", [object(), msgpack.Timestamp(1, 2), 1j])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    assert refusal(LEAST | {"metadata": {"x": value}}) == "metadata cannot be written as JSON"


# ── what was left out ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_left_out_comes_from_the_frame_that_was_answered() -> None:
    alert = complete(check_draft(LEAST), alert_id="made", timestamp=9, stream_id="cam-1", frame_id=3)
    assert alert == Alert(
        id="made", stream_id="cam-1", severity="high", message="fire", timestamp=9, frame_id=3, metadata=None
    )


def test_the_senders_own_values_win() -> None:
    alert = complete(check_draft(FULL), alert_id="made", timestamp=9, stream_id="cam-2", frame_id=3)
    assert (alert.id, alert.stream_id, alert.timestamp, alert.frame_id) == ("ml-1", "cam-1", 5, 7)


def test_a_timestamp_and_a_frame_of_zero_are_values() -> None:
    alert = complete(
        check_draft(LEAST | {"timestamp": 0, "frameId": 0}), alert_id="a", timestamp=9, stream_id="s", frame_id=3
    )
    assert (alert.timestamp, alert.frame_id) == (0, 0)


def test_an_alert_of_another_stream_does_not_speak_of_this_ones_frame() -> None:
    draft = check_draft(LEAST | {"streamId": "cam-2"})
    assert complete(draft, alert_id="a", timestamp=9, stream_id="cam-1", frame_id=3).frame_id is None


def test_an_alert_that_names_the_frames_own_stream_speaks_of_the_frame() -> None:
    draft = check_draft(LEAST | {"streamId": "cam-1"})
    assert complete(draft, alert_id="a", timestamp=9, stream_id="cam-1", frame_id=3).frame_id == 3


def test_an_alert_without_any_stream_is_refused() -> None:
    with pytest.raises(AlertFault, match="streamId is missing"):
        complete(check_draft(LEAST), alert_id="a", timestamp=9)


def test_an_alert_leaves_as_the_protocol_writes_it() -> None:
    assert json.loads(complete(check_draft(FULL), alert_id="a", timestamp=9).to_json()) == FULL
    least = complete(check_draft(LEAST), alert_id="a", timestamp=9, stream_id="s")
    assert json.loads(least.to_json()) == {
        "type": "alert", "id": "a", "streamId": "s", "severity": "high", "message": "fire", "timestamp": 9,
    }  # fmt: skip


# ── several at once ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"alert": LEAST}, [LEAST]),
        ({"alerts": [LEAST, FULL]}, [LEAST, FULL]),
        ({"alert": FULL, "alerts": [LEAST]}, [FULL, LEAST]),
        ({"alerts": []}, []),
        ({"alert": None, "alerts": None}, []),
        ({"alert": 7}, [7]),
        ({"ok": True}, []),
        (LEAST, []),
        ([LEAST], []),
        (None, []),
        ("alert", []),
    ],
)
def test_the_alerts_in_an_answer_stand_under_two_names(answer: object, found: list[object]) -> None:
    assert alerts_of_result(answer) == found


@pytest.mark.parametrize(("alerts", "kind"), [({}, "an object"), ("x", "text"), (3, "a number")])
def test_alerts_that_are_no_list_are_a_fault(alerts: object, kind: str) -> None:
    with pytest.raises(AlertFault, match=f"alerts is a list, got {kind}"):
        alerts_of_result({"alerts": alerts})


@pytest.mark.parametrize(
    ("message", "found"), [(LEAST, [LEAST]), ([LEAST, FULL], [LEAST, FULL]), ([], []), (None, [None]), (7, [7])]
)
def test_what_comes_by_itself_is_one_alert_or_a_list(message: object, found: list[object]) -> None:
    assert alerts_of_message(message) == found


def test_more_alerts_at_once_than_the_limit_are_a_fault() -> None:
    assert (
        len(alerts_of_message([LEAST] * MAX_ALERTS))
        == len(alerts_of_result({"alerts": [LEAST] * MAX_ALERTS}))
        == MAX_ALERTS
    )
    with pytest.raises(AlertFault, match="101 alerts at once, expected at most 100"):
        alerts_of_message([LEAST] * (MAX_ALERTS + 1))
    with pytest.raises(AlertFault, match="101 alerts at once"):
        alerts_of_result({"alert": LEAST, "alerts": [LEAST] * MAX_ALERTS})


# ── anything ─────────────────────────────────────────────────────────────────────────────────────────────────────

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=6,
)
MESSAGEPACK = st.recursive(
    st.one_of(SCALARS, st.binary(max_size=5), st.just(msgpack.ExtType(5, b"x")), st.just(msgpack.Timestamp(1, 2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=3)), inner, max_size=4),
    ),
    max_leaves=6,
)


def nearly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Alerts of which some fields are anything."""
    return st.one_of(
        values,
        st.dictionaries(st.sampled_from(sorted(FULL)), values).map(lambda changes: FULL | changes),
        st.dictionaries(st.text(max_size=5), values, max_size=4).map(lambda metadata: LEAST | {"metadata": metadata}),
    )


@settings(max_examples=200)
@given(st.one_of(nearly(JSON), nearly(MESSAGEPACK)))
def test_any_value_is_a_draft_that_can_go_all_the_way_or_a_fault(value: object) -> None:
    try:
        draft = check_draft(value)
    except AlertFault:
        return
    alert = complete(draft, alert_id="made", timestamp=1, stream_id="cam-1")
    assert json.loads(alert.to_json())["message"] == draft.message
    told = decode_from_router(encode(1, 1, AlertNotification(alert=alert))).body
    assert isinstance(told, AlertNotification)
    assert json.loads(told.alert.to_json()) == json.loads(alert.to_json())


@settings(max_examples=100)
@given(JSON)
def test_any_answer_is_a_bounded_list_or_a_fault(value: object) -> None:
    for split in (alerts_of_result, alerts_of_message):
        with contextlib.suppress(AlertFault):
            assert len(split(value)) <= MAX_ALERTS


def test_values_in_metadata_are_counted_because_each_costs_more_than_its_bytes() -> None:
    def drafted(values: int) -> AlertDraft:
        return check_draft({"severity": "low", "message": "x", "metadata": {"a": [{}] * (values - 2)}})

    drafted(MAX_METADATA_VALUES)
    with pytest.raises(AlertFault, match=f"more than {MAX_METADATA_VALUES} values"):
        drafted(MAX_METADATA_VALUES + 1)
    with pytest.raises(AlertFault, match="values"):
        check_draft({"severity": "low", "message": "x", "metadata": {"a": [{}] * 5400}})
