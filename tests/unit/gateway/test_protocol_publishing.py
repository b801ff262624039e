"""A client's protocol: registration, frames and alerts of a publisher."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.kit.client_dialogues import (
    JPEG,
    frame_head,
    registered,
    subscribed,
    text_frame,
)
from tests.kit.playbook import (
    ANN,
    BOB,
    START_MS,
    Event,
    Playbook,
    alerts_failed,
    another_socket_takes,
    camera,
    closes,
    error,
    read,
    router_grants,
    router_is_silent,
    router_refuses,
    says,
    sends_binary,
    sends_text,
    success,
    viewer,
)
from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import CloseCode
from watchout.common.media.codecs import Codec
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.commands import (
    ChangePublication,
    ClaimStream,
    PublicationOptions,
    Publish,
    PublishFrame,
    Reply,
    SubmitAlert,
    Unpublish,
)
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.client.publishing_replies import Registration
from watchout.gateway.model import Owner
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds

# ── register ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_registers_the_stream_that_it_names() -> None:
    talk = registered(clientType="mobile", consumes=["alert"])
    assert talk
    assert talk.session.registration == Registration("door", producing=True, may_alert=False)


def test_a_camera_that_names_no_stream_gets_one() -> None:
    name = f"stream_{START_MS}_made1"
    assert (
        Playbook(camera())
        >> says(type="register", produces=["video-frame"])
        << ClaimStream(name, Owner("ann"), producing=True)
        >> router_grants(term=3, first_frame_id=9)
        << success(f"Registration successful. Stream ID: {name}", streamId=name)
        << Publish(name, Owner("ann"), 3, 9, PublicationOptions(producing=True))
    )


def session_of_ann(ids: StreamIds) -> ClientProtocol:
    client = AcceptedClient(
        path=camera().path,
        settings=Settings(),
        authorization=Authorization(Settings()),
        now=0.0,
        stream_ids=ids,
        identity=ANN,
    )
    return ClientProtocol(client)


def test_old_clients_can_cut_a_made_id_out_of_the_text() -> None:
    ids, made = StreamIds(bytes(KEY_BYTES)), set()
    for _ in range(200):
        session = session_of_ann(ids)
        (asked,) = session.receive_text(b'{"type":"register"}', 0.0, START_MS)
        assert isinstance(asked, ClaimStream)
        name = asked.stream
        made.add(name)
        reply, _ = session.on_claimed(1, 1, START_MS)
        assert isinstance(reply, Reply)
        told = read(reply.wire)
        found = re.search(r"Stream ID: (stream_\w+)", told["message"], re.ASCII)
        assert found is not None
        assert found[1] == told["streamId"] == name
        assert told["message"] == f"Registration successful. Stream ID: {name}"
    assert len(made) == 200


def test_an_id_that_was_made_for_another_user_is_refused_before_the_router_is_asked() -> None:
    ids = StreamIds(bytes(KEY_BYTES))
    for user, expected in (("ann", ClaimStream), ("bob", Reply)):
        register = b'{"type":"register","streamId":"%b"}' % ids.new(user, START_MS).encode()
        session = session_of_ann(ids)
        (answer,) = session.receive_text(register, 0.0, START_MS)
        assert isinstance(answer, expected)
    assert isinstance(answer, Reply)
    assert read(answer.wire)["code"] == "UNAUTHORIZED"


def test_produces_and_consumes_may_be_left_out() -> None:
    talk = (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
        >> router_grants()
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", Owner("ann"), 7, 1, PublicationOptions())
    )
    assert talk >> says(type="video-frame", data="AAAA") << error("UNAUTHORIZED")


def test_unknown_names_in_produces_and_consumes_are_ignored() -> None:
    assert registered(produces=["video-frame", "sound"], consumes=["alert", "demand", "weather"])


@pytest.mark.parametrize("stream", ["", "a b", "a/b", "ä", "x" * 129, 5])
def test_a_bad_stream_id_is_invalid(stream: Any) -> None:
    assert Playbook(camera()) >> says(type="register", streamId=stream) << error("INVALID_MESSAGE")


@pytest.mark.parametrize("stream", ["a", "A-Z_a.z:0", "x" * 128, "..", "stream_1"])
def test_a_clients_own_id_may_be_any_of_these(stream: str) -> None:
    assert (
        Playbook(camera())
        >> says(type="register", streamId=stream)
        << ClaimStream(stream, Owner("ann"), producing=False)
    )


def test_a_stream_of_another_user_is_refused_and_the_socket_stays() -> None:
    assert (
        Playbook(camera(BOB))
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("bob"), producing=False)
        >> router_refuses("UNAUTHORIZED")
        << {"type": "error", "code": "UNAUTHORIZED", "message": "no"}
        >> says(type="register", streamId="mine")
        << ClaimStream("mine", Owner("bob"), producing=False)
    )


def test_a_silent_router_is_a_routing_error_and_registering_may_be_tried_again() -> None:
    talk = (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
        >> 2.0
        >> router_is_silent()
        << error("ROUTING_ERROR")
    )
    assert talk.session.pending is None
    assert talk >> says(type="register", streamId="door") << ClaimStream("door", Owner("ann"), producing=False)


def test_a_refusal_with_a_code_that_clients_do_not_know_is_a_routing_error() -> None:
    assert (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
        >> router_refuses("SOMETHING_NEW")
        << error("ROUTING_ERROR")
    )


def test_register_on_the_subscribe_path_is_invalid() -> None:
    assert Playbook(viewer()) >> says(type="register", streamId="door") << error("INVALID_MESSAGE")


AGAIN = success("Registration successful. Stream ID: door", streamId="door")


@pytest.mark.parametrize("stream", [{}, {"streamId": "door"}, {"streamId": None}])
def test_the_same_stream_registered_again_goes_on_with_other_wishes(stream: dict[str, Any]) -> None:
    talk = registered()
    assert (
        talk
        >> says(type="register", produces=["alert"], consumes=["alert", "demand"], **stream)
        << AGAIN
        << ChangePublication(PublicationOptions(wants_alerts=True, wants_demand=True, wants_status=True))
    )
    assert talk.session.registration == Registration("door", producing=False, may_alert=True)
    assert not talk.session.may_send_plain
    assert (
        talk
        >> says(type="video-frame", data="AAAA")
        << error("UNAUTHORIZED")
        >> says(type="alert", severity="low", message="m")
        << SubmitAlert(AlertDraft(severity="low", message="m"), "door")
        >> says(type="register", produces=["video-frame"], **stream)
        << AGAIN
        << ChangePublication(PublicationOptions(producing=True))
        >> says(type="video-frame", data="AAAA", timestamp=1)
        << text_frame(b'"AAAA"', 1)
    )


def test_another_stream_registered_lets_go_of_the_first_once_it_is_granted() -> None:
    talk = registered()
    assert (
        talk
        >> says(type="video-frame", streamId="door", data="AAAA", timestamp=1)
        << text_frame(b'"AAAA"', 1)
        >> says(type="register", streamId="other", produces=["video-frame"], consumes=["alert"])
        << ClaimStream("other", Owner("ann"), producing=True)
    )
    assert talk.session.registration == Registration("door", producing=True, may_alert=False)
    assert (
        talk
        >> router_grants(term=8, first_frame_id=4)
        << Unpublish()
        << success("Registration successful. Stream ID: other", streamId="other")
        << Publish(
            "other", Owner("ann"), 8, 4, PublicationOptions(producing=True, wants_alerts=True, wants_status=True)
        )
        >> says(type="video-frame", streamId="door", data="AAAA", timestamp=1)
        << error("UNAUTHORIZED")
        >> says(type="video-frame", streamId="other", data="AAAA", timestamp=1)
        << text_frame(b'"AAAA"', 1)
        >> another_socket_takes("door")
        >> another_socket_takes("other")
        << error("STREAM_TAKEN_OVER")
        << closes(CloseCode.TAKEN_OVER)
    )


def test_a_registration_that_is_refused_leaves_the_one_that_was() -> None:
    assert (
        registered()
        >> says(type="register", streamId="other", produces=["video-frame"])
        << ClaimStream("other", Owner("ann"), producing=True)
        >> router_refuses("UNAUTHORIZED")
        << error("UNAUTHORIZED")
        >> says(type="register", streamId="a b")
        << error("INVALID_MESSAGE")
        >> says(type="video-frame", data="AAAA", timestamp=1)
        << text_frame(b'"AAAA"', 1)
    )


def test_a_camera_that_was_taken_over_is_told_and_closed_with_4501() -> None:
    assert (
        registered()
        >> another_socket_takes("door")
        << error("STREAM_TAKEN_OVER")
        << closes(CloseCode.TAKEN_OVER)
        >> says(type="video-frame", data="AAAA")
    )


def test_the_taking_over_of_another_stream_is_nothing_to_a_camera() -> None:
    assert registered() >> another_socket_takes("window")
    assert Playbook(camera()) >> another_socket_takes("door")


# ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_data_and_time_of_a_frame_go_on_as_they_came() -> None:
    assert (
        registered()
        >> sends_text(b'{"type":"video-frame","streamId":"door","data":"data:image\\/jpeg;base64,AA","timestamp":1234}')
        << text_frame(b'"data:image\\/jpeg;base64,AA"', 1234)
    )


def test_a_frame_without_stream_and_time_is_of_this_camera_and_of_now() -> None:
    talk = registered() >> 1.5 >> says(type="video-frame", data="AAAA")
    assert talk << text_frame(b'"AAAA"', START_MS + 1500)


def test_the_data_of_a_frame_is_not_looked_at() -> None:
    assert registered() >> says(type="video-frame", data="no base64!", timestamp=0) << text_frame(b'"no base64!"', 0)


def test_a_frame_for_another_stream_is_unauthorized_and_the_socket_stays() -> None:
    assert (
        registered()
        >> says(type="video-frame", streamId="window", data="AAAA")
        << error("UNAUTHORIZED")
        >> sends_binary(frame_head("window") + JPEG)
        << error("UNAUTHORIZED")
        >> says(type="video-frame", streamId="door", data="AAAA", timestamp=1)
        << text_frame(b'"AAAA"', 1)
    )


def test_a_frame_before_register_is_refused_and_the_socket_stays() -> None:
    assert (
        Playbook(camera())
        >> says(type="video-frame", data="AAAA")
        << error("INVALID_MESSAGE")
        >> sends_binary(frame_head() + JPEG)
        << error("INVALID_MESSAGE")
        >> says(type="video-frame", streamId="door", data="AAAA")
        << error("UNAUTHORIZED")
        >> sends_binary(frame_head("door") + JPEG)
        << error("UNAUTHORIZED")
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
    )


@pytest.mark.parametrize("event", [says(type="video-frame", data="AAAA"), sends_binary(frame_head() + JPEG)])
def test_frames_on_the_subscribe_path_are_invalid(event: Event) -> None:
    assert Playbook(viewer()) >> event << error("INVALID_MESSAGE")


def test_a_camera_may_mix_json_and_binary_frames() -> None:
    assert (
        registered()
        >> sends_binary(frame_head("door", timestamp=9) + JPEG)
        << PublishFrame(None, JPEG, Codec.JPEG, 9)
        >> says(type="video-frame", data="AAAA", timestamp=10)
        << text_frame(b'"AAAA"', 10)
        >> sends_binary(frame_head("", timestamp=11, codec=0) + b"?")
        << PublishFrame(None, b"?", Codec.OPAQUE, 11)
    )


def test_the_number_that_a_camera_gives_a_binary_frame_does_not_count() -> None:
    assert registered() >> sends_binary(frame_head(frame_id=99) + JPEG) << PublishFrame(None, JPEG, Codec.JPEG, 5)


def test_a_binary_frame_without_a_time_is_of_now() -> None:
    assert (
        registered() >> sends_binary(frame_head(timestamp=0) + JPEG) << PublishFrame(None, JPEG, Codec.JPEG, START_MS)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x57",
        frame_head()[:-1],
        frame_head(),
        frame_head("door"),
        b"\x58" + frame_head()[1:] + JPEG,
        b"\x57\x02" + frame_head()[2:] + JPEG,
        b"\x57\x01\x02" + frame_head()[3:] + JPEG,
        b"\x57\x01\x01\x01" + frame_head()[4:] + JPEG,
        frame_head(codec=4) + JPEG,
        frame_head(timestamp=2**53) + JPEG,
        frame_head("a b") + JPEG,
        frame_head()[:-1] + b"\xff" + JPEG,
        frame_head()[:-1] + b"\x02\xc3\xa4" + JPEG,
    ],
)
def test_a_bad_binary_message_is_invalid_and_the_socket_stays(data: bytes) -> None:
    assert (
        registered()
        >> sends_binary(data)
        << error("INVALID_MESSAGE")
        >> sends_binary(frame_head() + JPEG)
        << PublishFrame(None, JPEG, Codec.JPEG, 5)
    )


# ── alerts of a camera ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_that_produces_alerts_may_raise_one_for_its_own_stream() -> None:
    assert (
        registered(produces=["alert"])
        >> says(type="alert", severity="high", message="help")
        << SubmitAlert(AlertDraft(severity="high", message="help"), "door")
        >> says(type="alert", streamId="door", severity="low", message="m", metadata={"x": 1}, timestamp=5.0, id="a1")
        << SubmitAlert(
            AlertDraft(severity="low", message="m", metadata={"x": 1}, timestamp=5, id="a1", stream_id="door"), "door"
        )
    )


def test_a_camera_that_does_not_produce_alerts_may_not() -> None:
    assert registered() >> says(type="alert", severity="high", message="help") << error("UNAUTHORIZED")


def test_nobody_raises_alerts_for_a_stream_of_others() -> None:
    assert (
        registered(produces=["alert"])
        >> says(type="alert", streamId="window", severity="high", message="help")
        << error("UNAUTHORIZED")
    )
    assert Playbook(camera()) >> says(type="alert", severity="high", message="help") << error("UNAUTHORIZED")


def test_alerts_on_the_subscribe_path_are_invalid() -> None:
    assert subscribed() >> says(type="alert", streamId="door", severity="low", message="m") << error("INVALID_MESSAGE")


def test_an_alert_that_does_not_fit_is_invalid() -> None:
    assert (
        registered(produces=["alert"])
        >> says(type="alert", severity="urgent", message="m")
        << error("INVALID_MESSAGE")
        >> says(type="alert", severity="low", message="m", metadata={"big": "x" * 20_000})
        << error("INVALID_MESSAGE")
        >> says(type="alert", severity="low", message="m", metadata={"deep": json.loads("[" * 40 + "]" * 40)})
        << error("INVALID_MESSAGE")
        >> says(type="alert", severity="low", message="m", metadata={"n": [{}] * 5000})
        << error("INVALID_MESSAGE")
    )


def test_an_alert_that_could_not_be_handed_on_is_a_routing_error() -> None:
    assert (
        registered(produces=["alert"])
        >> says(type="alert", severity="low", message="m")
        << SubmitAlert(AlertDraft(severity="low", message="m"), "door")
        >> alerts_failed()
        << error("ROUTING_ERROR")
        >> says(type="alert", severity="low", message="m")
        << SubmitAlert(AlertDraft(severity="low", message="m"), "door")
    )
