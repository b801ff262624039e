"""Which request heads ask for a WebSocket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.client.handshake import is_upgrade


def head(line: str = "GET /streams/register HTTP/1.1", *headers: str) -> bytes:
    fields = headers or ("Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "line",
    [
        "GET /streams/register HTTP/1.1",
        "GET /streams/subscribe HTTP/1.1",
        "GET /streams/register? HTTP/1.1",
        "GET /streams/subscribe?token=a.b%3D%3D HTTP/1.1",
        "GET /streams/subscribe?token=a&x=/streams/other?y HTTP/1.1",
        "GET http://localhost/streams/register HTTP/1.1",
        "GET HTTP://Localhost:3000/streams/register?token=a HTTP/1.1",
        "GET https://[::1]:3000/streams/register? HTTP/1.1",
        "GET ws://localhost/streams/subscribe HTTP/1.1",
        "GET wss://other.example/streams/subscribe HTTP/1.1",
        "GET /streams/%72egister HTTP/1.1",
        "GET /%73treams/%72%65gister?x=%20 HTTP/1.1",
        "GET http://localhost/streams/%72egister HTTP/1.1",
    ],
)
def test_these_lines_ask_for_a_websocket(line: str) -> None:
    assert is_upgrade(head(line))


@pytest.mark.parametrize(
    "line",
    [
        "POST /streams/register HTTP/1.1",
        "get /streams/register HTTP/1.1",
        "GETT /streams/register HTTP/1.1",
        " GET /streams/register HTTP/1.1",
        "GET  /streams/register HTTP/1.1",
        "GET /streams/register HTTP/1.0",
        "GET /streams/register HTTP/2.0",
        "GET /streams/register http/1.1",
        "GET /streams/register",
        "GET /streams/register/ HTTP/1.1",
        "GET /streams/Register HTTP/1.1",
        "GET /streams/registered HTTP/1.1",
        "GET /streams/register#x HTTP/1.1",
        "GET /streams/register%20 HTTP/1.1",
        "GET /streams/register?a b HTTP/1.1",
        "GET //streams/register HTTP/1.1",
        "GET /x/../streams/register HTTP/1.1",
        "GET ftp://localhost/streams/register HTTP/1.1",
        "GET http://user@localhost/streams/register HTTP/1.1",
        "GET http:///streams/register HTTP/1.1",
        "GET http:/streams/register HTTP/1.1",
        "GET //localhost/streams/register HTTP/1.1",
        "GET localhost/streams/register HTTP/1.1",
        "GET streams/register HTTP/1.1",
        "GET http://localhost HTTP/1.1",
        "GET http://localhost?/streams/register HTTP/1.1",
        "GET http://localhost\\@evil.com/streams/register HTTP/1.1",
        "GET /streams%2Fregister HTTP/1.1",
        "GET /streams/%52egister HTTP/1.1",
        "GET /streams/%2572egister HTTP/1.1",
        "GET /streams/%7Zegister HTTP/1.1",
        "GET /streams/register%3F HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /streams HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /health HTTP/1.1",
        "GET /streams/door/frame.jpg HTTP/1.1",
    ],
)
def test_these_lines_ask_for_no_websocket(line: str) -> None:
    assert not is_upgrade(head(line))


@pytest.mark.parametrize(
    "field",
    [
        "Upgrade: websocket",
        "upgrade: websocket",
        "UPGRADE: WebSocket",
        "Upgrade:websocket",
        "Upgrade: \t websocket \t",
        "Upgrade: websocket, h2c",
        "Upgrade: h2c,WebSocket",
        "Upgrade: ,, websocket ,",
        "Upgrade: h2c\r\nUpgrade: websocket",
    ],
)
def test_the_upgrade_header_is_read_without_case_and_space(field: str) -> None:
    assert is_upgrade(head("GET /streams/register HTTP/1.1", "Host: localhost", field))
    assert is_upgrade(head("GET /streams/register HTTP/1.1", field, "Host: localhost"))


@pytest.mark.parametrize(
    "fields",
    [
        ("Host: localhost",),
        ("Upgrade: h2c",),
        ("Upgrade: websocketx",),
        ("Upgrade: websocket h2c",),
        ("Upgrade: websocket/13",),
        ("Upgrade: web, socket",),
        ("X-Upgrade: websocket",),
        ("Connection: Upgrade, websocket",),
        ("X: a Upgrade: websocket",),
        ("Upgrade : websocket",),
    ],
)
def test_without_the_upgrade_header_it_is_http(fields: tuple[str, ...]) -> None:
    assert not is_upgrade(head("GET /streams/register HTTP/1.1", *fields))


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"GET /streams/register HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00"])
def test_what_is_no_whole_head_is_no_upgrade(data: bytes) -> None:
    assert not is_upgrade(data)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_asked_about(data: bytes) -> None:
    assert is_upgrade(data) in (True, False)
