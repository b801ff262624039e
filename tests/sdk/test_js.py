"""`@watchout/client`: its own tests, and an app on it in Node against real processes, proxies and tokens."""

from __future__ import annotations

import base64
import fcntl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import jwt
import pytest

from tests.kit.clients import JPEG, eventually, http, new_name
from tests.kit.js_sdk import SDK, install, npm
from tests.kit.node import node_command
from tests.kit.processes import SERVICE_TOKEN, Watchout
from tests.kit.proxies import SilentProxy
from tests.kit.services import missing
from tests.kit.session_stores import end_session
from tests.sdk.app import App

pytestmark = [pytest.mark.e2e, pytest.mark.real]

SECRET: Final = "a secret of these tests, long enough for HS256"
RUNTIMES: Final = Path(__file__).parent / "runtimes"
FAST: Final = {"backoff": {"firstMs": 200, "capMs": 1000}}


@pytest.fixture
async def start(js_sdk: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start an app in Node: `await start(url, token=…)`."""
    started: list[App] = []

    async def make(url: str, **options: Any) -> App:
        app = await App.start(node_command() or [], js_sdk / "client/dist/index.js", url, **options)
        started.append(app)
        return app

    yield make
    for app in started:
        await app.end()


@pytest.fixture(params=["bun", "deno"])
async def start_elsewhere(request: pytest.FixtureRequest, js_sdk: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start an app in Bun or Deno, which come as npm packages."""
    install(RUNTIMES)
    commands = {"bun": ["@oven/bun-*/bin/bun", "run"], "deno": ["@deno/*/deno", "run", "--allow-all", "--no-config"]}
    pattern, *arguments = commands[request.param]
    program = next((RUNTIMES / "node_modules").glob(pattern), None)
    if program is None:
        missing(f"no {request.param} for this machine")
        raise AssertionError
    app: App | None = None

    async def make(url: str, **options: Any) -> App:
        nonlocal app
        app = await App.start([str(program), *arguments], js_sdk / "client/dist/index.js", url, **options)
        return app

    yield make
    if app is not None:
        await app.end()


def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


async def alert(watchout: Watchout, stream: str, id: str) -> None:
    body = {"streamId": stream, "severity": "high", "message": f"alert {id}", "id": id}

    async def accepted() -> bool:
        try:
            answer = await http(f"{watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
        except OSError:
            return False
        return answer.status == 202

    await eventually(accepted, 30, "the alert was not accepted")


@pytest.mark.parametrize("package", [path.parent.name for path in sorted(SDK.glob("*/package.json"))])
def test_a_packages_own_checks_and_tests(js_sdk: Path, package: str) -> None:
    with (SDK / "node_modules.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # nobody builds meanwhile
        done = npm("test", "--", f"--package={package}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


async def test_pictures_and_alerts_from_camera_to_viewer(plain_watchout, start):
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    camera, viewer = [await start(plain_watchout.url, token=token) for _ in range(2)]
    await camera.do("camera", options={"streamId": stream, "info": {"deviceName": "door"}})
    await camera.find("camera", state="online")
    await viewer.do("view", streamId=stream)
    await viewer.find("status", streamId=stream, status="streaming")
    await camera.find("demand", viewers=1)
    for number, picture in enumerate((JPEG, JPEG[:-2] + b"another\xff\xd9", bytes(range(256)) * 40), 1):
        await camera.do("room")  # the acknowledgement may come after the viewer's frame
        assert (await camera.find("room"))["room"]
        await camera.do("send", data=text(picture), timestamp=1_750_000_000_000 + number, text=number == 2)
        assert (await camera.find("sent"))["sent"]
        frame = await viewer.find("frame", frameId=number)
        assert base64.b64decode(frame["data"]) == picture
        assert frame["timestamp"] == 1_750_000_000_000 + number
    await alert(plain_watchout, stream, "a1")
    assert (await viewer.find("alert"))["recovered"]
    assert (await camera.find("camera-alert"))["id"] == "a1"
    await camera.do("raise", severity="critical", message="help", id="panic")
    assert (await camera.find("raised"))["id"] == "panic"
    assert (await viewer.find("alert"))["id"] == "panic"
    await viewer.do("acknowledge", streamId=stream, alertId="a1", note="seen")
    assert (await viewer.find("acknowledged"))["note"] == "seen"
    await viewer.do("streams")
    assert stream in (await viewer.find("streams"))["ids"]
    assert await camera.close() == 0
    await viewer.find("status", streamId=stream, status="offline")
    assert await viewer.close() == 0


async def test_of_two_subscriptions_the_forbidden_one_fails(plain_watchout, start, clients):
    mine, theirs = new_name(), new_name()
    stranger = await clients.camera(plain_watchout.url, plain_watchout.token(new_name("stranger")))
    await stranger.register(theirs)
    viewer = await start(plain_watchout.url, token=plain_watchout.token(new_name("user")))
    await viewer.do("view", streamId=theirs)
    await viewer.do("view", streamId=mine)
    ended = await viewer.find("frames-end", streamId=theirs)
    assert ended["code"] == "UNAUTHORIZED"
    assert not ended["retryable"]
    # Either answer may come first.
    offline = {"streamId": mine, "status": "offline"}
    await eventually(lambda: any(offline.items() <= told.items() for told in viewer.all("status")))
    await alert(plain_watchout, mine, "a1")
    assert (await viewer.find("alert"))["streamId"] == mine
    assert [event["state"] for event in viewer.all("state")] == ["connecting", "online"]


async def test_pause_stops_frames_and_not_alerts(plain_watchout, start, clients):
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    camera = await clients.camera(plain_watchout.url, token)
    viewer = await start(plain_watchout.url, token=token)
    await camera.register(stream)
    await viewer.do("view", streamId=stream)
    await viewer.find("status", status="streaming")
    await camera.show()
    await viewer.find("frame")
    await viewer.do("pause", streamId=stream)
    await eventually(lambda: plain_watchout.get("/stats")[1]["totalVideoConsumers"] == 0, 30, "frames are still wanted")
    await camera.show()
    await alert(plain_watchout, stream, "a1")
    await viewer.find("alert", id="a1")
    assert [frame["frameId"] for frame in viewer.all("frame")] == [1]
    await viewer.do("resume", streamId=stream)
    assert (await viewer.find("frame"))["frameId"] == 2


async def test_gateway_router_and_mlbridge_killed_in_turn(watchout, start):
    started = watchout(expected=["failed"])
    stream, token = new_name(), started.token("user")
    camera, viewer = [await start(started.url, token=token, **FAST) for _ in range(2)]
    await camera.do("camera", options={"streamId": stream})
    await viewer.do("view", streamId=stream)
    await viewer.find("status", status="streaming")
    await camera.find("camera", state="online")
    await camera.do("publish", data=text(JPEG))
    last = (await viewer.find("frame"))["frameId"]
    for number, name in enumerate(("gateway", "router", "mlbridge", "gateway")):
        await alert(started, stream, f"before-{number}")
        await viewer.find("alert", id=f"before-{number}")
        started.one(name).kill()
        if name == "gateway":
            await viewer.find("state", state="waiting")
        started.start(name)
        await alert(started, stream, f"after-{number}")
        told = await viewer.find("alert")
        assert told["id"] == f"after-{number}", "each alert comes once"
        frame = await viewer.find("frame")
        assert frame["frameId"] > last
        last = frame["frameId"]
    assert await viewer.close() == 0
    assert await camera.close() == 0


async def test_a_proxy_that_goes_silent(plain_watchout, start):
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    proxy = SilentProxy(plain_watchout.port)
    async with proxy.running():
        viewer = await start(f"http://127.0.0.1:{proxy.port}", token=token, silenceMs=6000, **FAST)
        await viewer.do("view", streamId=stream)
        await viewer.find("status", status="offline")
        await alert(plain_watchout, stream, "a1")
        await viewer.find("alert", id="a1")
        proxy.silence()
        for number in range(2, 6):
            await alert(plain_watchout, stream, f"a{number}")
        state = await viewer.find("state", state="waiting", timeout_s=60)
        assert state["code"] == "NETWORK_SILENT"
        await proxy.heal()
        await viewer.find("state", state="online")
        for number in range(2, 6):
            told = await viewer.find("alert")
            assert (told["id"], told["recovered"]) == (f"a{number}", True)
        await alert(plain_watchout, stream, "a6")
        assert (await viewer.find("alert"))["id"] == "a6"


def jwt_of(user: str, seconds: float, age_s: float = 0) -> str:
    """A JWT that ends in so many seconds; clients renew it when a fifth of its life is left, at most a minute."""
    now = time.time()
    return jwt.encode({"sub": user, "iat": now - age_s, "exp": now + seconds}, SECRET, "HS256")


def soon_renewed(user: str) -> str:
    """A JWT that is to be renewed in a second or two, and may be for a minute."""
    return jwt_of(user, 62, age_s=600)


async def test_a_token_is_renewed_before_it_ends(watchout, start):
    started = watchout(environ={"JWT_SECRET": SECRET})
    stream = new_name()
    viewer = await start(started.url, **FAST)
    await viewer.do("view", streamId=stream)
    assert (await viewer.find("token"))["why"] == "connect"
    await viewer.do("give", token=soon_renewed("user"))
    await viewer.find("state", state="online")
    assert (await viewer.find("token"))["why"] == "expiring"
    await viewer.do("refuse")
    assert (await viewer.find("error"))["code"] == "TOKEN_UNAVAILABLE"
    for _ in range(2):
        assert (await viewer.find("token"))["why"] == "expiring"
        await viewer.do("give", token=soon_renewed("user"))
    assert (await viewer.find("token"))["why"] == "expiring", "the second one was taken"
    await alert(started, stream, "a1")
    await viewer.find("alert")
    assert [event["state"] for event in viewer.all("state")] == ["connecting", "online"], "no reconnection"


async def test_a_session_that_ends_asks_for_a_token_once(watchout, start):
    started = watchout(environ={"JWT_SECRET": SECRET})
    viewer = await start(started.url, **FAST)
    await viewer.do("view", streamId=new_name())
    await viewer.find("token", why="connect")
    session = started.token("user")
    await viewer.do("give", token=session)
    await viewer.find("state", state="online")
    end_session(started.home, session)
    assert (await viewer.find("token"))["why"] == "ended"
    await viewer.do("give", token=jwt_of("user", -5))
    state = await viewer.find("state", state="closed")
    assert state["code"] == "AUTH_FAILED"
    assert not state["retryable"]
    assert [event["why"] for event in viewer.all("token")] == ["connect", "ended"]
    await viewer.do("connect")
    await viewer.find("token")
    await viewer.do("give", token=jwt_of("user", 600))
    await viewer.find("state", state="online")


async def test_bun_and_deno_publish_and_watch(plain_watchout, start_elsewhere):
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    app = await start_elsewhere(plain_watchout.url, token=token)
    await app.do("view", streamId=stream)
    await app.find("status", status="offline")
    await app.do("camera", options={"streamId": stream})
    await app.find("demand", viewers=1)
    await app.do("send", data=text(JPEG), timestamp=1_750_000_000_001)
    frame = await app.find("frame", frameId=1)
    assert base64.b64decode(frame["data"]) == JPEG
    await alert(plain_watchout, stream, "a1")
    assert (await app.find("alert"))["id"] == "a1"
    await app.do("streams")
    assert stream in (await app.find("streams"))["ids"]
    assert await app.close() == 0
