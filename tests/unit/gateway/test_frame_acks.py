"""Acknowledgements of a camera's frames: which frames, with which numbers, and how many messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.kit.client_dialogues import JPEG, frame_head, registered, text_frame
from tests.kit.playbook import (
    START_MS,
    Event,
    Playbook,
    closes,
    error,
    read,
    says,
    sends_binary,
    sends_text,
    success,
)
from watchout.common.errors import ClientError, CloseCode
from watchout.common.settings import Settings
from watchout.gateway import wire
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.client.commands import (
    AcknowledgeFrame,
    ChangePublication,
    Command,
    PublicationOptions,
    PublishFrame,
    Reply,
)
from watchout.gateway.client.frame_acks import FrameAcks
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.quotas import Allowance


class Socket:
    """A socket that keeps what it is to send."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_ack(self, message: bytes) -> None:
        self.sent.append(read(message))


def acks(socket: Socket) -> FrameAcks:
    return FrameAcks(cast("ClientSocket", socket))


async def test_one_message_acknowledges_all_frames_of_a_turn() -> None:
    socket = Socket()
    made = acks(socket)
    made.stream = "door"
    for number in range(1, 6):
        made.add(number, number * 100)
    assert socket.sent == []
    await asyncio.sleep(0)
    assert socket.sent == [{"type": "ack", "streamId": "door", "frameId": 5, "timestamp": 500, "received": 5}]
    made.add(6, 600)
    await asyncio.sleep(0)
    assert [(ack["frameId"], ack["received"]) for ack in socket.sent] == [(5, 5), (6, 6)]


async def test_an_acknowledgement_is_about_the_stream_at_the_time_of_its_frame() -> None:
    socket = Socket()
    made = acks(socket)
    made.add(1, 1)
    made.stream = "door"
    made.add(2, 2)
    made.stream = None
    made.add(3, 3)
    await asyncio.sleep(0)
    assert [(ack["streamId"], ack["frameId"], ack["received"]) for ack in socket.sent] == [("door", 2, 1)]


def windowed(**fields: Any) -> Playbook:
    """A camera that registered with a window."""
    talk = registered()
    talk = talk >> says(type="register", produces=["video-frame"], window=2, **fields)
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    return talk << ChangePublication(PublicationOptions(producing=True, acknowledges=True, window=2))


def test_the_registration_says_whether_frames_are_acknowledged() -> None:
    talk = windowed()
    assert talk.session.registration is not None
    assert talk.session.registration.acknowledges
    talk = talk >> says(type="register", produces=["video-frame"])
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    assert talk << ChangePublication(PublicationOptions(producing=True)), (
        "a registration replaces the one before as a whole"
    )
    assert not talk.session.registration.acknowledges
    assert PublicationOptions.__dataclass_fields__["acknowledges"].default is False


@pytest.mark.parametrize("window", [0, 33, -1, 1.5, "2", True, [1]])
def test_a_window_is_1_to_32(window: object) -> None:
    with pytest.raises(ClientError, match="window"):
        wire.parse_text(json.dumps({"type": "register", "window": window}).encode())


def test_a_frame_that_is_taken_in_needs_no_command() -> None:
    talk = windowed()
    assert talk >> says(type="video-frame", data="AAAA", timestamp=5) << text_frame(b'"AAAA"', 5)
    (command,) = talk.session.receive_binary(frame_head() + JPEG, 0, 0)
    assert isinstance(command, PublishFrame)


NAN = '{"type":"video-frame","score":NaN,"timestamp":5,"data":"%s"}'
JSON_FRAME = b'{"type":"video-frame","data":"AAAA","timestamp":5,"requestId":"r"}'
BIG = "A" * 100_000
#: Frames that are refused: the message, the code of its error, and the time in its acknowledgement.
REFUSED: list[tuple[Event, str, int]] = [
    (says(type="video-frame", streamId="other", data="AAAA", timestamp=5), "UNAUTHORIZED", 5),
    (says(type="video-frame", streamId="other", data=BIG, timestamp=5), "UNAUTHORIZED", 5),
    (says(type="video-frame", streamId="other", data=BIG, more={"x": BIG}, timestamp=5), "UNAUTHORIZED", 5),
    (says(type="video-frame", data=5, timestamp=6.5), "INVALID_MESSAGE", 6),
    (says(type="video-frame", data="AAAA", timestamp="x"), "INVALID_MESSAGE", START_MS),
    (says(type="video-frame", data="AAAA", requestId=1, timestamp=7), "INVALID_MESSAGE", 7),
    (says(data="AAAA", timestamp=7), "INVALID_MESSAGE", 7),
    (says(type=["video-frame"], data="AAAA", timestamp=7), "INVALID_MESSAGE", 7),
    (sends_binary(frame_head("other") + JPEG), "UNAUTHORIZED", 5),
    (sends_binary(frame_head("other", timestamp=0) + JPEG), "UNAUTHORIZED", START_MS),
    (sends_binary(frame_head("other", timestamp=2**53) + JPEG), "INVALID_MESSAGE", START_MS),
    (sends_binary(frame_head(codec=9) + JPEG), "INVALID_MESSAGE", 5),
    (sends_binary(b"\x57\x01\x01\x08" + frame_head()[4:] + JPEG), "INVALID_MESSAGE", 5),
    (sends_binary(b"\x57\x02" + frame_head()[2:] + JPEG), "INVALID_MESSAGE", START_MS),
    (sends_binary(frame_head()), "INVALID_MESSAGE", 5),
    (sends_binary(b"no frame"), "INVALID_MESSAGE", START_MS),
    (sends_binary(b""), "INVALID_MESSAGE", START_MS),
    # JSON in a binary message, and what is not quite JSON
    (sends_binary(JSON_FRAME.replace(b',"requestId":"r"', b"")), "INVALID_MESSAGE", 5),
    (sends_text((NAN % "AAAA").encode()), "INVALID_MESSAGE", 5),
    (sends_text((NAN % BIG).encode()), "INVALID_MESSAGE", 5),
    (sends_text((NAN % BIG).encode()[:-2]), "INVALID_MESSAGE", 5),
    (sends_text(b'\xef\xbb\xbf{"type":"video-frame","data":"AAAA","timestamp":5}'), "INVALID_MESSAGE", 5),
    (sends_text(b'{"type":"video-frame","timestamp":5,"data":"AAAA\n"}'), "INVALID_MESSAGE", 5),
    (sends_text(b'{"type":"video-frame","data":"AAAA","timestamp":5,}'), "INVALID_MESSAGE", 5),
    (sends_text(b'[{"type":"video-frame","data":"AAAA","timestamp":5}]'), "INVALID_MESSAGE", 5),
    (sends_text(b'{"a":[{"timestamp":1}],nan,"type":"video-frame","timestamp":5'), "INVALID_MESSAGE", START_MS),
    (sends_text(b"{'type': 'video-frame', 'data': 'AAAA', 'timestamp': 5}"), "INVALID_MESSAGE", 5),
    (sends_text(json.dumps(json.dumps({"type": "video-frame", "timestamp": 5})).encode()), "INVALID_MESSAGE", 5),
    (sends_text(b'{"data":"AAAA","score":NaN}'), "INVALID_MESSAGE", START_MS),
    (sends_text(b"/9j/" * 1000), "INVALID_MESSAGE", START_MS),
    (sends_text(b"/9j/" * 1000 + b'","type":"video-frame","timestamp":5}'), "INVALID_MESSAGE", 5),
]
NO_FRAMES = [
    says(type="nope"),
    says(type="alert", timestamp=5),
    says(type="register", produces=5, timestamp=5, data="AAAA"),
    says(type="telemetry", data="AAAA"),
    says(data=5),
    sends_text(b"hello"),
    sends_text(b""),
    sends_text(b'{"type":"alert","severity":"low","message":"m","score":NaN}'),
    sends_text(b'{"type":"alert","severity":"low","message":"' + BIG.encode() + b'","score":NaN}'),
    sends_text(b'{"type":"register","produces":["video-frame"],"info":{"x":NaN}}'),
    sends_binary(b'{"type":"ping"}'),
]


@pytest.mark.parametrize(("event", "code", "timestamp"), REFUSED)
def test_a_refused_frame_is_acknowledged_after_its_error(event: Event, code: str, timestamp: int) -> None:
    assert windowed() >> event << error(code) << AcknowledgeFrame(timestamp)
    assert registered() >> event << error(code), "without a window nothing is"


@pytest.mark.parametrize("event", NO_FRAMES)
def test_what_is_no_frame_is_not_acknowledged(event: Event) -> None:
    talk = windowed()
    (reply,) = event(talk.session, 0.0, 0)
    assert not isinstance(reply, AcknowledgeFrame)


def over_the_rate() -> Playbook:
    """A camera with a window whose next message is over the rate."""
    talk = windowed()
    talk.session._allowance = Allowance(Settings(message_rate=1), 0.0)
    for _ in range(2):
        talk = talk >> says(type="video-frame", data="AAAA", timestamp=1) << text_frame(b'"AAAA"', 1)
    return talk


@pytest.mark.parametrize(
    ("event", "timestamp"),
    [
        *((event, timestamp) for event, _, timestamp in REFUSED),
        (says(type="video-frame", data="AAAA", timestamp=5), 5),
        (says(type="video-frame", data=BIG, timestamp=5.5, rotation=90), 5),
        (says(type="video-frame", timestamp=5, thumbnail=BIG, data=BIG, note="é"), 5),
        (says(type="video-frame", data=BIG, timestamp="x"), START_MS),
        (says(type="video-frame", data=BIG), START_MS),
        (says(type="video-frame", data=BIG, metadata={"timestamp": 1}, timestamp=5), 5),
        (sends_binary(frame_head(timestamp=0) + JPEG), START_MS),
        (sends_binary(frame_head() + JPEG), 5),
    ],
)
def test_a_frame_over_the_rate_is_acknowledged_with_its_own_time(event: Event, timestamp: int) -> None:
    *errors, last = event(over_the_rate().session, 0.0, START_MS)
    assert last == AcknowledgeFrame(timestamp)
    assert [read(each.wire)["code"] for each in errors if isinstance(each, Reply)] == ["RATE_LIMITED"]


@pytest.mark.parametrize("event", [*NO_FRAMES, says(type="alert", message=BIG)])
def test_what_is_no_frame_is_not_acknowledged_over_the_rate(event: Event) -> None:
    (reply,) = event(over_the_rate().session, 0.0, 0)
    assert isinstance(reply, Reply)


@pytest.mark.parametrize("send", [sends_binary, sends_text])
def test_an_error_about_what_is_not_quite_json_carries_the_request_id(send: Callable[[bytes], Event]) -> None:
    text = JSON_FRAME if send is sends_binary else JSON_FRAME.replace(b":5,", b":NaN,")
    timestamp = 5 if send is sends_binary else START_MS
    assert windowed() >> send(text) << error("INVALID_MESSAGE", requestId="r") << AcknowledgeFrame(timestamp)


def test_a_frame_over_the_rate_is_acknowledged_whether_its_error_is_sent_or_not() -> None:
    talk = windowed()
    talk.session._allowance = Allowance(Settings(message_rate=1, abuse_limit=2), 0.0)
    frame = says(type="video-frame", data="AAAA", timestamp=5)
    for _ in range(2):
        talk = talk >> frame << text_frame(b'"AAAA"', 5)
    talk = talk >> frame << error("RATE_LIMITED", streamId="door") << AcknowledgeFrame(5)
    talk = talk >> frame << AcknowledgeFrame(5)
    assert talk >> frame << closes(CloseCode.POLICY), "nothing follows a close"


def test_nothing_is_acknowledged_before_a_registration() -> None:
    session = cast("ClientProtocol", registered().session)
    commands: list[Command] = session.receive_binary(b"no frame", 0, 0)
    assert len(commands) == 1
