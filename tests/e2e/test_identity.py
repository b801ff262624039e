"""Who is let in, how long, and to what: real Better Auth servers, old and new, on PostgreSQL, and real processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.kit.clients import JPEG, Camera, Client, Clients, Viewer, eventually, http, new_name
from tests.kit.processes import Watchout, running
from tests.kit.services import (
    BETTER_AUTH,
    BetterAuth,
    Postgres,
    SignedIn,
    running_better_auth,
)

pytestmark = [pytest.mark.e2e, pytest.mark.real]

APP: Final = "https://app.example.com"
PLUGINS: Final = "bearer,jwt,admin,organization,oneTimeToken"
SUBSCRIBE: Final = "/streams/subscribe"
#: Of the customer's own tokens, beside those of Better Auth.
JWT_SECRET: Final = "a secret of forty characters, not shorter"
#: The promise is 2 s; a busy machine gets more.
ENDED_WITHIN_S: Final = 5.0

Start = Callable[..., BetterAuth]


@dataclass(frozen=True, slots=True)
class House:
    """A web app with its users, and a watchout that knows them."""

    app: BetterAuth
    watchout: Watchout
    postgres: Postgres
    database_url: str

    @property
    def url(self) -> str:
        return self.watchout.url

    def sql(self, statement: str) -> None:
        self.postgres.run_sql(self.database_url, statement)

    def admin(self) -> SignedIn:
        """A user who may ban others."""
        admin = self.app.sign_up("admin")
        self.set_role(admin, "admin")
        return admin

    def set_role(self, user: SignedIn, role: str) -> None:
        self.sql(f"""update "user" set role = '{role}' where id = '{user.user_id}'""")

    async def viewer_by_cookie(self, clients: Clients, user: SignedIn) -> Viewer:
        return await clients.viewer(self.url, None, origin=APP, additional_headers={"Cookie": user.cookie})

    async def viewer_by_ticket(self, clients: Clients, ticket: str) -> Viewer:
        return Viewer(await clients.connect(self.url, f"{SUBSCRIBE}?ticket={quote(ticket)}"))


def environ(app: BetterAuth, database_url: str, **more: str) -> dict[str, str]:
    """What an operator sets for this web app."""
    return {
        "DATABASE_URL": database_url,
        "BETTER_AUTH_SECRET": app.ready["secret"],
        "ALLOWED_ORIGINS": APP,
        "JWT_JWKS_URL": app.ready["jwksUrl"],
        "JWT_ISSUER": app.ready["issuer"],
        "JWT_SECRET": JWT_SECRET,
        "DRAIN_S": "0.1",
        **more,
    }


@contextlib.contextmanager
def furnished(postgres: Postgres, version: str, settings: dict[str, str], **more: str) -> Iterator[House]:
    url = postgres.create_database()
    with (
        running_better_auth(url, version=version, BA_PLUGINS=PLUGINS, **settings) as app,
        running(environ=environ(app, url, **more), start=False) as watchout,
    ):
        start(watchout)
        yield House(app, watchout, postgres, url)


def start(watchout: Watchout) -> Watchout:
    """What is needed here; there is nothing to be seen for an mlbridge."""
    watchout.start("router")
    watchout.start("gateway")
    watchout.wait_ready()
    return watchout


@pytest.fixture(scope="module")
def house(postgres: Postgres, each_better_auth: str) -> Iterator[House]:
    """For whatever changes nothing but its own users; JWTs name their session."""
    with furnished(postgres, each_better_auth, {"BA_CONFIG_MODULE": str(BETTER_AUTH / "session_in_jwt.mjs")}) as made:
        yield made


@pytest.fixture(scope="module")
def club(postgres: Postgres, each_better_auth: str) -> Iterator[House]:
    """The same where members of an organization share their streams, and what they may depends on their roles."""
    rights = "member:view,watchman:alerts,admin:view,guest:none,*:publish+view"
    with furnished(postgres, each_better_auth, {}, STREAM_ACCESS="organization", ROLE_RIGHTS=rights) as made:
        yield made


async def is_in(client: Client) -> None:
    """Sees by the answer to one more `auth` that this client is authenticated."""
    assert await client.rest() == []


async def is_out(client: Client) -> None:
    """Sees by the answer to a message that this client is not authenticated."""
    await client.send("subscribe", streamId="x")
    await client.expect("error", code="AUTH_REQUIRED")


async def refused(clients: Clients, url: str, path: str = SUBSCRIBE, **options: Any) -> int:
    """The status with which an upgrade is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await clients.connect(url, path, **options)
    return int(caught.value.response.status_code)


async def has_ended(client: Client, within_s: float = ENDED_WITHIN_S) -> None:
    """The server says that the session has ended, and closes."""
    assert (await client.find("error", within_s))["code"] == "SESSION_ENDED"
    assert await client.closed() == 4500


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_cookie_as_set_cookie_gave_it_opens_a_socket_and_reads_the_streams(
    house: House, clients: Clients
) -> None:
    alice = house.app.sign_up("alice")
    again = house.app.sign_in(alice.email)
    for user in (alice, again):
        await is_in(await house.viewer_by_cookie(clients, user))
    camera = await clients.camera(house.url, None, origin=APP, additional_headers={"Cookie": alice.cookie})
    stream = await camera.register(new_name())
    answer = await http(f"{house.url}/streams", headers={"Cookie": again.cookie, "Origin": APP})
    assert [(row["id"], row["userId"]) for row in answer.json["streams"]] == [(stream, alice.user_id)]
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://app.example.com", APP + ":444", "null"])
async def test_the_cookie_in_a_page_of_another_origin_is_ignored(house: House, clients: Clients, origin: str) -> None:
    alice = house.app.sign_up()
    cookie = {"Cookie": alice.cookie}
    viewer = await clients.viewer(house.url, None, origin=origin, additional_headers=cookie)
    await is_out(viewer)
    await viewer.send("auth", token=alice.token)
    await viewer.expect("success", event="authenticated")
    answer = await http(f"{house.url}/streams", headers={**cookie, "Origin": origin})
    assert answer.status == 401
    assert "access-control-allow-origin" not in answer.headers


async def test_the_cookie_without_an_origin_is_ignored(house: House, clients: Clients) -> None:
    cookie = {"Cookie": house.app.sign_up().cookie}
    await is_out(await clients.viewer(house.url, None, additional_headers=cookie))
    both = {**cookie, "Authorization": f"Bearer {house.app.sign_up().token}"}
    await is_in(await clients.viewer(house.url, None, additional_headers=both))


async def test_a_stale_cookie_leaves_the_socket_to_its_first_message(house: House, clients: Clients) -> None:
    alice = house.app.sign_up()
    house.app.sign_out(alice.token)
    viewer = await house.viewer_by_cookie(clients, alice)
    await viewer.send("subscribe", streamId="x")
    assert (await viewer.expect("error"))["code"] == "AUTH_REQUIRED"
    await viewer.send("auth", token=house.app.sign_in(alice.email).token)
    await viewer.expect("success", message="Authentication successful")


@pytest.mark.parametrize("by", ["header", "message", "query"])
async def test_each_kind_of_token_is_taken_in_each_place(house: House, clients: Clients, by: str) -> None:
    alice = house.app.sign_up()
    for token in (alice.token, alice.set_auth_token, house.app.jwt(alice.token)):
        sent = quote(token, safe="") if by == "query" else token
        await is_in(await clients.viewer(house.url, sent, by=by))
    assert (await http(f"{house.url}/streams", token=house.app.jwt(alice.token))).status == 200


async def test_a_jwt_of_another_issuer_or_with_another_signature_is_refused(
    house: House, clients: Clients, start_better_auth: Start, postgres_url: str
) -> None:
    alice = house.app.sign_up()
    jwt = house.app.jwt(alice.token)
    stranger = start_better_auth(postgres_url, BETTER_AUTH_URL=house.app.ready["issuer"])
    forged = stranger.jwt(stranger.sign_up().token)
    head, claims, signature = jwt.split(".")
    swapped = "B" if signature[0] == "A" else "A"
    for wrong in (forged, f"{head}.{claims}.{swapped}{signature[1:]}", f"{head}.{claims}.", f"{head}.{claims}"):
        assert await refused(clients, house.url, additional_headers={"Authorization": f"Bearer {wrong}"}) == 401
        assert (await http(f"{house.url}/streams", token=wrong)).error == "AUTH_FAILED"


async def test_a_secret_signs_its_own_tokens_and_no_published_key_does_so_in_its_name(
    house: House, clients: Clients
) -> None:
    claims = {"sub": new_name("user"), "iss": house.app.ready["issuer"], "exp": int(time.time()) + 60}
    good = jwt.encode(claims, JWT_SECRET, "HS256")
    await is_in(await clients.viewer(house.url, good))
    _, published, _ = house.app.call("GET", "/jwks")
    (key,) = published["keys"][:1]
    claims["aud"] = claims["iss"]
    for secret in (key["x"], base64.urlsafe_b64decode(key["x"] + "=")):
        forged = jwt.encode(claims, secret, "HS256", headers={"kid": key["kid"]})
        assert await refused(clients, house.url, additional_headers={"Authorization": f"Bearer {forged}"}) == 401


async def test_a_ticket_is_good_for_one_socket(house: House, clients: Clients) -> None:
    alice = house.app.sign_up()
    ticket = house.app.one_time_token(alice.token)
    viewer = await house.viewer_by_ticket(clients, ticket)
    await is_in(viewer)
    await viewer.leave()
    assert await refused(clients, house.url, f"{SUBSCRIBE}?ticket={ticket}") == 401
    assert not house.app.redeem(ticket)
    used = house.app.one_time_token(alice.token)
    assert house.app.redeem(used)
    assert await refused(clients, house.url, f"{SUBSCRIBE}?ticket={used}") == 401
    for made_up in ("x", "x" * 32, "%00", "%ff", "'or'1'='1", "x" * 4000):
        assert await refused(clients, house.url, f"{SUBSCRIBE}?ticket={made_up}") == 401


async def test_of_twelve_that_come_with_one_ticket_one_wins(house: House, clients: Clients) -> None:
    ticket = house.app.one_time_token(house.app.sign_up().token)
    tries = [clients.connect(house.url, f"{SUBSCRIBE}?ticket={ticket}") for _ in range(12)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    lost = [outcome for outcome in outcomes if isinstance(outcome, InvalidStatus)]
    assert [one.response.status_code for one in lost] == [401] * 11
    for won in outcomes:
        if not isinstance(won, BaseException):
            await won.close()


async def test_a_ticket_of_a_session_that_ended_is_refused(house: House, clients: Clients) -> None:
    alice = house.app.sign_up()
    ticket = house.app.one_time_token(alice.token)
    house.app.sign_out(alice.token)
    assert await refused(clients, house.url, f"{SUBSCRIBE}?ticket={ticket}") == 401


@pytest.mark.parametrize(
    ("version", "settings", "name", "more"),
    [
        ("1.7", {"BETTER_AUTH_URL": APP}, "__Secure-better-auth.session_token", {"SECURE_COOKIE_ONLY": "true"}),
        (
            "1.7",
            {"BA_OPTIONS": '{"advanced":{"cookiePrefix":"acme"}}'},
            "acme.session_token",
            {"SESSION_COOKIE": "acme.session_token"},
        ),
        (
            "1.3",
            {"BETTER_AUTH_URL": APP, "BA_OPTIONS": '{"advanced":{"cookies":{"session_token":{"name":"sid"}}}}'},
            "__Secure-sid",
            {"SESSION_COOKIE": "sid"},
        ),
    ],
    ids=["https", "prefix", "https and name"],
)
async def test_the_cookie_may_have_each_name_that_better_auth_gives_it(
    postgres: Postgres, clients: Clients, version: str, settings: dict[str, str], name: str, more: dict[str, str]
) -> None:
    with furnished(postgres, version, settings, **more) as house:
        alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
        assert alice.cookie.startswith(f"{name}=")
        await is_in(await house.viewer_by_cookie(clients, alice))
        streams = f"{house.url}/streams"
        value = alice.cookie.partition("=")[2]
        plain = name.removeprefix("__Secure-")
        cookies = {
            f"{name}={value}; {name}=x": 200,
            f"{name}=x; {name}={value}": 401,
            f"{name}x={value}": 401,
            f"x{name}={value}": 401,
            f"{plain}={value}": 401 if "SECURE_COOKIE_ONLY" in more else 200,
            f"{plain}=x; __Secure-{plain}={bob.cookie.partition('=')[2]}": 200,
        }
        for cookie, status in cookies.items():
            assert (await http(streams, headers={"Cookie": cookie, "Origin": APP})).status == status, cookie


# ── and out again ────────────────────────────────────────────────────────────────────────────────────────────────


def _revoked_by_another_session(house: House, user: SignedIn) -> None:
    house.app.revoke_session(house.app.sign_in(user.email).token, user.token)


def _revoked_with_all_others(house: House, user: SignedIn) -> None:
    house.app.revoke_other_sessions(house.app.sign_in(user.email).token)


def _banned_in_the_database(house: House, user: SignedIn) -> None:
    house.sql(f"""update "user" set banned = true where id = '{user.user_id}'""")


ENDINGS: Final[dict[str, Callable[[House, SignedIn], None]]] = {
    "sign-out": lambda house, user: house.app.sign_out(user.token),
    "revoke-session": _revoked_by_another_session,
    "revoke-other-sessions": _revoked_with_all_others,
    "change-password": lambda house, user: house.app.change_password(house.app.sign_in(user.email).token),
    "ban-user": lambda house, user: house.app.ban_user(house.admin().token, user.user_id),
    "remove-user": lambda house, user: house.app.remove_user(house.admin().token, user.user_id),
    "banned by SQL": _banned_in_the_database,
    "user deleted by SQL": lambda house, user: house.sql(f"""delete from "user" where id = '{user.user_id}'"""),
    "session deleted by SQL": lambda house, user: house.sql(f"delete from session where token = '{user.token}'"),
    "expired by SQL": lambda house, user: house.sql(
        f"""update session set "expiresAt" = now() - interval '1 s' where token = '{user.token}'"""
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_session_that_ends_closes_its_sockets_and_nobody_elses(
    house: House, clients: Clients, ending: str
) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, alice.token)
    await camera.register(new_name())
    jwt = house.app.jwt(alice.token)
    sockets = [
        camera,
        await clients.viewer(house.url, alice.set_auth_token, by="header"),
        await clients.viewer(house.url, jwt, by="header"),
        await house.viewer_by_cookie(clients, alice),
        await house.viewer_by_ticket(clients, house.app.one_time_token(alice.token)),
    ]
    others = [await clients.viewer(house.url, bob.token), await house.viewer_by_cookie(clients, bob)]
    ENDINGS[ending](house, alice)
    await asyncio.gather(*map(has_ended, sockets))
    for token in (alice.token, alice.set_auth_token, jwt):
        assert (await http(f"{house.url}/streams", token=token)).status == 401
    for other in others:
        await is_in(other)


async def test_of_one_user_only_the_session_that_ended_is_closed(house: House, clients: Clients) -> None:
    alice = house.app.sign_up("alice")
    tablet = house.app.sign_in(alice.email)
    ends, stays = await clients.viewer(house.url, alice.token), await clients.viewer(house.url, tablet.token)
    house.app.revoke_other_sessions(tablet.token)
    await has_ended(ends)
    await is_in(stays)


async def test_a_session_ends_when_its_time_is_over_unless_it_is_prolonged(
    postgres: Postgres, each_better_auth: str, clients: Clients
) -> None:
    options = {"BA_OPTIONS": '{"session":{"expiresIn":3,"updateAge":1}}'}
    with furnished(postgres, each_better_auth, options) as house:
        alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
        since = time.monotonic()
        prolonged, left = await clients.viewer(house.url, alice.token), await clients.viewer(house.url, bob.token)
        while time.monotonic() - since < 6.5:
            assert (await asyncio.to_thread(house.app.session, ("Authorization", f"Bearer {alice.token}"))) is not None
            await asyncio.sleep(0.3)
        await has_ended(left, 0.1)
        assert 2.5 < left.heard_at[-1] - since < 3 + ENDED_WITHIN_S
        await is_in(prolonged)
        await has_ended(prolonged, 3 + ENDED_WITHIN_S)


async def test_a_jwt_without_a_session_closes_its_socket_when_it_expires_and_not_before(
    house: House, clients: Clients
) -> None:
    issuer = house.app.ready["issuer"]
    options = f'{{"jwt":{{"jwt":{{"issuer":"{issuer}","audience":"{issuer}","expirationTime":"4s"}}}}}}'
    with running_better_auth(
        house.database_url, version=house.app.ready["version"][:3], BA_PLUGINS="bearer,jwt", BA_PLUGIN_OPTIONS=options
    ) as other:
        alice = other.sign_up()
        jwt, since = other.jwt(alice.token), time.monotonic()
        viewer = await clients.viewer(house.url, jwt, by="header")
        other.sign_out(alice.token)
        await has_ended(viewer, 4 + ENDED_WITHIN_S)
        assert viewer.heard_at[-1] - since > 2.5
        assert await refused(clients, house.url, additional_headers={"Authorization": f"Bearer {jwt}"}) == 401


# ── while the store is away ──────────────────────────────────────────────────────────────────────────────────────


class Door:
    """A way to PostgreSQL that can be shut."""

    def __init__(self, port: int) -> None:
        self._beyond = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Nobody comes in any more, and who is in is put out."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to = await asyncio.open_connection("127.0.0.1", self._beyond)
        await asyncio.gather(self._copy(reader, to), self._copy(beyond, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


@pytest.fixture
async def door(postgres: Postgres) -> AsyncIterator[Door]:
    door = Door(postgres.port)
    await door.open()
    yield door
    await door.shut()


async def _is_put_off(client: Client) -> None:
    assert (await client.expect("error"))["code"] == "AUTH_UNAVAILABLE"
    assert await client.closed() == 1013


async def test_a_store_that_is_away_closes_nobody_and_lets_nobody_in(
    watchout: Callable[..., Watchout], clients: Clients, own_postgres: Postgres
) -> None:
    database_url = own_postgres.create_database()
    with running_better_auth(database_url, BA_PLUGINS=PLUGINS) as app:
        alice, bob = app.sign_up("alice"), app.sign_up("bob")
        started = start(watchout(environ=environ(app, database_url), start=False))
    camera, viewer = await clients.camera(started.url, alice.token), await clients.viewer(started.url, alice.token)
    await viewer.subscribe(await camera.register(new_name()))
    leaves = await clients.viewer(started.url, bob.token)
    await asyncio.to_thread(own_postgres.stop)
    async with camera.streaming():
        await asyncio.sleep(1.5)  # longer than what was verified is remembered, and than the interval of the re-check
        newcomer = await clients.viewer(started.url, None)
        await newcomer.send("auth", token=bob.token)
        await _is_put_off(newcomer)
        for token in (alice.token, "x" * 32):
            answer = await http(f"{started.url}/streams", token=token)
            assert (answer.status, answer.error) == (503, "AUTH_UNAVAILABLE")
            await _is_put_off(await clients.viewer(started.url, token, by="header"))
        ticket = f"{SUBSCRIBE}?ticket={'x' * 32}"
        await _is_put_off(Viewer(await clients.connect(started.url, ticket)))
        assert (await http(f"{started.url}/health")).status == 503
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 5)
        await asyncio.to_thread(own_postgres.start)
        own_postgres.run_sql(database_url, f"delete from session where token = '{bob.token}'")
        await has_ended(leaves, 2 * ENDED_WITHIN_S)
        await is_in(await clients.viewer(started.url, alice.token))
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 5)


async def test_what_was_signed_out_while_the_store_could_not_be_asked_ends_when_it_can_be_again(
    watchout: Callable[..., Watchout], clients: Clients, postgres: Postgres, door: Door, start_better_auth: Start
) -> None:
    database_url = postgres.create_database()
    app = start_better_auth(database_url, BA_PLUGINS=PLUGINS)
    by_door = database_url.replace(f":{urlsplit(database_url).port}/", f":{door.port}/")
    started = watchout(environ=environ(app, by_door), start=False)
    await asyncio.to_thread(start, started)  # the door needs the loop meanwhile
    alice, bob = app.sign_up("alice"), app.sign_up("bob")
    ends, stays = await clients.viewer(started.url, alice.token), await clients.viewer(started.url, bob.token)
    await door.shut()
    await asyncio.to_thread(app.sign_out, alice.token)
    await asyncio.sleep(2.5)  # some re-checks
    await is_in(ends)
    await door.open()
    await has_ended(ends, 2 * ENDED_WITHIN_S)
    await is_in(stays)


# ── to what ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def watches(viewer: Viewer, stream: str) -> None:
    await viewer.subscribe(stream)
    await viewer.frame(streamId=stream)


async def may_not_subscribe(client: Viewer, stream: str, *consumes: str) -> None:
    await client.send("subscribe", streamId=stream, consumes=list(consumes or ["video-frame", "alert"]))
    assert (await client.find("error"))["code"] == "UNAUTHORIZED"


async def streams_of(url: str, user: SignedIn) -> list[str]:
    return [row["id"] for row in (await http(f"{url}/streams", token=user.token)).json["streams"]]


async def picture(url: str, stream: str, user: SignedIn) -> tuple[int, bytes]:
    answer = await http(f"{url}/streams/{stream}/frame.jpg", token=user.token)
    return answer.status, answer.body


async def may_see(house: House, stream: str, user: SignedIn) -> bool:
    return stream in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 200


async def may_not_see(house: House, stream: str, user: SignedIn) -> bool:
    return stream not in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 404


async def without_picture(house: House, stream: str, user: SignedIn) -> bool:
    return stream in await streams_of(house.url, user) and (await picture(house.url, stream, user))[0] == 404


async def no_frame_comes(viewer: Viewer, camera: Camera) -> None:
    """The camera still sends, and this viewer gets nothing of it."""
    await viewer.rest()
    seen = len(viewer.frames)
    for _ in range(5):
        await camera.show()
        await asyncio.sleep(0.1)
    await viewer.rest()
    assert len(viewer.frames) == seen


async def test_a_member_of_the_owners_organization_may_watch_until_put_out_of_it(club: House, clients: Clients) -> None:
    alice, bob, carol = (club.app.sign_up(name) for name in ("alice", "bob", "carol"))
    organization = club.app.create_organization(alice.token, "acme")
    membership = club.app.add_member(alice.token, organization, bob)
    club.app.create_organization(carol.token, "others")
    camera = await clients.camera(club.url, alice.token)
    stream = await camera.register(new_name())
    member, stranger = await clients.viewer(club.url, bob.token), await clients.viewer(club.url, carol.token)
    async with camera.streaming():
        await watches(member, stream)
        await may_not_subscribe(stranger, stream)
        await may_not_subscribe(stranger, stream, "alert")
        assert await streams_of(club.url, bob) == [stream]
        assert await streams_of(club.url, carol) == []
        assert await picture(club.url, stream, bob) == (200, JPEG)
        assert (await picture(club.url, stream, carol))[0] == 404
        club.app.remove_member(alice.token, organization, membership)
        assert (await member.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(member, camera)
    await eventually(lambda: may_not_see(club, stream, bob))
    await may_not_subscribe(member, stream)
    club.app.add_member(alice.token, organization, bob)
    await eventually(lambda: may_see(club, stream, bob))
    await member.subscribe(stream)


async def test_streams_leave_the_organization_with_their_owner(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    organization = club.app.create_organization(bob.token, "acme")
    membership = club.app.add_member(bob.token, organization, alice)
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name())
    async with camera.streaming():
        await watches(viewer, stream)
        club.app.remove_member(bob.token, organization, membership)
        assert (await viewer.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await eventually(lambda: may_not_see(club, stream, bob))


async def test_a_stream_comes_into_the_organization_that_its_owner_joins_later(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name())
    await camera.show()
    await may_not_subscribe(viewer, stream)
    club.app.add_member(bob.token, club.app.create_organization(bob.token, "acme"), alice)
    await eventually(lambda: may_see(club, stream, bob))
    await watches(viewer, stream)


async def test_what_a_member_may_follows_his_role_in_the_organization(club: House, clients: Clients) -> None:
    alice, bob = club.app.sign_up("alice"), club.app.sign_up("bob")
    organization = club.app.create_organization(alice.token, "acme")
    club.app.add_member(alice.token, organization, bob)
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, bob.token)
    stream = await camera.register(new_name(), produces=["video-frame", "alert"])

    def give(role: str) -> None:
        club.sql(f"""update member set role = '{role}' where "userId" = '{bob.user_id}'""")

    async with camera.streaming():
        await watches(viewer, stream)
        give("watchman")
        assert (await viewer.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await may_not_subscribe(viewer, stream, "video-frame")
    await viewer.subscribe(stream, consumes=["alert"])
    await camera.send("alert", severity="high", message="fire")
    await viewer.find("alert", message="fire")
    await eventually(lambda: without_picture(club, stream, bob))
    give("admin,watchman")
    await eventually(lambda: may_see(club, stream, bob))
    await watches(viewer, stream)


async def test_what_a_user_may_follows_his_own_role(
    postgres: Postgres, clients: Clients, each_better_auth: str
) -> None:
    rights = "camera:publish,viewer:view,guard:alerts,nobody:none,*:publish+view"
    with furnished(postgres, each_better_auth, {}, STREAM_ACCESS="authenticated", ROLE_RIGHTS=rights) as house:
        users: dict[str, SignedIn] = {}
        for role in ("camera", "viewer", "guard", "nobody", "other"):
            users[role] = house.app.sign_up(role)
            house.set_role(users[role], role)
        stream = await _try_all_paths(house, clients, users)
        house.set_role(users["viewer"], "nobody")
        house.set_role(users["nobody"], "viewer")
        await eventually(lambda: may_see(house, stream, users["nobody"]))
        await eventually(lambda: may_not_see(house, stream, users["viewer"]))


async def _try_all_paths(house: House, clients: Clients, users: dict[str, SignedIn]) -> str:
    url, stream = house.url, new_name()
    for role, user in users.items():
        camera = await clients.camera(url, user.token)
        if role in ("camera", "other"):
            await camera.register(stream if role == "camera" else None, produces=["video-frame", "alert"])
            await camera.show()
            continue
        await camera.send("register", produces=["video-frame"])
        assert (await camera.expect("error"))["code"] == "UNAUTHORIZED"
    for role, user in users.items():
        viewer = await clients.viewer(url, user.token)
        sees, hears = role in ("viewer", "other"), role in ("viewer", "other", "guard")
        if sees:
            await watches(viewer, stream)
        else:
            await may_not_subscribe(viewer, stream)
        if hears:
            await viewer.subscribe(stream, consumes=["alert"])
        else:
            await may_not_subscribe(viewer, stream, "alert")
        assert (await picture(url, stream, user))[0] == (200 if sees else 404)
        assert (stream in await streams_of(url, user)) is hears
    return stream


async def test_a_user_whose_role_is_taken_away_neither_watches_nor_publishes_any_more(
    club: House, clients: Clients
) -> None:
    alice = club.app.sign_up("alice")
    camera, viewer = await clients.camera(club.url, alice.token), await clients.viewer(club.url, alice.token)
    stream = await camera.register(new_name())
    await camera.show()
    await watches(viewer, stream)
    club.set_role(alice, "guest")
    for client in (camera, viewer):
        assert (await client.find("error", ENDED_WITHIN_S))["code"] == "UNAUTHORIZED"
    await no_frame_comes(viewer, camera)
    await eventually(lambda: may_not_see(club, stream, alice))
    club.set_role(alice, "user")
    await eventually(lambda: _may_register(camera))


async def _may_register(camera: Camera) -> bool:
    await camera.send("register", produces=["video-frame"])
    return bool((await camera.next())["type"] == "success")


@pytest.mark.parametrize("path", ["/streams/{}/frame.jpg", "/alerts?streamId={}"])
async def test_a_stream_that_is_not_yours_looks_like_one_that_is_not_there(
    house: House, clients: Clients, path: str
) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, alice.token)
    stream = await camera.register(new_name(), produces=["video-frame", "alert"])
    await camera.show()
    await camera.send("alert", severity="low", message="x")
    unknown = "".join(reversed(stream))
    first = await http(house.url + path.format(stream), token=bob.token)
    second = await http(house.url + path.format(unknown), token=bob.token)
    assert (first.status, first.body) == (second.status, second.body)
    assert (await http(house.url + path.format(stream), token=alice.token)).status == 200


# ── the first `auth` of who signed in at the upgrade ─────────────────────────────────────────────────────────────


async def signed_in(house: House, clients: Clients, user: SignedIn, by: str) -> Viewer:
    """A viewer whom the upgrade has authenticated."""
    match by:
        case "cookie":
            return await house.viewer_by_cookie(clients, user)
        case "ticket":
            return await house.viewer_by_ticket(clients, house.app.one_time_token(user.token))
        case _:
            return await clients.viewer(house.url, user.token, by)


@pytest.mark.parametrize("by", ["cookie", "ticket", "header", "query"])
async def test_the_end_of_the_former_session_does_not_end_the_socket(house: House, clients: Clients, by: str) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    stays = await signed_in(house, clients, alice, by)
    viewer = await signed_in(house, clients, alice, by)
    await viewer.send("auth", token=bob.token)
    await viewer.expect("success", event="authenticated")
    camera = await clients.camera(house.url, bob.token)
    await camera.register(new_name())
    assert await viewer.subscribe(camera.stream) == "streaming"  # it is Bob, with his rights
    house.app.sign_out(alice.token)
    await has_ended(stays)
    await is_in(viewer)
    house.app.sign_out(bob.token)
    await has_ended(viewer)


@pytest.mark.parametrize("by", ["cookie", "ticket", "header", "query"])
async def test_a_wrong_first_auth_is_refused_whatever_the_upgrade_said(house: House, clients: Clients, by: str) -> None:
    alice = house.app.sign_up("alice")
    viewer = await signed_in(house, clients, alice, by)
    await viewer.send("auth", token="x" * 32)
    await viewer.expect("error", code="AUTH_FAILED")
    assert await viewer.closed() == 1008


async def test_auth_and_all_that_follows_may_come_at_once(house: House, clients: Clients) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    camera = await clients.camera(house.url, bob.token)
    await camera.register(new_name())
    viewer = await house.viewer_by_cookie(clients, alice)
    await viewer.send("auth", token=bob.token)
    await viewer.send("auth", token=alice.token)
    await viewer.send("subscribe", streamId=camera.stream, consumes=["video-frame"])
    await viewer.expect("success", event="authenticated")
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    await viewer.expect("success", event="subscribed")


async def test_after_a_subscription_the_first_auth_comes_too_late(house: House, clients: Clients) -> None:
    alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")
    viewer = await house.viewer_by_cookie(clients, alice)
    await viewer.subscribe(new_name())
    await viewer.send("auth", token=bob.token)
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    house.app.sign_out(alice.token)
    await has_ended(viewer)


async def test_a_user_at_his_limit_is_counted_by_the_first_auth_and_not_by_a_cookie(
    postgres: Postgres, clients: Clients
) -> None:
    with furnished(postgres, "1.7", {}, MAX_CONNECTIONS_PER_USER="2") as house:
        alice, bob = house.app.sign_up("alice"), house.app.sign_up("bob")

        async def moved_to_bob() -> Viewer:
            viewer = await house.viewer_by_cookie(clients, alice)
            await viewer.send("auth", token=bob.token)
            await viewer.expect("success", event="authenticated")
            return viewer

        moved = [await moved_to_bob()]
        for _ in range(2):  # that one is not hers any more
            await is_in(await house.viewer_by_cookie(clients, alice))
        moved.append(await moved_to_bob())  # one too many of her, but it may be somebody else's
        refused = await house.viewer_by_cookie(clients, alice)
        await refused.send("subscribe", streamId="x")
        await refused.expect("error", code="TOO_MANY_CONNECTIONS")
        assert await refused.closed() == 1013
        third = await clients.viewer(house.url, bob.token)
        await third.expect("error", code="TOO_MANY_CONNECTIONS")
        await moved[0].leave()
        await eventually(lambda: let_in(house, clients, bob))


async def let_in(house: House, clients: Clients, user: SignedIn) -> bool:
    viewer = await clients.viewer(house.url, user.token)
    await viewer.send("subscribe", streamId="x")
    return (await viewer.next())["type"] == "success"


async def test_while_the_store_is_away_a_cookie_still_keeps_nobody_out(
    own_postgres: Postgres, clients: Clients
) -> None:
    with furnished(own_postgres, "1.7", {}, STORE_TIMEOUT_S="0.5", AUTH_TIMEOUT_S="1") as house:
        alice = house.app.sign_up("alice")
        stays = await house.viewer_by_cookie(clients, alice)
        await is_in(stays)
        await asyncio.to_thread(own_postgres.stop)
        for message in ({"type": "auth", "token": alice.token}, {"type": "subscribe", "streamId": "x"}, None):
            viewer = await house.viewer_by_cookie(clients, alice)
            assert viewer.heard == []
            if message is not None:
                await viewer.send(**message)
            await _is_put_off(viewer)  # who says nothing: when `AUTH_TIMEOUT_S` is over
        await is_in(stays)
        answer = await http(f"{house.url}/streams", headers={"Cookie": alice.cookie, "Origin": APP})
        assert (answer.status, answer.error) == (503, "AUTH_UNAVAILABLE")
        await asyncio.to_thread(own_postgres.start)
