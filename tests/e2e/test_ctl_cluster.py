"""`watchout-ctl cluster` on one machine: its router, gateways and links, and a gateway that is gone, by name."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.test_bus import House
from tests.kit.clients import Clients, eventually
from tests.kit.prefork import run_forked
from tests.kit.processes import BIN, REPOSITORY, Watchout

pytestmark = pytest.mark.e2e

COMES_S = 60.0


async def cluster(started: Watchout, *words: str) -> tuple[int, str]:
    """The exit code and the output of the command."""
    command = [str(BIN / "watchout-ctl"), "cluster", *words]
    told = await asyncio.to_thread(run_forked, REPOSITORY, command, started.environ)
    return told.returncode, told.stdout or told.stderr


async def test_one_machine_shows_its_gateways_and_links_and_names_a_gateway_that_is_gone(
    watchout: Any, clients: Clients
) -> None:
    started = watchout(start=False)
    code, text = await cluster(started)
    assert code == 1
    assert str(started.home) in text
    house = House(started)
    near, far = await house.add_gateway(), await house.add_gateway()
    names = [f"gateway.{url.rpartition(':')[2]}" for url in (near, far)]
    token = started.token()
    camera = await clients.camera(near, token)
    await camera.register("cam-1")
    viewer = await clients.viewer(far, token)
    await viewer.subscribe("cam-1")

    async def linked() -> Any:
        code, text = await cluster(started, "--json")
        if code:
            return None
        found = json.loads(text)
        return found if found["links"] and found["links"][0]["framesPerS"] > 0 else None

    async with camera.streaming(10):
        await viewer.frame()
        found = await eventually(linked, COMES_S, "no link is reported, or something is missing")
    assert (found["missing"], found["nats"]) == ([], None)
    (link,) = found["links"]
    assert ([link["from"], link["to"]], link["connected"]) == (names, True)
    assert link["bytesPerS"] > 0
    (host,) = found["hosts"]
    assert [one["name"] for one in host["processes"]][1:] == sorted(names)
    assert found["slots"][0]["cameras"] == found["slots"][0]["viewers"] == 1

    async def whole() -> str:
        code, text = await cluster(started)
        return "" if code else text

    assert "one machine, without NATS" in await eventually(whole, COMES_S, "something is missing")
    house.gateways[1][0].kill()

    async def named() -> bool:
        code, text = await cluster(started)
        return code == 1 and f"gateway {names[1]}" in text.replace("\n", " ") and "fell silent" in text

    await eventually(named, COMES_S, "nobody says that a gateway is gone")
