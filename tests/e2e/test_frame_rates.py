"""A receiver with a frame rate gets the newest frame also when no other follows, wherever it is."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e import test_mjpeg
from tests.e2e.test_bus import House
from tests.kit.clients import DEADLINE_S, Clients, eventually
from tests.kit.ml_stub import MlStub

#: The rate of each receiver.
FPS = 2


@pytest.fixture
def house(watchout: Any) -> House:
    return House(watchout(start=False))


@pytest.mark.e2e
async def test_each_receiver_gets_the_last_frame_of_a_burst_and_no_bad_one_hides_it(
    house: House, clients: Clients
) -> None:
    stub = MlStub()
    await stub.start()
    try:
        urls = [await house.add_gateway() for _ in range(2)]
        house.started.start("mlbridge", {"ML_SERVICE_URL": stub.url, "ML_FPS": str(FPS)})
        token = house.started.token()
        camera = await clients.camera(urls[0], token)
        stream = await camera.register()
        await camera.show()
        async with contextlib.AsyncExitStack() as stack:
            viewers, screens = [], []
            for url in urls:
                for form in ("json", "binary"):
                    viewers.append(viewer := await clients.viewer(url, token))
                    await viewer.subscribe(stream, format=form, maxFps=FPS)
                place = SimpleNamespace(url=url)
                screens.append(
                    await stack.enter_async_context(
                        test_mjpeg.watching(clients, place, stream, token, f"?fps={FPS}")  # type: ignore[arg-type]
                    )
                )

            async def all_get(number: int) -> None:
                async with asyncio.timeout(DEADLINE_S):
                    for viewer in viewers:
                        while (await viewer.frame())["frameId"] != number:
                            pass
                    for screen in screens:
                        while (await screen.part()).frame_id != number:
                            pass
                await eventually(lambda: stub.looks and stub.looks[-1][2] == number)

            await all_get(1)
            for _ in range(3):
                await camera.show()
            await all_get(4)
            for data in ("!!!", ""):
                await camera.show(data)
            await all_get(6)
            for data in ("", "!!!"):
                await camera.show(data)
            for screen in screens:
                assert (await screen.part()).frame_id == 7
            for viewer in viewers:
                assert viewer.frame_ids == sorted(set(viewer.frame_ids))
    finally:
        await stub.stop()
