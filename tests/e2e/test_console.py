"""The web console in a real Chromium, on real processes: each view and each state once, with keys and axe-core."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest
from PIL import Image

from tests.kit.browsers import firefox
from tests.kit.clients import Camera, Clients, eventually, http, new_name
from tests.kit.console import ELSEWHERE, ConsoleTab, console_tab, picture
from tests.kit.ml_stub import MlStub
from tests.kit.processes import Process, Watchout, running
from tests.kit.services import BetterAuth, Postgres, running_better_auth
from tests.kit.session_stores import end_session
from watchout.common.clock import now_ms

pytestmark = [pytest.mark.e2e, pytest.mark.real]

COMES_S: Final = 30.0
RED, BLUE = (200, 30, 30), (30, 60, 200)
#: How the tiles look, by stream.
LOOKS: Final = (
    "Object.fromEntries([...document.querySelectorAll('.tile')].map((e) => [e.dataset.stream, e.dataset.look]))"
)
#: The strongest channel of the picture in the middle of an element, as its screenshot shows it.
BOX: Final = "JSON.stringify(document.querySelector({}).getBoundingClientRect())"


@pytest.fixture(scope="module")
def started() -> Iterator[Watchout]:
    """A watchout without an ML service, for the whole module. Its processes are not ended."""
    with running() as made:
        yield made


@pytest.fixture
def user(started: Watchout) -> str:
    """A token of a user of this test alone, who has no stream yet."""
    return started.token(new_name("ann"))


class Cameras:
    """Cameras that show pictures until the test ends."""

    def __init__(self, clients: Clients, url: str, token: str) -> None:
        self._clients, self._url, self._token = clients, url, token
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.sockets: dict[str, Camera] = {}

    async def start(
        self, stream: str, colour: tuple[int, int, int], width: int = 320, height: int = 180, fps: float = 10
    ) -> Camera:
        """Publish a stream of pictures of this colour and shape."""
        camera = await self._clients.camera(self._url, self._token)
        await camera.register(stream, produces=["video-frame", "alert"])
        self.sockets[stream] = camera

        async def show() -> None:
            number = 0
            while True:
                number += 1
                await camera.show_binary(picture(width, height, colour, number), timestamp=now_ms())
                await asyncio.sleep(1 / fps)

        self._tasks[stream] = asyncio.get_running_loop().create_task(show(), name="camera")
        return camera

    async def pause(self, stream: str) -> None:
        """Send no more pictures; the camera stays connected."""
        task = self._tasks.pop(stream)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self, stream: str) -> None:
        """End the camera."""
        await self.pause(stream)
        await self.sockets.pop(stream).leave()

    async def close(self) -> None:
        for stream in list(self._tasks):
            await self.pause(stream)


@pytest.fixture
async def cameras(clients: Clients, started: Watchout, user: str) -> AsyncIterator[Cameras]:
    made = Cameras(clients, started.url, user)
    yield made
    await made.close()


@pytest.fixture
def tabs(console_browser: Process, started: Watchout) -> Callable[..., Any]:
    """Open the console: `tabs("#/live", token)`; the page must not complain until the end of the block."""

    def open_tab(fragment: str = "", token: str | None = None, **screen: Any) -> Any:
        sign = "" if token is None else f"{'&' if '?' in fragment else '?'}token={token}"
        return console_tab(console_browser, f"{started.url}/{(fragment or '#/live') + sign}", **screen)

    return open_tab


async def looks(tab: ConsoleTab, expected: dict[str, str], timeout_s: float = COMES_S) -> None:
    """Wait until the tiles look like this."""
    seen: Any = None

    async def fits() -> bool:
        nonlocal seen
        seen = await tab.run(LOOKS)
        return bool(seen == expected)

    with contextlib.suppress(AssertionError):
        await eventually(fits, timeout_s)
    assert seen == expected


async def colour_of(tab: ConsoleTab, selector: str) -> tuple[int, int, int]:
    """The colour in the middle of an element, as it is on the screen."""
    box = json.loads(await tab.run(BOX.format(json.dumps(selector))))
    image = Image.open(io.BytesIO(await tab.screenshot())).convert("RGB")
    pixel = image.getpixel((int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)))
    assert isinstance(pixel, tuple)
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


async def shows(tab: ConsoleTab, selector: str, colour: tuple[int, int, int]) -> None:
    """Wait until the middle of an element has about this colour."""

    async def fits() -> bool:
        seen = await colour_of(tab, selector)
        return all(abs(a - b) < 40 for a, b in zip(seen, colour, strict=True))

    await eventually(fits, COMES_S, f"{selector} does not show {colour}")


# ── signing in ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── the grid ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_yet_tells_how_to_publish_and_becomes_a_tile_by_itself(
    tabs, started: Watchout, cameras: Cameras, user: str
) -> None:
    async with tabs("#/live", user) as tab:
        await tab.sees("watchout-ctl publish test --stream cam-1")
        stream = new_name()
        await cameras.start(stream, RED)
        await looks(tab, {stream: "live"})
        await shows(tab, ".tile canvas", RED)
        ratio = await tab.run(
            "(({width, height}) => width / height)(document.querySelector('.picture').getBoundingClientRect())"
        )
        assert ratio == pytest.approx(16 / 9, rel=0.03)
        await tab.sees("fps", ".tile .rates")


async def test_a_picture_looks_as_its_frames_are(tabs, cameras: Cameras, user: str) -> None:
    names = {kind: new_name(kind) for kind in ("live", "idle", "gone")}
    for name in names.values():
        await cameras.start(name, BLUE, 180, 320)
    async with tabs("#/live", user) as tab:
        await looks(tab, dict.fromkeys(sorted(names.values()), "live"))
        await cameras.pause(names["idle"])
        await cameras.stop(names["gone"])
        await looks(tab, {names["live"]: "live", names["idle"]: "idle", names["gone"]: "gone"})
        await tab.sees("The camera is gone", f".tile[data-stream='{names['gone']}']")
        grey = await tab.run(
            f"getComputedStyle(document.querySelector('.tile[data-stream=\"{names['gone']}\"] canvas')).filter"
        )
        assert "grayscale" in grey
        await cameras.start(names["gone"], RED)
        await looks(tab, dict.fromkeys(sorted(names.values()), "live") | {names["idle"]: "idle"})


async def test_a_layout_is_in_the_address_and_low_bandwidth_asks_for_less(tabs, cameras: Cameras, user: str) -> None:
    one, two = sorted([new_name(), new_name()])
    for name in (one, two):
        await cameras.start(name, RED)
    async with tabs(f"#/live?streams={two}", user) as tab:
        await looks(tab, {two: "live"})
        await tab.click("button", "Choose")
        await tab.click(".chooser label", one)
        await looks(tab, {one: "live", two: "live"})
        assert await tab.run("location.hash") == "#/live"
        await tab.click(".toolbar .segments label:last-of-type input")
        await tab.until("location.hash === '#/live?size=large'", "the address does not say it")
        await tab.click("button", "Low bandwidth")
        await tab.until("location.hash === '#/live?size=large&saving=1'", "the address does not say it")
        slow = "[...document.querySelectorAll('.tile .rates')].map((e) => parseFloat(e.innerText))"
        await tab.until(
            f"{slow}.length === 2 && {slow}.every((fps) => fps > 0 && fps <= 1.5)", "the rate is not lowered"
        )
        await looks(tab, {one: "live", two: "live"})


# ── one stream ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_zoom_stays_while_pictures_change_and_a_picture_is_saved(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, BLUE, 640, 360)
    frame = "Number(document.querySelector('.stage .picture').dataset.frame)"
    async with tabs(f"#/stream/{stream}", user) as tab:
        await tab.sees("live", ".state")
        for _ in range(3):
            await tab.press("+")
        await tab.until("document.querySelector('.stage').dataset.zoom === '3.375'", "it is not larger")
        wide = "document.querySelector('.sheet').getBoundingClientRect().width"
        shown, width = await tab.run(frame), await tab.run(wide)
        await tab.until(f"{frame} > {shown} + 10", "no new pictures come")
        assert await tab.run(wide) == width
        await tab.press("ArrowRight")
        await tab.until(
            "parseFloat(document.querySelector('.sheet').style.left) < -118.75", "the picture does not move"
        )
        await tab.press("0")
        await tab.until("document.querySelector('.stage').dataset.zoom === '1'", "it is not whole again")
        await tab.run("""
          window.saved = [];
          HTMLAnchorElement.prototype.click = function () { window.saved.push([this.download, this.href]); }; 0""")
        await tab.press("s")
        await tab.until("window.saved.length", "nothing is saved")
        name, url = (await tab.run("window.saved"))[0]
        assert name.startswith(f"{stream}-")
        assert name.endswith((".jpg", ".jpeg"))
        size = await tab.run(f"""new Promise((done) => Object.assign(new Image(), {{ src: {json.dumps(url)},
          onload() {{ done([this.naturalWidth, this.naturalHeight]); }} }}))""")
        assert size == [640, 360], "the picture as the camera sent it"
        for word in ("640 × 360", "Viewers", "Age"):
            await tab.sees(word, ".facts")


async def test_a_stream_of_somebody_else_is_not_shown(tabs, started: Watchout, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    async with tabs(f"#/stream/{stream}", started.token(new_name("bob"))) as tab:
        await tab.sees("Not yours to view", "h2")
        assert stream in await tab.text()


# ── this device as a camera ──────────────────────────────────────────────────────────────────────────────────────────


async def test_this_device_publishes_when_somebody_watches_and_its_button_raises_an_alert(
    tabs, started: Watchout, clients: Clients, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.click("button", "Start")
        await tab.sees("nobody watches", ".state")
        stream = await tab.text("h1")
        viewer = await clients.viewer(started.url, user)
        await viewer.subscribe(stream, format="binary")
        frame = await viewer.find("video-frame", COMES_S)
        assert Image.open(io.BytesIO(frame["picture"])).format == "JPEG"
        await tab.sees("On air", ".state")
        await tab.until("document.querySelector('video').videoWidth > 0", "there is no preview")
        await tab.write(".panic input", "come quickly")
        await tab.run("document.querySelector('.panic-button').focus(); 0")
        await tab.press(" ", hold=True)
        alert = await viewer.find("alert", COMES_S)
        assert (alert["severity"], alert["message"]) == ("critical", "come quickly")
        await tab.sees(f"critical alert of {stream}: come quickly", ".said")
        await viewer.send("unsubscribe", streamId=stream)
        await tab.sees("nobody watches", ".state")
        await tab.run("window.track = document.querySelector('video').srcObject.getVideoTracks()[0]; 0")
        await tab.click("button", "Stop")
        await tab.sees("Publish what the camera", "form")
        await tab.until("window.track.readyState === 'ended'", "the camera of the device is still on", COMES_S)


async def test_a_camera_that_is_not_allowed_and_a_page_without_https_are_said(
    tabs, started: Watchout, console_browser: Process, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "denied", started.url)
        await tab.click("button", "Start")
        await tab.sees("The camera is not allowed", "h2")
    elsewhere = started.url.replace("127.0.0.1", ELSEWHERE)
    async with console_tab(console_browser, f"{elsewhere}/#/camera?token={user}") as tab:
        await tab.sees("Browsers open a camera only over HTTPS", "h2")
        await tab.sees("TLS_CERT")
        await tab.view("#/live")
        await tab.until("!!document.querySelector('svg.qr')", "there is no code for a phone")
        assert await tab.run(
            "performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin))"
        )


async def test_a_stream_that_is_taken_over_or_belongs_to_others_is_said(
    tabs, started: Watchout, clients: Clients, cameras: Cameras, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.click("button", "Start")
        await tab.sees("nobody watches", ".state")
        stream = await tab.text("h1")
        await cameras.start(stream, RED)
        await tab.sees("Published elsewhere", "h2")
    async with tabs("#/camera", started.token(new_name("bob"))) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.sees("Publish what the camera", "form")
        await tab.run("document.querySelector('form input').select(); 0")
        await tab.write("form input", stream)
        await tab.click("button", "Start")
        await tab.sees("Not yours", "h2")


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_alert_comes_with_the_picture_of_its_frame_and_is_acknowledged_by_keys(
    console_browser: Process, watchout: Callable[..., Watchout], clients: Clients
) -> None:
    stub = MlStub()
    await stub.start()
    started = watchout(environ={"ML_SERVICE_URL": stub.url, "ALERT_COOLDOWN_S": "0", "ML_FPS": "5"})
    user = started.token("ann")
    cameras = Cameras(clients, started.url, user)
    try:
        async with (
            console_tab(console_browser, f"{started.url}/#/alerts?token={user}") as tab,
            console_tab(console_browser, f"{started.url}/#/alerts?token={user}") as other,
        ):
            await tab.to_front()
            await tab.sees("No alert yet")
            stub.answer = {
                "alert": {"severity": "high", "message": "a person at the door", "metadata": {"confidence": 0.9}}
            }
            stub.mode = "answer"
            await cameras.start("door", RED)
            await tab.sees("a person at the door", ".list")
            stub.mode = "none"
            await tab.press("j")
            await tab.sees("confidence", ".detail")
            await tab.until("document.querySelector('.evidence img')?.naturalWidth === 320", "there is no picture")
            await shows(tab, ".evidence img", RED)
            await tab.press("n")
            await tab.write(".acknowledge input", "it was the postman")
            await tab.press("Enter")
            await tab.sees("it was the postman", ".detail .acknowledged")
            chosen = await tab.run("document.querySelector('[data-alert][aria-current=true]').dataset.alert")
            await other.until(
                f"!!document.querySelector('li.done [data-alert=\"{chosen}\"]')", "the other page does not hear of it"
            )
            kept = (await http(f"{started.url}/alerts", token=user)).json["alerts"]
            assert [a["acknowledged"]["note"] for a in kept if a["id"] == chosen] == ["it was the postman"]
            await tab.click("button", "Open only")
            await tab.until("location.hash.includes('open=1')", "the address does not say it")
            await tab.until(f"!document.querySelector('.list [data-alert=\"{chosen}\"]')", "it is still in the list")
            await other.to_front()
            await other.view(f"#/alerts/{chosen}?stream=door")
            await other.sees("it was the postman", ".detail")
            await other.run("""(() => { const select = document.querySelector('.toolbar select');
              select.value = 'critical'; select.dispatchEvent(new Event('change', { bubbles: true })); })()""")
            await other.until("location.hash.includes('severity=critical')", "the address does not say it")
            await other.view("#/alerts/no-such-alert")
            await other.sees("not kept any more", "h2")
    finally:
        await cameras.close()
        await stub.stop()


# ── sharing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_shared_link_shows_one_stream_until_it_is_ended(
    tabs, started: Watchout, console_browser: Process, cameras: Cameras, user: str
) -> None:
    stream, other = new_name(), new_name()
    await cameras.start(stream, RED)
    await cameras.start(other, BLUE)
    async with tabs(f"#/sharing?stream={stream}", user) as tab:
        await tab.sees("None.", ".card + .card")
        await tab.click("button", "Make the link")
        await tab.until("!!document.querySelector('.made svg.qr')", "there is no code")
        link = await tab.text(".made code")
        assert link.startswith(f"{started.url}/#/stream/{stream}?share=")
        async with console_tab(console_browser, link) as guest:
            await guest.sees("live", ".state")
            assert "share" not in await guest.run("location.href")
            assert await guest.run("[...document.querySelectorAll('nav a')].map((a) => a.innerText.trim())") == [
                "Live", "Alerts",
            ]  # fmt: skip
            await guest.view(f"#/stream/{other}")
            await guest.sees("Not yours to view", "h2")
            await guest.view("#/live")
            await looks(guest, {stream: "live"})
            await tab.to_front()
            await tab.click("button", "End")
            await tab.sees("None.", ".card + .card")
            await guest.to_front()
            await guest.sees("Your session has ended", "h1")
        await tab.view("#/sharing?stream=nobody-has-this")
        await tab.sees("Not yours to share", "h2")


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_health_says_in_a_sentence_what_is_wrong_and_lists_processes(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    async with tabs("#/health", user) as tab:
        await tab.sees("No ML service is set", ".findings")
        await tab.sees("Set ML_SERVICE_URL", ".findings")
        for word in ("router", "gateway", "mlbridge", "Memory"):
            await tab.sees(word, ".table")
        await tab.sees(stream)
        await tab.until("/ MB/.test(document.querySelector('table').innerText)", "no memory is shown")
        await tab.until("/\\d\\/s/.test(document.querySelector('.facts').innerText)", "no rate is shown")


async def test_numbers_behind_a_token_are_shown_with_it(in_one_process, console_browser: Process) -> None:
    started = await in_one_process(STATS_TOKEN="stats-secret-1234")
    async with console_tab(console_browser, f"{started.url}/#/health?token={started.token('ann')}") as tab:
        await tab.sees("behind STATS_TOKEN", "form")
        await tab.write("form input", "wrong")
        await tab.press("Enter")
        await tab.sees("not the stats token", "form")
        await tab.run("document.querySelector('form input').select(); 0")
        await tab.write("form input", "stats-secret-1234")
        await tab.press("Enter")
        await tab.sees("gateway", "table")


async def test_too_many_connections_are_said_with_the_time_of_the_next_attempt(
    in_one_process, console_browser: Process, clients: Clients
) -> None:
    started = await in_one_process(MAX_CONNECTIONS_PER_USER="1")
    token = started.token("ann")
    camera = await clients.camera(started.url, token)
    await camera.register("cam")
    async with console_tab(console_browser, f"{started.url}/#/live?token={token}") as tab:
        await tab.sees("Too many connections are open; connecting again in", ".connection")
        await camera.leave()
        await tab.sees("connected", ".pill", 2 * COMES_S)


async def test_firefox_shows_pictures_under_the_same_policy(started: Watchout, cameras: Cameras, user: str) -> None:
    await cameras.start(new_name(), RED)
    async with firefox() as browser:
        await browser.show(f"{started.url}/#/live?token={user}")

        async def is_red() -> bool:
            image = Image.open(io.BytesIO(await browser.screenshot())).convert("RGB")
            pixel = image.getpixel((image.width // 4, image.height // 2))
            return isinstance(pixel, tuple) and all(abs(a - b) < 40 for a, b in zip(pixel, RED, strict=True))

        await eventually(is_red, 2 * COMES_S, "Firefox shows no picture")


# ── what goes away, and comes back without a reload ──────────────────────────────────────────────────────────────────


async def test_a_killed_gateway_and_a_killed_router_are_said_and_come_back_without_a_reload(
    console_browser: Process, watchout: Callable[..., Watchout], clients: Clients
) -> None:
    started = watchout()
    user = started.token("ann")
    cameras = Cameras(clients, started.url, user)
    await cameras.start("cam", RED)
    try:
        async with console_tab(console_browser, f"{started.url}/#/live?token={user}") as tab:
            await looks(tab, {"cam": "live"})
            await tab.run("window.same = true; 0")
            started.one("gateway").kill()
            await tab.sees("connecting again in", ".connection")
            await looks(tab, {"cam": "stale"})
            await cameras.pause("cam")
            started.start("gateway")
            await eventually(lambda: started.get("/health")[0] == 200, COMES_S, "the gateway is not healthy")
            await cameras.start("cam", BLUE)
            await looks(tab, {"cam": "live"}, 60)
            await shows(tab, ".tile canvas", BLUE)
            await tab.until("!document.querySelector('.connection p')", "the bar is still there")
            started.one("router").kill()
            await tab.sees("The router is away", ".connection")
            await looks(tab, {"cam": "live"})  # frames of the same gateway go on
            await tab.view("#/health")
            await tab.sees("the router is unreachable", ".findings")
            router = started.start("router")
            await asyncio.to_thread(router.wait_for_output, "router ready")
            await tab.view("#/live")
            await tab.until("!document.querySelector('.connection p')", "the router is still away")
            await looks(tab, {"cam": "live"})
            assert await tab.run("window.same") is True
    finally:
        await cameras.close()


# ── for everybody ────────────────────────────────────────────────────────────────────────────────────────────────────

VIEWS: Final = ("#/live", "#/stream/{}", "#/alerts", "#/camera", "#/sharing", "#/health")
SCREENS: Final = {
    "dark": {"dark": True},
    "light": {"dark": False},
    "phone": {"width": 390, "height": 844, "dark": False, "calm": True},
}


@pytest.mark.parametrize("screen", SCREENS)
async def test_every_view_is_clean_for_axe_and_fits_the_screen(tabs, cameras: Cameras, user: str, screen: str) -> None:
    stream = new_name()
    camera = await cameras.start(stream, RED)
    for severity in ("low", "medium", "high", "critical"):
        await camera.send("alert", streamId=stream, severity=severity, message=f"something {severity}")
    async with tabs("#/live", None, **SCREENS[screen]) as tab:
        await tab.sees("Sign in", "h1")
        assert await tab.axe() == []
        await tab.write("input[name=token]", user)
        await tab.press("Enter")
        await looks(tab, {stream: "live"})
        for view in VIEWS:
            await tab.view(view.format(stream))
            await tab.until("!!document.querySelector('main h1') && !document.querySelector('[data-busy=true]')", view)
            if view == "#/alerts":
                await tab.sees("something critical", ".list")
                await tab.press("j")
                await tab.sees("Acknowledge", ".detail")
            assert await tab.axe() == [], view
            assert await tab.run("document.documentElement.scrollWidth <= innerWidth"), (
                f"{view} is wider than the screen"
            )
        await tab.press("?")
        await tab.sees("Keys", "dialog")
        await tab.until("document.activeElement.innerText === 'Close'", "the focus is not in the dialog")
        assert await tab.axe() == []


async def test_everything_is_reached_by_keys_and_shows_where_the_focus_is(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    focused = """(() => { const e = document.activeElement, style = getComputedStyle(e);
      return [e.innerText || e.ariaLabel || e.name, style.outlineStyle !== 'none']; })()"""
    async with tabs("#/live", user) as tab:
        await looks(tab, {stream: "live"})
        reached = []
        for _ in range(40):
            await tab.press("Tab")
            if await tab.run("document.activeElement === document.body"):
                break  # the last one: the browser's own bar has the focus
            name, visible = await tab.run(focused)
            reached.append(str(name))
            assert visible or name in ("small", "medium", "large", "size"), name
        words = " ".join(reached)
        for word in ("Skip to the content", "Live", "Alerts", "Camera", "Health", "Sign out", "Low bandwidth", stream):
            assert word in words, words
        await tab.run("document.activeElement.blur(); 0")
        await tab.press("2")
        await tab.sees("Alerts", "h1")
        await tab.until("document.activeElement.id === 'main'", "the focus is not in the view")


async def test_the_switch_of_colours_wins_over_the_system(tabs, user: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    async with tabs("#/live", user, dark=False) as tab:
        await tab.sees("No stream yet")
        light = await tab.run(ground)
        await tab.click("button[aria-label^=Colours]")
        await tab.until(f"{ground} !== {json.dumps(light)}", "it is not dark")
        await tab.reload()
        await tab.sees("No stream yet")
        assert await tab.run(ground) != light


async def test_a_console_that_is_switched_off_is_the_list_of_paths(in_one_process) -> None:
    started = await in_one_process(CONSOLE="false")
    browser = {"Accept": "text/html"}
    page = await http(f"{started.url}/", headers=browser)
    assert page.headers["content-type"].startswith("text/plain")
    assert b"/streams/register" in page.body
    await started.start_gateway(CONSOLE="true")
    shown = await http(f"{started.urls[1]}/", headers=browser)
    assert shown.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert (await http(f"{started.url}/console/licences.txt")).status == 404
    assert (await http(f"{started.urls[1]}/console/licences.txt")).status == 200


async def test_a_new_alert_is_said_in_other_views_and_notifications_say_when_they_are_not_allowed(
    tabs, started: Watchout, cameras: Cameras, user: str
) -> None:
    stream = new_name()
    camera = await cameras.start(stream, RED)
    async with tabs("#/live", user) as tab:
        await looks(tab, {stream: "live"})
        await camera.send("alert", streamId=stream, severity="high", message="<b>door</b> & window")
        await tab.sees(f"high alert of {stream}: <b>door</b> & window", ".said")
        await tab.sees("1", ".badge")
        await tab.permit("notifications", "denied", started.url)
        await tab.view("#/alerts")
        await tab.click("button", "Notify")
        await tab.sees("does not let this page notify", ".said")
        assert await tab.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
        await tab.click("button", "Sound")
        await tab.until("document.querySelectorAll('[aria-pressed=true]').length === 1", "the sound is not on")
        await tab.reload()
        await tab.until("document.querySelectorAll('[aria-pressed=true]').length === 1", "the wish is forgotten")
