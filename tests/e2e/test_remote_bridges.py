"""Bridges on other machines and in groups, as processes: over TCP with CURVE, and who gets which stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.ml_stub import MlStub
from tests.kit.ports import free_port
from tests.kit.processes import BIN
from tests.kit.site import COMES_S, Site, cameras, services

pytestmark = pytest.mark.e2e
#: What must not come would be there after this.
STAYS_AWAY_S = 3.0
#: Within 2 s a stream of a bridge that died or hangs is with another, which then has to see its next frame.
MOVED_S = 2.0 + 8.0
STREAMS = [f"cam-{number}" for number in range(6)]


@pytest.fixture
async def site(watchout) -> AsyncIterator[Site]:
    port = free_port()
    started = watchout(start=False, environ={"ROUTER_LISTEN": f"tcp://127.0.0.1:{port}"})
    site = Site(started, port)
    await site.begin()
    yield site
    site.close()


def seen(stub: MlStub, since: int = 0) -> set[str]:
    return {request["streamId"] for request in stub.requests[since:]}


async def shown_now(*stubs: MlStub) -> list[set[str]]:
    """Which streams each service is shown from now on, in two seconds of 5 frames each."""
    since = [len(stub.requests) for stub in stubs]
    await asyncio.sleep(2.0)
    return [seen(stub, first) for stub, first in zip(stubs, since, strict=True)]


async def falls_silent(stub: MlStub) -> None:
    """Wait until it was shown nothing for so long that what is still to come would have come."""
    loop = asyncio.get_running_loop()
    count, since = len(stub.requests), loop.time()

    def silent() -> bool:
        nonlocal count, since
        if len(stub.requests) > count:
            count, since = len(stub.requests), loop.time()
        return loop.time() - since > STAYS_AWAY_S

    await eventually(silent, COMES_S, "it is still shown frames")


async def test_a_bridge_with_an_allowed_key_gets_frames_and_brings_alerts_and_needs_no_file_of_the_router(
    site: Site, clients: Clients
) -> None:
    async with services(1) as (stub,), cameras(site, clients, ["cam-1"]):
        stub.mode = "answer"
        viewer = await clients.viewer(site.started.url, site.started.token())
        await viewer.subscribe("cam-1", consumes=["alert"])
        site.bridge(stub, await site.new_key("ml"))
        alert = await viewer.find("alert", COMES_S)
        assert alert["streamId"] == "cam-1"
        assert json.loads(await site.ctl("list", "--json"))["server"] == site.server_key


async def test_wrong_keys_get_nothing_and_are_named_in_both_logs(site: Site, clients: Clients) -> None:
    async with services(2) as (stub, misled), cameras(site, clients, ["cam-1"]):
        unknown = site.bridge(stub, await site.new_key(None))
        key = await site.new_key("ml")
        wrong_router = site.bridge(misled, key, server_key=await site.ctl("client", str(key) + ".other"))
        await eventually(lambda: "does not let this key in" in unknown.output, COMES_S)
        await eventually(lambda: "did not prove that it holds" in wrong_router.output, COMES_S)
        await eventually(lambda: "a key that is not allowed was refused" in site.router.output, COMES_S)
        await asyncio.sleep(STAYS_AWAY_S)
        assert stub.requests == misled.requests == []


async def test_keys_are_let_in_and_put_out_while_the_router_runs(site: Site, clients: Clients) -> None:
    async with services(1) as (stub,), cameras(site, clients, ["cam-1"]):
        file = await site.new_key(None)
        bridge = site.bridge(stub, file)
        await eventually(lambda: "does not let this key in" in bridge.output, COMES_S)
        key = next(line.split()[1] for line in file.read_text().splitlines() if line.startswith("public"))
        await site.ctl("allow", "ml", key)
        await eventually(lambda: len(stub.requests) > 3, COMES_S)
        await site.ctl("remove", "ml")
        await eventually(lambda: "its key was removed" in site.router.output, COMES_S)
        await falls_silent(stub)
        count = len(stub.requests)
        await site.ctl("allow", "ml-again", key)
        await eventually(lambda: len(stub.requests) > count + 3, COMES_S)


async def test_a_remote_bridge_starts_before_the_router_and_lives_through_its_restart(
    site: Site, clients: Clients
) -> None:
    site.router.kill()
    async with services(1) as (stub,):
        bridge = site.bridge(stub, await site.new_key("ml"))
        await asyncio.to_thread(bridge.wait_for_output, "mlbridge ready")
        await site.restart_router()
        async with cameras(site, clients, ["cam-1"]):
            await eventually(lambda: len(stub.requests) > 3, COMES_S)
            site.router.kill()
            count = len(stub.requests)
            await site.restart_router()
            await eventually(lambda: len(stub.requests) > count + 5, COMES_S)
            assert bridge.running


@contextlib.contextmanager
def timed(bound_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    lasted = time.monotonic() - began
    assert lasted < bound_s, f"it took {lasted:.1f} s, expected less than {bound_s:g} s"


@pytest.mark.parametrize("end", ["kill", "pause"])
async def test_streams_of_a_bridge_that_dies_or_hangs_are_with_the_other_of_its_group_within_2_s(
    site: Site, clients: Clients, end: str
) -> None:
    async with services(2) as (first, second), cameras(site, clients, STREAMS):
        bridges = [site.bridge(stub, await site.new_key(f"ml-{n}")) for n, stub in enumerate((first, second))]
        await eventually(lambda: seen(first) | seen(second) == set(STREAMS), COMES_S)

        async def settled() -> bool:
            one, other = await shown_now(first, second)
            return one | other == set(STREAMS) and not one & other

        await eventually(settled, COMES_S, "each stream is on exactly one bridge")
        # Six streams are all on one bridge of two in one of 32 runs: then that one goes.
        goes, stays = (0, second) if seen(first, -30) else (1, first)
        since = len(stays.requests)
        getattr(bridges[goes], end)()
        with timed(MOVED_S):
            await eventually(lambda: seen(stays, since) == set(STREAMS), COMES_S)
        if end == "pause":
            bridges[goes].resume()
            await eventually(settled, COMES_S, "the streams are shared again when it is back")


async def test_each_group_gets_all_that_its_patterns_match(site: Site, clients: Clients) -> None:
    names = ["cam-1", "cam-2", "door-1"]
    async with services(3) as (people, fire, doors), cameras(site, clients, names):
        site.bridge(people, await site.new_key("people"), "--group", "people")
        # Of one group, with different patterns, and one on the router's own machine.
        site.bridge(fire, await site.new_key("fire"), "--group", "fire", "--streams", "cam-*")
        local = [str(BIN / "watchout-mlbridge"), "--group", "fire", "--streams", "door-?,gate-?", "--fps", "5"]
        site.started.run("mlbridge", local, {"ML_SERVICE_URL": doors.url})
        await eventually(
            lambda: (seen(people), seen(fire), seen(doors)) == (set(names), {"cam-1", "cam-2"}, {"door-1"}), COMES_S
        )
        since = [len(stub.requests) for stub in (people, fire, doors)]

        def now() -> list[set[str]]:
            return [seen(stub, first) for stub, first in zip((people, fire, doors), since, strict=True)]

        expected = [set(names), {"cam-1", "cam-2"}, {"door-1"}]
        await eventually(lambda: now() == expected, COMES_S)
        await asyncio.sleep(2.0)  # and no other one
        assert now() == expected


async def test_a_router_without_keys_does_not_listen_and_says_how_to_make_them(watchout) -> None:
    started = watchout(start=False, environ={"ROUTER_LISTEN": f"tcp://127.0.0.1:{free_port()}"})
    router = started.start("router")
    assert await router.ended(COMES_S) == 1
    assert "plain TCP is never spoken" in router.output
    assert "watchout-ctl keys server" in router.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--streams", "cam/1"], "--streams is 'cam/1', expected patterns of"),
        (["--streams", ",".join(["x"] * 65)], "1 to 64 patterns, which are 65"),
        (["--fps", "none"], "--fps is 'none', expected a number"),
        (["--router", "http://x"], "--router is 'http://x', expected tcp://host:port"),
        (["--router", "tcp://127.0.0.1:5550"], "the bus over TCP is always encrypted"),
        (["--router-key", "abc"], "--router-key is 'abc', expected 64 hexadecimal digits"),
        (["--key-file", "nowhere.key"], "--key-file is 'nowhere.key', expected a file that exists and can be reached"),
    ],
)
async def test_an_option_that_cannot_be_used_is_named(watchout, options: list[str], said: str) -> None:
    started = watchout(start=False)
    bridge = started.run("mlbridge", [str(BIN / "watchout-mlbridge"), *options])
    assert await bridge.ended(COMES_S) == 2
    assert said in bridge.output


async def test_a_key_file_that_others_can_read_is_refused(watchout) -> None:
    started = watchout(start=False)
    file = started.directory / "bridge.key"
    made = started.run("keys", [str(BIN / "watchout-ctl"), "keys", "client", str(file)])
    assert await made.ended(COMES_S) == 0
    file.chmod(0o644)
    bridge = started.run(
        "mlbridge",
        [
            str(BIN / "watchout-mlbridge"), "--router", "tcp://127.0.0.1:5550", "--router-key", made.output.strip(),
            "--key-file", str(file),
        ],
    )  # fmt: skip
    assert await bridge.ended(COMES_S) == 1
    assert "has mode 0644, expected 0600" in bridge.output
