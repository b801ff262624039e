"""Rules of the test suite itself."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.examples import FAST_LIMIT, THOROUGH_FACTOR, apply_profile, scaled


@pytest.mark.parametrize(
    ("wanted", "profile", "gets"),
    [
        (50, "fast", 50),
        (FAST_LIMIT + 1, "fast", FAST_LIMIT),
        (4000, "full", 4000),
        (50, "thorough", 50 * THOROUGH_FACTOR),
        (4000, "thorough", 4000 * THOROUGH_FACTOR),
    ],
)
def test_a_profile_limits_or_multiplies_what_a_test_asks_for(wanted: int, profile: str, gets: int) -> None:
    assert scaled(wanted, profile) == gets


def test_a_profile_changes_the_number_of_examples_that_run() -> None:
    seen = []

    @hypothesis.settings(max_examples=3, database=None)
    @given(st.integers())
    def test(number: int) -> None:
        seen.append(number)

    class Item:
        obj = staticmethod(test)

    apply_profile([Item()], "thorough")  # type: ignore[list-item]
    test()
    assert len(seen) == 3 * THOROUGH_FACTOR
