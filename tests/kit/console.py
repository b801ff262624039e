"""The web console in a real Chromium: what it shows, what its page complains of, keys, screens, and axe-core."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image, ImageDraw
from websockets.asyncio.client import ClientConnection, connect

from tests.kit.browser import PATIENT, Tab, devtools_of, forget, running_browser
from tests.kit.clients import eventually
from tests.kit.node import PackagesMissing, installed_packages
from tests.kit.processes import REPOSITORY, Process
from tests.kit.services import missing

#: Another name of loopback, which browsers do not trust as they trust 127.0.0.1.
ELSEWHERE: Final = "phone.test"
#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 30.0
#: What the page is told to remember: violations of its policy.
_FIRST: Final = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
#: Whether something moves that will end; a colour on its way to another one is no fault.
_MOVES: Final = """document.getAnimations().some((each) =>
  each.playState === "running" && each.effect?.getComputedTiming().endTime !== Infinity)"""


@functools.cache
def console_modules() -> Path:
    """The console's `node_modules`, as its lock file names them."""
    files = [REPOSITORY / "console" / name for name in ("package.json", "package-lock.json")]
    try:
        return installed_packages("console", files) / "node_modules"
    except PackagesMissing as reason:
        missing(f"no packages of the console: {reason}")


@contextlib.contextmanager
def running_console_browser() -> Iterator[Process]:
    """A browser whose camera is a drawn picture; its user is asked before a page may use it."""
    rules = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with running_browser("--use-fake-device-for-media-stream", rules) as browser:
        yield browser


@pytest.fixture(scope="session")
def console_browser_process() -> Iterator[Process]:
    """One for all tests. Do not end it."""
    with running_console_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def console_browser(console_browser_process: Process) -> Iterator[Process]:
    """A browser as `running_console_browser` says. After a module it forgets what its tests left."""
    yield console_browser_process
    forget(console_browser_process)


class ConsoleTab(Tab):
    """A tab with the console; it remembers what goes wrong in the page."""

    def __init__(self, devtools: ClientConnection) -> None:
        super().__init__(devtools)
        #: Exceptions, errors that the page logged, and requests that the browser refused; not failed requests.
        self.faults: list[str] = []

    async def prepare(self, *, width: int = 1280, height: int = 800, dark: bool = True, calm: bool = False) -> None:
        """Watch the page, and give it a screen."""
        await self._call("Runtime.enable")
        await self._call("Log.enable")
        await self._call("Page.addScriptToEvaluateOnNewDocument", source=_FIRST)
        await self.screen(width=width, height=height, dark=dark, calm=calm)

    async def screen(self, *, width: int = 1280, height: int = 800, dark: bool = True, calm: bool = False) -> None:
        """Give the page a screen of this size; `calm`: the user wants no motion."""
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        await self._call("Emulation.setEmulatedMedia", features=features)

    async def permit(self, name: str, setting: str, origin: str) -> None:
        """Answer the browser's question for a permission: ``granted`` or ``denied``."""
        session, self._session = self._session, {}
        await self._call("Browser.setPermission", permission={"name": name}, setting=setting, origin=origin)
        self._session = session

    async def set_cookie(self, name: str, value: str, url: str) -> None:
        """Have a cookie as a page of this URL would set it."""
        await self._call("Network.setCookie", name=name, value=value, url=url, httpOnly=True)

    async def screenshot(self) -> bytes:
        """What the tab shows, as PNG."""
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def hide_scrollbars(self) -> None:
        """Show no scroll bars, as phones do."""
        await self._call("Emulation.setScrollbarsHidden", hidden=True)

    async def to_front(self) -> None:
        """Show this tab of the window; the others are hidden then, as for a person."""
        await self._call("Page.bringToFront")

    async def reload(self) -> None:
        """Load the page anew, and wait until it is another one."""
        await self.run("window.isFormer = true; 0")
        await self._call("Page.reload")

        async def is_new() -> bool:
            try:
                return bool(await self.run("window.isFormer !== true && document.readyState === 'complete'"))
            except AssertionError:  # asked while there was none
                return False

        await eventually(is_new, COMES_S, "the page is not loaded anew")

    async def view(self, fragment: str) -> None:
        """Go to a view by its address."""
        await self.run(f"location.hash = {json.dumps(fragment)}; 0")

    async def text(self, selector: str = "body") -> str:
        """The text of an element, empty when there is none."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def sees(self, text: str, selector: str = "body", timeout_s: float = COMES_S) -> None:
        """Wait until an element shows this text."""

        async def is_there() -> bool:
            return text.lower() in (await self.text(selector)).lower()

        try:
            await eventually(is_there, timeout_s)
        except AssertionError:
            raise AssertionError(f"{text!r} is not shown in {selector}, but {(await self.text())[:900]!r}") from None

    async def until(self, script: str, what: str, timeout_s: float = COMES_S) -> Any:
        """Wait until a script gives something true, and return that."""

        async def holds() -> Any:
            return await self.run(script)

        return await eventually(holds, timeout_s, what)

    async def click(self, selector: str, text: str = "") -> None:
        """Press the first element that fits and holds the text, once it is there."""
        every = f"[...document.querySelectorAll({json.dumps(selector)})]"
        found = f"{every}.find((element) => element.innerText.includes({json.dumps(text)}))"
        await self.until(f"!!{found} && !{found}.disabled", f"{selector} {text!r} is not there")
        await self.run(f"{found}.click(); 0")

    async def write(self, selector: str, text: str) -> None:
        """Put the focus into a field and type."""
        await self.until(f"!!document.querySelector({json.dumps(selector)})", f"{selector} is not there")
        await self.run(f"document.querySelector({json.dumps(selector)}).focus(); 0")
        await self._call("Input.insertText", text=text)

    async def press(self, key: str, *, code: str = "", hold: bool = False) -> None:
        """Press a key; `hold`: without letting go."""
        numbers = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        more = {"windowsVirtualKeyCode": numbers[key]} if key in numbers else {"text": key}
        if key in ("Enter", " "):
            more["text"] = "\r" if key == "Enter" else " "
        await self._call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, **more)
        if not hold:
            await self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    async def axe(self) -> list[str]:
        """What axe-core finds wrong with the page as it is shown now."""
        await self.run((console_modules() / "axe-core/axe.min.js").read_text() + "; 0")
        await self.until(f"!{_MOVES}", "the page does not come to rest")
        script = """axe.run({ resultTypes: ["violations"] }).then(({ violations }) => violations.map(({ id, nodes }) =>
          `${id}: ${nodes.map((node) => `${node.html.slice(0, 160)} (${node.failureSummary})`).join(" | ")}`))"""
        return list(await self.run(script))

    async def check(self) -> None:
        """Fail when the page complained: exceptions, logged errors, violations of its policy."""
        violations = await self.run("window.violations")
        assert (self.faults, violations) == ([], [])

    def _on_event(self, method: str | None, parameters: Mapping[str, Any]) -> None:
        super()._on_event(method, parameters)
        match method:
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(parameters["exceptionDetails"])[:1000])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                self.faults.append(json.dumps(parameters["args"])[:1000])
            case "Log.entryAdded" if _is_fault(parameters["entry"]):
                self.faults.append(parameters["entry"]["text"])


def _is_fault(entry: dict[str, Any]) -> bool:
    """Whether the page is at fault, not the network, to which a page that opens its sockets itself owes an entry."""
    of_network = entry["source"] == "network" or entry["text"].startswith("WebSocket connection to ")
    return entry["level"] == "error" and not of_network


@contextlib.asynccontextmanager
async def console_tab(browser: Process, url: str, **screen: Any) -> AsyncIterator[ConsoleTab]:
    """A tab of its own that shows this address; at its end the page must not have complained."""
    async with connect(devtools_of(browser), **PATIENT) as connection:
        tab = ConsoleTab(connection)
        try:
            await tab.open("about:blank")
            await tab.prepare(**screen)
            await tab.go(url)
            yield tab
            await tab.check()
        finally:
            with contextlib.suppress(AssertionError):  # a page of no origin has none
                await tab.run("sessionStorage.clear(); localStorage.clear(); 0")
            await tab.close()


def picture(width: int, height: int, colour: tuple[int, int, int], number: int = 0) -> bytes:
    """A JPEG of this colour, with a number so that each differs."""
    image = Image.new("RGB", (width, height), colour)
    ImageDraw.Draw(image).text((8, 8), str(number), (255, 255, 255))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def saved(folder: Path, name: str, png: bytes) -> Path:
    """Write a screenshot with fewer shades of each colour, so that it is small."""
    path = folder / name
    Image.open(io.BytesIO(png)).convert("RGB").point(lambda value: value & 0xFC).save(path, optimize=True)
    return path
