"""Patterns of stream ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import STREAM_ID
from watchout.common.toolbox.globs import MAX_PATTERN_CHARS, MAX_PATTERNS, Globs, fault

IDS = st.from_regex(STREAM_ID, fullmatch=True)


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("cam-*", ["cam-", "cam-1", "cam-a:b"], ["cam", "Cam-1", "xcam-1"]),
        ("door-?", ["door-1"], ["door-", "door-12"]),
        ("[ab]-[!0-8]", ["a-9", "b-x"], ["c-9", "a-1"]),
        ("a.b", ["a.b"], ["axb"]),
        ("*", ["x", "a:b-c_d.e"], []),
    ],
)
def test_a_pattern_means_what_it_means_in_a_shell(pattern: str, matches: list[str], others: list[str]) -> None:
    assert fault([pattern]) is None
    globs = Globs([pattern])
    assert [stream for stream in matches + others if globs.match(stream)] == matches


def test_without_a_pattern_every_stream_is_meant() -> None:
    assert Globs().match("anything")


def test_of_several_patterns_one_is_enough() -> None:
    globs = Globs(["a-*", "b-*"])
    assert [globs.match(stream) for stream in ("a-1", "b-1", "c-1")] == [True, True, False]


@pytest.mark.parametrize("pattern", ["", "cam/1", "cam 1", "[ab", "ab]", "[]", "é*", "a\n"])
def test_what_is_no_pattern_is_said(pattern: str) -> None:
    said = fault([pattern])
    assert said is not None
    assert repr(pattern) in said


def test_patterns_are_bounded_in_number_and_length() -> None:
    assert fault(["a"] * MAX_PATTERNS) is None
    assert str(MAX_PATTERNS + 1) in (fault(["a"] * (MAX_PATTERNS + 1)) or "")
    assert fault(["a" * MAX_PATTERN_CHARS]) is None
    assert str(MAX_PATTERN_CHARS + 1) in (fault(["a" * (MAX_PATTERN_CHARS + 1)]) or "")


def test_a_pattern_of_many_stars_costs_no_time() -> None:
    assert not Globs(["*a" * (MAX_PATTERN_CHARS // 2)]).match("a" * 60 + "b" * 60)


@given(IDS)
def test_every_stream_id_is_a_pattern_of_itself(stream: str) -> None:
    assert fault([stream]) is None
    assert Globs([stream]).match(stream)
