"""JWTs and published keys of a real Better Auth."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt
import pytest

from tests.kit.services import BETTER_AUTH_VERSIONS, BetterAuth, Postgres
from tests.unit.identity.jwks_kit import Clock, opened, who
from watchout.identity.sources.jwt import looks_like_jwt
from watchout.identity.sources.key_cache import REFETCH_S, TTL_S

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
            assert claims.expires_at == pytest.approx(time.time() + 900, abs=120)
            head, body, tail = token.split(".")
            changed = body[:40] + ("A" if body[40] != "A" else "B") + body[41:]
            for other in (f"{head}.{changed}.{tail}", f"{head}.{body}.{tail[:-8]}", one.token):
                assert await verifier.verify(other) is None
    for wrong in ({"JWT_ISSUER": "http://other"}, {"JWT_ISSUER": server.ready["issuer"], "JWT_AUDIENCE": "other"}):
        async with opened(server.ready["jwksUrl"], clock, **wrong) as verifier:
            assert await verifier.verify(token_of(server, alice.token)) is None


@pytest.mark.real
async def test_keys_that_better_auth_rotates(
    start_better_auth: Start, postgres_url: str, postgres: Postgres, clock: Clock
) -> None:
    server = start_better_auth(postgres_url, BA_PLUGIN_OPTIONS=options(rotationInterval=3600, gracePeriod=3600))

    def pass_hours(hours: int) -> None:
        """Make the keys older, so that none is rotated before the test gets there."""
        postgres.run_sql(postgres_url, f"""update jwks set "expiresAt" = "expiresAt" - interval '{hours} hours'""")

    alice = server.sign_up()
    async with opened(server.ready["jwksUrl"], clock, JWT_ISSUER=server.ready["issuer"]) as verifier:
        first = token_of(server, alice.token)
        assert who(await verifier.verify(first)) == alice.user_id
        pass_hours(1)
        second = token_of(server, alice.token)
        assert kid_of(second) != kid_of(first)
        clock.now += REFETCH_S
        assert who(await verifier.verify(second)) == alice.user_id

        def published_kids() -> list[str]:
            return [key["kid"] for key in server.call("GET", "/jwks")[1]["keys"]]

        assert set(published_kids()) == {kid_of(first), kid_of(second)}
        pass_hours(1)
        assert published_kids() == [kid_of(second)]
        clock.now += TTL_S
        third = token_of(server, alice.token)
        assert kid_of(third) not in (kid_of(first), kid_of(second))
        async with asyncio.timeout(30):
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
