"""The bytes of the edge protocol: everything that a client may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kit.playbook import read
from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import ClientError, ErrorCode
from watchout.gateway import wire
from watchout.gateway.wire import (
    KNOWN_TYPES,
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


@pytest.mark.parametrize("opens", ["[", '{"x":'])
def test_what_is_nested_500_deep_is_taken_and_what_is_nested_without_end_is_refused(opens: str) -> None:
    closes = "]" if opens == "[" else "}"

    def frame(depth: int) -> bytes:
        return f'{{"type":"video-frame","data":"AAAA","x":{opens * depth}1{closes * depth}}}'.encode()

    assert isinstance(parse_text(frame(500)), wire.VideoFrame)
    with pytest.raises(ClientError) as refused:
        parse_text(frame(50_000))
    assert "nested too deeply" in refused.value.message
