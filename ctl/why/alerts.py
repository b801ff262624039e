"""Tells the life of one alert: who looked at which frame, how late, whom it reached, and who acknowledged it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from watchout.common.why.answer import AlertNow, WhyAnswer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.terminal import counted
from watchout.ctl.why.sentence import Sentence, at, lasted, times

#: Kinds that the sentence about an alert contains, so that they are no sentences of their own.
TOLD_HERE = frozenset(
    {
        IncidentKind.RAISED, IncidentKind.HELD, IncidentKind.ACCEPTED, IncidentKind.TOLD, IncidentKind.ACKNOWLEDGED,
        IncidentKind.DUPLICATE, IncidentKind.REDELIVERED, IncidentKind.ALERT_LOST,
    }
)  # fmt: skip


def alert_sentences(about: str, answers: Sequence[WhyAnswer], now: int) -> list[Sentence]:
    """Return a sentence for each stream with an alert of this id; none when nobody knows one.

    Args:
        about: The id.
        answers: What the processes know.
        now: The present time, in ms since the epoch.
    """
    kept = {alert.stream: alert for answer in answers for alert in answer.alerts}
    incidents = [each for answer in answers for each in answer.incidents if each.alert == about]
    return _lives(about, "this alert of", kept, incidents, now)


def alerts_of_stream(incidents: Sequence[Incident], now: int) -> list[Sentence]:
    """Return a sentence for each alert among the incidents of a stream or user.

    Args:
        incidents: What all processes remember.
        now: The present time, in ms since the epoch.
    """
    by_alert: dict[str, list[Incident]] = {}
    for each in incidents:
        if each.alert and each.what in TOLD_HERE:
            by_alert.setdefault(each.alert, []).append(each)
    return [
        sentence for about, found in by_alert.items() for sentence in _lives(about, f"alert {about} of", {}, found, now)
    ]


def _lives(
    about: str, who: str, kept: Mapping[str, AlertNow], incidents: Sequence[Incident], now: int
) -> list[Sentence]:
    streams = dict.fromkeys([*kept, *(stream for each in incidents for stream in _streams_of(each))])
    return [
        _life(
            about, f"{who} {stream}", stream, kept.get(stream), [e for e in incidents if stream in _streams_of(e)], now
        )
        for stream in streams
    ]


def _streams_of(incident: Incident) -> tuple[str, ...]:
    """Return the streams of an incident; an alert that was held back names its stream as the reason."""
    if incident.what == IncidentKind.HELD and not incident.streams:
        return (incident.reason,)
    return incident.streams


def _life(
    about: str, who: str, stream: str, kept: AlertNow | None, incidents: Sequence[Incident], now: int
) -> Sentence:
    accepted = _first(incidents, IncidentKind.ACCEPTED)
    held = _first((each for each in incidents if each.cause != about), IncidentKind.HELD)
    began = accepted or _first(incidents, IncidentKind.TOLD)  # the router that accepted it may have ended since
    if began is None and kept is None:
        return _unsent(about, who, held, incidents)
    accepted_at = kept.accepted_at if kept is not None else 0 if began is None else began.at
    figures: dict[str, float | int | str | None] = {"stream": stream, "acceptedAt": accepted_at}
    parts = [*_origin(kept, incidents, figures), *_way(about, incidents, figures)]
    parts.append(_reach(incidents, accepted, figures))
    parts.append(_acknowledged(kept, incidents, accepted_at, now, figures))
    said = "" if kept is None else f" ({kept.severity}: {kept.message[:80]!r})"
    return Sentence(
        cause="acknowledged" if "acknowledgedAfterMs" in figures else "told" if figures.get("told") else "told_nobody",
        text=f"{who}{said}: {', '.join(parts)}",
        at=accepted_at or None, subject=about, figures=figures,
    )  # fmt: skip


def _unsent(about: str, who: str, held: Incident | None, incidents: Sequence[Incident]) -> Sentence:
    """Return the sentence about an alert that no router accepted."""
    if held is not None:
        text = (
            f"{who}: held back by the bridge, because alert {held.cause} of the same kind came less "
            "than ALERT_COOLDOWN_S before"
        )
        return Sentence(cause="held_back", text=text, at=held.at, subject=about, figures={"cause": held.cause})
    lost = _first(incidents, IncidentKind.ALERT_LOST)
    if lost is not None:
        text = f"{who}: dropped by the bridge, because too many alerts waited for the router"
        return Sentence(cause="alert_lost", text=text, at=lost.at, subject=about)
    raised = _first(incidents, IncidentKind.RAISED)
    text = f"{who}: no router is known to have accepted it"
    if raised is not None:
        text += f"; the bridge got it at {at(raised.at)}, and it waits for the router, or that router has ended since"
    return Sentence(cause="not_accepted", text=text, at=None if raised is None else raised.at, subject=about)


def _origin(
    kept: AlertNow | None, incidents: Sequence[Incident], figures: dict[str, float | int | str | None]
) -> list[str]:
    raised = _first(incidents, IncidentKind.RAISED)
    accepted = _first(incidents, IncidentKind.ACCEPTED)
    known = (kept.frame_id if kept is not None else 0, *(_number(each, "frame_id") for each in (raised, accepted)))
    frame = int(max(known))
    parts = [f"frame {frame}" if frame else "about no frame"]
    if frame:
        figures["frameId"] = frame
    if raised is None:
        parts.append("raised by a client, an operator or over HTTP, or by a bridge that does not remember it")
    elif "took_ms" in raised.numbers:
        figures["tookMs"] = raised.numbers["took_ms"]
        parts.append(f"looked at by {raised.reason} after {lasted(raised.numbers['took_ms'] / 1000)}")
    else:
        parts.append(f"sent by {raised.reason}")
    if raised is not None and (before := int(_number(raised, "held_before"))):
        parts.append(f"{counted(before, 'alert')} of its kind held back before it")
    return parts


def _way(about: str, incidents: Sequence[Incident], figures: dict[str, float | int | str | None]) -> list[str]:
    parts = []
    if held := sum(each.count for each in incidents if each.what == IncidentKind.HELD and each.cause == about):
        figures["heldBack"] = held
        parts.append(f"held back {times(held)} since")
    if again := sum(each.count for each in incidents if each.what == IncidentKind.DUPLICATE):
        figures["duplicates"] = again
        parts.append(f"received {times(again)} more, which changes nothing")
    if missed := sum(each.count for each in incidents if each.what == IncidentKind.REDELIVERED):
        figures["redelivered"] = missed
        parts.append(f"sent again {times(missed)} to gateways that had missed it")
    return parts


def _reach(
    incidents: Sequence[Incident], accepted: Incident | None, figures: dict[str, float | int | str | None]
) -> str:
    told = [each for each in incidents if each.what == IncidentKind.TOLD]
    viewers, cameras = (int(sum(_number(each, name) for each in told)) for name in ("viewers", "publishers"))
    figures |= {"told": viewers + cameras, "viewers": viewers}
    reached = counted(viewers, "viewer") + (" and its camera" if cameras else "")
    if told and (viewers or cameras):
        return f"told to {reached}"
    expected = int(_number(accepted, "receivers"))
    if expected:
        figures["told"] = expected
        return f"sent to the gateways of {counted(expected, 'client')}, which do not remember to have told it"
    return "told to nobody: no viewer with alerts was subscribed, and no camera wanted them"


def _acknowledged(
    kept: AlertNow | None, incidents: Sequence[Incident], accepted_at: int, now: int,
    figures: dict[str, float | int | str | None],
) -> str:  # fmt: skip
    given = _first(incidents, IncidentKind.ACKNOWLEDGED)
    if kept is not None and kept.acknowledged_at:
        user, after = kept.acknowledged_by, kept.acknowledged_at - accepted_at
    elif given is not None:
        user, after = given.user, int(_number(given, "after_ms"))
    else:
        return f"not acknowledged by anybody for {lasted(max(0, now - accepted_at) / 1000)}"
    figures |= {"acknowledgedAfterMs": max(0, after), "acknowledgedBy": user}
    note = f" ({kept.note[:80]!r})" if kept is not None and kept.note else ""
    return f"acknowledged after {lasted(max(0, after) / 1000)} by {user}{note}"


def _first(incidents: Iterable[Incident], what: IncidentKind) -> Incident | None:
    return next((each for each in incidents if each.what == what), None)


def _number(incident: Incident | None, name: str) -> float:
    return 0.0 if incident is None else incident.numbers.get(name, 0.0)
