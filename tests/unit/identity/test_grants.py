"""What tokens grant: the claim, where it is read, and that nothing ever makes a token's rights wider."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import jwt
import pytest

from tests.unit.identity.jwt_kit import ANY, GOOD, NOW, SECRET, signed
from watchout.common.settings import load
from watchout.gateway.presence import Presence
from watchout.identity import Authenticator, Grants, Identity, Token
from watchout.identity.grants import GrantsFault, read_grants
from watchout.identity.sources.claims import Claims, TokenRefused
from watchout.identity.sources.introspection_claims import read_introspection
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.jwt_claims import read_jwt
from watchout.identity.sources.keys import secret_key

CLAIM = {"publish": ["cam-*"], "view": ["*"]}
GRANTS = Grants(publish=("cam-*",), view=("*",))
MALFORMED: list[Any] = [
    None, [], "view", True, 5, {"view": "*"}, {"view": None}, {"view": [5]}, {"view": ["a b"]}, {"view": [""]},
    {"veiw": ["*"]}, {"view": ["*"], "owner": "ann"}, {"view": ["a"] * 65}, {"may_acknowledge": []},
]  # fmt: skip


def test_a_claim_grants_just_what_it_names() -> None:
    assert read_grants({"sub": "u"}) is None
    assert read_grants({"watchout": {}}) == Grants()
    assert read_grants({"watchout": CLAIM}) == GRANTS
    assert GRANTS.allows("publish", "cam-1")
    assert not GRANTS.allows("publish", "door")
    assert GRANTS.allows("view", "door")
    assert not GRANTS.allows("alerts", "door")


@pytest.mark.parametrize("claim", MALFORMED)
def test_a_malformed_claim_is_a_fault_that_says_what_is_expected(claim: Any) -> None:
    with pytest.raises(GrantsFault, match=r"expected|no list"):
        read_grants({"watchout": claim})


def test_a_jwt_carries_its_grants() -> None:
    token = signed({**GOOD, "watchout": CLAIM}, "secret")
    assert read_jwt(token, ANY, NOW).verify([secret_key(SECRET)]).grants == GRANTS


@pytest.mark.parametrize("claim", MALFORMED)
def test_a_genuine_jwt_with_a_malformed_claim_is_refused_and_a_forged_one_says_nothing_of_it(claim: Any) -> None:
    token = signed({**GOOD, "watchout": claim}, "secret")
    with pytest.raises(GrantsFault):
        read_jwt(token, ANY, NOW).verify([secret_key(SECRET)])
    with pytest.raises(TokenRefused):
        read_jwt(token, ANY, NOW).verify([secret_key(SECRET[::-1])])


@pytest.mark.parametrize(
    ("answer", "grants"),
    [
        ({"active": True, "sub": "u", "watchout": CLAIM}, GRANTS),
        ({"active": True, "claims": {"sub": "u", "watchout": CLAIM}}, GRANTS),
        ({"active": True, "sub": "u"}, None),
        # Users may be able to write fields of their own: those grant nothing.
        ({"session": {"userId": "u", "watchout": CLAIM}, "user": {"id": "u", "watchout": CLAIM}}, None),
    ],
)
def test_an_introspection_response_may_carry_grants(answer: Any, grants: Grants | None) -> None:
    assert read_introspection(json.dumps(answer).encode(), NOW).grants == grants


@pytest.mark.parametrize("claim", MALFORMED)
def test_an_introspection_response_with_malformed_grants_refuses_the_token(claim: Any) -> None:
    with pytest.raises(TokenRefused):
        read_introspection(json.dumps({"active": True, "sub": "u", "watchout": claim}).encode(), NOW)


class Everybody:
    """An introspection endpoint, and a session store, that accept everything."""

    async def verify(self, token: str, *, recheck: bool = False) -> Claims:
        return Claims("u1")

    async def find(self, tokens: Any) -> dict[str, Identity]:
        return {token: Identity("u1", "s1") for token in tokens}

    async def live(self, sessions: Any) -> dict[str, Identity]:
        return {session: Identity("u1", session, roles=frozenset({"admin"})) for session in sessions}


async def verify(payload: Any, **environ: str) -> Identity | None:
    settings = load({"JWT_SECRET": SECRET, "INTROSPECTION_URL": "https://example.com/", "AUTH_CACHE_S": "0", **environ})
    verifier = JwtVerifier(settings, now=lambda: NOW)
    await verifier.open()
    store: Any = Everybody()
    made = Authenticator(settings, store, verifier, store)
    return await made.verify(Token(jwt.encode(payload, SECRET, algorithm="HS256")), fresh=True)


async def test_a_token_with_a_malformed_claim_is_accepted_by_no_other_method_either() -> None:
    assert await verify({**GOOD, "watchout": {"view": "*"}}) is None
    other = await verify({**GOOD, "exp": NOW - 99})
    assert other is not None, "a JWT that is merely refused may be good for introspection"


async def test_a_jwt_that_names_a_session_keeps_its_grants() -> None:
    found = await verify(
        {**GOOD, "sid": "s9", "watchout": CLAIM}, DATABASE_URL="sqlite:/app.db", JWT_SESSION_CLAIM="sid"
    )
    assert found == Identity("u1", "s9", roles=frozenset({"admin"}), grants=GRANTS)


def test_a_new_look_at_the_session_does_not_take_the_grants_away() -> None:
    presence: Presence[str] = Presence()
    mine = Identity("u1", "s1", grants=GRANTS)
    presence.add("socket", mine, NOW)
    assert presence.update_sessions(["s1"], {"s1": Identity("u1", "s1")}) == ([], [])
    changed = Identity("u1", "s1", roles=frozenset({"guard"}))
    _, renewed = presence.update_sessions(["s1"], {"s1": changed})
    assert renewed == [("socket", replace(changed, grants=GRANTS))]


def test_identities_with_other_grants_are_not_equal() -> None:
    assert Identity("u1", grants=GRANTS) != Identity("u1")
    assert Identity("u1", grants=Grants()) != Identity("u1")
    assert Identity("u1", grants=GRANTS, ends_at=5) == Identity("u1", grants=GRANTS, ends_at=math.inf)
