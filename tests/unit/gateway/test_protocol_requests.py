"""A client's protocol: every answer carries the `requestId` of its message, and every error about a stream names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.client_dialogues import JPEG, frame_head, registered, subscribed
from tests.kit.playbook import (
    ANN,
    Playbook,
    alerts_failed,
    another_socket_takes,
    camera,
    closes,
    error,
    owner_is,
    read,
    right_is_lost,
    router_grants,
    router_is_silent,
    router_refuses,
    says,
    sends_binary,
    sends_text,
    session_ends,
    session_renewed,
    store_is_away,
    store_says,
    success,
    viewer,
    watches,
)
from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.common.settings import Settings
from watchout.gateway import wire
from watchout.gateway.client.commands import (
    AcknowledgeAlert,
    ChangePublication,
    ClaimStream,
    EndSubscription,
    FindStream,
    PingSilence,
    PublicationOptions,
    Publish,
    PublishFrame,
    Reply,
    SubmitAlert,
    Unpublish,
    VerifyToken,
)
from watchout.gateway.client.refused_message import read_refused
from watchout.gateway.model import Owner
from watchout.identity import Identity

TOO_LONG = "x" * 65


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_success_carries_the_request_id_of_its_message() -> None:
    assert (
        Playbook(camera(None))
        >> says(type="auth", token="t", requestId="a")
        << VerifyToken("t")
        >> store_says(ANN)
        << success("Authentication successful", requestId="a")
        >> says(type="register", streamId="door", produces=["video-frame"], requestId="b")
        << ClaimStream("door", Owner("ann"), producing=True)
        >> router_grants()
        << success("Registration successful. Stream ID: door", streamId="door", requestId="b")
        << Publish("door", Owner("ann"), 7, 1, PublicationOptions(producing=True))
        >> says(type="register", requestId="c")
        << success("Registration successful. Stream ID: door", streamId="door", requestId="c")
        << ChangePublication(PublicationOptions())
    )
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["alert"], requestId="d")
        << FindStream("door")
        >> owner_is("ann")
        << success("Subscription successful", streamId="door", requestId="d")
        << watches("door", owner="ann")
    )


def test_unsubscribe_is_answered_also_for_what_was_not_subscribed() -> None:
    talk = subscribed("door")
    (subscription,) = talk.session.subscriptions()
    done = success("Unsubscription successful", streamId="door", requestId="u")
    talk = talk >> says(type="unsubscribe", streamId="door", requestId="u") << EndSubscription(subscription) << done
    assert talk >> says(type="unsubscribe", streamId="door", requestId="u") << done
    assert talk >> says(type="unsubscribe", streamId="door") << success("Unsubscription successful", streamId="door")


def test_an_alert_with_a_request_id_is_answered_when_the_router_has_accepted_it() -> None:
    talk = registered(produces=["alert"])
    for request_id in (None, "r"):
        sent = {} if request_id is None else {"requestId": request_id}
        commands = talk.session.receive_text(
            json.dumps({"type": "alert", "severity": "low", "message": "m", "x": 1, **sent}).encode(), 0, 0
        )
        (command,) = commands
        assert isinstance(command, SubmitAlert)
        assert (command.request_id, command.draft.more) == (request_id, {"x": 1}), "the id is not passed on"
        answered = talk.session.on_alert_accepted(command, "a1", 5)
        if request_id is None:
            assert answered == []
        else:
            (reply,) = answered
            assert isinstance(reply, Reply)
            assert read(reply.wire) == {
                "type": "success", "message": "Alert accepted", "event": "alert-accepted", "streamId": "door",
                "alertId": "a1", "timestamp": 5, "requestId": "r",
            }  # fmt: skip


def test_an_acknowledgement_is_answered_with_its_request_id() -> None:
    talk = Playbook(viewer())
    data = b'{"type":"acknowledge","streamId":"door","alertId":"a1","requestId":"r"}'
    (command,) = talk.session.receive_text(data, 0, 0)
    assert command == AcknowledgeAlert("door", "a1", None, "r")
    assert isinstance(command, AcknowledgeAlert)
    (done,) = talk.session.on_acknowledged(command, Acknowledgement(user="ann", at=5), 5)
    (refused,) = talk.session.on_acknowledge_refused(command, ErrorCode.UNAUTHORIZED, "no", 0, 5)
    for reply in (done, refused):
        assert isinstance(reply, Reply)
        assert (read(reply.wire)["streamId"], read(reply.wire)["requestId"]) == ("door", "r")


def test_the_answers_of_messages_without_one_have_the_bytes_that_they_always_had() -> None:
    assert wire.success("done", "subscribed", 5, wire.Subject(stream_id="s"))[2:] == (
        b'{"type":"success","message":"done","event":"subscribed","streamId":"s","timestamp":5}'
    )
    assert wire.error(ErrorCode.ROUTING_ERROR, "later", 5)[2:] == (
        b'{"type":"error","code":"ROUTING_ERROR","message":"later","timestamp":5}'
    )


@given(st.text(max_size=64))
def test_any_text_of_64_characters_comes_back(request_id: str) -> None:
    talk = Playbook(viewer()) >> says(type="nope", requestId=request_id)
    assert talk << error("UNKNOWN_MESSAGE_TYPE", requestId=request_id)


def test_null_is_none() -> None:
    assert Playbook(viewer()) >> says(type="nope", requestId=None) << error("UNKNOWN_MESSAGE_TYPE")


# ── what is no request id ─────────────────────────────────────────────────────────────────────────────────────────

FIELDS: dict[str, dict[str, Any]] = {
    "auth": {"token": "t"},
    "register": {"streamId": "door"},
    "video-frame": {"data": "AAAA"},
    "subscribe": {"streamId": "door"},
    "unsubscribe": {"streamId": "door"},
    "ack": {"streamId": "door", "frameId": 1},
    "acknowledge": {"streamId": "door", "alertId": "a1"},
    "ping": {},
    "alert": {"severity": "low", "message": "m"},
}


@pytest.mark.parametrize("bad", [5, 1.5, True, [], {}, TOO_LONG], ids=str)
@pytest.mark.parametrize("kind", wire.KNOWN_TYPES)
def test_what_is_no_request_id_is_refused_by_name_and_does_not_come_back(kind: str, bad: object) -> None:
    with pytest.raises(ClientError, match="64 characters in `requestId`, got") as refused:
        wire.parse_text(json.dumps({"type": kind, **FIELDS[kind], "requestId": bad}).encode())
    assert refused.value.code is ErrorCode.INVALID_MESSAGE
    data = json.dumps({"type": "subscribe", "streamId": "door", "requestId": bad}).encode()
    assert Playbook(viewer()) >> sends_text(data) << error("INVALID_MESSAGE", streamId="door")


@pytest.mark.parametrize("kind", wire.KNOWN_TYPES)
def test_every_message_may_have_one(kind: str) -> None:
    message = wire.parse_text(json.dumps({"type": kind, **FIELDS[kind], "requestId": "r"}).encode())
    assert message.request_id == "r"


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "subscribe", "streamId": "door", "maxFps": "many"}, "INVALID_MESSAGE"),
        ({"type": "subscribe", "streamId": "door", "pingEvery": 4}, "INVALID_MESSAGE"),
        ({"type": "subscribe", "streamId": "door", "window": 0}, "INVALID_MESSAGE"),
        ({"type": "register", "streamId": "door"}, "INVALID_MESSAGE"),
        ({"type": "video-frame", "streamId": "door", "data": "AAAA"}, "INVALID_MESSAGE"),
        ({"type": "ack", "streamId": "door", "frameId": -1}, "INVALID_MESSAGE"),
        ({"type": "alert", "streamId": "door", "severity": "none"}, "INVALID_MESSAGE"),
        ({"type": "nope", "streamId": "door"}, "UNKNOWN_MESSAGE_TYPE"),
        ({"type": 5, "streamId": "door"}, "INVALID_MESSAGE"),
        ({"streamId": "door"}, "INVALID_MESSAGE"),
    ],
)
def test_an_error_found_in_the_message_carries_its_request_id_and_its_stream(fields: dict[str, Any], code: str) -> None:
    assert Playbook(viewer()) >> says(**fields, requestId="r") << error(code, streamId="door", requestId="r")


@pytest.mark.parametrize("stream", ["", "a b", "x" * 129, 5, None, [], "\ud83d"])
def test_what_is_no_stream_id_is_not_named(stream: object) -> None:
    data = json.dumps({"type": "subscribe", "streamId": stream, "requestId": "r"}).encode()
    reply = viewer().receive_text(data, 0, 0)
    assert isinstance(reply[0], Reply)
    said = read(reply[0].wire)
    assert "streamId" not in said
    assert said["requestId"] == "r"


@pytest.mark.parametrize(
    ("fields", "stream"),
    [
        ({"type": "video-frame", "data": "AAAA"}, "door"),
        ({"type": "video-frame", "data": 5}, "door"),
        ({"type": "video-frame", "streamId": "other", "data": "AAAA"}, "other"),
        ({"type": "alert", "severity": "low", "message": "m"}, "door"),
        ({"type": "alert", "streamId": "other", "severity": "low", "message": "m"}, "other"),
    ],
)
def test_an_error_about_a_frame_or_an_alert_names_its_stream_or_the_registered_one(
    fields: dict[str, Any], stream: str
) -> None:
    talk = registered(produces=[])
    code = "INVALID_MESSAGE" if fields.get("data") == 5 else "UNAUTHORIZED"
    assert talk >> says(**fields, requestId="r") << error(code, streamId=stream, requestId="r")


def test_an_error_about_a_binary_frame_names_its_stream() -> None:
    talk = registered()
    assert talk >> sends_binary(frame_head("other") + JPEG) << error("UNAUTHORIZED", streamId="other")
    assert talk >> sends_binary(b"\x58") << error("INVALID_MESSAGE", streamId="door")


def test_before_authentication_the_request_id_comes_back_too() -> None:
    talk = Playbook(viewer(None))
    assert (
        talk
        >> says(type="subscribe", streamId="door", requestId="r")
        << error("AUTH_REQUIRED", streamId="door", requestId="r")
    )
    assert talk >> says(type="auth", token=5, requestId="r") << error("INVALID_MESSAGE", requestId="r")
    assert talk >> says(type="ping", requestId="r") << error("AUTH_REQUIRED", requestId="r")
    failed = error("AUTH_FAILED", requestId="r")
    assert talk >> says(type="auth", token="", requestId="r") << failed << closes(CloseCode.POLICY)


def test_what_the_store_refuses_carries_it() -> None:
    asked = says(type="auth", token="t", requestId="r")
    talk = Playbook(viewer(None)) >> asked << VerifyToken("t") >> store_says(None)
    assert talk << error("AUTH_FAILED", requestId="r") << closes(CloseCode.POLICY)
    talk = Playbook(viewer(None)) >> asked << VerifyToken("t") >> store_is_away()
    assert talk << error("AUTH_UNAVAILABLE", requestId="r") << closes(CloseCode.TRY_LATER)


def test_what_the_router_refuses_or_does_not_answer_carries_it() -> None:
    find = Playbook(viewer()) >> says(type="subscribe", streamId="door", requestId="r") << FindStream("door")
    assert find >> router_is_silent() << error("ROUTING_ERROR", streamId="door", requestId="r")
    find = Playbook(viewer()) >> says(type="subscribe", streamId="door", requestId="r") << FindStream("door")
    assert find >> owner_is("bob") << error("UNAUTHORIZED", streamId="door", requestId="r")
    for event, code in ((router_refuses("UNAUTHORIZED"), "UNAUTHORIZED"), (router_is_silent(), "ROUTING_ERROR")):
        claim = Playbook(camera()) >> says(type="register", streamId="door", requestId="r")
        claim = claim << ClaimStream("door", Owner("ann"), producing=False)
        assert claim >> event << error(code, streamId="door", requestId="r")
        assert claim >> says(type="nope") << error("UNKNOWN_MESSAGE_TYPE"), "the next answer is another's"


def test_what_closes_the_socket_answers_the_message_that_waits_too() -> None:
    claim = registered() >> says(type="register", streamId="new", requestId="r")
    claim = claim << ClaimStream("new", Owner("ann"), producing=False)
    taken = error("STREAM_TAKEN_OVER", streamId="door", requestId="r")
    assert claim >> another_socket_takes("door") << taken << closes(CloseCode.TAKEN_OVER)
    find = Playbook(viewer()) >> says(type="subscribe", streamId="door", requestId="r") << FindStream("door")
    assert find >> session_ends() << error("SESSION_ENDED", requestId="r") << closes(CloseCode.SESSION_ENDED)


def test_a_permission_that_ended_meanwhile_answers_the_registration() -> None:
    settings = Settings(role_rights=(("publisher", frozenset({"publish"})),))
    ann = Identity("ann", "session-of-ann", roles=frozenset({"publisher"}))
    claim = Playbook(camera(ann, settings)) >> says(type="register", streamId="door", requestId="r")
    claim = claim << ClaimStream("door", Owner("ann"), producing=False) >> session_renewed(ANN) >> router_grants()
    claim = claim << Publish("door", Owner("ann"), 7, 1, PublicationOptions()) << Unpublish()
    assert claim << error("UNAUTHORIZED", streamId="door", requestId="r")


def test_what_ends_later_names_the_stream_and_no_request() -> None:
    talk = subscribed("door")
    (subscription,) = talk.session.subscriptions()
    lost = talk >> right_is_lost("door") << EndSubscription(subscription)
    assert lost << error("UNAUTHORIZED", streamId="door")
    talk = registered() >> another_socket_takes("door")
    assert talk << error("STREAM_TAKEN_OVER", streamId="door") << closes(CloseCode.TAKEN_OVER)


def test_alerts_that_were_not_sent_carry_it() -> None:
    talk = registered(produces=["alert"])
    subject = wire.Subject("r", "door")
    (reply,) = talk.session.on_alert_failed("no", 0, 0, subject)
    assert isinstance(reply, Reply)
    assert (read(reply.wire)["requestId"], read(reply.wire)["streamId"]) == ("r", "door")
    (reply,) = talk.session.on_alert_rate_exceeded(0, 0, subject)
    assert isinstance(reply, Reply)
    assert (read(reply.wire)["code"], read(reply.wire)["requestId"]) == ("RATE_LIMITED", "r")
    assert talk >> alerts_failed() << error("ROUTING_ERROR")


# ── rates ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_over_the_rate_every_message_with_a_request_id_is_answered_and_others_once_a_second() -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1))) >> 0.0
    for _ in range(2):
        talk = talk >> says(type="ack", streamId="a", frameId=1)
    limited = error("RATE_LIMITED", streamId="door", requestId="r")
    for _ in range(3):
        talk = talk >> says(type="subscribe", streamId="door", requestId="r") << limited
    assert talk >> says(type="subscribe", streamId="door")


def test_they_still_count_as_abuse() -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1, abuse_limit=3)))
    for _ in range(2):
        talk = talk >> says(type="ack", streamId="a", frameId=1)
    for _ in range(3):
        talk = talk >> says(type="nope", requestId="r") << error("RATE_LIMITED", requestId="r")
    assert talk >> says(type="nope", requestId="r") << closes(CloseCode.POLICY)


def test_a_frame_over_the_rate_names_the_registered_stream() -> None:
    session = registered().session
    answers = [session.receive_plain(10, 0, 0) for _ in range(10_000)]
    said = [read(reply.wire) for answer in answers for reply in answer or [] if isinstance(reply, Reply)]
    assert [(each["code"], each["streamId"]) for each in said] == [("RATE_LIMITED", "door")]


# ── ping ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ping_is_answered_by_a_pong() -> None:
    talk = Playbook(viewer())
    assert talk >> says(type="ping") << {"type": "pong"}
    assert talk >> says(type="ping", requestId="r", more=[1]) << {"type": "pong", "requestId": "r"}


def test_one_ping_a_second_is_free_of_the_message_rate() -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1)))
    for _ in range(2):  # the burst
        talk = talk >> says(type="ack", streamId="a", frameId=1)
    assert talk >> says(type="ping") << {"type": "pong"}
    assert talk >> says(type="ping") << error("RATE_LIMITED"), "the second within a second counts"
    for _ in range(5):  # nothing else is left of the rate each time
        talk = talk >> 1.0 >> says(type="ack", streamId="a", frameId=1)
        talk = talk >> says(type="ping") << {"type": "pong"}
    assert talk


def test_what_only_speaks_of_a_ping_is_not_free() -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1)))
    for _ in range(2):
        talk = talk >> says(type="ack", streamId="ping", frameId=1)
    assert talk >> says(type="ack", streamId="ping", frameId=1) << error("RATE_LIMITED", streamId="ping")


def test_ping_every_is_asked_for_with_what_succeeds() -> None:
    asked = Playbook(camera(None)) >> says(type="auth", token="t", pingEvery=5) << VerifyToken("t")
    talk = asked >> store_says(ANN) << success("Authentication successful") << PingSilence(5)
    talk = talk >> says(type="register", streamId="door", pingEvery=60)
    talk = talk << ClaimStream("door", Owner("ann"), producing=False) >> router_grants()
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    talk = talk << Publish("door", Owner("ann"), 7, 1, PublicationOptions()) << PingSilence(60)
    talk = talk >> says(type="register", pingEvery=5.5)
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    assert talk << ChangePublication(PublicationOptions()) << PingSilence(5.5)
    find = Playbook(viewer()) >> says(type="subscribe", streamId="door", pingEvery=7) << FindStream("door")
    assert find >> owner_is("bob") << error("UNAUTHORIZED"), "what is refused changes nothing"


@pytest.mark.parametrize("seconds", [0, 4.99, 60.5, -5, "10", True, [5]])
@pytest.mark.parametrize("kind", ["auth", "register", "subscribe"])
def test_a_silence_is_5_to_60_seconds(kind: str, seconds: object) -> None:
    with pytest.raises(ClientError, match="pingEvery"):
        wire.parse_text(json.dumps({"type": kind, **FIELDS[kind], "pingEvery": seconds}).encode())


# ── reading of what is refused ────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=80))
def test_any_bytes_are_read(data: bytes) -> None:
    assert read_refused(data, "door").subject.request_id is None or b"requestId" in data or b"\\u" in data


def test_the_time_of_a_refused_frame_is_read() -> None:
    def time_of(text: bytes) -> tuple[bool, int | None]:
        found = read_refused(text, None)
        return found.is_frame, found.timestamp

    assert time_of(b'{"type":"video-frame","timestamp":5.9}') == (True, 5)
    assert time_of(b'{"type":"video-frame","timestamp":"5"}') == (True, None)
    assert time_of(b'{"type":"video-frame","timestamp":-5}') == (True, None)
    assert time_of(b'{"type":"alert","timestamp":5}') == (False, None)


def test_a_frame_with_a_request_id_is_a_frame_and_does_not_pass_it_on() -> None:
    message = b'{"type":"video-frame","streamId":"door","data":"AAAA","requestId":"r","rotation":90}'
    (command,) = registered().session.receive_text(message, 0, 0)
    assert isinstance(command, PublishFrame)
    assert command.more == b',"rotation":90'
