"""From which pages a cookie counts, by what browsers send with a handshake and with other requests."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from watchout.common.settings import Settings
from watchout.gateway.requests.sign_in import Sender, page_fault

APP = "https://app.example.com"
LISTED = Settings(allowed_origins=(APP, "capacitor://localhost"), trusted_proxies=(ip_network("10.0.0.0/8"),))
UNLISTED = Settings(trusted_proxies=(ip_network("10.0.0.0/8"),))
Lines = list[tuple[str, str]]


def fault(settings: Settings, lines: Lines, *, handshake: bool, peer: str = "", secure: bool = False) -> str | None:
    lines = lines if any(name == "Host" for name, _ in lines) else [("Host", "own.example:3000"), *lines]
    sender = Sender(lambda name: [value for each, value in lines if each == name], "", peer, secure)
    return page_fault(sender, settings, handshake=handshake)


@pytest.mark.parametrize("handshake", [True, False])
def test_the_origin_decides_where_there_is_one(handshake: bool) -> None:
    for settings in (LISTED, UNLISTED):
        assert fault(settings, [("Origin", "http://own.example:3000")], handshake=handshake) is None
        for page in ("null", "https://evil.com", "http://own.example", "http://own.example:3000.evil.com", ""):
            foreign = [("Origin", page), ("Sec-Fetch-Site", "same-origin"), ("Referer", f"{APP}/")]
            assert fault(settings, foreign, handshake=handshake) is not None, page
        twice = [("Origin", "http://own.example:3000")] * 2
        assert fault(settings, twice, handshake=handshake) is not None
    for page in (APP, "capacitor://localhost"):
        assert fault(LISTED, [("Origin", page)], handshake=handshake) is None
        assert fault(UNLISTED, [("Origin", page)], handshake=handshake) is not None


def test_a_handshake_without_an_origin_is_no_pages() -> None:
    for lines in ([], [("Sec-Fetch-Site", "same-origin")], [("Referer", f"{APP}/")]):
        assert fault(LISTED, lines, handshake=True) is not None


@pytest.mark.parametrize(
    ("lines", "may"),
    [
        ([("Sec-Fetch-Site", "same-origin")], True), ([("Sec-Fetch-Site", "none")], True),
        ([("Sec-Fetch-Site", "same-site")], False), ([("Sec-Fetch-Site", "cross-site")], False), ([], False),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], False),
        ([("Referer", f"{APP}/x")], True), ([("Referer", "http://own.example:3000/x")], True),
        ([("Referer", f"{APP}/x"), ("Sec-Fetch-Site", "cross-site")], True),
        ([("Referer", "http://own.example:3001/"), ("Sec-Fetch-Site", "same-site")], False),
        ([("Referer", f"{APP}/"), ("Referer", "https://evil.com/")], False), ([("Referer", "")], False),
    ],
)  # fmt: skip
def test_a_request_without_an_origin_needs_the_browsers_word_for_the_page(lines: Lines, may: bool) -> None:
    assert (fault(LISTED, lines, handshake=False) is None) is may


def test_behind_a_trusted_proxy_the_own_origin_is_what_the_client_sees() -> None:
    page = ("Origin", "https://watch.example.com")
    forwarded = [
        ("Host", "10.0.0.5:3000"),
        ("X-Forwarded-Host", "watch.example.com"),
        ("X-Forwarded-Proto", "https"),
        page,
    ]
    for settings in (LISTED, UNLISTED):
        assert fault(settings, forwarded, handshake=True, peer="10.0.0.1") is None
        assert fault(settings, forwarded, handshake=True, peer="192.0.2.1") is not None
    plain = [*forwarded[:-1], ("Origin", "http://watch.example.com")]
    assert fault(UNLISTED, plain, handshake=True, peer="10.0.0.1") is not None
    port = [("Host", "watch.example.com"), ("X-Forwarded-Port", "8443"), ("Origin", "https://watch.example.com:8443")]
    assert fault(UNLISTED, port, handshake=True, peer="10.0.0.1") is None
    assert fault(UNLISTED, port, handshake=True, peer="192.0.2.1") is not None
    direct = [("Host", "own.example"), ("Origin", "https://own.example")]
    assert fault(UNLISTED, direct, handshake=True, secure=True) is None
    assert fault(UNLISTED, [direct[0], ("Origin", "http://own.example")], handshake=True, secure=True) is not None
