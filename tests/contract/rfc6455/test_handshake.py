"""RFC 6455 section 4: the handshake."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.contract.rfc6455.support import SUBSCRIBE
from tests.kit.clients import TEXT, Clients, base64_of, http, web_socket_frame

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """What these bytes mean does not depend on the event loop."""
    return "uvloop"


KEY: Final = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION: Final = "Sec-WebSocket-Version: 13"
UPGRADE: Final = ("Upgrade: websocket", "Connection: Upgrade")


async def shaken(
    clients: Clients, url: str, *lines: str, method: str = "GET", version: str = "HTTP/1.1", target: str = SUBSCRIBE,
    later: bool = False,
) -> Any:  # fmt: skip
    """The answer to a handshake, on a new connection or on one that has served another request."""
    raw = await clients.raw(url)
    if later:
        await raw.send(raw.head("/health/live"))
        assert (await raw.answer()).status == 200
    await raw.send(raw.head(target, *lines, method=method, version=version))
    return await raw.answer()


async def test_the_handshake_is_answered_with_the_accept_of_the_standards_example(url, clients):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
    assert answer.headers["upgrade"].lower() == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert "sec-websocket-protocol" not in answer.headers
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    "lines",
    [
        ("upgrade: WebSocket", "connection: upgrade", KEY.lower().replace("dghlihnhbxbszsbub25jzq", KEY[19:41]),
         VERSION),
        ("Upgrade: WEBSOCKET", "Connection: keep-alive, Upgrade", KEY, VERSION),
        ("Upgrade:websocket", "Connection:Upgrade", KEY, VERSION),
        ("Upgrade: websocket ", "Connection: Upgrade ", KEY + " ", VERSION + " "),
        (*UPGRADE, KEY, VERSION, "Cookie: a=b", "X-Anything: \u00e4"),
        ("Upgrade: websocket, h2c", "Connection: Upgrade, HTTP2-Settings", KEY, VERSION),
        ("Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: upgrade", KEY, VERSION),
        ("Upgrade:\twebsocket\t", "Connection: ,\tUpgrade ,", KEY, VERSION, "Content-Length: 0"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol:"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: x-webkit-deflate-frame, foo; bar"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_handshakes_of_any_spelling_are_accepted(url, clients, lines, later):
    answer = await shaken(clients, url, *lines, later=later)
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers
    assert answer.headers["server"] == "watchout"


TARGETS: Final = [
    "/streams/subscribe?", "/streams/%73ubscribe", "/%73treams/%73%75bscribe?x=1", "http://HOST/streams/subscribe",
    "HTTP://HOST/streams/subscribe?x=1", "http://another.example:1/streams/subscribe", "ws://HOST/streams/%73ubscribe",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_targets_of_any_form_are_understood(url, token, clients, target, later):
    target = target.replace("HOST", url.removeprefix("http://"))
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, target=target, later=later)
    assert answer.status == 101
    named = f"{target}{'&' if '?' in target else '?'}token={token}"
    raw = await clients.raw(url)
    await raw.upgrade(named)
    await raw.sign_in(token)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/streams/subscribe/", 404), ("//streams/subscribe", 404), ("/streams/Subscribe", 404),
        ("/streams%2Fsubscribe", 404), ("/x/../streams/subscribe", 404), ("ftp://a/streams/subscribe", 400),
        ("http://u:p@a/streams/subscribe", 400), ("/streams/subscribe#x", 400),
    ],
)  # fmt: skip
async def test_other_targets_are_no_websocket(url, clients, target, status):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, target=target)
    assert (answer.status, bool(answer.error)) == (status, True)


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (["chat"], "chat"), (["chat, superchat"], "chat"), (["chat", "superchat"], "chat"), (["", ", b, a"], "b"),
        (["bearer, abc.def-_~"], "bearer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_the_first_subprotocol_that_is_offered_is_chosen(url, clients, lines, first, later):
    offers = [f"Sec-WebSocket-Protocol: {line}" for line in lines]
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, *offers, later=later)
    assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, first)


async def test_messages_that_come_with_a_later_upgrade_are_heard_after_it(url, token, clients):
    raw = await clients.raw(url)
    await raw.send(raw.head("/health/live"))
    assert (await raw.answer()).status == 200
    auth = web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode())
    subscribe = web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}')
    await raw.send(raw.upgrade_head(SUBSCRIBE) + auth + subscribe)
    assert (await raw.answer()).status == 101
    assert [(await raw.json("success"))["event"] for _ in range(2)] == ["authenticated", "subscribed"]


REFUSED: Final = {
    "no key": (*UPGRADE, VERSION),
    "an empty key": (*UPGRADE, "Sec-WebSocket-Key:", VERSION),
    "a short key": (*UPGRADE, "Sec-WebSocket-Key: " + base64_of(bytes(15)), VERSION),
    "a long key": (*UPGRADE, "Sec-WebSocket-Key: " + base64_of(bytes(17)), VERSION),
    "a key that is no base64": (*UPGRADE, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==", VERSION),
    "two keys": (*UPGRADE, KEY, KEY, VERSION),
    "no version": (*UPGRADE, KEY),
    "two versions": (*UPGRADE, KEY, VERSION, VERSION),
    "no Connection": (UPGRADE[0], KEY, VERSION),
    "another Connection": (UPGRADE[0], "Connection: keep-alive", KEY, VERSION),
    "no Upgrade": (UPGRADE[1], KEY, VERSION),
    "another Upgrade": ("Upgrade: h2c", UPGRADE[1], KEY, VERSION),
    "a body": (*UPGRADE, KEY, VERSION, "Content-Length: 5"),
    "a subprotocol that is no token": (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: a b"),
    "a folded header": (*UPGRADE, KEY, VERSION, "X-Folded: a\r\n b"),
    "a header without a name": (*UPGRADE, KEY, VERSION, ": a"),
    "a space before the colon": (*UPGRADE, KEY, VERSION, "X-Space : a"),
    "a NUL in a header": (*UPGRADE, KEY, VERSION, "X-Nul: a\0b"),
}


@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED)
async def test_a_handshake_that_lacks_something_is_a_4xx(url, clients, lines):
    answer = await shaken(clients, url, *lines)
    assert 400 <= answer.status < 500
    assert answer.error
    assert answer.headers["server"] == "watchout"
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize(
    "version", ["0", "7", "8", "12", "14", "25", "255", "1300", "013", "-13", "13.0", "x", "13, 8"]
)
async def test_another_version_is_426_and_the_answer_says_which_one_is_spoken(url, clients, version):
    answer = await shaken(clients, url, *UPGRADE, KEY, f"Sec-WebSocket-Version: {version}")
    assert answer.headers["sec-websocket-version"] == "13"  # RFC 6455 section 4.2.2
    assert answer.status == 426
    assert answer.error


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_is_no_handshake(url, clients, method):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, "Content-Length: 0", method=method)
    assert 400 <= answer.status < 500 or (method == "OPTIONS" and answer.status in (200, 204))


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/x", "http/1.1"])
async def test_another_version_of_http_is_no_handshake(url, clients, version):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, version=version)
    assert 400 <= answer.status <= 505
    assert answer.status not in (500, 502, 503, 504)
    assert answer.error
