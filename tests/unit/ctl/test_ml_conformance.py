"""What the check makes of a service's answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.codecs import Codec, sniff
from watchout.common.media.frames import Frame
from watchout.ctl.doctor.findings import Finding, Level
from watchout.ctl.ml import conformance
from watchout.ctl.ml.conformance import LoadResult, ProbeResult
from watchout.ctl.ml.pictures import GARBAGE, SAMPLE, TRUNCATED, padded

FRAME = Frame("check-1", 3, 1_700_000_000_000, picture=SAMPLE)
GOOD = {"severity": "high", "message": "a person"}


def came(*values: object, frame: Frame = FRAME, **more: Any) -> ProbeResult:
    return ProbeResult(frame, 10.0, values=values, **{"status": 200, "content_type": "application/json", **more})


def alerts(*values: object, pictures: int = 0) -> list[Finding]:
    return conformance.of_alerts([came(*values)], heard=[], pictures=pictures)


@pytest.mark.parametrize(
    ("value", "says", "remedy"),
    [
        ({"message": "m"}, "missing required field `severity`", '"severity"'),
        (GOOD | {"severity": "HIGH"}, "Invalid enum value 'HIGH' - at `$.severity`", "low, medium, high, critical"),
        (GOOD | {"message": ""}, "length >= 1 - at `$.message`", '"message"'),
        (GOOD | {"message": 3}, "Expected `str`, got `int` - at `$.message`", '"message"'),
        (GOOD | {"timestamp": 1.5}, "in 1970", "int(time.time() * 1000)"),
        (GOOD | {"timestamp": 1_700_000_000}, "1700000000", "int(time.time() * 1000)"),
        (GOOD | {"frameId": "7"}, "at `$.frameId`", '"frameId"'),
        (GOOD | {"id": "a b"}, "at `$.id`", '"id"'),
        (GOOD | {"type": "alarm"}, "at `$.type`", '"type"'),
        (GOOD | {"metadata": []}, "at `$.metadata`", '"metadata"'),
        (GOOD | {"metadata": {"score": float("nan")}}, "not finite", '"metadata"'),
        (GOOD | {"metadata": {"x": "x" * 20_000}}, "16384", '"metadata"'),
        ("person", "an alert is an object, got text", "docs/schemas/alert.json"),
    ],
)
def test_a_wrong_alert_is_told_with_its_field_and_how_to_mend_it(value: object, says: str, remedy: str) -> None:
    (finding,) = alerts(value)
    assert finding.level is Level.WRONG
    assert says in finding.says
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "metadata",
    [{"confidence": 97}, {"confidence": "high"}, {"location": {"x": 320, "y": 100}}, {"location": [0.1, 0.2]}],
)
def test_metadata_in_other_units_is_a_warning(metadata: dict[str, Any]) -> None:
    (finding,) = alerts(GOOD | {"metadata": metadata})
    assert finding.level is Level.WARNING


def test_good_alerts_are_ok_and_none_at_all_is_a_warning() -> None:
    assert [f.level for f in alerts(GOOD, GOOD)] == [Level.OK]
    (none,) = alerts()
    assert none.level is Level.WARNING
    assert "--picture" in none.remedy
    (still,) = alerts(pictures=2)
    assert "any of the 2 pictures" in still.says


def test_the_same_fault_is_told_once() -> None:
    assert len(alerts(*[{"message": "m"}] * 50)) == 1


def test_a_foreign_frame_a_foreign_stream_and_a_mix_up_are_wrong() -> None:
    other = came(frame=Frame("check-2", 4, 1, picture=SAMPLE))
    for value, words in (
        (GOOD | {"frameId": 999}, "frame 999 of check-1, which it was never shown"),
        (GOOD | {"streamId": "cam"}, "stream 'cam', which it was never shown"),
        (GOOD | {"streamId": "check-2", "frameId": 4}, "answers were mixed up"),
    ):
        (finding,) = conformance.of_frame_ids([came(value), other], heard=[])
        assert finding.level is Level.WRONG
        assert words in finding.says


def test_an_earlier_frame_of_the_stream_is_a_warning_and_the_frame_itself_is_ok() -> None:
    before = came(frame=Frame("check-1", 2, 1, picture=SAMPLE))
    (earlier,) = conformance.of_frame_ids([came(GOOD | {"frameId": 2}), before], heard=[])
    assert earlier.level is Level.WARNING
    (own,) = conformance.of_frame_ids([came(GOOD | {"frameId": 3}), before], heard=[GOOD | {"streamId": "check-1"}])
    assert own.level is Level.OK


def test_an_alert_that_comes_by_itself_must_name_its_stream() -> None:
    (finding,) = conformance.of_alerts([], heard=[GOOD], pictures=0)
    assert finding.level is Level.WRONG
    assert "no streamId" in finding.says


@pytest.mark.parametrize(
    ("decoded", "level"),
    [
        ({}, "ok"),
        ({"alert": GOOD}, "ok"),
        ({"alerts": []}, "ok"),
        ([GOOD], "wrong"),
        (GOOD, "wrong"),
        ("none", "wrong"),
        (None, "wrong"),
        ({"detections": []}, "wrong"),
        ({"error": "boom"}, "wrong"),
        ({"status": "ok"}, "wrong"),
    ],
)
def test_an_answer_that_is_not_read_as_meant_is_told(decoded: object, level: str) -> None:
    assert conformance.of_json(came(decoded=decoded, body=b"x")).level == level


def test_an_answer_that_is_no_json_or_does_not_say_so_is_told() -> None:
    assert conformance.of_json(came(body=b"OK", is_json=False)).level is Level.WRONG
    assert conformance.of_json(came(decoded={}, body=b"{}", content_type="text/plain")).level is Level.WARNING


@pytest.mark.parametrize("status", [301, 400, 401, 404, 405, 413, 415, 422, 429, 500, 503])
def test_each_status_comes_with_a_remedy(status: int) -> None:
    finding = conformance.of_answer(came(status=status, body=b"Not \x1b[31m found"), 5.0)
    assert finding.level is Level.WRONG
    assert str(status) in finding.says
    assert finding.remedy
    assert "\x1b" not in finding.sentence


def test_the_load_says_how_many_streams_the_service_is_enough_for() -> None:
    def judge(cames: list[ProbeResult], is_http: bool = True) -> Finding:
        return conformance.of_load(LoadResult(4, 2.0, cames), is_http=is_http, ml_fps=2.0, max_age_s=1.0, timeout_s=5.0)

    fine = judge([came()] * 40)
    assert fine.level is Level.OK
    assert "enough for 10 streams at ML_FPS=2" in fine.says
    assert judge([ProbeResult(FRAME, 2_000.0, status=200)] * 4).level is Level.WARNING
    assert judge([came(), came(status=503)]).level is Level.WRONG
    assert judge([]).level is Level.OK
    full = ProbeResult(FRAME, 500.0, fault="it reads no frames")
    assert judge([came(), full], is_http=False).level is Level.WARNING
    assert judge([came(), ProbeResult(FRAME, 5_000.0, fault="late", late=True)], is_http=False).level is Level.WRONG


def test_a_service_that_a_broken_picture_harms_is_wrong_and_one_that_only_complains_is_not() -> None:
    fine, bad, ill = came(), came(status=400), came(status=500)
    gone = came(fault="a closed connection instead of an answer")
    late = came(fault="no answer", late=True)

    def judge(broken: ProbeResult, after: ProbeResult, is_http: bool = True) -> Level:
        return conformance.of_garbage([broken, fine], after, is_http=is_http).level

    assert judge(bad, fine) is Level.OK
    assert judge(ill, fine) is Level.WARNING
    assert judge(gone, fine) is Level.WRONG
    assert judge(fine, gone) is Level.WRONG
    assert judge(gone, fine, is_http=False) is Level.OK
    assert judge(late, fine, is_http=False) is Level.WARNING
    assert judge(fine, gone, is_http=False) is Level.WRONG


@given(st.integers(0, 5 << 20))
def test_a_padded_picture_has_its_size_and_is_still_a_picture(size: int) -> None:
    picture = padded(size)
    assert max(size, len(SAMPLE)) <= len(picture) < max(size, len(SAMPLE)) + 65_537
    assert sniff(picture) is Codec.JPEG
    assert picture.endswith(SAMPLE[2:])


def test_the_pictures_are_what_they_say() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    for good in (SAMPLE, padded(200_000)):
        with image.open(io.BytesIO(good)) as opened:
            opened.load()
            assert opened.size == (320, 240)
    for bad in (GARBAGE, TRUNCATED):
        with pytest.raises(OSError), image.open(io.BytesIO(bad)) as opened:
            opened.load()
