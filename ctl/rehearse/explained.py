"""Compares what gateways remember of a rehearsal's connections, as `why` tells it, with the clients' counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from watchout.common.why.answer import WhyAnswer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.rehearse.figures import StreamTally
from watchout.ctl.why.past import cause_of_code, incident_sentence
from watchout.ctl.why.sentence import WhyFacts, listed

#: Streams that are asked about at most.
MAX_STREAMS: Final = 20
#: Users that are asked about at most: for ends of connections that had no stream yet.
MAX_USERS: Final = 20
#: Frames for each connection by which two counts may differ: they were under way when it ended.
UNDER_WAY: Final = 4
#: Share by which counts of frames may differ besides.
TOLERANCE: Final = 0.005
_GATEWAY: Final = "gateway"
_PREFIX: Final = "dropped_"


class StreamMemory(msgspec.Struct, kw_only=True):
    """What all gateways remember of the connections of one stream that ended.

    Attributes:
        closes: How many ended, by cause.
        users: The users that they were of.
        frames_out: Frames that were written to them.
        dropped: Frames that were not, by reason.
        incomplete: Why something may be missing; empty when nothing is.
        forgotten: Whether that is so for good, so that asking again is of no use.
    """

    closes: dict[str, int] = {}
    users: set[str] = set()
    frames_out: int = 0
    dropped: dict[str, int] = {}
    incomplete: str = ""
    forgotten: bool = False


class Explanations(msgspec.Struct, kw_only=True, rename="camel"):
    """How the memory of the gateways and the clients' counts agree, over the streams that could be compared.

    Attributes:
        streams: How many were compared, of `of_streams`.
        connections: Connections by the clients' count, and `closes` those whose end is explained, by cause.
        received: Frames that viewers read, `written` those that gateways wrote to them.
        missing: Frames that never came by the clients' count, and `dropped` those that gateways say they dropped.
        unexplained: Closes and frames beyond what was under way that are in the clients' counts alone.
        notes: What could not be compared, and why.
    """

    streams: int = 0
    of_streams: int = 0
    connections: int = 0
    closes: dict[str, int] = {}
    received: int = 0
    written: int = 0
    missing: int = 0
    dropped: dict[str, int] = {}
    unexplained: int | None = None
    notes: list[str] = []


def memory_of(facts: WhyFacts, *, began_ms: int) -> StreamMemory:
    """Return what was answered about one stream, in numbers.

    Args:
        facts: The answers.
        began_ms: When the rehearsal began, in ms since the epoch: what gateways forgot of before is not missing.
    """
    found = StreamMemory()
    for answer in facts.answers:
        closed = [each for each in answer.incidents if each.what == IncidentKind.CLOSED and about(each, facts.about)]
        for incident in closed:
            _add(found, incident, answer)
        forgotten = answer.kind == _GATEWAY and (answer.closed_since or answer.since) > began_ms
        if forgotten or answer.left_out:
            found.incomplete, found.forgotten = f"{answer.name} has forgotten some of its connections", True
    silent = [f"{each.kind} {each.name}" for each in facts.silent] + [f"slot {slot}" for slot in facts.missing_slots]
    if silent:
        found.incomplete = f"{listed(silent)} did not answer"
    return found


def streamless_of(facts: WhyFacts, *, began_ms: int) -> dict[str, int]:
    """Return how many connections of a user ended before they had a stream, by cause.

    Args:
        facts: What was answered about the user.
        began_ms: When the rehearsal began, in ms since the epoch: what was before is not counted.
    """
    found: dict[str, int] = {}
    for answer in facts.answers:
        for each in answer.incidents:
            if each.what == IncidentKind.CLOSED and not each.streams and each.at >= began_ms:
                _sum(found, {incident_sentence(each, answer.name).cause: each.count})
    return found


def is_whole(found: StreamMemory, *, connections: int) -> bool:
    """Return whether asking again would tell nothing more: the ends of so many connections are there, or forgotten."""
    return found.forgotten or (not found.incomplete and sum(found.closes.values()) >= connections)


def about(incident: Incident, stream: str) -> bool:
    """Return whether an incident is about this stream and no other."""
    return tuple(incident.streams) == (stream,)


def _add(found: StreamMemory, incident: Incident, answer: WhyAnswer) -> None:
    cause = incident_sentence(incident, answer.name).cause
    found.closes[cause] = found.closes.get(cause, 0) + incident.count
    if incident.user:
        found.users.add(incident.user)
    found.frames_out += int(incident.numbers.get("frames_out", 0))
    for name, count in incident.numbers.items():
        if name.startswith(_PREFIX):
            reason = name.removeprefix(_PREFIX)
            found.dropped[reason] = found.dropped.get(reason, 0) + int(count)


def compare(
    counted: Mapping[str, StreamTally],
    remembered: Mapping[str, StreamMemory],
    streamless: Mapping[str, int] | None = None,
    lost: Mapping[str, int] | None = None,
) -> Explanations:
    """Compare the two, stream by stream.

    Args:
        counted: What clients counted, by stream.
        remembered: What gateways remember, of some of these streams.
        streamless: Ends of connections of the same users that had no stream yet, by cause: clients count them for the
            stream that they came for.
        lost: Connections that clients lost, by the code of the reason. Where that says the cause, gateways have to say
            the same of as many.
    """
    result = Explanations(of_streams=len(counted), unexplained=None, notes=[])
    missing = 0
    if len(remembered) < len(counted):
        result.notes.append(f"{len(remembered)} of {len(counted)} streams were asked about")
    for stream, memory in remembered.items():
        if memory.incomplete:
            result.notes.append(f"{stream} is not compared: {memory.incomplete}")
            continue
        clients = counted[stream]
        result.streams += 1
        result.connections += clients.connections
        result.received += clients.received
        result.missing += clients.missing
        result.written += memory.frames_out
        _sum(result.closes, memory.closes)
        _sum(result.dropped, memory.dropped)
        missing += max(0, clients.connections - sum(memory.closes.values()))
        result.unexplained = (result.unexplained or 0) + _unexplained(clients, memory)
    if result.unexplained is not None and missing and streamless:
        _sum(result.closes, streamless)
        missing -= sum(streamless.values())
    if result.unexplained is not None:
        result.unexplained += max(0, missing)
    if result.unexplained is not None and result.streams == result.of_streams:
        for code, count in (lost or {}).items():
            cause = cause_of_code(code)
            if cause is not None and (others := count - result.closes.get(cause, 0)) > 0:
                result.notes.append(f"{others} of {count} that clients lost by {code} ended otherwise for the gateways")
                result.unexplained += others
    return result


def _unexplained(clients: StreamTally, memory: StreamMemory) -> int:
    """Return the frames that are in the clients' counts alone."""
    near = UNDER_WAY * clients.connections + TOLERANCE * (clients.received + clients.missing)
    drops = clients.missing - sum(memory.dropped.values())
    unwritten = clients.received - memory.frames_out
    return sum(int(each - near) for each in (drops, unwritten) if each > near)


def _sum(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def sampled(streams: Sequence[str]) -> list[str]:
    """Return the streams that are asked about: all, or `MAX_STREAMS` spread evenly over them."""
    if len(streams) <= MAX_STREAMS:
        return list(streams)
    return [streams[number * len(streams) // MAX_STREAMS] for number in range(MAX_STREAMS)]
