"""What a function may return, and what a request may hold."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import MAX_ALERTS, check_draft
from watchout.ml.results import Alert, ResultFault, alerts_of, results_of_batch
from watchout.ml.shown_frame import Frame, RequestFault, read_body, read_object, read_raw

JPEG = b"\xff\xd8\xff\xe0picture"


def body(**fields: object) -> dict[str, object]:
    return {"streamId": "cam-1", "frame": base64.b64encode(JPEG).decode(), "timestamp": 5, "frameId": 7, **fields}


def test_an_alert_is_what_the_schema_says() -> None:
    (alert,) = alerts_of(
        Alert("high", "A person", confidence=0.9, location=(0.5, 0.25), object_type="person", metadata={"n": 1})
    )
    assert alert == {
        "severity": "high",
        "message": "A person",
        "metadata": {"n": 1, "confidence": 0.9, "location": {"x": 0.5, "y": 0.25}, "objectType": "person"},
    }
    check_draft(alert)


def test_none_one_and_many_are_results() -> None:
    assert alerts_of(None) == alerts_of([]) == []
    assert len(alerts_of({"severity": "low", "message": "m"})) == 1
    assert len(alerts_of([Alert("low", "a"), {"severity": "low", "message": "b"}])) == 2


def test_numbers_of_numpy_are_taken() -> None:
    np = pytest.importorskip("numpy")
    metadata = {"box": np.array([1, 2]), "n": np.int64(3), "deep": [{"x": np.float32(0.5)}]}
    (alert,) = alerts_of(Alert("low", "m", confidence=np.float64(0.25), metadata=metadata))
    assert alert["metadata"] == {"box": [1, 2], "n": 3, "deep": [{"x": 0.5}], "confidence": 0.25}
    assert json.loads(json.dumps(alert)) == alert


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("person", "an alert is a watchout.ml.Alert or an object, got str"),
        (7, "got int"),
        ([True], "got bool"),
        ({"severity": "loud", "message": "m"}, "severity"),
        (Alert("low", ""), "message"),
        (Alert("low", "m", confidence=float("nan")), "not finite"),
        (Alert("low", "m", metadata={"x": object()}), "cannot be written as JSON"),
        ([Alert("low", "m")] * (MAX_ALERTS + 1), f"expected at most {MAX_ALERTS}"),
    ],
)
def test_anything_else_is_a_fault_that_says_what_came(result: object, said: str) -> None:
    with pytest.raises(ResultFault, match=said):
        alerts_of(result)


def test_a_batch_has_one_result_for_each_frame() -> None:
    assert results_of_batch([None, []], 2) == [None, []]
    for wrong in ([None], None, "ab", {"a": 1}):
        with pytest.raises(ResultFault, match="for 2 frames"):
            results_of_batch(wrong, 2)


def test_a_frame_has_the_trace_of_its_request_and_nothing_that_is_no_trace() -> None:
    told = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Stream-Id": "cam-1"}
    assert read_object({**body(), "traceparent": told}).traceparent == told
    assert read_raw(JPEG, {**headers, "traceparent": told}).traceparent == told
    assert [read_object({**body(), "traceparent": wrong}).traceparent for wrong in (None, 7, "x")] == [""] * 3
    assert read_raw(JPEG, headers).traceparent == ""


def test_a_frame_is_read_from_json_raw_bodies_and_batches() -> None:
    for frame in (
        read_object(body()),
        read_body(json.dumps(body()).encode()),
        read_raw(JPEG, {"X-Stream-Id": "cam-1", "X-Frame-Id": "7", "X-Frame-Time": "5"}),
    ):
        assert isinstance(frame, Frame)
        assert (frame.stream_id, frame.picture, frame.frame_id, frame.timestamp) == ("cam-1", JPEG, 7, 5)
        assert frame.names == {"streamId": "cam-1", "frameId": 7, "timestamp": 5}
    assert read_body(json.dumps({"frames": [body(), 1]}).encode()) == [body(), 1]
    assert read_object(body(unknown=1, timestamp=None, frameId="x")).names == {"streamId": "cam-1"}


@pytest.mark.parametrize(
    "wrong",
    [None, [], 1, {}, body(frame=None), body(frame=""), body(frame="%%%"), body(streamId=""), body(streamId="a/b")],
)
def test_what_is_no_frame_is_told(wrong: object) -> None:
    with pytest.raises(RequestFault):
        read_object(wrong)
    with pytest.raises(RequestFault):
        read_body(json.dumps(wrong).encode())


@given(st.binary(max_size=100), st.dictionaries(st.sampled_from(["X-Stream-Id", "X-Frame-Id"]), st.text(max_size=20)))
def test_any_request_is_a_frame_or_a_fault(data: bytes, headers: dict[str, str]) -> None:
    for read in (lambda: read_body(data), lambda: read_raw(data, headers)):
        with contextlib.suppress(RequestFault):
            assert isinstance(read(), Frame | list)
