"""Signing in to the console and out of it, in a real Chromium: token, link, cookie, ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.console.support import RED, Cameras, looks
from tests.kit.clients import Clients, new_name
from tests.kit.console import console_tab
from tests.kit.processes import Process, Watchout, running
from tests.kit.services import BetterAuth, Postgres, running_better_auth
from tests.kit.session_stores import end_session

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def test_a_link_signs_in_and_leaves_no_token_in_the_address(tabs, user: str) -> None:
    async with tabs("#/live?size=large", user) as tab:
        await tab.sees("No stream yet")
        assert await tab.run("location.hash") == "#/live?size=large"
        assert await tab.run("[sessionStorage.getItem('watchout.token'), localStorage.length]") == [user, 0]
        assert await tab.run("performance.getEntriesByType('resource').some((e) => e.name.includes('token='))") is False
        await tab.reload()
        await tab.sees("No stream yet")


async def test_the_form_says_what_is_wrong_signs_in_and_out(tabs, user: str) -> None:
    async with tabs() as tab:
        await tab.sees("Sign in", "h1")
        await tab.write("input[name=token]", "no-such-token")
        await tab.press("Enter")
        await tab.sees("That did not work", "h1")
        await tab.sees("not valid", "[role=alert]")
        await tab.write("input[name=token]", user)  # in the place of the refused one
        await tab.click("label.tick")
        await tab.press("Enter")
        await tab.sees("No stream yet")
        assert await tab.run("[sessionStorage.length, localStorage.getItem('watchout.token')]") == [0, user]
        await tab.click("button[aria-label='Sign out']")
        await tab.sees("You are signed out", "h1")
        assert await tab.run("sessionStorage.length + localStorage.length") == 0


async def test_a_session_that_ends_is_said(tabs, started: Watchout, user: str) -> None:
    async with tabs("#/live", user) as tab:
        await tab.sees("No stream yet")
        end_session(started.home, user)
        await tab.sees("Your session has ended", "h1")
        assert await tab.run("sessionStorage.length") == 0


class House:
    """A web app with Better Auth, and a watchout for its users."""

    def __init__(self, app: BetterAuth, watchout: Watchout) -> None:
        self.app, self.watchout = app, watchout


@pytest.fixture(scope="module")
def house(postgres: Postgres) -> Iterator[House]:
    url = postgres.create_database()
    with running_better_auth(url, BA_PLUGINS="bearer,oneTimeToken") as app:
        environ = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": app.ready["secret"]}
        with running(environ=environ, start=False) as watchout:
            watchout.start("router")
            watchout.start("gateway")
            watchout.wait_ready()
            yield House(app, watchout)


async def test_the_cookie_of_the_web_app_signs_in_and_its_sign_out_ends_the_page(
    house: House, console_browser: Process, clients: Clients
) -> None:
    alice = await asyncio.to_thread(house.app.sign_up, "alice")
    cameras = Cameras(clients, house.watchout.url, alice.token)
    stream = new_name()
    await cameras.start(stream, RED)
    name, _, value = alice.cookie.partition("=")
    try:
        async with console_tab(console_browser, "about:blank") as tab:
            await tab.set_cookie(name, value, house.watchout.url)
            await tab.go(f"{house.watchout.url}/")
            await looks(tab, {stream: "live"})
            assert await tab.run("sessionStorage.length + localStorage.length") == 0, "the page keeps nothing"
            await asyncio.to_thread(house.app.sign_out, alice.token)
            await tab.sees("Your session has ended", "h1")
    finally:
        await cameras.close()


async def test_a_ticket_opens_one_connection_to_the_stream_of_its_link(
    house: House, console_browser: Process, clients: Clients
) -> None:
    alice = await asyncio.to_thread(house.app.sign_up, "alice")
    cameras = Cameras(clients, house.watchout.url, alice.token)
    stream = new_name()
    camera = await cameras.start(stream, RED)
    ticket = await asyncio.to_thread(house.app.one_time_token, alice.token)
    try:
        async with console_tab(console_browser, f"{house.watchout.url}/#/stream/{stream}?ticket={ticket}") as tab:
            await tab.sees("live", ".state")
            assert "ticket" not in await tab.run("location.href")
            await camera.send("alert", streamId=stream, severity="high", message="over the one socket")
            await tab.sees("over the one socket", ".side")
    finally:
        await cameras.close()
