"""The bus, byte for byte: every message and the frame header come back as they went, and nothing else comes through."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.frames import (
    EVERYBODY,
    FORM_JSON_TEXT,
    FORM_PICTURE,
    MAX_FRAME_HEAD_BYTES,
    BusFrame,
    decode_frame,
    read_frame_head,
)
from watchout.common.bus.messages import (
    MAX_CONTROL_BYTES,
    MAX_COVERAGE_ROWS,
    VERSION,
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    AlertNotification,
    AlertScope,
    AlertStamps,
    AskWhy,
    BadFrame,
    BurnRow,
    Bye,
    Claim,
    ClockRow,
    CoverageReport,
    CreateShare,
    EndShare,
    Envelope,
    ErrorForPublisher,
    FetchNewest,
    FetchPicture,
    Forward,
    FromMember,
    FromRouter,
    GrantedReply,
    Hello,
    HopRow,
    Interest,
    LatencyReport,
    LatencyRow,
    LinkReport,
    LinkRow,
    MemberHeartbeat,
    Message,
    OwnerLookup,
    OwnerReply,
    PublicationState,
    Query,
    QueryReply,
    RaiseAlert,
    RefusedReply,
    Rejoin,
    Release,
    ReservationEnded,
    ReservationReport,
    Revoke,
    RouterHeartbeat,
    SendNewest,
    SlotsDiffer,
    SnapshotEnd,
    StatusUpdate,
    StreamReport,
    Unreserve,
    Welcome,
    WhyAnswered,
    decode_from_member,
    decode_from_router,
    encode,
)
from watchout.common.bus.messages.fields import MAX_EPOCH, MAX_TERM
from watchout.common.errors import BusError

ALERT = Alert(id="a1", stream_id="cam-1", severity="high", message="fire", timestamp=1_700_000_000_000)
FULL_ALERT = Alert(
    id="a2", stream_id="cam-1", severity="low", message="ünïcode", timestamp=0, frame_id=2**32 - 1,
    metadata={"confidence": 0.5, "location": {"x": 1, "y": -2}, "tags": ["a", None, True]},
)  # fmt: skip

FROM_MEMBER: list[FromMember] = [
    Hello(kind="gateway", name="gateway.1", pid=1),
    Hello(kind="mlbridge", name="", pid=2**63 - 1, group="night", max_fps=0.5),
    Hello(kind="gateway", name="gateway.1", pid=1, slots=4),
    PublicationState(
        stream="cam-1", user="u", term=2**62, status="streaming", producing=True, wants_alerts=False,
        frame_id=2**32 - 1, total_frames=9, fps=29.97, started_at=1_700_000_000_000, last_frame_at=2**53 - 1,
    ),
    PublicationState(
        stream="c" * 128, user="", term=0, status="online", producing=False, wants_alerts=True,
        frame_id=0, total_frames=0, fps=0.0, started_at=0,
    ),
    Interest(stream="cam-1", viewers=3, alert_viewers=2, max_fps=5.0, floor=17, user="u"),
    Interest(stream="cam-1", viewers=0, alert_viewers=0),
    SnapshotEnd(publications=2, interests=1),
    StreamReport(rows=[("cam-1", 7, 70, 30.0, 1_700_000_000_000), ("cam-2", 0, 0, 0.0, None)]),
    StreamReport(rows=[]),
    MemberHeartbeat(metrics={"sockets": 12.0}),
    CoverageReport(rows=[("cam-1", 0.5), ("cam-2", 0.0), ("cam-3", 1.0)]),
    CoverageReport(rows=[]),
    LatencyReport(),
    LatencyReport(
        rows=[
            LatencyRow(
                "cam-1", [HopRow(4, 812.5, 2, [120, 3, 133, 1])], [BurnRow(8, 500.0, 9, 1, 90, 2)], 7,
                ClockRow(3000.0, 4.5, 12.0, 30.0, 1),
            ),
            LatencyRow("cam-2", [], clock=ClockRow(unknown="no round trip")),
        ],
        total=LatencyRow("", [HopRow(99, 0.0, 0, [])]),
        since_start=[HopRow(1, 5.25, 0, [70, 1])],
    ),
    WhyAnswered(request=1, body=b"\x80"),
    LinkReport(rows=[]),
    LinkReport(rows=[LinkRow("tls:10.0.0.1:7400/f-abcdefgh", False, 0.0, 0.0, 3, 2, 99, "refused")], total=7),
    Claim(request=1, stream="cam-1", user="u"),
    Claim(request=1, stream="cam-1", user="u", producing=True, floor=5),
    Claim(request=1, stream="cam-1", user="u", granted=True),
    Query(request=2, what="alerts", scope=AlertScope(user="", any_owner=True, streams=("cam-*", "d?or"))),
    Query(request=2, what="alerts", scope=AlertScope(user="", streams=())),
    Release(stream="cam-1", term=3, frame_id=5),
    OwnerLookup(request=7, stream="cam-1"),
    FetchNewest(stream="cam-1"),
    RaiseAlert(request=8, alert=ALERT),
    RaiseAlert(request=9, alert=FULL_ALERT),
    RaiseAlert(request=10, alert=ALERT, stamps=AlertStamps(1, 2, None, 4)),
    AcknowledgeRequest(request=9, alert=ALERT, user="ann"),
    AcknowledgeRequest(
        request=9, alert=FULL_ALERT, user="ann", note="é" * 1000, term=2**62, owner="bob", accepted_at=1, at=2**53 - 1
    ),
    Query(request=2, what="alerts", or_acknowledged=True),
    CreateShare(request=1, id="a" * 22, stream="cam-1", user="u", seconds=60),
    CreateShare(request=1, id="-_" * 11, stream="cam-1", user="u", seconds=2**32, alerts=True),
    EndShare(request=1, id="a" * 22, stream="cam-1", user="u"),
    Query(request=1, what="shares", ids=("a" * 22,)),
    BadFrame(stream="cam-1", frame_id=4, reason="data is not base64"),
    ReservationReport(rows=[("cam-1", "ann", ("acme",), 2**62, 7, 1.5), ("cam-2", "bob", (), 1, 0, 0.0)]),
    Unreserve(request=1, stream="cam-1"),
    Query(request=1, what="stats"),
    Query(request=1, what="reservations", user="ann"),
    Query(request=3, what="alert", id="a1"),
    FetchPicture(stream="cam-1", term=9, frame_id=4),
    Query(request=2, what="alerts", stream="cam-1", since=5, limit=1000),
    Bye(),
]  # fmt: skip
FROM_ROUTER: list[FromRouter] = [
    Welcome(),
    Welcome(attempt=3, level=1),
    Welcome(attempt=3, level=1, frames_at="unix:f-abcdefgh"),
    SlotsDiffer(slots=4),
    SlotsDiffer(attempt=3, slots=2),
    Rejoin(),
    RouterHeartbeat(),
    GrantedReply(request=1, stream="cam-1", term=2**62, first_frame_id=1),
    GrantedReply(request=1, stream="cam-1", term=1, first_frame_id=1, user="ann", organizations=("acme",)),
    RefusedReply(request=1, code="UNAUTHORIZED", message="this stream belongs to another user"),
    OwnerReply(request=1, stream="cam-1", status="offline"),
    OwnerReply(request=1, stream="cam-1", status="online", user="u"),
    AcceptedReply(request=1, id="a1"),
    AcceptedReply(request=1, id="a1", at=1_700_000_000_000),
    AcceptedReply(request=1, id="a1", duplicate=True, receivers=4),
    QueryReply(request=1, body={"totals": {"producers": 1}, "streams": [None, 1.5, "x"]}),
    Forward(stream="cam-1", term=1, wanted=True, max_fps=2.0),
    Forward(stream="cam-1", term=1, wanted=False),
    SendNewest(stream="cam-1", to="00112233445566ff"),
    Revoke(stream="cam-1", term=1),
    StatusUpdate(stream="cam-1", status="online", timestamp=1, term=2, user="u"),
    StatusUpdate(stream="cam-1", status="offline", timestamp=1),
    AlertNotification(alert=FULL_ALERT),
    AlertNotification(alert=FULL_ALERT, stamps=AlertStamps(None, None, 3, 4, 5)),
    AlertNotification(alert=ALERT, at=1, acknowledgement=Acknowledgement(user="ann", at=2, note="n"), repeated=True),
    AlertNotification(alert=ALERT, at=1, age=0),
    AcknowledgedReply(request=1, acknowledgement=Acknowledgement(user="ann", at=2)),
    AcknowledgedReply(request=1, acknowledgement=Acknowledgement(user="ann", at=2, note="n"), duplicate=True),
    ReservationEnded(stream="cam-1", term=7),
    ErrorForPublisher(stream="cam-1", code="INVALID_MESSAGE", message="data is not base64"),
    AskWhy(request=1, about="cam-1"),
]


def name(message: Message) -> str:
    return type(message).__name__


# ── control messages ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("message", FROM_MEMBER, ids=name)
def test_a_members_message_is_decoded_as_it_was_encoded(message: FromMember) -> None:
    assert decode_from_member(encode(5, 3, message)) == Envelope(5, 3, message)


def test_bytes_in_an_answer_arrive_as_bytes() -> None:
    answer = QueryReply(request=1, body=[("a1", None, b'{"message":"\xc3\xa9"}', 7)])
    (row,) = decode_from_router(encode(5, 3, answer)).body.body  # type: ignore[union-attr]
    assert list(row) == ["a1", None, b'{"message":"\xc3\xa9"}', 7]


@pytest.mark.parametrize("message", FROM_ROUTER, ids=name)
def test_a_routers_message_is_decoded_as_it_was_encoded(message: FromRouter) -> None:
    assert decode_from_router(encode(5, 3, message)) == Envelope(5, 3, message)


@pytest.mark.parametrize(
    "rows", [[("cam-1", 1.01)], [("cam-1", -0.1)], [("no id!", 0.5)], [("cam-1", 0.5)] * (MAX_COVERAGE_ROWS + 1)]
)
def test_a_coverage_that_cannot_be_is_refused(rows: list[tuple[str, float]]) -> None:
    with pytest.raises(BusError):
        decode_from_member(encode(5, 3, CoverageReport(rows=rows)))


def test_no_message_is_missing_in_this_file() -> None:
    assert {type(message) for message in FROM_MEMBER} == set(get_args(FromMember))
    assert {type(message) for message in FROM_ROUTER} == set(get_args(FromRouter))


def test_every_message_has_a_tag_of_its_own_and_goes_one_way() -> None:
    classes = [*get_args(FromMember), *get_args(FromRouter)]
    tags = [kind.__struct_config__.tag for kind in classes]
    assert sorted(tags) == sorted(set(tags))
    assert set(classes) == set(Message.__subclasses__())


@pytest.mark.parametrize("message", FROM_MEMBER, ids=name)
def test_a_member_refuses_messages_of_members(message: FromMember) -> None:
    with pytest.raises(BusError):
        decode_from_router(encode(1, 1, message))


@pytest.mark.parametrize("message", FROM_ROUTER, ids=name)
def test_the_router_refuses_messages_of_routers(message: FromRouter) -> None:
    with pytest.raises(BusError):
        decode_from_member(encode(1, 1, message))


@pytest.mark.parametrize(
    ("message", "quoted"),
    [
        (Welcome(), "94 01 05 03 81 a174 a777656c636f6d65"),
        (Bye(), "94 01 05 03 81 a174 a3627965"),
        (
            OwnerLookup(request=7, stream="cam-1"),
            "94 01 05 03 83 a174 a66c6f6f6b7570 a772657175657374 07 a673747265616d a563616d2d31",
        ),
        (
            Interest(stream="cam-1", viewers=2, alert_viewers=0, max_fps=2.5),
            (
                "94 01 05 03 85 a174 a8696e746572657374 a673747265616d a563616d2d31 a776696577657273 02"
                "ad616c6572745f76696577657273 00 a76d61785f667073 cb4004000000000000"
            ),
        ),
        (
            GrantedReply(request=1, stream="cam-1", term=5 << 20 | 1, first_frame_id=1),
            (
                "94 01 05 03 85 a174 a76772616e746564 a772657175657374 01 a673747265616d a563616d2d31 a47465726d"
                "ce00500001 ae66697273745f6672616d655f6964 01"
            ),
        ),
    ],
    ids=lambda value: name(value) if isinstance(value, Message) else "",
)
def test_a_control_message_has_the_bytes_that_the_docs_quote(message: Any, quoted: str) -> None:
    assert encode(5, 3, message).hex() == quoted.replace(" ", "")


def test_the_bus_page_quotes_a_message_as_it_is() -> None:
    page = (Path(__file__).parents[4] / "docs/bus.md").read_text(encoding="utf-8")
    assert encode(5, 3, OwnerLookup(request=7, stream="cam-1")).hex() in page.replace(" ", "")


@pytest.mark.parametrize("decode", [decode_from_member, decode_from_router])
def test_an_epoch_that_no_router_can_have_is_refused_with_both_numbers(decode: Any) -> None:
    body = {"t": "bye"} if decode is decode_from_member else {"t": "rejoin"}
    for epoch in (0, MAX_EPOCH - 1):
        assert decode(msgpack.packb([VERSION, epoch, 0, body])).epoch == epoch
    for epoch in (MAX_EPOCH, 2**64 - 1):
        with pytest.raises(BusError, match=f"epoch {epoch}, expected below {MAX_EPOCH}"):
            decode(msgpack.packb([VERSION, epoch, 0, body]))


@pytest.mark.parametrize("term", [MAX_TERM, 2**64 - 1])
def test_a_frame_of_a_term_that_no_router_can_grant_is_refused_with_both_numbers(term: int) -> None:
    data = BusFrame("cam-1", term, 7, 1, FORM_PICTURE, 1, b"\xff\xd8\xff").encode()
    with pytest.raises(BusError, match=f"term {term}, expected below {MAX_TERM}"):
        read_frame_head(data)


def test_a_field_that_the_reader_does_not_know_is_ignored() -> None:
    data = msgpack.packb([VERSION, 1, 1, {"t": "newest", "stream": "cam-1", "later": [1]}])
    assert decode_from_member(data).body == FetchNewest(stream="cam-1")


@pytest.mark.parametrize("version", [0, VERSION + 1, 2**32])
def test_another_version_is_refused_with_both_numbers(version: int) -> None:
    with pytest.raises(BusError, match=f"bus version {version}, expected {VERSION}"):
        decode_from_member(msgpack.packb([version, 1, 1, {"t": "bye"}]))


@pytest.mark.parametrize(
    "value",
    [
        None, 1, "x", b"x", {}, [], [1], [VERSION, 1, 1], [VERSION, 1, 1, {"t": "bye"}, 0],
        [VERSION, -1, 1, {"t": "bye"}], [VERSION, 1, -1, {"t": "bye"}], [VERSION, "1", 1, {"t": "bye"}],
        [VERSION, 1, 1.5, {"t": "bye"}], ["1", 1, 1, {"t": "bye"}], {0: VERSION, 1: 1, 2: 1, 3: {"t": "bye"}},
        [VERSION, 1, 1, None], [VERSION, 1, 1, []], [VERSION, 1, 1, {}], [VERSION, 1, 1, {"t": "nonsense"}],
        [VERSION, 1, 1, {"t": 7}], [VERSION, 1, 1, {b"t": b"bye"}], [VERSION, 1, 1, {b"t": "bye"}],
        [VERSION, 1, 1, {"t": "newest"}], [VERSION, 1, 1, {"t": "newest", "stream": 7}],
        [VERSION, 1, 1, {"t": "newest", "stream": ""}], [VERSION, 1, 1, {"t": "newest", "stream": "c" * 129}],
        [VERSION, 1, 1, {"t": "newest", "stream": "a\n"}], [VERSION, 1, 1, {"t": "newest", "stream": "ü"}],
        [VERSION, 1, 1, {"t": "release", "stream": "a", "term": -1}],
        [VERSION, 1, 1, {"t": "release", "stream": "a", "term": 2**63}],
        [VERSION, 1, 1, {"t": "release", "stream": "a", "term": 1, "frame_id": 2**32}],
        [VERSION, 1, 1, {"t": "interest", "stream": "a", "viewers": 1, "alert_viewers": 0, "max_fps": 0}],
        [VERSION, 1, 1, {"t": "hello", "kind": "stranger", "name": "", "pid": 1}],
        [VERSION, 1, 1, {"t": "report", "rows": [["a", 1, 1, 1.0]]}],
        [VERSION, 1, 1, {"t": "query", "request": 1, "what": "stats", "limit": 1001}],
        [VERSION, 1, 1, {"t": "heartbeat", "figures": {"x": "many"}}],
    ],
    ids=repr,
)  # fmt: skip
def test_a_wrong_shape_is_refused(value: object) -> None:
    with pytest.raises(BusError):
        decode_from_member(msgpack.packb(value))


@pytest.mark.parametrize(
    "body",
    [
        {"t": "sendnewest", "stream": "a", "to": "00112233445566FF"},
        {"t": "sendnewest", "stream": "a", "to": "00112233445566ff\n"},
        {"t": "sendnewest", "stream": "a", "to": "0011"},
        {"t": "status", "stream": "a", "status": "gone", "timestamp": 1},
        {"t": "notify", "alert": {"id": "a 1", "streamId": "a", "severity": "low", "message": "x", "timestamp": 1}},
    ],
    ids=repr,
)
def test_a_wrong_field_of_the_routers_is_refused(body: object) -> None:
    with pytest.raises(BusError):
        decode_from_router(msgpack.packb([VERSION, 1, 1, body]))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (3, "Expected `object`, got `int`"),
        ({"t": "nonsense"}, "Invalid value 'nonsense' - at `$.t`"),
        ({"t": "newest"}, "Object missing required field `stream`"),
        ({"t": "newest", "stream": 7}, "Expected `str`, got `int` - at `$.stream`"),
        ({"t": "heartbeat", "figures": {"x": "many"}}, "Expected `float`, got `str` - at `$.figures[...]`"),
    ],
)
def test_a_wrong_message_is_told_with_the_place_in_it(body: object, says: str) -> None:
    with pytest.raises(BusError) as caught:
        decode_from_member(msgpack.packb([VERSION, 1, 1, body]))
    assert str(caught.value) == says


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x94\x01", b"\xff" * 100, b"\x91" * 5000, b"\xd6\xff1234"], ids=len)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BusError):
        decode_from_member(data)


def test_bytes_after_a_message_are_refused() -> None:
    with pytest.raises(BusError, match="not msgpack"):
        decode_from_member(encode(1, 1, Bye()) + b"\x00")


def test_a_message_over_the_limit_is_refused_on_both_sides() -> None:
    with pytest.raises(BusError, match=r"^QueryReply has \d+ bytes, expected at most 16777216$"):
        encode(1, 1, QueryReply(request=1, body=["x" * (1 << 20)] * 16))
    with pytest.raises(BusError, match="control message of 16777217 bytes, expected at most 16777216"):
        decode_from_router(bytes(MAX_CONTROL_BYTES + 1))


def test_a_full_report_and_the_largest_alert_stay_far_below_the_limit() -> None:
    from watchout.common.alerts.model import MAX_METADATA_BYTES
    from watchout.common.bus.messages import REPORT_CHUNK

    row = ("c" * 128, 2**32 - 1, 2**63 - 1, 1e6, 2**53 - 1)
    assert len(encode(2**62, 2**62, StreamReport(rows=[row] * REPORT_CHUNK))) < MAX_CONTROL_BYTES / 50
    large = ALERT.changed(message="😀" * 4096, metadata={"x": "y" * MAX_METADATA_BYTES})
    assert len(encode(2**62, 2**62, AlertNotification(alert=large))) < MAX_CONTROL_BYTES / 50


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=8), st.binary(max_size=8)
)
KEYS = st.one_of(
    st.sampled_from(["t", "stream", "term", "request", "user", "alert"]), st.text(max_size=4), st.binary(max_size=3)
)
TAGS = [kind.__struct_config__.tag for kind in (*get_args(FromMember), *get_args(FromRouter))]
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
BODIES = st.one_of(
    VALUES,
    st.builds(
        lambda tag, fields: {**fields, "t": tag},
        st.sampled_from(TAGS),
        st.dictionaries(
            st.sampled_from(
                ["stream", "term", "request", "user", "alert", "rows", "figures", "what", "body", "frame_id"]
            ),
            st.one_of(VALUES, st.just("cam-1"), st.just(1)),
        ),
    ),
)


def judge(data: bytes) -> None:
    for decode in (decode_from_member, decode_from_router):
        try:
            got = decode(data)
        except BusError:
            continue
        assert isinstance(got, Envelope)
        assert got.epoch >= 0
        assert got.seq >= 0


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_fault(data: bytes) -> None:
    judge(data)


@settings(max_examples=300)
@given(BODIES)
def test_any_body_is_a_message_or_a_fault(body: object) -> None:
    judge(msgpack.packb([VERSION, 1, 1, body]))


@settings(max_examples=100)
@given(VALUES)
def test_any_value_is_a_message_or_a_fault(value: object) -> None:
    judge(msgpack.packb(value))


@settings(max_examples=200)
@given(st.sampled_from([*FROM_MEMBER, *FROM_ROUTER]), st.integers(0, 10_000), st.integers(0, 255))
def test_a_message_with_one_byte_changed_is_a_message_or_a_fault(message: Message, at: int, byte: int) -> None:
    data = bytearray(encode(5, 3, message))
    data[at % len(data)] = byte
    judge(bytes(data))


@settings(max_examples=100)
@given(st.sampled_from([*FROM_MEMBER, *FROM_ROUTER]), st.integers(0, 10_000))
def test_a_message_cut_short_is_a_fault(message: Message, at: int) -> None:
    data = encode(5, 3, message)
    for decode in (decode_from_member, decode_from_router):
        with pytest.raises(BusError):
            decode(data[: at % len(data)])


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

FRAMES = st.builds(
    BusFrame,
    stream=st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True),
    term=st.integers(0, MAX_TERM - 1),
    frame_id=st.integers(0, 2**32 - 1),
    timestamp=st.integers(0, 2**53 - 1),
    form=st.sampled_from([FORM_JSON_TEXT, FORM_PICTURE]),
    codec=st.integers(0, 3),
    payload=st.binary(max_size=64),
    to=st.binary(min_size=8, max_size=8),
)
FRAME = BusFrame("cam-1", 5 << 20 | 1, 7, 1_700_000_000_000, FORM_PICTURE, 1, b"\xff\xd8\xff")


def test_a_frame_has_the_bytes_that_the_docs_quote() -> None:
    quoted = (
        "46 01 01 01"  # magic, version, form, codec
        "00000007"  # frame id
        "0000018bcfe56800"  # timestamp
        "0000000000500001"  # term
        "0000000000000000"  # to everybody
        "05 63616d2d31"  # stream id
        "ffd8ff"  # payload
    )
    assert FRAME.encode().hex() == quoted.replace(" ", "")


@settings(max_examples=200)
@given(FRAMES)
def test_a_frame_arrives_as_it_went_whole_or_in_parts(frame: BusFrame) -> None:
    data = frame.encode()
    assert decode_frame(data) == frame
    assert b"".join(frame.parts()) == data
    assert len(frame.parts()[0]) <= MAX_FRAME_HEAD_BYTES


@given(FRAMES)
@settings(max_examples=100)
def test_the_router_reads_the_head_and_leaves_the_payload(frame: BusFrame) -> None:
    data = frame.encode()
    head = read_frame_head(data)
    assert data[head.payload_at :] == frame.payload
    assert (head.stream, head.term, head.frame_id, head.to) == (frame.stream, frame.term, frame.frame_id, frame.to)
    assert (head.timestamp, head.form, head.codec) == (frame.timestamp, frame.form, frame.codec)


def test_a_frame_is_for_every_member_unless_it_names_one() -> None:
    assert read_frame_head(FRAME.encode()).to == EVERYBODY == bytes(8)


def test_a_head_that_is_cut_anywhere_is_refused() -> None:
    data = FRAME.encode()
    for length in range(len(data) - len(FRAME.payload)):
        with pytest.raises(BusError):
            read_frame_head(data[:length])
    assert decode_frame(data[: -len(FRAME.payload)]).payload == b""


@pytest.mark.parametrize(
    ("at", "byte", "says"),
    [
        (0, 0x57, "magic 0x57"),
        (1, 2, "version 2"),
        (2, 5, "form 5"),
        (3, 4, "codec 4"),
        (32, 0, "stream id of 0 bytes"),
        (32, 200, "expected 200 in ASCII"),
        (33, 0x80, "in ASCII"),
    ],
)
def test_a_wrong_field_of_a_head_is_named(at: int, byte: int, says: str) -> None:
    data = bytearray(FRAME.encode())
    data[at] = byte
    with pytest.raises(BusError, match=says):
        read_frame_head(bytes(data))


@settings(max_examples=300)
@given(st.binary(max_size=80))
@example(b"")
@example(b"F\x01")
def test_any_bytes_are_a_frame_or_a_fault(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except BusError:
        return
    assert frame.encode() == data


@settings(max_examples=300)
@given(FRAMES, st.integers(0, 200), st.integers(0, 255), st.integers(0, 40))
def test_a_frame_that_was_changed_and_cut_is_a_frame_or_a_fault(frame: BusFrame, at: int, byte: int, cut: int) -> None:
    data = bytearray(frame.encode())
    data[at % len(data)] = byte
    data = data[: len(data) - cut]
    try:
        got = decode_frame(bytes(data))
    except BusError:
        return
    assert got.encode() == bytes(data)


@pytest.mark.parametrize("message", [*FROM_MEMBER, *FROM_ROUTER], ids=name)
def test_garbage_collection_does_not_examine_a_message(message: Any) -> None:
    """The router keeps several for each stream: a collection that examines them all stops its loop."""
    assert not gc.is_tracked(message)
