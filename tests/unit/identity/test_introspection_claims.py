"""What the response of an introspection endpoint means."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.identity.sources.claims import MAX_NAME, MAX_OPAQUE_BYTES, MAX_ROLES, Claims, TokenRefused
from watchout.identity.sources.introspection_claims import UnreadableResponse, read_introspection, well_formed

TOKEN = "canary-of-an-opaque+token/with=odd&characters?%41;#"

NOW = 1_800_000_000.0


LATER, EARLIER = "2027-01-15T08:00:01.500Z", "2027-01-15T07:59:59.999Z"  # around NOW


def read(answer: object) -> Claims:
    return read_introspection(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), NOW)


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        # RFC 7662
        ({"active": True, "sub": "u1", "exp": int(NOW) + 60}, Claims("u1", NOW + 60)),
        ({"active": True, "sub": "u1"}, Claims("u1", math.inf)),
        ({"active": True, "sub": 7, "exp": None}, Claims("7")),
        ({"active": True, "user_id": "u1", "username": "alice"}, Claims("u1")),
        ({"active": True, "userId": "u1"}, Claims("u1")),
        ({"active": True, "username": "alice"}, Claims("alice")),
        ({"active": True, "sub": "u1", "user_id": "u2", "username": "u3", "id": "u4"}, Claims("u1")),
        ({"active": True, "sub": None, "user_id": "u2"}, Claims("u2")),
        ({"active": True, "sub": "u1", "role": "a, b", "roles": ["c"]}, Claims("u1", roles=frozenset("abc"))),
        ({"active": True, "sub": "u1", "session": {"id": "s1", "userId": "u2"}}, Claims("u1")),
        # plain claims
        ({"sub": "u1", "exp": NOW + 0.5}, Claims("u1", NOW + 0.5)),
        ({"userId": 7}, Claims("7")),
        ({"user_id": "u1", "roles": ["camera"]}, Claims("u1", roles=frozenset({"camera"}))),
        ({"id": "u1", "sid": "s1"}, Claims("u1")),
        ({"sub": "u1", "session": "s1"}, Claims("u1")),
        ({"active": "true", "sub": "u1"}, Claims("u1")),
        ({"active": True, "uid": "u1"}, Claims("u1")),
        ({"active": True, "id": "u1"}, Claims("u1")),
        ({"user": {"id": "u1"}}, Claims("u1")),
        ({"active": True, "user": {"uid": "u1", "role": "a"}}, Claims("u1", roles=frozenset("a"))),
        # in parts
        ({"active": True, "claims": {"sub": "u1", "exp": NOW + 9}}, Claims("u1", NOW + 9)),
        ({"claims": {"userId": "u1", "roles": ["a"]}}, Claims("u1", roles=frozenset("a"))),
        ({"success": True, "data": {"userId": 7, "expiresAt": LATER}}, Claims("7", NOW + 1.5)),
        ({"data": {"id": "u1"}}, Claims("u1")),
        ({"data": {"user": {"id": "u1"}}}, Claims("u1")),
        ({"data": {"session": {"userId": "u1", "expiresAt": LATER}, "user": {"id": "u1"}}}, Claims("u1", NOW + 1.5)),
        ({"session": {"id": "s1"}, "user": {"id": "u1"}}, Claims("u1")),
        # every form of a date
        ({"sub": "u1", "exp": (NOW + 9) * 1000}, Claims("u1", NOW + 9)),
        ({"sub": "u1", "exp": str(int(NOW) + 9)}, Claims("u1", int(NOW) + 9)),
        ({"sub": "u1", "expires_at": LATER}, Claims("u1", NOW + 1.5)),
        ({"sub": "u1", "expires": NOW + 9, "exp": NOW + 5}, Claims("u1", NOW + 5)),
        ({"sub": "u1", "expires_in": 9}, Claims("u1", NOW + 9)),
        ({"sub": "u1", "expires_in": "9"}, Claims("u1", NOW + 9)),
        (b'\xef\xbb\xbf{"sub":"u1"}', Claims("u1")),
        ({"session": {"userId": "u1", "expiresAt": NOW + 9}}, Claims("u1", NOW + 9)),
        # what else an endpoint keeps of a user says nothing of rights, nor of the token
        ({"sub": "u1", "data": {"sub": "u2", "role": "admin", "exp": "soon"}}, Claims("u1")),
        # Better Auth's get-session
        ({"session": {"id": "s1", "userId": "u1", "expiresAt": LATER}, "user": {"id": "u1"}}, Claims("u1", NOW + 1.5)),
        ({"session": {"id": "s1", "userId": "u1", "expiresAt": (NOW + 9) * 1000}}, Claims("u1", NOW + 9)),
        ({"session": {"user_id": 1, "expires_at": "2027-01-15T13:30:01+05:30"}}, Claims("1", NOW + 1)),
        ({"session": {"userId": 1}, "user": {"id": 1}}, Claims("1")),
        ({"session": {"userId": "u1"}, "user": {"role": "admin,x"}}, Claims("u1", roles=frozenset({"admin", "x"}))),
        ({"session": {"userId": "u1"}, "user": {"id": "u1", "banned": False, "role": None}}, Claims("u1")),
        ({"session": {"userId": "u1"}, "user": {"id": "u1", "banned": True, "banExpires": EARLIER}}, Claims("u1")),
    ],
)  # fmt: skip
def test_answers_that_are_somebody(answer: object, claims: Claims) -> None:
    assert read(answer) == claims


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"active": False},
        {"active": False, "sub": "u1"},
        *[{"active": odd, "sub": "u1"} for odd in (None, 1, "false", "yes", [], {})],
        *[{name: False, "sub": "u1"} for name in ("valid", "authenticated", "success")],
        {"data": {"active": False, "sub": "u1"}},
        {"claims": {"sub": "u1", "exp": NOW - 1}},
        {"data": {"session": {"userId": "u1", "expiresAt": EARLIER}}},
        {"sub": "u1", "exp": NOW + 9, "expires_at": NOW - 9},
        {"sub": "u1", "exp": (NOW - 1) * 1000},
        {"sub": "u1", "expires_in": 0},
        {"data": None, "error": {"status": 401}},
        {"data": {"session": {"userId": "u1"}, "user": {"id": "u2"}}},
        {"claims": {"sub": "u1", "banned": True}},
        {"active": True},
        {"active": True, "client_id": "machine"},
        {"active": True, "sub": "u1", "exp": NOW},
        {"active": True, "sub": "u1", "exp": 0},
        {"active": False, "session": {"userId": "u1"}},
        {"sub": "u1", "exp": NOW - 1},
        {"username": "alice"},
        {"error": "invalid token"},
        *[{"sub": odd} for odd in ("", "x" * 256, "a\nb", True, 1.5, ["u1"], {})],
        {"sub": "", "id": "u1"},
        {"sub": "u1", "banned": True},
        {"sub": "u1", "roles": [str(i) for i in range(MAX_ROLES + 1)]},
        {"session": None, "user": None},
        {"session": None, "user": {"id": "u1"}},
        {"session": {"userId": "u1", "expiresAt": EARLIER}, "user": {"id": "u1"}},
        {"session": {"userId": "u1", "expiresAt": LATER}, "user": {"id": "u2"}},
        {"session": {"userId": "u1", "expiresAt": LATER}, "user": {"id": "u1", "banned": True}},
        {"session": {"userId": "u1"}, "user": {"id": "u1", "banned": True, "banExpires": LATER}},
        {"session": {}, "user": {}},
    ],
    ids=repr,
)
def test_answers_that_are_nobody(answer: object) -> None:
    with pytest.raises(TokenRefused):
        read(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"u1", b"\xff", b"{", b"[" * 60_000, b'{"sub":"u1","exp":NaN}', b'{"sub":"u1"} x',
        [], "u1", 7, True, False,
        *[{"sub": "u1", "exp": odd} for odd in ("soon", "", "nan", True, [NOW], {}, 10**400)],
        *[{"sub": "u1", "expires_in": odd} for odd in ("soon", "", "nan", "inf", True, [9], {}, 10**400)],
        *[
            {"session": {"userId": "u1", "expiresAt": odd}}
            for odd in ("", "soon", "2999-01-01T00:00:00", True, [], {}, "99999-01-01T00:00:00Z")
        ],
    ],
    ids=lambda answer: repr(answer)[:60],
)  # fmt: skip
def test_answers_that_cannot_be_understood(answer: object) -> None:
    with pytest.raises(UnreadableResponse):
        read(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


NAMES = ["active", "sub", "user_id", "id", "exp", "role", "roles", "banned", "userId", "expiresAt"]


FIELDS = st.dictionaries(st.sampled_from(NAMES), JSON)


@given(JSON | FIELDS | st.fixed_dictionaries({"session": FIELDS | JSON, "user": FIELDS | JSON}) | st.binary())
def test_whatever_an_endpoint_says_is_somebody_nobody_or_unreadable(answer: object) -> None:
    with suppress(TokenRefused, UnreadableResponse):
        found = read(answer)
        for name in (found.user_id, *found.roles):
            assert 0 < len(name) <= MAX_NAME
            assert name.isprintable()
        assert found.session_id is None
        assert found.expires_at > NOW


def test_what_may_be_shown_to_an_endpoint() -> None:
    for token in (TOKEN, "x", "x" * MAX_OPAQUE_BYTES, "a.b.c"):
        assert well_formed(token)
    for token in ("", " ", "a b", "a\r\nX: y", "a\n", "\0", "é", "\x7f", "\ud800", "x" * (MAX_OPAQUE_BYTES + 1)):
        assert not well_formed(token)
