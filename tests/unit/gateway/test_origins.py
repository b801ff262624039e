"""Which pages may use a cookie and read answers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.requests.origins import EXPOSED, allowed, cors_headers, preflight_headers

APP = "https://app.example.com"
LISTED = (APP, "http://localhost:5173", "https://[::1]:8443")


# ── with a list ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "origin",
    [
        APP, "https://app.example.com:443", "https://APP.Example.com", "HTTPS://app.example.com",
        "http://localhost:5173", "https://[::1]:8443", "https://[0:0:0:0:0:0:0:1]:8443",
    ],
)  # fmt: skip
def test_an_origin_of_the_list_is_allowed(origin: str) -> None:
    assert allowed(origin, ["elsewhere"], LISTED)


@pytest.mark.parametrize(
    "origin",
    [
        None, "", "null", "NULL", "*", "https://*", "https://*.example.com", "file://", "about:blank",
        "http://app.example.com", "https://app.example.com:8443", "https://app.example.com:80", "wss://app.example.com",
        "https://evil.example.com", "https://example.com", "https://app.example.com.evil.com",
        "https://evilapp.example.com", "https://app.example.comevil.com", "https://app-example.com",
        "https://app.example.com.", "https://.app.example.com", "https://app.example.co", "https://pp.example.com",
        "https://x.app.example.com", "https://app.example.com/", "https://app.example.com/x",
        "https://app.example.com?x", "https://app.example.com#x", "https://app.example.com@evil.com",
        "https://evil.com@app.example.com", "https://user:pw@app.example.com", "https://app.example.com\\@evil.com",
        "https://app.example.com https://app.example.com", "https://evil.com https://app.example.com",
        "https://app.example.com, https://evil.com", "https://app.example.com,null", " https://app.example.com",
        "https://app.example.com ", "https://app.example.com\n", "https://app.example.com\r\nX: y",
        "https://app.example.com\0", "https:app.example.com", "https:/app.example.com", "https:///app.example.com",
        "https://", "//app.example.com", "app.example.com", "https://app.example.com:", "https://app.example.com:0443",
        "https://app.example.com:0", "https://app.example.com:70000", "https://app.example.com:4 43",
        "https://app.example.com:443443", "https://аpp.example.com", "https://app.example.com:４４３",
        "https://app。example.com", "https://app%2eexample.com", "javascript://app.example.com",
        "http://localhost", "http://localhost:51730", "http://localhost:517", "http://127.0.0.1:5173",
        "https://[::1]", "https://[::1", "https://::1:8443", "https://[::ffff:1]:8443", "https://[x]:8443",
        "https://" + "a" * 10_000,
    ],
)  # fmt: skip
def test_what_only_looks_like_one_is_not(origin: str | None) -> None:
    assert not allowed(origin, [], LISTED)
    assert not allowed(origin, [], LISTED, secure=True)


def test_with_a_list_too_the_own_origin_is_allowed() -> None:
    assert allowed("https://watch.example.com", ["watch.example.com"], LISTED)
    assert not allowed("https://watch.example.com:8443", ["watch.example.com"], LISTED)


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost", "ionic://localhost", "tauri://localhost", "http://tauri.localhost", "https://localhost",
        "app://localhost", "app://.", "app://-", "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://3c078156-979c-498b-8990-85f7987dd929", "safari-web-extension://93A5E4B2-E5A2-4F8A-8D4E-0A3DDBB1",
        "vscode-webview://1a2b3c", "capacitor://localhost:8080",
    ],
)  # fmt: skip
def test_origins_of_hybrid_apps_and_extensions_are_compared_like_others(origin: str) -> None:
    scheme, _, rest = origin.partition("://")
    assert allowed(origin, [], (origin,))
    assert allowed(scheme.upper() + "://" + rest.upper(), [], (origin,))
    for other in (f"{origin}x", f"{origin}.evil", f"x{origin}", f"{origin}/", f"other://{rest}", f"{origin}:1", "null"):
        assert not allowed(other, [], (origin,)), other
    assert not allowed(origin, [rest], ()) or scheme in ("http", "https")  # no gateway is at such an origin


@pytest.mark.parametrize("listed", [("null",), ("file://",), ("*",), ("null", APP)])
def test_null_is_nobodys_whatever_the_list_says(listed: tuple[str, ...]) -> None:
    for origin in ("null", "file://", "*"):
        assert not allowed(origin, ["null", "null:80", ""], listed)
        assert not allowed(origin, ["null", "null:80", ""], listed, secure=True)


@given(st.text(max_size=40), st.integers(0, 23))
def test_no_text_before_inside_or_after_an_allowed_origin_is_forgiven(text: str, at: int) -> None:
    changed = APP[:at] + text + APP[at:]
    assert allowed(changed, [], (APP,)) == (changed.lower() in (APP, f"{APP}:443"))
    appended = APP + text
    assert allowed(appended, [], (APP,)) == (appended in (APP, f"{APP}:443"))


@given(st.text(max_size=60), st.text(max_size=60), st.booleans())
def test_any_text_can_be_asked_about(origin: str, host: str, secure: bool) -> None:
    for listed in ((), LISTED):
        assert allowed(origin, [host], listed, secure=secure) in (True, False)
        cors_headers(origin, listed)


# ── without a list: the own origin ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:3000"), ("http://LOCALHOST:3000", "Localhost:3000"),
        ("https://a.example", "a.example"), ("https://a.example", "a.example:443"),
        ("https://a.example:443", "a.example"), ("http://a.example", "a.example:80"),
        ("http://a.example:80", "a.example"), ("http://[::1]:3000", "[::1]:3000"),
        ("http://[0::1]:3000", "[::1]:3000"), ("http://127.0.0.1:3000", "127.0.0.1:3000"),
    ],
)  # fmt: skip
def test_a_page_of_the_own_host_and_port_is_allowed(origin: str, host: str) -> None:
    for listed in ((), LISTED):
        assert allowed(origin, [host], listed)
        assert allowed(origin, ["elsewhere", host], listed)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3001", "localhost:3000"), ("http://localhost", "localhost:3000"),
        ("http://localhost:3000", "localhost"), ("http://localhost.evil.com:3000", "localhost:3000"),
        ("http://evillocalhost:3000", "localhost:3000"), ("http://localhost:3000@evil.com", "localhost:3000"),
        ("http://127.0.0.1:3000", "localhost:3000"), ("https://a.example", "a.example:80"),
        ("http://a.example", "a.example:443"), ("http://a.example", None), ("http://a.example", ""),
        ("http://a.example", "a.example, a.example"), ("http://a.example", "a.example "),
        ("http://a.example", "user@a.example"), ("http://a.example", "a.example/"), ("null", "null"),
        ("http://null", "nul"), ("ftp://a.example", "a.example"), (None, "a.example"), ("", ""),
        ("http://a.example:99999", "a.example:99999"),
    ],
)  # fmt: skip
def test_a_page_of_any_other_is_not(origin: str | None, host: str | None) -> None:
    for listed in ((), LISTED):
        assert not allowed(origin, [] if host is None else [host], listed)


def test_over_tls_a_page_without_it_is_another_origin() -> None:
    assert allowed("https://a.example", ["a.example"], (), secure=True)
    assert not allowed("http://a.example", ["a.example"], (), secure=True)
    assert not allowed("http://a.example:443", ["a.example:443"], (), secure=True)


def test_every_pair_of_different_authorities_is_refused() -> None:
    names = ["a.example", "b.example", "a.example.evil", "aa.example", "[::1]", "[::2]", "10.0.0.1"]
    authorities = [name + port for name in names for port in ("", ":3000", ":3001")]
    for own, other in itertools.product(authorities, repeat=2):
        assert allowed(f"https://{other}", [own], ()) == (own == other)


# ── CORS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_allowed_page_may_read_the_answer() -> None:
    assert cors_headers(APP, LISTED) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSED,
    }


@pytest.mark.parametrize("origin", [None, "null", "https://evil.com", f"{APP}.evil.com"])
def test_no_other_page_may_and_caches_are_told_that_it_depends(origin: str | None) -> None:
    assert cors_headers(origin, LISTED) == {"Vary": "Origin"}
    assert preflight_headers(origin, "GET", LISTED) is None


def test_without_a_list_there_is_nothing_to_say() -> None:
    assert cors_headers(APP, ()) == {}
    assert preflight_headers(APP, "GET", ()) is None


def test_a_preflight_of_an_allowed_page_is_told_what_it_may_send() -> None:
    assert preflight_headers(APP, "GET, HEAD", LISTED) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, HEAD",
        "Access-Control-Allow-Headers": "authorization, content-type, if-none-match",
        "Access-Control-Max-Age": "600",
    }
