"""When a kept process is started again: at once, after growing pauses, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.process.restarts import LONGEST_PAUSE_S, LOOP, STEADY_S, Restarts, StartAgain, Stop


def served(*, own: bool = True) -> Restarts:
    restarts = Restarts("mlbridge", own=own)
    restarts.started(0)
    restarts.ready()
    return restarts


@pytest.mark.parametrize(
    ("code", "how"), [(-9, "by SIGKILL"), (-11, "by SIGSEGV"), (-99, "by signal 99"), (0, "exit code 0"),
                      (1, "exit code 1"), (None, "unexpectedly")],
)  # fmt: skip
def test_one_that_served_is_started_again_at_once_however_it_ended(code: int | None, how: str) -> None:
    verdict = served().ended(100, code)
    assert isinstance(verdict, StartAgain)
    assert verdict.after_s == 0
    assert how in verdict.says


@pytest.mark.parametrize("ready", [True, False])
def test_wrong_settings_are_wrong_the_next_time_too(ready: bool) -> None:
    restarts = Restarts("gateway", own=True)
    restarts.started(0)
    if ready:
        restarts.ready()
    assert restarts.ended(100, 2) == Stop(2, "")


def test_a_first_start_that_did_not_succeed_is_for_a_person() -> None:
    restarts = Restarts("gateway", own=True)
    restarts.started(0)
    assert restarts.ended(1, 1) == Stop(1, "gateway could not start, and is not started again")
    # Killed before it served, as for want of memory, it is tried again.
    restarts = Restarts("gateway", own=True)
    restarts.started(0)
    assert isinstance(restarts.ended(1, -9), StartAgain)


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_of_any_other_program_is_its_decision(code: int) -> None:
    assert Restarts("ml", own=False).ended(100, code) == Stop(code, "")
    assert isinstance(served(own=False).ended(100, -9), StartAgain)


def test_a_loop_has_growing_pauses_and_is_told() -> None:
    restarts, now, pauses, said = served(), 100.0, [], []
    for _ in range(12):
        restarts.started(now)
        now += 1
        verdict = restarts.ended(now, -6)
        assert isinstance(verdict, StartAgain)
        pauses.append(verdict.after_s)
        said.append(verdict.says)
        now += verdict.after_s
    assert pauses[:9] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert all("each time soon after its start" in text for text in said[LOOP - 1 :])
    assert not any("each time" in text for text in said[: LOOP - 1])
    # One that was well in between begins anew.
    restarts.started(now)
    verdict = restarts.ended(now + STEADY_S, -6)
    assert isinstance(verdict, StartAgain)
    assert verdict.after_s == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([-9, -15, 0, 1, None])), max_size=200))
def test_the_pause_is_bounded_whatever_happens(ends: list[tuple[float, int | None]]) -> None:
    restarts, now = served(), 0.0
    for lived_s, code in ends:
        restarts.started(now)
        now += lived_s
        verdict = restarts.ended(now, code)
        assert isinstance(verdict, StartAgain)
        assert 0 <= verdict.after_s <= LONGEST_PAUSE_S
        now += verdict.after_s
