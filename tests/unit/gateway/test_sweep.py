"""The sweep of sockets: some in a turn of the loop, and time in which the process stood still is nobody's silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.kit.loop_turns import counted_turns
from tests.kit.virtual_time import VirtualTimeLoop
from watchout.common.settings import Settings
from watchout.gateway.context import RESTART, MovingPicture, OpenSocket
from watchout.gateway.sweep import SOCKETS_PER_TURN, SWEEP_EVERY_S, Sweep

pytestmark = pytest.mark.virtual_time

NO_PICTURES: set[MovingPicture] = set()


class Socket:
    """An open socket that does something when it is swept."""

    def __init__(self, work: Callable[[], object] = lambda: None) -> None:
        self.swept: list[tuple[float, float]] = []
        self._work = work

    def end(self, reason: str = RESTART) -> None: ...

    def abort(self) -> None: ...

    def sweep(self, now: float, *, halted_s: float = 0.0) -> None:
        self.swept.append((now, halted_s))
        self._work()


def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


async def test_no_turn_of_the_loop_sweeps_many_sockets_and_each_is_swept_once() -> None:
    with counted_turns() as turns:
        sockets = [Socket(turns.note) for _ in range(3 * SOCKETS_PER_TURN + 1)]
        await Sweep(set[OpenSocket](sockets), NO_PICTURES, Settings()).run()
    assert turns.most == SOCKETS_PER_TURN
    assert [len(each.swept) for each in sockets] == [1] * len(sockets)


async def test_a_socket_that_closes_meanwhile_is_not_swept() -> None:
    sockets: set[OpenSocket] = set()
    many = [Socket(sockets.clear) for _ in range(2 * SOCKETS_PER_TURN)]
    sockets.update(many)
    await Sweep(sockets, NO_PICTURES, Settings()).run()
    assert sum(len(each.swept) for each in many) == 1


async def test_one_that_fails_keeps_no_other_from_its_sweep() -> None:
    def no() -> None:
        raise ValueError("no")

    sockets = [Socket(no), Socket(), Socket(no), Socket()]
    await Sweep(set[OpenSocket](sockets), NO_PICTURES, Settings()).run()
    assert [len(each.swept) for each in sockets] == [1] * 4


async def test_time_in_which_the_process_stood_still_before_or_within_a_sweep_is_told() -> None:
    sockets = [Socket() for _ in range(SOCKETS_PER_TURN + 1)]
    sweep = Sweep(set[OpenSocket](sockets), NO_PICTURES, Settings())
    assert sweep.every_s() == SWEEP_EVERY_S
    await asyncio.sleep(SWEEP_EVERY_S + 0.5)
    await sweep.run()
    assert {halted_s for each in sockets for _, halted_s in each.swept} == {0.0}, "half a second is a busy machine"

    await asyncio.sleep(SWEEP_EVERY_S - 0.5)
    loop().stand_still(7.0)
    running = asyncio.ensure_future(sweep.run())
    await asyncio.sleep(0)  # the first turn of the sweep
    loop().stand_still(20.0)
    await running
    told = sorted(each.swept[1][1] for each in sockets)
    assert told == pytest.approx([6.5] * SOCKETS_PER_TURN + [26.5])
