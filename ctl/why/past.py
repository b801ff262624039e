"""Says what happened: a sentence for each incident that a process remembers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.terminal import counted, size
from watchout.ctl.why.sentence import Figure, Sentence, at, lasted, listed, times

#: Why frames were not sent, in words; the names are those of `DropReason`.
DROPPED: Final = {
    "slow": "because its socket took no more",
    "window": "because it acknowledged too late",
    "rate": "because it asked for fewer (maxFps)",
    "gone": "because it left",
    "undecodable": "because they could not be decoded",
    "codec": "because its reader does not accept their codec",
}

#: What the reasons and codes of a close mean: the cause in one word, and a clause.
_BY_REASON: Final = {
    "AUTH_FAILED": ("refused_login", "its token was not valid"),
    "AUTH_TIMEOUT": ("refused_login", "it did not sign in within AUTH_TIMEOUT_S"),
    "AUTH_UNAVAILABLE": ("store_away", "the session store could not be asked"),
    "SESSION_ENDED": ("session_ended", "its session ended: expired, signed out, revoked or banned"),
    "STREAM_TAKEN_OVER": ("taken_over", "another camera of the same user registered its stream"),
    "SLOW_CONSUMER": ("too_many_alerts", "it did not read its alerts"),
    "TOO_MANY_CONNECTIONS": ("connection_limit", "there were too many connections"),
    "MESSAGE_TIMEOUT": ("stalled", "a message that it had begun stalled"),
    "repeated abuse": ("abuse", "it repeated faults or went over the rates more than ABUSE_LIMIT times"),
    "restart": ("restart", "the gateway was stopped or restarted"),
}
_BY_CODE: Final = {
    1002: ("protocol_error", "it violated the WebSocket protocol"),
    1007: ("protocol_error", "its text was not UTF-8"),
    1008: ("refused", "it broke a rule"),
    1009: ("too_big", "a message was larger than MAX_MESSAGE_BYTES"),
    1011: ("bug", "the request failed inside the gateway, whose log says why"),
    1012: ("restart", "the gateway was stopped or restarted"),
    1013: ("try_later", "the gateway could not serve it then"),
    4400: ("too_many_alerts", "it did not read its alerts"),
    4408: ("stalled", "a message that it had begun stalled"),
    4500: ("session_ended", "its session ended: expired, signed out, revoked or banned"),
    4501: ("taken_over", "another camera of the same user registered its stream"),
}


def cause_of_code(code: str) -> str | None:
    """Return the cause of a close whose last error had this code, after the client had signed in; None: no such one."""
    return None if code.startswith("AUTH_") or code not in _BY_REASON else _BY_REASON[code][0]


def incident_sentence(incident: Incident, process: str) -> Sentence:
    """Return the sentence about one incident; of a kind that is not known here, its words as they are.

    Args:
        incident: The incident.
        process: The name of the process that remembers it.
    """
    made = _MADE.get(incident.what)
    cause, text = made(incident, process) if made is not None else _other(incident, process)
    figures: dict[str, Figure] = {"count": incident.count, **incident.numbers}
    if incident.code:
        figures["code"] = incident.code
    if incident.until > incident.at:
        figures["until"] = incident.until
    return Sentence(cause=cause, text=text, at=incident.at, subject=_who(incident), figures=figures)


def _who(incident: Incident) -> str:
    return incident.connection or incident.alert or incident.address or ",".join(incident.streams[:3])


def _client(incident: Incident) -> str:
    """Return the words for the client of an incident: connection, user, streams, address."""
    return f"{incident.connection or 'a viewer'} {_about(incident)}"


def _about(incident: Incident) -> str:
    about = [incident.user or "nobody signed in", *incident.streams[:3]]
    more = [f"{len(incident.streams) - 3} more"] if len(incident.streams) > 3 else []
    address = [incident.address] if incident.address else []
    return f"({', '.join([*about, *more, *address])})"


def _span(incident: Incident) -> str:
    """Return " until …" for what lasted more than a second."""
    return f" until {at(incident.until)}" if incident.until - incident.at >= 1000 else ""


def _closed(incident: Incident, process: str) -> tuple[str, str]:
    cause, why = _why_closed(incident)
    if incident.summed:
        code = f" with {incident.code}" if incident.code and incident.code != 1006 else ""
        who = f"{counted(incident.count, 'earlier connection')} {_about(incident)} at {process}"
        return cause, f"{who} ended{code}{_span(incident)}, for each: {why}{_counts(incident)}"
    code = f"closed {incident.code}" if incident.code and incident.code != 1006 else "ended"
    return cause, f"{_client(incident)} {code}: {why}{_counts(incident)}"


def _why_closed(incident: Incident) -> tuple[str, str]:
    reason = incident.reason
    waiting = int(incident.numbers.get("messages_waiting", 0))
    if waiting:
        who, volume = "all of them" if incident.summed else "it", size(incident.numbers.get("bytes_waiting", 0))
        return "too_many_alerts", f"{waiting} alerts ({volume}) waited for {who}"
    if incident.by == "client":
        return "left", "the client left by itself" + (f" ({reason!r})" if reason else "")
    if incident.by == "network":
        return "lost", (
            "the connection was lost without a close frame: the network, the device or the app ended it; which of "
            "them, the gateway cannot know"
        )
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    cause, text = _BY_CODE.get(incident.code, ("closed_here", "the gateway ended it"))
    return cause, f"{text} ({reason})" if reason else text


def _counts(incident: Incident) -> str:
    numbers = incident.numbers
    together = "together they" if incident.summed else "it"
    parts = [f"{together} lasted {lasted(numbers['seconds'])}"] if "seconds" in numbers else []
    for name, noun in (
        ("frames_in", "frame"),
        ("frames_out", "frame"),
        ("alerts_out", "alert"),
        ("alerts_in", "alert"),
    ):
        if numbers.get(name):
            parts.append(f"{counted(int(numbers[name]), noun)} {'in' if name.endswith('in') else 'out'}")
    dropped = [
        f"{int(count)} {DROPPED.get(name.removeprefix('dropped_'), name)}"
        for name, count in numbers.items()
        if name.startswith("dropped_")
    ]
    if dropped:
        parts.append(f"frames not sent: {listed(dropped)}")
    if numbers.get("limited"):
        parts.append(f"{counted(int(numbers['limited']), 'message')} over the rates")
    return f"; {', '.join(parts)}" if parts else ""


def _refused(incident: Incident, process: str) -> tuple[str, str]:
    status = f"refused with {incident.code}" if incident.code else "cut"
    often = "" if incident.count == 1 else f", {times(incident.count)}{_span(incident)}"
    cause = "refused_login" if incident.code == 401 else "refused_handshake"
    what = "a request" if ": AUTH_FAILED" in incident.reason else "a handshake"  # over HTTP it begins with the path
    return cause, f"{what} from {incident.address or 'somebody'} was {status} by {process}{often}: {incident.reason}"


def _error(incident: Incident, _process: str) -> tuple[str, str]:
    often = "" if incident.count == 1 else f" {times(incident.count)}{_span(incident)}"
    code = incident.reason.partition(":")[0].lower()
    cause = {"invalid_message": "protocol_error", "rate_limited": "rate_limit"}.get(code, code)
    return cause, f"{_client(incident)} was told{often}: {incident.reason}"


def _dropped(incident: Incident, _process: str) -> tuple[str, str]:
    numbers = sorted(incident.numbers.items(), key=lambda item: -item[1])
    parts = [f"{int(count)} {DROPPED.get(name, name)}" for name, count in numbers]
    main = numbers[0][0] if numbers else ""
    cause = {"slow": "slow_socket", "rate": "asked_rate"}.get(main, main or "dropped")
    total = int(sum(incident.numbers.values()))
    return cause, f"{counted(total, 'frame')} not sent to {_client(incident)}{_span(incident)}: {listed(parts)}"


def _limited(incident: Incident, _process: str) -> tuple[str, str]:
    text = f"{counted(incident.count, 'message')} of {_client(incident)} were over the rates (MESSAGE_RATE, BYTE_RATE)"
    return "rate_limit", f"{text} and dropped{_span(incident)}"


def _unsubscribed(incident: Incident, _process: str) -> tuple[str, str]:
    often = "" if incident.count == 1 else f" {times(incident.count)}{_span(incident)}"
    return (
        "hidden",
        f"{_client(incident)} ended or changed its subscription{often}, as a view that is hidden or paused does",
    )


def _router_lost(incident: Incident, process: str) -> tuple[str, str]:
    return "router_away", (
        f"{process} lost the router{_slot(incident)}: viewers of cameras at the same gateway went on, alerts and "
        "frames of other gateways had to wait"
    )


def _router_joined(incident: Incident, process: str) -> tuple[str, str]:
    return "router_back", f"{process} joined the router{_slot(incident)}"


def _slot(incident: Incident) -> str:
    return f" of {incident.reason}" if incident.reason else ""


def _drain(_incident: Incident, process: str) -> tuple[str, str]:
    return "restart", f"{process} was told to end, and asked its clients to reconnect (1012)"


def _claimed(incident: Incident, _process: str) -> tuple[str, str]:
    return "claimed", f"{_streams(incident)} was registered by {incident.user} at {incident.reason}"


def _claim_refused(incident: Incident, _process: str) -> tuple[str, str]:
    often = "" if incident.count == 1 else f" {times(incident.count)}{_span(incident)}"
    return "claim_refused", f"{incident.user} could not register {_streams(incident)}{often}: {incident.reason}"


def _taken_over(incident: Incident, _process: str) -> tuple[str, str]:
    return "taken_over", (
        f"{_streams(incident)} was taken over: {incident.user} registered it again at {incident.reason}, and the "
        "camera before was closed with 4501"
    )


def _released(incident: Incident, _process: str) -> tuple[str, str]:
    return "camera_gone", f"the camera of {_streams(incident)} left {incident.reason}"


def _member_lost(incident: Incident, process: str) -> tuple[str, str]:
    cause = "gateway_lost" if incident.reason.startswith("gateway") else "bridge_lost"
    said = f"{process} lost {incident.reason}: it was killed, hangs, or is cut off"
    if cause == "bridge_lost":
        return cause, f"{said}; its streams were not analysed until another bridge took them"
    return cause, f"{said}; what it knew of its clients is lost with it, so why they saw nothing is not known"


def _alert_refused(incident: Incident, process: str) -> tuple[str, str]:
    often = "" if incident.count == 1 else f" {times(incident.count)}{_span(incident)}"
    where = f" for {_streams(incident)}" if incident.streams else ""
    return "alert_refused", f"{process} refused an alert of the ML service{where}{often}: {incident.reason}"


def _ml_failed(incident: Incident, process: str) -> tuple[str, str]:
    often = "" if incident.count == 1 else f" {times(incident.count)}{_span(incident)}"
    return "ml_failed", f"the ML service failed for {_streams(incident)} at {process}{often}: {incident.reason}"


def _ml_away(incident: Incident, process: str) -> tuple[str, str]:
    return "ml_away", f"the ML service failed for all streams of {process}: {incident.reason}"


def _ml_back(incident: Incident, process: str) -> tuple[str, str]:
    after = lasted(incident.numbers.get("seconds", 0))
    return "ml_back", f"the ML service {incident.reason} answered {process} again after {after}"


def _streams(incident: Incident) -> str:
    return listed(incident.streams, 3) or "a stream"


def _other(incident: Incident, process: str) -> tuple[str, str]:
    said = f": {incident.reason}" if incident.reason else ""
    return incident.what.replace(" ", "_"), f"{process} remembers {incident.what!r} of {_who(incident)}{said}"


_MADE: Final[dict[str, Callable[[Incident, str], tuple[str, str]]]] = {
    IncidentKind.CLOSED: _closed,
    IncidentKind.REFUSED: _refused,
    IncidentKind.ERROR: _error,
    IncidentKind.DROPPED: _dropped,
    IncidentKind.LIMITED: _limited,
    IncidentKind.UNSUBSCRIBED: _unsubscribed,
    IncidentKind.ROUTER_LOST: _router_lost,
    IncidentKind.ROUTER_JOINED: _router_joined,
    IncidentKind.DRAIN: _drain,
    IncidentKind.CLAIMED: _claimed,
    IncidentKind.CLAIM_REFUSED: _claim_refused,
    IncidentKind.TAKEN_OVER: _taken_over,
    IncidentKind.RELEASED: _released,
    IncidentKind.MEMBER_LOST: _member_lost,
    IncidentKind.ALERT_REFUSED: _alert_refused,
    IncidentKind.ML_FAILED: _ml_failed,
    IncidentKind.ML_AWAY: _ml_away,
    IncidentKind.ML_BACK: _ml_back,
}
