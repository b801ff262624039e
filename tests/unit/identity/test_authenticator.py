"""All ways of verifying together: who is asked, in which order, how often, and what is remembered."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web

from tests.unit.identity.test_credentials import sign
from watchout.common.errors import StoreUnavailable
from watchout.common.settings import Settings, load
from watchout.identity import Authenticator, Cookie, Identity, Ticket, Token, embedded_store, make_authenticator
from watchout.identity.authenticator import auth_methods

SECRET = "a secret of more than thirty-two characters"


class Site:
    """A Better Auth database in a file: users by name, their tokens and session ids."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "sessions.db"
        self.url = f"sqlite:{self.path}"

    def sign_in(self, user: str) -> str:
        return embedded_store.mint_token(self.path, user)

    def run(self, sql: str, *values: str) -> list[Any]:
        with sqlite3.connect(self.path) as db:
            rows = db.execute(sql, values).fetchall()
        db.close()
        return rows

    def session_id(self, token: str) -> str:
        return str(self.run('select "id" from "session" where "token" = ?', token)[0][0])

    def user_id(self, token: str) -> str:
        return str(self.run('select "userId" from "session" where "token" = ?', token)[0][0])

    def sign_out(self, token: str) -> None:
        self.run('delete from "session" where "token" = ?', token)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    embedded_store.ensure(site.path)
    return site


@asynccontextmanager
async def opened(site: Site | None = None, **environ: str) -> AsyncIterator[Authenticator]:
    if site is not None:
        environ["DATABASE_URL"] = site.url
    authenticator = make_authenticator(load(environ))
    await authenticator.open()
    try:
        yield authenticator
    finally:
        await authenticator.close()


Endpoint = Callable[[Callable[[str], Any]], Awaitable[tuple[str, list[str]]]]


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """Start an introspection endpoint: its URL, and the tokens that it was asked for."""
    runners: list[web.AppRunner] = []

    async def start(answer: Callable[[str], Any]) -> tuple[str, list[str]]:
        asked: list[str] = []

        async def handle(request: web.Request) -> web.Response:
            asked.append(str((await request.post())["token"]))
            return web.json_response(answer(asked[-1]))

        app = web.Application()
        app.router.add_post("/introspect", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/introspect", asked

    yield start
    for runner in runners:
        await runner.cleanup()


def make_jwt(sub: str, lifetime_s: float = 60, **claims: Any) -> str:
    return jwt.encode({"sub": sub, "exp": time.time() + lifetime_s, **claims}, SECRET, "HS256")


@pytest.mark.parametrize(
    ("environ", "ways"),
    [
        ({}, ("session",)),
        ({"JWT_SECRET": SECRET}, ("session", "jwt")),
        ({"INTROSPECTION_URL": "http://x/"}, ("session", "introspection")),
        ({"JWT_SECRET": SECRET, "INTROSPECTION_URL": "http://x/"}, ("session", "jwt", "introspection")),
        ({"JWT_SECRET": SECRET, "AUTH_METHODS": "jwt"}, ("jwt",)),
        ({"JWT_SECRET": SECRET, "AUTH_METHODS": "jwt,session"}, ("jwt", "session")),
    ],
)
def test_which_ways_are_asked_in_which_order(environ: dict[str, str], ways: tuple[str, ...]) -> None:
    assert auth_methods(load(environ)) == ways


async def test_each_way_accepts_its_own_tokens(site: Site, endpoint: Endpoint) -> None:
    url, asked = await endpoint(lambda token: {"active": token == "opaque-token-of-eve", "sub": "eve"})
    token = site.sign_in("ann")
    async with opened(site, JWT_SECRET=SECRET, INTROSPECTION_URL=url) as authenticator:

        async def who(text: str) -> str | None:
            identity = await authenticator.verify(Token(text), fresh=True)
            return None if identity is None else identity.user_id

        assert await who(token) == site.user_id(token)
        assert await who(make_jwt("bob")) == "bob"
        assert await who("opaque-token-of-eve") == "eve"
        assert await who("opaque-token-of-nobody") is None
        assert asked == ["opaque-token-of-eve", "opaque-token-of-nobody"]


async def test_a_signed_token_and_a_cookie_lead_to_the_same_session(site: Site) -> None:
    token = site.sign_in("ann")
    async with opened(site, BETTER_AUTH_SECRET=SECRET) as authenticator:
        found = await authenticator.verify(Token(token), fresh=True)
        assert found is not None
        assert await authenticator.verify(Token(sign(token, SECRET)), fresh=True) == found
        assert await authenticator.verify(Cookie(sign(token, SECRET)), fresh=True) == found
        assert await authenticator.verify(Cookie(token), fresh=True) is None
        assert await authenticator.verify(Cookie(sign(token, "another secret")), fresh=True) is None


async def test_where_tokens_must_be_signed_a_bare_one_is_nobody(site: Site) -> None:
    token = site.sign_in("ann")
    async with opened(site, BETTER_AUTH_SECRET=SECRET, REQUIRE_SIGNED_TOKENS="true") as authenticator:
        assert await authenticator.verify(Token(token), fresh=True) is None
        assert await authenticator.verify(Token(sign(token, SECRET)), fresh=True) is not None


async def test_a_jwt_with_a_session_lives_and_ends_with_it(site: Site) -> None:
    token = site.sign_in("ann")
    user, session = site.user_id(token), site.session_id(token)
    async with opened(site, JWT_SECRET=SECRET) as authenticator:
        found = await authenticator.verify(Token(make_jwt(user, sid=session)), fresh=True)
        assert found is not None
        assert (found.user_id, found.session_id) == (user, session)
        assert found.expires_at > time.time() + 3600  # the session's, not the token's
        assert await authenticator.verify(Token(make_jwt("somebody else", sid=session)), fresh=True) is None
        assert await authenticator.verify(Token(make_jwt(user, sid="no such session")), fresh=True) is None
        site.sign_out(token)
        assert await authenticator.verify(Token(make_jwt(user, sid=session)), fresh=True) is None


async def test_a_jwt_without_a_session_is_good_until_its_end_unless_that_is_not_wanted(site: Site) -> None:
    async with opened(site, JWT_SECRET=SECRET) as authenticator:
        found = await authenticator.verify(Token(make_jwt("bob")), fresh=True)
        assert found is not None
        assert found.session_id is None
        assert found.expires_at == pytest.approx(time.time() + 60, abs=30)
    async with opened(site, JWT_SECRET=SECRET, JWT_REQUIRE_SESSION="true") as authenticator:
        assert await authenticator.verify(Token(make_jwt("bob")), fresh=True) is None
    async with opened(site, JWT_SECRET=SECRET, JWT_SESSION_CLAIM="none") as authenticator:
        assert await authenticator.verify(Token(make_jwt("bob", sid="whatever")), fresh=True) is not None


async def test_with_the_embedded_store_the_sessions_of_another_issuer_are_not_looked_for(tmp_path: Path) -> None:
    async with opened(WATCHOUT_HOME=str(tmp_path), JWT_SECRET=SECRET) as authenticator:
        assert await authenticator.verify(Token(make_jwt("bob", sid="session of another issuer")), fresh=True)


async def test_a_ticket_is_used_up(site: Site) -> None:
    token, ticket = site.sign_in("ann"), "t" * 32
    site.run(
        'insert into "verification" values (?, ?, ?, ?, ?, ?)',
        "v1", f"one-time-token:{ticket}", token, "2999-01-01T00:00:00.000Z", "", "",
    )  # fmt: skip
    async with opened(site) as authenticator:
        found = await authenticator.verify(Ticket(ticket), fresh=True)
        assert found is not None
        assert found.user_id == site.user_id(token)
        assert await authenticator.verify(Ticket(ticket), fresh=True) is None


@pytest.mark.parametrize(
    "environ",
    [{"AUTH_METHODS": "jwt", "JWT_SECRET": SECRET}, {"AUTH_COMBINE": "all", "JWT_SECRET": SECRET}],
    ids=["no sessions", "sessions alone do not do"],
)
async def test_a_ticket_is_no_way_around_the_settings(site: Site, environ: dict[str, str]) -> None:
    token, ticket = site.sign_in("ann"), "t" * 32
    site.run(
        'insert into "verification" values (?, ?, ?, ?, ?, ?)',
        "v1", f"one-time-token:{ticket}", token, "2999-01-01T00:00:00.000Z", "", "",
    )  # fmt: skip
    async with opened(site, **environ) as authenticator:
        assert await authenticator.verify(Ticket(ticket), fresh=True) is None
    assert site.run('select count(*) from "verification"') == [(1,)]


async def test_who_signed_out_gets_no_new_socket_and_soon_no_answer_over_http(site: Site) -> None:
    token = site.sign_in("ann")
    async with opened(site, AUTH_CACHE_S="60") as authenticator:
        found = await authenticator.verify(Token(token), fresh=False)
        assert found is not None
        site.sign_out(token)
        assert await authenticator.verify(Token(token), fresh=True) is None
        assert await authenticator.verify(Token(token), fresh=False) == found  # for AUTH_CACHE_S at most
        assert found.session_id is not None
        assert await authenticator.live([found.session_id]) == {}
        assert await authenticator.verify(Token(token), fresh=False) is None  # somebody looked: it is known


async def test_a_way_that_cannot_be_asked_does_not_speak_for_the_others(site: Site, endpoint: Endpoint) -> None:
    url, _ = await endpoint(lambda _: {"active": True, "sub": "eve"})
    token = site.sign_in("ann")
    site.path.rename(site.path.with_suffix(".away"))
    async with opened(site, JWT_SECRET=SECRET) as authenticator:
        assert await authenticator.verify(Token(make_jwt("bob")), fresh=True) is not None
        with pytest.raises(StoreUnavailable):
            await authenticator.verify(Token(token), fresh=True)
        with pytest.raises(StoreUnavailable):
            await authenticator.verify(Token(make_jwt("bob", sid="s1")), fresh=True)
        with pytest.raises(StoreUnavailable):
            await authenticator.check()
    async with opened(site, INTROSPECTION_URL=url) as authenticator:
        assert await authenticator.verify(Token(token), fresh=True) == Identity("eve")


@pytest.mark.parametrize(("sub", "accepted"), [("bob", True), ("eve", False)], ids=["the same user", "another user"])
async def test_where_all_ways_must_agree_they_must_mean_the_same_user(
    endpoint: Endpoint, sub: str, accepted: bool
) -> None:
    url, asked = await endpoint(lambda _: {"active": True, "sub": sub, "exp": int(time.time()) + 20})
    environ = {"JWT_SECRET": SECRET, "INTROSPECTION_URL": url, "AUTH_METHODS": "jwt,introspection"}
    async with opened(AUTH_COMBINE="all", **environ) as authenticator:
        token = make_jwt("bob")
        found = await authenticator.verify(Token(token), fresh=True)
        assert (found is not None) is accepted
        if found is not None:
            assert found.introspected == token
            assert found.expires_at < time.time() + 30
            assert time.time() + 30 < found.ends_at < time.time() + 90  # the JWT's, which no endpoint prolongs
        assert await authenticator.verify(Token("no jwt at all"), fresh=True) is None
        assert asked == [token]


async def test_where_all_ways_must_agree_a_jwt_needs_its_session_too(site: Site) -> None:
    token = site.sign_in("ann")
    async with opened(site, JWT_SECRET=SECRET, AUTH_COMBINE="all") as authenticator:
        user, session = site.user_id(token), site.session_id(token)
        assert await authenticator.verify(Token(make_jwt(user, sid=session)), fresh=True) is not None
        assert await authenticator.verify(Token(make_jwt(user)), fresh=True) is None
        assert await authenticator.verify(Token(token), fresh=True) is None


async def test_without_a_session_store_the_cookies_token_is_introspected(endpoint: Endpoint) -> None:
    token = "t" * 32
    url, asked = await endpoint(lambda _: {"session": {"id": "s", "userId": "ann"}, "user": {"id": "ann"}})
    environ = {"INTROSPECTION_URL": url, "AUTH_METHODS": "introspection", "BETTER_AUTH_SECRET": SECRET}
    async with opened(**environ) as authenticator:
        found = await authenticator.verify(Cookie(sign(token, SECRET)), fresh=True)
        assert found is not None
        assert found.user_id == "ann"
        assert asked == [sign(token, SECRET)]
        assert await authenticator.verify(Cookie(sign(token, "another secret")), fresh=True) is None
        assert len(asked) == 1


async def test_an_introspected_token_is_asked_for_once_in_a_while(endpoint: Endpoint) -> None:
    url, asked = await endpoint(lambda _: {"active": True, "sub": "eve"})
    async with opened(INTROSPECTION_URL=url, AUTH_METHODS="introspection", AUTH_CACHE_S="60") as authenticator:
        for _ in range(5):
            assert await authenticator.verify(Token("opaque"), fresh=False) is not None
        assert asked == ["opaque"]
        assert await authenticator.verify(Token("opaque"), fresh=True) is not None
        assert (await authenticator.introspect("opaque", recheck=True)) is not None
        assert len(asked) == 3


async def test_what_is_remembered_does_not_outlive_its_own_end(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = time.time() + 600
    url, asked = await endpoint(lambda _: {"active": len(asked_so_far) < 2, "sub": "eve", "exp": ends})
    asked_so_far = asked
    async with opened(INTROSPECTION_URL=url, AUTH_METHODS="introspection", AUTH_CACHE_S="60") as authenticator:
        assert await authenticator.verify(Token("opaque"), fresh=False) is not None
        assert await authenticator.verify(Token("opaque"), fresh=False) is not None
        assert asked == ["opaque"]
        monkeypatch.setattr(time, "time", lambda: ends)
        assert await authenticator.verify(Token("opaque"), fresh=False) is None


class Counting:
    """A session store whose queries take as long as they are told."""

    def __init__(self) -> None:
        self.queries: list[set[str]] = []
        self.may_answer = asyncio.Event()

    async def find(self, tokens: Any) -> dict[str, Identity]:
        asked = set(tokens)
        self.queries.append(asked)
        await self.may_answer.wait()
        return {token: Identity(f"user of {token}", f"session of {token}") for token in asked}

    async def live(self, session_ids: Any) -> dict[str, Identity]:
        return {session: Identity(session.replace("session", "user"), session) for session in session_ids}


async def test_a_storm_of_callers_is_a_handful_of_queries_and_then_memory() -> None:
    store = Counting()
    authenticator = Authenticator(Settings(store_timeout_s=60, auth_cache_s=60), store, None, None)  # type: ignore[arg-type]
    tokens = [f"{number:032}" for number in range(2000)]
    asking = [asyncio.create_task(authenticator.verify(Token(t), fresh=True)) for t in tokens for _ in range(2)]
    await asyncio.sleep(0.05)
    assert len(store.queries) <= 2
    store.may_answer.set()
    found = await asyncio.gather(*asking)
    assert all(found)
    assert len(store.queries) <= 2 + 2000 // 500 + 1
    assert sum(len(query) for query in store.queries) == 2000
    # While the store is busy with others, whom it knew a moment ago it need not be asked again.
    store.may_answer.clear()
    others = [asyncio.create_task(authenticator.verify(Token(f"{n:040}"), fresh=True)) for n in range(2000)]
    await asyncio.sleep(0.05)
    assert await authenticator.verify(Token(tokens[-1]), fresh=True) is not None
    store.may_answer.set()
    await asyncio.gather(*others)
    assert await authenticator.verify(Token(tokens[-1]), fresh=True) is not None
