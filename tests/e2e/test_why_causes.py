"""`watchout-ctl why` names causes of closes, drops and silence that tests/e2e/test_why.py has not.

tests/unit/ctl/why/test_documented.py holds that none is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import pytest
from aiohttp import web

from tests.e2e.edge.support import SUBSCRIBE, UNFINISHED, patched_gateway
from tests.e2e.test_why import COMES_S, LARGE, access_lines, beside, causes, of, said
from tests.kit.clients import (
    BINARY,
    CONTINUATION,
    JPEG,
    PNG,
    TEXT,
    Camera,
    Clients,
    RawSocket,
    base64_of,
    eventually,
    http,
    new_name,
    now_ms,
    web_socket_frame,
)
from tests.kit.ml_stub import MlStub
from tests.kit.processes import SERVICE_TOKEN
from tests.kit.readers import Reader
from tests.kit.slow_link import SlowLink

pytestmark = pytest.mark.e2e

#: In these gateways a message must come on within a second and has at most 100 fragments; a camera's highest rate is
#: that of a second.
HURRIED: Final = (
    f"{UNFINISHED.format(1.0, 2000)}\nimport watchout.gateway.why.recorder, watchout.gateway.client.message_assembler\n"
    "watchout.gateway.client.message_assembler.MAX_FRAGMENTS = 100\nwatchout.gateway.why.recorder.PEAK_OVER_S = 1.0"
)


def texts(sentences: list[dict[str, Any]], cause: str) -> str:
    return " | ".join(sentence["text"] for sentence in of(sentences, cause))


async def test_why_the_gateway_ends_or_refuses_a_connection(watchout, clients: Clients):
    started = watchout(
        start=False,
        environ={
            "AUTH_TIMEOUT_S": "1", "IDLE_TIMEOUT_S": "3", "ABUSE_LIMIT": "3", "MAX_MESSAGE_BYTES": "2000000",
            "UNFINISHED_BYTES_PER_USER": "2000000", "MAX_CONNECTIONS_PER_USER": "12",
        },
    )  # fmt: skip
    started.start("router")
    alone = await said(started, "cam", lambda one: "no_gateway" in causes(one["limits"]))
    assert "what clients got is not known" in texts(alone["limits"], "no_gateway")
    patched_gateway(started, HURRIED)
    started.wait_ready()
    url, token, crowd = started.url, started.token("somebody"), started.token("crowd")

    async def raw(path: str = SUBSCRIBE) -> RawSocket:
        made = await clients.raw(url)
        await made.upgrade(f"{path}?token={token}")
        return made

    camera = await clients.camera(url, started.token("owner"))
    await camera.register("cam")
    stranger = await clients.raw(url)
    await stranger.upgrade(SUBSCRIBE)  # and says nothing
    idle, stalls = await raw(), await raw()
    await stalls.send(web_socket_frame(TEXT, b"x" * 10_000)[:20])
    async with (
        _at_its_pace(camera, {"cam": 10.0}, LARGE),
        await Reader.connect(started.port, receive_buffer=4096) as stuck,
    ):
        await stuck.get("/streams/cam/mjpeg", started.token("owner"))
        for wrong, code in (
            (web_socket_frame(TEXT, b"\xff\xfe"), 1007),
            (web_socket_frame(3, b"of no kind"), 1002),
            (web_socket_frame(TEXT, b"no JSON") * 10, 1008),
            (web_socket_frame(TEXT, b"x", fin=False) + web_socket_frame(CONTINUATION, fin=False) * 200, 1008),
        ):
            one = await raw()
            await one.send(wrong)
            assert await one.close_code() == code
        halves = [await raw(), await raw()]
        for number, half in enumerate(halves, 1):
            await half.send(web_socket_frame(BINARY, bytes(1_500_000 - number))[:-1000])
        assert await halves[0].close_code() == 1013, "that with the most bytes"
        await asyncio.gather(*(clients.viewer(url, crowd) for _ in range(12)))
        late = await clients.viewer(url, None)
        await late.send("auth", token=crowd)
        assert await late.closed() == 1013
        (await clients.viewer(url, token)).cut()
        other = await clients.camera(url, token)
        await other.send("register", clientType="mobile", produces=["video-frame"], streamId="cam")
        await other.find("error", code="UNAUTHORIZED")
        bad = await clients.raw(url)
        await bad.send(bad.head(SUBSCRIBE, "Upgrade: websocket", "Connection: Upgrade"))
        assert (await bad.answer()).status == 400
        assert await stalls.close_code() == 4408
        assert await stranger.close_code() == 1008
        await idle.gone()
        await eventually(lambda: any(line["path"].endswith("mjpeg") for line in access_lines(started)), COMES_S)
        (moving,) = (line for line in access_lines(started) if line["path"].endswith("mjpeg"))
        assert moving["bytes_out"] > 1000, moving

    expected = {
        "refused_login": "closed 1008: it did not sign in within AUTH_TIMEOUT_S",
        "closed_here": "nothing came from it for 3 s, not even a pong",
        "stalled": "closed 4408: a message that it had begun stalled",
        "protocol_error": "closed 1007: its text was not UTF-8",
        "abuse": "closed 1008: it repeated faults or went over the rates more than ABUSE_LIMIT times",
        "refused": "closed 1008: it broke a rule (too many fragments)",
        "try_later": "closed 1013: the gateway could not serve it then (too many unfinished bytes here, try again)",
        "connection_limit": "closed 1013: there were too many connections",
        "lost": "the connection was lost without a close frame",
        "refused_handshake": "was refused with 400",
    }
    found, of_stream = await asyncio.gather(
        said(started, "127.0.0.1", lambda one: expected.keys() <= causes(one["past"])),
        said(started, "cam", lambda one: "claim_refused" in causes(one["past"])),
    )
    past = found["past"]
    for cause, text in expected.items():
        assert text in texts(past, cause), texts(past, cause)
    assert "closed 1002: it violated the WebSocket protocol" in texts(past, "protocol_error")
    assert "the gateway ended it (it took nothing of its picture for 3 s" in texts(past, "closed_here")
    assert "could not register cam: UNAUTHORIZED" in texts(of_stream["past"], "claim_refused")


async def test_why_a_camera_sends_less_and_what_its_viewers_cannot_show(watchout, clients: Clients):
    started = watchout(start=False)
    started.start("router")
    patched_gateway(started, f"{HURRIED}\nimport watchout.gateway.latency.camera_clock as c\nc.PING_EVERY_S = 0.5")
    started.wait_ready()
    url, owner = started.url, started.token("owner")
    async with contextlib.AsyncExitStack() as stack:
        link = await stack.enter_async_context(SlowLink(started.port, 1e9).running())
        made = {name: await clients.camera(url, owner) for name in _CAMERAS}
        made["far"] = await clients.camera(f"http://127.0.0.1:{link.port}", owner)
        for name, camera in made.items():
            await camera.register(name, **_WISHES.get(name, {}))
        pace = {"even": 5.0, "less": 20.0, "png": 5.0, "text": 5.0}
        shown = {"png": base64_of(PNG), "text": "no base64 at all"}
        for name in pace:
            await stack.enter_async_context(_at_its_pace(made[name], pace, shown.get(name, "")))
        await stack.enter_async_context(_with_a_window_of_one(made["far"]))
        binary, of_silent = [await clients.viewer(url, owner) for _ in range(2)]
        await binary.subscribe("text", format="binary")
        await of_silent.subscribe("silent")
        reader = await clients.raw(url)  # as ffmpeg does, which shows JPEG alone
        await reader.send(reader.head("/streams/png/mjpeg", f"Authorization: Bearer {owner}", "User-Agent: Lavf/61"))
        await clients.viewer(url, owner)  # and nothing more

        await eventually(lambda: link.carried > 40 * len(JPEG), COMES_S)

        async def leaves_with_a_frame_waiting() -> bool:
            viewer = await clients.viewer(url, owner)
            await viewer.subscribe("two", consumes=["video-frame"], window=1)
            for _ in range(2):
                await made["two"].show()
            await viewer.frame()
            await viewer.leave()
            return "gone" in causes((await said(started, "two", lambda one: one["past"]))["past"])

        await eventually(leaves_with_a_frame_waiting, COMES_S)
        names = "even", "silent", "none"
        answers = await asyncio.gather(*(said(started, name, lambda one: one["found"]) for name in names))
        found = dict(zip(names, answers, strict=True))
        assert "as many as ever since it registered" in texts(found["even"]["now"], "camera_rate")
        silent = texts(found["silent"]["now"], "silent_camera")
        assert "it sent no frame since it registered" in silent
        assert silent.count(" of silent") == 2, "its camera and its viewer"
        assert "it registered without frames" in texts(found["none"]["now"], "no_video")

        pace["less"], link.delay_s = 2.0, 0.4
        less, far, png, text = await asyncio.gather(
            said(started, "less", lambda one: "camera_sends_less" in causes(one["now"])),
            said(started, "far", lambda one: "camera_window" in causes(one["now"])),
            said(started, "png", lambda one: "codec" in causes(one["now"])),
            said(started, "text", lambda one: "undecodable" in causes(one["now"]) & causes(one["past"])),
        )
        assert "it sends less by itself, or its uplink carries no more" in texts(less["now"], "camera_sends_less")
        (window,) = of(far["now"], "camera_window")
        assert "its window of 1 frame and a round trip of" in window["text"]
        assert window["figures"]["roundTripMs"] >= 400, "through the proxy, which the kernel's round trip ends at"
        assert "its reader does not accept pictures of their codec" in texts(png["now"], "codec")
        assert "the others are no pictures that can be decoded" in texts(text["now"], "undecodable")

    twice = {"id": "twice", "streamId": "silent", "severity": "low", "message": "m"}
    lonely = {"id": "lonely", "streamId": "even", "severity": "low", "message": "m"}
    for alert in (twice, twice, lonely):
        answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
        assert answer.status in (200, 202)
    (life,) = (await said(started, "twice", lambda one: one["found"]))["now"]
    assert (life["cause"], life["figures"]["told"], life["figures"]["duplicates"]) == ("told", 1, 1)
    (life,) = (await said(started, "lonely", lambda one: one["found"]))["now"]
    assert life["cause"] == "told_nobody"
    await made["even"].leave()
    found, _ = await asyncio.gather(
        said(started, "127.0.0.1", lambda one: "idle_connection" in causes(one["now"])),
        said(started, "even", lambda one: "camera_gone" in causes(one["past"]) and "offline" in causes(one["now"])),
    )
    assert "neither sends nor watches a stream now" in texts(found["now"], "idle_connection")


_CAMERAS: Final = "even", "less", "silent", "none", "png", "text", "two"
_WISHES: Final[dict[str, dict[str, Any]]] = {"none": {"produces": ["alert"]}, "far": {"window": 1}}


@contextlib.asynccontextmanager
async def _at_its_pace(camera: Camera, pace: Mapping[str, float], data: str) -> AsyncIterator[None]:
    """Show the same frame at the rate that `pace` has now for the stream."""

    async def show() -> None:
        while True:
            await camera.show(data)
            await asyncio.sleep(1 / pace[camera.stream])

    async with beside(show()):
        yield


@contextlib.asynccontextmanager
async def _with_a_window_of_one(camera: Camera) -> AsyncIterator[None]:
    """Show a frame as soon as the one before is acknowledged, 20 a second at most."""

    async def show() -> None:
        while True:
            stamp = now_ms() + 60_000
            await camera.show(timestamp=stamp)
            await camera.find("ack", COMES_S, timestamp=stamp)
            await asyncio.sleep(0.05)

    async with beside(show()):
        yield


class _Service(MlStub):
    """Answers each stream as `says` has it: a status, or one after the other, and a body; of no status never."""

    def __init__(self) -> None:
        super().__init__()
        self.says: dict[str, tuple[int | Iterator[int], Any]] = {}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        status, body = self.says.get((await request.json())["streamId"], (200, {}))
        if isinstance(status, Iterator):
            status = next(status)
        if not status:
            await self.released.wait()
        return web.json_response(body() if callable(body) else body, status=status or 200)


_numbers: Final = itertools.count()


def _a_hundred_more() -> dict[str, Any]:
    """Alerts of kinds of their own, so that none is held back."""
    alert = {"severity": "high", "message": "m"}
    numbers = [next(_numbers) for _ in range(100)]
    return {"alerts": [{"id": f"many-{n}", "metadata": {"objectType": f"kind {n}"}, **alert} for n in numbers]}


async def test_why_the_ml_service_did_not_look_and_what_became_of_its_alerts(watchout, clients: Clients):
    async with contextlib.AsyncExitStack() as stack:
        service = _Service()
        await service.start()
        stack.push_async_callback(service.stop)
        started = watchout(
            environ={
                "ML_SERVICE_URL": service.url, "ML_FPS": "5", "ML_IN_FLIGHT": "1", "ML_TIMEOUT_S": "60",
                "ALERT_COOLDOWN_S": "600",
            }
        )  # fmt: skip
        url, owner = started.url, started.token("owner")
        seen = {"severity": "high", "message": "a person"}
        service.says = {
            "hangs": (0, {}), "refused": (422, {}), "odd": (200, {"alert": {"severity": 7}}),
            # With two failures in a row the stream is blamed; after the answer it is the service's failures again.
            "failing": (itertools.cycle([500, 500, 200]), {}),
            "seen": (200, {"alerts": [{"id": "first", **seen}, {"id": "second", **seen}]}),
        }  # fmt: skip
        pace = defaultdict(lambda: 2.0)

        async def begin(name: str) -> None:
            camera = await clients.camera(url, owner)
            await camera.register(name)
            await stack.enter_async_context(_at_its_pace(camera, pace, ""))

        await begin("hangs")
        await eventually(lambda: service.under_way == ["hangs"], COMES_S)
        await begin("waits")
        found = await said(started, "waits", lambda one: "ml_waits" in causes(one["now"]))
        assert "no frame was sent to it yet" in texts(found["now"], "ml_waits")
        service.says["hangs"] = (200, {})
        service.released.set()
        for name in ("failing", "refused", "odd", "seen"):
            await begin(name)

        async def one_that_comes_now_is_looked_at() -> bool:
            await begin(name := new_name())
            looked = await said(started, name, lambda one: causes(one["now"]) & {"ml_all", "ml_partly", "ml_backlog"})
            return "ml_all" in causes(looked["now"])

        await asyncio.gather(
            said(started, "waits", lambda one: "ml_partly" in causes(one["now"])),
            said(
                started, "failing", lambda one: "ml_fails" in causes(one["now"]) and "ml_failed" in causes(one["past"])
            ),
            said(started, "refused", lambda one: "ml_refuses" in causes(one["now"])),
            said(started, "odd", lambda one: "alert_refused" in causes(one["past"])),
            said(started, "seen", lambda one: "told_nobody" in causes(one["past"])),
            eventually(one_that_comes_now_is_looked_at, COMES_S),
        )
        (held,) = (await said(started, "second", lambda one: one["found"]))["now"]
        assert (held["cause"], held["figures"]["cause"]) == ("held_back", "first")

        await service.stop()
        await said(started, "seen", lambda one: "ml_away" in causes(one["now"]) & causes(one["everybody"]))
        router = started.one("router")
        pace["seen"], service.says = 10.0, {"seen": (200, _a_hundred_more)}
        router.kill()
        await asyncio.to_thread(router.wait)
        await service.start()
        await eventually(lambda: "an alert was dropped, too many wait for the router" in started.output, COMES_S)
        started.start("router")
        await said(
            started, "seen",
            lambda one: "alert_lost" in causes(one["past"]) and {"ml_away", "ml_back"} <= causes(one["everybody"])
            and "forgotten" in causes(one["limits"]),
        )  # fmt: skip
        started.one("mlbridge").kill()
        await said(started, "seen", lambda one: "bridge_lost" in causes(one["everybody"]))
