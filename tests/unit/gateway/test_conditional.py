"""Entity tags, and what a conditional request has to be answered with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.http.conditional import entity_tag, not_modified

TAG = entity_tag("cam:1.front_door", 0x1F, 7)
FRAMES = st.tuples(
    st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True), st.integers(0, 2**63), st.integers(0, 2**32 - 1)
)


@given(FRAMES, FRAMES)
def test_a_tag_is_a_frames_own_and_one_that_rfc_9110_allows(one, other):
    assert (entity_tag(*one) == entity_tag(*other)) == (one == other)
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', entity_tag(*one))


@pytest.mark.parametrize(
    "values",
    [
        [TAG], [f"W/{TAG}"], ["*"], [" * "], [f'"x", {TAG}'], [f'{TAG},"x"'], [f'W/"x" ,\tW/{TAG}'], ['"x"', TAG],
        [f',, "x" ,, {TAG},'], [f'"", {TAG}'], [f'"a,b", {TAG}'],
    ],
)  # fmt: skip
def test_who_has_it_is_told_that_it_is_the_same(values):
    assert not_modified(values, TAG)


@pytest.mark.parametrize(
    "values",
    [
        [], [""], ['"x"'], ["W/"], [TAG[1:-1]], [TAG[:-1]], [f"w/{TAG}"], [f"{TAG} {TAG}"], [f"*, {TAG}"], ['"*"'],
        [f"x{TAG}"], [f'"{TAG}"'], [entity_tag("cam:1.front_door", 0x1F, 8)], [entity_tag("cam:1", 0x1F, 7)],
        [entity_tag("cam:1.front_door", 0x20, 7)],
    ],
)  # fmt: skip
def test_who_has_another_or_says_nothing_that_is_a_list_gets_the_whole(values):
    assert not not_modified(values, TAG)


@given(st.lists(st.text('W/"*, \tax', max_size=40), max_size=3))
def test_any_text_is_judged(values):
    assert not_modified(values, TAG) is (", ".join(values).strip(" \t") == "*")


def test_a_long_header_is_judged_too():
    for evil in (", " * 8000, '"a"' + " , " * 5000 + "x", '"a",' * 4000 + "x", "W/" * 8000, '"' * 16000):
        assert not not_modified([evil], TAG)
