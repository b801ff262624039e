"""A real browser: headless Chromium, driven over its DevTools protocol, without the network but for 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.sync.client import connect as connect_sync

from tests.kit.clients import eventually
from tests.kit.processes import Process, clean_environ, poll
from tests.kit.services import missing
from tests.kit.steady_network import with_steady_network

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
START_S: Final = 60.0
SCRIPT_S: Final = 60.0
#: For connections to a browser: it may be long in answering, and is not gone for that.
PATIENT: Final[dict[str, Any]] = {
    "max_size": None, "proxy": None, "open_timeout": START_S, "close_timeout": START_S, "ping_interval": None,
}  # fmt: skip


_SETTLED: Final = """new Promise((done) => {
  const look = (before) => {
    const now = %s;
    if (now === before) done(now);
    else setTimeout(look, 300, now);
  };
  look();
})"""
#: A camera and a microphone that the browser draws and plays itself, without a question to the user.
FAKE_CAMERA: Final = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextlib.contextmanager
def running_browser(*options: str) -> Iterator[Process]:
    """A browser that runs, with further options of its command line."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing(f"no browser: none of {', '.join(PROGRAMS)} is on the PATH")
    directory = Path(tempfile.mkdtemp(prefix="wo-browser-"))
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
        "--remote-debugging-port=0", f"--user-data-dir={directory / 'profile'}", *options, "about:blank",
    ]  # fmt: skip
    environ = {**clean_environ(), "HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    browser = Process("browser", with_steady_network(command), environ, directory / "output", directory)
    told = directory / "profile" / "DevToolsActivePort"
    try:
        poll(lambda: (told.exists() and told.read_text().count("\n")) or not browser.running, START_S, "no DevTools")
        assert browser.running, f"the browser ended:\n{browser.output[-2000:]}"
        yield browser
    finally:
        browser.end()
        shutil.rmtree(directory, ignore_errors=True)


def devtools_of(browser: Process) -> str:
    """The URL of a running browser's DevTools."""
    port, path = (browser.cwd / "profile" / "DevToolsActivePort").read_text().split("\n")[:2]
    return f"ws://127.0.0.1:{port}{path}"


def forget(browser: Process) -> None:
    """Make a running browser as it was at its start: no tab, cookie or permission of the tests before is left."""
    with connect_sync(devtools_of(browser), **PATIENT) as connection:

        def call(method: str, ignored: str | None = None, **parameters: Any) -> Any:
            connection.send(json.dumps({"id": 1, "method": method, "params": parameters}))
            while (answer := json.loads(connection.recv(SCRIPT_S))).get("id") != 1:
                pass
            fault = answer.get("error")
            assert fault is None or (ignored and ignored in fault["message"]), (method, fault)
            return answer.get("result")

        for target in call("Target.getTargets")["targetInfos"]:
            if target["type"] == "page" and target["url"] != "about:blank":
                call(
                    "Target.closeTarget", "No target with given id", targetId=target["targetId"]
                )  # it closes by itself
        call("Storage.clearCookies")
        call("Browser.resetPermissions")


@pytest.fixture(scope="session")
def browser_process() -> Iterator[Process]:
    """A browser that runs, for all tests. Do not end it."""
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def chromium(browser_process: Process) -> Iterator[str]:
    """The URL of a running browser's DevTools. After a module it forgets what its tests left."""
    yield devtools_of(browser_process)
    forget(browser_process)


@pytest.fixture(scope="module")
def chromium_with_camera() -> Iterator[str]:
    """The URL of the DevTools of a browser with a camera, which its pages may use."""
    with running_browser(*FAKE_CAMERA) as browser:
        yield devtools_of(browser)


class Tab:
    """One tab with the page; runs its functions."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self._workers: list[str] = []
        self._target = ""

    async def open(self, url: str, first: str = "") -> None:
        """Show a page; the script `first` runs before its own scripts, in this page and all that follow in this tab."""
        self._target = (await self._call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        await self._call("Page.enable")
        if first:
            await self._call("Page.addScriptToEvaluateOnNewDocument", source=first)
        await self.go(url)

    async def go(self, url: str) -> None:
        """Show another page in this tab."""
        await self._call("Page.navigate", url=url)
        await self.run(
            "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    async def close(self) -> None:
        self._session = {}
        if self._target:
            await self._call("Target.closeTarget", targetId=self._target)

    async def run(self, script: str, session_id: str = "") -> Any:
        """What an expression, or the promise that it gives, comes to."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = await self._call("Runtime.evaluate", session_id=session_id, **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def settled(self, expression: str) -> Any:
        """The value of an expression when it has been the same for a while of the page's own time."""
        return await self.run(_SETTLED % expression)

    async def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the page."""
        return await self.run(f"{function}({', '.join(map(json.dumps, arguments))})")

    async def to_front(self) -> None:
        """Show this tab of the window; the others are hidden then, as for a person."""
        await self._call("Page.bringToFront")

    async def slow_down(self, times: float) -> None:
        """Slow the page's main thread down so many times; its workers are not."""
        await self._call("Emulation.setCPUThrottlingRate", rate=times)

    async def set_permission(self, name: str, setting: str) -> None:
        """What the user has decided for this browser's pages: ``granted`` or ``denied``."""
        session, self._session = self._session, {}  # the browser's own call, not the tab's
        try:
            await self._call("Browser.setPermission", permission={"name": name}, setting=setting)
        finally:
            self._session = session

    async def count_workers(self) -> int:
        """How many workers the page has."""
        await self._call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        return len(self._workers)

    async def run_in_worker(self, script: str) -> Any:
        """As `run`, in the page's one worker."""
        await eventually(self.count_workers, SCRIPT_S, "the page has no worker")
        (worker,) = self._workers
        return await self.run(script, worker)

    async def tidy_up(self) -> None:
        """Let the page give back what it does not use any more."""
        await self._call("HeapProfiler.collectGarbage")
        await self._call("Memory.simulatePressureNotification", level="critical")

    async def kept_bytes(self) -> int:
        """What scripts of the page, and of its workers at the last `count_workers`, keep when garbage is collected.

        In bytes: objects, and what the browser has for them; not array buffers, most of which are under way.
        """
        total = 0
        for session in (self._session["sessionId"], *self._workers):
            await self._call("HeapProfiler.collectGarbage", session_id=session)
            used = await self._call("Runtime.getHeapUsage", session_id=session)
            total += used["usedSize"] + used["embedderHeapUsedSize"]
        return int(total)

    async def _call(self, method: str, session_id: str = "", **parameters: Any) -> dict[str, Any]:
        """Call the tab's own session, or another one."""
        number = next(self._numbers)
        session = {"sessionId": session_id} if session_id else self._session
        message = {"id": number, "method": method, "params": parameters, **session}
        async with asyncio.timeout(SCRIPT_S):
            await self._devtools.send(json.dumps(message))
            while (answer := json.loads(await self._devtools.recv())).get("id") != number:
                self._on_event(answer.get("method"), answer.get("params", {}))
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def _on_event(self, method: str | None, parameters: Mapping[str, Any]) -> None:
        if method == "Target.attachedToTarget" and parameters["targetInfo"]["type"] == "worker":
            self._workers.append(parameters["sessionId"])
        elif method == "Target.detachedFromTarget" and parameters["sessionId"] in self._workers:
            self._workers.remove(parameters["sessionId"])


@contextlib.asynccontextmanager
async def opened(devtools: str, url: str, first: str = "") -> AsyncIterator[Tab]:
    """A tab that shows this page; `devtools` is what the fixture `chromium` gives, `first` as in `Tab.open`."""
    async with connect(devtools, **PATIENT) as connection:
        tab = Tab(connection)
        try:
            await tab.open(url, first)
            yield tab
        finally:
            await tab.close()


@contextlib.asynccontextmanager
async def served(page: str | Callable[[], str]) -> AsyncIterator[str]:
    """The URL of a page, on an origin of its own; its text may be made when it is asked for."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=page if isinstance(page, str) else page(), content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    async with serving(app) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The URL of an application that is served on loopback."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await site.stop()
        for _ in range(3):  # a connection that was accepted just before is made, and so closed with the others
            await asyncio.sleep(0)
        await runner.cleanup()
