"""A client's protocol: authentication, and auth sessions and permissions that change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.client_dialogues import (
    AUTHENTICATED,
    BEFORE,
    PROMOTED,
    subscribed,
)
from tests.kit.playbook import (
    ANN,
    START_MS,
    Event,
    Playbook,
    camera,
    closes,
    error,
    owner_is,
    router_grants,
    says,
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
from watchout.common.errors import CloseCode
from watchout.common.settings import Settings
from watchout.gateway.client.asked_replies import PendingReply
from watchout.gateway.client.commands import (
    ChangeOwner,
    ClaimStream,
    FindStream,
    PublicationOptions,
    Publish,
    Unpublish,
    VerifyToken,
)
from watchout.gateway.client.first_message import MAX_AUTH_BYTES
from watchout.gateway.model import Owner
from watchout.identity import Identity

# ── before authentication ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_in_the_first_message_authenticates() -> None:
    talk = Playbook(viewer(None)) >> says(type="auth", token="t.sig") << VerifyToken("t.sig")
    assert talk.session.pending is PendingReply.STORE
    assert talk >> 0.2 >> store_says(ANN) << AUTHENTICATED
    assert talk.session.pending is None
    assert talk.session.identity == ANN


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
        << VerifyToken("t")
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
        << VerifyToken("t")
    )


def test_unknown_fields_of_auth_are_ignored() -> None:
    assert Playbook(viewer(None)) >> says(type="auth", token="t", clientType="web", version=2) << VerifyToken("t")


@pytest.mark.parametrize("data", [b"\xff", b'{"type":"auth","token":"\xff"}', b"\xff" * (MAX_AUTH_BYTES + 1)])
def test_broken_utf_8_before_authentication_closes_with_1007(data: bytes) -> None:
    assert Playbook(viewer(None)) >> sends_text(data) << closes(CloseCode.INVALID_DATA)


def test_a_wrong_token_closes_with_1008() -> None:
    assert (
        Playbook(viewer(None))
        >> says(type="auth", token="wrong")
        << VerifyToken("wrong")
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
        << VerifyToken("t")
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
        << VerifyToken("t")
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
        << VerifyToken("t")
        >> store_says(ANN)
        << AUTHENTICATED
        >> says(type="auth", token="t")
        << error("ALREADY_AUTHENTICATED")
        >> says(type="subscribe", streamId="door")
        << FindStream("door")
    )


@pytest.mark.parametrize("identity", [None, ANN])
def test_too_many_connections_close_with_1013(identity: Any) -> None:
    assert (
        Playbook(viewer(identity))
        >> too_many("of this user")
        << error("TOO_MANY_CONNECTIONS")
        << closes(CloseCode.TRY_LATER)
    )


# ── sessions and rights that change ───────────────────────────────────────────────────────────────────────────────

GUARDED = Settings(
    stream_access="organization",
    role_rights=(("camera", frozenset({"publish"})), ("guard", frozenset({"alerts"})), ("*", frozenset({"view"}))),
)


def with_role(*roles: str, user: str = "ann", **organizations: str) -> Identity:
    belongs = {name: frozenset({role}) for name, role in organizations.items()}
    return Identity(user, f"session-of-{user}", roles=frozenset(roles), organizations=belongs)


def test_a_token_does_not_show_in_the_command_that_verifies_it() -> None:
    (command,) = viewer(None).receive_text(b'{"type":"auth","token":"canary"}', 0.0, START_MS)
    assert command == VerifyToken("canary")
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
        << ClaimStream("door", owner, producing=True)
        >> router_grants()
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", owner, 7, 1, PublicationOptions(producing=True))
    )


def test_a_camera_that_may_publish_no_more_keeps_its_socket_and_loses_its_stream() -> None:
    talk = registered_as(with_role("camera")) >> session_renewed(with_role("guard"))
    assert talk << Unpublish() << error("UNAUTHORIZED")
    assert talk.session.registration is None
    assert talk >> says(type="video-frame", streamId="door", data="AAAA") << error("UNAUTHORIZED")
    assert (
        talk
        >> session_renewed(with_role("camera"))
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
    )


def test_a_right_that_goes_while_the_router_is_asked_ends_the_stream_at_once() -> None:
    assert (
        Playbook(camera(with_role("camera"), GUARDED))
        >> says(type="register", streamId="door")
        << ClaimStream("door", Owner("ann"), producing=False)
        >> session_renewed(with_role("guard"))
        >> router_grants()
        << Publish("door", Owner("ann"), 7, 1, PublicationOptions())
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
        << FindStream("door")
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
            << FindStream("door")
            >> owner_is("ann", "streaming", "acme")
            << {"type": "error", "code": "UNAUTHORIZED", "message": "this stream belongs to another user"}
        )
