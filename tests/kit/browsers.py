"""Real browsers that show a page and are looked at: Chromium over DevTools, Firefox over WebDriver BiDi.

Both are driven through the port that they open themselves; no driver program stands between.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from tests.kit.browser import PATIENT
from tests.kit.clients import eventually
from tests.kit.ports import free_port
from tests.kit.processes import Process, clean_environ
from tests.kit.services import missing
from tests.kit.steady_network import with_steady_network

CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FIREFOX: Final = ("firefox-esr", "firefox")
START_S: Final = 60.0
ANSWER_S: Final = 60.0


class BrowserCrashed(AssertionError):
    """The page's process is no more."""


class Browser:
    """A window with one page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    async def show(self, url: str) -> None:
        """Go to a page, and return when its document is there; its pictures may still come."""
        raise NotImplementedError

    async def screenshot(self) -> bytes:
        """What the window shows now, as PNG."""
        raise NotImplementedError

    async def _call(self, method: str, parameters: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        number = next(self._numbers)
        async with asyncio.timeout(ANSWER_S):
            await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters, **more}))
            while True:
                answer = json.loads(await self._connection.recv())
                if answer.get("method") == "Inspector.targetCrashed":
                    raise BrowserCrashed("the tab crashed")
                if answer.get("id") == number:
                    break
        assert answer.get("type") != "error", answer
        assert "error" not in answer, answer
        return dict(answer["result"])


class Chromium(Browser):
    """One tab over the DevTools protocol."""

    _session: str

    async def show(self, url: str) -> None:
        target = await self._call("Target.createTarget", {"url": "about:blank"})
        attached = await self._call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        self._session = attached["sessionId"]
        for domain in ("Inspector", "Page"):
            await self._call(f"{domain}.enable", {}, sessionId=self._session)
        await self._call("Page.navigate", {"url": url}, sessionId=self._session)
        there = {"expression": f"location.href === {json.dumps(url)} && document.readyState !== 'loading'"}

        async def is_there() -> bool:
            answer = await self._call("Runtime.evaluate", there, sessionId=self._session)
            return bool(answer["result"].get("value"))

        await eventually(is_there, ANSWER_S, f"{url} is not shown")

    async def screenshot(self) -> bytes:
        taken = await self._call("Page.captureScreenshot", {"format": "png"}, sessionId=self._session)
        return base64.b64decode(taken["data"])


class Firefox(Browser):
    """One tab over WebDriver BiDi."""

    _context: str

    async def show(self, url: str) -> None:
        await self._call("session.new", {"capabilities": {}})
        tree = await self._call("browsingContext.getTree", {})
        self._context = tree["contexts"][0]["context"]
        await self.go(url)

    async def go(self, url: str) -> None:
        """Show another page."""
        await self._call("browsingContext.navigate", {"context": self._context, "url": url, "wait": "interactive"})

    async def run(self, script: str) -> Any:
        """What an expression, or the promise that it gives, comes to; it has to be JSON."""
        asked = {
            "expression": f"Promise.resolve({script}).then((value) => JSON.stringify(value) ?? 'null')",
            "target": {"context": self._context}, "awaitPromise": True,
        }  # fmt: skip
        answer = await self._call("script.evaluate", asked)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    async def screenshot(self) -> bytes:
        taken = await self._call("browsingContext.captureScreenshot", {"context": self._context})
        return base64.b64decode(taken["data"])


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium; skips the test where there is none."""
    program = _found(CHROMIUM)
    with _directory() as directory:
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0", f"--user-data-dir={directory / 'profile'}", "about:blank",
        ]  # fmt: skip
        told = directory / "profile" / "DevToolsActivePort"
        async with _running("chromium", command, directory) as browser:
            await eventually(
                lambda: (told.exists() and told.read_text().count("\n")) or not browser.running, START_S, "no DevTools"
            )
            assert browser.running, f"the browser ended:\n{browser.output[-2000:]}"
            port, path = told.read_text().split("\n")[:2]
            async with connect(f"ws://127.0.0.1:{port}{path}", **PATIENT) as connection:
                yield Chromium(connection)


@contextlib.asynccontextmanager
async def firefox() -> AsyncIterator[Firefox]:
    """A headless Firefox with a camera that it draws itself; skips the test where there is none."""
    program = _found(FIREFOX)
    with _directory() as directory:
        port, profile = free_port(), directory / "profile"
        profile.mkdir()
        quiet = {
            "app.update.enabled": "false", "browser.shell.checkDefaultBrowser": "false", "network.proxy.type": "0",
            "datareporting.policy.dataSubmissionEnabled": "false", "toolkit.telemetry.enabled": "false",
            "network.captive-portal-service.enabled": "false", "network.connectivity-service.enabled": "false",
            "media.navigator.streams.fake": "true", "media.navigator.permission.disabled": "true",
        }  # fmt: skip
        (profile / "user.js").write_text("".join(f'user_pref("{name}", {value});\n' for name, value in quiet.items()))
        command = [
            program, "--headless", "--no-remote", "--remote-debugging-port", str(port), "--profile", str(profile),
            "about:blank",
        ]  # fmt: skip
        async with _running("firefox", command, directory) as browser:

            async def connected() -> ClientConnection | None:
                assert browser.running, f"the browser ended:\n{browser.output[-2000:]}"
                try:
                    return await connect(f"ws://127.0.0.1:{port}/session", **PATIENT)
                except OSError:
                    return None

            async with await eventually(connected, START_S, "no BiDi") as connection:
                yield Firefox(connection)


def _found(names: tuple[str, ...]) -> str:
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        missing(f"no browser: none of {', '.join(names)} is on the PATH")
    return program


@contextlib.contextmanager
def _directory() -> Any:
    directory = Path(tempfile.mkdtemp(prefix="wo-browser-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def _running(name: str, command: list[str], directory: Path) -> AsyncIterator[Process]:
    environ = {**clean_environ(), "HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "MOZ_HEADLESS": "1"}
    process = Process(name, with_steady_network(command), environ, directory / "output", directory)
    try:
        yield process
    finally:
        await asyncio.to_thread(process.end)
