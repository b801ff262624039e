"""The JWT verifier with keys from the settings."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from tests.unit.identity.jwt_kit import FAMILIES, SECRET, pem, private, segment, signed
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import load
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.jwt_claims import JwtPolicy


@asynccontextmanager
async def opened(**environ: str) -> AsyncIterator[JwtVerifier]:
    verifier = JwtVerifier(load(environ))
    await verifier.open()
    try:
        yield verifier
    finally:
        await verifier.close()


def lasting(**more: Any) -> dict[str, Any]:
    return {"sub": "u1", "exp": time.time() + 60} | more


async def test_a_secret_verifies_what_it_signed() -> None:
    async with opened(JWT_SECRET=SECRET, JWT_ISSUER="me") as verifier:
        await verifier.check()
        for alg in FAMILIES["secret"]:
            claims = await verifier.verify(signed(lasting(iss="me", sid="s1"), alg=alg))
            assert claims is not None
            assert (claims.user_id, claims.session_id) == ("u1", "s1")
        for token in (signed(lasting()), signed(lasting(iss="me"), "rsa", "RS256"), "x" * 32, "", "\ud800"):
            assert await verifier.verify(token) is None


async def test_each_kind_of_key_proves_its_own_tokens_beside_the_others() -> None:
    """A public key is known to everybody: what it says as a secret must not count."""
    async with opened(JWT_SECRET=SECRET, JWT_PUBLIC_KEY=pem("rsa")) as verifier:
        assert await verifier.verify(signed(lasting())) is not None
        assert await verifier.verify(signed(lasting(), "rsa", "RS256")) is not None
        for forged in (pem("rsa"), pem("rsa").strip(), "", "x" * 32):
            head, body = signed(lasting()).split(".")[:2]
            mac = hmac.digest(forged.encode(), f"{head}.{body}".encode(), hashlib.sha256)
            assert await verifier.verify(f"{head}.{body}.{segment(mac)}") is None
        assert await verifier.verify(signed(lasting(), "p256", "ES256")) is None


async def test_what_pyjwt_makes_is_taken() -> None:
    async with opened(JWT_SECRET=SECRET) as verifier:
        assert await verifier.verify(jwt.encode(lasting(), SECRET, "HS512")) is not None
    async with opened(JWT_PUBLIC_KEY=pem("rsa").replace("\n", "\\n")) as verifier:
        assert await verifier.verify(jwt.encode(lasting(), private("rsa"), "PS384")) is not None


async def test_a_short_secret_is_a_secret() -> None:
    head = f"{segment({'alg': 'HS256'})}.{segment(lasting())}"
    mac = hmac.digest(b"8 chars!", head.encode(), hashlib.sha256)
    async with opened(JWT_SECRET="8 chars!") as verifier:
        assert await verifier.verify(f"{head}.{segment(mac)}") is not None


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "secret"])
async def test_a_public_key_verifies_what_its_private_half_signed(family: str) -> None:
    async with opened(JWT_PUBLIC_KEY=pem(family), JWT_SESSION_CLAIM="none") as verifier:
        await verifier.check()
        for alg in FAMILIES[family]:
            claims = await verifier.verify(signed(lasting(sid="s1"), family, alg))
            assert claims is not None
            assert claims.session_id is None
        assert await verifier.verify(signed(lasting())) is None


async def test_an_old_fashioned_rsa_key_is_read_too() -> None:
    old = private("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    async with opened(JWT_PUBLIC_KEY=old) as verifier:
        assert await verifier.verify(signed(lasting(), "rsa", "RS256")) is not None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"JWT_PUBLIC_KEY": pem("rsa1024")}, "JWT_PUBLIC_KEY is an RSA key of 1024 bits, expected 2048 to 8192"),
        ({"JWT_PUBLIC_KEY": pem("ed448")}, "JWT_PUBLIC_KEY is a key that is neither RSA"),
        ({"JWT_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\ncanary"}, "JWT_PUBLIC_KEY is no public key in PEM"),
        ({"JWT_SECRET": pem("rsa")}, "JWT_SECRET is a key of another kind, expected a secret"),
        ({}, "neither JWT_SECRET, JWT_PUBLIC_KEY nor JWT_JWKS_URL is set"),
    ],
)
async def test_a_key_that_cannot_be_used_stops_the_start(environ: dict[str, str], words: str) -> None:
    with pytest.raises(StartError, match=words) as caught:
        await JwtVerifier(load(environ)).open()
    assert "canary" not in str(caught.value)


async def test_a_verifier_that_is_not_open_is_unavailable() -> None:
    verifier = JwtVerifier(load({"JWT_SECRET": SECRET}))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await verifier.verify(signed(lasting()))
        with pytest.raises(StoreUnavailable):
            await verifier.check()
        await verifier.open()
        assert await verifier.verify(signed(lasting())) is not None
        await verifier.close()
        await verifier.close()


def test_the_policy_is_what_the_settings_say() -> None:
    def of(**environ: str) -> JwtPolicy:
        return JwtPolicy.of(load(environ))

    assert of(JWT_SECRET=SECRET, JWT_ISSUER="me") == JwtPolicy(issuer="me", session_claim="sid", max_age_s=3600)
    remote = {"JWT_JWKS_URL": "http://127.0.0.1/jwks"}
    assert of(**remote, JWT_ISSUER="me") == JwtPolicy(issuer="me", audience="me", session_claim="sid", max_age_s=3600)
    assert of(**remote, JWT_AUDIENCE="us") == JwtPolicy(audience="us", session_claim="sid", max_age_s=3600)
    assert of(**remote, JWT_ISSUER="me", JWT_AUDIENCE="us").audience == "us"
    assert of(JWT_SESSION_CLAIM="None").session_claim is None
    assert of(JWT_LEEWAY_S="5").leeway_s == 5


async def test_the_log_says_why_a_token_is_refused_and_nothing_of_it() -> None:
    token = signed(lasting(exp=1, name="a canary"))
    async with opened(JWT_SECRET=SECRET) as verifier:
        with capture_logs() as lines:
            assert await verifier.verify(token) is None
    assert lines == [
        {"event": "JWT refused", "reason": "it has expired", "log_level": "debug", "module": "identity.sources.jwt"}
    ]
