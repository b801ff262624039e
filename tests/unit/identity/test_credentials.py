"""What a request carries, and the session token in it. What Better Auth itself accepts is in tests/e2e."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.identity import Cookie, Credential, Ticket, Token, find_credential
from watchout.identity.credentials import MAX_QUERY_FIELDS, cookie_value, session_token, signed_session_token

TOKEN = "RvCJ0abcdefghijklmnopqrstuvwxyz1"
SECRET = "the secret of this site"
NAME = "better-auth.session_token"


def sign(token: str = TOKEN, secret: str = SECRET) -> str:
    return f"{token}.{base64.b64encode(hmac.digest(secret.encode(), token.encode(), hashlib.sha256)).decode()}"


def find(
    authorization: tuple[str, ...] = (), cookies: tuple[str, ...] = (), query: str = "", secure_only: bool = False
) -> Credential | None:
    return find_credential(authorization, cookies, query, cookie_name=NAME, secure_only=secure_only)


@pytest.mark.parametrize(
    ("authorization", "cookies", "query", "found"),
    [
        ((), (), "", None),
        (("Bearer abc",), (), "", Token("abc")),
        (("bearer abc",), (), "", Token("abc")),
        (("BEARER  abc ",), (), "", Token("abc")),
        (("Bearer ",), (), "", None),
        (("Bearer",), (), "", None),
        (("Basic abc",), (), "token=q", Token("q")),
        (("Bearer abc",), (f"{NAME}=c",), "token=q&ticket=t", Token("abc")),
        ((), (f"{NAME}=c",), "token=q&ticket=t", Token("q")),
        ((), (f"{NAME}=c",), "ticket=t", Ticket("t")),
        ((), (f"{NAME}=c",), "token=&x=1", Cookie("c")),
        ((), (f"__Secure-{NAME}=s; {NAME}=c",), "", Cookie("s")),
        ((), (f"{NAME}=c; __Secure-{NAME}=s",), "", Cookie("s")),
        ((), ("other=1", f"{NAME}=c"), "", Cookie("c")),
        ((), ("session_data=x; other=1",), "", None),
        ((), (), "token=a%2Bb%3D", Token("a+b=")),
        ((), (), "token=a+b", Token("a+b")),
        ((), (), "token=first&token=second", Token("first")),
        ((), (), "nottoken=a&tokens=b", None),
    ],
)
def test_which_credential_decides(
    authorization: tuple[str, ...], cookies: tuple[str, ...], query: str, found: Credential | None
) -> None:
    assert find(authorization, cookies, query) == found


def test_where_only_the_secure_cookie_counts_a_planted_one_does_not() -> None:
    assert find(cookies=(f"{NAME}=planted",), secure_only=True) is None
    assert find(cookies=(f"{NAME}=planted; __Secure-{NAME}=own",), secure_only=True) == Cookie("own")


def test_two_authorizations_are_not_one() -> None:
    with pytest.raises(ValueError, match="more than one"):
        find(("Bearer a", "Bearer b"))


def test_a_query_is_not_read_without_end() -> None:
    assert find(query="&".join(["token=x"] * MAX_QUERY_FIELDS)) == Token("x")
    with pytest.raises(ValueError, match="over 32 fields"):
        find(query="&".join(["token=x"] * (MAX_QUERY_FIELDS + 1)))


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["sid=1"], "1"),
        (["a=0; sid=1; sid=2"], "1"),
        (["sid=1", "sid=2"], "1"),
        (["SID=1; sid=2"], "2"),
        (["  sid = 1 ;x"], "1"),
        (["sid=a=b=="], "a=b=="),
        (["sid="], ""),
        (['sid="1"; sid=2'], "1"),
        (['sid="'], '"'),
        (['sid=""'], ""),
        (["xsid=1; sidx=2; sid"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_first_cookie_of_a_name_counts(lines: list[str], value: str | None) -> None:
    assert cookie_value(lines, "sid") == value


@pytest.mark.parametrize("value", [sign(), quote(sign(), safe=""), quote(sign())])
def test_a_signed_token_is_taken_with_and_without_percent_encoding(value: str) -> None:
    assert signed_session_token(value, SECRET) == TOKEN
    assert signed_session_token(value, None) == TOKEN


#: Another signature: the first of 43 digits is another.
FLIPPED = f"{TOKEN}." + ("B" if sign()[33] == "A" else "A") + sign()[34:]


@pytest.mark.parametrize(
    "value",
    [
        TOKEN, f"{TOKEN}.", f".{sign().split('.')[1]}", sign()[:-1], sign() + "=", sign().replace("=", ""),
        sign(secret="another secret"), sign(TOKEN[::-1]).replace(TOKEN[::-1], TOKEN), FLIPPED,
        f"{TOKEN}.{'*' * 43}=", f"{TOKEN}.{'é' * 43}=", sign("short"), sign("with space" * 2), sign("t" * 513),
        quote(sign()) + "%ff", quote(quote(sign())), sign() + "\0", "", ".", "%", "%zz" * 20,
    ],
)  # fmt: skip
def test_a_signature_that_is_not_right_is_nobody(value: str) -> None:
    assert signed_session_token(value, SECRET) is None


@pytest.mark.parametrize("value", [TOKEN, f"{TOKEN}.", f"{TOKEN}.short=", sign()[:-1], sign("short")])
def test_without_a_secret_the_form_must_still_be_right(value: str) -> None:
    assert signed_session_token(value, None) is None


@pytest.mark.parametrize(
    ("credential", "require_signed", "found"),
    [
        (Token(TOKEN), False, TOKEN),
        (Token(TOKEN), True, None),
        (Token(sign()), False, TOKEN),
        (Token(sign()), True, TOKEN),
        (Token(sign(secret="another secret")), False, None),
        (Token("short"), False, None),
        (Token(TOKEN + "\0"), False, None),
        (Token("a.b.c" + "x" * 40), False, None),
        (Cookie(TOKEN), False, None),
        (Cookie(quote(sign())), False, TOKEN),
    ],
)
def test_the_session_token_in_a_credential(credential: Token | Cookie, require_signed: bool, found: str | None) -> None:
    assert session_token(credential, SECRET, require_signed=require_signed) == found


def test_nothing_of_a_credential_shows() -> None:
    for credential in (Token("canary"), Cookie("canary"), Ticket("canary")):
        assert "canary" not in f"{credential!r} {credential}"


@given(st.text(max_size=120), st.none() | st.just(SECRET))
def test_no_text_makes_it_raise(text: str, secret: str | None) -> None:
    for credential in (Token(text), Cookie(text)):
        found = session_token(credential, secret, require_signed=False)
        assert found is None or found in text or "%" in text


@given(
    st.from_regex(r"[\x21-\x24\x26-\x2d\x2f-\x7e]{16,64}", fullmatch=True),
    st.text(st.characters(categories=["L", "M", "N", "P", "S"], include_characters=" "), min_size=8, max_size=40),
)
def test_what_better_auth_signs_is_understood(token: str, secret: str) -> None:
    assert signed_session_token(quote(sign(token, secret), safe=""), secret) == token
    assert signed_session_token(sign(token, secret), secret + "x") is None


@given(st.lists(st.text(max_size=30), max_size=3), st.text(max_size=60))
def test_no_header_makes_it_raise_anything_but_value_error(headers: list[str], query: str) -> None:
    with contextlib.suppress(ValueError):
        find(tuple(headers), tuple(headers), query)
