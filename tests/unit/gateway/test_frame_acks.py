"""Acknowledgements of a camera's frames: which frames, with which numbers, and how many messages."""

from __future__ import annotations

import asyncio
import json
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


@pytest.mark.parametrize(
    ("event", "code", "timestamp"),
    [
        (says(type="video-frame", streamId="other", data="AAAA", timestamp=5), "UNAUTHORIZED", 5),
        (says(type="video-frame", data=5, timestamp=6.5), "INVALID_MESSAGE", 6),
        (says(type="video-frame", data="AAAA", timestamp="x"), "INVALID_MESSAGE", START_MS),
        (says(type="video-frame", data="AAAA", requestId=1, timestamp=7), "INVALID_MESSAGE", 7),
        (sends_binary(frame_head("other") + JPEG), "UNAUTHORIZED", START_MS),
        (sends_binary(b"no frame"), "INVALID_MESSAGE", START_MS),
    ],
)
def test_a_refused_frame_is_acknowledged_after_its_error(event: Event, code: str, timestamp: int) -> None:
    assert windowed() >> event << error(code) << AcknowledgeFrame(timestamp)
    assert registered() >> event << error(code), "without a window nothing is"


@pytest.mark.parametrize("event", [says(type="nope"), says(type="alert", timestamp=5), sends_text(b"hello")])
def test_what_is_no_frame_is_not_acknowledged(event: Event) -> None:
    talk = windowed()
    (reply,) = event(talk.session, 0.0, 0)
    assert not isinstance(reply, AcknowledgeFrame)


def test_a_frame_over_the_rate_is_acknowledged_whether_its_error_is_sent_or_not() -> None:
    talk = windowed()
    talk.session._allowance = Allowance(Settings(message_rate=1, abuse_limit=4), 0.0)
    frames: list[tuple[Event, int]] = [
        (says(type="video-frame", data="AAAA", timestamp=5), 5),
        (sends_binary(frame_head() + JPEG), START_MS),
        (says(type="video-frame", data="A" * 100_000, timestamp=5), START_MS),
    ]
    for _ in range(2):
        talk = talk >> says(type="video-frame", data="AAAA", timestamp=1) << text_frame(b'"AAAA"', 1)
    talk = talk >> frames[0][0] << error("RATE_LIMITED", streamId="door") << AcknowledgeFrame(5)
    for event, timestamp in frames:
        talk = talk >> event << AcknowledgeFrame(timestamp)
    assert talk >> frames[0][0] << closes(CloseCode.POLICY), "nothing follows a close"


def test_nothing_is_acknowledged_before_a_registration() -> None:
    session = cast("ClientProtocol", registered().session)
    commands: list[Command] = session.receive_binary(b"no frame", 0, 0)
    assert len(commands) == 1
