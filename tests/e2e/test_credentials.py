"""Which forms of a credential are taken: the same as Better Auth itself takes, and where not, why.

`FORMS` is the one table. It is asked of a real Better Auth's `/get-session` and of a real gateway, form by form, and
`render_markdown` prints it for docs/security.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import pytest
from websockets.sync.client import connect

from tests.kit.clients import DEADLINE_S, TEXT, Clients, RawSocket, web_socket_frame
from tests.kit.processes import Watchout, running
from tests.kit.services import (
    BETTER_AUTH_VERSIONS,
    NEWEST_BETTER_AUTH,
    BetterAuth,
    Postgres,
    SignedIn,
    running_better_auth,
)

pytestmark = [pytest.mark.e2e, pytest.mark.real]

COOKIE: Final = "better-auth.session_token"
APP: Final = "https://app.example.com"
#: A token that no table holds.
UNKNOWN: Final = "x" * 32

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Held:
    """What the forms are made of: sessions of Alice and of Bob, and the secret that signs them."""

    alice: SignedIn = field(repr=False)
    bob: SignedIn = field(repr=False)
    secret: str = field(repr=False)

    @property
    def token(self) -> str:
        return self.alice.token

    @property
    def signature(self) -> str:
        """Alice's, in standard base64."""
        return sign(self.alice.token, self.secret)

    @property
    def signed(self) -> str:
        return f"{self.token}.{self.signature}"

    @property
    def unknown(self) -> str:
        return f"{UNKNOWN}.{sign(UNKNOWN, self.secret)}"

    @property
    def bobs_cookie(self) -> str:
        return self.bob.cookie.partition("=")[2]

    def signed_with(self, secret: str) -> str:
        return f"{self.token}.{sign(self.token, secret)}"


def sign(token: str, secret: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), token.encode(), hashlib.sha256)).decode()


def encoded(value: str) -> str:
    """As JavaScript's `encodeURIComponent` has it."""
    return quote(value, safe="!'()*-._~")


def altered(signature: str) -> str:
    """The same length, another signature."""
    return ("B" if signature[0] == "A" else "A") + signature[1:]


def same_bits(signature: str) -> str:
    """The same 32 bytes: the last two bits of 43 base64 digits mean nothing."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return signature[:42] + digits[digits.index(signature[42]) ^ 1] + "="


def every_character(value: str) -> str:
    return "".join(f"%{ord(character):02X}" for character in value)


def lower_case(value: str) -> str:
    return value.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d")


def base64_text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def url_safe(signature: str) -> str:
    return signature.replace("+", "-").replace("/", "_")


def cookie(value: str) -> Header:
    return ("Cookie", f"{COOKIE}={value}")


def bearer(value: str) -> Header:
    return ("Authorization", f"Bearer {value}")


#: Whose session a request was taken for; "" is nobody's.
ALICE: Final = "alice"
BOB: Final = "bob"
NOBODY: Final = ""
SOMEBODY: Final = "somebody"
#: How a request is refused: not understood, not known, too long.
REFUSED: Final = (400, 401, 431)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a credential, and who takes it for whose."""

    where: str
    name: str
    #: What a client sends; for `TOKEN`, what stands after `Bearer`.
    make: Callable[[Held], str | list[Header]]
    newest: str
    #: Better Auth 1.3.34, gateway, and gateway without `BETTER_AUTH_SECRET`; None: as the newest Better Auth, or as
    #: with the secret.
    old: str | None = None
    ours: str | None = None
    without_secret: str | None = None
    #: A token without a signature: refused with `REQUIRE_SIGNED_TOKENS`, as with the plugin's `requireSignature`.
    raw: bool = False
    #: Why they differ.
    why: str = ""

    def headers(self, held: Held) -> list[Header]:
        """What is sent."""
        made = self.make(held)
        return [bearer(made)] if isinstance(made, str) else made

    def better_auth(self, mode: str, version: str) -> str:
        """For whose the Better Auth server takes it."""
        taken = self.newest if self.old is None or version == NEWEST_BETTER_AUTH else self.old
        return NOBODY if self.raw and mode == SIGNED else taken

    def gateway(self, mode: str) -> str:
        """For whose the gateway takes it."""
        taken = self.newest if self.ours is None else self.ours
        if mode == WITHOUT_SECRET and self.without_secret is not None:
            return self.without_secret
        return NOBODY if self.raw and mode == SIGNED else taken

    @property
    def differs(self) -> bool:
        return len({self.better_auth(PLAIN, version) for version in BETTER_AUTH_VERSIONS} | {self.gateway(PLAIN)}) > 1


#: The gateway has Better Auth's secret; it and the bearer plugin want signatures; it has no secret.
PLAIN: Final = "plain"
SIGNED: Final = "signed"
WITHOUT_SECRET: Final = "without-secret"

VALUE: Final = "cookie's value"
COOKIES: Final = "cookies"
TOKEN: Final = "token"
AUTHORIZATION: Final = "header"

ANY_SIGNATURE: Final = {"without_secret": ALICE}
OLD_BEARER: Final = "The bearer plugin of 1.3 knows only `Bearer` and one space."
ON_PURPOSE: Final = "A header that the client sets itself decides. When it is wrong, no cookie is used instead."
COOKIE_FIRST: Final = "1.3 prefers the cookie. watchout prefers the token: browsers attach cookies unasked."


def form(where: str, name: str, make: Callable[[Held], str | list[Header]], newest: str, **more: Any) -> Form:
    if where == VALUE:
        return Form(where=where, name=name, make=lambda held: [cookie(str(make(held)))], newest=newest, **more)
    return Form(where=where, name=name, make=make, newest=newest, **more)


def two(first: str, second: str) -> list[Header]:
    return [("Cookie", f"{COOKIE}={first}; {COOKIE}={second}")]


FORMS: Final = (
    form(VALUE, "as `Set-Cookie` gave it", lambda h: h.alice.cookie.partition("=")[2], ALICE),
    form(VALUE, "decoded", lambda h: h.signed, ALICE),
    form(VALUE, "escapes in lower case", lambda h: lower_case(h.signed), ALICE),
    form(VALUE, "every character escaped", lambda h: every_character(h.signed), ALICE),
    form(VALUE, "encoded twice", lambda h: encoded(encoded(h.signed)), NOBODY),
    form(VALUE, "in double quotes", lambda h: f'"{encoded(h.signed)}"', ALICE),
    form(VALUE, "other bits in base64's unused tail", lambda h: encoded(f"{h.token}.{same_bits(h.signature)}"), ALICE),
    form(VALUE, "wrong signature", lambda h: encoded(f"{h.token}.{altered(h.signature)}"), NOBODY, **ANY_SIGNATURE),
    form(VALUE, "signed with another secret", lambda h: encoded(h.signed_with("another")), NOBODY, **ANY_SIGNATURE),
    form(
        VALUE, "another session's signature", lambda h: encoded(f"{h.bob.token}.{h.signature}"), NOBODY,
        without_secret=BOB,
    ),
    form(VALUE, "no padding", lambda h: encoded(h.signed.rstrip("=")), NOBODY),
    form(VALUE, "URL-safe base64", lambda h: encoded(f"{h.token}.{url_safe(h.signature)}"), NOBODY),
    form(VALUE, "`+` turned into a space", lambda h: h.signed.replace("+", " "), NOBODY),
    form(VALUE, "signature cut short", lambda h: encoded(h.signed[:-5]), NOBODY),
    form(VALUE, "no signature", lambda h: h.token, NOBODY),
    form(VALUE, "empty signature", lambda h: f"{h.token}.", NOBODY),
    form(VALUE, "unknown token, rightly signed", lambda h: encoded(h.unknown), NOBODY),
    form(VALUE, "empty", lambda _: "", NOBODY),
    form(VALUE, "only a dot", lambda _: ".", NOBODY),
    form(VALUE, "broken escape at the end", lambda h: encoded(h.signed) + "%zz", NOBODY),
    form(VALUE, "escaped NUL at the end", lambda h: encoded(h.signed + "\0"), NOBODY),
    form(VALUE, "escape that is no UTF-8 at the end", lambda h: encoded(h.signed) + "%ff", NOBODY),
    form(VALUE, "NUL at the end", lambda h: f"{h.signed}\0", NOBODY),
    form(VALUE, "byte over 127 at the end", lambda h: f"{h.signed}\xff", NOBODY),
    form(VALUE, "8000 characters", lambda _: "x" * 8000, NOBODY),
    form(COOKIES, "twice, the right one first", lambda h: two(encoded(h.signed), "x"), ALICE),
    form(COOKIES, "twice, the right one last", lambda h: two("x", encoded(h.signed)), NOBODY),
    form(COOKIES, "twice, an empty one first", lambda h: two("", encoded(h.signed)), NOBODY),
    form(COOKIES, "twice, another user's last", lambda h: two(encoded(h.signed), h.bobs_cookie), ALICE),
    form(COOKIES, "among others", lambda h: [("Cookie", f"a=b; {COOKIE}={encoded(h.signed)}; c=d")], ALICE),
    form(COOKIES, "among others, no spaces", lambda h: [("Cookie", f"a=b;{COOKIE}={encoded(h.signed)};c=d")], ALICE),
    form(COOKIES, "in the second of two headers", lambda h: [("Cookie", "a=b"), cookie(encoded(h.signed))], ALICE),
    form(COOKIES, "in both headers, the right one first", lambda h: [cookie(encoded(h.signed)), cookie("x")], ALICE),
    form(COOKIES, "in both headers, the right one last", lambda h: [cookie("x"), cookie(encoded(h.signed))], NOBODY),
    form(COOKIES, "spaces around name and value", lambda h: [("Cookie", f" {COOKIE} = {encoded(h.signed)} ")], ALICE),
    form(COOKIES, "name in another case", lambda h: [("Cookie", f"{COOKIE.upper()}={encoded(h.signed)}")], NOBODY),
    form(COOKIES, "another name", lambda h: [("Cookie", f"session={encoded(h.signed)}")], NOBODY),
    form(
        COOKIES, "`__Secure-` in front of the name", lambda h: [("Cookie", f"__Secure-{COOKIE}={encoded(h.signed)}")],
        NOBODY, ours=ALICE,
        why="Better Auth knows whether its site is https and takes only that name. watchout takes both, the "
        "`__Secure-` one first, or only that one (`SECURE_COOKIE_ONLY`).",
    ),
    form(
        COOKIES, "`__Host-` in front of the name", lambda h: [("Cookie", f"__Host-{COOKIE}={encoded(h.signed)}")],
        NOBODY,
    ),
    form(COOKIES, "only `session_data`", lambda h: [("Cookie", f"better-auth.session_data={h.signed}")], NOBODY),
    form(TOKEN, "as the table and the JSON have it", lambda h: h.token, ALICE, raw=True),
    form(TOKEN, "as `set-auth-token` gave it", lambda h: h.alice.set_auth_token, ALICE),
    form(TOKEN, "signed, encoded", lambda h: encoded(h.signed), ALICE),
    form(
        TOKEN, "signed, decoded", lambda h: h.signed, ALICE, old=NOBODY,
        why="The bearer plugin of 1.3 sends and accepts it encoded; that of 1.7 sends it decoded and accepts both.",
    ),
    form(TOKEN, "other bits in base64's unused tail", lambda h: encoded(f"{h.token}.{same_bits(h.signature)}"), ALICE),
    form(TOKEN, "wrong signature", lambda h: encoded(f"{h.token}.{altered(h.signature)}"), NOBODY, **ANY_SIGNATURE),
    form(TOKEN, "signed with another secret", lambda h: encoded(h.signed_with("another")), NOBODY, **ANY_SIGNATURE),
    form(
        TOKEN, "another session's signature", lambda h: encoded(f"{h.bob.token}.{h.signature}"), NOBODY,
        without_secret=BOB,
    ),
    form(TOKEN, "no padding", lambda h: encoded(h.signed.rstrip("=")), NOBODY),
    form(TOKEN, "URL-safe base64", lambda h: encoded(f"{h.token}.{url_safe(h.signature)}"), NOBODY),
    form(TOKEN, "empty signature", lambda h: f"{h.token}.", NOBODY),
    form(TOKEN, "encoded twice", lambda h: encoded(encoded(h.signed)), NOBODY),
    form(TOKEN, "bare, every character escaped", lambda h: every_character(h.token), NOBODY),
    form(TOKEN, "bare, in double quotes", lambda h: f'"{h.token}"', NOBODY),
    form(TOKEN, "bare, cases swapped", lambda h: h.token.swapcase(), NOBODY),
    form(TOKEN, "bare, cut short", lambda h: h.token[:-1], NOBODY),
    form(TOKEN, "bare, an escaped NUL at the end", lambda h: f"{h.token}%00", NOBODY),
    form(TOKEN, "bare, a NUL at the end", lambda h: f"{h.token}\0", NOBODY),
    form(TOKEN, "bare, a byte over 127 at the end", lambda h: f"{h.token}\xff", NOBODY),
    form(TOKEN, "bare, and a word after it", lambda h: f"{h.token} x", NOBODY),
    form(TOKEN, "unknown", lambda _: UNKNOWN, NOBODY),
    form(TOKEN, "unknown, rightly signed", lambda h: encoded(h.unknown), NOBODY),
    form(TOKEN, "SQL", lambda _: "x'or'1'='1'--xxxxxxxx", NOBODY),
    form(TOKEN, "8000 characters", lambda _: "x" * 8000, NOBODY),
    form(
        AUTHORIZATION, "`bearer …`", lambda h: [("Authorization", f"bearer {h.token}")], ALICE, old=NOBODY, raw=True,
        why=OLD_BEARER,
    ),
    form(
        AUTHORIZATION, "`BEARER …`", lambda h: [("Authorization", f"BEARER {h.token}")], ALICE, old=NOBODY, raw=True,
        why=OLD_BEARER,
    ),
    form(AUTHORIZATION, "two spaces", lambda h: [bearer(f" {h.token}")], ALICE, old=NOBODY, raw=True, why=OLD_BEARER),
    form(AUTHORIZATION, "a tab for the space", lambda h: [("Authorization", f"Bearer\t{h.token}")], NOBODY),
    form(AUTHORIZATION, "spaces at the end", lambda h: [bearer(f"{h.token}   ")], ALICE, raw=True),
    form(
        AUTHORIZATION, "no scheme", lambda h: [("Authorization", h.token)], NOBODY, old=ALICE, raw=True,
        why="1.3 cuts `Bearer ` out where it finds it. RFC 6750 wants it.",
    ),
    form(AUTHORIZATION, "`Token …`", lambda h: [("Authorization", f"Token {h.token}")], NOBODY),
    form(AUTHORIZATION, "`Basic …`", lambda h: [("Authorization", f"Basic {base64_text(h.token)}")], NOBODY),
    form(AUTHORIZATION, "`Bearer` alone", lambda _: [("Authorization", "Bearer")], NOBODY),
    form(AUTHORIZATION, "`Bearer` and spaces", lambda _: [("Authorization", "Bearer   ")], NOBODY),
    form(AUTHORIZATION, "empty", lambda _: [("Authorization", "")], NOBODY),
    form(AUTHORIZATION, "none", lambda _: [], NOBODY),
    form(
        AUTHORIZATION, "two, the right one first", lambda h: [bearer(h.token), bearer(UNKNOWN)], ALICE, ours=NOBODY,
        raw=True, why="RFC 9110 allows one. Proxies may choose the other one, so neither is taken.",
    ),
    form(AUTHORIZATION, "two, the right one last", lambda h: [bearer(UNKNOWN), bearer(h.token)], NOBODY),
    form(
        AUTHORIZATION, "right token, and a wrong cookie", lambda h: [bearer(encoded(h.signed)), cookie("x")], ALICE,
        old=NOBODY, why=COOKIE_FIRST,
    ),
    form(
        AUTHORIZATION, "right token, and another user's cookie",
        lambda h: [bearer(encoded(h.signed)), ("Cookie", h.bob.cookie)], ALICE, old=BOB, why=COOKIE_FIRST,
    ),
    form(
        AUTHORIZATION, "unknown token, rightly signed, and a right cookie",
        lambda h: [bearer(encoded(h.unknown)), cookie(encoded(h.signed))], NOBODY, old=ALICE, why=COOKIE_FIRST,
    ),
    form(
        AUTHORIZATION, "wrongly signed token, and a right cookie",
        lambda h: [bearer(encoded(h.signed_with("another"))), cookie(encoded(h.signed))], ALICE, ours=NOBODY,
        without_secret=ALICE, why=ON_PURPOSE,
    ),
    form(
        AUTHORIZATION, "`Basic …`, and a right cookie",
        lambda h: [("Authorization", "Basic eDp5"), cookie(encoded(h.signed))], ALICE,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """A Better Auth and a gateway on the same sessions."""

    mode: str
    version: str
    held: Held
    better_auth: BetterAuth
    watchout: Watchout


def sides() -> Iterator[tuple[str, str]]:
    yield from itertools.product((PLAIN, SIGNED), BETTER_AUTH_VERSIONS)
    yield WITHOUT_SECRET, NEWEST_BETTER_AUTH


@pytest.fixture(scope="module", params=sides(), ids="-".join)
def side(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Side]:
    mode, version = request.param
    url = postgres.create_database()
    options = {"bearer": {"requireSignature": mode == SIGNED}}
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(
            running_better_auth(url, version=version, BA_PLUGINS="bearer", BA_PLUGIN_OPTIONS=json.dumps(options))
        )
        held = Held(signed_up_with_every_kind_of_digit(app), app.sign_up("bob"), app.ready["secret"])
        environ = {"DATABASE_URL": url, "ALLOWED_ORIGINS": APP, "DRAIN_S": "0.1"}
        if mode != WITHOUT_SECRET:
            environ["BETTER_AUTH_SECRET"] = held.secret
        if mode == SIGNED:
            environ["REQUIRE_SIGNED_TOKENS"] = "true"
        watchout = stack.enter_context(running(environ=environ, start=False))
        watchout.start("router")
        watchout.start("gateway")
        watchout.wait_ready()
        for name, user in ((ALICE, held.alice), (BOB, held.bob)):
            register(stack, watchout.url, name, user)
        yield Side(mode, version, held, app, watchout)


def signed_up_with_every_kind_of_digit(app: BetterAuth) -> SignedIn:
    """A session whose signature has the two digits of base64 that other forms spell otherwise."""
    user = app.sign_up(ALICE)
    while not {"+", "/"} <= set(sign(user.token, app.ready["secret"])):
        user = app.sign_in(user.email)
    return user


def register(stack: contextlib.ExitStack, url: str, stream: str, user: SignedIn) -> None:
    """A camera whose stream tells by its id whose it is."""
    camera = stack.enter_context(
        connect(
            url.replace("http", "ws") + "/streams/register", proxy=None, close_timeout=1,
            additional_headers={"Authorization": f"Bearer {user.set_auth_token}"},
        )
    )  # fmt: skip
    camera.send(json.dumps({"type": "register", "streamId": stream, "produces": ["video-frame"]}))
    assert json.loads(camera.recv(DEADLINE_S))["type"] == "success"


def request(path: str, held: Held, form: Form, *more: str) -> bytes:
    """A request of the web app's page with the form's headers."""
    fields = [("Host", "gateway"), ("Origin", APP), *form.headers(held)]
    named = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), *more]
    return "\r\n".join([*named, "", ""]).encode("latin-1")


async def over_http(clients: Clients, side: Side, form: Form) -> str:
    raw = await clients.raw(side.watchout.url)
    await raw.send(request("/streams", side.held, form))
    answer = await raw.answer()
    await raw.leave()
    if answer.status == 200:
        (found,) = [stream["id"] for stream in answer.json["streams"]]
        return str(found)
    assert answer.status in REFUSED, (form, answer)
    return NOBODY


async def over_a_socket(clients: Clients, side: Side, form: Form) -> str:
    """Whom the upgrade lets in, which the answer to any message tells."""
    raw = await clients.raw(side.watchout.url)
    upgrade = raw.upgrade_head("/").decode().split("\r\n")[2:-2]
    await raw.send(request("/streams/subscribe", side.held, form, *upgrade))
    answer = await raw.answer()
    if answer.status == 101:
        await raw.send(web_socket_frame(TEXT, b'{"type":"whoami"}'))
        code = json.loads((await raw.frame()).payload)["code"]
        assert code in ("UNKNOWN_MESSAGE_TYPE", "AUTH_REQUIRED"), (form, code)
        found = SOMEBODY if code == "UNKNOWN_MESSAGE_TYPE" else NOBODY
    else:
        assert answer.status in REFUSED, (form, answer)
        found = NOBODY
    await raw.leave()
    return found


async def over_a_message(raw: RawSocket, token: str) -> str:
    await raw.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
    message = json.loads((await raw.frame()).payload)
    if message["type"] == "success":
        return SOMEBODY
    assert message["code"] == "AUTH_FAILED", message
    return NOBODY


def test_each_difference_from_better_auth_has_its_reason() -> None:
    assert [form.name for form in FORMS if form.differs != bool(form.why)] == []
    assert len({(form.where, form.name) for form in FORMS}) == len(FORMS)
    assert sum(form.where in (VALUE, COOKIES) for form in FORMS) >= 15
    assert sum(form.where in (TOKEN, AUTHORIZATION) for form in FORMS) >= 10


async def test_better_auth_takes_what_the_table_says(side: Side) -> None:
    users = {side.held.alice.user_id: ALICE, side.held.bob.user_id: BOB}
    found, expected = {}, {}
    for form in FORMS:
        answer = await asyncio.to_thread(side.better_auth.session, *form.headers(side.held))
        found[form.name, form.where] = NOBODY if answer is None else users[answer["user"]["id"]]
        expected[form.name, form.where] = form.better_auth(side.mode, side.version)
    assert found == expected


async def test_the_gateway_takes_what_the_table_says_over_http(side: Side, clients: Clients) -> None:
    found = {(form.name, form.where): await over_http(clients, side, form) for form in FORMS}
    assert found == {(form.name, form.where): form.gateway(side.mode) for form in FORMS}


async def test_the_gateway_takes_the_same_at_the_upgrade(side: Side, clients: Clients) -> None:
    found = {(form.name, form.where): await over_a_socket(clients, side, form) for form in FORMS}
    assert found == {(form.name, form.where): somebody(form.gateway(side.mode)) for form in FORMS}


async def test_the_gateway_takes_the_same_tokens_in_the_first_message_and_in_the_query(
    side: Side, clients: Clients
) -> None:
    by_message, by_query, expected = {}, {}, {}
    for form in FORMS:
        if form.where != TOKEN:
            continue
        token = str(form.make(side.held))
        expected[form.name] = somebody(form.gateway(side.mode))
        raw = await clients.raw(side.watchout.url)
        await raw.upgrade("/streams/subscribe")
        by_message[form.name] = await over_a_message(raw, token)
        await raw.leave()
        raw = await clients.raw(side.watchout.url)
        await raw.send(raw.upgrade_head(f"/streams/subscribe?token={quote(token, safe='')}"))
        status = (await raw.answer()).status
        assert status in (101, *REFUSED)
        by_query[form.name] = SOMEBODY if status == 101 else NOBODY
        await raw.leave()
    assert by_message == expected
    assert by_query == expected


def somebody(user: str) -> str:
    return SOMEBODY if user else NOBODY


def render_markdown() -> str:
    """The table for docs/security.md."""
    says = {ALICE: "yes", BOB: "the other user", NOBODY: "no"}
    rows = [
        "| where | form | Better Auth 1.7 | Better Auth 1.3 | watchout | why they differ |",
        "|---|---|---|---|---|---|",
    ]
    for form in FORMS:
        taken = (form.better_auth(PLAIN, "1.7"), form.better_auth(PLAIN, "1.3"), form.gateway(PLAIN))
        rows.append(" | ".join((f"| {form.where}", form.name, *(says[one] for one in taken), f"{form.why} |")))
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_markdown())
