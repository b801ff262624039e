"""The bytes of the edge protocol: everything that a client may send, and the server's messages as websockets reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from tests.kit.playbook import read, unwrap
from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import ClientError, ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame, FrameFault, decode_text
from watchout.gateway import fastpath, wire
from watchout.gateway.wire import (
    KNOWN_TYPES,
    PlainFrames,
    Subject,
    VideoFrame,
    frame_header,
    frame_message,
    parse_text,
)

MANY_DIGITS = b"9" * 5000
JPEG = b"\xff\xd8\xff\xe0picture"

#: The smallest message of each type.
SMALLEST: dict[str, dict[str, Any]] = {
    "auth": {"token": "t"},
    "register": {},
    "video-frame": {"data": "AAAA"},
    "subscribe": {"streamId": "s"},
    "unsubscribe": {"streamId": "s"},
    "ack": {"streamId": "s", "frameId": 1},
    "acknowledge": {"streamId": "s", "alertId": "a"},
    "ping": {},
    "alert": {"severity": "low", "message": "m"},
}


def parse(**fields: Any) -> wire.AnyClientMessage:
    return parse_text(json.dumps(fields).encode())


def refusal(data: bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        parse_text(data)
    assert str(caught.value)
    return caught.value


def invalid(data: bytes) -> str:
    error = refusal(data)
    assert error.code is ErrorCode.INVALID_MESSAGE
    return error.message


# ── what a client may say ────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_does_not_show_in_what_was_parsed() -> None:
    assert "canary" not in repr(wire.parse_text(b'{"type":"auth","token":"canary"}'))


def test_every_known_type_has_a_smallest_message() -> None:
    assert set(SMALLEST) == set(KNOWN_TYPES)
    for kind, fields in SMALLEST.items():
        assert type(parse(type=kind, **fields)).__struct_config__.tag == kind


def test_auth_carries_the_token() -> None:
    assert parse(type="auth", token="a.b%2B=") == wire.Auth(token="a.b%2B=")


def test_register_carries_stream_and_wishes() -> None:
    assert parse(
        type="register", clientType="mobile", streamId="door:1", produces=["video-frame"], consumes=["alert", "demand"]
    ) == wire.Register(client_type="mobile", stream_id="door:1", produces=["video-frame"], consumes=["alert", "demand"])


def test_subscribe_carries_all_its_wishes() -> None:
    assert parse(
        type="subscribe",
        clientType="dashboard",
        streamId="door",
        consumes=["video-frame", "alert"],
        format="binary",
        maxFps=2.5,
        lastFrame=False,
        alertsSince=1000,
        window=3,
    ) == wire.Subscribe(
        client_type="dashboard",
        stream_id="door",
        consumes=["video-frame", "alert"],
        format="binary",
        max_fps=2.5,
        last_frame=False,
        alerts_since=1000,
        window=3,
    )


def test_unsubscribe_and_ack_carry_the_stream() -> None:
    assert parse(type="unsubscribe", streamId="door") == wire.Unsubscribe(stream_id="door")
    assert parse(type="ack", streamId="door", frameId=2**32 - 1) == wire.Ack(stream_id="door", frame_id=2**32 - 1)


def test_alert_carries_everything_that_it_says() -> None:
    assert parse(
        type="alert",
        streamId="door",
        severity="critical",
        message="fire",
        metadata={"confidence": 0.9, "location": {"x": 1, "y": 2}},
        timestamp=5,
        frameId=6,
        id="my-own",
    ) == wire.PublisherAlert(
        draft=AlertDraft(
            stream_id="door",
            severity="critical",
            message="fire",
            metadata={"confidence": 0.9, "location": {"x": 1, "y": 2}},
            timestamp=5,
            frame_id=6,
            more={},
            id="my-own",
        )
    )


@pytest.mark.parametrize("kind", KNOWN_TYPES)
def test_unknown_fields_are_ignored(kind: str) -> None:
    plain = parse(type=kind, **SMALLEST[kind])
    more = parse(**{"future": {"deep": [1, None, "x"]}, "": 0}, type=kind, **SMALLEST[kind], also=[[]])
    if isinstance(plain, wire.VideoFrame):
        assert isinstance(more, wire.VideoFrame)
        assert bytes(plain.data) == bytes(more.data)
        assert more.more == b',"future":{"deep": [1, null, "x"]},"":0,"also":[[]]' or b"future" in more.more
    elif isinstance(plain, wire.PublisherAlert):
        assert isinstance(more, wire.PublisherAlert)
        assert more.draft.more == {"future": {"deep": [1, None, "x"]}, "": 0, "also": [[]]}
    else:
        assert plain == more


@pytest.mark.parametrize("strange", [MANY_DIGITS, b"1e999", b"-1e999", b'"\\ud83d\\ude00"', b'"\\u0000"', b"[{}]"])
def test_unknown_fields_are_ignored_whatever_they_hold(strange: bytes) -> None:
    assert parse_text(b'{"type":"auth","token":"t","future":%b}' % strange) == wire.Auth(token="t")


@pytest.mark.parametrize("kind", KNOWN_TYPES)
def test_the_type_may_stand_anywhere(kind: str) -> None:
    parse(**SMALLEST[kind], type=kind)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind, fields in {
            "register": ["clientType", "streamId", "produces", "consumes"],
            "video-frame": ["streamId", "timestamp"],
            "subscribe": ["clientType", "consumes", "format", "maxFps", "lastFrame", "alertsSince", "window"],
            "alert": ["streamId", "timestamp", "frameId", "id", "metadata"],
        }.items()
        for field in fields
    ],
)
def test_null_means_left_out(kind: str, field: str) -> None:
    parse(type=kind, **SMALLEST[kind], **{field: None})


def test_a_time_may_be_written_with_a_fraction() -> None:
    message = parse_text(b'{"type":"video-frame","data":"AAAA","timestamp":1729943200000.0}')
    assert isinstance(message, wire.VideoFrame)
    assert message.timestamp == 1_729_943_200_000


WRONG: dict[str, dict[str, list[Any]]] = {
    "auth": {"token": [None, 5, ["t"], {}, True]},
    "register": {
        "clientType": [5, []],
        "streamId": ["", " ", "a b", "a/b", "ä", "a\n", "x" * 129, 5, ["s"], True],
        "produces": ["video-frame", [5], [None], {}, ["x" * 65], ["x"] * 33],
        "consumes": ["alert", [["alert"]], 5],
    },
    "video-frame": {
        "data": [None, 5, True, ["AAAA"], {"base64": "AAAA"}],
        "streamId": ["", "a b", 5],
        "timestamp": [-1, 2**53, "5", True, [], -0.5, 1e300],
    },
    "subscribe": {
        "clientType": [5],
        "streamId": [None, "", "a b", 5, "x" * 129],
        "consumes": ["video-frame", [5]],
        "format": ["", "JSON", "jpeg", 5],
        "maxFps": [0, -1, "5", True, 1e7, 1e-320],
        "lastFrame": ["yes", 1, 0],
        "alertsSince": [-1, "0", 2**53],
        "window": [0, -1, 1.5, "3", True, 1_000_001],
    },
    "unsubscribe": {"streamId": [None, "", 5]},
    "ack": {"streamId": [None, "a b", 5], "frameId": [None, -1, 1.5, "1", 2**32, True]},
    "alert": {
        "severity": [None, "", "LOW", "urgent", 5],
        "message": [None, "", 5, "x" * 4097],
        "streamId": ["", "a b", 5],
        "timestamp": [-1, "5", True],
        "frameId": [-1, 2**32, "1", 1.5],
        "id": ["", "a b", "ä", "x" * 129, 5],
        "metadata": ["text", [], 5],
    },
}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, field, value) for kind, fields in WRONG.items() for field, values in fields.items() for value in values],
)
def test_a_wrong_field_is_refused_by_name(kind: str, field: str, value: Any) -> None:
    reason = invalid(json.dumps({"type": kind, **SMALLEST[kind], field: value}).encode())
    assert f"$.{field}" in reason


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in SMALLEST.items() for field in fields if fields]
)
def test_a_missing_field_is_refused_by_name(kind: str, field: str) -> None:
    fields = {name: value for name, value in SMALLEST[kind].items() if name != field}
    assert f"`{field}`" in invalid(json.dumps({"type": kind, **fields}).encode())


@pytest.mark.parametrize(
    "kind", ["", "nope", "AUTH", "auth ", "status", "success", "video_frame", "x" * 10_000, "ä\x00"]
)
def test_an_unknown_type_has_a_code_of_its_own_and_names_the_known_ones(kind: str) -> None:
    error = refusal(json.dumps({"type": kind}).encode())
    assert error.code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert all(known in error.message for known in KNOWN_TYPES)
    assert len(error.message) < 500
    assert error.message.isprintable()


@pytest.mark.parametrize("kind", [None, 5, True, [], {}, ["auth"]])
def test_a_type_that_is_no_text_is_invalid(kind: Any) -> None:
    assert "`type`" in invalid(json.dumps({"type": kind}).encode())


def test_a_missing_type_is_invalid() -> None:
    assert "`type`" in invalid(b'{"TYPE":"auth","token":"t"}')


@pytest.mark.parametrize("data", [b"[]", b"5", b'"auth"', b"null", b"true", b"[{}]", b"1.5"])
def test_what_is_no_object_is_invalid(data: bytes) -> None:
    assert "object" in invalid(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"hello",
        b"{",
        b'{"type":"auth","token":"t"',
        b'{"type":"auth","token":"t"}}',
        b'{"type":"auth","token":"t"} {}',
        b"{'type':'auth','token':'t'}",
        b'{"type":"auth","token":"t",}',
        b'{"type":"auth" "token":"t"}',
        b'{"type":"auth","token":"a\nb"}',
        b'{"type":"auth","token":"\\q"}',
        b'{"type":"auth","token":"\\u12"}',
        b'{"type":"auth","token":undefined}',
    ],
)
def test_what_is_no_json_is_invalid(data: bytes) -> None:
    assert invalid(data).startswith("not JSON: ")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"type":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"nope","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"auth","token":"t","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"video-frame","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"alert","severity":"low","message":"m","metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
)
def test_deep_nesting_is_invalid_and_does_no_harm(data: bytes) -> None:
    assert "nested too deeply" in invalid(data)


@pytest.mark.parametrize(
    "data",
    [
        MANY_DIGITS,
        b'{"type":%b}' % MANY_DIGITS,
        b'{"type":"ack","streamId":"s","frameId":%b}' % MANY_DIGITS,
        b'{"type":"video-frame","data":"AAAA","timestamp":%b}' % MANY_DIGITS,
        b'{"type":"video-frame","data":%b}' % MANY_DIGITS,
        b'{"type":"subscribe","streamId":"s","maxFps":%b}' % MANY_DIGITS,
        b'{"type":"subscribe","streamId":"s","window":-%b}' % MANY_DIGITS,
        b'{"type":"alert","severity":"low","message":"m","metadata":{"n":%b}}' % MANY_DIGITS,
    ],
)
def test_a_number_of_5000_digits_is_invalid(data: bytes) -> None:
    invalid(data)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"])
@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"video-frame","data":"AAAA","timestamp":%b}',
        b'{"type":"subscribe","streamId":"s","maxFps":%b}',
        b'{"type":"alert","severity":"low","message":"m","metadata":{"n":%b}}',
    ],
)
def test_a_number_that_is_not_finite_is_invalid(frame: bytes, number: bytes) -> None:
    invalid(frame % number)


def test_of_a_field_given_twice_the_last_counts() -> None:
    assert parse_text(b'{"type":"auth","token":"a","token":"b"}') == wire.Auth(token="b")
    message = parse_text(b'{"type":"video-frame","data":"a","data":"b"}')
    assert isinstance(message, wire.VideoFrame)
    assert bytes(message.data) == b'"b"'


@pytest.mark.parametrize(
    "data", [b'{"type":"video-frame","data":"b","data":5}', b'{"type":"auth","token":"t","token":5}']
)
def test_a_field_given_twice_opens_no_back_door(data: bytes) -> None:
    invalid(data)


def test_a_byte_order_mark_is_invalid() -> None:
    invalid(b'\xef\xbb\xbf{"type":"auth","token":"t"}')


def test_a_bare_nul_is_invalid_and_an_escaped_one_is_text() -> None:
    invalid(b'{"type":"auth","token":"a\x00b"}')
    invalid(b'{"type":"auth","token":"t"}\x00')
    assert parse_text(b'{"type":"auth","token":"a\\u0000b"}') == wire.Auth(token="a\x00b")


@pytest.mark.parametrize("surrogate", [b"\\ud800", b"\\udfff", b"\\ud800\\ud800", b"\\ud800x", b"x\\ude00\\ud83d"])
@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"auth","token":"t","%b":"%b"}',
        b'{"type":"register","clientType":"%b","deviceName":"%b"}',
        b'{"type":"register","consumes":["%b"],"produces":["%b"]}',
        b'{"type":"subscribe","streamId":"s","clientType":"%b","x":["%b"]}',
        b'{"type":"unsubscribe","streamId":"s","%b":{"%b":1}}',
        b'{"type":"ack","streamId":"s","frameId":1,"%b":"%b"}',
        b'{"type":"alert","severity":"low","message":"%b","label":"%b"}',
        b'{"type":"alert","severity":"low","message":"m","metadata":{"%b":"%b"}}',
        b'{"type":"video-frame","data":"%b","note":"%b"}',
    ],
)
def test_a_lone_surrogate_is_taken_as_browsers_take_it(frame: bytes, surrogate: bytes) -> None:
    message = parse_text(frame % (surrogate, surrogate))
    if isinstance(message, wire.VideoFrame):
        assert message.data == b'"%b"' % surrogate
        assert message.more == b',"note":"%b"' % surrogate


@pytest.mark.parametrize(
    "data",
    [
        rb'{"type":"register","streamId":"a\ud800"}', rb'{"type":"subscribe","streamId":"a\ud800"}',
        rb'{"type":"video-frame","streamId":"a\ud800","data":""}',
        rb'{"type":"subscribe","streamId":"s","format":"\ud800"}',
        rb'{"type":"alert","severity":"\ud800","message":"m"}',
        rb'{"type":"alert","severity":"low","message":"m","id":"\ud800"}',
        rb'{"type":"alert","streamId":"\ud800","severity":"low","message":"m"}',
    ],
)  # fmt: skip
def test_a_lone_surrogate_where_a_name_stands_is_invalid(data: bytes) -> None:
    invalid(data)


def test_a_lone_surrogate_as_type_is_a_type_that_is_not_known() -> None:
    with pytest.raises(ClientError) as caught:
        parse_text(rb'{"type":"\ud800"}')
    assert caught.value.code is ErrorCode.UNKNOWN_MESSAGE_TYPE


NUMBERS = [
    ("1e3", 1000),
    ("1E+3", 1000),
    ("1000.0", 1000),
    ("10000e-1", 1000),
    ("-0", 0),
    ("0.0", 0),
    ("-0.0", 0),
    ("0e5", 0),
]


@pytest.mark.parametrize(
    ("text", "value"), [*NUMBERS, ("1729943200000.999", 1729943200000), ("1.7299432e12", 1729943200000)]
)
def test_a_time_may_be_written_as_any_number(text: str, value: int) -> None:
    number = text.encode()
    for data, of in (
        (b'{"type":"video-frame","data":"","timestamp":%b}', lambda m: m.timestamp),
        (b'{"type":"subscribe","streamId":"s","alertsSince":%b}', lambda m: m.alerts_since),
        (b'{"type":"alert","severity":"low","message":"m","timestamp":%b}', lambda m: m.draft.timestamp),
    ):
        assert of(parse_text(data % number)) == value


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_a_whole_number_may_be_written_in_any_form(text: str, value: int) -> None:
    number = text.encode()
    assert parse_text(b'{"type":"ack","streamId":"s","frameId":%b}' % number) == wire.Ack(stream_id="s", frame_id=value)
    alert = parse_text(b'{"type":"alert","severity":"low","message":"m","frameId":%b}' % number)
    assert isinstance(alert, wire.PublisherAlert)
    assert alert.draft.frame_id == value
    if value:
        message = parse_text(b'{"type":"subscribe","streamId":"s","window":%b,"maxFps":%b}' % (number, number))
        assert message == wire.Subscribe(stream_id="s", window=value, max_fps=value)


def test_what_a_frame_brings_beside_its_own_fields_is_kept_as_it_came() -> None:
    more = rb'"big":1234567890123456789012,"one":1.0,"n":{"a":[1e3, -0]},"e":"\u00fc\/","d":1,"id":"x"'
    odd = rb'"width": 640,"\u0077\u00fc":null,"d":0,'
    rest = b',"data":"/9j/","timestamp":5,"streamId":"s"}'
    message = parse_text(b'{"frameId":7,"type":"video-frame",' + odd + more + rest)
    assert isinstance(message, wire.VideoFrame)
    kept = b',"width":640,"w\xc3\xbc":null,"d":1,' + more.replace(b'"d":1,', b"")
    assert message.more == kept
    assert (message.stream_id, message.timestamp, message.data) == ("s", 5, b'"/9j/"')


def test_a_pair_of_surrogates_is_text() -> None:
    assert parse_text(b'{"type":"auth","token":"\\ud83d\\ude00"}') == wire.Auth(token="\U0001f600")


@pytest.mark.parametrize("broken", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"])
@pytest.mark.parametrize(
    "frame", [b"%b", b'{"type":"auth","token":"%b"}', b'{"type":"video-frame","data":"%b"}', b"{%b", b'{"type":"%b"}']
)
def test_broken_utf_8_is_told_apart(frame: bytes, broken: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        parse_text(frame % broken)


@pytest.mark.parametrize(
    "token",
    [
        b'"/9j/4AAQ"',
        b'"data:image/jpeg;base64,/9j/4AAQ"',
        b'"\\/9j\\/4AAQ\\u002b"',
        b'""',
        '"är"'.encode(),
        b'"' + b"A" * 100_000 + b'"',
    ],
)
@pytest.mark.parametrize("space", [b"", b" ", b"\n\t\r "])
def test_the_data_of_a_frame_stays_as_it_came(token: bytes, space: bytes) -> None:
    message = parse_text(
        b'{"data"%b:%b%b%b,"type":"video-frame","streamId":"s","timestamp":5}' % (space, space, token, space)
    )
    assert isinstance(message, wire.VideoFrame)
    assert bytes(message.data) == token
    assert (message.stream_id, message.timestamp) == ("s", 5)


OUTCOMES = ("taken", "broken", "INVALID_MESSAGE", "UNKNOWN_MESSAGE_TYPE")


def _outcome(data: bytes) -> str:
    try:
        message = parse_text(data)
    except ClientError as error:
        return read(wire.error(error.code, error.message, 0))["code"]
    except UnicodeDecodeError:
        return "broken"
    assert isinstance(message, wire.ClientMessage)
    return "taken"


@given(st.binary(max_size=200))
@example(b'{"type":"auth","token":"t"}')
def test_any_bytes_are_a_message_or_a_refusal_or_broken(data: bytes) -> None:
    assert _outcome(data) in OUTCOMES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({field for fields in WRONG.values() for field in fields} | {"x"})


@given(
    kind=st.sampled_from(KNOWN_TYPES) | JSON,
    fields=st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["s", "low", "json", 1]), max_size=4),
    cut=st.integers(-3, 0),
)
def test_any_json_is_a_message_or_a_refusal_or_broken(kind: Any, fields: dict[str, Any], cut: int) -> None:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False).encode(errors="surrogatepass")
    assert _outcome(data[: len(data) + cut]) in OUTCOMES


# ── what the server says ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_the_header_is_that_of_websockets(opcode: Opcode, length: int) -> None:
    payload = b"x" * length
    assert frame_header(int(opcode), length) + payload == WebSocketFrame(opcode, payload).serialize(mask=False)


@given(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.integers(0, 70_000))
@settings(max_examples=50)
def test_the_header_is_that_of_websockets_at_every_length(opcode: Opcode, length: int) -> None:
    payload = bytes(length)
    assert frame_header(int(opcode), length) + payload == WebSocketFrame(opcode, payload).serialize(mask=False)


def test_the_longest_lengths_fit_the_header() -> None:
    assert frame_header(2, 2**40) == b"\x82\x7f" + (2**40).to_bytes(8, "big")


def test_server_messages_are_json_with_type_and_timestamp() -> None:
    assert read(wire.success("done", "authenticated", 5)) == {
        "type": "success", "message": "done", "event": "authenticated", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.success("done", "subscribed", 5, Subject(stream_id="s"))) == {
        "type": "success", "message": "done", "event": "subscribed", "streamId": "s", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.error(ErrorCode.ROUTING_ERROR, "later", 5)) == {
        "type": "error", "code": "ROUTING_ERROR", "message": "later", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.status("s", "online", 5)) == {
        "type": "status", "streamId": "s", "status": "online", "timestamp": 5,
    }  # fmt: skip


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=50)
def test_any_text_can_be_said(text: str) -> None:
    assert read(wire.error(ErrorCode.INVALID_MESSAGE, text, 1))["message"] == text


def test_a_json_frame_keeps_stream_data_and_time_and_gets_a_number() -> None:
    frame = Frame("door", 7, 1234, text=b'"data:image\\/jpeg;base64,AAAA"')
    opcode, payload = unwrap(frame_message(frame, "json"))
    assert opcode is Opcode.TEXT
    assert json.loads(payload) == {
        "type": "video-frame", "streamId": "door", "frameId": 7, "timestamp": 1234,
        "data": "data:image/jpeg;base64,AAAA",
    }  # fmt: skip
    assert b'"data:image\\/jpeg;base64,AAAA"' in payload


def test_a_binary_frame_has_the_header_of_the_protocol() -> None:
    opcode, payload = unwrap(frame_message(Frame("door", 7, 1234, picture=JPEG, codec=Codec.JPEG), "binary"))
    assert opcode is Opcode.BINARY
    head = b"\x57\x01\x01\x00" + (7).to_bytes(4, "big") + (1234).to_bytes(8, "big") + b"\x01\x04door"
    assert payload == head + JPEG


def test_a_frame_is_made_once_for_each_format() -> None:
    frame = Frame("door", 1, 0, picture=JPEG)
    as_json, as_binary = frame_message(frame, "json"), frame_message(frame, "binary")
    assert frame_message(frame, "json") is as_json
    assert frame_message(frame, "binary") is as_binary
    other = Frame("door", 2, 0, picture=JPEG)
    assert frame_message(other, "json") != as_json


def test_a_frame_that_is_no_picture_still_goes_to_json_viewers() -> None:
    frame = Frame("door", 1, 0, text=b'"no picture!"')
    for _ in range(2):
        with pytest.raises(FrameFault):
            frame_message(frame, "binary")
    assert json.loads(unwrap(frame_message(frame, "json"))[1])["data"] == "no picture!"
    assert frame.binary_wire is None


# ── the envelope of a plain frame, found without a parse ─────────────────────────────────────────────────────────────

WHITE = st.sampled_from(["", "", "", " ", "\n", "\t \r"])
NUMBERS = st.one_of(
    st.integers(0, 2**53 + 10).map(str),
    st.sampled_from(["00", "-0", "1.0", "1e3", "null", '"5"', "9" * 15, "9" * 16, ""]),
)
STREAM_IDS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True).map('"{}"'.format),
    st.sampled_from(['""', "null", "5", '"a b"', f'"{"x" * 128}"', f'"{"x" * 129}"', '"a\\n"', '"ä"']),
)
BASE64 = st.binary(max_size=40).map(lambda picture: base64.b64encode(picture).decode())
ODD_TEXTS = [
    "", "no picture!", "data:abcd", "data:image/jpeg,abcd", "abc", "ab=c", "abcd\\n", "ab\ncd", "abcd\x01", 'abcd",',
    "äabc",
]  # fmt: skip
TEXTS = st.one_of(
    BASE64,
    BASE64,
    BASE64.map("data:image/jpeg;base64,{}".format),
    BASE64.map("DATA:;base64,{}".format),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=10),
)
ONE_FIELD = st.one_of(
    st.just(("type", '"video-frame"')),
    st.tuples(st.just("streamId"), STREAM_IDS),
    st.tuples(st.just("timestamp"), NUMBERS),
    st.tuples(st.just("data"), TEXTS.map('"{}"'.format)),
    st.sampled_from([("type", '"alert"'), ("type", "null"), ("clientType", '"mobile"'), ("", "1"), ("data", "null")]),
)


@st.composite
def envelopes(draw: st.DrawFn) -> bytes:
    """Something like a ``video-frame``: nearly always JSON, often a frame, often plain."""
    fields = [("type", '"video-frame"')] if draw(st.integers(0, 5)) else []
    fields += draw(st.lists(ONE_FIELD, max_size=3))
    if draw(st.integers(0, 5)):
        fields.append(("data", f'"{draw(TEXTS)}"'))
    fields += draw(st.lists(ONE_FIELD, max_size=3))
    inside = ",".join(f'{draw(WHITE)}"{name}"{draw(WHITE)}:{draw(WHITE)}{value}{draw(WHITE)}' for name, value in fields)
    text = f"{draw(WHITE)}{{{inside}}}{draw(WHITE)}"
    if not draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", '"', "}", ",", "\\", "x", "\x00"])) + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=2000)
@given(envelopes())
@example(b'{"type":"video-frame","streamId":"a","streamId":"b","data":"/9j/","timestamp":1,"timestamp":2}')
@example(b'{"type":"video-frame","data":"/9j/","data":"AAAA"}')
@example(b'{"type":"video-frame","timestamp":7,"data":"/9j/","streamId":"cam-1"}')
def test_what_is_taken_for_a_plain_frame_is_what_the_full_parser_says_it_is(data: bytes) -> None:
    same_as_parsed(PlainFrames(), data)


def same_as_parsed(frames: PlainFrames, data: bytes) -> None:
    read = frames.read(data)
    if read is None:
        return
    parsed = parse_text(data)
    assert isinstance(parsed, VideoFrame)
    assert (read.stream_id, read.timestamp) == (parsed.stream_id, parsed.timestamp)
    assert read.timestamp is None or type(read.timestamp) is int
    assert data[slice(*read.span)] == bytes(parsed.data)
    assert decode_text(data[slice(*read.span)])


@given(
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)),
    st.one_of(st.none(), st.integers(0, 10**15 - 1)),
    st.binary(min_size=1, max_size=3000),
    st.sampled_from(["", "data:image/jpeg;base64,", "data:image/webp;base64,"]),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_the_frames_that_clients_send_are_plain(
    stream: str | None, timestamp: int | None, picture: bytes, prefix: str, separators: tuple[str, str], late: bool
) -> None:
    text = {"data": prefix + base64.b64encode(picture).decode()}
    ids: dict[str, Any] = {} if stream is None else {"streamId": stream}
    times: dict[str, Any] = {} if timestamp is None else {"timestamp": timestamp}
    fields = {"type": "video-frame", **ids, **(text | times if late else times | text)}
    data = json.dumps(fields, separators=separators).encode()
    found = PlainFrames().read(data)
    assert found is not None
    assert (found.stream_id, found.timestamp) == (stream, timestamp)
    assert decode_text(data[slice(*found.span)]) == picture


HEADS = st.sampled_from(
    [
        b'{"type":"video-frame","streamId":"cam-1","data":"',
        b'{"type":"video-frame","streamId":"cam-2","data":"',
        b'{"type":"video-frame","timestamp":5,"data":"',
        b'{"type":"video-frame","data":"',
        b'{"type":"video-frame","data":"data:image/jpeg;base64,',
        b'{"type": "video-frame", "data": "',
        b"?",
        b"",
    ]
)
TAILS = st.sampled_from(
    [
        b'","timestamp":%b}' % number
        for number in (b"0", b"00", b"1", b"01", b"9" * 15, b"9" * 16, b"9" * 300, b"", b"-1", b"1.5")
    ]
    + [
        b'"}',
        b'","timestamp":5,"timestamp":6}',
        b'","streamId":"cam-3","timestamp":5}',
        b'","timestamp":5,"streamId":"cam-3"}',
    ]
    + [b'","timestamp":5} ', b'","timestamp":5', b'" ,"timestamp":5}', b'","timestamp": 5}', b'","timestamp":5}}', b""]
)
MIDDLES = st.one_of(
    st.binary(max_size=30).map(base64.b64encode),
    st.sampled_from(
        [
            b'AAAA","timestamp":7',
            b'AAAA","data":"AAAA',
            b"AAA\n",
            b"AA\x01A",
            b"A\\nAA",
            b"AAA",
            b'AAAA","timestamp":5}AAAA',
        ]
    ),
)


@settings(max_examples=1000)
@given(st.lists(st.tuples(HEADS, MIDDLES, TAILS).map(b"".join), min_size=2, max_size=5))
def test_what_one_frame_shows_of_its_envelope_misleads_about_no_other(messages: list[bytes]) -> None:
    frames = PlainFrames()
    for data in messages:
        same_as_parsed(frames, data)


def test_the_text_of_a_frame_is_held_once_when_its_message_is_made(built: bool) -> None:
    frame = Frame("cam-1", 7, 5, text=b'{"data":"/9j/"}', span=(8, 14))
    assert frame.size_bytes == 15
    wire = frame_message(frame, "json")
    assert json.loads(unwrap(wire)[1])["data"] == "/9j/"
    assert bytes(frame.text) == b'"/9j/"'
    assert frame.text.obj is wire
    assert frame.size_bytes == len(wire)
    assert frame_message(frame, "json") is wire
    assert frame.picture == b"\xff\xd8\xff"


@pytest.fixture(params=[False, True], ids=["in Python", "in C"])
def built(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the C module and without it."""
    if not request.param:
        monkeypatch.setattr(fastpath, "take", None)
        monkeypatch.setattr(wire, "json_message", wire._message_of_text)
    elif fastpath.message is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    return bool(request.param)


@pytest.mark.parametrize("size", [0, 1, 20, 40, 60, 61, 100, 65_000, 65_450, 65_460, 65_470, 70_000, 1_000_000])
@pytest.mark.parametrize("frame_id", [1, 9, 10, 2**32 - 1])
def test_a_text_message_is_the_same_from_c_and_from_python(size: int, frame_id: int, built: bool) -> None:
    text = b'"' + b"A" * size + b'"'
    for held, span in ((text, None), (b"xx" + text + b"yyy", (2, 2 + len(text)))):
        frame = Frame("cam-1", frame_id, frame_id * 1000, text=held, span=span)
        expected = frame.to_json()
        assert frame_message(frame, "json") == frame_header(0x1, len(expected)) + expected


@pytest.mark.parametrize("length", [0, 60, 70, 120, 200, 70_000])
def test_an_error_is_known_by_its_bytes_whatever_its_length(length: int) -> None:
    assert wire.is_error(wire.error(ErrorCode.INVALID_MESSAGE, "x" * length, 1))
    assert not wire.is_error(wire.success("x" * length, "registered", 1))
    assert not wire.is_error(wire.text_message(b""))
