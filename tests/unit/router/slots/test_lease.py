"""The lease machine in a world without bad luck: who takes what, how fast, and how the slots are shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.slot_world import STEP_S, Node, World
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH, MAX_EPOCH
from watchout.common.bus.slot_entries import Beat, SlotBeat, SlotEntry, decode_beat, encode
from watchout.router.slots.commands import CompareAndSet, Known, Read, SendBeat, StartRouter, StopRouter
from watchout.router.slots.lease import EPOCH_STEPS, GIVE_AFTER_S, LEADER_STEADY_S, SILENCE_S, LeaseMachine
from watchout.router.slots.slot_state import Role

ME, OTHER = "a" * 16, "b" * 16


def counts(world: World) -> list[int]:
    return sorted(len(node.running) for node in world.nodes if node.alive)


def passing(world: World, seconds: float) -> World:
    until = world.now + seconds
    while world.now < until:
        world.step()
    return world


def holder(world: World, slot: int = 0) -> Node:
    return next(node for node in world.nodes if node.alive and slot in node.running)


def test_slots_are_shared_from_the_start_and_every_slot_has_one_router() -> None:
    world = passing(World(3, slots=4), 4)
    assert counts(world) == [1, 1, 2]
    passing(world, 20).settled()
    assert counts(world) == [1, 1, 2], "nothing moves that is shared well"


@pytest.mark.parametrize(("nodes", "slots", "expected"), [(1, 4, [4]), (2, 4, [2, 2]), (5, 4, [0, 1, 1, 1, 1])])
def test_there_may_be_fewer_processes_than_slots_or_more(nodes: int, slots: int, expected: list[int]) -> None:
    world = passing(World(nodes, slots), 12)
    world.settled()
    assert counts(world) == expected


def test_a_process_that_comes_later_is_given_slots_until_nobody_has_two_more() -> None:
    world = passing(World(1, slots=4), 5)
    assert counts(world) == [4]
    world.nodes.append(world.new_node(0))
    passing(world, 20).settled()
    assert counts(world) == [2, 2]
    world.nodes.append(world.new_node(0))
    passing(world, 20)
    assert counts(world) == [0, 2, 2] or counts(world) == [1, 1, 2]
    passing(world, 20).settled()
    assert counts(world) == [1, 1, 2]


def led(world: World, *at: int) -> World:
    """The store's leader is on the host of these processes from now on."""
    world.led_at = frozenset(at)
    return world


def held_by(world: World) -> list[int]:
    """How many slots each process has."""
    return [len(node.running) if node.alive else 0 for node in world.nodes]


@pytest.mark.parametrize("leader", [0, 1, 2])
def test_no_slot_is_on_the_host_of_the_stores_leader_while_others_can_have_it(leader: int) -> None:
    world = passing(led(World(3, slots=4), leader), 4)
    assert held_by(world)[leader] == 0
    assert sum(held_by(world)) == 4
    passing(world, 10).settled()
    expected = [0 if index == leader else 2 for index in range(3)]
    assert held_by(world) == expected
    before = [dict(node.running) for node in world.nodes]
    passing(world, 30).settled()
    assert [node.running for node in world.nodes] == before, "nothing moves that is well where it is"


def test_slots_leave_the_host_that_the_leader_has_moved_to_and_has_stayed_at() -> None:
    world = passing(led(World(3, slots=4), 0), 10)
    before = [dict(node.running) for node in world.nodes]
    passing(led(world, 1), LEADER_STEADY_S - 1)
    passing(led(world, 0), 1)
    passing(led(world, 1), LEADER_STEADY_S - 1)
    assert [node.running for node in world.nodes] == before, "a leader that moves about moves no slot"
    passing(world, 1 + 2 * (GIVE_AFTER_S + 2))
    assert held_by(world) == [2, 0, 2]
    passing(world, 10).settled()
    assert held_by(world) == [2, 0, 2]


def test_a_process_elsewhere_that_comes_later_is_given_all_slots_of_the_leaders_host() -> None:
    world = passing(led(World(1, slots=4), 0), 6)
    assert held_by(world) == [4]
    world.nodes.append(world.new_node(0))
    passing(world, 30).settled()
    assert held_by(world) == [0, 4]


def test_processes_that_are_all_on_the_leaders_host_share_the_slots() -> None:
    world = passing(led(World(1, slots=4), 0, 1), 6)
    world.nodes.append(world.new_node(0))
    passing(world, 20).settled()
    assert held_by(world) == [2, 2]


def test_the_leaders_host_takes_what_is_lost_with_the_last_process_elsewhere() -> None:
    world = passing(led(World(2, slots=4), 0), 6)
    assert held_by(world) == [0, 4]
    world.crash(world.nodes[1], 99)
    assert held_by(passing(world, 4)) == [4, 0]


def test_the_leaders_host_takes_a_slot_that_a_process_elsewhere_cannot_take() -> None:
    world = passing(led(World(3, slots=2), 0), 6)
    assert held_by(world) == [0, 1, 1]
    world.crash(world.nodes[1], 99)
    world.nodes[2].cut_until = 1e9  # heard, and without the store: it has a slot until its lease ends
    assert held_by(passing(world, 5)) == [1, 0, 1]


def test_a_process_of_the_former_release_is_elsewhere() -> None:
    machine = held()
    machine.leader_seen(True, 1.0)
    machine.heard(decode_beat(b'{"router":"' + OTHER.encode() + b'"}'), 1.0, 200)
    assert not machine.peers[OTHER].leader_here
    assert b"leader_here" not in encode(Beat(ME)), "what it does not know is not told it"


@pytest.mark.parametrize(("nodes", "slots", "after"), [(3, 4, [2, 2]), (2, 4, [4]), (2, 16, [16]), (2, 1, [1])])
def test_the_slots_of_a_killed_process_are_taken_soon_after_its_silence(
    nodes: int, slots: int, after: list[int]
) -> None:
    """However many the others have already: with none who has fewer they do not wait for each other."""
    world = passing(World(nodes, slots), 12)
    victim = max(world.nodes, key=lambda node: len(node.running))
    lost = set(victim.running)
    world.crash(victim, 99)
    began = world.now
    while not all(any(slot in node.running for node in world.nodes) for slot in lost):
        world.step()
    assert world.now - began <= SILENCE_S + STEP_S
    assert counts(passing(world, 10)) == after


def test_who_has_fewer_slots_comes_first() -> None:
    world = passing(World(3, slots=16), 12)
    assert counts(world) == [5, 5, 6]
    world.crash(world.nodes[0], 99)
    while sum(held_by(world)) < 16:
        world.step()
    assert counts(world) == [8, 8]


def test_a_process_that_ends_is_succeeded_in_the_next_step() -> None:
    world = passing(World(2), 4)
    former = holder(world)
    world.run(former, former.machine.leave(world.now, world.ms(former)))
    assert former.machine.gone
    passing(world, 1)
    assert holder(world) is not former
    passing(world, 9)
    assert not former.running, "it takes nothing any more"


def test_a_paused_holder_says_nothing_that_counts_when_it_goes_on() -> None:
    for seconds in (5.0, 12.0):
        world = passing(World(2), 4)
        former = holder(world)
        former.paused_until = world.now + seconds
        passing(world, seconds + 1)
        assert holder(world) is not former
        assert not former.running
        assert {member.accepted_from[0] for member in world.members} == {holder(world).id}


def test_a_pause_that_is_short_enough_costs_nothing() -> None:
    world = passing(World(2), 4)
    former, epoch = holder(world), holder(world).running[0]
    former.paused_until = world.now + 2.0
    passing(world, 9)
    assert (holder(world), former.running[0]) == (former, epoch)


def test_a_lost_store_is_written_anew_by_the_holder_under_the_same_epoch() -> None:
    world = passing(World(2), 4)
    former, epoch = holder(world), holder(world).running[0]
    world.lose_store()
    passing(world, 9).settled()
    assert (holder(world), former.running[0]) == (former, epoch)


def test_a_store_without_a_leader_for_seven_seconds_costs_no_lease() -> None:
    world = passing(World(2), 4)
    former, epoch = holder(world), holder(world).running[0]
    for node in world.nodes:
        node.cut_until = world.now + 7.0
    passing(world, 12).settled()
    assert (holder(world), former.running[0]) == (former, epoch)


def test_a_holder_that_cannot_write_steps_down_after_ten_seconds_and_is_succeeded_at_once() -> None:
    world = passing(World(2), 4)
    former = holder(world)
    former.cut_until = world.now + 60
    passing(world, 8)
    assert holder(world) is former
    passing(world, 6)
    assert holder(world) is not former


# ── one machine, event by event ──────────────────────────────────────────────────────────────────────────────────


def held(epoch: int = 100) -> LeaseMachine:
    """A machine that has the only slot since 0 s, with revision 5."""
    machine = LeaseMachine(ME, 1, -1.3)
    (read,) = [each for each in machine.tick(-0.7, epoch) if isinstance(each, Read)]
    commands = machine.was_read(0, read.request, Known(0, None), -0.7, epoch)
    (take,) = [each for each in commands + machine.tick(0.2, epoch) if isinstance(each, CompareAndSet)]
    assert StartRouter(0, epoch) in machine.written(0, take.request, 5, 0.2, epoch)
    return machine


def test_a_later_epoch_of_a_member_makes_the_holder_begin_anew_above_it() -> None:
    machine = held()
    (write,) = machine.epoch_seen(0, 500, 0.5, 200)
    assert isinstance(write, CompareAndSet)
    assert (write.expected, write.entry) == (5, SlotEntry(ME, 500 + machine._epoch_step))
    commands = machine.written(0, write.request, 6, 0.6, 200)
    assert [type(each) for each in commands] == [StopRouter, StartRouter, SendBeat]
    assert commands[1] == StartRouter(0, 500 + machine._epoch_step)


def test_processes_that_begin_anew_after_the_same_epoch_have_different_ones() -> None:
    steps = [LeaseMachine(f"{number:016x}", 1, 0.0)._epoch_step for number in range(30)]
    assert len(set(steps)) >= 28
    assert all(1 <= step <= EPOCH_STEPS for step in steps)


def test_a_conflict_on_the_way_to_a_later_epoch_ends_the_lease() -> None:
    machine = held()
    (write,) = machine.epoch_seen(0, 500, 0.5, 200)
    assert isinstance(write, CompareAndSet)
    commands = machine.conflicted(0, write.request, 0.6, 200)
    assert [type(each) for each in commands] == [StopRouter]
    assert not machine.held


@pytest.mark.parametrize("epoch", [EXCEEDABLE_EPOCH, MAX_EPOCH - 1, MAX_EPOCH, 2**63 - 1])
def test_an_epoch_that_no_router_can_exceed_is_ignored(epoch: int) -> None:
    assert held().epoch_seen(0, epoch, 0.5, 200) == []
    assert held().heard(Beat(OTHER, (SlotBeat(0, epoch, 9),)), 0.5, 200) == []


def test_the_last_epoch_that_counts_can_be_exceeded() -> None:
    (write,) = held().epoch_seen(0, EXCEEDABLE_EPOCH - 1, 0.5, 200)
    assert isinstance(write, CompareAndSet)
    assert EXCEEDABLE_EPOCH - 1 < write.entry.epoch < EXCEEDABLE_EPOCH + EPOCH_STEPS < MAX_EPOCH


def test_a_clock_that_is_far_in_the_future_makes_no_epoch() -> None:
    machine = LeaseMachine(ME, 1, -2.0)
    (read,) = [each for each in machine.tick(-0.8, EXCEEDABLE_EPOCH) if isinstance(each, Read)]
    commands = machine.was_read(0, read.request, Known(4, SlotEntry("", 70)), -0.7, EXCEEDABLE_EPOCH)
    (take,) = [each for each in commands + machine.tick(0.2, EXCEEDABLE_EPOCH) if isinstance(each, CompareAndSet)]
    assert take.entry.epoch == 71


def test_epochs_are_raised_once_a_second_at_most() -> None:
    machine, raised, commands = held(), 0, []
    for step in range(50):
        now = 0.5 + step * 0.1
        commands = machine.epoch_seen(0, machine.slots[0].epoch + 1, now, 200)
        for write in commands:
            if isinstance(write, CompareAndSet):
                raised += 1
                machine.written(0, write.request, 6 + step, now, 200)
    assert 4 <= raised <= 6


@pytest.mark.parametrize("epoch", [100, 101])
def test_another_holder_of_the_same_epoch_or_a_later_one_makes_the_holder_begin_anew(epoch: int) -> None:
    machine = held()
    (write,) = machine.heard(Beat(OTHER, (SlotBeat(0, epoch, 9),)), 0.5, 200)
    assert isinstance(write, CompareAndSet)
    assert write.entry.epoch == epoch + machine._epoch_step


def test_a_holder_of_an_earlier_epoch_is_not_answered() -> None:
    assert held().heard(Beat(OTHER, (SlotBeat(0, 99, 9),)), 0.5, 200) == []


def test_a_reply_that_comes_too_late_changes_nothing() -> None:
    machine = held()
    (renewal,) = [each for each in machine.tick(1.7, 200) if isinstance(each, CompareAndSet)]
    machine.tick(4.3, 200)
    assert machine.written(0, renewal.request, 6, 4.4, 200) == []
    commands = machine.tick(12.3, 200)
    assert StopRouter(0, "its lease cannot be renewed") in commands


def test_what_woke_up_late_ends_before_it_does_anything_else() -> None:
    machine = held()
    (renewal,) = [each for each in machine.tick(1.7, 200) if isinstance(each, CompareAndSet)]
    commands = machine.written(0, renewal.request, 6, 30.0, 200)
    assert commands[0] == StopRouter(0, "its lease cannot be renewed")


def test_a_lease_ends_ten_seconds_after_the_sending_of_its_last_write_whether_anything_happens_or_not() -> None:
    machine = held()
    assert machine.has(0, 100, 10.19)
    assert not machine.has(0, 100, 10.2), "nothing was ticked"
    assert not machine.has(0, 99, 0.3)
    (renewal,) = [each for each in machine.tick(1.7, 200) if isinstance(each, CompareAndSet)]
    machine.written(0, renewal.request, 6, 4.0, 200)
    assert machine.has(0, 100, 11.69)
    assert not machine.has(0, 100, 11.7), "it counts from the sending"
    machine.tick(13.0, 200)
    assert not machine.has(0, 100, 13.0)


@pytest.mark.parametrize(("late_s", "has"), [(9.0, [0]), (11.0, [])])
def test_a_slot_that_comes_while_the_process_leaves_is_released_unless_its_lease_is_over(
    late_s: float, has: list[int]
) -> None:
    machine = LeaseMachine(ME, 1, -1.3)
    (read,) = [each for each in machine.tick(-0.7, 100) if isinstance(each, Read)]
    commands = machine.was_read(0, read.request, Known(0, None), -0.7, 100)
    (take,) = [each for each in commands + machine.tick(0.2, 100) if isinstance(each, CompareAndSet)]
    machine.leave(0.3, 200)
    commands = machine.written(0, take.request, 4, 0.2 + late_s, 200)
    assert machine.held == has
    assert any(isinstance(each, CompareAndSet | Read) for each in commands) == bool(has)
    assert not any(isinstance(each, StartRouter) for each in commands)


def test_a_router_that_cannot_run_here_is_left_to_others_for_a_while() -> None:
    machine = held()
    commands = machine.release(0, 1.0, 200)
    assert commands == [StopRouter(0, "its router cannot run here", tell=True)]
    (write,) = machine.stopped(0, 1.1, 200)
    assert isinstance(write, CompareAndSet)
    assert write.entry == SlotEntry("", 100)
    machine.written(0, write.request, 6, 1.2, 200)
    before = [each for step in range(290) for each in machine.tick(2 + step * 0.2, 200)]
    assert not any(isinstance(each, Read | CompareAndSet) for each in before)
    later = [each for step in range(9) for each in machine.tick(61 + step * 0.2, 200)]
    assert any(isinstance(each, Read | CompareAndSet) for each in later)


def test_a_process_that_did_not_take_what_it_was_given_is_given_nothing_for_a_minute() -> None:
    world = passing(World(1, slots=2), 5)
    idle = world.new_node(0)
    idle.cut_until = 1e9  # heard, and without the store
    world.nodes.append(idle)
    passing(world, 50)
    assert counts(world) == [0, 2]
    assert world.nodes[0].machine.peers[idle.id].spurned_at > 0
    assert world.seq < 112, "it was given a slot once, not again and again"


@given(st.data())
def test_any_order_of_events_leaves_the_machine_whole(data: st.DataObject) -> None:
    machine = LeaseMachine(ME, 2, 0.0)
    now, requests = 0.0, [0]
    entries = st.one_of(st.none(), st.builds(SlotEntry, st.sampled_from([ME, OTHER, ""]), st.integers(0, 400)))
    known = st.builds(Known, st.integers(0, 9), entries)
    events = {
        "tick": lambda: machine.tick(now, 200),
        "heard": lambda: machine.heard(
            Beat(OTHER, (SlotBeat(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 400)), 3),)), now, 200
        ),
        "read": lambda: machine.was_read(0, requests[-1], data.draw(known), now, 200),
        "written": lambda: machine.written(0, requests[-1], data.draw(st.integers(1, 9)), now, 200),
        "conflicted": lambda: machine.conflicted(0, requests[-1], now, 200),
        "failed": lambda: machine.failed(0, requests[-1], now, 200),
        "epoch": lambda: machine.epoch_seen(0, data.draw(st.integers(0, 400)), now, 200),
        "stopped": lambda: machine.stopped(0, now, 200),
        "release": lambda: machine.release(0, now, 200),
        "leave": lambda: machine.leave(now, 200),
        "come back": lambda: machine.come_back(now, 200),
    }  # fmt: skip
    running: dict[int, int] = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(events)), max_size=40)):
        now += data.draw(st.sampled_from([0.0, 0.1, 0.5, 3.0, 11.0]))
        for command in events[name]():
            match command:
                case StartRouter(slot, epoch):
                    assert epoch > running.get(slot, -1)
                    running[slot] = epoch
                case StopRouter(slot):
                    running.pop(slot, None)
                case Read(0, request) | CompareAndSet(0, request):
                    requests.append(request)
        for slot, state in enumerate(machine.slots):
            assert (slot in running) == (state.role is Role.HELD)
            assert slot not in machine.held or now - state.confirmed_at < 10.0
