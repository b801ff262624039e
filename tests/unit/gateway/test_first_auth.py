"""The first `auth` of a socket, whoever it belonged to before, and what is told of anything else in its place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.playbook import (
    ANN,
    BOB,
    Event,
    Playbook,
    camera,
    closes,
    error,
    owner_is,
    read,
    router_grants,
    says,
    sends_binary,
    sends_text,
    session_renewed,
    store_is_away,
    store_says,
    success,
    time_to_authenticate_is_over,
    viewer,
    watches,
)
from watchout.common.errors import CloseCode, ErrorCode
from watchout.common.settings import Settings
from watchout.gateway.client.asked_replies import PendingReply
from watchout.gateway.client.commands import (
    ClaimStream,
    Close,
    FindStream,
    PublicationOptions,
    Publish,
    Reply,
    VerifyToken,
)
from watchout.gateway.client.first_message import MAX_AUTH_BYTES
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.model import IgnoredCookie, Owner
from watchout.identity import Identity

PROMOTED = Identity("ann", "session-of-ann", roles=frozenset({"admin"}))
AUTHENTICATED = success("Authentication successful")
FRAME = b"\x57\x01\x01\x00" + bytes(12) + b"\x01\x00\xff\xd8\xff"


def registered() -> Playbook:
    """A camera that signed in at the upgrade and has registered a stream."""
    return (
        Playbook(camera())
        >> says(type="register", streamId="door", produces=["video-frame"])
        << ClaimStream("door", Owner("ann"), producing=True)
        >> router_grants(term=7, first_frame_id=1)
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", Owner("ann"), 7, 1, PublicationOptions(producing=True))
    )


def subscribed() -> Playbook:
    """A viewer that signed in at the upgrade and has subscribed to a stream."""
    return (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["video-frame"])
        << FindStream("door")
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId="door")
        << watches("door", status="streaming", owner="ann")
    )


@pytest.mark.parametrize("client", [camera, viewer])
def test_the_first_auth_of_who_signed_in_at_the_upgrade_is_answered_like_a_first_one(client: Any) -> None:
    talk = Playbook(client()) >> says(type="auth", token="bobs") << VerifyToken("bobs")
    assert talk.session.identity is None  # nothing of the former one is left
    assert talk.session.pending is PendingReply.STORE
    assert talk >> session_renewed(PROMOTED) >> time_to_authenticate_is_over() >> store_says(BOB) << AUTHENTICATED
    assert talk.session.identity == BOB
    assert talk >> says(type="auth", token="t") << error("ALREADY_AUTHENTICATED")


def test_the_stream_belongs_to_who_the_first_auth_says() -> None:
    assert (
        Playbook(camera())
        >> says(type="auth", token="bobs")
        << VerifyToken("bobs")
        >> store_says(BOB)
        << AUTHENTICATED
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("bob"), producing=False)
    )


def test_a_first_auth_with_a_wrong_token_closes_with_1008_also_after_the_upgrade() -> None:
    assert (
        Playbook(viewer())
        >> says(type="auth", token="wrong")
        << VerifyToken("wrong")
        >> store_says(None)
        << error("AUTH_FAILED")
        << closes(CloseCode.POLICY)
    )


def test_a_first_auth_while_the_store_is_away_closes_with_1013_also_after_the_upgrade() -> None:
    talk = Playbook(viewer()) >> says(type="auth", token="t") << VerifyToken("t")
    assert talk >> store_is_away() << error("AUTH_UNAVAILABLE") << closes(CloseCode.TRY_LATER)


def test_who_has_registered_or_subscribed_is_somebody_already() -> None:
    for talk in (registered(), subscribed()):
        assert talk >> says(type="auth", token="t") << error("ALREADY_AUTHENTICATED")
        assert talk.session.identity == ANN


def test_an_auth_that_does_not_fit_is_no_first_one() -> None:
    talk = Playbook(viewer()) >> says(type="auth", token=5) << error("INVALID_MESSAGE")
    assert talk >> says(type="auth", token="t") << VerifyToken("t")


@pytest.mark.parametrize("token", ["t.sig", " t.sig\n", "Bearer t.sig", "bearer  t.sig ", "\tBEARER t.sig\r\n"])
@pytest.mark.parametrize("identity", [None, ANN])
def test_what_is_copied_along_with_a_token_is_left_out(token: str, identity: Any) -> None:
    assert Playbook(viewer(identity)) >> says(type="auth", token=token) << VerifyToken("t.sig")


@pytest.mark.parametrize("token", ["", " \n", "Bearer "])
@pytest.mark.parametrize("identity", [None, ANN])
def test_an_empty_token_is_a_wrong_one(token: str, identity: Any) -> None:
    talk = Playbook(viewer(identity)) >> says(type="auth", token=token)
    assert talk << error("AUTH_FAILED") << closes(CloseCode.POLICY)


def test_nobody_is_asked_about_a_token_that_is_longer_than_any() -> None:
    for settings, most in ((Settings(), 8192), (Settings(jwt_secret="s" * 32), 49152)):
        for identity in (None, ANN):
            longest = Playbook(viewer(identity, settings=settings)) >> says(type="auth", token="t" * most)
            assert longest << VerifyToken("t" * most)
            reply, close = says(type="auth", token="t" * (most + 1))(viewer(identity, settings=settings), 0.0, 0)
            assert isinstance(reply, Reply)
            assert read(reply.wire)["message"] == f"the token has {most + 1} characters, expected at most {most}"
            assert close == Close(CloseCode.POLICY, "AUTH_FAILED")


FOREIGN = IgnoredCookie("the cookie was not used: a page of 'https://evil.com' may not")


def test_who_has_a_cookie_that_does_not_count_is_told_why() -> None:
    for event in (says(type="subscribe", streamId="door"), sends_text(b""), sends_binary(b"")):
        assert told(viewer(None, ignored=FOREIGN), event, "AUTH_REQUIRED").endswith(FOREIGN.reason)
    late = Playbook(viewer(None, ignored=FOREIGN)) >> time_to_authenticate_is_over()
    assert late << error("AUTH_TIMEOUT") << closes(CloseCode.POLICY)
    assert Playbook(viewer(None, ignored=FOREIGN)) >> says(type="auth", token="t") << VerifyToken("t")


@pytest.mark.parametrize("code", [ErrorCode.AUTH_UNAVAILABLE, ErrorCode.TOO_MANY_CONNECTIONS])
def test_who_has_a_cookie_that_may_be_good_later_is_told_to_come_back_unless_a_token_comes(code: ErrorCode) -> None:
    for event in (says(type="subscribe", streamId="door"), sends_binary(b""), time_to_authenticate_is_over()):
        talk = Playbook(viewer(None, ignored=IgnoredCookie("later", code)))
        assert talk >> event << error(str(code)) << closes(CloseCode.TRY_LATER)
    talk = Playbook(viewer(None, ignored=IgnoredCookie("later", code)))
    assert talk >> says(type="auth", token="t") << VerifyToken("t") >> store_says(ANN) << AUTHENTICATED


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (sends_text(b""), "is empty, or longer than an `auth`, which has at most 57344"),
        (sends_text(b" \n"), "is empty"),
        (sends_text(b"hello"), "not JSON"),
        (sends_text(b"[" * 10_000), "not JSON"),
        (sends_text(b'["auth"]'), "a JSON array"),
        (sends_text(b'"auth"'), "a JSON string"),
        (sends_text(b"null"), "is null"),
        (sends_text(b"7"), "a number"),
        (says(token="t"), "no `type`"),
        (says(type=5), "not a string"),
        (says(type="authenticate", token="t"), "'authenticate'"),
        (says(type="subscribe", streamId="door"), "'subscribe'"),
        (says(type="subscribe"), "'subscribe'"),
        (sends_text(b'{"type":"auth","token":"' + b"t" * MAX_AUTH_BYTES + b'"}'), "57344"),
        (sends_binary(b'{"type":"auth","token":"t"}'), "this is JSON in a binary message (opcode 2)"),
        (sends_binary(b'\xef\xbb\xbf {"type":"auth"}'), "this is JSON in a binary message (opcode 2)"),
        (sends_binary(b""), "is a binary message (opcode 2)"),
        (sends_binary(FRAME), "is a binary message (opcode 2)"),
    ],
)
def test_before_authentication_the_answer_says_what_came(event: Event, what: str) -> None:
    text = told(viewer(None), event, "AUTH_REQUIRED")
    assert what in text
    assert '{"type":"auth","token":"…"}' in text


@pytest.mark.parametrize("data", [b'{"type":"register"}', b" [1]", b'\r\n{"type":"video-frame"}'])
def test_json_as_a_binary_message_is_told_its_opcode_after_authentication_too(data: bytes) -> None:
    assert "(opcode 2)" in told(camera(), sends_binary(data), "INVALID_MESSAGE")


def told(session: ClientProtocol, event: Event, code: str) -> str:
    """The text of the only reply to an event, an error of this code."""
    (reply,) = event(session, 0.0, 0)
    assert isinstance(reply, Reply)
    answer = read(reply.wire)
    assert (answer["type"], answer["code"]) == ("error", code)
    return str(answer["message"])
