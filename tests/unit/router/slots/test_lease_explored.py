"""Every history of two router processes with up to so many faults: no promise of the leases is broken.

The explorer goes through all worlds that a schedule of faults can lead to, step by step; worlds with the same future
are visited once. At the end of each history nothing fails any more, and the slot has to be served.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from tests.kit.skips import of_target
from tests.kit.slot_world import LATE, LOST, REPLY_LATE, REPLY_LOST, STEP_S, Member, Violation, World
from watchout.router.slots import lease
from watchout.router.slots.lease import LeaseMachine
from watchout.router.slots.slot_state import Purpose, SlotState

#: Seconds without a fault after which the slot has to have one router that every member heeds: a holder that cannot be
#: heard steps down after 10 s, and is replaced 3 s later.
CALM_S = 17.0
#: `make test-thorough` explores more faults, and pairs of them at more times.
DEEP = os.environ.get("WATCHOUT_TEST_LEASES") == "deep"

Fault = Callable[[World], None]


def fate(node: int, kind: str, late_s: float, world: World) -> None:
    world.nodes[node].fate = kind, late_s


def pause(node: int, seconds: float, world: World) -> None:
    world.nodes[node].paused_until = world.now + seconds


def crash(node: int, restart_s: float, world: World) -> None:
    if world.nodes[node].alive:
        world.crash(world.nodes[node], restart_s)


def deafen(node: int, seconds: float, world: World) -> None:
    world.nodes[node].deaf_until = world.now + seconds


def cut(node: int, seconds: float, world: World) -> None:
    world.nodes[node].cut_until = world.now + seconds


def cut_member(node: int, seconds: float, world: World) -> None:
    world.members[0].cut[world.nodes[node].id] = world.now + seconds


def isolate(node: int, seconds: float, world: World) -> None:
    """One side of a partition: neither the store nor other processes; one member is on its side."""
    world.nodes[node].cut_until = world.nodes[node].deaf_until = world.now + seconds
    world.members[0].cut[world.nodes[1 - node].id] = world.now + seconds
    world.members[1].cut[world.nodes[node].id] = world.now + seconds


def lose_store(world: World) -> None:
    world.lose_store()


def leave(node: int, world: World) -> None:
    """SIGTERM: it releases what it has, ends a step later, and is started again."""
    one = world.nodes[node]
    if one.alive and one.paused_until <= world.now:
        world.run(one, one.machine.leave(world.now, world.ms(one)))
        world.crash(one, 2.0)


def step_aside(node: int, seconds: float, world: World) -> None:
    """It has no slots for a while, and lives on: the number of slots in the store is another one."""
    one = world.nodes[node]
    if one.alive and one.paused_until <= world.now:
        world.step_aside(one, seconds)


def few() -> list[Fault]:
    """The faults of the short run, of each process."""
    found: list[Fault] = [lose_store]
    for node in (0, 1):
        found += [partial(fate, node, REPLY_LOST, 0), partial(fate, node, LATE, 2.5), partial(crash, node, 3.0)]
        found += [partial(pause, node, 5.0), partial(pause, node, 12.0), partial(deafen, node, 5.0)]
        found += [partial(isolate, node, 12.0), partial(leave, node)]
    return found


def many() -> list[Fault]:
    found = few()
    for node in (0, 1):
        found += [partial(fate, node, LOST, 0), partial(fate, node, REPLY_LATE, 1.5), partial(fate, node, LATE, 4.5)]
        found += [partial(cut, node, 5.0), partial(cut, node, 12.0), partial(cut_member, node, 6.0)]
        found += [partial(crash, node, 0.5), partial(crash, node, 99.0), partial(deafen, node, 12.0)]
        found += [partial(pause, node, 3.0), partial(isolate, node, 5.0), partial(step_aside, node, 3.0)]
    return found


def explore(
    faults: Iterable[Fault],
    at: Iterable[float],
    *,
    most: int,
    skews_ms: tuple[int, ...] = (),
    nodes: int = 2,
    leader: int | None = None,
) -> int:
    """Go through all histories with up to `most` of the faults, each at one of the times. Return how many steps.

    `leader` is the process on the host of the store's leader, None: no process knows where that is.
    """
    times, faults = set(at), list(faults)
    last, steps = max(times), 0
    world = World(nodes, skews_ms=skews_ms)
    world.led_at = None if leader is None else frozenset({leader})
    layer: dict[object, tuple[World, int]] = {"start": (world, 0)}
    while True:
        following: dict[object, tuple[World, int]] = {}
        for world, used in layer.values():
            branches: list[tuple[Fault | None, int]] = [(None, used)]
            if used < most and world.now in times:
                branches += [(fault, used + 1) for fault in faults]
            for fault, spent in branches:
                made = world.clone() if len(branches) > 1 else world
                try:
                    if fault is not None:
                        made.history = (*made.history, f"{made.now} s: {_name(fault)}")
                        fault(made)
                    made.step()
                except Violation as violation:
                    raise Violation(f"{violation}, {made.now} s; {made.history}") from None
                steps += 1
                # In the calm at the end worlds with more faults behind them are equal to those with fewer.
                key = (made.key(), spent if made.now < last else 0)
                if key not in following:
                    following[key] = made, spent
        layer = following
        now = next(iter(layer.values()))[0].now
        if now >= last + 12.0 + CALM_S:  # the longest fault, and the calm after it
            for world in [world for world, _ in layer.values() if any(node.alive for node in world.nodes)]:
                try:
                    world.settled()
                except Violation as violation:
                    raise Violation(f"{violation}; {world.history}") from None
            return steps


def _name(fault: Fault) -> str:
    return f"{fault.func.__name__} {fault.args}" if isinstance(fault, partial) else fault.__name__


SKEWS = [(0, 0), (0, 600_000), (600_000, 0)]
CLOCKS = pytest.mark.parametrize("skews_ms", SKEWS, ids=["clocks agree", "second ahead", "first ahead"])
TIMES = [2.0, 4.5, 7.0]
EVERY_STEP = [step * STEP_S for step in range(2, 18)]


@CLOCKS
def test_no_pair_of_faults_breaks_a_promise(skews_ms: tuple[int, ...]) -> None:
    assert explore(few(), TIMES, most=2, skews_ms=skews_ms) > 5000


@CLOCKS
def test_no_single_fault_at_any_time_breaks_a_promise(skews_ms: tuple[int, ...]) -> None:
    assert explore(many(), EVERY_STEP, most=1, skews_ms=skews_ms) > 5000


def move_leader(to: int, world: World) -> None:
    world.led_at = frozenset({to})


@pytest.mark.parametrize("leader", [0, 1])
def test_no_fault_and_no_move_of_the_stores_leader_breaks_a_promise(leader: int) -> None:
    moves = [partial(move_leader, to) for to in (0, 1)]
    assert explore([*few(), *moves], TIMES, most=2, leader=leader) > 5000


def losses() -> list[Fault]:
    """The store is lost, and whoever remembers the epochs too: only members know them."""
    return [lose_store, partial(crash, 0, 99.0), partial(crash, 1, 3.0)]


@CLOCKS
def test_epochs_rise_by_what_members_know_when_the_store_and_all_routers_are_lost(skews_ms: tuple[int, ...]) -> None:
    assert explore(losses(), TIMES, most=3, skews_ms=skews_ms) > 1000


def test_who_slept_while_the_store_was_lost_takes_nothing_by_an_old_revision() -> None:
    faults: list[Fault] = [partial(crash, 0, 3.0), partial(pause, 1, 5.0), lose_store]
    assert explore(faults, [2.0, 3.0, 4.5], most=3) > 500
    assert explore(faults, [2.0, 4.5], most=2, nodes=3) > 500
    long: list[Fault] = [partial(isolate, 0, 12.0), partial(pause, 1, 12.0), lose_store]
    assert explore(long, TIMES, most=3, skews_ms=(0, 600_000)) > 500


def test_processes_that_step_aside_and_come_back_break_no_promise() -> None:
    faults: list[Fault] = [lose_store]
    for node in (0, 1):
        faults += [partial(step_aside, node, 0.5), partial(step_aside, node, 6.0), partial(fate, node, LATE, 2.5)]
        faults += [partial(pause, node, 5.0), partial(crash, node, 3.0)]
    assert explore(faults, [2.0, 2.5, 7.0], most=2) > 2000


@pytest.mark.skipif(not DEEP, reason=of_target("test-thorough"))
@CLOCKS
def test_no_pair_of_all_faults_and_no_three_of_the_worst_break_a_promise(skews_ms: tuple[int, ...]) -> None:
    explore(many(), [1.5, 2.0, 2.5, 3.5, 4.5, 6.0, 7.0, 8.5], most=2, skews_ms=skews_ms)
    explore(few(), [2.0, 3.0, 4.5, 7.0], most=3, skews_ms=skews_ms)
    explore(few(), TIMES, most=2, skews_ms=skews_ms, nodes=3)


# ── each rule matters ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "without", "broken"),
    [("UNCHANGED_S", 0.0, "robbed"), ("SILENCE_S", 0.0, "robbed"), ("STALE_S", 1e9, "robbed"),
     ("STEP_DOWN_S", 1e9, "after a write")],
)  # fmt: skip
def test_without_a_rule_of_time_a_promise_is_broken(
    rule: str, without: float, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, rule, without)
    with pytest.raises(Violation, match=broken):
        explore(few(), TIMES, most=2)


def test_with_the_epoch_of_the_former_holder_a_promise_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    write = LeaseMachine._write

    def same_epoch(self: LeaseMachine, slot: int, state: SlotState, purpose: Purpose, epoch: int, now: float) -> Any:
        taken = state.highest if purpose is Purpose.TAKE and state.highest else epoch
        return write(self, slot, state, purpose, taken, now)

    monkeypatch.setattr(LeaseMachine, "_write", same_epoch)
    with pytest.raises(Violation, match="epoch"):
        explore(few(), TIMES, most=1)


def test_without_what_members_know_a_promise_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseMachine, "epoch_seen", lambda *_: [])
    with pytest.raises(Violation, match="does not heed"):
        explore(losses(), TIMES, most=3, skews_ms=(600_000, 0))


def test_with_a_take_that_does_not_look_at_the_entry_a_promise_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "may_apply", lambda *_: True)
    with pytest.raises(Violation):
        explore(few(), TIMES, most=2)


def test_without_the_fence_of_members_two_routers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def heed_all(self: Member, slot: int, epoch: int, router: str, now: float) -> bool:
        self.accepted_at[slot], self.accepted_from[slot] = now, router
        return True

    monkeypatch.setattr(Member, "hear", heed_all)
    with pytest.raises(Violation, match="both count"):
        explore(few(), TIMES, most=2)
