"""A client's protocol: the session that a socket lives by is renewed, or the socket goes on with what it had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kit.client_dialogues import AUTHENTICATED, registered, subscribed, text_frame
from tests.kit.playbook import (
    ANN,
    BOB,
    Event,
    Playbook,
    camera,
    closes,
    error,
    renewal_is_unavailable,
    renewed_as,
    says,
    session_ends,
    store_says,
    success,
    viewer,
)
from watchout.common.errors import CloseCode
from watchout.common.settings import Settings
from watchout.gateway.client.commands import ChangeOwner, FindStream, PingSilence, RenewSession, Unpublish, VerifyToken
from watchout.gateway.model import Owner
from watchout.identity import Identity

LATER = Identity("ann", "another-session-of-ann", 3e9)
RENEW = says(type="auth", token=" Bearer new ", renew=True, requestId="r")
DONE = success("Authentication successful", requestId="r")
FAILURES = [
    pytest.param(renewed_as(None), "AUTH_FAILED", id="bad token"),
    pytest.param(renewed_as(BOB), "AUTH_FAILED", id="another user"),
    pytest.param(renewal_is_unavailable(), "AUTH_UNAVAILABLE", id="store away"),
]


def test_a_renewal_replaces_the_session_and_nothing_else() -> None:
    talk = registered() >> RENEW << RenewSession("new")
    assert talk >> says(type="video-frame", data="AAAA", timestamp=1) << text_frame(b'"AAAA"', 1), "frames go on"
    assert talk >> renewed_as(LATER) << DONE
    assert talk.session.identity is LATER
    assert talk >> says(type="auth", token="t") << error("ALREADY_AUTHENTICATED")
    assert talk >> says(type="auth", token="t", renew=True, pingEvery=9) << RenewSession("t")
    assert talk >> renewed_as(ANN) << AUTHENTICATED << PingSilence(9)


def test_subscriptions_get_the_new_identity() -> None:
    talk = subscribed() >> RENEW << RenewSession("new") >> renewed_as(LATER) << DONE
    (subscription,) = talk.session.subscriptions()
    assert subscription.identity is LATER


def test_a_client_that_signed_in_at_the_upgrade_may_renew_too() -> None:
    assert Playbook(viewer()) >> RENEW << RenewSession("new") >> renewed_as(LATER) << DONE


def test_before_the_sign_in_a_renewal_is_one() -> None:
    talk = Playbook(viewer(None)) >> RENEW << VerifyToken("new") >> store_says(ANN)
    assert talk << DONE


@pytest.mark.parametrize(("event", "code"), FAILURES)
def test_what_is_not_renewed_goes_on(event: Event, code: str) -> None:
    talk = subscribed() >> RENEW << RenewSession("new") >> event << error(code, requestId="r")
    assert talk.session.identity is ANN
    assert talk >> says(type="subscribe", streamId="more") << FindStream("more")


@pytest.mark.parametrize("token", ["", " ", "Bearer ", "x" * 20_000])
def test_a_token_that_cannot_be_one_is_refused_at_once(token: str) -> None:
    talk = Playbook(viewer()) >> says(type="auth", token=token, renew=True, requestId="r")
    assert talk << error("AUTH_FAILED", requestId="r")
    assert talk >> RENEW << RenewSession("new")


@pytest.mark.parametrize("renew", [False, None])
def test_without_renew_a_second_auth_is_what_it_was(renew: bool | None) -> None:
    talk = registered() >> says(type="auth", token="t", renew=renew)
    assert talk << error("ALREADY_AUTHENTICATED")


@pytest.mark.parametrize("second", [RENEW, says(type="auth", token="t", requestId="r")])
def test_one_renewal_at_a_time(second: Event) -> None:
    talk = Playbook(viewer()) >> RENEW << RenewSession("new") >> second << error("INVALID_MESSAGE", requestId="r")
    assert talk >> renewed_as(LATER) << DONE


def test_the_end_of_the_former_session_waits_for_the_renewal() -> None:
    talk = Playbook(viewer()) >> RENEW << RenewSession("new") >> session_ends() >> renewed_as(LATER) << DONE
    ended = talk >> session_ends() << error("SESSION_ENDED") << closes(CloseCode.SESSION_ENDED)
    assert ended, "that of the new one closes"


@pytest.mark.parametrize(("event", "code"), FAILURES)
def test_what_is_not_renewed_ends_with_the_former_session(event: Event, code: str) -> None:
    talk = Playbook(viewer()) >> RENEW << RenewSession("new") >> session_ends() >> event
    assert talk << error(code, requestId="r") << error("SESSION_ENDED") << closes(CloseCode.SESSION_ENDED)


def test_the_rights_of_the_new_session_count() -> None:
    settings = Settings(role_rights=(("publisher", frozenset({"publish"})),))
    ann = Identity("ann", "s", roles=frozenset({"publisher"}))
    talk = Playbook(camera(ann, settings))
    talk.session.identity = ann
    with_organization = replace(ann, organizations={"acme": frozenset()})
    talk = registered()
    talk.session._authorization = camera(ann, settings)._authorization
    talk.session.identity = ann
    talk = talk >> RENEW << RenewSession("new") >> renewed_as(with_organization)
    talk = talk << DONE << ChangeOwner(Owner("ann", frozenset({"acme"})))
    talk = talk >> RENEW << RenewSession("new") >> renewed_as(LATER) << DONE << Unpublish()
    assert talk << error("UNAUTHORIZED", streamId="door")


def test_tokens_cannot_be_tried_for_ever() -> None:
    talk = Playbook(viewer(settings=Settings(abuse_limit=3)))
    for _ in range(3):
        talk = talk >> RENEW << RenewSession("new") >> renewed_as(None) << error("AUTH_FAILED", requestId="r")
    talk = talk >> RENEW << RenewSession("new") >> renewed_as(None) << error("AUTH_FAILED", requestId="r")
    assert talk << closes(CloseCode.POLICY)
