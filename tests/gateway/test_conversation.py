"""Carrying out a session's commands, where an answer comes after the world has changed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from common.settings import Settings
from gateway.access import Access
from gateway.conversation import Conversation
from gateway.lanes import Subscription
from identity import Identity


async def replay(still_wanted: bool) -> list[bytes]:
    """A replay during which a live alert came; what the viewer is sent."""
    answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def alerts(_stream: str, *, since: int) -> list[Any]:
        assert since == 7
        return await answer

    sent: list[bytes] = []
    subscription = Subscription("door", Identity("ann", "s", 0.0), video=False, alerts=True)
    subscription.held = {}
    wanted = [subscription]
    rooms = SimpleNamespace(link=SimpleNamespace(alerts=alerts), access=Access(Settings()), hub=None)
    socket = SimpleNamespace(closing=False, message=sent.append)
    session = SimpleNamespace(subscriptions=lambda: wanted)
    talk = Conversation(rooms, socket, session)  # type: ignore[arg-type]
    task = asyncio.create_task(talk._replay(subscription, 7))
    await asyncio.sleep(0)
    subscription.held["a1"] = b"live"
    if not still_wanted:
        wanted.clear()
    answer.set_result([])
    await task
    return sent


async def test_an_alert_that_came_during_the_replay_follows_it() -> None:
    assert await replay(still_wanted=True) == [b"live"]


async def test_who_lost_the_stream_during_the_replay_gets_nothing_of_it() -> None:
    assert await replay(still_wanted=False) == []
