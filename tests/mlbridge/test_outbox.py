"""Closing the outbox at any moment of a send."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.frames import Frame
from common.link import Link
from common.messages import Hello
from common.metrics import Figures
from mlbridge.app import _nothing_held
from mlbridge.outbox import Outbox
from tests.kit.fake_router import FakeRouter
from tests.mlbridge.ml_stub import ALERT

FRAME = Frame("s", 1, 1, picture=b"x")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


async def test_the_outbox_closes_whatever_step_of_a_send_it_is_at(home: Path) -> None:
    router = FakeRouter(home)
    link = Link(
        Hello(kind="mlbridge", name="test", pid=1),
        home=home,
        max_message_bytes=1 << 20,
        request_timeout_s=1,
        snapshot=_nothing_held,
        figures=dict,
        on_message=lambda _: None,
    )
    assert await link.wait_live(5)
    for turns in range(20):
        outbox = Outbox(link, figures=Figures())
        for _ in range(20):
            outbox.said([ALERT], FRAME)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await outbox.close(0)
    await link.close()
    router.close()
