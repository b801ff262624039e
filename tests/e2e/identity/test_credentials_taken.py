"""Each credential of a Better Auth user in each place that takes it."""

from __future__ import annotations

import asyncio
import base64
import time
from urllib.parse import quote

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.identity.support import APP, JWT_SECRET, SUBSCRIBE, House, Start, furnished, is_in, refused
from tests.kit.clients import Client, Clients, http, new_name
from tests.kit.services import Postgres

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def is_out(client: Client) -> None:
    """Sees by the answer to a message that this client is not authenticated."""
    await client.send("subscribe", streamId="x")
    await client.expect("error", code="AUTH_REQUIRED")


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
