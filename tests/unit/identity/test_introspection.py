"""Introspection against a server, and against a real Better Auth."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiohttp import web
from structlog.testing import capture_logs

from tests.kit.http_server import HttpServer, Respond, drip, flood, silence
from tests.kit.relays import Relays
from tests.kit.services import BETTER_AUTH_VERSIONS, BetterAuth
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import load
from watchout.identity.sources import introspection
from watchout.identity.sources.claims import MAX_OPAQUE_BYTES, Claims
from watchout.identity.sources.introspection import MAX_RECHECKS, MAX_REQUESTS, Introspection

TOKEN = "canary-of-an-opaque+token/with=odd&characters?%41;#"

PROOF = "Basic canary-of-this-server"


class FakeEndpoint(HttpServer):
    """An introspection endpoint on loopback that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Respond = says({"active": True, "sub": "u1"})
        super().__init__(self._handle, handler_args={"max_line_size": 1 << 16, "max_field_size": 1 << 16})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/who?tenant=a%2Bb"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        form = None
        if request.method == "POST":
            is_json = request.content_type == "application/json"
            form = dict(await request.json() if is_json else await request.post())
        self.asked.append(
            {
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "form": form,
                "type": request.headers.get("Content-Type"),
                "bearer": request.headers.get("Authorization"),
                "proof": request.headers.get("X-Proof"),
            }
        )
        return await self.answer(request)


def says(value: object = None, status: int = 200, body: bytes | None = None, **headers: str) -> Respond:
    async def answer(_: web.Request) -> web.StreamResponse:
        text = json.dumps(value).encode() if body is None else body
        return web.Response(status=status, body=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.fixture
async def endpoint() -> AsyncIterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@asynccontextmanager
async def opened(url: str, **environ: str) -> AsyncIterator[Introspection]:
    asker = Introspection(load({"INTROSPECTION_URL": url, "STORE_TIMEOUT_S": "60"} | environ))
    await asker.open()
    try:
        yield asker
    finally:
        await asker.close()


async def unavailable(asker: Introspection, token: str = TOKEN) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await asker.verify(token)
    chain: BaseException | None = caught.value
    while chain is not None:  # nothing that hangs on the exception shows the token either
        assert "canary" not in f"{chain!r}"
        chain = chain.__cause__ or chain.__context__
    return str(caught.value).removeprefix("the introspection endpoint cannot be asked: ")


async def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


GET = {"INTROSPECTION_METHOD": "GET"}


BEARER = {"INTROSPECTION_TOKEN_IN": "bearer"}


ASKED = {"path": "/who", "query": {"tenant": "a+b"}, "form": None, "type": None, "bearer": None, "proof": None}


GOT = ASKED | {"method": "GET"}


POSTED = ASKED | {"method": "POST", "type": "application/x-www-form-urlencoded"}


JSON_BODY = {"INTROSPECTION_BODY": "json"}


SAID = POSTED | {"type": "application/json"}


WITH_PROOF = {"INTROSPECTION_AUTH_HEADER_NAME": "X-Proof", "INTROSPECTION_AUTH_HEADER_VALUE": PROOF}


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, POSTED | {"form": {"token": TOKEN}}),
        (JSON_BODY, SAID | {"form": {"token": TOKEN}}),
        (JSON_BODY | {"INTROSPECTION_TOKEN_PARAM": "t"}, SAID | {"form": {"t": TOKEN}}),
        (JSON_BODY | BEARER, SAID | {"form": {}, "bearer": f"Bearer {TOKEN}"}),
        ({"INTROSPECTION_TOKEN_PARAM": "t"}, POSTED | {"form": {"t": TOKEN}}),
        (GET, GOT | {"query": {"tenant": "a+b", "token": TOKEN}}),
        (GET | {"INTROSPECTION_TOKEN_PARAM": "tenant"}, GOT | {"query": {"tenant": TOKEN}}),
        (GET | BEARER, GOT | {"bearer": f"Bearer {TOKEN}"}),
        (BEARER, POSTED | {"form": {}, "bearer": f"Bearer {TOKEN}"}),
        ({"INTROSPECTION_AUTH_HEADER_VALUE": PROOF}, POSTED | {"form": {"token": TOKEN}, "bearer": PROOF}),
        (WITH_PROOF | GET | BEARER, GOT | {"bearer": f"Bearer {TOKEN}", "proof": PROOF}),
    ],
)
async def test_every_way_of_asking(endpoint: FakeEndpoint, environ: dict[str, str], asked: dict[str, Any]) -> None:
    async with opened(endpoint.url, **environ) as asker:
        assert await asker.verify(TOKEN) == Claims("u1")
    assert endpoint.asked == [asked]


async def test_a_user_in_the_url_proves_this_server(endpoint: FakeEndpoint) -> None:
    async with opened(endpoint.url.replace("//", "//us:canary@")) as asker:
        assert await asker.verify(TOKEN) == Claims("u1")
        assert endpoint.asked[0]["bearer"].startswith("Basic ")
        endpoint.answer = says(status=401)
        assert "refuses this server" in await unavailable(asker)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", ["param", "bearer"])
async def test_the_longest_token_arrives_whole(endpoint: FakeEndpoint, method: str, where: str) -> None:
    token = ("+/=&%~" * MAX_OPAQUE_BYTES)[:MAX_OPAQUE_BYTES]
    async with opened(endpoint.url, INTROSPECTION_METHOD=method, INTROSPECTION_TOKEN_IN=where) as asker:
        assert await asker.verify(token) == Claims("u1")
    (asked,) = endpoint.asked
    assert token in str([asked["query"].get("token"), (asked["form"] or {}).get("token"), asked["bearer"]])


@pytest.mark.parametrize("where", ["param", "bearer"])
async def test_a_token_that_could_break_the_request_is_nobody_and_is_not_sent(
    endpoint: FakeEndpoint, where: str
) -> None:
    async with opened(endpoint.url, INTROSPECTION_TOKEN_IN=where) as asker:
        for token in ("", "a b", "a\r\nX-Proof: y", "a\n", "\0", "é", "\ud800", "x" * (MAX_OPAQUE_BYTES + 1)):
            assert await asker.verify(token) is None
    assert endpoint.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 414, 422, 431])
async def test_statuses_that_mean_nobody(endpoint: FakeEndpoint, status: int) -> None:
    endpoint.answer = says({"active": True, "sub": "u1"}, status)
    async with opened(endpoint.url) as asker:
        assert await asker.verify(TOKEN) is None
        endpoint.answer = says(None, status, body=b" " * 200_000)
        assert await asker.verify(TOKEN) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
@pytest.mark.parametrize("body", [b"<!DOCTYPE html><title>Not Found</title>", b" \r\n<?xml version='1.0'?>"])
async def test_a_page_of_whatever_stands_before_the_endpoint_is_no_verdict(
    endpoint: FakeEndpoint, status: int, body: bytes
) -> None:
    endpoint.answer = says(None, status, body=body)
    async with opened(endpoint.url) as asker:
        assert await unavailable(asker) == f"it answered with status {status} and a page instead of a verdict"


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 405, 429, 500, 502, 503, 504])
async def test_statuses_that_mean_that_it_cannot_say(endpoint: FakeEndpoint, status: int) -> None:
    endpoint.answer = says({"active": True, "sub": "u1"}, status, Location="/who")
    async with opened(endpoint.url) as asker:
        assert await unavailable(asker) == f"it answered with status {status}"
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_this_server_is_no_refusal_of_the_token(endpoint: FakeEndpoint, status: int) -> None:
    endpoint.answer = says(None, status)
    async with opened(endpoint.url, **WITH_PROOF) as asker:
        with capture_logs() as lines:
            assert "refuses this server" in await unavailable(asker)
    assert [line["reason"] for line in lines] == [
        f"it refuses this server with status {status}: see INTROSPECTION_AUTH_HEADER_VALUE"
    ]


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [drip, silence])
async def test_an_endpoint_that_does_not_end_its_answer_is_unavailable_in_time(
    endpoint: FakeEndpoint, answer: Respond
) -> None:
    endpoint.answer = answer
    async with opened(endpoint.url, STORE_TIMEOUT_S="0.3") as asker:
        began = time.monotonic()
        assert await unavailable(asker) == "no whole answer within 0.3 s"
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (flood, "its answer has over 65536 bytes"),
        (says(body=b" " * 65537), "its answer has over 65536 bytes"),
        (says(body=b"<html>sign in</html>"), "its answer is not JSON"),
        (says(body=b""), "its answer is not JSON"),
        (says([]), "its answer is neither an object nor null"),
        (says({"sub": "u1", "exp": "tomorrow"}), "its answer has an exp that is no date"),
        (says(body=gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), "its answer is not JSON"),
    ],
)
async def test_an_endpoint_that_misbehaves_is_unavailable_and_bounded(
    endpoint: FakeEndpoint, answer: Respond, reason: str
) -> None:
    endpoint.answer = answer
    async with opened(endpoint.url, STORE_TIMEOUT_S="30") as asker:
        assert await unavailable(asker) == reason
        endpoint.answer = says({"sub": "u1"})
        assert await asker.verify(TOKEN) == Claims("u1")


async def test_an_endpoint_that_hangs_up_is_asked_once_more_and_then_unavailable(endpoint: FakeEndpoint) -> None:
    async with opened(endpoint.url) as asker:
        endpoint.answer = hang_up
        reason = await unavailable(asker)
        assert reason.startswith(("it closed the connection", "no HTTP answer"))
        assert len(endpoint.asked) == 2


async def test_a_connection_that_was_closed_while_it_rested_is_not_noticed(endpoint: FakeEndpoint) -> None:
    async with opened(endpoint.url) as asker:
        for _ in range(5):
            assert await asker.verify(TOKEN) == Claims("u1")
            await endpoint.stop()
            await endpoint.start()
            assert await asker.verify(TOKEN) == Claims("u1")


@pytest.mark.parametrize(
    "words", [b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/9\r\n\r\n"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_something_else_on_that_port_is_unavailable(words: bytes, method: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(words)

    async with (
        Relays(answer) as server,
        opened(f"http://127.0.0.1:{server.port}/canary", INTROSPECTION_METHOD=method) as asker,
    ):
        await unavailable(asker)


async def test_an_endpoint_that_goes_and_comes_back_is_logged_once_each_and_no_secret_ever(
    endpoint: FakeEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with opened(endpoint.url, INTROSPECTION_METHOD="GET", **WITH_PROOF) as asker:
        with capture_logs() as lines:
            assert await asker.verify(TOKEN) == Claims("u1")
            await endpoint.stop()
            for _ in range(5):
                assert "no connection" in await unavailable(asker)
            await endpoint.start()
            endpoint.answer = says({"active": False})
            for _ in range(5):
                assert await asker.verify(TOKEN) is None
            endpoints = [vars(pool.endpoint) for pool in asker._pools.values()]
            shown = repr([asker, endpoints, asyncio.all_tasks()])
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == [
        "introspection unavailable",
        "introspection is available again",
    ]
    assert "canary" not in str(lines) + caplog.text + shown


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_callers_of_one_token_are_one_request(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def history() -> None:
        endpoint = FakeEndpoint()
        await endpoint.start()
        async with opened(endpoint.url) as asker:
            found = await asyncio.gather(*[asker.verify(f"t{i % 3}") for i in range(300)])
            assert found == [Claims("u1")] * 300
            assert len(endpoint.asked) == 3
            endpoint.answer = says(None)
            assert await asker.verify("t0") is None
        await endpoint.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(history())


async def test_a_failure_is_everyones_who_waits_for_it(endpoint: FakeEndpoint) -> None:
    endpoint.answer = says(None, 500)
    async with opened(endpoint.url) as asker:
        reasons = await asyncio.gather(*[unavailable(asker) for _ in range(50)])
        assert set(reasons) == {"it answered with status 500"}
        assert len(endpoint.asked) == 1


async def test_requests_under_way_are_bounded_and_so_is_waiting(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "MAX_WAITING", 36)
    release, under_way, most = asyncio.Event(), 0, 0

    async def later(_: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await release.wait()
        under_way -= 1
        return web.json_response({"sub": "u1"})

    endpoint.answer = later
    async with opened(endpoint.url) as asker:
        tasks = [asyncio.create_task(asker.verify(f"t{i}")) for i in range(MAX_REQUESTS + 36 + 50)]
        await until(lambda: sum(task.done() for task in tasks) == 50)
        await until(lambda: under_way == MAX_REQUESTS)
        assert {str(task.exception()) for task in tasks if task.done()} == {
            "the introspection endpoint cannot be asked: 36 tokens are waiting already"
        }
        release.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [claims for claims in found if isinstance(claims, Claims)] == [Claims("u1")] * (MAX_REQUESTS + 36)
        assert most == MAX_REQUESTS
        assert await asker.verify("t149") == Claims("u1")


async def test_who_is_looked_at_again_waits_for_no_stranger(endpoint: FakeEndpoint) -> None:
    release = asyncio.Event()

    async def strangers_wait(request: web.Request) -> web.StreamResponse:
        if endpoint.asked[-1]["form"]["token"].startswith("stranger"):
            await release.wait()
        return web.json_response({"sub": "u1"})

    endpoint.answer = strangers_wait
    async with opened(endpoint.url, STORE_TIMEOUT_S="60") as asker:
        crowd = [asyncio.create_task(asker.verify(f"stranger{i}")) for i in range(1500)]
        crowd.append(asyncio.create_task(asker.verify("good")))  # refused, or behind the crowd
        await until(lambda: len(endpoint.asked) == MAX_REQUESTS)
        for _ in range(20):
            assert await asker.verify("good", recheck=True) == Claims("u1")
        found = await asyncio.gather(*[asker.verify(f"good{i}", recheck=True) for i in range(500)])
        assert found == [Claims("u1")] * 500
        release.set()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_rechecks_are_bounded_too(endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "MAX_WAITING", 4)
    endpoint.answer = silence
    async with opened(endpoint.url) as asker:
        tasks = [asyncio.create_task(asker.verify(f"t{i}", recheck=True)) for i in range(MAX_RECHECKS + 14)]
        await until(lambda: sum(task.done() for task in tasks) == 10)
        await until(lambda: len(endpoint.asked) == MAX_RECHECKS)
        await asker.close()
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {StoreUnavailable}


async def test_waiting_for_a_turn_counts_into_the_deadline(endpoint: FakeEndpoint) -> None:
    endpoint.answer = silence
    async with opened(endpoint.url, STORE_TIMEOUT_S="0.3") as asker:
        began = time.monotonic()
        found = await asyncio.gather(*[asker.verify(f"t{i}") for i in range(300)], return_exceptions=True)
        assert {type(one) for one in found} == {StoreUnavailable}
        assert time.monotonic() - began < 30


async def test_callers_that_leave_do_no_harm(endpoint: FakeEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(endpoint.url) as asker:
        for turns in range(30):
            tasks = [asyncio.create_task(asker.verify(TOKEN)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[:4]:
                task.cancel()
            assert (await asyncio.gather(*tasks, return_exceptions=True))[4] == Claims("u1")
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_callers_that_wait_when_it_closes_are_told(endpoint: FakeEndpoint) -> None:
    endpoint.answer = silence
    async with opened(endpoint.url) as asker:
        tasks = [asyncio.create_task(asker.verify(f"t{i}")) for i in range(100)]
        await until(lambda: len(endpoint.asked) == MAX_REQUESTS)
        await asker.close()
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {StoreUnavailable}
        assert "not introspected any more" in await unavailable(asker)


@pytest.mark.parametrize(
    "environ",
    [
        {"INTROSPECTION_TOKEN_IN": "bearer", "INTROSPECTION_AUTH_HEADER_VALUE": PROOF},
        {"INTROSPECTION_TOKEN_IN": "bearer", "INTROSPECTION_URL": "http://us:canary@127.0.0.1/who"},
        {"INTROSPECTION_AUTH_HEADER_VALUE": PROOF, "INTROSPECTION_URL": "http://us:canary@127.0.0.1/who"},
    ],
)
async def test_two_settings_that_want_one_header_stop_the_start(environ: dict[str, str]) -> None:
    asker = Introspection(load({"INTROSPECTION_URL": "http://127.0.0.1/who"} | environ))
    with pytest.raises(StartError, match="both need the header Authorization") as caught:
        await asker.open()
    assert "canary" not in str(caught.value)


@pytest.mark.real
@pytest.mark.parametrize("version", BETTER_AUTH_VERSIONS)
@pytest.mark.parametrize("kind", ["a database", "a secondary store"])
async def test_better_auth_says_who_its_sessions_are(
    start_better_auth: Callable[..., BetterAuth], postgres_url: str, version: str, kind: str
) -> None:
    server = start_better_auth(
        postgres_url,
        version=version,
        BA_PLUGINS="bearer,jwt,admin",
        BA_OPTIONS=json.dumps({"session": {"expiresIn": 60, "updateAge": 0}}),
        **({"BA_SECONDARY": "memory"} if kind == "a secondary store" else {}),
    )
    alice, bob = server.sign_up("alice"), server.sign_up("bob")
    url = f"{server.url}/api/auth/get-session?disableRefresh=true&disableCookieCache=true"
    environ = {"INTROSPECTION_METHOD": "GET", "INTROSPECTION_TOKEN_IN": "bearer"}
    async with opened(url, **environ) as asker:
        first = await asker.verify(alice.token)
        assert first is not None
        assert (first.user_id, first.session_id, first.roles) == (alice.user_id, None, {"user"})
        assert first.expires_at == pytest.approx(time.time() + 60, abs=20)
        assert await asker.verify(alice.token) == first, "asking must not prolong the session"
        jwt = server.call("GET", "/token", token=bob.token)[1]["token"]
        for token in (jwt, alice.token[:-1], alice.token + "x", "x" * 32, "x", "'", "%00", "a.b"):
            assert await asker.verify(token) is None
        server.sign_out(alice.token)
        assert await asker.verify(alice.token) is None
        assert await asker.verify(bob.token) is not None
        server.stop()
        assert "no connection" in await unavailable(asker, bob.token)
