"""Who is asked to reconnect when, and whether the port is still open then."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.errors import RECONNECT_NOW, RESTART, RouterUnavailable
from watchout.common.metric_names import DRAINING
from watchout.common.metrics import Metrics
from watchout.gateway import drain as module
from watchout.gateway.drain import LEAD_S, MOST_LEAD, Drain, due

pytestmark = pytest.mark.virtual_time

SECONDS = st.floats(0, 10_000, allow_nan=False)


@given(st.integers(0, 5_000), st.integers(0, 50_000), SECONDS, SECONDS, SECONDS)
def test_all_are_asked_in_the_end_and_none_is_taken_back(
    cameras: int, others: int, one: float, other: float, over_s: float
) -> None:
    earlier, later = sorted((one, other))
    total = cameras + others
    assert 0 <= due(cameras, others, earlier, over_s) <= due(cameras, others, later, over_s) <= total
    assert due(cameras, others, over_s, over_s) == total
    if over_s and not (cameras and others):
        assert due(cameras, others, later, over_s) >= min(total, total * later / over_s) * 0.999


@given(st.integers(1, 500), st.integers(1, 5_000), st.floats(0.1, 100))
def test_between_the_last_camera_and_the_others_is_time_for_it_to_come_back(
    cameras: int, others: int, over_s: float
) -> None:
    steps = [over_s * step / 1000 for step in range(1001)]
    asked = [due(cameras, others, at, over_s) for at in steps]
    last_camera = max(at for at, count in zip(steps, asked, strict=True) if count < cameras)
    first_other = min(at for at, count in zip(steps, asked, strict=True) if count > cameras)
    assert first_other - last_camera >= min(LEAD_S, MOST_LEAD * over_s) - over_s / 500
    # Evenly: no more come in a tenth of the time than their share, as far as time is left beside the pause.
    most = max(after - before for before, after in zip(asked, asked[100:], strict=False))
    assert most <= (cameras + others) * 0.1 / (1 - MOST_LEAD) + 2


async def test_cameras_are_asked_first() -> None:
    place = Place(6, shared=True)
    cameras = list(place.context.sockets)[2:4]
    place.context.hub = SimpleNamespace(publications=lambda: [SimpleNamespace(publisher=each) for each in cameras])
    gone: list[int] = []
    place.on_asked = lambda: gone.append(sum(each in place.context.sockets for each in cameras))
    await place.ends()
    assert gone == [1, 0, 0, 0, 0, 0]


class Client:
    """A client that leaves as soon as it is asked."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def end(self, reason: str = "") -> None:
        self.place.happened.append(reason)
        self.place.context.sockets.discard(self)
        if self.place.on_asked is not None:
            self.place.on_asked()
        if not self.place.context.sockets:
            self.place.context.all_gone.set()


class Place:
    """A gateway with so many clients, and what is asked of it."""

    def __init__(self, clients: int, *, shared: bool = False, others: list[Any] | None = None) -> None:
        self.happened: list[str] = []
        self.shared = shared
        self.others = others
        self.on_asked: Any = None
        router = SimpleNamespace(
            own_id="me", live=True, send_metrics=lambda: None, queries=SimpleNamespace(stats=self._stats)
        )
        self.context: Any = SimpleNamespace(
            settings=SimpleNamespace(drain_spread_s=0.2, drain_s=30.0), metrics=Metrics(), router=router,
            hub=SimpleNamespace(publications=list),
            sockets=set(), moving_pictures=set(), all_gone=asyncio.Event(), draining=False, closed=False,
        )  # fmt: skip
        self.context.sockets.update(Client(self) for _ in range(clients))
        self.drain = Drain(self.context, lambda: self.shared, self._close_port)

    async def ends(self) -> None:
        """The drain comes to its end; none here has to wait for its turn of an hour."""
        async with asyncio.timeout(30):
            await self.drain.run()

    async def _stats(self) -> Any:
        if self.others is None:
            raise RouterUnavailable("no router")
        return SimpleNamespace(members=[member("me"), *self.others])

    async def _close_port(self) -> None:
        if "closed" not in self.happened:
            self.happened.append("closed")


def member(id: str, kind: str = "gateway", **metrics: float) -> Any:
    return SimpleNamespace(id=id, process="", kind=kind, metrics=metrics)


async def test_with_a_gateway_at_the_same_port_it_is_closed_first() -> None:
    place = Place(5, shared=True)
    await place.ends()
    assert place.happened == ["closed", *[RECONNECT_NOW] * 5]
    assert place.context.metrics.values[DRAINING] == 1


async def test_with_a_gateway_elsewhere_it_is_open_until_all_were_asked() -> None:
    place = Place(5, others=[member("other")])
    await place.ends()
    assert place.happened == [*[RECONNECT_NOW] * 5, "closed"]


@pytest.mark.parametrize("others", [None, [], [member("bridge", "mlbridge")], [member("other", draining=1.0)]], ids=str)
async def test_with_no_other_gateway_nobody_is_made_to_wait(others: list[Any] | None) -> None:
    place = Place(3, others=others)
    place.context.settings.drain_spread_s = 3600.0
    await place.ends()
    assert place.happened == ["closed", RESTART, RESTART, RESTART]


@pytest.mark.parametrize("what", ["hurry", "the others end"])
async def test_whoever_has_nowhere_to_go_any_more_is_asked_at_once(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    place = Place(4, shared=True)
    place.context.settings.drain_spread_s = 3600.0

    def on_asked() -> None:
        place.shared = False
        if what == "hurry":
            place.drain.hurry()

    place.on_asked = on_asked
    await place.ends()
    assert place.happened == ["closed", RECONNECT_NOW, RESTART, RESTART, RESTART]


async def test_a_router_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUTER_S", 0.01)
    place = Place(1)
    place.context.router.queries.stats = asyncio.Event().wait
    await place.ends()
    assert place.happened == ["closed", RESTART]


@pytest.mark.parametrize("live", [True, False])
async def test_a_router_that_is_slow_later_is_no_sign_that_the_others_have_gone(
    live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    place = Place(4, others=[member("other")])
    place.context.router.live = live

    def on_asked() -> None:
        place.others = None

    place.on_asked = on_asked
    await place.ends()
    asked = [RECONNECT_NOW] * 4 if live else [RECONNECT_NOW, "closed", RESTART, RESTART, RESTART]
    assert place.happened == ([*asked, "closed"] if live else asked)
