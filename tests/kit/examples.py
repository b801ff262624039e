"""Three profiles of Hypothesis, chosen by ``--hypothesis-profile``: ``full``, the default, ``fast`` and ``thorough``.

A test may ask for its own number of examples with ``@settings(max_examples=…)``. ``full`` runs that
number; ``fast`` limits it and ``thorough`` multiplies it, which Hypothesis itself does not: there, a test's own number
wins over the profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest
from hypothesis import settings

#: No deadline: how long an example takes depends on what else the machine does.
#: Each run draws other examples; a failure prints the blob that reproduces it.
settings.register_profile("full", deadline=None, print_blob=True)
settings.register_profile("fast", deadline=None, print_blob=True)
settings.register_profile("thorough", deadline=None, print_blob=True)
settings.load_profile("full")

#: Most examples of one test in the fast profile: three fifths of its time would be examples otherwise.
FAST_LIMIT: Final = 40
#: A test that draws its own random numbers is run with one of so many of its seeds in the fast profile.
SEEDS_FAST_PART: Final = 5
#: Examples in the thorough profile for each one that the test asks for.
THOROUGH_FACTOR: Final = 10
#: Most examples of one test in the thorough profile; a test that asks for more has those.
THOROUGH_LIMIT: Final = 3000


def scaled(wanted: int, profile: str) -> int:
    """Number of examples that a test gets in a profile when it asks for `wanted`."""
    if profile == "thorough":
        return max(wanted, min(wanted * THOROUGH_FACTOR, THOROUGH_LIMIT))
    return min(wanted, FAST_LIMIT) if profile == "fast" else wanted


def seeds(wanted: int, profile: str | None = None) -> range:
    """Seeds of a test that draws its own random numbers and wants so many, in a profile or in that of this run."""
    profile = profile or settings.get_current_profile_name()
    return range(-(-wanted // SEEDS_FAST_PART) if profile == "fast" else scaled(wanted, profile))


def seeded(wanted: int) -> Callable[[Callable[..., Any]], Any]:
    """Run a test with a `seed` of its own random numbers, so many times in the profile ``full``; marks it ``drawn``."""
    return lambda test: pytest.mark.drawn(pytest.mark.parametrize("seed", seeds(wanted))(test))


def _with_profile(wanted: settings, profile: str) -> settings:
    return settings(wanted, max_examples=scaled(wanted.max_examples, profile))


def apply_profile(items: Iterable[pytest.Item], profile: str) -> None:
    """Give every Hypothesis test of a collection the number of examples of the profile."""
    done: set[object] = set()
    for item in items:
        test = getattr(item, "obj", None)
        machine = getattr(item, "cls", None)
        if machine is not None and isinstance(getattr(machine, "settings", None), settings):
            if machine not in done:
                machine.settings = _with_profile(machine.settings, profile)
                done.add(machine)
        elif getattr(test, "is_hypothesis_test", False) and test not in done:
            wanted = getattr(test, "_hypothesis_internal_use_settings", None) or settings()
            test._hypothesis_internal_use_settings = _with_profile(wanted, profile)
            done.add(test)
