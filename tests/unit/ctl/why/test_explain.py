"""The answers of all processes become one explanation: what holds, what happened, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from watchout.common.bus.reply_records import WhyReply
from watchout.common.why.answer import (
    AlertNow,
    ConnectionNow,
    SilentProcess,
    StreamNow,
    ViewNow,
    WhyAnswer,
    encode_answer,
)
from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.why.explain import explain
from watchout.ctl.why.sentence import Explanation, WhyFacts, fps, lasted, listed, per_second, times
from watchout.ctl.why.survey import merged
from watchout.ctl.why.view import render

NOW = 1_700_000_000_000
HOUR = 3_600_000
K = IncidentKind


def answer(kind: str = "gateway", name: str = "gw", **fields: Any) -> WhyAnswer:
    given = {"kind": kind, "name": name, "now": NOW, "started_at": NOW - 24 * HOUR, "since": NOW - HOUR}
    return WhyAnswer(**{**given, **fields})


def about(name: str, *answers: WhyAnswer, **fields: Any) -> Explanation:
    return explain(WhyFacts(about=name, now=NOW, answers=answers, **fields))


def alert(*incidents: Incident, kept: AlertNow | None = None) -> str:
    """What is said of alert x."""
    found = about("x", answer(incidents=list(incidents), alerts=[] if kept is None else [kept]))
    (sentence,) = found.now
    assert found.past == []
    assert sentence.subject == "x"
    return f"{sentence.cause}: {sentence.text}"


def of(what: str, at: int = 0, **fields: Any) -> Incident:
    return Incident(**{"what": what, "at": NOW - 60_000 + at, "streams": ("cam",), "alert": "x", **fields})


RAISED = of(K.RAISED, reason="people", numbers={"took_ms": 140.0, "frame_id": 812.0})
ACCEPTED = of(K.ACCEPTED, 1, numbers={"receivers": 4.0, "frame_id": 812.0})
TOLD = of(K.TOLD, 2, numbers={"viewers": 3.0, "publishers": 0.0})
KEPT = AlertNow(id="x", stream="cam", severity="high", message="a person", frame_id=812, accepted_at=NOW - 60_000)


def test_the_life_of_an_alert_is_one_sentence() -> None:
    held = of(K.HELD, cause="x", count=3)
    elsewhere = of(K.TOLD, 2, numbers={"viewers": 1.0, "publishers": 1.0})
    given = of(K.ACKNOWLEDGED, 12_000, user="bob", numbers={"after_ms": 12_000.0})
    assert alert(RAISED, held, ACCEPTED, TOLD, elsewhere, given) == (
        "acknowledged: this alert of cam: frame 812, looked at by people after 140 ms, held back 3 times since, told "
        "to 4 viewers and its camera, acknowledged after 12 s by bob"
    )


@pytest.mark.parametrize(
    ("incidents", "kept", "words"),
    [
        ([RAISED, ACCEPTED, TOLD], None, "told: this alert of cam: frame 812, looked at by people after 140 ms, told"),
        ([RAISED, ACCEPTED, TOLD], None, "not acknowledged by anybody for 60 s"),
        ([ACCEPTED, TOLD], KEPT, "this alert of cam (high: 'a person'): frame 812, raised by a client, an operator or"),
        ([], KEPT, "told_nobody: this alert of cam (high: 'a person'): frame 812"),
        ([of(K.ACCEPTED)], None, "about no frame, raised by a client"),
        ([of(K.ACCEPTED)], None, "told to nobody: no viewer with alerts was subscribed, and no camera wanted them"),
        ([ACCEPTED], None, "sent to the gateways of 4 clients, which do not remember to have told it"),
        ([of(K.RAISED, reason="people"), ACCEPTED], None, "sent by people"),
        (
            [of(K.RAISED, reason="people", numbers={"took_ms": 5.0, "held_before": 2.0}), ACCEPTED], None,
            "looked at by people after 5 ms, 2 alerts of its kind held back before it",
        ),
        ([ACCEPTED, of(K.DUPLICATE, count=2)], None, "received twice more, which changes nothing"),
        ([ACCEPTED, of(K.REDELIVERED)], None, "sent again once to gateways that had missed it"),
        (
            [of(K.HELD, streams=(), reason="cam", cause="y")], None,
            "held_back: this alert of cam: held back by the bridge, because alert y of the same kind came less than",
        ),
        ([RAISED, of(K.ALERT_LOST)], None, "alert_lost: this alert of cam: dropped by the bridge, because too many"),
        ([RAISED], None, "not_accepted: this alert of cam: no router is known to have accepted it; the bridge got it"),
        ([], KEPT, "told_nobody: this alert of cam (high: 'a person'): frame 812, raised by a client, an operator or"),
        ([RAISED, TOLD], None, "told: this alert of cam: frame 812, looked at by people after 140 ms, told to 3"),
    ],
)  # fmt: skip
def test_each_turn_in_the_life_of_an_alert_has_its_words(
    incidents: list[Incident], kept: AlertNow | None, words: str
) -> None:
    said = alert(*incidents, kept=kept)
    assert words in said


def test_what_the_router_keeps_of_an_alert_outlives_the_incidents() -> None:
    kept = AlertNow(
        id="x", stream="cam", severity="low", message="m", accepted_at=NOW - 9000, acknowledged_by="bob",
        acknowledged_at=NOW - 2000, note="seen",
    )  # fmt: skip
    assert "acknowledged after 7.0 s by bob ('seen')" in alert(kept=kept)


def test_the_alerts_of_a_stream_are_told_among_what_happened_to_it() -> None:
    left = Incident(what=K.RELEASED, at=NOW, streams=("cam",), user="ann", reason="gw")
    found = about("cam", answer("router", "router", incidents=[RAISED, ACCEPTED, left]), answer(incidents=[TOLD]))
    assert [each.cause for each in found.past] == ["told", "camera_gone"]
    assert found.past[0].text.startswith(
        "alert x of cam: frame 812, looked at by people after 140 ms, told to 3 viewers"
    )


def test_of_what_is_there_no_more_this_is_said_first() -> None:
    left = Incident(what=K.RELEASED, at=NOW, streams=("cam",), user="ann", reason="gw")
    for name, cause, text in (
        ("cam", "offline", "cam has no camera now, and nobody waits for one"),
        ("ann", "not_connected", "no connection of ann is open now"),
    ):
        (sentence,) = about(name, answer("router", "router", incidents=[left]), answer()).now
        assert (sentence.cause, sentence.text) == (cause, text)
        (sentence,) = about(name, answer("router", "router", incidents=[left])).now
        assert sentence.text == f"{text}, as far as those who answered know", "no gateway did"


def test_a_name_that_nobody_knows_is_said_with_what_there_is_and_what_is_near() -> None:
    found = about(
        "door-1O",
        answer("router", "router", known_streams=["door-10", "gate"], known=["ann"]), answer(known=["bob"]),
    )  # fmt: skip
    (sentence,) = found.now
    assert not found.found
    assert sentence.text == (
        "nobody by the name door-1O in the last 60.0 min: streams known are door-10, gate; nearest: door-10"
    )
    assert about("x", answer()).now[0].text == "nobody by the name x in the last 60.0 min"


def test_an_open_connection_without_a_stream_is_known() -> None:
    one = ConnectionNow(connection="gw/1.2", user="ann", path="/streams/subscribe", address="::1", since=NOW - 5000)
    found = about("ann", answer(connections=[one]))
    assert (found.found, [each.cause for each in found.now]) == (True, ["idle_connection"])
    view = ViewNow(connection="gw/1.2", stream="cam", user="ann", status="offline")
    assert [each.cause for each in about("ann", answer(connections=[one], views=[view])).now] == ["offline"]


def test_who_did_not_answer_is_named_and_so_is_what_is_missing() -> None:
    found = about(
        "cam",
        answer("router", "router", streams=[StreamNow(stream="cam")], left_out=2),
        silent=[SilentProcess(kind="gateway", name="gw-2", host="b", why="no answer within 4 s")],
        missing_slots={1: "no router replies"},
    )  # fmt: skip
    assert [each.text for each in found.limits] == [
        "no router of slot 1 answered (no router replies): what its streams' members know is missing here",
        "gateway gw-2 on b did not answer (no answer within 4 s): what it knows is missing here",
        "no gateway answered: what clients got is not known",
        "2 incidents of router did not fit into its answer",
    ]


def test_since_when_a_process_remembers_is_said_where_that_is_short() -> None:
    young = answer(started_at=NOW - 60_000, since=NOW - 60_000)
    forgetful = answer(name="gw-2", since=NOW - 60_000)
    causes = [each.cause for each in about("cam", answer(), young, forgetful).limits]
    assert causes == ["started", "forgotten"]
    assert about("cam", answer()).limits == []


def test_what_concerns_everybody_is_told_apart_and_in_its_order() -> None:
    drain, lost = Incident(what=K.DRAIN, at=NOW), Incident(what=K.ROUTER_LOST, at=NOW - 1)
    found = about("cam", answer(of_everybody=[drain]), answer(name="gw-2", of_everybody=[lost]))
    assert [each.cause for each in found.everybody] == ["router_away", "restart"]
    assert not found.found


def test_the_error_with_which_a_connection_was_closed_is_not_said_twice() -> None:
    error = Incident(what=K.ERROR, at=NOW, connection="gw/1.2", streams=("cam",), reason="SLOW_CONSUMER: too many")
    other = Incident(what=K.ERROR, at=NOW, connection="gw/1.3", streams=("cam",), reason="SLOW_CONSUMER: too many")
    closed = Incident(
        what=K.CLOSED, at=NOW, connection="gw/1.2", streams=("cam",), code=4400, reason="SLOW_CONSUMER", by="gateway"
    )
    found = about("cam", answer(incidents=[error, closed, other]))
    assert [(each.cause, each.subject) for each in found.past] == [
        ("too_many_alerts", "gw/1.2"), ("slow_consumer", "gw/1.3"),
    ]  # fmt: skip


def test_the_replies_of_several_routers_name_each_process_once() -> None:
    gateway, bridge = answer(process="aa"), answer("mlbridge", "bridge", process="bb")
    routers = [answer("router", "router", process=f"rr/{slot}") for slot in (0, 1)]
    silent = [SilentProcess(kind="gateway", name="gw", why="x"), SilentProcess(kind="gateway", name="gw-9", why="x")]
    replies = [
        WhyReply(answers=[encode_answer(each) for each in (routers[0], gateway, bridge)]),
        WhyReply(answers=[encode_answer(routers[1]), encode_answer(gateway), b"\xc1"], silent=silent, left_out=1),
    ]
    facts = merged("cam", NOW, replies, {})
    assert [each.name for each in facts.answers] == ["gw", "bridge", "router", "router"]
    assert {each.name for each in facts.silent} == {"gw-9", "of another release", "1 processes"}


def test_the_text_shows_the_newest_of_what_happened_and_says_what_it_left_out() -> None:
    happened = [
        Incident(what=K.CLAIMED, at=NOW + at, streams=("cam",), user="ann", reason=f"gw-{at}") for at in range(5)
    ]
    lines = [line.plain for line in render(about("cam", answer(incidents=happened)), rows=2)]
    assert "What happened" in lines
    assert "  (3 sentences left out: --rows)" in lines
    assert lines[-1].endswith("cam was registered by ann at gw-4")


def test_text_from_outside_is_escaped() -> None:
    evil = Incident(what=K.ERROR, at=NOW, streams=("cam",), reason="INVALID_MESSAGE: \x1b[2J\n[red]x")
    lines = [line.plain for line in render(about("cam", answer(incidents=[evil])), rows=9)]
    assert not [line for line in lines if not line.isprintable()]
    assert any("\\x1b[2J\\n[red]x" in line for line in lines)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (fps(30.0), "30"), (fps(29.6), "30"), (fps(7.5), "7.5"), (fps(3.0), "3"), (fps(0.4), "0.4"),
        (per_second(600_000), "0.6 MB/s"), (per_second(40_000), "40.0 kB/s"), (per_second(0), "0 B/s"),
        (lasted(0.14), "140 ms"), (lasted(2), "2.0 s"), (lasted(12.4), "12 s"), (lasted(210), "3.5 min"),
        (lasted(7200), "2.0 h"), (lasted(600_000), "6.9 days"), (times(1), "once"), (times(2), "twice"),
        (times(3), "3 times"), (listed(["a", "b"]), "a, b"), (listed(["a", "b", "c"], 2), "a, b and 1 more"),
        (listed([]), ""),
    ],
)  # fmt: skip
def test_figures_in_words(made: str, said: str) -> None:
    assert made == said
