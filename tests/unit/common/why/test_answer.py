"""Answers have a bound, and are read by processes of other releases."""

from __future__ import annotations

import msgspec
import pytest

from watchout.common.errors import BusError
from watchout.common.why.answer import MAX_ANSWER_BYTES, MAX_INCIDENTS, ViewNow, WhyAnswer, decode_answer, encode_answer
from watchout.common.why.incident import Incident, IncidentKind


def incidents(count: int, size: int = 10) -> list[Incident]:
    return [Incident(what=IncidentKind.CLOSED, at=at, reason="x" * size) for at in range(count)]


def test_an_answer_is_read_as_it_was_written() -> None:
    answer = WhyAnswer(
        kind="gateway", name="gateway", now=5, incidents=incidents(3),
        views=[ViewNow(connection="g/1.1", stream="cam", user="ann", dropped={"slow": 3.0})],
    )  # fmt: skip
    assert decode_answer(encode_answer(answer)) == answer
    assert not answer.is_empty
    assert WhyAnswer(kind="gateway", name="gateway", of_everybody=incidents(1)).is_empty


@pytest.mark.parametrize(
    ("count", "size"), [(MAX_INCIDENTS * 3, 10), (MAX_INCIDENTS, 5_000), (3, 200_000), (1, 1 << 20)]
)
def test_of_too_much_the_oldest_incidents_are_left_out_and_counted(count: int, size: int) -> None:
    answer = WhyAnswer(
        kind="gateway", name="gateway", incidents=incidents(count, size), of_everybody=incidents(2, size)
    )
    data = encode_answer(answer)
    assert len(data) <= MAX_ANSWER_BYTES
    read = decode_answer(data)
    assert read.left_out > 0
    if read.incidents:
        assert read.incidents[-1].at == count - 1
        assert read.left_out == count - len(read.incidents)


def test_an_answer_that_does_not_fit_at_all_says_so() -> None:
    views = [ViewNow(connection="c" * 10_000, stream="cam", user="ann")] * 100
    read = decode_answer(encode_answer(WhyAnswer(kind="gateway", name="gateway", views=views)))
    assert (read.views, read.left_out) == ([], 1)


def test_what_a_later_release_adds_is_ignored_and_what_is_no_answer_is_refused() -> None:
    later = {"kind": "gateway", "name": "gateway", "more": [1], "incidents": [{"what": "new kind", "at": 1, "x": 2}]}
    assert decode_answer(msgspec.msgpack.encode(later)).incidents[0].what == "new kind"
    for bad in (b"", b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"kind": 1, "name": "x"})):
        with pytest.raises(BusError, match="unexpected answer"):
            decode_answer(bad)
