"""What a JWT says, and its form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity.jwt_kit import ANY, GOOD, NOW, SECRET, refusal, segment, signed, verified
from watchout.identity.sources.claims import MAX_JWT_BYTES, MAX_NAME, MAX_ROLES, Claims, TokenRefused
from watchout.identity.sources.jwt_claims import JwtPolicy, looks_like_jwt, read_jwt


def test_a_good_token_says_who_and_until_when() -> None:
    assert verified(signed(GOOD)) == Claims("u1", NOW + 60, None, frozenset())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exp": None}, "its exp is not a number"),
        ({"exp": "1800000060"}, "its exp is not a number"),
        ({"exp": True}, "its exp is not a number"),
        ({"exp": [NOW]}, "its exp is not a number"),
        ({"exp": 10**400}, "its exp is not a number"),
        ({"exp": NOW}, "it has expired"),
        ({"exp": NOW - 0.001}, "it has expired"),
        ({"exp": -1}, "it has expired"),
        ({"nbf": NOW + 0.5}, "it is not valid yet"),
        ({"nbf": None}, "its nbf is not a number"),
        ({"nbf": "0"}, "its nbf is not a number"),
        ({"aud": 7}, "its aud is neither text nor a list of texts"),
        ({"aud": ["a", 7]}, "its aud is neither text nor a list of texts"),
        ({"aud": {"a": 1}}, "its aud is neither text nor a list of texts"),
        ({"aud": "better-auth:session-cache"}, "it is a session cookie's cache"),
        ({"aud": ["a", "better-auth:session-cache"]}, "it is a session cookie's cache"),
        ({"banned": True}, "its user is banned"),
        ({"banned": True, "banExpires": "2999-01-01T00:00:00.000Z"}, "its user is banned"),
        ({"banned": True, "banExpires": "soon"}, "its user is banned"),
        ({"roles": [str(i) for i in range(MAX_ROLES + 1)]}, f"it has over {MAX_ROLES} roles"),
    ],
)
def test_claims_that_are_not_good_are_refused(change: dict[str, Any], reason: str) -> None:
    assert refusal(signed(GOOD | change)) == reason


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW + 0.5},
        {"exp": int(NOW) + 1},
        {"nbf": NOW},
        {"nbf": 0},
        {"iat": NOW + 1e6},
        {"iat": "yesterday"},
        {"jti": 7},
        {"iss": "anybody"},
        {"aud": "anybody"},
        {"aud": None},
        {"aud": []},
        {"banned": False},
        {"banned": True, "banExpires": "2020-01-01T00:00:00.000Z"},
        {"banned": True, "banExpires": (NOW - 1) * 1000},
    ],
)
def test_claims_that_nobody_asked_about_do_not_matter(change: dict[str, Any]) -> None:
    assert verified(signed(GOOD | change)).user_id == "u1"


def test_a_token_without_an_end_is_refused() -> None:
    assert refusal(signed({"sub": "u1"})) == "its exp is not a number"
    for text in (b'{"sub":"u1","exp":NaN}', b'{"sub":"u1","exp":Infinity}', b'{"sub":"u1","exp":1e999}'):
        assert refusal(signed(text)) == "a segment is not a JSON object"


def test_a_token_without_exp_ends_a_while_after_its_iat() -> None:
    policy = JwtPolicy(max_age_s=100, leeway_s=5)
    assert verified(signed({"sub": "u1", "iat": NOW - 50}), policy=policy).expires_at == NOW + 55
    assert verified(signed({"sub": "u1", "iat": (NOW - 50) * 1000}), policy=policy).expires_at == NOW + 55
    assert verified(signed({"sub": "u1", "iat": NOW - 50, "exp": NOW + 9000}), policy=policy).expires_at == NOW + 9005
    assert refusal(signed({"sub": "u1", "iat": NOW - 105}), policy=policy) == "it has expired"
    assert refusal(signed({"sub": "u1", "iat": NOW + 61}), policy=policy) == "its iat is in the future"
    assert refusal(signed({"sub": "u1", "iat": "now"}), policy=policy) == "its iat is not a number"
    assert refusal(signed({"sub": "u1"}), policy=policy) == "its exp is not a number"
    assert refusal(signed({"sub": "u1", "iat": NOW, "exp": None}), policy=policy) == "its exp is not a number"
    assert refusal(signed({"sub": "u1", "iat": NOW})) == "its exp is not a number"


def test_dates_in_milliseconds_are_no_far_future() -> None:
    assert verified(signed(GOOD | {"exp": (NOW + 60) * 1000})).expires_at == NOW + 60
    assert refusal(signed(GOOD | {"exp": (NOW - 60) * 1000})) == "it has expired"


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"userId": "u1"}, "u1"),
        ({"user_id": 7}, "7"),
        ({"uid": "u1"}, "u1"),
        ({"user": {"id": "u1"}}, "u1"),
        ({"id": "u1"}, "u1"),
        ({"sub": "u1", "userId": "u2", "user": {"id": "u3"}}, "u1"),
        ({"sub": None, "uid": "u2"}, "u2"),
        ({"user": {"id": "u1"}, "id": "token-7"}, "u1"),
    ],
)
def test_the_user_is_where_issuers_put_it(claims: dict[str, Any], user_id: str) -> None:
    assert verified(signed(claims | {"exp": NOW + 60})).user_id == user_id


@pytest.mark.parametrize("claims", [{"user": "u1"}, {"user": {"id": None}}, {"sub": ["u1"], "uid": "u2"}, {"uid": ""}])
def test_nobody_is_guessed(claims: dict[str, Any]) -> None:
    assert refusal(signed(claims | {"exp": NOW + 60})).startswith("its sub is not printable")


@pytest.mark.parametrize(("sub", "user_id"), [("u1", "u1"), (7, "7"), (0, "0"), ("é ü", "é ü"), ("x" * 255, "x" * 255)])
def test_a_user_id_is_text_or_a_whole_number(sub: object, user_id: str) -> None:
    assert verified(signed(GOOD | {"sub": sub})).user_id == user_id


@pytest.mark.parametrize(
    "sub", [None, "", "x" * 256, "a\0b", "a\nb", "\u202eu1", 1.0, True, ["u1"], {"id": "u1"}, 10**30], ids=repr
)
def test_anything_else_is_no_user(sub: object) -> None:
    assert refusal(signed(GOOD | {"sub": sub})).startswith("its sub is not printable")
    assert refusal(signed({"exp": NOW + 1})).startswith("its sub is not printable")


def test_the_session_is_the_claim_that_the_settings_name() -> None:
    policy = JwtPolicy(session_claim="sid")
    assert verified(signed(GOOD | {"sid": "s1"}), policy=policy).session_id == "s1"
    assert verified(signed(GOOD | {"sid": 7}), policy=policy).session_id == "7"
    assert verified(signed(GOOD | {"sid": None}), policy=policy).session_id is None
    assert verified(signed(GOOD), policy=policy).session_id is None
    assert verified(signed(GOOD | {"sid": {"what": "ever"}}), policy=ANY).session_id is None
    for wrong in ("", "x" * (MAX_NAME + 1), "a\0", 1.5, True, ["s1"], {}):
        assert refusal(signed(GOOD | {"sid": wrong}), policy=policy).startswith("its session is not printable")


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        ({"role": "admin"}, {"admin"}),
        ({"role": "admin, guard,,admin"}, {"admin", "guard"}),
        ({"role": ["admin", " guard "]}, {"admin", "guard"}),
        ({"role": "admin", "roles": ["guard"]}, {"admin", "guard"}),
        ({"roles": "admin,guard"}, {"admin", "guard"}),
        ({"roles": []}, set()),
        ({"role": None, "roles": None}, set()),
        ({"role": 7, "roles": {"admin": True}}, set()),
        ({"roles": ["", " ", 7, None, ["x"], "a\0b", "x" * 256, "ok"]}, {"ok"}),
    ],
)
def test_roles_are_a_list_or_a_text_with_commas(said: dict[str, Any], roles: set[str]) -> None:
    assert verified(signed(GOOD | said)).roles == roles


def test_the_issuer_is_exactly_the_one_expected() -> None:
    policy = JwtPolicy(issuer="https://app.example.com")
    assert verified(signed(GOOD | {"iss": "https://app.example.com"}), policy=policy).user_id == "u1"
    for iss in ("https://app.example.com/", "https://APP.example.com", ["https://app.example.com"], None, 7):
        assert refusal(signed(GOOD | {"iss": iss}), policy=policy) == "its iss is not JWT_ISSUER"
    assert refusal(signed(GOOD), policy=policy) == "its iss is not JWT_ISSUER"


def test_the_audience_is_among_those_of_the_token() -> None:
    policy = JwtPolicy(audience="watchout")
    for aud in ("watchout", ["watchout"], ["other", "watchout"]):
        assert verified(signed(GOOD | {"aud": aud}), policy=policy).user_id == "u1"
    for wrong in ("watchout2", "", [], ["other"], None):
        assert refusal(signed(GOOD | {"aud": wrong}), policy=policy) == "its aud is not the one expected"
    assert refusal(signed(GOOD), policy=policy) == "its aud is not the one expected"


def test_a_clock_that_is_off_is_forgiven_within_the_leeway() -> None:
    policy = JwtPolicy(leeway_s=30)
    claims = verified(signed(GOOD | {"exp": NOW - 29}), policy=policy)
    assert claims.expires_at == NOW + 1
    assert refusal(signed(GOOD | {"exp": NOW - 30}), policy=policy) == "it has expired"
    assert verified(signed(GOOD | {"nbf": NOW + 30}), policy=policy).user_id == "u1"
    assert refusal(signed(GOOD | {"nbf": NOW + 31}), policy=policy) == "it is not valid yet"


@pytest.mark.parametrize(
    "typ",
    ["better-auth.session-cache+jwt", "Better-Auth.Session-Cache+JWT", "application/better-auth.session-cache+jwt"],
)
def test_the_cache_of_a_session_cookie_is_no_token(typ: str) -> None:
    assert refusal(signed(GOOD, typ=typ)) == "it is a session cookie's cache"
    cache = JwtPolicy(audience="better-auth:session-cache")
    assert (
        refusal(signed(GOOD | {"aud": "better-auth:session-cache"}), policy=cache) == "it is a session cookie's cache"
    )


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], None, "b64", {}])
def test_a_header_with_critical_extensions_is_refused(crit: object) -> None:
    assert refusal(signed(GOOD, crit=crit, b64=True)) == "its header has crit"


@pytest.mark.parametrize("kid", [7, ["a"], {}, True])
def test_a_kid_that_is_no_text_is_refused(kid: object) -> None:
    assert refusal(signed(GOOD, kid=kid)) == "its kid is no text"


def test_other_things_in_a_header_do_not_matter() -> None:
    for header in ({"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": 7}, {"typ": None}, {"cty": "x"}, {"b64": False}):
        assert verified(signed(GOOD, **header)).user_id == "u1"
    assert refusal(signed(GOOD, kid="unknown")) == "no key of its kid takes its alg"


def test_what_looks_like_a_jwt() -> None:
    assert looks_like_jwt(signed(GOOD))
    assert looks_like_jwt(signed(GOOD, "ed25519", "EdDSA", kid="x"))
    assert looks_like_jwt(f"{segment({'alg': 'none'})}.e30.AA")
    assert looks_like_jwt(f"{segment({'alg': 'x'})}.____.----")
    for other in (
        "", ".", "..", "...", "a.b.c", "e30.e30.AA", f"{segment({'alg': 7})}.e30.AA", f"{segment(['alg'])}.e30.AA",
        f"{segment({'alg': 'HS256'})}.e30", f"{segment({'alg': 'HS256'})}.e30.", f"{segment({'alg': 'HS256'})}..AA",
        f"{signed(GOOD)}.AA", f"{signed(GOOD)}\n", f" {signed(GOOD)}", f"{signed(GOOD)}=", f"Bearer {signed(GOOD)}",
        "x" * 32, "x" * 32 + "." + base64.b64encode(b"x" * 32).decode(), "\0" * 40, "\ud800.\ud800.\ud800",
        "é" * 8 + ".e30.AA", f"{segment(b'[' * 4000)}.e30.AA",
    ):  # fmt: skip
        assert not looks_like_jwt(other)
        with pytest.raises(TokenRefused):
            read_jwt(other, ANY, NOW)


def test_a_token_has_a_greatest_length() -> None:
    empty = len(signed(GOOD | {"pad": ""}))
    room = (MAX_JWT_BYTES - empty) * 3 // 4 - 3
    assert verified(signed(GOOD | {"pad": "x" * room})).user_id == "u1"
    long = signed(GOOD | {"pad": "x" * (room + 10)})
    assert len(long) > MAX_JWT_BYTES
    assert not looks_like_jwt(long)
    assert refusal(long) == "it is too long"


@given(st.text() | st.text(alphabet="abcAB019-_.=") | st.binary().map(lambda data: f"{segment(data)}.e30.AA"))
def test_no_text_makes_it_raise(text: str) -> None:
    if not looks_like_jwt(text):
        with pytest.raises(TokenRefused):
            read_jwt(text, ANY, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


NAMES = ["sub", "exp", "nbf", "iat", "iss", "aud", "sid", "role", "roles", "banned", "banExpires"]


@given(
    claims=st.dictionaries(st.sampled_from(NAMES), JSON) | JSON,
    header=st.dictionaries(st.sampled_from(["typ", "kid", "crit", "b64", "alg"]), JSON),
)
def test_whatever_an_issuer_signs_is_claims_in_order_or_refused(claims: Any, header: dict[str, Any]) -> None:
    if isinstance(claims, dict):
        claims = {"sub": "u1", "exp": NOW + 1} | claims
    head = f"{segment({'alg': 'HS256'} | header)}.{segment(claims)}"
    token = f"{head}.{segment(hmac.digest(SECRET.encode(), head.encode(), hashlib.sha256))}"
    try:
        found = verified(token, policy=JwtPolicy(session_claim="sid"))
    except TokenRefused:
        return
    for name in (found.user_id, *([] if found.session_id is None else [found.session_id]), *found.roles):
        assert 0 < len(name) <= MAX_NAME
        assert name.isprintable()
    assert NOW < found.expires_at < math.inf


def test_a_token_in_which_one_character_is_another_is_refused() -> None:
    token = signed(GOOD)
    alphabet = string.ascii_letters + string.digits + "-_."
    for at, was in enumerate(token):
        for new in alphabet:
            if new != was:
                refusal(token[:at] + new + token[at + 1 :])
