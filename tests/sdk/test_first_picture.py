"""docs/first-picture.md word for word: its commands, and what it says that a browser shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kit.browser import Tab, opened
from tests.kit.clients import eventually, http
from tests.kit.js_sdk import install, node_path
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, Process, clean_environ

pytestmark = [pytest.mark.e2e, pytest.mark.real]

PAGE: Final = (REPOSITORY / "docs/first-picture.md").read_text()
COMMANDS: Final = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
WEB_APP: Final = REPOSITORY / "examples/web_app"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a command of the page in the repository: `shell(text, NAME=value…)`."""
    started: list[Process] = []

    def start(command: str, **environ: str) -> Process:
        output = tmp_path / f"output-{len(started)}"
        process = Process("page", ["bash", "-ec", command], {**clean_environ(), **environ}, output, REPOSITORY)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.end()


def button(label: str) -> str:
    """A script that presses the button with this label."""
    return f"[...document.querySelectorAll('button')].find((each) => each.textContent === {label!r}).click()"


#: Sets fields of a React form as a keyboard does.
FILL: Final = """
(function fill(values) {
  for (const [name, value] of Object.entries(values)) {
    const field = document.querySelector(`input[name=${name}]`);
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(field, value);
    field.dispatchEvent(new Event("input", {bubbles: true}));
  }
})
"""


#: Whether a tile shows a picture: Chromium's own camera draws on green.
SHOWS_A_PICTURE: Final = """
[...document.querySelectorAll("li canvas")].some((tile) => {
  if (!tile.width || !tile.height) return false;
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  pen.drawImage(tile, 0, 0, 1, 1);
  const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
  return alpha === 255 && green > red && green > blue;
})
"""


async def text_of(tab: Tab) -> str:
    return str(await tab.run("document.body.innerText"))


async def healthy(watchout: Process, url: str) -> bool:
    """Whether watchout serves; it must not have ended."""
    assert watchout.running, watchout.output[-3000:]
    try:
        return (await http(f"{url}/health")).status == 200
    except OSError:
        return False


async def comes(tab: Tab, text: str, timeout_s: float = 60) -> None:
    """Wait until the page says something."""

    async def said() -> bool:
        return text in await text_of(tab)

    await eventually(said, timeout_s, f"the page does not say {text!r}")


async def test_the_page_leads_from_better_auth_to_a_live_picture(
    js_sdk: Path, shell: Callable[..., Process], chromium_with_camera: str, tmp_path: Path
) -> None:
    """Word for word, but for both ports and the place of the database: a developer's own may be in use."""
    build, install_app, start_app, start_watchout = COMMANDS
    # These have been done already, once for all tests, with a lock.
    assert build == "npm --prefix sdk/js ci\nnpm --prefix sdk/js run build\n"
    assert install_app == "npm --prefix examples/web_app ci\n"
    install(WEB_APP)
    app_port, port, database = str(free_port()), str(free_port()), tmp_path / "auth.db"
    watchout_url = f"http://localhost:{port}"
    with node_path() as path:
        app = shell(start_app, PATH=path, PORT=app_port, DATABASE_FILE=str(database), WATCHOUT_URL=watchout_url)
        printed = f"the web app is at http://localhost:{app_port}"
        assert printed.replace(app_port, "5173") in PAGE
        await eventually(lambda: printed in app.output, 120, "the web app does not start")
        async with opened(chromium_with_camera, f"http://localhost:{app_port}/") as tab:
            await comes(tab, "Create account")
            await tab.run(f"{FILL}({{email: 'ada@example.com', password: 'engine-of-1843'}})")
            await tab.run(button("Create account"))
            await comes(tab, "No camera yet")
            command = start_watchout.replace("examples/web_app/auth.db", str(database)).replace("5173", app_port)
            assert command != start_watchout
            watchout = shell(command, WATCHOUT_PORT=port, WATCHOUT_HOME=str(tmp_path / "home"))
            await eventually(lambda: healthy(watchout, watchout_url), 120, "watchout does not start")
            await tab.run(button("Use this device's camera"))
            await comes(tab, "this-device")

            async def live() -> bool:
                return bool(await tab.run(SHOWS_A_PICTURE))

            await eventually(live, 60, "no tile with a picture")
            shown = await text_of(tab)
            assert "No camera yet" not in shown
            await tab.run(button("Sign out"))
            await comes(tab, "Create account")
