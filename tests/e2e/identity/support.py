"""A Better Auth server with a watchout beside it, and what its users can do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from tests.kit.clients import Client, Clients, Viewer
from tests.kit.processes import Watchout, running
from tests.kit.services import BetterAuth, Postgres, SignedIn, running_better_auth

APP: Final = "https://app.example.com"
PLUGINS: Final = "bearer,jwt,admin,organization,oneTimeToken"
SUBSCRIBE: Final = "/streams/subscribe"
#: Of the customer's own tokens, beside those of Better Auth.
JWT_SECRET: Final = "a secret of forty characters, not shorter"
#: The promise is 2 s; a busy machine gets more.
ENDED_WITHIN_S: Final = 30.0
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

    async def viewer_by_cookie(self, clients: Clients, user: SignedIn, port: int | None = None) -> Viewer:
        """At this gateway, or at the one on this port."""
        url = self.url if port is None else f"http://127.0.0.1:{port}"
        return await clients.viewer(url, None, origin=APP, additional_headers={"Cookie": user.cookie})

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


async def is_in(client: Client) -> None:
    """Sees by the answer to one more `auth` that this client is authenticated."""
    assert await client.rest() == []


async def refused(clients: Clients, url: str, path: str = SUBSCRIBE, **options: Any) -> int:
    """The status with which an upgrade is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await clients.connect(url, path, **options)
    return int(caught.value.response.status_code)


async def has_ended(client: Client, within_s: float = ENDED_WITHIN_S) -> None:
    """The server says that the session has ended, and closes."""
    assert (await client.find("error", within_s))["code"] == "SESSION_ENDED"
    assert await client.closed() == 4500


async def _is_put_off(client: Client) -> None:
    assert (await client.expect("error"))["code"] == "AUTH_UNAVAILABLE"
    assert await client.closed() == 1013
