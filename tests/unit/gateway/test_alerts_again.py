"""What a former router accepted is raised again until the new one has accepted it: in order, bounded, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import Raised
from watchout.common.bus.messages import AcceptedReply, Message, RaiseAlert, RefusedReply, Reply
from watchout.common.bus.router_clock import RouterClock
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.common.metrics import Metrics
from watchout.gateway import alerts_again
from watchout.gateway.alerts_again import AlertsAgain


def raised(number: int) -> Raised:
    alert = Alert(id=f"a{number}", stream_id="s", severity="low", message="m", timestamp=1)
    return Raised(alert, accepted_at=number)


class Link:
    """A router that is there or not, and replies when it is told to."""

    def __init__(self) -> None:
        self.epoch = 1
        self.clock = RouterClock()
        self.is_there = True
        self.open: list[tuple[str, asyncio.Future[Reply]]] = []
        #: The ids that came, in order.
        self.came: list[str] = []
        self.accepted: list[tuple[int, str]] = []
        self.again = AlertsAgain(
            self, Metrics(), lambda epoch, one: self.accepted.append((epoch, one.alert.id))  # type: ignore[arg-type]
        )  # fmt: skip

    def begin(self, make: Callable[[int], Message]) -> asyncio.Future[Reply] | None:
        if not self.is_there:
            return None
        body = make(1)
        assert isinstance(body, RaiseAlert)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.came.append(body.alert.id)
        self.open.append((body.alert.id, future))
        return future

    async def reply(self, code: ErrorCode | None = None, count: int = 1) -> None:
        for _ in range(count):
            name, future = self.open.pop(0)
            future.set_result(
                AcceptedReply(request=1, id=name, receivers=1, at=1)
                if code is None
                else RefusedReply(request=1, code=code, message="no")
            )
        await asyncio.sleep(0)

    async def lose(self) -> None:
        self.is_there = False
        for _, future in self.open:
            future.set_exception(RouterUnavailable("the router went away"))
        self.open.clear()
        await asyncio.sleep(0)

    def join(self, epoch: int) -> None:
        self.is_there, self.epoch = True, epoch
        self.again.add([])


async def test_they_are_sent_at_once_and_each_counts_when_it_is_accepted() -> None:
    link = Link()
    link.again.add([raised(1), raised(2)])
    assert link.came == ["a1", "a2"]
    assert link.accepted == []
    await link.reply(count=2)
    assert link.accepted == [(1, "a1"), (1, "a2")]
    assert len(link.again) == 0


async def test_without_a_reply_they_are_sent_to_the_next_router_in_their_order() -> None:
    link = Link()
    link.is_there = False
    link.again.add([raised(1), raised(3)])
    assert link.came == []
    link.join(2)
    await link.reply()
    await link.lose()
    link.again.add([raised(2)])
    assert link.came == ["a1", "a3"]
    link.join(3)
    assert link.came == ["a1", "a3", "a2", "a3"]
    await link.reply(count=2)
    assert link.accepted == [(2, "a1"), (3, "a2"), (3, "a3")]


async def test_what_a_router_cannot_take_yet_is_sent_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_again, "RETRY_S", 0.01)
    link = Link()
    link.again.add([raised(1), raised(2)])
    await link.reply(ErrorCode.ROUTING_ERROR)
    await link.reply(ErrorCode.ROUTING_ERROR)
    assert link.came == ["a1", "a2"]
    async with asyncio.timeout(10):
        while len(link.came) < 4:
            await asyncio.sleep(0.01)
    await link.reply(count=2)
    assert [name for _, name in link.accepted] == ["a1", "a2"]


async def test_what_is_refused_for_good_does_not_come_again() -> None:
    link = Link()
    link.again.add([raised(1)])
    await link.reply(ErrorCode.INVALID_MESSAGE)
    link.join(2)
    assert (link.came, link.accepted, len(link.again)) == (["a1"], [], 0)


async def test_as_many_are_under_way_as_a_router_holds_and_the_oldest_that_wait_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alerts_again, "MOST_UNDER_WAY", 2)
    monkeypatch.setattr(alerts_again, "MAX_KEPT", 3)
    link = Link()
    link.again.add(raised(number) for number in range(7))
    assert link.came == ["a0", "a1"]
    await link.reply()
    assert link.came == ["a0", "a1", "a4"], "a2 and a3 gave way"
    assert len(link.again) == 4


@given(st.lists(st.sampled_from(["add", "reply", "refuse", "lose", "join"]), max_size=40))
def test_each_is_accepted_once_whatever_happens_to_the_routers(steps: list[str]) -> None:
    async def play() -> None:
        link, added, epoch = Link(), 0, 1
        for step in steps:
            if step == "add":
                added += 1
                link.again.add([raised(added)])
            elif step in ("reply", "refuse") and link.open:
                await link.reply(None if step == "reply" else ErrorCode.ROUTING_ERROR)
            elif step == "lose":
                await link.lose()
            elif step == "join":
                epoch += 1
                link.join(epoch)
        link.join(epoch)
        if link.again._retry is not None:
            link.again._retry.cancel()
            link.again._send_later()
        while link.open:
            await link.reply()
        assert sorted(name for _, name in link.accepted) == sorted(f"a{number}" for number in range(1, added + 1))

    asyncio.run(play())
