"""One client's conversation, as dialogues: `>>` is what happens, `<<` what is said to it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    gateway_restarts,
    lane_is_full,
    owner_is,
    pings,
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
    time_to_authenticate_is_over,
    too_many,
    viewer,
    watches,
)
from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import CloseCode, ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client.first_message import MAX_AUTH_BYTES
from watchout.gateway.client.protocol import (
    Acknowledged,
    AskClaim,
    AskOwner,
    ChangeOwner,
    ChangePublication,
    ClientProtocol,
    Close,
    Command,
    Publish,
    Registered,
    Reply,
    SendAlert,
    SendFrame,
    Unpublish,
    Unwatch,
    Verify,
    Waiting,
)
from watchout.gateway.model import Owner
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds
from watchout.identity import Identity

JPEG = b"\xff\xd8\xff\xe0picture"
PROMOTED = Identity("ann", "session-of-ann", roles=frozenset({"admin"}))
AUTHENTICATED = success("Authentication successful")


def registered(**fields: Any) -> Playbook:
    """A camera of ann that has registered the stream "door" to produce frames."""
    return (
        Playbook(camera())
        >> says(type="register", streamId="door", **{"produces": ["video-frame"], **fields})
        << AskClaim("door", Owner("ann"), producing="video-frame" in fields.get("produces", ["video-frame"]))
        >> router_grants(term=7, first_frame_id=1)
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", Owner("ann"), 7, 1, **_publishing(fields))
    )


def _publishing(fields: dict[str, Any]) -> dict[str, bool]:
    return {
        "producing": "video-frame" in fields.get("produces", ["video-frame"]),
        "wants_alerts": "alert" in fields.get("consumes", []),
        "wants_demand": "demand" in fields.get("consumes", []),
        "wants_status": bool(fields.get("consumes")),
    }


def subscribed(stream: str = "door", **fields: Any) -> Playbook:
    """A viewer of ann that has subscribed to her stream."""
    return subscribe(Playbook(viewer()), stream, **fields)


def subscribe(talk: Playbook, stream: str, **fields: Any) -> Playbook:
    return (
        talk
        >> says(type="subscribe", streamId=stream, **{"consumes": ["video-frame"], **fields})
        << AskOwner(stream)
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId=stream)
        << watches(stream, status="streaming", owner="ann")
    )


def frame_head(stream: str = "", *, frame_id: int = 0, timestamp: int = 5, codec: int = 1) -> bytes:
    head = b"\x57\x01\x01\x00" + frame_id.to_bytes(4, "big") + timestamp.to_bytes(8, "big")
    return head + bytes([codec, len(stream)]) + stream.encode()


# ── before authentication ────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_in_the_first_message_authenticates() -> None:
    talk = Playbook(viewer(None)) >> says(type="auth", token="t.sig") << Verify("t.sig")
    assert talk.session.waiting is Waiting.STORE
    assert talk >> 0.2 >> store_says(ANN) << AUTHENTICATED
    assert talk.session.waiting is None
    assert talk.session.identity == ANN


BEFORE = [
    says(type="register"),
    says(type="subscribe", streamId="door"),
    says(type="video-frame", data="AAAA"),
    says(type="unsubscribe", streamId="door"),
    says(type="ack", streamId="door", frameId=1),
    says(type="alert", severity="low", message="m"),
    says(type="nope"),
    says(type=5),
    says(),
    sends_text(b"hello"),
    sends_text(b""),
    sends_text(b"[]"),
    sends_text(b"[" * 10_000),
    sends_text(b'{"type":"auth","token":"' + b"t" * MAX_AUTH_BYTES + b'"}'),
    sends_binary(b""),
    sends_binary(frame_head() + JPEG),
]


@pytest.mark.parametrize("event", BEFORE)
@pytest.mark.parametrize("client", [camera, viewer])
def test_before_authentication_anything_else_is_told_to_authenticate_and_may(client: Any, event: Event) -> None:
    assert (
        Playbook(client(None))
        >> event
        << error("AUTH_REQUIRED")
        >> event
        << error("AUTH_REQUIRED")
        >> says(type="auth", token="t")
        << Verify("t")
        >> store_says(ANN)
        << AUTHENTICATED
    )


@pytest.mark.parametrize("message", [{}, {"token": 5}, {"token": None}, {"token": ["t"]}])
def test_an_auth_that_does_not_fit_is_invalid_and_may_be_said_again(message: dict[str, Any]) -> None:
    assert (
        Playbook(viewer(None))
        >> says(type="auth", **message)
        << error("INVALID_MESSAGE")
        >> says(type="auth", token="t")
        << Verify("t")
    )


def test_unknown_fields_of_auth_are_ignored() -> None:
    assert Playbook(viewer(None)) >> says(type="auth", token="t", clientType="web", version=2) << Verify("t")


@pytest.mark.parametrize("data", [b"\xff", b'{"type":"auth","token":"\xff"}', b"\xff" * (MAX_AUTH_BYTES + 1)])
def test_broken_utf_8_before_authentication_closes_with_1007(data: bytes) -> None:
    assert Playbook(viewer(None)) >> sends_text(data) << closes(CloseCode.INVALID_DATA)


def test_a_wrong_token_closes_with_1008() -> None:
    assert (
        Playbook(viewer(None))
        >> says(type="auth", token="wrong")
        << Verify("wrong")
        >> store_says(None)
        << error("AUTH_FAILED")
        << closes(CloseCode.POLICY)
        >> says(type="auth", token="right")
        >> store_says(ANN)
    )


def test_whoever_does_not_authenticate_in_time_is_closed_with_1008() -> None:
    assert (
        Playbook(viewer(None))
        >> 10.0
        >> time_to_authenticate_is_over()
        << error("AUTH_TIMEOUT")
        << closes(CloseCode.POLICY)
        >> says(type="auth", token="late")
    )


def test_a_token_that_is_being_looked_up_is_in_time() -> None:
    assert (
        Playbook(viewer(None))
        >> 9.9
        >> says(type="auth", token="t")
        << Verify("t")
        >> 0.1
        >> time_to_authenticate_is_over()
        >> 1.0
        >> store_says(ANN)
        << AUTHENTICATED
    )


def test_whoever_is_authenticated_has_no_timeout() -> None:
    assert Playbook(viewer()) >> 10.0 >> time_to_authenticate_is_over()


def test_a_store_that_is_away_is_not_the_clients_fault() -> None:
    assert (
        Playbook(viewer(None))
        >> says(type="auth", token="t")
        << Verify("t")
        >> store_is_away()
        << error("AUTH_UNAVAILABLE")
        << closes(CloseCode.TRY_LATER)
    )


def test_a_store_that_is_away_at_the_upgrade_closes_with_1013() -> None:
    assert Playbook(viewer(None)) >> store_is_away() << error("AUTH_UNAVAILABLE") << closes(CloseCode.TRY_LATER)


def test_a_second_auth_is_refused_and_the_socket_stays() -> None:
    assert (
        Playbook(viewer(None))
        >> says(type="auth", token="t")
        << Verify("t")
        >> store_says(ANN)
        << AUTHENTICATED
        >> says(type="auth", token="t")
        << error("ALREADY_AUTHENTICATED")
        >> says(type="subscribe", streamId="door")
        << AskOwner("door")
    )


@pytest.mark.parametrize("identity", [None, ANN])
def test_too_many_connections_close_with_1013(identity: Any) -> None:
    assert (
        Playbook(viewer(identity))
        >> too_many("of this user")
        << error("TOO_MANY_CONNECTIONS")
        << closes(CloseCode.TRY_LATER)
    )


# ── register ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_registers_the_stream_that_it_names() -> None:
    talk = registered(clientType="mobile", consumes=["alert"])
    assert talk
    assert talk.session.registered == Registered("door", producing=True, may_alert=False)


def test_a_camera_that_names_no_stream_gets_one() -> None:
    name = f"stream_{START_MS}_made1"
    assert (
        Playbook(camera())
        >> says(type="register", produces=["video-frame"])
        << AskClaim(name, Owner("ann"), producing=True)
        >> router_grants(term=3, first_frame_id=9)
        << success(f"Registration successful. Stream ID: {name}", streamId=name)
        << Publish(name, Owner("ann"), 3, 9, producing=True, wants_alerts=False)
    )


def test_old_clients_can_cut_a_made_id_out_of_the_text() -> None:
    ids, made = StreamIds(bytes(KEY_BYTES)), set()
    for _ in range(200):
        session = ClientProtocol(
            camera().path, Settings(), Authorization(Settings()), now=0.0, stream_ids=ids, identity=ANN
        )
        (asked,) = session.text(b'{"type":"register"}', 0.0, START_MS)
        assert isinstance(asked, AskClaim)
        name = asked.stream
        made.add(name)
        reply, _ = session.granted(1, 1, START_MS)
        assert isinstance(reply, Reply)
        told = read(reply.wire)
        found = re.search(r"Stream ID: (stream_\w+)", told["message"], re.ASCII)
        assert found is not None
        assert found[1] == told["streamId"] == name
        assert told["message"] == f"Registration successful. Stream ID: {name}"
    assert len(made) == 200


def test_an_id_that_was_made_for_another_user_is_refused_before_the_router_is_asked() -> None:
    ids = StreamIds(bytes(KEY_BYTES))
    for user, expected in (("ann", AskClaim), ("bob", Reply)):
        register = b'{"type":"register","streamId":"%b"}' % ids.new(user, START_MS).encode()
        session = ClientProtocol(
            camera().path, Settings(), Authorization(Settings()), now=0.0, stream_ids=ids, identity=ANN
        )
        (answer,) = session.text(register, 0.0, START_MS)
        assert isinstance(answer, expected)
    assert isinstance(answer, Reply)
    assert read(answer.wire)["code"] == "UNAUTHORIZED"


def test_produces_and_consumes_may_be_left_out() -> None:
    talk = (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
        >> router_grants()
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", Owner("ann"), 7, 1, producing=False, wants_alerts=False)
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
        Playbook(camera()) >> says(type="register", streamId=stream) << AskClaim(stream, Owner("ann"), producing=False)
    )


def test_a_stream_of_another_user_is_refused_and_the_socket_stays() -> None:
    assert (
        Playbook(camera(BOB))
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("bob"), producing=False)
        >> router_refuses("UNAUTHORIZED")
        << {"type": "error", "code": "UNAUTHORIZED", "message": "no"}
        >> says(type="register", streamId="mine")
        << AskClaim("mine", Owner("bob"), producing=False)
    )


def test_a_silent_router_is_a_routing_error_and_registering_may_be_tried_again() -> None:
    talk = (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
        >> 2.0
        >> router_is_silent()
        << error("ROUTING_ERROR")
    )
    assert talk.session.waiting is None
    assert talk >> says(type="register", streamId="door") << AskClaim("door", Owner("ann"), producing=False)


def test_a_refusal_with_a_code_that_clients_do_not_know_is_a_routing_error() -> None:
    assert (
        Playbook(camera())
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
        >> router_refuses("SOMETHING_NEW")
        << error("ROUTING_ERROR")
    )


def test_register_on_the_subscribe_path_is_invalid() -> None:
    assert Playbook(viewer()) >> says(type="register", streamId="door") << error("INVALID_MESSAGE")


@dataclass(frozen=True)
class TextFrame:
    """Equal to the command that sends this text, wherever in its message it stands."""

    token: bytes
    timestamp: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SendFrame) or other.text is None or (other.picture, other.codec) != (None, None):
            return False
        begin, end = other.span or (0, len(other.text))
        return (other.text[begin:end], other.timestamp) == (self.token, self.timestamp)

    __hash__ = None  # type: ignore[assignment]


def text_frame(token: bytes, timestamp: int) -> TextFrame:
    return TextFrame(token, timestamp)


AGAIN = success("Registration successful. Stream ID: door", streamId="door")


@pytest.mark.parametrize("stream", [{}, {"streamId": "door"}, {"streamId": None}])
def test_the_same_stream_registered_again_goes_on_with_other_wishes(stream: dict[str, Any]) -> None:
    talk = registered()
    assert (
        talk
        >> says(type="register", produces=["alert"], consumes=["alert", "demand"], **stream)
        << AGAIN
        << ChangePublication(producing=False, wants_alerts=True, wants_demand=True, wants_status=True)
    )
    assert talk.session.registered == Registered("door", producing=False, may_alert=True)
    assert not talk.session.may_send_plain
    assert (
        talk
        >> says(type="video-frame", data="AAAA")
        << error("UNAUTHORIZED")
        >> says(type="alert", severity="low", message="m")
        << SendAlert(AlertDraft(severity="low", message="m"), "door")
        >> says(type="register", produces=["video-frame"], **stream)
        << AGAIN
        << ChangePublication(producing=True, wants_alerts=False, wants_demand=False, wants_status=False)
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
        << AskClaim("other", Owner("ann"), producing=True)
    )
    assert talk.session.registered == Registered("door", producing=True, may_alert=False)
    assert (
        talk
        >> router_grants(term=8, first_frame_id=4)
        << Unpublish()
        << success("Registration successful. Stream ID: other", streamId="other")
        << Publish("other", Owner("ann"), 8, 4, producing=True, wants_alerts=True, wants_status=True)
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
        << AskClaim("other", Owner("ann"), producing=True)
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


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────


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
        << AskClaim("door", Owner("ann"), producing=False)
    )


@pytest.mark.parametrize("event", [says(type="video-frame", data="AAAA"), sends_binary(frame_head() + JPEG)])
def test_frames_on_the_subscribe_path_are_invalid(event: Event) -> None:
    assert Playbook(viewer()) >> event << error("INVALID_MESSAGE")


def test_a_camera_may_mix_json_and_binary_frames() -> None:
    assert (
        registered()
        >> sends_binary(frame_head("door", timestamp=9) + JPEG)
        << SendFrame(None, JPEG, Codec.JPEG, 9)
        >> says(type="video-frame", data="AAAA", timestamp=10)
        << text_frame(b'"AAAA"', 10)
        >> sends_binary(frame_head("", timestamp=11, codec=0) + b"?")
        << SendFrame(None, b"?", Codec.OPAQUE, 11)
    )


def test_the_number_that_a_camera_gives_a_binary_frame_does_not_count() -> None:
    assert registered() >> sends_binary(frame_head(frame_id=99) + JPEG) << SendFrame(None, JPEG, Codec.JPEG, 5)


def test_a_binary_frame_without_a_time_is_of_now() -> None:
    assert registered() >> sends_binary(frame_head(timestamp=0) + JPEG) << SendFrame(None, JPEG, Codec.JPEG, START_MS)


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
        << SendFrame(None, JPEG, Codec.JPEG, 5)
    )


# ── alerts of a camera ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_that_produces_alerts_may_raise_one_for_its_own_stream() -> None:
    assert (
        registered(produces=["alert"])
        >> says(type="alert", severity="high", message="help")
        << SendAlert(AlertDraft(severity="high", message="help"), "door")
        >> says(type="alert", streamId="door", severity="low", message="m", metadata={"x": 1}, timestamp=5.0, id="a1")
        << SendAlert(
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
        << SendAlert(AlertDraft(severity="low", message="m"), "door")
        >> alerts_failed()
        << error("ROUTING_ERROR")
        >> says(type="alert", severity="low", message="m")
        << SendAlert(AlertDraft(severity="low", message="m"), "door")
    )


# ── subscribe ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_viewer_subscribes_to_a_stream_of_its_user() -> None:
    talk = subscribed(clientType="dashboard", consumes=["video-frame", "alert"])
    assert talk
    (subscription,) = talk.session.subscriptions()
    assert (subscription.video, subscription.alerts) == (True, True)
    assert (subscription.format, subscription.max_fps, subscription.window) == ("json", None, None)
    assert subscription.last_frame
    assert subscription.identity == ANN


def test_a_viewer_may_wish_for_format_rate_window_and_recent_alerts() -> None:
    assert (
        Playbook(viewer())
        >> says(
            type="subscribe", streamId="door", consumes=["video-frame", "alert"], format="binary", maxFps=2,
            lastFrame=False, alertsSince=1000.0, window=3,
        )
        << AskOwner("door")
        >> owner_is("ann", "online")
        << success("Subscription successful", streamId="door")
        << watches(
            "door", status="online", owner="ann", alerts_since=1000, video=True, alerts=True, format="binary",
            max_fps=2.0, last_frame=False, window=3,
        )
    )  # fmt: skip


def test_recent_alerts_are_only_for_those_who_consume_alerts() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["video-frame"], alertsSince=0)
        << AskOwner("door")
        >> owner_is("ann")
        << success("Subscription successful", streamId="door")
        << watches("door", owner="ann", alerts_since=None)
    )


def test_a_viewer_may_wait_for_a_stream_that_does_not_exist_yet() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="not-yet", consumes=["video-frame"])
        << AskOwner("not-yet")
        >> owner_is(None, "offline")
        << success("Subscription successful", streamId="not-yet")
        << watches("not-yet", status="offline", owner=None)
    )


@pytest.mark.parametrize("fields", [{}, {"consumes": []}, {"consumes": None}, {"consumes": ["sound"]}])
def test_whoever_consumes_nothing_is_told_the_status_once(fields: dict[str, Any]) -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", **fields)
        << AskOwner("door")
        >> owner_is("ann", "online")
        << success("Subscription successful", streamId="door")
        << {"type": "status", "streamId": "door", "status": "online"}
    )


def test_a_stream_of_another_user_is_unauthorized_and_the_socket_stays() -> None:
    talk = (
        Playbook(viewer(BOB))
        >> says(type="subscribe", streamId="door", consumes=["video-frame"])
        << AskOwner("door")
        >> owner_is("ann", "streaming")
        << error("UNAUTHORIZED")
    )
    assert talk.session.subscriptions() == []
    assert talk >> says(type="subscribe", streamId="mine") << AskOwner("mine")


def test_where_everybody_signed_in_may_view_strangers_may_too() -> None:
    assert (
        Playbook(viewer(BOB, Settings(stream_access="authenticated")))
        >> says(type="subscribe", streamId="door", consumes=["alert"])
        << AskOwner("door")
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId="door")
        << watches("door", status="streaming", owner="ann")
    )


def test_a_silent_router_is_a_routing_error_and_subscribing_may_be_tried_again() -> None:
    talk = Playbook(viewer()) >> says(type="subscribe", streamId="door") << AskOwner("door")
    assert talk.session.waiting is Waiting.OWNER
    assert talk >> router_is_silent() << error("ROUTING_ERROR")
    assert talk.session.waiting is None
    assert talk >> says(type="subscribe", streamId="door") << AskOwner("door")


def test_subscribe_on_the_register_path_is_invalid() -> None:
    for event in (
        says(type="subscribe", streamId="door"),
        says(type="unsubscribe", streamId="door"),
        says(type="ack", streamId="door", frameId=1),
    ):
        assert Playbook(camera()) >> event << error("INVALID_MESSAGE")


def test_a_viewer_may_subscribe_to_several_streams() -> None:
    talk = subscribe(subscribe(subscribed("a"), "b"), "c")
    assert [s.stream for s in talk.session.subscriptions()] == ["a", "b", "c"]


def test_subscribing_again_replaces_the_subscription() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    assert (
        talk
        >> says(type="subscribe", streamId="door", consumes=["alert"])
        << AskOwner("door")
        >> owner_is("ann", "online")
        << Unwatch(former)
        << success("Subscription successful", streamId="door")
        << watches("door", status="online", owner="ann", video=False, alerts=True)
    )
    assert len(talk.session.subscriptions()) == 1


def test_subscribing_again_in_vain_leaves_the_subscription_as_it_is() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    assert talk >> says(type="subscribe", streamId="door") << AskOwner("door")
    assert talk >> router_is_silent() << error("ROUTING_ERROR")
    assert talk.session.subscriptions() == [former]


def test_unsubscribe_ends_the_subscription_once() -> None:
    talk = subscribed()
    (former,) = talk.session.subscriptions()
    done = {"type": "success", "event": "unsubscribed", "message": "Unsubscription successful", "streamId": "door"}
    assert talk >> says(type="unsubscribe", streamId="door") << Unwatch(former) << done
    assert talk >> says(type="unsubscribe", streamId="door") << done
    assert talk.session.subscriptions() == []


def test_ack_moves_the_window_up_to_the_frame() -> None:
    talk = subscribed(window=3)
    (subscription,) = talk.session.subscriptions()
    subscription.unacked.extend([4, 5, 6])
    assert talk >> says(type="ack", streamId="door", frameId=5) << Acknowledged()
    assert list(subscription.unacked) == [6]
    assert talk >> says(type="ack", streamId="door", frameId=99) << Acknowledged()
    assert list(subscription.unacked) == []


def test_an_ack_for_a_stream_that_is_not_subscribed_is_nothing() -> None:
    assert Playbook(viewer()) >> says(type="ack", streamId="door", frameId=1)


def test_a_viewer_that_lost_its_right_is_told_and_the_socket_stays() -> None:
    talk = subscribe(subscribed("a"), "b")
    lost, kept = talk.session.subscriptions()
    assert talk >> right_is_lost("a") << Unwatch(lost) << error("UNAUTHORIZED") >> right_is_lost("a")
    assert talk.session.subscriptions() == [kept]


def test_the_streams_of_one_socket_are_limited_but_subscribing_again_is_not() -> None:
    talk = Playbook(viewer(settings=Settings(max_subscriptions=2)))
    subscribe(subscribe(talk, "a"), "b")
    assert talk >> says(type="subscribe", streamId="c") << error("RATE_LIMITED")
    assert talk >> says(type="subscribe", streamId="b") << AskOwner("b")


def test_recent_alerts_that_cannot_be_had_do_not_disturb_what_is_asked_meanwhile() -> None:
    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="a", consumes=["alert"], alertsSince=0)
        << AskOwner("a")
        >> owner_is("ann")
        << success("Subscription successful", streamId="a")
        << watches("a", owner="ann", alerts_since=0)
        >> says(type="subscribe", streamId="b", consumes=["alert"])
        << AskOwner("b")
        >> alerts_failed()
        << error("ROUTING_ERROR")
        >> owner_is("ann")
        << success("Subscription successful", streamId="b")
        << watches("b", owner="ann")
    )


def test_a_viewer_whose_lane_is_full_is_told_and_closed_with_4400() -> None:
    assert subscribed() >> lane_is_full() << error("SLOW_CONSUMER") << closes(CloseCode.SLOW_CONSUMER)


# ── messages that do not fit, and too many of them ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", [b"", b"hello", b"[]", b"5", b"null", b'{"type":5}', b"{}", b"[" * 10_000])
def test_what_is_no_message_is_invalid_and_the_socket_stays(data: bytes) -> None:
    assert (
        Playbook(camera())
        >> sends_text(data)
        << error("INVALID_MESSAGE")
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
    )


def test_broken_utf_8_closes_with_1007() -> None:
    assert registered() >> sends_text(b'{"type":"\xff"}') << closes(CloseCode.INVALID_DATA)


def test_an_unknown_type_is_told_and_the_socket_stays_however_often() -> None:
    talk = Playbook(viewer(settings=Settings(abuse_limit=2)))
    for _ in range(50):
        talk = talk >> says(type="heartbeat") << error("UNKNOWN_MESSAGE_TYPE")
    assert talk >> says(type="subscribe", streamId="door") << AskOwner("door")


def test_repeated_invalid_messages_close_with_1008() -> None:
    talk = Playbook(viewer(settings=Settings(abuse_limit=3)))
    for _ in range(3):
        talk = talk >> sends_text(b"hello") << error("INVALID_MESSAGE")
    assert talk >> sends_text(b"hello") << error("INVALID_MESSAGE") << closes(CloseCode.POLICY)


def test_invalid_messages_now_and_then_are_forgiven() -> None:
    talk = Playbook(viewer(settings=Settings(abuse_limit=3)))
    for _ in range(20):
        talk = talk >> 1.0 >> sends_text(b"hello") << error("INVALID_MESSAGE")
    assert talk


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (says(type="video-frame", streamId="window", data="AAAA"), "UNAUTHORIZED"),
        (says(type="video-frame", streamId="other", data="AAAA"), "UNAUTHORIZED"),
    ],
)
def test_these_errors_never_close_the_socket(event: Event, code: str) -> None:
    talk = Playbook(camera(settings=Settings(abuse_limit=2)))
    for _ in range(50):
        talk = talk >> event << error(code)
    assert talk


@pytest.mark.parametrize(
    "event", [says(type="ack", streamId="door", frameId=1), sends_binary(b""), sends_text(b"\xff"), pings()]
)
def test_what_is_over_the_message_rate_is_dropped_and_said_once_a_second(event: Event) -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1)))
    talk = talk >> says(type="ack", streamId="a", frameId=1) >> pings()
    assert talk >> event << error("RATE_LIMITED") >> event >> event
    assert talk >> 0.9 >> event
    talk = talk >> 0.1 >> says(type="subscribe", streamId="door") << AskOwner("door")
    assert talk >> event << error("RATE_LIMITED")


def test_bytes_are_limited_too() -> None:
    talk = Playbook(viewer(settings=Settings(byte_rate=1024, max_message_bytes=2048)))
    assert talk >> pings(2048) >> pings(1) << error("RATE_LIMITED")
    assert talk >> 1.0 >> pings(1024)


def test_repeated_abuse_of_the_rate_closes_with_1008() -> None:
    talk = Playbook(viewer(settings=Settings(message_rate=1, abuse_limit=5))) >> pings() >> pings()
    assert talk >> pings() << error("RATE_LIMITED") >> pings() >> pings() >> pings() >> pings()
    assert talk >> pings() << closes(CloseCode.POLICY) >> pings() >> says(type="auth", token="t")


def test_before_authentication_the_rates_hold_too() -> None:
    talk = Playbook(viewer(None, Settings(message_rate=1)))
    assert (
        talk >> says() << error("AUTH_REQUIRED") >> says() << error("AUTH_REQUIRED") >> says() << error("RATE_LIMITED")
    )


# ── after a close ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restart_closes_with_1012() -> None:
    assert subscribed() >> gateway_restarts() << closes(CloseCode.RESTART) >> gateway_restarts()


ENDINGS = [
    gateway_restarts(),
    lane_is_full(),
    store_is_away(),
    too_many("here"),
    sends_text(b"\xff"),
]
AFTERWARDS = [
    says(type="auth", token="t"),
    says(type="register", streamId="door"),
    says(type="subscribe", streamId="door"),
    says(type="video-frame", data="AAAA"),
    says(type="alert", severity="low", message="m"),
    sends_text(b"hello"),
    sends_text(b"\xff"),
    sends_binary(frame_head() + JPEG),
    pings(),
    store_says(ANN),
    store_says(None),
    store_is_away(),
    time_to_authenticate_is_over(),
    too_many("here"),
    router_grants(),
    router_refuses("UNAUTHORIZED"),
    router_is_silent(),
    owner_is("ann"),
    owner_is("bob"),
    alerts_failed(),
    another_socket_takes("door"),
    lane_is_full(),
    session_ends(),
    session_renewed(PROMOTED),
    gateway_restarts(),
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("identity", [None, ANN])
@pytest.mark.parametrize("client", [camera, viewer])
def test_after_a_close_nothing_is_said(client: Any, identity: Any, ending: Event) -> None:
    session = client(identity)
    assert isinstance(ending(session, 0.0, START_MS)[-1], Close)
    for event in AFTERWARDS:
        assert event(session, 1.0, START_MS) == []


@pytest.mark.parametrize("answer", [router_grants(), router_refuses("UNAUTHORIZED"), router_is_silent()])
def test_an_answer_that_comes_after_the_close_starts_nothing(answer: Event) -> None:
    talk = (
        Playbook(camera()) >> says(type="register", streamId="door") << AskClaim("door", Owner("ann"), producing=False)
    )
    assert talk >> gateway_restarts() << closes(CloseCode.RESTART) >> answer
    assert talk.session.registered is None


def test_a_right_that_is_lost_after_the_close_ends_the_subscription_in_silence() -> None:
    talk = subscribed()
    (subscription,) = talk.session.subscriptions()
    assert talk >> gateway_restarts() << closes(CloseCode.RESTART) >> right_is_lost("door") << Unwatch(subscription)


# ── sessions and rights that change ──────────────────────────────────────────────────────────────────────────────

GUARDED = Settings(
    stream_access="organization",
    role_rights=(("camera", frozenset({"publish"})), ("guard", frozenset({"alerts"})), ("*", frozenset({"view"}))),
)


def with_role(*roles: str, user: str = "ann", **organizations: str) -> Identity:
    belongs = {name: frozenset({role}) for name, role in organizations.items()}
    return Identity(user, f"session-of-{user}", roles=frozenset(roles), organizations=belongs)


def test_a_token_does_not_show_in_the_command_that_verifies_it() -> None:
    (command,) = viewer(None).text(b'{"type":"auth","token":"canary"}', 0.0, START_MS)
    assert command == Verify("canary")
    assert "canary" not in repr(command)


@pytest.mark.parametrize("client", [camera, viewer])
def test_when_the_session_ends_the_client_is_told_and_closed(client: Any) -> None:
    assert Playbook(client()) >> session_ends() << error("SESSION_ENDED") << closes(CloseCode.SESSION_ENDED)


def test_a_renewed_session_that_changes_nothing_for_the_client_is_not_told() -> None:
    talk = subscribed()
    (subscription,) = talk.session.subscriptions()
    assert talk >> session_renewed(PROMOTED)
    assert talk.session.identity is PROMOTED
    assert subscription.identity is PROMOTED


def test_who_may_not_publish_cannot_register() -> None:
    assert Playbook(camera(with_role("guard"), GUARDED)) >> says(type="register") << error("UNAUTHORIZED")


def registered_as(identity: Identity) -> Playbook:
    owner = Owner(identity.user_id, frozenset(identity.organizations))
    return (
        Playbook(camera(identity, GUARDED))
        >> says(type="register", streamId="door", produces=["video-frame"])
        << AskClaim("door", owner, producing=True)
        >> router_grants()
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", owner, 7, 1, producing=True, wants_alerts=False)
    )


def test_a_camera_that_may_publish_no_more_keeps_its_socket_and_loses_its_stream() -> None:
    talk = registered_as(with_role("camera")) >> session_renewed(with_role("guard"))
    assert talk << Unpublish() << error("UNAUTHORIZED")
    assert talk.session.registered is None
    assert talk >> says(type="video-frame", streamId="door", data="AAAA") << error("UNAUTHORIZED")
    assert (
        talk
        >> session_renewed(with_role("camera"))
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
    )


def test_a_right_that_goes_while_the_router_is_asked_ends_the_stream_at_once() -> None:
    assert (
        Playbook(camera(with_role("camera"), GUARDED))
        >> says(type="register", streamId="door")
        << AskClaim("door", Owner("ann"), producing=False)
        >> session_renewed(with_role("guard"))
        >> router_grants()
        << Publish("door", Owner("ann"), 7, 1, producing=False, wants_alerts=False)
        << Unpublish()
        << error("UNAUTHORIZED")
    )


def test_a_camera_whose_user_joins_an_organization_says_so_once() -> None:
    joined = with_role("camera", acme="member")
    talk = registered_as(with_role("camera")) >> session_renewed(joined)
    assert talk << ChangeOwner(Owner("ann", frozenset({"acme"})))
    assert talk >> session_renewed(with_role("camera", acme="owner"))


@pytest.mark.parametrize(
    ("role", "consumes", "answer"),
    [
        ("member", ["video-frame", "alert"], None),
        ("guard", ["alert"], None),
        ("guard", [], None),
        ("guard", ["video-frame"], "UNAUTHORIZED"),
        ("guard", ["video-frame", "alert"], "UNAUTHORIZED"),
        ("camera", ["alert"], "UNAUTHORIZED"),
        ("camera", [], "UNAUTHORIZED"),
    ],
)
def test_a_member_gets_of_the_organizations_streams_what_his_role_gives(
    role: str, consumes: list[str], answer: str | None
) -> None:
    talk = (
        Playbook(viewer(with_role("x", user="bob", acme=role), GUARDED))
        >> says(type="subscribe", streamId="door", consumes=consumes)
        << AskOwner("door")
        >> owner_is("ann", "streaming", "acme")
    )
    if answer is not None:
        assert talk << error(answer)
        assert talk.session.subscriptions() == []
        assert talk.session.unauthorized == 1
    else:
        talk = talk << success("Subscription successful", streamId="door")
        if consumes:
            assert talk << watches("door", status="streaming", owner="ann", organizations=("acme",))
        else:
            assert talk << {"type": "status", "streamId": "door", "status": "streaming"}


def test_a_strangers_answer_is_the_same_whatever_he_asks_for() -> None:
    for consumes in ([], ["alert"], ["video-frame"]):
        assert (
            Playbook(viewer(with_role("x", user="eve"), GUARDED))
            >> says(type="subscribe", streamId="door", consumes=consumes)
            << AskOwner("door")
            >> owner_is("ann", "streaming", "acme")
            << {"type": "error", "code": "UNAUTHORIZED", "message": "this stream belongs to another user"}
        )


# ── all of it at once ────────────────────────────────────────────────────────────────────────────────────────────

STREAMS = st.sampled_from(["a", "b"])
EVENTS = st.one_of(
    st.sampled_from([*AFTERWARDS[:-2], *BEFORE]),
    st.builds(right_is_lost, STREAMS),
    st.just(session_renewed(PROMOTED)),
    st.builds(another_socket_takes, STREAMS),
    st.builds(lambda stream: says(type="register", streamId=stream, produces=["video-frame", "alert"]), STREAMS),
    st.builds(
        lambda stream, names: says(type="subscribe", streamId=stream, consumes=names),
        STREAMS,
        st.lists(st.sampled_from(["video-frame", "alert"]), max_size=2),
    ),
    st.builds(lambda stream: says(type="unsubscribe", streamId=stream), STREAMS),
    st.builds(lambda stream: says(type="ack", streamId=stream, frameId=3), STREAMS),
    st.builds(lambda stream: sends_binary(frame_head(stream) + JPEG), STREAMS),
    st.builds(sends_text, st.binary(max_size=20)),
    st.builds(sends_binary, st.binary(max_size=30)),
)
CODES = {code.value for code in ErrorCode}


@given(
    client=st.sampled_from([camera, viewer]),
    identity=st.sampled_from([None, ANN]),
    events=st.lists(st.tuples(EVENTS, st.floats(0, 2)), max_size=30),
    limit=st.sampled_from([3, 100]),
)
@settings(max_examples=200)
def test_whatever_happens_the_session_keeps_its_promises(
    client: Any, identity: Any, events: list[tuple[Event, float]], limit: int
) -> None:
    session = client(identity, Settings(abuse_limit=limit, message_rate=5))
    now, closed = 0.0, False
    watching: set[int] = set()
    for event, gap in events:
        now += gap
        commands = event(session, now, START_MS)
        said: list[Command] = [c for c in commands if not isinstance(c, Unwatch)]
        assert not (closed and said)
        for command in commands:
            assert not closed or isinstance(command, Unwatch)
            match command:
                case Reply():
                    reply = read(command.wire)
                    assert reply["type"] in ("success", "error", "status")
                    assert reply["timestamp"] == START_MS
                    assert reply["type"] != "error" or reply["code"] in CODES
                case Close():
                    closed = True
                case SendFrame() | SendAlert():
                    assert session.registered is not None
                case Unwatch():
                    assert id(command.subscription) in watching or not command.subscription.video
                    watching.discard(id(command.subscription))
                case _:
                    pass
        watching |= {id(s) for s in session.subscriptions()}
        if session.identity is None:
            assert all(isinstance(c, Reply | Close | Verify) for c in commands)
