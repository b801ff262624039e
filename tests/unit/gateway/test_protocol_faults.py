"""A client's protocol: messages that do not fit, rates, closing, and promises that hold for any events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.client_dialogues import (
    BEFORE,
    JPEG,
    PROMOTED,
    frame_head,
    registered,
    subscribed,
)
from tests.kit.playbook import (
    ANN,
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
    time_to_authenticate_is_over,
    too_many,
    viewer,
)
from watchout.common.errors import CloseCode, ErrorCode
from watchout.common.settings import Settings
from watchout.gateway.client.commands import (
    ClaimStream,
    Close,
    Command,
    EndSubscription,
    FindStream,
    PublishFrame,
    Reply,
    SubmitAlert,
    VerifyToken,
)
from watchout.gateway.model import Owner

# ── messages that do not fit, and too many of them ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", [b"", b"hello", b"[]", b"5", b"null", b'{"type":5}', b"{}", b"[" * 10_000])
def test_what_is_no_message_is_invalid_and_the_socket_stays(data: bytes) -> None:
    assert (
        Playbook(camera())
        >> sends_text(data)
        << error("INVALID_MESSAGE")
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
    )


def test_broken_utf_8_closes_with_1007() -> None:
    assert registered() >> sends_text(b'{"type":"\xff"}') << closes(CloseCode.INVALID_DATA)


def test_an_unknown_type_is_told_and_the_socket_stays_however_often() -> None:
    talk = Playbook(viewer(settings=Settings(abuse_limit=2)))
    for _ in range(50):
        talk = talk >> says(type="heartbeat") << error("UNKNOWN_MESSAGE_TYPE")
    assert talk >> says(type="subscribe", streamId="door") << FindStream("door")


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
    talk = talk >> 0.1 >> says(type="subscribe", streamId="door") << FindStream("door")
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


# ── after a close ─────────────────────────────────────────────────────────────────────────────────────────────────


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
        Playbook(camera())
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
    )
    assert talk >> gateway_restarts() << closes(CloseCode.RESTART) >> answer
    assert talk.session.registration is None


def test_a_right_that_is_lost_after_the_close_ends_the_subscription_in_silence() -> None:
    talk = subscribed()
    (subscription,) = talk.session.subscriptions()
    assert (
        talk
        >> gateway_restarts()
        << closes(CloseCode.RESTART)
        >> right_is_lost("door")
        << EndSubscription(subscription)
    )


# ── all of it at once ─────────────────────────────────────────────────────────────────────────────────────────────

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
        said: list[Command] = [c for c in commands if not isinstance(c, EndSubscription)]
        assert not (closed and said)
        for command in commands:
            assert not closed or isinstance(command, EndSubscription)
            match command:
                case Reply():
                    reply = read(command.wire)
                    assert reply["type"] in ("success", "error", "status")
                    assert reply["timestamp"] == START_MS
                    assert reply["type"] != "error" or reply["code"] in CODES
                case Close():
                    closed = True
                case PublishFrame() | SubmitAlert():
                    assert session.registration is not None
                case EndSubscription():
                    assert id(command.subscription) in watching or not command.subscription.video
                    watching.discard(id(command.subscription))
                case _:
                    pass
        watching |= {id(s) for s in session.subscriptions()}
        if session.identity is None:
            assert all(isinstance(c, Reply | Close | VerifyToken) for c in commands)


def test_each_message_over_a_rate_is_counted_although_it_is_said_once_a_second() -> None:
    protocol = viewer(settings=Settings(message_rate=1))
    for _ in range(6):
        protocol.receive_control(0, 0.0, 1)
    assert protocol.limited == 4  # a burst of two was free
