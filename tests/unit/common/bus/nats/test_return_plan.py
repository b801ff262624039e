"""When a process tries to go back to its own NATS server: soon, less often while that fails, and rarely if it flaps."""

from __future__ import annotations

from watchout.common.bus.nats.return_plan import (
    FIRST_PAUSE_S,
    GOOD_AFTER_S,
    MOST_FLAPPING_S,
    MOST_PAUSE_S,
    ReturnPlan,
)


def test_attempts_that_fail_are_made_less_often_up_to_a_bound() -> None:
    plan = ReturnPlan()
    pauses = []
    for _ in range(9):
        pauses.append(plan.pause_s(1.0))
        plan.failed()
    assert pauses[:4] == [FIRST_PAUSE_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == MOST_PAUSE_S
    plan.there(0.0)
    assert plan.pause_s(1.0) == FIRST_PAUSE_S


def test_processes_of_one_host_do_not_go_back_together() -> None:
    plan = ReturnPlan()
    assert plan.pause_s(0.0) <= FIRST_PAUSE_S / 2 < plan.pause_s(0.5) < plan.pause_s(1.0)


def test_a_server_that_goes_and_comes_is_left_alone_for_longer_each_time_and_is_forgiven_when_it_stays() -> None:
    plan, now, pauses = ReturnPlan(), 0.0, []
    for _ in range(12):
        plan.there(now)
        now += GOOD_AFTER_S / 2
        plan.lost(now)
        pauses.append(plan.pause_s(1.0))
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MOST_FLAPPING_S
    plan.there(now)
    plan.lost(now + GOOD_AFTER_S)
    assert plan.pause_s(1.0) == FIRST_PAUSE_S


def test_the_loss_of_another_server_says_nothing_of_the_own_one() -> None:
    plan = ReturnPlan()
    for now in range(9):
        plan.lost(float(now))
    assert plan.pause_s(1.0) == FIRST_PAUSE_S
    plan.there(10.0)
    plan.there(10.0 + GOOD_AFTER_S)  # the connection was made anew at the same server
    plan.lost(11.0 + GOOD_AFTER_S)
    assert plan.flaps == 0
