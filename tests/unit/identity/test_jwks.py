"""The published keys of an issuer, fetched from a server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import gzip
import hmac
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from structlog.testing import capture_logs

from tests.kit.http_server import drip, flood, silence
from tests.kit.relays import Relays
from tests.unit.identity.jwks_kit import CANARY, Clock, Issuer, opened, published, until, who
from watchout.common.errors import StoreUnavailable
from watchout.identity.sources import jwks
from watchout.identity.sources.claims import Claims
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.key_cache import MAX_BACKOFF_S, REFETCH_S, STALE_S, TTL_S


async def unavailable(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await verifier.verify(token)
    assert token not in str(caught.value)
    return str(caught.value)


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
    if answer in (drip, silence):
        monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.3)
    issuer.answer = answer
    async with opened(issuer.url, clock) as verifier:
        began = time.monotonic()
        found = await asyncio.gather(*[unavailable(verifier, issuer.token()) for _ in range(20)])
        assert time.monotonic() - began < 30
        assert set(found) == {f"no keys of the JWT issuer: {reason}"}
        assert issuer.fetches == 1
        issuer.answer = None
        clock.now += 1
        while answer in (drip, silence):  # a machine that stops for a moment may miss the short deadline again
            with suppress(StoreUnavailable):
                await verifier.verify(issuer.token())
                break
            clock.now += MAX_BACKOFF_S
        assert who(await verifier.verify(issuer.token())) == "u1"


@pytest.mark.parametrize(
    "words", [b"", b"\0" * 100, b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
)
async def test_something_else_on_that_port_is_unavailable(clock: Clock, words: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(words)

    async with (
        Relays(answer) as server,
        opened(f"http://user:{CANARY}@127.0.0.1:{server.port}/jwks", clock) as verifier,
    ):
        with capture_logs() as lines:
            reason = await unavailable(verifier, Issuer().token())
        assert CANARY not in reason + str(lines)


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
        await until(lambda: not verifier._issuer._fetches)  # its failure has arrived, so that the next one may begin


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


async def test_the_tokens_of_waiting_callers_are_bounded_in_bytes(
    issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    small, large = issuer.token(), issuer.token(pad="x" * 1000)
    monkeypatch.setattr(jwks, "MAX_WAITING_BYTES", len(small) + 2 * len(large))
    found = await asyncio.gather(
        *[verifier.verify(each) for each in (large, large, large, small, small)], return_exceptions=True
    )
    assert [type(one) for one in found] == [Claims, Claims, StoreUnavailable, Claims, StoreUnavailable]
    assert await verifier.verify(large), "nobody waits any more"
    clock.now += 86_400 * 2  # the keys are fetched anew
    assert [type(one) for one in await asyncio.gather(verifier.verify(large), verifier.verify(large))] == [Claims] * 2


async def test_callers_that_wait_when_it_closes_are_told(issuer: Issuer, clock: Clock) -> None:
    issuer.answer = silence
    async with opened(issuer.url, clock) as verifier:
        tasks = [asyncio.create_task(verifier.verify(issuer.token())) for _ in range(10)]
        await until(lambda: issuer.fetches == 1)
        await verifier.close()
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {StoreUnavailable}
        await unavailable(verifier, issuer.token())
        clock.now += MAX_BACKOFF_S
        assert "not asked any more" in await unavailable(verifier, issuer.token())


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
            await until(lambda: not verifier._issuer._fetches)  # its outcome has arrived
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == [
        "JWT keys found",
        "JWT issuer unavailable",
        "JWT issuer is available again",
    ]
    shown = str(lines) + caplog.text + repr(vars(verifier)) + repr(asyncio.all_tasks())
    for token in tokens:
        assert not any(part in shown for part in (*token.split("."), CANARY))
