"""README's browser client, word for word, in a real browser, in a page of another port whose user is signed in."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
from PIL import Image

from tests.kit.browser import Tab, opened, served
from tests.kit.clients import Camera, Clients, eventually, http, new_name
from tests.kit.processes import Process, Watchout, running
from tests.kit.services import BetterAuth, Postgres, running_better_auth

pytestmark = [pytest.mark.e2e, pytest.mark.real]

README: Final = Path(__file__).parents[2] / "README.md"
STREAM: Final = "cam-1"
#: What README's address stands for, and counts of the URLs that its client makes and lets go of.
PAGE: Final = """<!doctype html><meta charset="utf-8"><img><script>
const token = TOKEN, img = document.querySelector("img");
window.WebSocket = class extends WebSocket {
  constructor(url) { super(url.replace("ws://localhost:3000", ADDRESS)); window.sockets = (window.sockets ?? 0) + 1; }
};
window.urls = { made: 0, alive: 0 };
for (const [name, step] of [["createObjectURL", 1], ["revokeObjectURL", -1]]) {
  const real = URL[name].bind(URL);
  URL[name] = (what) => {
    if (step > 0 || what.startsWith("blob:")) window.urls.alive += step;
    window.urls.made += step > 0;
    return real(what);
  };
}
function seen() {
  const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext("2d");
  if (!img.complete || !img.naturalWidth) return null;
  pen.drawImage(img, 0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value > 128);
}
</script><script>CLIENT</script>"""


def client_of_readme() -> str:
    """The one script of README, to the letter."""
    (script,) = re.findall(r"^```js\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert "ws://localhost:3000/streams/subscribe" in script
    assert f'"{STREAM}"' in script
    return str(script)


def picture(red: int, green: int, blue: int, noise: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of one colour; with noise one that does not shrink."""
    image = Image.new("RGB", size, (red, green, blue))
    if noise:
        image = Image.frombytes("RGB", size, random.Random(noise).randbytes(size[0] * size[1] * 3))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


RED, BLUE = picture(255, 0, 0), picture(0, 0, 255)


@pytest.fixture(scope="module")
def app(postgres: Postgres) -> Iterator[tuple[BetterAuth, str]]:
    """A web app with Better Auth, and its database."""
    url = postgres.create_database()
    with running_better_auth(url) as made:
        yield made, url


@contextlib.asynccontextmanager
async def opened_page(
    app: tuple[BetterAuth, str], chromium: str, token: str, *, listed: bool = False, **more: str
) -> AsyncIterator[tuple[Watchout, Tab]]:
    """A watchout for the users of this app, and a tab with README's client, in a page of an origin of its own.

    `listed`: that origin stands in `ALLOWED_ORIGINS`.
    """
    auth, database_url = app
    text = PAGE.replace("TOKEN", json.dumps(token)).replace("CLIENT", client_of_readme())
    async with served(lambda: text) as url:
        environ = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": auth.ready["secret"], "DRAIN_S": "0.1", **more}
        if listed:
            environ["ALLOWED_ORIGINS"] = url.rstrip("/")
        with running(environ=environ, start=False) as watchout:
            watchout.start("router")
            watchout.start("gateway")
            watchout.wait_ready()
            text = text.replace("ADDRESS", json.dumps(watchout.url.replace("http", "ws")))
            async with opened(chromium, url) as tab:
                yield watchout, tab


async def sign_up_in_browser(chromium: str, app: BetterAuth) -> None:
    """Sign a user up in the browser, which has the cookie of that session from then on."""
    calls = app.url + app.ready["basePath"]
    person = {"email": f"{new_name('ann')}@example.com", "password": "correct horse", "name": "ann"}
    async with opened(chromium, f"{calls}/ok") as tab:
        call = {"method": "POST", "headers": {"content-type": "application/json"}, "body": json.dumps(person)}
        path = json.dumps(f"{calls}/sign-up/email")
        answer = await tab.run(f"fetch({path}, {json.dumps(call)}).then((answer) => answer.json())")
        assert answer["token"]


async def shows(tab: Tab, camera: Camera, shown: bytes, colour: list[bool]) -> None:
    """Send a picture until it is seen in the page."""

    async def there() -> bool:
        await camera.show_binary(shown)
        return bool(await tab.run("seen()") == colour)

    await eventually(there)


async def moves(tab: Tab, camera: Camera) -> None:
    for _ in range(3):
        await shows(tab, camera, RED, [True, False, False])
        await shows(tab, camera, BLUE, [False, False, True])


async def cookies_ignored(watchout: Watchout) -> float:
    """How many cookies did not count because of the page that they came from."""
    text = (await http(f"{watchout.url}/metrics")).body.decode()
    values = re.findall(r"^\w*origin_refused_total(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, values))


@pytest.mark.parametrize("origins", ["none is listed", "another is listed", "the page is listed"])
async def test_the_client_of_readme_shows_pictures_that_move(app, chromium, clients: Clients, origins):
    await sign_up_in_browser(chromium, app[0])
    bob = app[0].sign_up("bob")  # whose streams the browser's user may not view
    more = {"ALLOWED_ORIGINS": "https://app.example.com"} if origins == "another is listed" else {}
    listed = origins == "the page is listed"
    async with opened_page(app, chromium, bob.token, listed=listed, **more) as (watchout, tab):
        camera = await clients.camera(watchout.url, bob.token)
        await camera.register(STREAM)
        await moves(tab, camera)
        assert await tab.run("sockets") == 1
        assert await cookies_ignored(watchout) == (0 if listed else 1)  # it was sent


async def test_the_client_of_readme_comes_back_after_a_restart_and_not_when_its_session_ended(app, chromium, clients):
    bob = app[0].sign_up("bob")
    async with opened_page(app, chromium, bob.token) as (watchout, tab):
        camera = await clients.camera(watchout.url, bob.token)
        await camera.register(STREAM)
        await moves(tab, camera)
        gateway = watchout.one("gateway")
        gateway.send_signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        watchout.start("gateway").wait_for_output("gateway ready")
        camera = await clients.camera(watchout.url, bob.token)
        await camera.register(STREAM)
        await moves(tab, camera)
        assert await tab.run("sockets") >= 2
        before = await tab.run("sockets")
        app[0].sign_out(bob.token)
        assert await camera.closed() == 4500
        await asyncio.sleep(4)  # longer than the client would wait
        assert await tab.run("sockets") == before


#: What goes through the client in a test of its memory, and by how much a browser may grow that has tidied up. With
#: URLs that nobody revokes it grows by every byte that came.
FRAMES: Final = 700
GROWTH_MB: Final = 25


async def test_the_client_of_readme_keeps_memory_flat(app, chromium, clients, browser_process):
    bob = app[0].sign_up("bob")
    big = [picture(255, 0, 0, noise=number, size=(320, 240)) for number in range(1, 9)]
    assert FRAMES * len(big[0]) / 1e6 > 1.5 * GROWTH_MB
    async with opened_page(app, chromium, bob.token) as (watchout, tab):
        camera = await clients.camera(watchout.url, bob.token)
        await camera.register(STREAM)
        await moves(tab, camera)

        async def show(count: int) -> None:
            """Send so many, each when the page has made the last one's URL."""
            for number in range(count):
                made = await tab.run("urls.made")
                await camera.show_binary(big[number % len(big)])
                seen = f"urls.made > {made} ? done() : setTimeout(look, 1, done)"
                await tab.run(f"new Promise(function look(done) {{ {seen} }})")
            await tab.tidy_up()

        await show(100)
        before = resident_mb(browser_process)
        await show(FRAMES)
        assert await tab.run("urls.alive") <= 1
        await eventually(lambda: resident_mb(browser_process) < before + GROWTH_MB)


def resident_mb(browser: Process) -> float:
    """Memory of a browser and of all that it started, without those that end meanwhile."""
    found = 0.0
    for each in [psutil.Process(browser.pid), *browser.children]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += each.memory_info().rss / 1e6
    return found
