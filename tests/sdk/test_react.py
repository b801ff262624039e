"""The React package in a real browser, under StrictMode: one socket, nothing left behind, no render for a frame."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.browser import Tab, opened
from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.js_sdk import install
from tests.kit.numbered_camera import numbered_cameras
from tests.kit.processes import SERVICE_TOKEN, Watchout, running
from tests.kit.sdk_page import sdk_page
from tests.kit.slow_link import SlowLink

pytestmark = [pytest.mark.e2e, pytest.mark.real]

PAGE: Final = Path(__file__).parent / "pages" / "react.jsx"
REACT_18: Final = Path(__file__).parent / "react18"
#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 40.0
#: Workers that were started and not ended.
COUNTING: Final = """
window.workers = { started: 0, running: 0 };
window.Worker = class extends Worker {
  constructor(...args) { super(...args); window.workers.started += 1; window.workers.running += 1; }
  terminate() { window.workers.running -= 1; super.terminate(); }
};
"""


@pytest.fixture(scope="module", params=["18", "19"])
def bundle(request: pytest.FixtureRequest, js_sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as an app's bundler makes it with this version of React, with the worker's file beside it."""
    folder = tmp_path_factory.mktemp("react")
    former = []
    if request.param == "18":
        install(REACT_18)
        former = [f"--alias:{name}={REACT_18 / 'node_modules' / name}" for name in ("react", "react-dom")]
    command = [
        str(js_sdk / "node_modules/.bin/esbuild"), str(PAGE), "--bundle", "--format=esm", "--jsx=automatic",
        f"--outfile={folder / 'page.js'}", '--define:process.env.NODE_ENV="development"', "--log-level=warning",
        *former,
    ]  # fmt: skip
    environ = {"NODE_PATH": str(js_sdk / "node_modules"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    shutil.copy(js_sdk / "client/dist/browser/worker.js", folder / "worker.js")
    return folder


@pytest.fixture
async def page(bundle: Path) -> AsyncIterator[str]:
    async with sdk_page(bundle / "page.js", {"worker.js": bundle / "worker.js"}) as url:
        yield url


async def loaded(tab: Tab) -> None:
    await eventually(lambda: tab.run("window.loaded"), COMES_S, "the page's script does not run")


async def live(tab: Tab) -> None:
    await eventually(lambda: tab.run("window.tile?.state === 'live'"), COMES_S, "no picture")


async def test_a_hundred_mounts_in_strict_mode_use_one_socket_and_leave_nothing(
    chromium: str, page: str, clients: Clients
) -> None:
    with running() as started:
        token, name = started.token(), new_name()
        async with (
            SlowLink(started.port, 1e9).running() as link,
            numbered_cameras(clients, started.url, token, [name], 10),
            opened(chromium, page, COUNTING) as tab,
        ):
            await loaded(tab)
            before = await connections(started)
            app = [f"http://127.0.0.1:{link.port}", token, name, {"facts": False}]
            # At one go: a client that nobody uses for a second is closed.
            arguments = ", ".join(map(json.dumps, app))
            await tab.run(f"often(99, {arguments}).then(() => mount({arguments}))")
            await live(tab)
            assert 1 <= link.connections <= 3  # one, but where the browser paused for longer than a client is kept
            assert await tab.run("document.querySelectorAll('canvas').length") == 1
            await tab.run("unmount()")
            assert await tab.run("document.querySelectorAll('canvas').length") == 0

            async def nothing_left() -> bool:
                return await connections(started) == before and await tab.run("workers.running") == 0

            await eventually(nothing_left, COMES_S)
            assert 1 <= await tab.run("workers.started") <= link.connections


async def connections(watchout: Watchout) -> int:
    return int((await http(f"{watchout.url}/stats")).json["totalConnections"])


async def test_hooks_tell_what_happens_and_render_for_no_frame(
    watchout: Any, chromium: str, page: str, clients: Clients
) -> None:
    started = watchout(environ={"ALLOWED_ORIGINS": page.rstrip("/")})
    token, name = started.token(), new_name()
    async with (
        numbered_cameras(clients, started.url, token, [name], 20) as (camera,),
        opened(chromium, page) as tab,
    ):
        await loaded(tab)
        await tab.call("mount", started.url, token, name, {"callback": True})
        await live(tab)
        stream = "facts.stream.status === 'streaming' && facts.stream.fps > 1 && facts.stream.ageMs < 5000"
        await eventually(lambda: tab.run(f"{stream} && facts.connection === 'online'"), COMES_S)
        await eventually(lambda: tab.run(f"facts.streams.includes('{name}')"), COMES_S)

        renders, since_ms = await tab.run("[renders, performance.now()]")
        await camera.more(40)
        rendered, until_ms = await tab.run(f"[renders - {renders}, performance.now()]")
        # StrictMode renders twice: 80 if there was one for each frame. The two facts that change do so once a second.
        assert rendered < 10 + 5 * (until_ms - since_ms) / 1000

        alert = {"streamId": name, "severity": "high", "message": "door open", "id": "a1"}
        await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
        await eventually(lambda: tab.run("facts.alerts.length === 1 && facts.alerts[0][0] === 'door open'"), COMES_S)
        await camera.camera.send("acknowledge", streamId=name, alertId="a1", note="closed it")
        await eventually(lambda: tab.run("facts.alerts[0][1] === 'closed it'"), COMES_S)
        assert await tab.run("facts.alerts.length") == 1
        assert await tab.run("tokens") <= 2
        label = f"document.querySelector('[role=img]').getAttribute('aria-label') === '{name}: live'"
        await eventually(lambda: tab.run(label), COMES_S)


async def test_the_publisher_sends_this_devices_camera_and_says_what_it_does(
    plain_watchout: Watchout, chromium_with_camera: str, page: str, clients: Clients
) -> None:
    token, name = plain_watchout.token(), new_name()
    async with opened(chromium_with_camera, page) as tab:
        await loaded(tab)
        await tab.call("mount", plain_watchout.url, token, name, {"camera": True, "facts": False})
        await eventually(lambda: tab.run("window.published?.state === 'unwanted'"), COMES_S)
        viewer = await clients.viewer(plain_watchout.url, token)
        await viewer.subscribe(name, format="binary")
        await viewer.frame(timeout_s=COMES_S)
        await eventually(lambda: tab.run("window.published.state === 'sending'"), COMES_S)
        assert await tab.run("window.published.streamId") == name
        await eventually(lambda: tab.run("document.querySelector('video').videoWidth > 0"), COMES_S)
        rival = await clients.camera(plain_watchout.url, token)
        await rival.register(name)
        await eventually(lambda: tab.run("window.published.state === 'refused'"), COMES_S)
        assert await tab.run("document.querySelector('[role=status]').textContent") != "refused"
        await tab.run("unmount()")

        await tab.call("mount", plain_watchout.url, token, name, {"camera": True, "facts": False})
        await eventually(lambda: tab.run("window.published.state === 'sending'"), COMES_S)
        await tab.run("unmount()")
        await viewer.find("status", COMES_S, status="offline")
