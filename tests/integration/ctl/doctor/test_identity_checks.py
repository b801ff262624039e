"""Certificate, keys, introspection and clocks, against servers of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.kit.doctor_report import Doctor, line, make_certificate, served


def jwks() -> bytes:
    key = jwt.get_algorithm_by_name("EdDSA").to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True)
    return json.dumps({"keys": [key | {"kid": "k1"}, {"kty": "oct", "k": "AAAA"}]}).encode()


async def test_an_expired_certificate_is_wrong(doctor: Doctor, tmp_path: Path) -> None:
    ended = await doctor(**make_certificate(tmp_path, -1))
    assert ended.code == 1
    assert line(ended, "tls", "wrong", "The certificate for cam.example expired on")


async def test_a_key_of_another_certificate_is_wrong_and_one_that_all_may_read_a_warning(
    doctor: Doctor, tmp_path: Path
) -> None:
    settings = make_certificate(tmp_path, 60)
    ended = await doctor(**settings)
    assert ended.code == 0
    assert line(ended, "tls", "ok", "is valid until")
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", 60)["TLS_KEY"]
    Path(other).chmod(0o644)
    ended = await doctor(TLS_CERT=settings["TLS_CERT"], TLS_KEY=other)
    assert ended.code == 1
    assert line(ended, "tls", "wrong", "TLS_KEY does not belong to the certificate in TLS_CERT")
    assert line(ended, "tls", "warning", "every user of this machine may read the private key")


@pytest.mark.parametrize(
    ("behind_s", "level", "words"),
    [
        (0, "ok", "agrees with that of the JWT issuer"),
        (10, "warning", "s ahead of that of the JWT issuer"),
        (-600, "wrong", "s behind that of the JWT issuer"),
    ],
)
async def test_the_clock_of_the_issuer_is_compared(doctor: Doctor, behind_s: float, level: str, words: str) -> None:
    def answer(_: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) - timedelta(seconds=behind_s), usegmt=True)
        return web.Response(body=jwks(), headers={"Date": date})

    async with served(answer) as url:
        ended = await doctor(JWT_JWKS_URL=f"{url}/jwks", JWT_ISSUER="https://app")
    assert ended.code == (1 if level == "wrong" else 0)
    assert line(ended, "clock", level, words)
    assert line(ended, "keys", "ok", "publishes 1 of 2 keys that can be used (Ed25519 EdDSA)")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=404), "it answered with status 404"),
        (lambda: web.Response(text="<html>"), "its answer is not JSON"),
        (lambda: web.json_response({"keys": []}), "publishes 0 keys, none of which can be used"),
    ],
)
async def test_an_issuer_without_keys_is_wrong(doctor: Doctor, answer: Callable[[], web.Response], words: str) -> None:
    async with served(lambda _: answer()) as url:
        ended = await doctor(JWT_JWKS_URL=f"{url}/jwks", JWT_ISSUER="https://app")
    assert ended.code == 1
    assert line(ended, "keys", "wrong", words)


async def test_a_key_that_cannot_be_used_is_wrong(doctor: Doctor) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----"
    ended = await doctor(JWT_PUBLIC_KEY=pem)
    assert ended.code == 1
    assert line(ended, "keys", "wrong", "JWT_PUBLIC_KEY is no public key in PEM")


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (lambda _: web.json_response({"active": False}), "ok", "refuses a random token that no user has"),
        (lambda _: web.json_response({"active": True, "sub": "u"}), "wrong", "everybody can sign in"),
        (lambda _: web.Response(status=401), "wrong", "INTROSPECTION_AUTH_HEADER_NAME and _VALUE"),
        (lambda _: web.Response(status=404), "warning", "the path is wrong"),
        (lambda _: web.Response(status=500), "wrong", "it answered with status 500"),
    ],
)
async def test_the_introspection_endpoint_is_asked_about_nobody(
    doctor: Doctor, answer: Callable[[web.Request], web.Response], level: str, words: str
) -> None:
    asked: list[str | None] = []

    def handle(request: web.Request) -> web.Response:
        if request.method == "POST":
            asked.append(request.headers.get("X-Proof"))
        return answer(request)

    async with served(handle) as url:
        ended = await doctor(
            INTROSPECTION_URL=f"{url}/introspect?key=canary-key",
            INTROSPECTION_AUTH_HEADER_NAME="X-Proof",
            INTROSPECTION_AUTH_HEADER_VALUE="canary-proof",
        )
    assert asked == ["canary-proof"]
    assert ended.code == (1 if level == "wrong" else 0)
    assert line(ended, "keys", level, words)
    assert "canary" not in ended.out
