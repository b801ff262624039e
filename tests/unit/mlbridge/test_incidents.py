"""A bridge remembers what became of alerts and why the service failed, and says how it deals with a stream."""

from __future__ import annotations

from watchout.common.alerts.model import Alert
from watchout.common.settings import Settings
from watchout.common.why.answer import WhyAnswer, decode_answer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import MAX_PER_SUBJECT
from watchout.mlbridge.cooldown import Cooldown
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.incidents import BridgeIncidents
from watchout.mlbridge.scheduler import Scheduler


def alert(id: str, **fields: object) -> Alert:
    given = {"stream_id": "cam", "severity": "high", "message": "a person", "timestamp": 5, "frame_id": 812}
    return Alert(id=id, **{**given, **fields})  # type: ignore[arg-type]


def bridge() -> tuple[BridgeIncidents, Scheduler[str]]:
    scheduler = Scheduler[str](
        Failover(1, 1, chance=lambda: 0.5), max_fps=100, max_age_s=2.0, timeout_s=5.0, max_streams=10
    )
    incidents = BridgeIncidents(Settings(), "bridge")
    incidents.serve(scheduler, ["http://ml"])
    return incidents, scheduler


def answer(incidents: BridgeIncidents, about: str, now: float = 0.0) -> WhyAnswer:
    return decode_answer(incidents.answer(about, now, "aa"))


def test_an_alert_that_is_held_back_is_known_by_its_id_and_counted_with_the_one_before() -> None:
    incidents, _ = bridge()
    cooldown = Cooldown(60.0)
    for name in ("x", "y", "z"):
        if cooldown.take(alert(name), 1.0) is not None:
            incidents.raised(alert(name), 140)
        else:
            assert cooldown.held_by == "x"
            incidents.held(alert(name), cooldown.held_by)
    assert cooldown.take(alert("x"), 1.0) is None
    assert cooldown.held_by == ""  # that one is the same again, not another
    first = answer(incidents, "x").incidents
    assert [(each.what, each.count) for each in first] == [(IncidentKind.RAISED, 1), (IncidentKind.HELD, 2)]
    assert first[0].numbers == {"took_ms": 140.0, "frame_id": 812.0}
    assert first[0].reason == "http://ml"
    (held,) = answer(incidents, "y").incidents
    assert (held.what, held.cause, held.reason) == (IncidentKind.HELD, "x", "cam")
    assert [each.what for each in answer(incidents, "cam").incidents] == [IncidentKind.RAISED, IncidentKind.HELD]


def test_failures_alike_are_counted_and_outages_concern_everybody() -> None:
    incidents, _ = bridge()
    for _ in range(5):
        incidents.failed("cam", "status 500")
    incidents.failed("cam", "no answer before the deadline")
    incidents.away("http://ml", "status 500")
    incidents.back("http://ml", 9.04)
    found = answer(incidents, "cam")
    assert [(each.reason, each.count) for each in found.incidents] == [
        ("status 500", 5), ("no answer before the deadline", 1),
    ]  # fmt: skip
    assert [(each.what, each.numbers) for each in found.of_everybody] == [
        (IncidentKind.ML_AWAY, {}), (IncidentKind.ML_BACK, {"seconds": 9.0}),
    ]  # fmt: skip


def test_what_becomes_of_the_frames_of_a_stream_is_counted_by_cause() -> None:
    incidents, scheduler = bridge()
    for number in range(4):
        scheduler.offer("cam", (1, number), "frame", 10, 0.0)
        scheduler.due(0.0)
    scheduler.offer("cam", (1, 0), "late", 10, 0.1)
    scheduler.on_result(1, 0.5)
    scheduler.offer("other", (1, 1), "frame", 10, 0.5)
    (found,) = answer(incidents, "cam", 0.5).ml
    assert (found.offered, found.sent, found.answered, found.failed) == (5, 1, 1, 0)
    assert found.skipped == {"replaced": 3}
    assert (found.waiting, found.circuit, found.service) == (1, "closed", "http://ml")
    assert found.offered == found.sent + sum(found.skipped.values()) + found.waiting
    scheduler.due(9.0)  # it waited too long
    (found,) = answer(incidents, "cam", 9.0).ml
    assert found.skipped == {"replaced": 3, "too_old": 1}


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    incidents, scheduler = bridge()
    scheduler.offer("cam", (1, 1), "frame", 10, 0.0)
    incidents.raised(alert("x"), None)
    found = answer(incidents, "nobody")
    assert found.is_empty
    assert (found.known_streams, found.known) == (["cam"], ["x", "cam"])


def test_what_gave_way_of_one_name_is_not_missing_of_another() -> None:
    incidents, _ = bridge()
    started = answer(incidents, "bob").since
    for at in range(1, MAX_PER_SUBJECT + 6):
        incidents.memory.add(Incident(what=IncidentKind.RAISED, at=started + at, streams=("cam",)))
    assert {name: answer(incidents, name).since for name in ("cam", "bob")} == {"cam": started + 5, "bob": started}
