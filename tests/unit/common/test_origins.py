"""What is an origin, in a header, in a URL and as an operator writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.origins import from_setting, of_host, of_url, parse


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("https://[0:0::1]:8443", "https://[::1]:8443"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://faß.example:8443/", "https://xn--fa-hia.example:8443"),  # as browsers have it, not fass
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost/", "ionic://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("http://tauri.localhost", "http://tauri.localhost"),
        ("app://-", "app://-"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        (
            "moz-extension://3c078156-979c-498b-8990-85f7987dd929",
            "moz-extension://3c078156-979c-498b-8990-85f7987dd929",
        ),
    ],
)
def test_an_operators_origin_becomes_what_browsers_send(written: str, sent: str) -> None:
    assert str(from_setting(written)) == sent
    assert parse(sent) == from_setting(written)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("app.example.com", "no scheme: write https://app.example.com"),
        ("localhost:3000", "no scheme: write https://localhost:3000"),
        ("//app.example.com", "no scheme"),
        ("://app.example.com", "no scheme"),
        ("https://app.example.com/login", "a path"),
        ("https://app.example.com?x=1", "a query"),
        ("https://app.example.com#x", "a query"),
        ("https://*.example.com", "a wildcard"),
        ("*", "a wildcard"),
        ("wss://app.example.com", "write that of the page, https://app.example.com"),
        ("WS://localhost:3002", "write that of the page, http://localhost:3002"),
        ("null", "pages of every site"),
        ("file://", "pages of every site"),
        ("file:///index.html", "pages of every site"),
        ("https://user@app.example.com", "a user name"),
        ("https://", "is none"),
        ("https://app.example.com:99999", "is none"),
        ("https://app.example.com:x", "is none"),
        ("https://[::1", "is none"),
        ("https://ü ö", "is none"),
    ],
)
def test_what_is_none_is_refused_with_what_is_wrong(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_setting(written)


@given(st.text(max_size=60))
def test_any_text_is_an_origin_or_refused(text: str) -> None:
    try:
        origin = from_setting(text)
    except ValueError:
        return
    assert parse(str(origin)) == origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:5173/", "http://localhost:5173"),
        ("https://app.example.com/a/b?c=https://evil.com#d", "https://app.example.com"),
        ("https://app.example.com?x", "https://app.example.com"),
        ("https://app.example.com", "https://app.example.com"),
    ],
)
def test_the_origin_of_a_url_is_its_beginning(url: str, origin: str) -> None:
    assert of_url(url) == parse(origin)


@pytest.mark.parametrize(
    "url",
    [
        None, "", "/", "about:blank", "https://app.example.com@evil.com/", "//app.example.com/", "data:,https://x.y/",
        "https://user:pw@app.example.com/", " https://app.example.com/", "https:///app.example.com",
    ],
)  # fmt: skip
def test_a_url_without_one_has_none(url: str | None) -> None:
    assert of_url(url) is None


def test_a_backslash_ends_the_host_as_in_browsers() -> None:
    assert of_url("https://evil.com\\@app.example.com/") == parse("https://evil.com")


def test_hosts_have_the_port_of_the_scheme() -> None:
    assert of_host("https", "a.example") == of_host("https", "A.example:443") == parse("https://a.example")
    assert of_host("http", "a.example") == parse("http://a.example:80")
    assert of_host("http", "a.example/x") is of_host("http", None) is None
