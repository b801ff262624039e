"""Bodies of frames and the reading of what a service writes."""

from __future__ import annotations

import base64
import email
import email.policy
import json
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.mlbridge.targets import UnusableResult, address
from watchout.mlbridge.targets.bodies import json_batch, json_body, multipart_batch, packed_body
from watchout.mlbridge.targets.results import (
    MAX_SHOWN,
    ServiceResult,
    Undecodable,
    beginning,
    read_batch_result,
    read_json,
    read_message,
    read_msgpack,
    read_result,
)

PICTURE = b"\xff\xd8\xff" + bytes(range(256))
GIF = b"GIF89a\r\n--x\r\n"
PICTURES = st.binary().map(lambda rest: b"\xff\xd8\xff" + rest)
ALERT = {"severity": "low", "message": "m"}


def frame(picture: bytes = PICTURE, stream: str = "s", number: int = 7) -> Frame:
    return Frame(stream, number, 1_700_000_000_000, picture=picture)


def sent_as_text(text: str) -> Frame:
    return Frame("s", 7, 1_700_000_000_000, text=json.dumps(text).encode())


@given(PICTURES, st.booleans(), st.booleans())
def test_a_frame_as_json_is_the_picture_in_base64_however_the_camera_sent_it(
    picture: bytes, prefix: bool, text: bool
) -> None:
    encoded = base64.b64encode(picture).decode()
    sent = sent_as_text("data:image/jpeg;base64," * prefix + encoded) if text else frame(picture)
    assert json.loads(json_body(sent)) == {
        "streamId": "s", "frame": encoded, "timestamp": 1_700_000_000_000, "frameId": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["/ 9 j /", "/9j/ ", "\\/9j/", "data:image/x;base64,/9j/", "/9j/", "/9j_-_-_", "/9j/AA"]
)
def test_what_a_camera_wrote_around_its_base64_is_gone(text: str) -> None:
    sent = Frame("s", 1, 2, text=b'"' + text.encode() + b'"')
    assert json.loads(json_body(sent))["frame"] == base64.b64encode(sent.picture).decode()


@given(PICTURES)
def test_a_frame_as_messagepack_has_the_picture_itself(picture: bytes) -> None:
    assert msgpack.unpackb(packed_body(frame(picture))) == {
        "streamId": "s", "frame": picture, "timestamp": 1_700_000_000_000, "frameId": 7,
    }  # fmt: skip


def test_a_batch_as_json_is_a_list_of_frames() -> None:
    frames = [frame(number=1), frame(stream="t", number=2)]
    assert json.loads(json_batch(frames)) == {"frames": [json.loads(json_body(one)) for one in frames]}


def test_a_batch_of_raw_pictures_is_multipart_with_each_frames_ids() -> None:
    body = multipart_batch([frame(number=1), frame(GIF, "t", 2)], "border")
    message = email.message_from_bytes(
        b'Content-Type: multipart/form-data; boundary="border"\r\n\r\n' + body, policy=email.policy.HTTP
    )
    parts: list[Any] = list(message.iter_parts())
    assert [(part["X-Stream-Id"], part["X-Frame-Id"], part["X-Frame-Time"]) for part in parts] == [
        ("s", "1", "1700000000000"), ("t", "2", "1700000000000"),
    ]  # fmt: skip
    assert [part.get_content_type() for part in parts] == ["image/jpeg", "image/gif"]
    assert [part.get_payload(decode=True) for part in parts] == [PICTURE, GIF]


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_nonsense(data: bytes) -> None:
    for read in (read_json, read_msgpack):
        value = read(data)
        assert isinstance(value, Undecodable) or msgspec.json.encode(value) is not None


@pytest.mark.parametrize(
    "value",
    [{b"a": 1}, {1: 2}, {"a": b"bytes"}, {"a": msgpack.Timestamp(1)}, {"a": msgpack.ExtType(3, b"x")}, b"x"],
)
def test_messagepack_that_json_could_not_say_is_nonsense(value: object) -> None:
    assert isinstance(read_msgpack(msgpack.packb(value)), Undecodable)


def test_deep_messagepack_is_nonsense() -> None:
    assert isinstance(read_msgpack(b"\x91" * 100_000 + b"\xc0"), Undecodable)
    assert isinstance(read_msgpack(b"\x91" * 100 + b"\xc0"), Undecodable)


@pytest.mark.parametrize("read", [read_json, read_msgpack])
def test_what_is_written_is_read(read: Any) -> None:
    value = {"alerts": [ALERT, {"a": None, "b": [1.5, "ü", True]}]}
    assert read(json.dumps(value).encode() if read is read_json else msgpack.packb(value)) == value


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (ALERT, [ServiceResult(None, [ALERT], ends_frame=False)]),
        ({**ALERT, "streamId": "s", "frameId": 1},
         [ServiceResult(("s", 1), [{**ALERT, "streamId": "s", "frameId": 1}], ends_frame=False)]),
        ([ALERT, ALERT], [ServiceResult(None, [ALERT], ends_frame=False)] * 2),
        ([], []),
        ({}, [ServiceResult(None, [], ends_frame=True)]),
        ({"streamId": "s", "frameId": 1}, [ServiceResult(("s", 1), [], ends_frame=True)]),
        ({"streamId": "s", "frameId": 1, "alerts": []}, [ServiceResult(("s", 1), [], ends_frame=True)]),
        ({"streamId": "s", "frameId": 1, "alert": ALERT},
         [ServiceResult(("s", 1), [{"streamId": "s", "frameId": 1, **ALERT}], ends_frame=True)]),
        ({"streamId": "s", "frameId": 1, "alerts": [{**ALERT, "frameId": 9}, 7]},
         [ServiceResult(("s", 1), [{"streamId": "s", **ALERT, "frameId": 9}, 7], ends_frame=True)]),
        ({"streamId": "s", "frameId": 1, "alert": {**ALERT, "streamId": "t"}},
         [ServiceResult(("s", 1), [{**ALERT, "streamId": "t"}], ends_frame=True)]),
        ({"alert": ALERT}, [ServiceResult(None, [ALERT], ends_frame=True)]),
        ([7, ALERT], [ServiceResult(None, [7], ends_frame=False), ServiceResult(None, [ALERT], ends_frame=False)]),
        ({"severity": 7}, [ServiceResult(None, [{"severity": 7}], ends_frame=False)]),
    ],
)  # fmt: skip
def test_a_message_is_an_answer_an_alert_or_several(message: object, said: list[ServiceResult]) -> None:
    assert read_message(message) == said


@pytest.mark.parametrize("message", [[ALERT] * 101, {"alerts": {}}, {"alerts": [ALERT] * 101}])
def test_a_message_that_is_none_of_them_is_a_fault(message: object) -> None:
    with pytest.raises(AlertFault):
        read_message(message)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (Undecodable("7 bytes"), None), ({"streamId": "s", "frameId": True}, None), ({"detections": 3}, None),
        ("alert", None), (None, None), (7.5, None), (True, None), ([1, 2], None), ([{"label": "cat"}], None),
        ({"streamId": "s", "frameId": 1, "error": "too large"}, ("s", 1)),
        ({"streamId": "s", "frameId": 1, "alerts": [], "error": {"code": 7}}, ("s", 1)),
        ({"streamId": "s", "frameId": 1, "detections": []}, ("s", 1)),
    ],
)  # fmt: skip
def test_a_message_in_no_form_of_an_answer_is_unusable_and_may_name_its_frame(
    message: object, key: tuple[str, int] | None
) -> None:
    with pytest.raises(UnusableResult) as raised:
        read_message(message)
    assert raised.value.key == key


@pytest.mark.parametrize(
    ("answer", "alerts"),
    [
        ({}, []), ({"alert": None}, []), ({"alerts": []}, []), ({"alerts": None, "model": "v2"}, []),
        ({"streamId": "s", "frameId": 1, "timestamp": 7}, []), ({"alert": ALERT, "error": "half of it"}, [ALERT]),
        ({"alert": ALERT, "detections": [1]}, [ALERT]), ({"alert": 7}, [7]), ({"alerts": [], "error": None}, []),
    ],
)  # fmt: skip
def test_an_answer_has_alerts_or_none(answer: object, alerts: list[object]) -> None:
    assert read_result(answer) == alerts


@pytest.mark.parametrize(
    "answer",
    [
        Undecodable("<html>"),
        None, [], [ALERT], "no", 7, True, ALERT, {"error": "boom"}, {"error": "boom", "alerts": []},
        {"detections": [{"label": "cat", "score": 0.9}]}, {"predictions": []}, {"status": "ok"},
        {"detail": "Not found"},
    ],
)  # fmt: skip
def test_an_answer_in_another_form_is_unusable(answer: object) -> None:
    with pytest.raises(UnusableResult):
        read_result(answer)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"<!doctype html>\r\n<title>Login</title>", "'<!doctype html> <title>Login</title>'"),
        (b"\x1b[31mred\x00", "'[31mred'"), (b"\x1f\x8b\x08", "'�'"), ("ü" * 500, "'" + "ü" * MAX_SHOWN + "…'"),
        (b"\xe2\x80\xaetxt.exe", "'txt.exe'"),
    ],
)  # fmt: skip
def test_the_beginning_of_what_came_is_one_short_line_without_control_characters(data: bytes, shown: str) -> None:
    assert beginning(data) == shown


@given(st.binary(max_size=2000))
def test_whatever_came_its_beginning_is_printable_and_bounded(data: bytes) -> None:
    shown = beginning(data)
    assert shown.isprintable()
    assert len(shown) <= MAX_SHOWN + 3


KEYS = [("a", 1), ("b", 2), ("b", 3)]


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_answers_of_a_batch_stand_in_the_order_of_its_frames(wrapped: bool) -> None:
    answers: list[object] = [{"alert": ALERT}, {"error": "too dark"}, None]
    found, unmatched = read_batch_result({"answers": answers} if wrapped else answers, KEYS)
    assert (found[0], found[2], unmatched) == ([ALERT], [], [])
    assert isinstance(found[1], UnusableResult)
    assert "too dark" in str(found[1])


def test_an_answer_of_a_batch_that_is_a_fault_is_one_of_its_frame_alone() -> None:
    found, _ = read_batch_result([{"alerts": "x"}, {"alerts": [ALERT] * 101}, {"alert": ALERT}], KEYS)
    assert isinstance(found[0], AlertFault)
    assert isinstance(found[1], AlertFault)
    assert found[2] == [ALERT]


@pytest.mark.parametrize("answers", [[], [{}], [{}] * 4])
def test_answers_that_are_not_as_many_as_the_frames_are_a_fault(answers: list[object]) -> None:
    with pytest.raises(UnusableResult, match="3 frames"):
        read_batch_result({"answers": answers}, KEYS)


def test_alerts_of_a_batch_go_to_the_frame_that_they_name() -> None:
    for_a, for_3 = {**ALERT, "streamId": "a"}, {**ALERT, "streamId": "b", "frameId": 3}
    strange = [ALERT, {**ALERT, "streamId": "b"}, {**ALERT, "streamId": "c", "frameId": 1}, {**ALERT, "frameId": 9}, 7]
    found, unmatched = read_batch_result({"alerts": [for_a, *strange, for_3]}, KEYS)
    assert found == [[for_a], [], [for_3]]
    assert unmatched == strange
    assert read_batch_result({"alert": ALERT}, KEYS[:1]) == ([[ALERT]], [])


@pytest.mark.parametrize("value", [{}, {"alerts": None}, {"alerts": [], "model": "v2"}, [None, {}, {"alert": None}]])
def test_a_batch_without_alerts_has_none(value: object) -> None:
    assert read_batch_result(value, KEYS) == ([[], [], []], [])


@pytest.mark.parametrize("value", [None, {"x": 1}, "x", 7, {"answers": {}}, {"answers": None}, {"error": "boom"}])
def test_a_batch_that_is_answered_in_another_form_is_unusable(value: object) -> None:
    with pytest.raises(UnusableResult):
        read_batch_result(value, KEYS)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["alert", "alerts", "answers", "streamId", "frameId", "error"]), inner)
        ),
    )
)
def test_whatever_a_batch_is_answered_each_frame_gets_its_part(value: object) -> None:
    try:
        found, _ = read_batch_result(value, KEYS)
    except (AlertFault, UnusableResult):
        return
    assert len(found) == len(KEYS)


def test_the_url_names_channels_and_ports() -> None:
    assert address.Channels.of("redis://h") == address.Channels("video-frames", "ml-alerts")
    assert address.Channels.of("nats://h?frames=a&alerts=b") == address.Channels("a", "b")
    assert address.alerts_port("tcp://h:5000") == 5001
    assert address.alerts_port("tcp://h:5000?alerts=6000") == 6000
    assert address.without_credentials("redis://u:p@h:1/3?frames=a") == "redis://h:1/3"
