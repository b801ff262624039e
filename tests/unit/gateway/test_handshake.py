"""One form out of every form of a handshake, and what is wrong with the others."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from watchout.gateway.client.handshake import (
    MAX_LINE_BYTES,
    HandshakeFault,
    is_upgrade,
    one_form,
    path_and_query,
    read_target,
)
from watchout.gateway.listen.head import HeadFault, check_head
from watchout.gateway.model import SocketPath

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
PLAIN = (*UPGRADE, KEY, VERSION)
NAMES = ("sid", "__Secure-sid")


def head(*fields: str, target: str = "/streams/subscribe") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost:3000", *fields, "", ""]).encode("latin-1")


def read(whole: bytes) -> Request:
    """The request as the library reads it, which must accept it."""
    check_head(whole)
    assert is_upgrade(whole)
    protocol = ServerProtocol()
    protocol.receive_data(one_form(whole, NAMES))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    assert protocol.accept(request).status_code == 101
    return request


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        ("upgrade: WebSocket", "connection: upgrade", KEY, VERSION),
        ("UPGRADE: WEBSOCKET", "CONNECTION: UPGRADE", KEY.replace("Sec-WebSocket-Key", "SEC-WEBSOCKET-KEY"), VERSION),
        ("Upgrade: websocket, h2c", "Connection: keep-alive, Upgrade", KEY, VERSION),
        ("Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: Upgrade", KEY, VERSION),
        ("Upgrade:\t websocket \t", "Connection:,\tUpgrade ,, HTTP2-Settings", KEY, VERSION),
        (*PLAIN, "Content-Length: 0"),
        (*PLAIN, "X-Anything: \xe4\xff", "DNT: 1", "Sec-Fetch-Mode: websocket", "Pragma: no-cache"),
        (*PLAIN, "Sec-WebSocket-Protocol:"),
        (*PLAIN, "Sec-WebSocket-Protocol: ,, ,"),
        (*PLAIN, "Sec-WebSocket-Extensions:"),
        (*PLAIN, "Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate; client_max_window_bits"),
        (*PLAIN, 'Sec-WebSocket-Extensions: ,x-unknown; a=1; b="c",,', "Sec-WebSocket-Extensions: permessage-bzip2"),
        (*PLAIN, "Expect: 100-continue"),
    ],
)
@pytest.mark.parametrize(
    "target", ["/streams/subscribe", "http://other:1/streams/subscribe?", "/streams/%73ubscribe?a"]
)
def test_each_form_is_read_as_one(fields: tuple[str, ...], target: str) -> None:
    request = read(head(*fields, target=target))
    path, _ = path_and_query(request.path)
    assert path is SocketPath.SUBSCRIBE
    assert request.headers["Host"] == ("other:1" if "://" in target else "localhost:3000")


def test_what_is_looked_at_is_kept_line_by_line_and_the_rest_is_not() -> None:
    lines = (
        "Authorization: Bearer a", "Authorization: Bearer b", "Cookie: a=b; sid=c", "cookie: d", "Origin: https://a.b",
        "X-Forwarded-Proto: https", "X-Forwarded-Host: a", "X-Forwarded-Host: b", "X-Forwarded-Port: 1", "X-Other: y",
    )  # fmt: skip
    headers = read(head(*PLAIN, *lines)).headers
    assert headers.get_all("Authorization") == ["Bearer a", "Bearer b"]
    assert headers.get_all("Cookie") == ["a=b; sid=c", "d"]
    assert headers.get_all("X-Forwarded-Host") == ["a", "b"]
    assert (headers["Origin"], headers["X-Forwarded-Proto"], headers["X-Forwarded-Port"]) == (
        "https://a.b",
        "https",
        "1",
    )
    assert "X-Other" not in headers


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (["chat"], "chat"), (["chat, superchat"], "chat"), (["chat", "superchat"], "chat"), (["", " ,b , a"], "b"),
        (["bearer, abc.def-_~"], "bearer"), (["v1.watchout+json"], "v1.watchout+json"), (["\ta\t,b"], "a"),
    ],
)  # fmt: skip
def test_the_first_subprotocol_that_is_offered_is_the_only_one(lines: list[str], first: str) -> None:
    headers = read(head(*PLAIN, *(f"Sec-WebSocket-Protocol: {line}" for line in lines))).headers
    assert headers.get_all("Sec-WebSocket-Protocol") == [first]


def test_of_cookies_that_are_too_long_only_the_sessions_are_kept() -> None:
    long = "x" * 9000
    for line in (f"a={long}; sid=one; __Secure-sid=two;b={long}", f"sid=one;a={long};__Secure-sid=two;xsid={long}"):
        request = read(head(*PLAIN, f"Cookie: {line}"))
        pairs = [pair.strip() for pair in request.headers["Cookie"].split(";")]
        assert pairs == ["sid=one", "__Secure-sid=two"]
    assert read(head(*PLAIN, f"Cookie: sid={long}")).headers["Cookie"] == ""
    short = "a=b; sid=" + "x" * (MAX_LINE_BYTES - 20)
    assert read(head(*PLAIN, f"Cookie: {short}")).headers["Cookie"] == short


@pytest.mark.parametrize(
    ("fields", "status", "what"),
    [
        (("Upgrade: websocket", KEY, VERSION), 426, "Connection: Upgrade"),
        (("Upgrade: websocket", "Connection: keep-alive", KEY, VERSION), 426, "Connection: Upgrade"),
        ((*UPGRADE, VERSION), 400, "one Sec-WebSocket-Key header, got 0"),
        ((*PLAIN, KEY), 400, "one Sec-WebSocket-Key header, got 2"),
        ((*UPGRADE, "Sec-WebSocket-Key:", VERSION), 400, "Sec-WebSocket-Key is not"),
        ((*UPGRADE, "Sec-WebSocket-Key: AAAA", VERSION), 400, "Sec-WebSocket-Key is not"),
        ((*UPGRADE, "Sec-WebSocket-Key: \xe4", VERSION), 400, "Sec-WebSocket-Key is not"),
        ((*UPGRADE, KEY), 400, "one Sec-WebSocket-Version header, got 0"),
        ((*PLAIN, VERSION), 400, "one Sec-WebSocket-Version header, got 2"),
        ((*UPGRADE, KEY, "Sec-WebSocket-Version: 8"), 426, "Sec-WebSocket-Version 13"),
        ((*PLAIN, "Content-Length: 5"), 400, "no body"),
        ((*PLAIN, "Content-Length: 0", "Content-Length: 5"), 400, "no body"),
        ((*PLAIN, "Transfer-Encoding: chunked"), 400, "no body"),
        ((*PLAIN, "Origin: https://a.b", "Origin: https://a.b"), 400, "more than one Origin"),
        ((*PLAIN, "Sec-WebSocket-Protocol: a b"), 400, "Sec-WebSocket-Protocol"),
        ((*PLAIN, "Sec-WebSocket-Protocol: a, b=="), 400, "Sec-WebSocket-Protocol"),
        ((*PLAIN, "Sec-WebSocket-Protocol: \xe4"), 400, "Sec-WebSocket-Protocol"),
        ((*PLAIN, "Sec-WebSocket-Extensions: a b"), 400, "Sec-WebSocket-Extensions"),
        ((*PLAIN, "Sec-WebSocket-Extensions: permessage-deflate; a="), 400, "Sec-WebSocket-Extensions"),
    ],
)
def test_what_the_rfcs_forbid_is_refused_by_the_name_of_its_header(
    fields: tuple[str, ...], status: int, what: str
) -> None:
    with pytest.raises(HandshakeFault, match=what) as fault:
        one_form(head(*fields), NAMES)
    assert (fault.value.status, fault.value.code) == (status, "BAD_REQUEST" if status == 400 else "UPGRADE_REQUIRED")


@given(
    st.lists(st.tuples(st.sampled_from([line.partition(":")[0] for line in PLAIN]), st.text("ab,;= \t13", max_size=9)))
)
def test_any_head_is_in_one_form_or_refused(fields: list[tuple[str, str]]) -> None:
    whole = head(*(f"{name}: {value}" for name, value in fields), *PLAIN)
    with contextlib.suppress(HeadFault, HandshakeFault):
        check_head(whole)
        assert is_upgrade(one_form(whole, NAMES))


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_target_can_be_read(target: str) -> None:
    found = read_target(target)
    if found is not None:
        assert found.path.startswith("/")
        assert read_target(found.path) == type(found)(found.path, "")  # once is enough


def test_escapes_of_what_has_a_meaning_stay() -> None:
    found = read_target("/a%2Fb%3f%25%7e%41?%41")
    assert found is not None
    assert (found.path, found.query, found.host) == ("/a%2Fb%3f%25~A", "%41", None)
