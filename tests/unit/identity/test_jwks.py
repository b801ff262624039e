from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import gzip
import hmac
import http.client
import itertools
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt
import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.kit.services import BETTER_AUTH_VERSIONS, BetterAuth, Postgres
from watchout.common.errors import StoreUnavailable
from watchout.common.settings import load
from watchout.identity.sources import jwks
from watchout.identity.sources.claims import Claims
from watchout.identity.sources.jwt import JwtVerifier, looks_like_jwt
from watchout.identity.sources.key_cache import MAX_BACKOFF_S, REFETCH_S, STALE_S, TTL_S, KeyCache, KeyLookup, KeyMiss
from watchout.identity.sources.keys import KeySet, read_jwks

CANARY = "canary-in-every-token"


def published(*kids: str, keys: dict[str, Ed25519PrivateKey]) -> bytes:
    entries = []
    for kid in kids:
        key = keys.setdefault(kid, Ed25519PrivateKey.generate())
        entries.append(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True) | {"kid": kid})
    return json.dumps({"keys": entries}).encode()


def key_set(*kids: str) -> KeySet:
    return read_jwks(published(*kids, keys={}))


# ── the decisions ────────────────────────────────────────────────────────────────────────────────────────────────


def kids_of(verdict: KeyLookup | KeyMiss) -> list[str | None]:
    assert isinstance(verdict, KeyLookup)
    return [key.kid for key in verdict.keys]


@pytest.mark.parametrize("age_s", [None, 0.0, REFETCH_S, TTL_S - 0.1, TTL_S, STALE_S - 0.1, STALE_S, STALE_S + 1])
@pytest.mark.parametrize("kid", ["known", "unknown", None])
@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("failed_ago_s", [None, 0.5, 1.0, REFETCH_S])
def test_every_look_up(
    age_s: float | None, kid: str | None, waited: bool, under_way: bool, failed_ago_s: float | None
) -> None:
    now, cache = 1e6, KeyCache()
    if age_s is not None:
        cache.fetch_started(now - age_s)
        cache.fetched(key_set("known", "other"), now - age_s)
    since_start = math.inf if age_s is None else age_s
    backing_off = False
    if failed_ago_s is not None and failed_ago_s <= since_start:
        cache.fetch_started(now - failed_ago_s)
        cache.failed(now - failed_ago_s)
        since_start, backing_off = failed_ago_s, failed_ago_s < 1.0
    if under_way:
        cache.fetch_started(now - 0.1)

    verdict = cache.look_up(kid, now, waited=waited)

    if age_s is None or age_s >= STALE_S:
        may_fetch = under_way or not backing_off
        assert verdict is (KeyMiss.FETCH if may_fetch and not waited else KeyMiss.UNAVAILABLE)
        assert not cache.usable(now)
    elif kid == "known":
        assert kids_of(verdict) == ["known"]
        assert isinstance(verdict, KeyLookup)
        assert verdict.refresh == (age_s >= TTL_S and not under_way and not backing_off)
        assert cache.usable(now)
    else:
        may_fetch = under_way or (since_start >= REFETCH_S and not backing_off)
        failed = failed_ago_s is not None and since_start == failed_ago_s
        refused = KeyMiss.UNAVAILABLE if failed else KeyMiss.UNKNOWN
        assert verdict is (KeyMiss.FETCH if may_fetch and not waited else refused)


def test_the_times_are_those_of_the_documentation() -> None:
    assert (TTL_S, REFETCH_S, STALE_S, MAX_BACKOFF_S) == (300, 10, 24 * 3600, 10)


def test_a_new_cache_fetches() -> None:
    cache = KeyCache()
    assert cache.look_up("a", 0.0) is KeyMiss.FETCH
    assert cache.look_up(None, 0.0) is KeyMiss.FETCH


def test_while_a_fetch_is_under_way_others_wait_for_it() -> None:
    cache = KeyCache()
    cache.fetch_started(0.0)
    assert cache.look_up("a", 0.1) is KeyMiss.FETCH
    assert cache.fetched(key_set("a"), 0.2)
    assert kids_of(cache.look_up("a", 0.2)) == ["a"]


def test_new_keys_replace_the_old_ones() -> None:
    cache = KeyCache()
    cache.fetch_started(0.0)
    assert cache.fetched(key_set("a", "b"), 0.0)
    assert kids_of(cache.look_up("a", 0.0)) == ["a"]
    assert cache.fetched(key_set("b", "c"), 1.0)
    assert cache.look_up("a", 1.0) is KeyMiss.UNKNOWN
    assert kids_of(cache.look_up("c", 1.0)) == ["c"]
    assert not cache.fetched(key_set("b", "c"), 2.0)
    assert cache.fetched(key_set(), 3.0)
    assert cache.look_up("c", 3.0) is KeyMiss.UNKNOWN


def test_each_failure_waits_twice_as_long_up_to_a_bound_and_a_success_forgives() -> None:
    cache, now = KeyCache(), 0.0
    waits = []
    for _ in range(30):
        cache.fetch_started(now)
        cache.failed(now)
        wait = next(w for w in itertools.count(0.5, 0.5) if cache.look_up("a", now + w) is KeyMiss.FETCH)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, *[MAX_BACKOFF_S] * 26]
    cache.fetched(key_set("a"), now)
    cache.failed(now + TTL_S)
    assert isinstance(verdict := cache.look_up("a", now + TTL_S + 1), KeyLookup)
    assert verdict.refresh


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.sampled_from(["known", "unknown", "fails", "succeeds", "rests for hours"])),
        max_size=80,
    )
)
def test_over_any_history_fetches_are_single_and_seldom(history: list[tuple[float, str]]) -> None:
    cache, now, under_way = KeyCache(), 0.0, False
    fetched_at: float | None = None
    started: list[tuple[float, bool]] = []
    for pause, event in history:
        now += pause
        match event:
            case "rests for hours":
                now += STALE_S / 4
            case "fails" if under_way:
                cache.failed(now)
                under_way = False
            case "succeeds" if under_way:
                cache.fetched(key_set("known"), now)
                under_way, fetched_at = False, now
            case "known" | "unknown":
                verdict = cache.look_up(event, now)
                usable = fetched_at is not None and now - fetched_at < STALE_S
                assert (event == "known" and usable) == isinstance(verdict, KeyLookup)
                wants = verdict is KeyMiss.FETCH or (isinstance(verdict, KeyLookup) and verdict.refresh)
                if isinstance(verdict, KeyLookup):
                    assert not (verdict.refresh and under_way)
                if wants and not under_way:
                    cache.fetch_started(now)
                    under_way = True
                    started.append((now, event == "unknown" and usable))
                assert cache.look_up(event, now, waited=True) is not KeyMiss.FETCH
    for (before, _), (at, for_unknown) in itertools.pairwise(started):
        assert at - before >= (REFETCH_S if for_unknown else 0)


# ── against a server ─────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """A JWKS address on loopback that counts, and misbehaves when told to."""

    def __init__(self) -> None:
        self.fetches = 0
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.kids = ["k1"]
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks?of=all"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        assert (request.method, request.path_qs) == ("GET", "/jwks?of=all")
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=published(*self.kids, keys=self.keys), content_type="application/json")

    def token(self, kid: str | None = "k1", sub: str = "u1", by: str | None = None, **more: Any) -> str:
        signer = self.keys.setdefault(by or kid or self.kids[0], Ed25519PrivateKey.generate())
        claims = {"sub": sub, "exp": time.time() + 600, "iss": "me", "aud": "me", "name": CANARY}
        return jwt.encode(claims | more, signer, "EdDSA", headers={} if kid is None else {"kid": kid})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def opened(url: str, clock: Clock, **environ: str) -> AsyncIterator[JwtVerifier]:
    verifier = JwtVerifier(load({"JWT_JWKS_URL": url, "JWT_ISSUER": "me"} | environ), clock=clock)
    await verifier.open()
    try:
        yield verifier
    finally:
        await verifier.close()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[JwtVerifier]:
    async with opened(issuer.url, clock) as verifier:
        yield verifier


def who(claims: Claims | None) -> str | None:
    return claims and claims.user_id


async def unavailable(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await verifier.verify(token)
    assert token not in str(caught.value)
    return str(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_two_hundred_callers_at_a_cold_start_are_one_fetch(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def history() -> None:
        issuer = Issuer()
        await issuer.start()
        async with opened(issuer.url, Clock()) as verifier:
            tokens = [issuer.token(sub=f"u{i}") for i in range(200)]
            found = await asyncio.gather(*[verifier.verify(token) for token in tokens])
            assert [who(claims) for claims in found] == [f"u{i}" for i in range(200)]
            assert issuer.fetches == 1
        await issuer.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(history())


async def test_a_rotation_is_one_more_fetch(issuer: Issuer, verifier: JwtVerifier, clock: Clock) -> None:
    assert who(await verifier.verify(issuer.token("k1"))) == "u1"
    clock.now += REFETCH_S
    issuer.kids = ["k2", "k1"]
    found = await asyncio.gather(*[verifier.verify(issuer.token(kid)) for kid in ("k2", "k1") * 50])
    assert {who(claims) for claims in found} == {"u1"}
    assert issuer.fetches == 2


async def test_a_rotation_right_after_a_fetch_is_seen_ten_seconds_later(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert who(await verifier.verify(issuer.token("k1"))) == "u1"
    issuer.kids = ["k2"]
    clock.now += REFETCH_S - 0.1
    assert await verifier.verify(issuer.token("k2")) is None
    clock.now += 0.1
    assert who(await verifier.verify(issuer.token("k2"))) == "u1"
    assert await verifier.verify(issuer.token("k1")) is None
    assert issuer.fetches == 2


async def test_made_up_kids_cost_one_fetch_in_ten_seconds(issuer: Issuer, verifier: JwtVerifier, clock: Clock) -> None:
    assert who(await verifier.verify(issuer.token())) == "u1"
    tokens = [issuer.token(f"made-up-{i}") for i in range(500)]
    assert set(await asyncio.gather(*[verifier.verify(token) for token in tokens])) == {None}
    assert issuer.fetches == 1
    clock.now += REFETCH_S
    assert set(await asyncio.gather(*[verifier.verify(token) for token in tokens])) == {None}
    assert issuer.fetches == 2


async def test_a_token_without_kid_is_tried_against_the_only_key(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert who(await verifier.verify(issuer.token(None))) == "u1"
    assert await verifier.verify(issuer.token(None, by="another")) is None
    clock.now += TTL_S
    issuer.kids = ["k1", "k2"]
    await verifier.verify(issuer.token())
    await until(lambda: issuer.fetches == 2)
    clock.now += 1
    while await verifier.verify(issuer.token("k2")) is None:
        await asyncio.sleep(0.005)
    assert await verifier.verify(issuer.token(None)) is None


async def test_a_name_proves_nothing(issuer: Issuer, verifier: JwtVerifier) -> None:
    assert await verifier.verify(issuer.token("k1", by="made-up")) is None
    assert who(await verifier.verify(issuer.token("k1"))) == "u1"


async def test_a_token_that_is_hopeless_makes_us_fetch_nothing(issuer: Issuer, verifier: JwtVerifier) -> None:
    token = issuer.token()
    for hopeless in (
        issuer.token(exp=time.time() - 1), issuer.token(iss="you"), issuer.token(aud="you"), issuer.token(sub=""),
        token + ".", token[1:], "x" * 32, "", "\0",
    ):  # fmt: skip
        assert await verifier.verify(hopeless) is None
    assert issuer.fetches == 0


async def test_known_keys_go_on_verifying_while_newer_ones_are_fetched(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert who(await verifier.verify(issuer.token())) == "u1"
    release = asyncio.Event()

    async def later(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=published("k2", keys=issuer.keys))

    issuer.answer = later
    clock.now += TTL_S
    for _ in range(20):
        assert who(await verifier.verify(issuer.token())) == "u1"
    await until(lambda: issuer.fetches == 2)
    waits = asyncio.create_task(verifier.verify(issuer.token("k2")))
    assert who(await verifier.verify(issuer.token())) == "u1"
    assert not waits.done()
    release.set()
    assert who(await waits) == "u1"
    assert await verifier.verify(issuer.token()) is None
    assert issuer.fetches == 2


async def test_an_issuer_that_is_down_is_not_missed_for_a_day(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert who(await verifier.verify(issuer.token())) == "u1"
    await issuer.stop()
    for hours in range(24):
        clock.now = 1000.0 + hours * 3600
        assert who(await verifier.verify(issuer.token())) == "u1"
        if hours:  # a key of another name may be there, for all that can be known now
            assert "no connection" in await unavailable(verifier, issuer.token("k2"))
    clock.now = 1000.0 + STALE_S
    assert "no connection" in await unavailable(verifier, issuer.token())
    with pytest.raises(StoreUnavailable):
        await verifier.check()
    await issuer.start()
    clock.now += MAX_BACKOFF_S
    assert who(await verifier.verify(issuer.token())) == "u1"
    await verifier.check()


async def test_an_issuer_that_was_never_there_is_unavailable_and_found_when_it_comes(clock: Clock) -> None:
    issuer = Issuer()
    await issuer.start()
    await issuer.stop()
    async with opened(issuer.url, clock) as verifier:
        reasons = await asyncio.gather(*[unavailable(verifier, issuer.token()) for _ in range(50)])
        assert len(set(reasons)) == 1
        await issuer.start()
        assert "no connection" in await unavailable(verifier, issuer.token())
        assert issuer.fetches == 0
        clock.now += 1
        assert who(await verifier.verify(issuer.token())) == "u1"
    await issuer.stop()


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(OSError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)
    return response


async def silence(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def flood(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(OSError):
        for _ in range(160):
            await response.write(b" " * 65536)
    return response


def says(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


ONE_KEY = published("k1", keys={})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (drip, "no whole answer within 0.3 s"),
        (silence, "no whole answer within 0.3 s"),
        (flood, "its answer has over 262144 bytes"),
        (says(body=b"<html>sign in</html>"), "its answer is not JSON"),
        (says(body=b"{}"), "its answer is no JWK set"),
        (says(body=b""), "its answer is not JSON"),
        (says(body=b'{"keys":[' + b",".join([b"{}"] * 101) + b"]}"), "its answer has 101 keys, expected at most 100"),
        (says(302, Location="/elsewhere"), "it answered with status 302"),
        (says(307, ONE_KEY, Location="http://127.0.0.1:1/"), "it answered with status 307"),
        (says(404, ONE_KEY), "it answered with status 404"),
        (says(500, b" " * 1_000_000), "it answered with status 500"),
        (says(204), "it answered with status 204"),
        (says(body=gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), "its answer is not JSON"),
    ],
)
async def test_an_issuer_that_misbehaves_is_unavailable_and_bounded(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.3)
    issuer.answer = answer
    async with opened(issuer.url, clock) as verifier:
        began = time.monotonic()
        found = await asyncio.gather(*[unavailable(verifier, issuer.token()) for _ in range(20)])
        assert time.monotonic() - began < 2
        assert set(found) == {f"no keys of the JWT issuer: {reason}"}
        assert issuer.fetches == 1
        issuer.answer = None
        clock.now += 1
        assert who(await verifier.verify(issuer.token())) == "u1"


@pytest.mark.parametrize(
    "words", [b"", b"\0" * 100, b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
)
async def test_something_else_on_that_port_is_unavailable(clock: Clock, words: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(words)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with opened(f"http://user:{CANARY}@127.0.0.1:{port}/jwks", clock) as verifier:
            with capture_logs() as lines:
                reason = await unavailable(verifier, Issuer().token())
            assert CANARY not in reason + str(lines)
    finally:
        server.close()
        await server.wait_closed()


def self_signed(directory: Path) -> ssl.SSLContext:
    key, name = (
        generate_private_key(SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]),
    )
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    file = directory / "cert.pem"
    file.write_bytes(
        builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_an_issuer_for_whom_nobody_vouches_is_not_believed(tmp_path: Path, clock: Clock) -> None:
    issuer = Issuer()
    await issuer.start(self_signed(tmp_path))
    async with opened(issuer.url.replace("http:", "https:"), clock) as verifier:
        assert await unavailable(verifier, issuer.token()) == (
            "no keys of the JWT issuer: its certificate is not accepted: self-signed certificate"
        )
    assert issuer.fetches == 0
    await issuer.stop()


async def test_a_failure_leaves_the_keys_in_use(issuer: Issuer, verifier: JwtVerifier, clock: Clock) -> None:
    assert who(await verifier.verify(issuer.token())) == "u1"
    for answer in (says(500), says(body=b"<html>"), says(body=b'{"keys":{}}'), says(302, Location="/x")):
        issuer.answer, before = answer, issuer.fetches
        clock.now += TTL_S
        assert who(await verifier.verify(issuer.token())) == "u1"
        await until(lambda before=before: issuer.fetches == before + 1)  # type: ignore[misc]
        assert who(await verifier.verify(issuer.token())) == "u1"
        assert issuer.fetches == before + 1


async def test_an_issuer_that_takes_back_all_keys_is_obeyed(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    assert who(await verifier.verify(issuer.token())) == "u1"
    issuer.kids = []
    clock.now += REFETCH_S
    with capture_logs() as lines:
        assert await verifier.verify(issuer.token("k2")) is None
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "the JWT issuer publishes no key that can be used"
    ]
    assert await verifier.verify(issuer.token()) is None
    await verifier.check()


async def test_the_issuers_keys_alone_are_enough(issuer: Issuer, clock: Clock) -> None:
    with capture_logs() as lines:
        async with opened(issuer.url, clock, JWT_ISSUER="") as verifier:
            assert await verifier.verify(issuer.token()) is not None
    assert any("JWT_ISSUER" in line["event"] for line in lines)


async def test_a_secret_beside_the_issuers_keys_is_for_its_own_tokens_only(issuer: Issuer, clock: Clock) -> None:
    secret = "a-canary-secret-of-32-characters"
    good = {"sub": "u1", "iss": "me", "exp": time.time() + 60}
    async with opened(issuer.url, clock, JWT_SECRET=secret) as verifier:
        assert await verifier.verify(jwt.encode(good, secret, "HS256")) is not None  # its aud nobody asked for
        assert issuer.fetches == 0
        assert await verifier.verify(issuer.token()) is not None
        assert issuer.fetches == 1
        public = issuer.keys["k1"].public_key()
        for known_to_all in (
            public.public_bytes(Encoding.Raw, PublicFormat.Raw),
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ):
            head, body = jwt.encode(good, secret, "HS256", headers={"kid": "k1"}).split(".")[:2]
            mac = hmac.digest(known_to_all, f"{head}.{body}".encode(), "sha256")
            forged = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            assert await verifier.verify(forged) is None
        assert issuer.fetches == 1
        await issuer.stop()
        clock.now += 2 * 86_400
        assert await verifier.verify(jwt.encode(good, secret, "HS256")) is not None
        with pytest.raises(StoreUnavailable):
            await verifier.verify(issuer.token())


async def test_callers_that_leave_do_not_take_the_fetch_along(
    issuer: Issuer, verifier: JwtVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()

    async def later(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=published("k1", keys=issuer.keys))

    issuer.answer = later
    tasks = [asyncio.create_task(verifier.verify(issuer.token())) for _ in range(10)]
    await until(lambda: issuer.fetches == 1)
    for task in tasks[:9]:
        task.cancel()
    release.set()
    assert who(await tasks[9]) == "u1"
    await asyncio.gather(*tasks, return_exceptions=True)
    assert issuer.fetches == 1
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_too_many_waiting_callers_are_told_so_at_once(
    issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "MAX_WAITING", 5)
    found = await asyncio.gather(*[verifier.verify(issuer.token()) for _ in range(20)], return_exceptions=True)
    assert [type(one) for one in found] == [Claims] * 5 + [StoreUnavailable] * 15


async def test_callers_that_wait_when_it_closes_are_told(issuer: Issuer, clock: Clock) -> None:
    issuer.answer = silence
    async with opened(issuer.url, clock) as verifier:
        tasks = [asyncio.create_task(verifier.verify(issuer.token())) for _ in range(10)]
        await until(lambda: issuer.fetches == 1)
        await verifier.close()
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {StoreUnavailable}
        await unavailable(verifier, issuer.token())
        clock.now += MAX_BACKOFF_S
        assert "not waited any more" in await unavailable(verifier, issuer.token())


async def test_an_outage_is_logged_once_and_so_is_its_end_and_no_token_ever(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    tokens = [issuer.token(), issuer.token("k2"), issuer.token(exp=1), issuer.token(by="x")]
    with capture_logs() as lines:
        for answer in (None, says(500, b" "), says(500, b" "), says(500, b" "), None, None):
            issuer.answer = answer
            clock.now += TTL_S
            before = issuer.fetches
            for token in tokens:
                with contextlib.suppress(StoreUnavailable):  # a key that may be there while nobody can ask
                    await verifier.verify(token)
            await until(lambda before=before: issuer.fetches > before)  # type: ignore[misc]
            await asyncio.sleep(0.02)
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == [
        "JWT keys found",
        "JWT issuer unavailable",
        "JWT issuer is available again",
    ]
    shown = str(lines) + caplog.text + repr(vars(verifier)) + repr(asyncio.all_tasks())
    for token in tokens:
        assert not any(part in shown for part in (*token.split("."), CANARY))


# ── against a real Better Auth ───────────────────────────────────────────────────────────────────────────────────

Start = Callable[..., BetterAuth]

#: What makes a JWT revocable: docs/better-auth.md.
SID = """
export const pluginOptions = {
  jwt: { jwt: { definePayload: ({ user, session }) => ({ ...user, sid: session.id }) } },
};
"""


def options(**jwks_options: Any) -> str:
    return json.dumps({"jwt": {"jwks": jwks_options}})


def token_of(server: BetterAuth, session_token: str) -> str:
    status, answer, _ = server.call("GET", "/token", token=session_token)
    assert status == 200, answer
    token: str = answer["token"]
    assert looks_like_jwt(token)
    assert not looks_like_jwt(session_token)
    return token


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


@pytest.mark.real
@pytest.mark.parametrize("version", BETTER_AUTH_VERSIONS)
@pytest.mark.parametrize("alg", ["EdDSA", "ES256", "RS256", "PS256", "ES512"])
async def test_a_real_token_of_every_algorithm(
    start_better_auth: Start, postgres_url: str, clock: Clock, version: str, alg: str
) -> None:
    server = start_better_auth(postgres_url, version=version, BA_PLUGIN_OPTIONS=options(keyPairConfig={"alg": alg}))
    alice, bob = server.sign_up("alice"), server.sign_up("bob")
    async with opened(server.ready["jwksUrl"], clock, JWT_ISSUER=server.ready["issuer"]) as verifier:
        for one in (alice, bob):
            token = token_of(server, one.token)
            assert jwt.get_unverified_header(token)["alg"] == alg
            claims = await verifier.verify(token)
            assert claims is not None
            assert (claims.user_id, claims.session_id) == (one.user_id, None)
            assert claims.expires_at == pytest.approx(time.time() + 900, abs=30)
            head, body, tail = token.split(".")
            changed = body[:40] + ("A" if body[40] != "A" else "B") + body[41:]
            for other in (f"{head}.{changed}.{tail}", f"{head}.{body}.{tail[:-8]}", one.token):
                assert await verifier.verify(other) is None
    for wrong in ({"JWT_ISSUER": "http://other"}, {"JWT_ISSUER": server.ready["issuer"], "JWT_AUDIENCE": "other"}):
        async with opened(server.ready["jwksUrl"], clock, **wrong) as verifier:
            assert await verifier.verify(token_of(server, alice.token)) is None


@pytest.mark.real
async def test_keys_that_better_auth_rotates(start_better_auth: Start, postgres_url: str, clock: Clock) -> None:
    server = start_better_auth(postgres_url, BA_PLUGIN_OPTIONS=options(rotationInterval=1, gracePeriod=1))
    alice = server.sign_up()
    async with opened(server.ready["jwksUrl"], clock, JWT_ISSUER=server.ready["issuer"]) as verifier:
        first = token_of(server, alice.token)
        assert who(await verifier.verify(first)) == alice.user_id
        await until(lambda: kid_of(token_of(server, alice.token)) != kid_of(first))
        second = token_of(server, alice.token)
        clock.now += REFETCH_S
        assert who(await verifier.verify(second)) == alice.user_id

        def published_kids() -> list[str]:
            return [key["kid"] for key in server.call("GET", "/jwks")[1]["keys"]]

        await until(lambda: kid_of(first) not in published_kids())
        clock.now += TTL_S
        third = token_of(server, alice.token)
        async with asyncio.timeout(5):
            while await verifier.verify(first) is not None:  # until the keys were fetched in the background
                await asyncio.sleep(0.02)
        assert who(await verifier.verify(third)) == alice.user_id


@pytest.mark.real
async def test_a_token_names_its_session_and_roles_when_better_auth_says_them(
    start_better_auth: Start, postgres_url: str, postgres: Postgres, tmp_path: Path, clock: Clock
) -> None:
    module = tmp_path / "config.mjs"
    module.write_text(SID)
    server = start_better_auth(postgres_url, BA_PLUGINS="bearer,jwt,admin", BA_CONFIG_MODULE=str(module))
    alice = server.sign_up()
    postgres.run_sql(postgres_url, """update "user" set role = 'admin,guard'""")
    _, session, _ = server.call("GET", "/get-session", token=alice.token)
    async with opened(server.ready["jwksUrl"], clock, JWT_ISSUER=server.ready["issuer"]) as verifier:
        claims = await verifier.verify(token_of(server, alice.token))
        assert claims is not None
        assert claims.session_id == session["session"]["id"]
        assert claims.roles == {"admin", "guard"}
        postgres.run_sql(postgres_url, 'update "user" set banned = true')
        assert await verifier.verify(token_of(server, alice.token)) is None


@pytest.mark.real
async def test_the_cache_in_a_cookie_that_better_auth_signs_with_the_same_keys_is_refused(
    start_better_auth: Start, postgres_url: str, clock: Clock
) -> None:
    server = start_better_auth(
        postgres_url,
        BA_OPTIONS=json.dumps({"session": {"cookieCache": {"enabled": True, "strategy": "jwt"}}}),
        BA_PLUGIN_OPTIONS=json.dumps({"jwt": {"sessionCookieCache": True}}),
    )
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    body = json.dumps({"email": "a@example.com", "password": "correct horse", "name": "a"})
    headers = {"Origin": server.url, "Content-Type": "application/json"}
    connection.request("POST", "/api/auth/sign-up/email", body, headers)
    response = connection.getresponse()
    session_token = json.loads(response.read())["token"]
    cookies: SimpleCookie = SimpleCookie()
    for line in response.headers.get_all("Set-Cookie") or []:
        cookies.load(line)
    connection.close()
    cache = unquote(cookies["better-auth.session_data"].value)
    assert looks_like_jwt(cache)
    assert kid_of(cache) == kid_of(token_of(server, session_token))
    for audience in ({}, {"JWT_AUDIENCE": "better-auth:session-cache"}):
        environ = {"JWT_ISSUER": server.ready["issuer"]} | audience
        async with opened(server.ready["jwksUrl"], clock, **environ) as verifier:
            assert await verifier.verify(cache) is None
            if not audience:
                assert await verifier.verify(token_of(server, session_token)) is not None
