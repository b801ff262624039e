"""The edge under attack: origins, limits, deadlines, TLS, signed requests, and what nobody may ever read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import secrets
import ssl
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import psutil
import pytest

from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.clients import (
    CONTINUATION,
    JPEG,
    PING,
    PONG,
    TEXT,
    Answer,
    Clients,
    RawSocket,
    base64_of,
    eventually,
    http,
    new_name,
    web_socket_frame,
)
from tests.kit.processes import SERVICE_TOKEN, Process, Watchout, poll, running

SUBSCRIBE, REGISTER = "/streams/subscribe", "/streams/register"
APP = "https://app.example.com"
#: A second address of loopback, from which the misbehaved come.
ELSEWHERE = ("127.0.0.2", 0)
WEBHOOK_SECRET = b"w" * 24
SIGNED = {"SERVICE_WEBHOOK_SECRETS": f"whsec_{base64.b64encode(WEBHOOK_SECRET).decode()}"}
LOOPS = ("uvloop", "asyncio")


def cookie(token: str) -> str:
    """The session cookie as Better Auth sets it: signed, and encoded for a URL."""
    signature = base64.b64encode(hashlib.sha256(token.encode()).digest()).decode()
    return f"Cookie: better-auth.session_token={quote(f'{token}.{signature}', safe='')}"


def patched_gateway(started: Watchout, changes: str, environ: dict[str, str] | None = None) -> Process:
    """A gateway of which something is changed, so that a test need not wait for minutes."""
    code = f"{changes}\nfrom watchout.gateway.app import main\nmain()"
    return started.run("gateway", [sys.executable, "-c", code], environ)


async def from_elsewhere(clients: Clients, url: str) -> RawSocket:
    try:
        return await clients.raw(url, local_addr=ELSEWHERE)
    except OSError as error:
        pytest.skip(f"this system has no second address on loopback: {error}")


@pytest.fixture(scope="module")
def listed() -> Iterator[Watchout]:
    """One with a list of origins."""
    with running(environ={"ALLOWED_ORIGINS": f"{APP}, http://localhost:5173"}) as started:
        yield started


# ── origins ──────────────────────────────────────────────────────────────────────────────────────────────────────

EVIL = [
    None, "null", "https://evil.com", "http://app.example.com", f"{APP}.evil.com", "https://evilapp.example.com",
    "https://evil.com/app.example.com", f"{APP}:8443", f"{APP}/", f"{APP} {APP}", f"{APP}@evil.com", "",
]  # fmt: skip


async def shake_hands(clients: Clients, url: str, *headers: str, path: str = SUBSCRIBE) -> Answer:
    raw = await clients.raw(url)
    await raw.send(raw.upgrade_head(path, *headers))
    return await raw.answer()


async def is_stranger(clients: Clients, url: str, *headers: str, path: str = SUBSCRIBE) -> RawSocket:
    """Open a socket that must not be authenticated by what these headers carry; says why it is not."""
    raw = await clients.raw(url)
    await raw.upgrade(path, *headers)
    await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}'))
    error = await raw.json("error")
    assert error["code"] == "AUTH_REQUIRED"
    assert "the session cookie was not used" in error["message"]
    return raw


@pytest.mark.parametrize("origin", EVIL)
async def test_a_cookie_of_a_page_that_is_not_listed_is_ignored(listed, clients, origin):
    said = () if origin is None else (f"Origin: {origin}",)
    token = listed.token()
    for path in (SUBSCRIBE, REGISTER):
        raw = await is_stranger(clients, listed.url, cookie(token), *said, path=path)
        await raw.sign_in(token)  # and hinders nobody


@pytest.mark.parametrize("origin", EVIL)
async def test_a_cookie_of_such_a_page_reads_nothing_over_http_and_a_token_beside_it_does(listed, origin):
    token = listed.token()
    name, _, value = cookie(token).partition(": ")
    headers = {name: value} if origin is None else {name: value, "Origin": origin}
    for path in ("/streams", "/alerts?streamId=x", "/streams/x/frame.jpg", "/streams/x/mjpeg"):
        answer = await http(listed.url + path, headers=headers)
        assert (answer.status, answer.error) == (401, "AUTH_REQUIRED")
        assert "the session cookie was not used" in answer.json["error"]["message"]
        assert "access-control-allow-origin" not in answer.headers
    assert (await http(f"{listed.url}/streams", headers=headers, token=token)).status == 200
    assert (await http(f"{listed.url}/streams?token={token}", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("target", "own"),
    [
        ("/streams", "HOST"), ("/streams?x=http://evil.com/", "HOST"), ("http://HOST/streams", "HOST"),
        ("http://watch.example.com/streams?x=y", "watch.example.com"),
        ("http://watch.example.com:80/streams", "watch.example.com"),
    ],
)  # fmt: skip
async def test_the_own_origin_is_that_of_the_target_where_it_has_one(listed, clients, target, own):
    host = listed.url.removeprefix("http://")
    target, own = target.replace("HOST", host), own.replace("HOST", host)
    for origin, status in ((own, 200), ("evil.com", 401)):
        raw = await clients.raw(listed.url)
        await raw.send(raw.head(target, f"Origin: http://{origin}", cookie(listed.token())))
        assert (await raw.answer()).status == status


async def test_two_origins_are_no_handshake(listed, clients):
    answer = await shake_hands(clients, listed.url, f"Origin: {APP}", f"Origin: {APP}")
    assert answer.status == 400  # RFC 6454 section 7.3
    name, _, value = cookie(listed.token()).partition(": ")
    headers = [(name, value), ("Origin", APP), ("Origin", APP)]
    raw = await clients.raw(listed.url)
    await raw.send(raw.head("/streams", *(f"{key}: {text}" for key, text in headers)))
    assert (await raw.answer()).status == 401


#: What browsers send for an `img`, a `script` or a page in a new tab, and whether the user's cookie may count.
SUBRESOURCES = {
    "a picture in the gateway's own page": ({"Sec-Fetch-Site": "same-origin"}, 200),
    "typed into the address bar": ({"Sec-Fetch-Site": "none"}, 200),
    "in a listed page of another port": ({"Sec-Fetch-Site": "same-site", "Referer": "http://localhost:5173/"}, 200),
    "in a listed page of another site": ({"Sec-Fetch-Site": "cross-site", "Referer": f"{APP}/"}, 200),
    "in a listed page, no Fetch Metadata": ({"Referer": f"{APP}/cameras?a=b"}, 200),
    "in the own page, no Fetch Metadata": ({"Referer": "OWN/console"}, 200),
    "another port of the same host": ({"Sec-Fetch-Site": "same-site", "Referer": "http://127.0.0.1:1/"}, 401),
    "another port that hides itself": ({"Sec-Fetch-Site": "same-site"}, 401),
    "another site": ({"Sec-Fetch-Site": "cross-site", "Referer": "https://evil.com/"}, 401),
    "another site that hides itself": ({"Sec-Fetch-Site": "cross-site"}, 401),
    "nobody says where": ({}, 401),
    "a listed page in the path": ({"Referer": f"https://evil.com/{APP}"}, 401),
    "a listed page as user name": ({"Referer": f"{APP}@evil.com/"}, 401),
    "a longer name": ({"Referer": f"{APP}.evil.com/"}, 401),
    "a sandboxed page": ({"Origin": "null", "Sec-Fetch-Site": "same-origin", "Referer": f"{APP}/"}, 401),
    "two words": ({"Sec-Fetch-Site": "same-origin, cross-site"}, 401),
}


@pytest.mark.parametrize("where", SUBRESOURCES)
async def test_a_request_without_an_origin_uses_the_cookie_only_where_the_browser_vouches_for_the_page(listed, where):
    said, status = SUBRESOURCES[where]
    headers = {name: value.replace("OWN", listed.url) for name, value in said.items()}
    name, _, value = cookie(listed.token()).partition(": ")
    assert (await http(f"{listed.url}/streams", headers={name: value, **headers})).status == status


#: Cookies that sign nobody in, wherever they come from.
BAD_COOKIES = [
    "", ".", "x", "%", "%zz", "%00", "%ff", "x" * 4000, "x" * 8000, "x" * 15_000, "x" * 60_000, "\xff\xfe", '"', '"x',
    "a=b=c",
    "eyJhbGciOiJIUzI1NiJ9.e30.x", "x; better-auth.session_token=y", "=", ";;;", "\t", "x" * 32 + "." + "A" * 43 + "=",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_COOKIES)
async def test_no_cookie_keeps_anybody_out(listed, clients, value):
    token = listed.token()
    for origin in (APP, "https://evil.com", "null", None):
        said = [] if origin is None else [f"Origin: {origin}"]
        raw = await clients.raw(listed.url)
        line = f"Cookie: better-auth.session_token={value}"
        await raw.send(raw.upgrade_head(SUBSCRIBE, *said).replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode("latin-1")))
        assert (await raw.answer()).status == 101
        await raw.sign_in(token)
        head = raw.head(f"/streams?token={token}", *said, "Connection: close").decode()
        for path, status in ((head, 200), (head.replace(f"?token={token}", ""), 401)):
            bare = await clients.raw(listed.url)
            await bare.send(path.replace("\r\n\r\n", f"\r\n{line}\r\n\r\n").encode("latin-1"))
            assert (await bare.answer()).status == status
            await bare.leave()
        await raw.leave()


@pytest.mark.parametrize("size", [7000, 15_000, 60_000])
async def test_the_session_counts_among_however_many_cookies_of_other_apps(listed, clients, size):
    line = cookie(listed.token()).replace("Cookie: ", f"Cookie: a={'x' * size}; ") + "; b=c"
    raw = await clients.raw(listed.url)
    await raw.upgrade(SUBSCRIBE, line, f"Origin: {APP}")
    await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}'))
    assert (await raw.json("success"))["event"] == "subscribed"
    for _ in range(2):
        again = await clients.raw(listed.url)
        await again.send(again.head("/streams", line, f"Origin: {APP}"))
        assert (await again.answer()).status == 200
        await again.send(again.upgrade_head(SUBSCRIBE, line, f"Origin: {APP}"))  # on the connection of another request
        assert (await again.answer()).status == 101


@pytest.mark.parametrize("path", ["/health/live", SUBSCRIBE])
async def test_cookies_without_end_are_431(listed, clients, path):
    raw = await clients.raw(listed.url)
    with contextlib.suppress(ConnectionError):
        await raw.send(raw.upgrade_head(path, *[f"Cookie: {'x' * 8000}"] * 20))
    answer = await raw.answer()
    assert (answer.status, answer.error) == (431, "TOO_LARGE")


NAMELESS = {
    "the listener": b"GARBAGE\r\n\r\n",
    "a head that is too long": b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "no handshake": b"GET /streams/subscribe HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "a wrong token": (
        b"GET /streams/subscribe?token=x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    "a socket": (
        b"GET /streams/subscribe HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    "no path": b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    "a wrong method": b"DELETE /streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "a body that is none": b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    "no chunk": b"POST /alerts HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an expectation": b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
    "a preflight": (
        b"OPTIONS /streams HTTP/1.1\r\nHost: a\r\nOrigin: null\r\nAccess-Control-Request-Method: GET\r\n\r\n"
    ),
    "help": b"GET / HTTP/1.0\r\n\r\n",
    "health": b"HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("which", NAMELESS)
async def test_every_answer_names_the_server_and_no_version_of_anything(listed, clients, which):
    raw = await clients.raw(listed.url)
    with contextlib.suppress(ConnectionError):
        await raw.send(NAMELESS[which])
    async with asyncio.timeout(10):
        head = (await raw.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    assert [line for line in head if line.startswith("server:")] == ["server: watchout"]
    said = "\n".join(head)
    assert not any(word in said for word in ("python", "aiohttp", "websockets/", "x-powered-by", "via:"))


async def test_a_cookie_of_a_listed_page_opens_an_authenticated_socket(listed, clients):
    for origin in (APP, "http://localhost:5173", listed.url):
        raw = await clients.raw(listed.url)
        await raw.upgrade(SUBSCRIBE, cookie(listed.token()), f"Origin: {origin}")
        await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}'))
        assert (await raw.json("success"))["event"] == "subscribed"


@pytest.mark.parametrize("origin", ["https://evil.com", "null", None])
async def test_a_token_that_no_browser_sends_by_itself_needs_no_origin(listed, clients, origin):
    said = () if origin is None else (f"Origin: {origin}",)
    token = listed.token()
    assert (await shake_hands(clients, listed.url, f"Authorization: Bearer {token}", *said)).status == 101
    assert (await shake_hands(clients, listed.url, *said, path=f"{SUBSCRIBE}?token={token}")).status == 101
    assert (await shake_hands(clients, listed.url, *said)).status == 101


async def test_without_a_list_only_the_own_page_may_use_the_cookie(plain_watchout, clients):
    url, token = plain_watchout.url, plain_watchout.token()
    raw = await clients.raw(url)
    await raw.upgrade(SUBSCRIBE, cookie(token), f"Origin: {url}")
    await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}'))
    assert (await raw.json("success"))["event"] == "subscribed"
    for origin in (None, "null", "http://127.0.0.1", f"{url}.evil.com", f"{url}0", "http://localhost"):
        said = () if origin is None else (f"Origin: {origin}",)
        await is_stranger(clients, url, cookie(token), *said)


EXPOSED = "X-Stream-Id, X-Frame-Id, X-Frame-Time, ETag, Retry-After, WWW-Authenticate, Allow"


async def test_only_a_trusted_proxy_says_what_the_gateways_own_origin_is(listed, clients):
    page = "https://watch.example.com"
    for said in (
        ("X-Forwarded-Host: watch.example.com", "X-Forwarded-Proto: https"),
        ("X-Forwarded-Host: gateway, watch.example.com",),
    ):
        await is_stranger(clients, listed.url, cookie(listed.token()), f"Origin: {page}", *said)
    with running(environ={"TRUSTED_PROXIES": "127.0.0.1", "ALLOWED_ORIGINS": APP}) as started:
        name, _, value = cookie(started.token()).partition(": ")
        forwarded = {"X-Forwarded-Host": "watch.example.com", "X-Forwarded-Proto": "https", name: value}
        for origin, status in ((page, 200), (APP, 200), ("http://watch.example.com", 401), ("https://evil.com", 401)):
            answer = await http(f"{started.url}/streams", headers={**forwarded, "Origin": origin})
            assert answer.status == status, origin
        lines = [f"{key}: {text}" for key, text in forwarded.items()]
        raw = await clients.raw(started.url)
        await raw.upgrade(SUBSCRIBE, *lines, f"Origin: {page}")
        await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}'))
        assert (await raw.json("success"))["event"] == "subscribed"


CORS = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/streams", 401), ("/alerts?streamId=x", 401), ("/streams/x/frame.jpg", 401), ("/nowhere", 404),
        ("/health", 200), ("/health/live", 200), ("/stats", 200), ("/metrics", 200), ("/", 200),
    ],
)  # fmt: skip
async def test_a_listed_page_may_read_every_answer_errors_too_and_no_other_may(listed, path, status):
    answer = await http(listed.url + path, headers={"Origin": APP})
    assert answer.status == status
    assert [answer.headers.get(name) for name in CORS] == [APP, "true", EXPOSED]
    assert answer.headers["vary"] == "Origin"
    for origin in ("https://evil.com", "null", f"{APP}.evil.com", ""):
        answer = await http(listed.url + path, headers={"Origin": origin} if origin else {})
        assert answer.status == status
        assert not any(name in answer.headers for name in CORS)
        assert answer.headers["vary"] == "Origin"


async def test_a_listed_page_reads_its_streams_with_its_cookie_or_its_token(listed):
    token = listed.token()
    name, _, value = cookie(token).partition(": ")
    for headers in ({"Authorization": f"Bearer {token}"}, {name: value}):
        answer = await http(f"{listed.url}/streams", headers={"Origin": APP, **headers})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, APP)
    answer = await http(f"{listed.url}/streams", headers={"Origin": "https://evil.com", name: value})
    assert answer.status == 401


async def preflight(url: str, origin: str | None = APP, *, method: str | None = "GET") -> Answer:
    headers = {} if origin is None else {"Origin": origin}
    if method is not None:
        headers |= {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    return await http(url, method="OPTIONS", headers=headers)


@pytest.mark.parametrize("path", ["/streams", "/alerts?streamId=x", "/streams/x/frame.jpg", "/health"])
async def test_a_preflight_of_a_listed_page_is_answered(listed, path):
    answer = await preflight(listed.url + path)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type, if-none-match"
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"] == "Origin"


async def test_a_preflight_of_any_other_page_is_refused(listed, plain_watchout):
    answers = [await preflight(f"{listed.url}/streams", origin) for origin in ("https://evil.com", "null")]
    answers.append(await preflight(f"{plain_watchout.url}/streams"))
    for answer in answers:
        assert answer.status == 403
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_what_is_no_preflight_is_a_method_that_is_not_allowed(listed):
    assert (await preflight(f"{listed.url}/streams", None)).status == 405
    assert (await preflight(f"{listed.url}/streams", method=None)).status == 405
    assert (await preflight(f"{listed.url}{SUBSCRIBE}")).status == 405
    assert (await preflight(f"{listed.url}/nowhere")).status == 404


async def test_the_path_of_services_is_not_for_pages(listed):
    answer = await http(f"{listed.url}/alerts", method="POST", body=[], token=SERVICE_TOKEN, headers={"Origin": APP})
    assert answer.status == 202
    assert not any(name.startswith("access-control") for name in answer.headers)


# ── strangers, addresses, proxies ────────────────────────────────────────────────────────────────────────────────


async def stranger(clients: Clients, url: str, *headers: str) -> RawSocket:
    """A socket that does not say who it is."""
    raw = await from_elsewhere(clients, url)
    await raw.upgrade(SUBSCRIBE, *headers)
    return raw


async def is_full(raw: RawSocket) -> bool:
    """Whether the server closes this socket because there are too many."""
    await raw.send(web_socket_frame(PING, b"?"))
    frame = await raw.frame()
    if frame.opcode == PONG:
        return False
    assert json.loads(frame.payload)["code"] == "TOO_MANY_CONNECTIONS"
    assert await raw.close_code() == 1013
    return True


async def test_strangers_of_one_address_are_limited_and_good_users_connect(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "10"})
    token = started.token()
    held = [await stranger(clients, started.url) for _ in range(10)]
    assert await is_full(await stranger(clients, started.url))
    raw = await from_elsewhere(clients, started.url)
    await raw.send(raw.head("/"))
    answer = await raw.answer()
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "TOO_MANY_CONNECTIONS", "1")
    assert (await clients.viewer(started.url, token)).open
    await held[0].send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
    await held[0].json("success")  # no stranger any more
    assert not await is_full(await stranger(clients, started.url))
    assert await is_full(await stranger(clients, started.url))
    await held[1].leave()
    await eventually(lambda: _takes_another(clients, started.url))


async def _takes_another(clients: Clients, url: str) -> bool:
    raw = await stranger(clients, url)
    full = await is_full(raw)
    await raw.leave()
    return not full


async def test_connections_that_say_nothing_are_strangers_until_their_time_is_over(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "5", "HANDSHAKE_TIMEOUT_S": "1"})
    silent = [await from_elsewhere(clients, started.url) for _ in range(5)]
    await silent[0].send(b"GET /hea")
    assert await is_full(await stranger(clients, started.url))
    for raw in silent:
        await raw.gone()
    assert not await is_full(await stranger(clients, started.url))


async def test_all_strangers_together_have_no_more_than_half_of_the_connections(watchout, clients):
    started = watchout(environ={"MAX_CONNECTIONS": "20", "MAX_CONNECTIONS_PER_ADDRESS": "20"})
    token = started.token()
    known = [await clients.viewer(started.url, token) for _ in range(5)]
    for _ in range(10):
        await stranger(clients, started.url)
    assert await is_full(await stranger(clients, started.url))
    await known[0].rest()
    assert all(viewer.open for viewer in known)


async def test_of_connections_far_over_a_limit_the_rest_is_cut_off(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "2"})
    pid = started.one("gateway").pid
    for _ in range(2):
        await stranger(clients, started.url)
    crowd = [await from_elsewhere(clients, started.url) for _ in range(200)]
    await eventually(lambda: psutil.Process(pid).num_fds() < 140)
    assert (await http(f"{started.url}/health/live")).status == 200
    for raw in crowd:
        await raw.leave()
    await eventually(lambda: _takes_another_now(clients, started))


async def _takes_another_now(clients: Clients, started: Watchout) -> bool:
    raw = await clients.raw(started.url)
    await raw.upgrade(SUBSCRIBE)
    return not await is_full(raw)


async def test_a_header_of_somebody_who_is_no_trusted_proxy_does_not_move_him(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "3"})
    for number in range(3):
        assert not await is_full(await stranger(clients, started.url, f"X-Forwarded-For: 192.0.2.{number}"))
    assert await is_full(await stranger(clients, started.url, "X-Forwarded-For: 192.0.2.99"))


async def test_behind_a_trusted_proxy_each_client_has_a_limit_of_its_own(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "2", "TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"})

    async def full(forwarded: str) -> bool:
        return await is_full(await stranger(clients, started.url, f"X-Forwarded-For: {forwarded}"))

    assert [await full("192.0.2.1") for _ in range(3)] == [False, False, True]
    assert not await full("192.0.2.2")
    assert await full("198.51.100.9, 192.0.2.1, 10.0.0.3")  # what stands left is invented
    assert [await full(f"2001:db8::{n}") for n in (1, 2, 3)] == [False, False, True]  # IPv6 by its first 64 bits
    assert not await full("2001:db8:0:1::1")
    assert await full("::ffff:192.0.2.1")
    raw = await from_elsewhere(clients, started.url)
    await raw.send(raw.head("/", "X-Forwarded-For: 192.0.2.1"))
    assert (await raw.answer()).status == 503


async def test_a_kept_connection_of_a_proxy_becomes_a_stranger_when_it_becomes_a_socket(watchout, clients):
    started = watchout(environ={"MAX_STRANGERS_PER_ADDRESS": "1"})
    sockets = []
    for _ in range(2):
        raw = await from_elsewhere(clients, started.url)
        assert (await asks(raw, "/streams", f"Authorization: Bearer {started.token()}")).status == 200
        sockets.append(raw)
    for raw in sockets:
        await raw.upgrade(SUBSCRIBE)
    assert [await is_full(raw) for raw in sockets] == [False, True]


# ── strangers over HTTP ──────────────────────────────────────────────────────────────────────────────────────────


async def asks(raw: RawSocket, path: str, *headers: str, method: str = "GET") -> Answer:
    await raw.send(raw.head(path, *headers, method=method))
    return await raw.answer()


async def is_open(raw: RawSocket) -> bool:
    """Whether the server has not ended this connection by now."""
    with contextlib.suppress(TimeoutError):
        await raw.gone(0.05)
        return False
    return True


async def test_kept_http_connections_of_a_stranger_leave_room_for_everybody(watchout, clients):
    started = watchout(environ={"MAX_CONNECTIONS": "20", "MAX_STRANGERS_PER_ADDRESS": "20"})
    token, crowd = started.token(), []
    for _ in range(40):
        raw = await from_elsewhere(clients, started.url)
        answer = await asks(raw, "/health/live")
        assert answer.status == 200
        crowd.append((raw, answer.headers.get("connection")))
    kept = [raw for raw, said in crowd if said != "close"]
    assert len(kept) == 7  # three quarters of the ten that strangers may have
    for raw, said in crowd:
        if said == "close":
            await raw.gone()
    assert all([await is_open(raw) for raw in kept])
    viewers = [await clients.viewer(started.url, token) for _ in range(10)]
    assert (await http(f"{started.url}/health")).status == 200
    assert all(viewer.open for viewer in viewers)


async def test_one_address_full_of_kept_connections_lets_its_users_in(watchout, clients):
    started = watchout(environ={"MAX_CONNECTIONS": "20", "MAX_STRANGERS_PER_ADDRESS": "8"})
    held = []
    for _ in range(20):
        raw = await clients.raw(started.url)
        assert (await asks(raw, "/streams", "Authorization: Bearer wrong")).status == 401
        held.append(raw)
    assert (await clients.viewer(started.url, started.token(), "header")).open
    assert (await http(f"{started.url}/health/live")).status == 200
    assert sum([await is_open(raw) for raw in held]) == 6


HURRIED = "import watchout.gateway.listen.dispatch\nwatchout.gateway.listen.dispatch.STRANGER_KEEPALIVE_S = 0.6"


@pytest.fixture(scope="module")
def hurried() -> Iterator[Watchout]:
    """One in which the connection of a stranger is kept for less than a second."""
    with running(environ={**SIGNED, "STATS_TOKEN": "s" * 16}, start=False) as started:
        started.start("router")
        patched_gateway(started, HURRIED)
        started.wait_ready()
        yield started


async def test_the_connection_of_a_stranger_is_kept_for_a_short_time(hurried, clients):
    paths = ("/health", "/health/live", "/", "/nowhere", "/streams", "/streams?token=wrong", "/stats")
    opened = [await clients.raw(hurried.url) for _ in paths]
    for _ in range(3):  # each answer gives it that time anew
        for raw, path in zip(opened, paths, strict=True):
            answer = await asks(raw, path)
            assert answer.status in (200, 401, 404)
            assert "connection" not in answer.headers
        await asyncio.sleep(0.3)
    await asyncio.gather(*(raw.gone(2.0) for raw in opened))


async def test_bytes_of_a_request_that_is_never_whole_keep_nothing(hurried, clients):
    raw = await clients.raw(hurried.url)
    assert (await asks(raw, "/health/live")).status == 200
    dripping = asyncio.get_running_loop().create_task(_drip(raw, raw.head("/health/live", "X: " + "y" * 1000)))
    try:
        await raw.gone(2.0)
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_the_connection_of_who_is_known_is_kept_for_longer(hurried, clients):
    token, body = hurried.token(), json.dumps(ALERT).encode()
    requests = [
        ("GET", "/streams", [f"Authorization: Bearer {token}"], b""),
        ("GET", f"/streams/nothing/frame.jpg?token={token}", [], b""),
        ("GET", "/health", ["Authorization: Bearer " + "s" * 16], b""),
        ("GET", "/metrics", ["Authorization: Bearer " + "s" * 16], b""),
        ("POST", "/alerts", [f"Authorization: Bearer {SERVICE_TOKEN}"], body),
        ("POST", "/alerts", signature("known", body), body),
    ]
    opened = []
    for method, path, headers, content in requests:
        raw = await clients.raw(hurried.url)
        await raw.send(raw.head(path, *headers, f"Content-Length: {len(content)}", method=method) + content)
        assert (await raw.answer()).status in (200, 202, 404)
        opened.append(raw)
    await asyncio.sleep(1.5)
    for raw in opened:
        assert (await asks(raw, "/health/live")).status == 200
    await asyncio.sleep(1.0)
    assert all([await is_open(raw) for raw in opened])


async def test_what_only_looks_like_a_signature_makes_nobody_known(hurried, clients):
    body = json.dumps(ALERT).encode()
    for headers in (signature("bad", b"other"), ["Authorization: Bearer wrong"]):
        raw = await clients.raw(hurried.url)
        await raw.send(raw.head("/alerts", *headers, f"Content-Length: {len(body)}", method="POST") + body)
        assert (await raw.answer()).status == 401
        await raw.gone(2.0)


async def test_the_kept_connection_of_a_trusted_proxy_is_not_closed_for_a_short_silence(watchout, clients):
    started = watchout(environ={"TRUSTED_PROXIES": "127.0.0.0/8"}, start=False)
    started.start("router")
    patched_gateway(started, HURRIED)
    started.wait_ready()
    raw = await clients.raw(started.url)
    for client in ("192.0.2.1", "192.0.2.2"):
        answer = await asks(raw, "/health/live", f"X-Forwarded-For: {client}")
        assert answer.status == 200
        assert "connection" not in answer.headers
        await asyncio.sleep(1.5)
    assert await is_open(raw)


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X: " + "y" * 4000] * 5, 431),
        (["X: y"] * 100, 431),
        (["X: " + "y" * 17_000], 431),
        (["Host: other"], 400),
        (["X: a\0b"], 400),
        (["X: a", " folded"], 400),
        (["X : a"], 400),
        (["no colon"], 400),
    ],
)
@pytest.mark.parametrize("path", ["/health/live", SUBSCRIBE])
async def test_a_head_that_is_too_much_or_none_is_refused(plain_watchout, clients, first, lines, status, path):
    raw = await clients.raw(plain_watchout.url)
    if not first:
        await raw.send(raw.head("/health/live"))
        assert (await raw.answer()).status == 200
    await raw.send((raw.upgrade_head if path == SUBSCRIBE else raw.head)(path, *lines))
    answer = await raw.answer()
    assert answer.status == status if first else answer.status in (status, 400)
    assert answer.error
    await raw.gone()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        (b"\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"A" * 60, 400),
    ],
)
async def test_what_begins_a_connection_is_a_request_or_refused_at_once(plain_watchout, clients, data, status):
    raw = await clients.raw(plain_watchout.url)
    await raw.send(data)
    assert (await raw.answer()).status == status


async def test_a_head_that_drips_is_answered_and_closed_when_its_time_is_over(watchout, clients):
    started = watchout(environ={"HANDSHAKE_TIMEOUT_S": "1"})
    raw, began = await clients.raw(started.url), time.monotonic()
    head = raw.head("/health/live", "X: " + "y" * 1000)
    dripping = asyncio.get_running_loop().create_task(_drip(raw, head))
    try:
        answer = await raw.answer()
    finally:
        dripping.cancel()
    assert (answer.status, answer.error) == (408, "TIMEOUT")
    await raw.gone()
    assert time.monotonic() - began < 4


async def _drip(raw: RawSocket, data: bytes) -> None:
    for at in range(len(data)):
        await raw.send(data[at : at + 1])
        await asyncio.sleep(0.02)


# ── fragments and floods ─────────────────────────────────────────────────────────────────────────────────────────


async def closed_with(raw: RawSocket, data: bytes, timeout_s: float = 20.0) -> int:
    """Send this for ever; the code with which the server closes."""

    async def flood() -> None:
        while True:
            await raw.send(data)

    flooding = asyncio.get_running_loop().create_task(flood())
    try:
        return await raw.close_code(timeout_s)
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


@pytest.mark.parametrize("payload", [b"", b"x"])
@pytest.mark.parametrize("known", [True, False])
async def test_endless_fragments_end_at_their_bound_and_hold_little(watchout, clients, payload, known):
    started = watchout(environ={"MESSAGE_RATE": "1000000"})
    pid = started.one("gateway").pid
    raw = await clients.raw(started.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={started.token()}" if known else SUBSCRIBE)
    before = psutil.Process(pid).memory_info().rss
    await raw.send(web_socket_frame(TEXT, payload, fin=False))
    # A stranger's fragments with bytes in them reach the largest message of strangers (1009) before their number does.
    code = 1008 if known or not payload else 1009
    assert await closed_with(raw, web_socket_frame(CONTINUATION, payload, fin=False) * 500) == code
    assert psutil.Process(pid).memory_info().rss - before < 16 << 20


async def test_as_many_fragments_as_allowed_make_a_message(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(SUBSCRIBE)
    empty = web_socket_frame(CONTINUATION, b"", fin=False)
    await raw.send(web_socket_frame(TEXT, b"hello", fin=False) + empty * 16_382 + web_socket_frame(CONTINUATION, b"!"))
    assert (await raw.json("error"))["code"] == "AUTH_REQUIRED"


async def test_messages_of_many_tiny_fragments_break_the_message_rate(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={plain_watchout.token()}")
    empty = web_socket_frame(CONTINUATION, b"", fin=False)
    message = web_socket_frame(TEXT, b"x", fin=False) + empty * 1000 + web_socket_frame(CONTINUATION, b"")
    assert await closed_with(raw, message) == 1008


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("known", [True, False])
async def test_a_flood_of_pings_or_pongs_is_closed_and_nobody_else_waits(plain_watchout, clients, opcode, known):
    url, token = plain_watchout.url, plain_watchout.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await viewer.subscribe(await camera.register())
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}" if known else SUBSCRIBE)
    async with camera.streaming(fps=20):
        await viewer.frame()
        flooded = asyncio.get_running_loop().create_task(closed_with(raw, web_socket_frame(opcode, b"x") * 200))
        late = 0.0
        while not flooded.done():
            asked = time.monotonic()
            await viewer.frame()
            late = max(late, time.monotonic() - asked)
        assert await flooded == 1008
    assert late < 1.0


async def test_a_few_pongs_that_nobody_asked_for_do_no_harm(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(SUBSCRIBE)
    await raw.send(web_socket_frame(PONG, b"") * 100 + web_socket_frame(PING, b"x"))
    assert (await raw.frame()).opcode == PONG


#: Progress is judged over a second, not two minutes, and at as many bytes a second.
UNFINISHED = (
    "import watchout.gateway.progress, watchout.gateway.client.socket\n"
    "watchout.gateway.progress.OVER_S = watchout.gateway.client.socket.OVER_S = 1.5\n"
    "watchout.gateway.progress.LEAST_BYTES_PER_S = 2000"
)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Watchout]:
    """One in which a message must come on within a second and a half."""
    with running(environ={"IDLE_TIMEOUT_S": "4"}, start=False) as started:
        started.start("router")
        patched_gateway(started, UNFINISHED)
        started.wait_ready()
        yield started


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dripping", [False, True])
async def test_a_message_that_does_not_come_on_is_ended_and_may_come_back(impatient, clients, compressed, dripping):
    raw = await clients.raw(impatient.url)
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if compressed else ()
    await raw.upgrade(SUBSCRIBE, *headers)
    # An empty stored block of DEFLATE, so that there is something to inflate in each piece.
    piece, rsv = (b"\x00\x00\x00\xff\xff", 4) if compressed else (b"x", 0)
    await raw.send(web_socket_frame(TEXT, piece, fin=False, rsv=rsv))
    closing = asyncio.get_running_loop().create_task(raw.close_code(8))
    while dripping and not closing.done():
        await raw.send(web_socket_frame(CONTINUATION, piece, fin=False) + web_socket_frame(PONG, b"p" * 125))
        await asyncio.sleep(0.1)
    assert await closing == 4408


@pytest.mark.parametrize("dripping", [False, True])
async def test_a_frame_that_does_not_come_on_is_ended_and_the_reason_said(impatient, clients, dripping):
    raw = await clients.raw(impatient.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={impatient.token(new_name('alice'))}")
    await raw.send(web_socket_frame(TEXT, b"x" * 10_000)[:20])
    closing = asyncio.get_running_loop().create_task(raw.json("error"))
    while not closing.done():
        if dripping:
            await raw.send(b"y")
        await asyncio.sleep(0.05)
    assert (await closing)["code"] == "MESSAGE_TIMEOUT"
    assert await raw.close_code() == 4408


@pytest.mark.parametrize("form", ["whole", "in fragments", "compressed"])
async def test_a_message_that_comes_on_may_take_as_long_as_it_takes(impatient, clients, form):
    """Half a picture, a pause, and then a thin uplink: many times longer than the time over which it is judged."""
    token = impatient.token(new_name("alice"))
    camera, viewer = await clients.raw(impatient.url), await clients.viewer(impatient.url, token)
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if form == "compressed" else ()
    await camera.upgrade(f"/streams/register?token={token}", *headers)
    wish = {"type": "register", "streamId": (stream := new_name("cam")), "produces": ["video-frame"]}
    await camera.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await camera.json("success")
    await viewer.subscribe(stream)
    text = base64_of(JPEG[:3] + bytes(range(256)) * 120)
    message = json.dumps({"type": "video-frame", "data": text}).encode()
    if form == "whole":
        sent = web_socket_frame(TEXT, message)
    elif form == "compressed":
        deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
        packed = deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)
        sent = web_socket_frame(TEXT, packed[:-4], rsv=4)
    else:
        parts = [message[at : at + 700] for at in range(0, len(message), 700)]
        sent = b"".join(
            web_socket_frame(TEXT if n == 0 else CONTINUATION, part, fin=n == len(parts) - 1)
            for n, part in enumerate(parts)
        )
    began = time.monotonic()
    await camera.send(sent[: len(sent) // 2])
    await asyncio.sleep(1.0)
    for at in range(len(sent) // 2, len(sent), 500):
        await camera.send(sent[at : at + 500])
        await asyncio.sleep(0.08)
    assert time.monotonic() - began > 3 * 1.0
    assert (await viewer.frame())["data"] == text
    await camera.send(web_socket_frame(TEXT, json.dumps({"type": "video-frame", "data": text}).encode()))
    assert (await viewer.frame())["frameId"] == 2


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Secured:
    """A watchout whose port speaks TLS."""

    def __init__(self, started: Watchout, changes: str = "") -> None:
        self.started = started
        self.cert, self.key = started.directory / "cert.pem", started.directory / "key.pem"
        self.renew()
        environ = {"TLS_CERT": str(self.cert), "TLS_KEY": str(self.key)}
        started.start("router")
        self.gateway = patched_gateway(started, changes, environ)
        poll(lambda: "gateway ready" in self.gateway.output or not self.gateway.running, 30, "no gateway")
        assert self.gateway.running, self.gateway.output
        self.url = started.url.replace("http:", "https:")

    def renew(self) -> None:
        """Another certificate and key in place of what is there."""
        key = make_key()
        for path, data in ((self.key, pem(key)), (self.cert, make_certificate(key))):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(path)

    @property
    def trust(self) -> ssl.SSLContext:
        """Trusts the certificate that is there now, and no other."""
        return ssl.create_default_context(cafile=str(self.cert))

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(self.url + path, ssl=self.trust, headers=headers) as response,
        ):
            return response.status, await response.json()


@pytest.fixture(scope="module", params=LOOPS)
def secured(request: pytest.FixtureRequest) -> Iterator[Secured]:
    environ = {"HANDSHAKE_TIMEOUT_S": "1", "MAX_STRANGERS_PER_ADDRESS": "30"}
    with running(loop=request.param, environ=environ, start=False) as started:
        made = Secured(started)
        yield made


async def test_sockets_and_http_work_over_tls(secured, clients):
    url, token = secured.url.replace("https:", "wss:"), secured.started.token()

    async def healthy() -> bool:
        return (await secured.get("/health"))[0] == 200

    await eventually(healthy, 15)
    camera = await clients.camera(url, token, ssl=secured.trust)
    viewer = await clients.viewer(url, token, "header", ssl=secured.trust)
    stream = await camera.register()
    await viewer.subscribe(stream)
    picture = b"\xff\xd8\xff" + secrets.token_bytes(600_000)
    for _ in range(5):
        await camera.show_binary(picture)
        frame = await viewer.frame()
        assert base64.b64decode(frame["data"]) == picture
    status, body = await secured.get("/streams", token)
    assert (status, [row["id"] for row in body["streams"]]) == (200, [stream])
    await viewer.leave()
    assert viewer.connection.close_code == 1000
    await camera.leave()


async def test_a_slow_viewer_over_tls_skips_frames_and_alerts_overtake(secured, clients):
    url, token = secured.url.replace("https:", "wss:"), secured.started.token()
    camera = await clients.camera(url, token, ssl=secured.trust)
    viewer = await clients.viewer(url, token, ssl=secured.trust)
    await viewer.subscribe(await camera.register())
    viewer.connection.transport.pause_reading()
    for _ in range(100):
        await camera.show_binary(b"\xff\xd8\xff" + secrets.token_bytes(200_000))
    viewer.connection.transport.resume_reading()
    await eventually(lambda: viewer.frame_ids and viewer.frame_ids[-1] == 100, 15)
    assert len(viewer.frame_ids) < 100
    assert viewer.frame_ids == sorted(viewer.frame_ids)


async def test_many_handshakes_at_once_are_all_answered(secured):
    answers = await asyncio.gather(*(secured.get("/health/live") for _ in range(25)))
    assert all(status == 200 for status, _ in answers)


async def test_a_refused_handshake_is_answered_over_tls(secured, clients):
    raw = await clients.raw(secured.started.url, ssl=secured.trust)
    await raw.send(raw.upgrade_head(f"{SUBSCRIBE}?token=wrong"))
    assert (await raw.answer()).status == 401
    await raw.gone()
    raw = await clients.raw(secured.started.url, ssl=secured.trust)
    await raw.send(raw.head("/health/live", "X: y\0"))
    assert (await raw.answer()).status == 400
    await raw.gone()


async def test_plain_http_on_the_tls_port_is_closed_and_nothing_else(secured, clients):
    raw = await clients.raw(secured.started.url)
    await raw.send(raw.head("/health/live"))
    said = await raw.gone()
    assert b"HTTP/1.1 2" not in said
    assert (await secured.get("/health/live"))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_a_tls_handshake_left_open_is_a_stranger_and_closed_in_time(secured, clients, begun):
    began = time.monotonic()
    held = []
    for _ in range(30):
        raw = await from_elsewhere(clients, secured.started.url)
        if begun:
            await raw.send(begun)
        held.append(raw)
    crowded = await clients.raw(secured.started.url, ssl=secured.trust, local_addr=ELSEWHERE)
    await crowded.send(crowded.head("/"))
    assert (await crowded.answer()).status == 503
    assert (await secured.get("/health/live"))[0] == 200
    for raw in held:
        await raw.gone()
    assert time.monotonic() - began < 5

    async def free() -> bool:
        raw = await clients.raw(secured.started.url, ssl=secured.trust, local_addr=ELSEWHERE)
        await raw.send(raw.head("/"))
        return (await raw.answer()).status == 200

    await eventually(free)


async def test_after_the_tls_handshake_the_head_has_its_own_deadline(secured, clients):
    raw = await clients.raw(secured.started.url, ssl=secured.trust)
    await raw.send(b"GET / HTTP/1.1\r\n")
    assert (await raw.answer()).status == 408
    await raw.gone()


async def test_old_tls_is_refused(secured, clients):
    context = secured.trust
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await clients.raw(secured.started.url, ssl=context)


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_gateway_that_ends_closes_sockets_over_tls_in_order(watchout, clients, loop):
    made = Secured(watchout(loop=loop, start=False))
    viewer = await clients.viewer(made.url.replace("https:", "wss:"), made.started.token(), ssl=made.trust)
    half = await clients.raw(made.started.url)
    await half.send(b"\x16\x03\x01")
    ended = asyncio.get_running_loop().create_task(asyncio.to_thread(made.gateway.terminate))
    assert await viewer.closed() == 1012
    assert await ended == 0


async def test_a_new_certificate_is_taken_up_and_a_bad_one_is_not(watchout, clients):
    expected = ("cannot be used, the old one goes on",)
    hurried = "import watchout.gateway.listen.tls\nwatchout.gateway.listen.tls.LOOK_EVERY_S = 0.1"
    made = Secured(watchout(start=False, expected=expected), hurried)
    viewer = await clients.viewer(made.url.replace("https:", "wss:"), made.started.token(), ssl=made.trust)
    old = made.trust
    good = made.key.read_bytes()
    made.key.write_bytes(b"half a fi")
    await eventually(lambda: "the old one goes on" in made.gateway.output)
    assert (await made.get("/health/live"))[0] == 200
    made.key.write_bytes(good)
    made.renew()

    async def renewed() -> bool:
        try:
            return (await made.get("/health/live"))[0] == 200
        except aiohttp.ClientConnectorCertificateError:
            return False

    await eventually(renewed)
    with pytest.raises(ssl.SSLError):
        await clients.raw(made.started.url, ssl=old)
    await viewer.rest()


def test_a_key_that_does_not_belong_to_the_certificate_is_said_and_nothing_starts(watchout):
    started = watchout(start=False)
    cert, key = started.directory / "cert.pem", started.directory / "key.pem"
    cert.write_bytes(make_certificate(make_key()))
    key.write_bytes(pem(make_key()))
    gateway = started.start("gateway", {"TLS_CERT": str(cert), "TLS_KEY": str(key)})
    assert gateway.wait(15) == 1
    assert "the private key in TLS_KEY does not belong to the certificate in TLS_CERT" in gateway.output


# ── signed requests ──────────────────────────────────────────────────────────────────────────────────────────────

ALERT = {"streamId": "door", "severity": "high", "message": "somebody"}


async def push(
    url: str, id: str, body: Any, *, secret: bytes = WEBHOOK_SECRET, timestamp: int | None = None, tamper: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """A signed request, as Standard Webhooks has it."""
    data = json.dumps(body).encode()
    sent_at = int(time.time()) if timestamp is None else timestamp
    digest = hmac.new(secret, f"{id}.{sent_at}.".encode() + data, hashlib.sha256).digest()
    signed = {
        "webhook-id": id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "Content-Type": "application/json",
    }
    return await http(f"{url}/alerts", method="POST", body=data + tamper, headers={**signed, **(headers or {})})


def signature(id: str, data: bytes) -> list[str]:
    """The header lines of a signed request."""
    sent_at = int(time.time())
    digest = hmac.new(WEBHOOK_SECRET, f"{id}.{sent_at}.".encode() + data, hashlib.sha256).digest()
    return [
        f"webhook-id: {id}",
        f"webhook-timestamp: {sent_at}",
        f"webhook-signature: v1,{base64.b64encode(digest).decode()}",
    ]


@pytest.fixture(scope="module")
def signed() -> Iterator[Watchout]:
    """One that takes signed alerts."""
    with running(environ=SIGNED) as started:
        yield started


def accepted(answer: Answer) -> list[tuple[str, bool]]:
    assert answer.status == 202, answer
    return [(each["id"], each["duplicate"]) for each in answer.json["accepted"]]


async def test_a_signed_alert_is_taken_once_however_often_it_comes(signed, clients):
    token = signed.token()
    camera, viewer = await clients.camera(signed.url, token), await clients.viewer(signed.url, token)
    stream = await camera.register()
    await viewer.subscribe(stream)
    alert = {**ALERT, "streamId": stream}
    assert accepted(await push(signed.url, "msg_one", alert)) == [("msg_one", False)]
    assert accepted(await push(signed.url, "msg_one", alert)) == [("msg_one", True)]
    assert accepted(await push(signed.url, "msg_two", [alert, {**alert, "id": "own"}, alert])) == [
        ("msg_two.0", False), ("own", False), ("msg_two.2", False),
    ]  # fmt: skip
    assert accepted(await push(signed.url, "msg_two", [alert])) == [
        ("msg_two.0", True), ("own", True), ("msg_two.2", True),
    ]  # fmt: skip
    heard = [(await viewer.find("alert"))["id"] for _ in range(4)]
    assert heard == ["msg_one", "msg_two.0", "own", "msg_two.2"]
    assert not [message for message in await viewer.rest() if message["type"] == "alert"]


async def test_the_service_token_still_opens_the_path(signed):
    answer = await http(f"{signed.url}/alerts", method="POST", token=SERVICE_TOKEN, body=ALERT)
    assert [duplicate for _, duplicate in accepted(answer)] == [False]


async def test_every_refusal_looks_the_same(signed, plain_watchout):
    now = int(time.time())
    answers = [
        await push(signed.url, "a", ALERT, secret=b"x" * 24),
        await push(signed.url, "a", ALERT, tamper=b" "),
        await push(signed.url, "a", ALERT, timestamp=now - 360),
        await push(signed.url, "a", ALERT, timestamp=now + 360),
        await push(signed.url, "a.b", ALERT),
        await push(signed.url, "a", ALERT, headers={"webhook-signature": "v2,AAAA"}),
        await push(signed.url, "a", ALERT, headers={"webhook-signature": "v1,AAAA " * 40}),
        await push(signed.url, "a", ALERT, headers={"Content-Encoding": "gzip"}),
        await push(plain_watchout.url, "a", ALERT),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT, token="wrong"),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT, token=signed.token()),
    ]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert answers[0].error == "AUTH_FAILED"


async def test_an_old_secret_is_good_while_it_is_rotated(watchout):
    pair = f"{SIGNED['SERVICE_WEBHOOK_SECRETS']},whsec_{base64.b64encode(b'n' * 32).decode()}"
    started = watchout(environ={"SERVICE_WEBHOOK_SECRETS": pair, "SERVICE_TOKEN": ""})
    assert accepted(await push(started.url, "a", ALERT)) == [("a", False)]
    assert accepted(await push(started.url, "b", ALERT, secret=b"n" * 32)) == [("b", False)]


async def test_an_alert_that_does_not_fit_is_refused_and_its_correction_is_taken(signed):
    assert (await push(signed.url, "fix", {"severity": "huge"})).status == 400
    assert accepted(await push(signed.url, "fix", ALERT)) == [("fix", False)]


async def test_what_the_router_did_not_take_is_processed_when_it_comes_again(watchout):
    started = watchout(environ={**SIGNED, "ROUTER_TIMEOUT_S": "0.5"})
    started.one("router").kill()
    answer = await push(started.url, "late", ALERT)
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "ROUTING_ERROR", "1")
    started.start("router")
    await eventually(lambda: _healthy(started.url), 15)
    assert accepted(await push(started.url, "late", ALERT)) == [("late", False)]
    assert accepted(await push(started.url, "late", ALERT)) == [("late", True)]


async def test_a_retry_at_another_gateway_has_no_second_effect(watchout, clients):
    started = watchout(environ=SIGNED)
    port = started.port + 1
    other = started.start("gateway", {"WATCHOUT_PORT": str(port)})
    other.wait_for_output("gateway ready")
    second = f"http://127.0.0.1:{port}"
    await eventually(lambda: _healthy(second), 15)
    assert accepted(await push(started.url, "both", [ALERT, ALERT])) == [("both.0", False), ("both.1", False)]
    assert accepted(await push(second, "both", [ALERT, ALERT])) == [("both.0", True), ("both.1", True)]


@pytest.mark.parametrize("recent", ["0", "5"])
async def test_a_retry_at_another_gateway_has_no_second_effect_although_the_router_kept_other_alerts(watchout, recent):
    started = watchout(environ={**SIGNED, "RECENT_ALERTS": recent})
    port = started.port + 1
    other = started.start("gateway", {"WATCHOUT_PORT": str(port)})
    other.wait_for_output("gateway ready")
    second = f"http://127.0.0.1:{port}"
    await eventually(lambda: _healthy(second), 15)
    assert accepted(await push(started.url, "once", ALERT)) == [("once", False)]
    others = [ALERT] * 20
    assert all(not duplicate for _, duplicate in accepted(await push(started.url, "others", others)))
    assert accepted(await push(second, "once", ALERT)) == [("once", True)]


async def _healthy(url: str) -> bool:
    return (await http(f"{url}/health")).status == 200


@pytest.mark.parametrize("token", [SERVICE_TOKEN, "wrong"])
async def test_a_body_that_cannot_be_read_is_refused_and_leaves_no_traceback(signed, clients, token):
    lines = [f"Authorization: Bearer {token}", "Transfer-Encoding: chunked"]
    for path, late in (("/alerts", False), ("/alerts", True), ("/nowhere", True)):
        raw = await clients.raw(signed.url)
        head = raw.head(path, *lines, method="POST")
        await raw.send(head + (b"" if late else b"2\r\nab\r\nzz\r\n"))
        if late:
            await asyncio.sleep(0.1)
            await raw.send(b"zz\r\n")
        if not late or token != SERVICE_TOKEN:
            assert 400 <= (await raw.answer()).status < 500
        await raw.leave()
    bomb = gzip.compress(bytes(8 << 20))
    for headers in ({"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}):
        answer = await http(f"{signed.url}/alerts", method="POST", token=token, body=bomb, headers=headers)
        assert answer.status == (415 if token == SERVICE_TOKEN else 401)
    assert "Traceback" not in signed.output


async def test_a_body_over_the_bound_is_refused_before_it_is_sent(signed, clients):
    raw = await clients.raw(signed.url)
    lines = ["webhook-id: a", f"webhook-timestamp: {int(time.time())}", "webhook-signature: v1,AAAA"]
    await raw.send(raw.head("/alerts", *lines, f"Content-Length: {100 << 20}", method="POST"))
    assert (await raw.answer()).status == 413


# ── what nobody may read ─────────────────────────────────────────────────────────────────────────────────────────


async def test_no_token_and_no_picture_reaches_a_log_or_a_metric(watchout, clients):
    started = watchout(environ={**SIGNED, "LOG_LEVEL": "debug"})
    url, canary, good = started.url, "canary" + secrets.token_hex(16), started.token()
    for token in (canary, good):
        for path in (SUBSCRIBE, f"{REGISTER}?token={token}", f"{SUBSCRIBE}?ticket={token}"):
            await shake_hands(clients, url, path=path)
            await shake_hands(clients, url, f"Authorization: Bearer {token}", path=path)
            await shake_hands(clients, url, cookie(token), f"Origin: {url}", path=path)
            await shake_hands(clients, url, cookie(token), f"Origin: http://{canary}.example", path=path)
        raw = await clients.raw(url)
        await raw.upgrade(SUBSCRIBE)
        await raw.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
        await raw.frame()
        await raw.send(web_socket_frame(TEXT, f'{{"type":"{canary}"}}'.encode()))
        for path in ("/streams", f"/streams?token={token}", f"/streams/{canary}/frame.jpg", f"/{token}"):
            await http(url + path, token=token, headers={"Cookie": cookie(token).partition(": ")[2]})
        await http(f"{url}/alerts", method="POST", token=token, body={"message": canary})
        await push(url, canary, {"message": canary}, headers={"webhook-signature": f"v1,{canary}"})
        for head in (f"GET /?token={token} HTTP/1.1", f"{canary}", f"GET / HTTP/1.1\r\n{canary}"):
            raw = await clients.raw(url)
            await raw.send(f"{head}\r\n\r\n".encode())
            await raw.answer()
    camera, viewer = await clients.camera(url, good), await clients.viewer(url, good)
    stream = await camera.register()
    await viewer.subscribe(stream, format="binary")
    await camera.show(f"!{canary}!")  # no base64
    await camera.show(canary * 1000)
    await camera.show_binary(canary.encode())
    await camera.send_raw(f'{{"type":"video-frame","data":"{canary}"'.encode())  # no JSON
    await camera.rest()
    page = (await http(f"{url}/metrics")).body.decode()
    for secret in (canary, good, SERVICE_TOKEN, good.partition(".")[0]):
        assert secret not in started.output
        assert secret not in page


async def test_an_exception_in_the_handshake_says_nothing_to_the_stranger(watchout, clients):
    canary = "canary" + secrets.token_hex(8)
    started = watchout(start=False, expected=("Traceback", "failed"))
    started.start("router")
    patched_gateway(
        started,
        "import watchout.gateway.client.socket as w\n"
        f"def broken(*_): raise RuntimeError({canary!r})\n"
        "w.ServerProtocol.accept = broken",
    )
    started.wait_ready()
    answer = await shake_hands(clients, started.url)
    assert (answer.status, answer.error) == (500, "INTERNAL_ERROR")
    assert canary.encode() not in answer.body
    assert (await http(f"{started.url}/health/live")).status == 200
    assert started.output.count("Traceback (most recent call last)") <= 1


async def test_the_metrics_have_no_names_of_streams_or_users(watchout, clients):
    started = watchout(environ={"STATS_TOKEN": "s" * 16})
    token = started.token("canary-user")
    camera = await clients.camera(started.url, token)
    await camera.register("canary-stream")
    await camera.show()
    for path in ("/metrics", "/stats"):
        assert (await http(started.url + path)).status == 401
        assert (await http(started.url + path, token=token)).status == 401
    page = (await http(f"{started.url}/metrics", token="s" * 16)).body.decode()
    assert "watchout_frames_in_total" in page
    assert "canary" not in page
    assert "canary" not in (await http(f"{started.url}/health")).body.decode()


# ── work for strangers, and the end ──────────────────────────────────────────────────────────────────────────────

SLOW_ROUTER = """
import asyncio
from watchout.gateway.router_client import RouterClient
ask, asking = RouterClient.ask, 0
async def slow(self, *args, **kw):
    global asking
    asking += 1
    print(f"asks {asking}", flush=True)
    await asyncio.sleep(0.05)
    try:
        return await ask(self, *args, **kw)
    finally:
        asking -= 1
RouterClient.ask = slow
"""


async def test_however_many_ask_for_the_figures_the_router_is_asked_once_at_a_time(watchout, clients):
    started = watchout(start=False)
    started.start("router")
    gateway = patched_gateway(started, SLOW_ROUTER)
    started.wait_ready()
    token = started.token()
    before, begun, answered = gateway.output.count("asks "), time.monotonic(), 0
    paths = ("/stats", "/metrics", "/health")

    async def ask_again_and_again(raw: RawSocket, path: str) -> None:
        nonlocal answered
        while time.monotonic() - begun < 2.0:
            assert (await asks(raw, path)).status == 200
            answered += 1

    opened = [await clients.raw(started.url) for _ in range(60)]
    await asyncio.gather(*(ask_again_and_again(raw, paths[number % 3]) for number, raw in enumerate(opened)))
    asked = gateway.output.count("asks ") - before
    assert "asks 2" not in gateway.output
    assert answered > 200
    assert asked <= 2.5 / 0.25 + 1  # it rests in between, so that the router is free for others
    streams: list[str] = []
    for _ in range(3):  # what is asked now is answered as it is now
        streams.append(await (await clients.camera(started.url, token)).register())
        assert sorted((await http(f"{started.url}/stats")).json["activeStreams"]) == sorted(streams)


LATE_ANSWERS = """
import asyncio, random
import watchout.gateway.http.responses, watchout.gateway.http.health
async def late(self, request):
    await asyncio.sleep(random.random())
    return watchout.gateway.http.responses.json_response({})
watchout.gateway.http.health.HealthPages.live = late
"""


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_gateway_ends_in_time_and_without_a_word_under_a_flood_of_requests(watchout, clients, loop):
    started = watchout(loop=loop, start=False)
    started.start("router")
    gateway = patched_gateway(started, LATE_ANSWERS)
    started.wait_ready()

    async def flood(raw: RawSocket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                await raw.send(raw.head("/health/live"))
                await raw.answer(20)

    opened = [await clients.raw(started.url) for _ in range(1000)]
    flooding = [asyncio.create_task(flood(raw)) for raw in opened]
    await asyncio.sleep(1.0)
    assert await asyncio.to_thread(gateway.terminate, 5.0) == 0
    await asyncio.wait_for(asyncio.gather(*flooding), 10)
    for word in ("Traceback", "InvalidStateError", "did not close everything"):
        assert word not in gateway.output
    assert "gateway ended" in gateway.output
