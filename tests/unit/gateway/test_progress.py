"""Who takes bytes goes on; who takes none, or next to none for minutes, is cut off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.progress import LEAST_BYTES_PER_S, OVER_S, TransferProgress

STALLED_S = 10.0
LOOK_S = 2.5


def cut_off_after(rate: float, *, until_s: float = 600.0, waiting: bool = True) -> float | None:
    """When a reader that takes `rate` bytes per second is cut off; None: not by then."""
    progress, now = TransferProgress(STALLED_S, 0, 0.0), 0.0
    while now < until_s:
        now += LOOK_S
        if not progress.keeps_up(int(rate * now), now, waiting=waiting):
            return now
    return None


def test_who_takes_nothing_is_cut_off_in_time_and_who_has_nothing_to_take_never():
    assert cut_off_after(0.0) == STALLED_S
    assert cut_off_after(0.0, waiting=False) is None


def test_a_slow_reader_may_take_its_time_but_not_for_ever():
    assert cut_off_after(LEAST_BYTES_PER_S) is None
    assert cut_off_after(LEAST_BYTES_PER_S * 0.9) == OVER_S
    assert cut_off_after(0.5) == OVER_S


def test_a_rest_shorter_than_a_stall_is_forgiven_and_begins_anew_with_each_byte():
    progress = TransferProgress(STALLED_S, 0, 0.0)
    for turn in range(1, 6):
        assert progress.keeps_up(200_000 * turn, turn * 9.0, waiting=True)
    assert not progress.keeps_up(1_000_000, 45.0 + STALLED_S, waiting=True)


def test_old_haste_is_no_excuse():
    progress = TransferProgress(STALLED_S, 0, 0.0)
    assert progress.keeps_up(10_000_000, 5.0, waiting=True)
    now, taken = 5.0, 10_000_000
    while progress.keeps_up(taken, now, waiting=True):
        now, taken = now + 5.0, taken + 1
        assert now <= 5.0 + OVER_S + 10.0
    assert now >= OVER_S


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.integers(0, 5_000), st.booleans()), max_size=200))
def test_whoever_is_cut_off_earned_it(looks):
    progress, now, taken = TransferProgress(STALLED_S, 0, 0.0), 0.0, 0
    history = [(0.0, 0, True)]
    for pause, more, waiting in looks:
        now, taken = now + pause, taken + more
        history.append((now, taken, waiting))
        if progress.keeps_up(taken, now, waiting=waiting):
            continue
        stalled = all(had == taken and waited for at, had, waited in history[1:] if at > now - STALLED_S)
        busy = next((at for at, _, waited in reversed(history) if not waited), -OVER_S)
        crawled = any(taken - had < LEAST_BYTES_PER_S * OVER_S for at, had, _ in history if now - at >= OVER_S)
        assert stalled or (crawled and now - busy >= OVER_S)
        return
