"""Key sets, an issuer and a clock for the tests of published keys."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.kit.http_server import HttpServer, Respond
from watchout.common.settings import load
from watchout.identity.sources.claims import Claims
from watchout.identity.sources.jwt import JwtVerifier

CANARY = "canary-in-every-token"


def published(*kids: str, keys: dict[str, Ed25519PrivateKey]) -> bytes:
    entries = []
    for kid in kids:
        key = keys.setdefault(kid, Ed25519PrivateKey.generate())
        entries.append(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True) | {"kid": kid})
    return json.dumps({"keys": entries}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Issuer(HttpServer):
    """A JWKS address on loopback that counts, and misbehaves when told to."""

    def __init__(self) -> None:
        self.fetches = 0
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.kids = ["k1"]
        self.answer: Respond | None = None
        super().__init__(self._handle)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks?of=all"

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


@asynccontextmanager
async def opened(url: str, clock: Clock, **environ: str) -> AsyncIterator[JwtVerifier]:
    verifier = JwtVerifier(load({"JWT_JWKS_URL": url, "JWT_ISSUER": "me"} | environ), clock=clock)
    await verifier.open()
    try:
        yield verifier
    finally:
        await verifier.close()


def who(claims: Claims | None) -> str | None:
    return claims and claims.user_id


async def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)
