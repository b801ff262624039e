"""What is read from the files of a run, and how turns are counted and explained."""

from __future__ import annotations

import struct

from benchmarks.turns import EDGES_MS, LoopTurn, Note, histogram, read_notes, read_turns, table, what_was_in

MS = 1_000_000


def test_records_are_read_up_to_one_that_is_not_whole() -> None:
    data = struct.pack("@6q", 5, 1, 2, 9, 3, 4)
    assert read_turns(data + b"\1" * 23) == [LoopTurn(5, 1, 2), LoopTurn(9, 3, 4)]
    assert read_turns(b"") == []


def test_notes_are_read_up_to_one_that_is_not_whole() -> None:
    line = b'{"at_ns": 7, "cpu_ms": 0.5, "what": "collection 1"}\n'
    assert read_notes(line + line[:20]) == [Note(7, 0.5, "collection 1")]


def test_each_turn_is_in_one_class() -> None:
    values = [0, *(int(edge * MS) for edge in EDGES_MS), int(EDGES_MS[-1] * MS) - 1, 10**12]
    assert histogram(values) == [1, 1, 1, 1, 1, 1, 2, 2]
    assert sum(histogram(range(0, 20 * MS, 1234))) == len(range(0, 20 * MS, 1234))


def test_a_turn_is_explained_by_what_ended_within_it_the_longest_first() -> None:
    turn = LoopTurn(end_ns=10 * MS, cpu_ns=3 * MS, wall_ns=4 * MS)
    before, within = Note(6 * MS - 1, 9.0, "before"), Note(6 * MS, 1.0, "beats")
    longer, after = Note(10 * MS, 2.04, "collection 1"), Note(10 * MS + 1, 9.0, "after")
    assert what_was_in(turn, [before, within, longer, after]) == "collection 1 (2.0 ms), beats (1.0 ms)"
    assert what_was_in(turn, [before, after]) == "–"


def test_the_table_has_both_ways_of_counting() -> None:
    _, cpu, clock = table({"gateway": [LoopTurn(1, MS // 10, 9 * MS), LoopTurn(2, 3 * MS, 3 * MS)]})
    assert cpu.split() == ["gateway,", "CPU", "1", "0", "0", "0", "0", "1", "0", "0", "3.0", "ms"]
    assert clock.split() == ["gateway,", "clock", "0", "0", "0", "0", "0", "1", "0", "1", "9.0", "ms"]
