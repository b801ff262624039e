"""A user is banned or deleted in Better Auth while clients and console are connected: it ends, once, and stays so."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import watchout.client as watchout_client
from tests.e2e.identity.support import House, furnished
from tests.kit.clients import eventually, new_name
from tests.kit.console import console_tab
from tests.kit.node import node_command
from tests.kit.processes import Process
from tests.kit.proxies import SilentProxy
from tests.kit.services import NEWEST_BETTER_AUTH, Postgres, SignedIn
from tests.sdk.app import App
from watchout.client import AsyncCamera, ConnectionPhase, NoToken, SessionEnded, TokenRefused, WatchoutClientError

pytestmark = [pytest.mark.e2e, pytest.mark.real]

COMES_S: Final = 30.0
#: Longer than the first pause before a client connects again.
QUIET_S: Final = 2.5
BAD_TOKEN: Final = "x" * 32

ENDINGS: Final[dict[str, Callable[[House, SignedIn], None]]] = {
    "banned": lambda house, user: house.app.ban_user(house.admin().token, user.user_id),
    "deleted": lambda house, user: house.app.remove_user(house.admin().token, user.user_id),
}
#: What an app answers when it is asked for another token of a user who is gone: nobody, the same as before, one that is
#: no better, or nothing at first. An app that is away is asked again; None is nobody.
APPS: Final[dict[str, list[str | None]]] = {
    "nobody": [None],
    "the same": ["same"],
    "another bad one": [BAD_TOKEN],
    "away": ["away", "away", None],
}
#: Connections that a client makes with the answer: one for each of its two sockets, when it is a token that is new.
TRIES: Final = {"nobody": 0, "the same": 0, "another bad one": 2, "away": 0}


@pytest.fixture(scope="module")
def house(postgres: Postgres) -> Iterator[House]:
    with furnished(postgres, NEWEST_BETTER_AUTH, {}) as made:
        yield made


@contextlib.asynccontextmanager
async def proxies(house: House) -> AsyncIterator[dict[str, SilentProxy]]:
    """A proxy per app, which counts the connections of its client."""
    async with contextlib.AsyncExitStack() as stack:
        made = {app: SilentProxy(house.watchout.port) for app in APPS}
        for proxy in made.values():
            await stack.enter_async_context(proxy.running())
        yield made


async def quiet() -> None:
    """Let the time pass in which a client would come back that must not."""
    until = time.monotonic() + QUIET_S
    await eventually(lambda: time.monotonic() > until, COMES_S)


class PythonApp:
    """A client with a camera and a viewer, and the app that it asks for tokens."""

    def __init__(self, url: str, token: str, answers: list[str | None]) -> None:
        self._token, self._answers = token, list(answers)
        self.reasons: list[str] = []
        self.most = self._under_way = 0
        #: Set when the app answers the calls for another token.
        self.answers = asyncio.Event()
        self.phases: list[ConnectionPhase] = []
        self.client = watchout_client.connect(
            url, token=self._give, on_phase=lambda change: self.phases.append(change.phase)
        )
        self._stack = contextlib.AsyncExitStack()
        self.camera: AsyncCamera
        self.events: Any

    async def start(self) -> None:
        await self._stack.enter_async_context(self.client)
        stream = new_name()
        self.camera = await self._stack.enter_async_context(self.client.camera(stream))
        self.events = await self._stack.enter_async_context(self.client.subscribe(stream))

    async def close(self) -> None:
        await self._stack.aclose()

    async def ends(self) -> tuple[Exception, Exception]:
        """What the camera and the subscription raise in the end."""
        found: list[Exception] = []
        async with asyncio.timeout(COMES_S):
            for read in (self.camera, self.events):
                with pytest.raises(WatchoutClientError) as caught:
                    async for _ in read:
                        pass
                found.append(caught.value)
        return found[0], found[1]

    async def _give(self, why: str) -> str:
        self.reasons.append(why)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            if why == "connect":
                return self._token
            await self.answers.wait()
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer == "away":
                raise OSError("no network")
            if answer is None:
                raise NoToken("nobody is signed in")
            return self._token if answer == "same" else answer
        finally:
            self._under_way -= 1


@pytest.mark.parametrize("ending", ENDINGS)
async def test_python_clients_of_a_user_who_is_gone_end_and_ask_once(
    house: House, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "watchout.client")
    user = await asyncio.to_thread(house.app.sign_up, "alice")
    async with proxies(house) as ways:
        apps = {
            name: PythonApp(f"http://127.0.0.1:{ways[name].port}", user.token, answers)
            for name, answers in APPS.items()
        }
        try:
            for app in apps.values():
                await app.start()
            before = {name: (ways[name].made, len(app.phases)) for name, app in apps.items()}
            await asyncio.to_thread(ENDINGS[ending], house, user)
            for name, app in apps.items():
                since = before[name][1]
                # Both sockets wait for the one call.
                await eventually(lambda: app.phases[since:].count(ConnectionPhase.CONNECTING) >= 2, COMES_S)  # noqa: B023
                await eventually(lambda: len(app.reasons) >= 2, COMES_S)  # noqa: B023
                assert app.reasons == ["connect", "ended"]
                app.answers.set()
            for name, app in apps.items():
                for error in await app.ends():
                    refused = isinstance(error, TokenRefused) and name == "another bad one"
                    assert refused or isinstance(error, SessionEnded), (name, error)
                with pytest.raises((TokenRefused, NoToken, OSError)):
                    await app.client.streams()
            asked = {name: len(app.reasons) for name, app in apps.items()}
            made = {name: proxy.made for name, proxy in ways.items()}
            await quiet()
            assert {name: len(app.reasons) for name, app in apps.items()} == asked
            assert {name: proxy.made for name, proxy in ways.items()} == made
            for name, app in apps.items():
                assert app.most == 1, "one call at a time"
                assert len(app.reasons) <= 2 + 2 * len(APPS[name]), (name, app.reasons)
                requests = 1  # one connection for streams()
                assert made[name] - before[name][0] <= TRIES[name] + requests, name
        finally:
            for app in apps.values():
                await app.close()


def _states(app: App) -> set[str]:
    """Where its camera, and the worst of its sockets, are."""
    return {app.all(kind)[-1]["state"] for kind in ("camera", "state")}


async def _answer(app: App, answers: list[str | None], token: str, answered: int) -> int:
    """Answer what an app is asked for, until camera, view and request have ended; how many calls there were."""
    left = list(answers)

    def over() -> bool:
        closed = any(each["state"] == "closed" for each in app.all("camera"))
        return closed and bool(app.all("frames-end")) and len(app.all("streams")) == 2

    async def step() -> bool:
        nonlocal answered
        asked = len(app.all("token"))
        assert asked - answered <= 1, "one call at a time"
        if asked > answered:
            answered += 1
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer == "away":
                await app.do("refuse")
            else:
                await app.do("give", token=token if answer == "same" else answer)
        return over() and asked == answered

    await eventually(step, COMES_S)
    return answered


@pytest.mark.parametrize("ending", ["banned"])
async def test_javascript_clients_of_a_user_who_is_gone_end_and_ask_once(
    house: House, js_sdk: Path, ending: str
) -> None:
    user = await asyncio.to_thread(house.app.sign_up, "alice")
    stream = new_name()
    apps: dict[str, App] = {}
    async with proxies(house) as ways:
        try:
            for name in APPS:
                url = f"http://127.0.0.1:{ways[name].port}"
                app = apps[name] = await App.start(
                    node_command() or [], js_sdk / "client/dist/index.js", url, backoff={"firstMs": 200, "capMs": 1000}
                )
                await app.do("view", streamId=f"{stream}-{len(apps)}")
                await app.find("token", why="connect")
                await app.do("give", token=user.token)
                await app.find("status", status="offline")
                await app.do("camera", options={"streamId": f"{stream}-{len(apps)}"})
                await app.find("camera", state="online")
                await app.do("streams")
                await app.find("streams")
            before = {name: proxy.made for name, proxy in ways.items()}
            await asyncio.to_thread(ENDINGS[ending], house, user)
            for name, app in apps.items():
                # Both sockets are closed, and a request is refused: all wait for the one call.
                await eventually(lambda: len(app.all("token")) == 2, COMES_S)  # noqa: B023
                await app.do("streams")
                await eventually(lambda: _states(app) == {"connecting"}, COMES_S)  # noqa: B023
                calls = await _answer(app, APPS[name], user.token, 1)
                assert calls <= 1 + 3 * len(APPS[name]), (name, app.all("token"))
                ended = app.all("frames-end")[-1]
                codes = {"AUTH_FAILED"} if name == "another bad one" else {"SESSION_ENDED", "SIGNED_OUT"}
                assert ended["code"] in codes, (name, ended)
                assert ended["retryable"] is False
                assert app.all("streams")[-1]["code"] in ("AUTH_FAILED", "AUTH_REQUIRED", "TOKEN_UNAVAILABLE")
            asked = {name: len(app.all("token")) for name, app in apps.items()}
            made = {name: proxy.made for name, proxy in ways.items()}
            await quiet()
            assert {name: len(app.all("token")) for name, app in apps.items()} == asked
            assert {name: proxy.made for name, proxy in ways.items()} == made
            for name in APPS:
                requests = 2  # streams() once more, and again with another token
                assert made[name] - before[name] <= TRIES[name] + requests, name
            for app in apps.values():
                assert await app.close() == 0
        finally:
            for app in apps.values():
                await app.end()


@pytest.mark.parametrize("ending", ["deleted"])
async def test_the_console_of_a_user_who_is_gone_says_so_and_asks_for_nothing_more(
    house: House, console_browser: Process, ending: str
) -> None:
    user = await asyncio.to_thread(house.app.sign_up, "alice")
    proxy = SilentProxy(house.watchout.port)
    count = "performance.getEntriesByType('resource').length"
    async with (
        proxy.running(),
        watchout_client.connect(house.url, token=user.token) as client,
        client.camera(new_name()),
        console_tab(console_browser, f"http://127.0.0.1:{proxy.port}/#/live?token={user.token}") as tab,
    ):
        await tab.sees("The camera sends no pictures")
        made = proxy.made
        await asyncio.to_thread(ENDINGS[ending], house, user)
        await tab.sees("Your session has ended", "h1")
        requests = await tab.settled(count)  # what is under way is counted when it has ended
        assert proxy.made - made <= 2, "connections after the end"
        made = proxy.made
        await quiet()
        assert await tab.run(count) == requests
        assert proxy.made == made
        assert await tab.run("sessionStorage.length + localStorage.length") == 0
