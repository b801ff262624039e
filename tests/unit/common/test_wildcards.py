"""Wildcards of stream ids: the same as `fnmatch` without brackets, in linear time, and what no pattern is."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watchout.common.toolbox.wildcards import MAX_PATTERNS, any_matches, fault, matches

PATTERNS = st.text("ab:.*?", max_size=12)
IDS = st.text("ab:.", max_size=12)


@given(PATTERNS, IDS)
@example("*", "")
@example("", "")
@example("a*b*?", "aabbab")
@example("**a", "ba")
def test_it_matches_what_fnmatch_matches(pattern: str, text: str) -> None:
    assert matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@given(st.lists(st.one_of(IDS, st.just("*"), st.just("?")), max_size=5).map("".join), IDS)
def test_a_text_that_is_made_from_a_pattern_matches_it(pattern: str, filler: str) -> None:
    text = "".join(filler if sign == "*" else "a" if sign == "?" else sign for sign in pattern)
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("patterns", "stream", "may"),
    [
        (("cam-1",), "cam-1", True),
        (("cam-1",), "cam-10", False),
        (("cam-1",), "Cam-1", False),
        (("cam-?", "door*"), "door:7", True),
        (("site.a.*",), "site.a.", True),
        (("site.a.*",), "siteXaX1", False),
        (("*",), "anything", True),
        ((), "anything", False),
    ],
)
def test_one_of_several_patterns_is_enough_and_none_match_nothing(
    patterns: tuple[str, ...], stream: str, may: bool
) -> None:
    assert any_matches(patterns, stream) is may


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    for pattern in ("*a" * 64, "a*" * 63 + "b", "*?" * 64, "?*a" * 42):
        matches(pattern, "a" * 128)
    assert time.process_time() - began < 1.0, "a backtracking matcher takes years"


@pytest.mark.parametrize("bad", ["", "a" * 129, "a b", "[ab]", "ä", "a\n", 5, None, ["a"]])
def test_what_is_no_pattern_is_named(bad: object) -> None:
    assert "A-Z a-z" in (fault(["cam", bad]) or "")


def test_patterns_are_bounded_in_number() -> None:
    assert fault(["a"] * MAX_PATTERNS) is None
    assert str(MAX_PATTERNS) in (fault(["a"] * (MAX_PATTERNS + 1)) or "")
