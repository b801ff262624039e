"""What gateways remember of connections is held against the clients' own counts."""

from __future__ import annotations

from typing import Any

import pytest

from watchout.common.why.answer import SilentProcess, WhyAnswer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.rehearse.explained import (
    MAX_STREAMS,
    UNDER_WAY,
    StreamMemory,
    compare,
    is_whole,
    memory_of,
    sampled,
    streamless_of,
)
from watchout.ctl.rehearse.figures import StreamTally
from watchout.ctl.why.sentence import WhyFacts

BEGAN = 1_000


def closed(by: str = "client", stream: str = "s", code: int = 1000, count: int = 1, **numbers: float) -> Incident:
    return Incident(
        what=IncidentKind.CLOSED, at=BEGAN + 1, streams=(stream,) if stream else (), user="ann", connection="g/1.1",
        code=code, by=by, numbers=numbers, count=count, summed=count > 1,
    )  # fmt: skip


def facts(*incidents: Incident, left_out: int = 0, silent: bool = False, **since: int) -> WhyFacts:
    answer = WhyAnswer(kind="gateway", name="gateway.1", incidents=list(incidents), left_out=left_out, **since)
    away = [SilentProcess(kind="gateway", name="gateway.2", why="no answer")] if silent else []
    return WhyFacts(about="s", now=2, answers=[answer], silent=away)


def test_the_memory_of_a_stream_in_numbers() -> None:
    found = memory_of(
        facts(
            closed(frames_out=100, dropped_window=7, seconds=3),
            closed(frames_out=50, dropped_window=1, dropped_gone=2),
            closed(frames_out=5000, dropped_window=40, count=20),
            closed(by="network", code=1006),
            closed(by="gateway", code=4500),
            closed(stream="other", frames_out=1000),
            Incident(what=IncidentKind.DROPPED, at=1, streams=("s",), numbers={"window": 8.0}),
        ),
        began_ms=BEGAN,
    )
    assert found == StreamMemory(
        closes={"left": 22, "lost": 1, "session_ended": 1},
        users={"ann"},
        frames_out=5150,
        dropped={"window": 48, "gone": 2},
    )


def memory(*incidents: Incident, **more: Any) -> StreamMemory:
    return memory_of(facts(*incidents, **more), began_ms=BEGAN)


def test_a_question_is_asked_again_until_all_is_told_or_forgotten() -> None:
    assert [is_whole(memory(closed(), closed()), connections=number) for number in (2, 3)] == [True, False]
    assert not is_whole(memory(closed(), silent=True), connections=1)
    assert is_whole(memory(closed(), left_out=1), connections=9)
    assert is_whole(memory(closed(), since=BEGAN + 1), connections=9)


def test_a_memory_that_may_have_forgotten_something_is_not_compared() -> None:
    assert "has forgotten" in memory(closed(), closed_since=BEGAN + 1).incomplete
    assert not memory(*[closed()] * 150, closed_since=BEGAN, since=BEGAN + 1).incomplete, "other kinds are no matter"
    assert "has forgotten" in memory(closed(), since=BEGAN + 1).incomplete, "a former release keeps no sums"
    assert "has forgotten" in memory(closed(), left_out=1).incomplete
    assert memory(closed(), silent=True).incomplete == "gateway gateway.2 did not answer"
    found = compare({"s": StreamTally(connections=9)}, {"s": memory(closed(), silent=True)})
    assert (found.streams, found.unexplained) == (0, None)
    assert found.notes == ["s is not compared: gateway gateway.2 did not answer"]


CLIENTS = StreamTally(connections=2, received=1000, missing=200)
#: By how much frames may differ: those under way, and half a percent.
NEAR = 2 * UNDER_WAY + 6


@pytest.mark.parametrize(
    ("memory", "unexplained"),
    [
        (StreamMemory(closes={"left": 2}, frames_out=1000, dropped={"slow": 150, "window": 50}), 0),
        (StreamMemory(closes={"left": 2}, frames_out=1000 - NEAR, dropped={"slow": 200 - NEAR}), 0),
        (StreamMemory(closes={"left": 1}, frames_out=1000, dropped={"slow": 200}), 1),
        (StreamMemory(closes={"left": 2}, frames_out=1000, dropped={"slow": 199 - NEAR}), 1),
        (StreamMemory(closes={"left": 2}, frames_out=990 - NEAR, dropped={"slow": 200}), 10),
        (StreamMemory(), 2 + (200 - NEAR) + (1000 - NEAR)),
        # More than the clients noticed: frames that waited when they left, a connection that they do not count.
        (StreamMemory(closes={"left": 3}, frames_out=1100, dropped={"slow": 300}), 0),
    ],
)
def test_what_the_clients_alone_have_counted_is_unexplained(memory: StreamMemory, unexplained: int) -> None:
    assert compare({"s": CLIENTS}, {"s": memory}).unexplained == unexplained


def test_what_ended_before_it_had_a_stream_is_known_by_its_user() -> None:
    asked = facts(
        closed(by="gateway", stream="", code=1013),
        closed(by="gateway", stream="", code=1013, count=7),
        closed(stream="s"),
    )
    assert streamless_of(asked, began_ms=BEGAN) == {"try_later": 8}
    assert streamless_of(asked, began_ms=BEGAN + 2) == {}, "those of before the rehearsal"
    assert memory(closed(), closed(), Incident(what=IncidentKind.CLOSED, at=1, streams=("s",))).users == {"ann"}

    memories = {"s": StreamMemory(closes={"left": 2}, frames_out=1000, dropped={"slow": 200})}
    came = StreamTally(connections=9, received=1000, missing=200)
    for ended, unexplained in ((None, 7), ({"connection_limit": 5}, 2), ({"connection_limit": 5, "restart": 4}, 0)):
        found = compare({"s": came}, memories, ended)
        assert found.unexplained == unexplained
        assert found.closes == {"left": 2, **(ended or {})}
    assert compare({"s": CLIENTS}, memories, {"connection_limit": 5}).closes == {"left": 2}, "those are of others"


def test_gateways_have_to_say_the_same_of_a_close_as_the_client_was_told() -> None:
    memories = {"s": StreamMemory(closes={"session_ended": 1, "left": 1}, frames_out=1000, dropped={"slow": 200})}
    for lost, unexplained in (
        ({"SESSION_ENDED": 1, "CLOSED_BY_GATEWAY": 1, "AUTH_FAILED": 5}, 0),
        ({"SESSION_ENDED": 2}, 1),
        ({"SLOW_CONSUMER": 1, "STREAM_TAKEN_OVER": 1}, 2),
    ):
        found = compare({"s": CLIENTS}, memories, lost=lost)
        assert (found.unexplained, len(found.notes)) == (unexplained, unexplained)
    assert compare({"s": CLIENTS, "t": CLIENTS}, memories, lost={"SLOW_CONSUMER": 1}).unexplained == 0, "it may be of t"


def test_streams_are_summed_and_those_not_asked_about_are_told() -> None:
    memory = StreamMemory(closes={"left": 2}, frames_out=1000, dropped={"slow": 200})
    found = compare({"a": CLIENTS, "b": CLIENTS, "c": CLIENTS}, {"a": memory, "b": memory})
    assert (found.streams, found.of_streams, found.connections, found.closes) == (2, 3, 4, {"left": 4})
    assert (found.received, found.written, found.missing, found.dropped) == (2000, 2000, 400, {"slow": 400})
    assert found.notes == ["2 of 3 streams were asked about"]


def test_a_sample_is_spread_and_bounded() -> None:
    streams = [f"s{number:04}" for number in range(1000)]
    found = sampled(streams)
    assert len(set(found)) == MAX_STREAMS
    assert (found[0], found[-1]) == ("s0000", "s0950")
    assert sampled(streams[:3]) == streams[:3]
