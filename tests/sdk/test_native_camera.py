"""A phone whose socket says of nothing that it waits, behind a slow uplink: its frames are fresh all the same."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import pytest

from tests.kit.clients import Clients, new_name
from tests.kit.node import node_command
from tests.kit.processes import Watchout, clean_environ
from tests.kit.services import missing
from tests.kit.slow_link import SlowLink
from watchout.common.clock import now_ms

pytestmark = [pytest.mark.e2e, pytest.mark.real]

SCRIPT: Final = Path(__file__).parent / "native_camera.mjs"
COMES_S: Final = 40.0
#: A minute in `make test-browser-long`.
SLOW_LINK_S: Final = float(os.environ.get("WATCHOUT_TEST_SLOW_LINK_S", "10"))
#: So many of the frames are fresh: on a busy machine some are late for reasons of their own, a queue makes all late.
FRESH_SHARE: Final = 0.9 if SLOW_LINK_S >= 60 else 0.75


@pytest.mark.parametrize("form", ["binary", "base64"])
async def test_a_phone_behind_a_slow_uplink_sends_fresh_frames(
    plain_watchout: Watchout, js_sdk: Path, clients: Clients, form: str
) -> None:
    node = node_command()
    if node is None:
        missing("no Node, neither on the PATH nor as a package")
        return
    token, name = plain_watchout.token(), new_name()
    async with SlowLink(plain_watchout.port, 60_000).running() as link:
        viewer = await clients.viewer(plain_watchout.url, token)
        await viewer.subscribe(name, format="binary")
        module, url = str(js_sdk / "client/dist/index.js"), f"http://127.0.0.1:{link.port}"
        process = await asyncio.create_subprocess_exec(
            *node, str(SCRIPT), module, url, token, name, form, "30000", env=clean_environ()
        )
        try:
            ages = []
            await viewer.frame(timeout_s=COMES_S)
            start = time.monotonic()
            while time.monotonic() < start + SLOW_LINK_S:
                frame = await viewer.frame(timeout_s=COMES_S)
                ages.append(now_ms() - frame["timestamp"])
            assert process.returncode is None
        finally:
            process.kill()
            await process.wait()
    ages.sort()
    print(f"{form}: {len(ages)} frames, age {ages[len(ages) // 2]} ms at the median, {ages[-1]} ms at most")
    assert len(ages) > SLOW_LINK_S * 0.3, ages
    assert ages[int(len(ages) * FRESH_SHARE)] < 1500, ages
