"""A bounded list of samples: evenly spaced, with the first and the newest."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from watchout.ctl.rehearse.even_samples import EvenSamples


@given(most=st.integers(2, 40), count=st.integers(0, 1000))
def test_samples_are_bounded_and_evenly_spaced_with_the_first_and_the_newest(most: int, count: int) -> None:
    samples: EvenSamples[int] = EvenSamples(most)
    for number in range(count):
        samples.add(number)
        kept = samples.values()
        assert len(kept) <= most
        assert kept[0] == 0
        assert kept[-1] == number
        steps = {later - earlier for earlier, later in itertools.pairwise(kept[:-1])}
        assert len(steps) <= 1
        assert not steps or kept[-1] - kept[-2] <= steps.pop()
    if count > most:
        assert len(samples.values()) >= most // 2


def test_no_sample_gives_no_value() -> None:
    assert EvenSamples[int](2).values() == []
