"""Facts in, sentences out: puts together what all processes know about a subject. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from watchout.common.why.answer import WhyAnswer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import MAX_PER_SUBJECT
from watchout.ctl.terminal import counted
from watchout.ctl.why.alerts import TOLD_HERE, alert_sentences, alerts_of_stream
from watchout.ctl.why.cameras import camera_sentence, ml_sentence, stream_sentence
from watchout.ctl.why.past import incident_sentence
from watchout.ctl.why.sentence import Explanation, Sentence, WhyFacts, at, lasted, listed
from watchout.ctl.why.viewers import view_sentences

#: A process that started less than this before the question, in ms, is named: what was before is not known.
STARTED_MS: Final = 3_600_000
#: Most names that a sentence about an unknown subject lists.
MAX_NAMES: Final = 12
#: Most names that are compared with an unknown one.
MAX_COMPARED: Final = 5_000


def explain(facts: WhyFacts) -> Explanation:
    """Return the sentences about a subject.

    Args:
        facts: What every process answered, and who did not.
    """
    answers = list(facts.answers)
    found = any(not answer.is_empty for answer in answers)
    now = [*_present(facts, answers)] or [_only_past(facts, answers)] if found else [_unknown(facts, answers)]
    told = bool(found and alert_sentences(facts.about, answers, facts.now))
    incidents = _in_order(answers, everybody=False)
    closed = {(each.connection, each.reason) for _, each in incidents if each.what == IncidentKind.CLOSED}
    past = [
        incident_sentence(each, answer.name)
        for answer, each in incidents
        if not _is_of_alert(each) and not _is_said_by_close(each, closed)
    ]
    if not told:
        past += alerts_of_stream([each for _, each in incidents], facts.now)
        past.sort(key=lambda sentence: sentence.at or 0)
    everybody = [incident_sentence(incident, answer.name) for answer, incident in _in_order(answers, everybody=True)]
    return Explanation(
        about=facts.about, found=found, now=now, past=past, everybody=everybody, limits=list(_limits(facts, answers))
    )


def _is_of_alert(incident: Incident) -> bool:
    return bool(incident.alert) and incident.what in TOLD_HERE


def _is_said_by_close(incident: Incident, closed: set[tuple[str, str]]) -> bool:
    """Return whether an error is the one with which its connection was closed."""
    code = incident.reason.partition(":")[0]
    return incident.what == IncidentKind.ERROR and (incident.connection, code) in closed


def _present(facts: WhyFacts, answers: Sequence[WhyAnswer]) -> Iterator[Sentence]:
    yield from alert_sentences(facts.about, answers, facts.now)
    for answer in answers:
        yield from (stream_sentence(stream, answer.now) for stream in answer.streams)
    for answer in answers:
        yield from (camera_sentence(camera, answer.now) for camera in answer.cameras)
    for answer in answers:
        yield from (ml_sentence(ml, answer.name) for ml in answer.ml)
    yield from view_sentences([view for answer in answers for view in answer.views])
    with_more = {view.connection for answer in answers for view in answer.views}
    with_more |= {camera.connection for answer in answers for camera in answer.cameras}
    for answer in answers:
        for one in answer.connections:
            if one.connection not in with_more:
                yield Sentence(
                    cause="idle_connection",
                    text=f"{one.connection} ({one.user or 'nobody signed in'}, {one.address}) is open since "
                    f"{lasted(max(0, answer.now - one.since) / 1000)}, and neither sends nor watches a stream now",
                    subject=one.connection,
                )  # fmt: skip


def _only_past(facts: WhyFacts, answers: Sequence[WhyAnswer]) -> Sentence:
    """Return the sentence about a subject of which nothing is there any more; what is remembered follows it."""
    all_answered = not (facts.missing_slots or facts.silent) and any(answer.kind == "gateway" for answer in answers)
    hedge = "" if all_answered else ", as far as those who answered know"
    if any(facts.about in incident.streams for answer in answers for incident in answer.incidents):
        text = f"{facts.about} has no camera now, and nobody waits for one{hedge}"
        return Sentence(cause="offline", text=text, subject=facts.about)
    text = f"no connection of {facts.about} is open now{hedge}"
    return Sentence(cause="not_connected", text=text, subject=facts.about)


def _in_order(answers: Sequence[WhyAnswer], *, everybody: bool) -> list[tuple[WhyAnswer, Incident]]:
    found = [
        (answer, incident)
        for answer in answers
        for incident in (answer.of_everybody if everybody else answer.incidents)
    ]
    return sorted(found, key=lambda each: each[1].at)


# ── what is not known ────────────────────────────────────────────────────────────────────────────────────────────


def _unknown(facts: WhyFacts, answers: Sequence[WhyAnswer]) -> Sentence:
    span = max((answer.now - answer.since for answer in answers), default=0) / 1000
    streams = sorted({name for answer in answers for name in answer.known_streams})
    names = list(dict.fromkeys([*streams, *(name for answer in answers for name in answer.known)]))[:MAX_COMPARED]
    text = f"nobody by the name {facts.about} in the last {lasted(span)}"
    if streams:
        text += f": streams known are {listed(streams, MAX_NAMES)}"
    nearest = difflib.get_close_matches(facts.about, names, n=3, cutoff=0.6)
    if nearest:
        text += f"; nearest: {listed(nearest)}"
    return Sentence(
        cause="unknown_name", text=text, subject=facts.about, figures={"nearest": nearest[0] if nearest else None}
    )


def _limits(facts: WhyFacts, answers: Sequence[WhyAnswer]) -> Iterator[Sentence]:
    for slot, why in sorted(facts.missing_slots.items()):
        yield Sentence(
            cause="no_answer", subject=f"slot {slot}",
            text=f"no router of slot {slot} answered ({why}): what its streams' members know is missing here",
        )  # fmt: skip
    for silent in facts.silent:
        where = f" on {silent.host}" if silent.host else ""
        yield Sentence(
            cause="no_answer", subject=silent.name,
            text=f"{silent.kind} {silent.name}{where} did not answer ({silent.why}): what it knows is missing here",
        )  # fmt: skip
    if not any(answer.kind == "gateway" for answer in answers):
        yield Sentence(cause="no_gateway", text="no gateway answered: what clients got is not known")
    young = [each for each in answers if each.now - each.started_at < STARTED_MS]
    if young:
        starts = {each.name: each.started_at for each in young}  # a router answers for each of its slots
        text = listed([f"{name} at {at(started)}" for name, started in starts.items()])
        yield Sentence(cause="started", text=f"started within the last hour, and knows nothing of before: {text}")
    for answer in answers:
        if answer.since > answer.started_at and answer.since > answer.now - STARTED_MS // 2:
            yield Sentence(
                cause="forgotten", subject=answer.name, at=answer.since,
                text=f"{answer.name} remembers all only since {at(answer.since)}: older incidents gave way "
                f"({MAX_PER_SUBJECT} of one kind and name, or WHY_BYTES)",
            )  # fmt: skip
        if answer.left_out:
            yield Sentence(
                cause="left_out", subject=answer.name, figures={"count": answer.left_out},
                text=f"{counted(answer.left_out, 'incident')} of {answer.name} did not fit into its answer",
            )  # fmt: skip
