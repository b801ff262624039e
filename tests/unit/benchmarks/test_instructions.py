"""What the counts of valgrind and strace say, and what of them is of a frame."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.instructions import Counted, functions, per_frame, system_calls

#: As callgrind writes it: a name stands where it comes first, a cost of 0 is left out, lines are told by differences.
PROFILE = """\
# callgrind format
version: 1
events: Ir
summary: 1234

ob=(1) /lib/libc.so
fl=(1) ./malloc.c
fn=(1) malloc
12 30
+3 5
-1
* 2

fn=(2) take_text
100 7
cfn=(1)
calls=3 12
+1 37
cfn=(3) memchr
calls=1 0
* 900
+2 4

fn=(3)
5 900
totals: 948
"""


def test_a_profile_counts_what_each_function_takes_itself() -> None:
    assert functions(PROFILE) == {"malloc": 37, "take_text": 11, "memchr": 900}


def test_system_calls_are_those_of_the_table() -> None:
    table = "syscall calls\n------- ---------\nwrite         201\nread           20\ntotal         221\n"
    assert system_calls(table) == {"write": 201, "read": 20}


def test_what_is_counted_by_the_second_is_no_part_of_a_frame() -> None:
    slow = Counted(20, 4.0, Counter(frame=20 * 300, timer=4 * 1000, both=20 * 5 + 4 * 70))
    fast = Counted(200, 1.5, Counter(frame=200 * 300, timer=1500, both=200 * 5 + 105))
    assert per_frame(slow, fast) == pytest.approx({"frame": 300, "timer": 0, "both": 5})
