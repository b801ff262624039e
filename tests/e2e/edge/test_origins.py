"""Cookies, origins and pages: which page of a browser may use whose session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.edge.support import REGISTER, SUBSCRIBE, cookie, shake_hands
from tests.kit.clients import DEADLINE_S, TEXT, Answer, Clients, RawSocket, http, web_socket_frame
from tests.kit.processes import SERVICE_TOKEN, Watchout, running

APP = "https://app.example.com"


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


async def is_unauthenticated(clients: Clients, url: str, *headers: str, path: str = SUBSCRIBE) -> RawSocket:
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
        raw = await is_unauthenticated(clients, listed.url, cookie(token), *said, path=path)
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
    async with asyncio.timeout(DEADLINE_S):
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
        await is_unauthenticated(clients, url, cookie(token), *said)


EXPOSED = "X-Stream-Id, X-Frame-Id, X-Frame-Time, ETag, Retry-After, WWW-Authenticate, Allow"


async def test_only_a_trusted_proxy_says_what_the_gateways_own_origin_is(listed, clients):
    page = "https://watch.example.com"
    for said in (
        ("X-Forwarded-Host: watch.example.com", "X-Forwarded-Proto: https"),
        ("X-Forwarded-Host: gateway, watch.example.com",),
    ):
        await is_unauthenticated(clients, listed.url, cookie(listed.token()), f"Origin: {page}", *said)
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
