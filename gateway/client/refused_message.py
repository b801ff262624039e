"""Reads of a refused text message what its error, and the acknowledgement of a frame, have to name. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watchout.common.alerts.model import StreamId, whole_ms
from watchout.common.errors import ClientError
from watchout.common.toolbox.jsontext import JsonFault, read_json, read_members
from watchout.gateway import wire
from watchout.gateway.wire import Subject

#: Types of messages that are about the registered stream where they name none.
_ABOUT_REGISTERED: Final = frozenset({"video-frame", "alert"})
_FAULTS: Final = (ClientError, JsonFault, KeyError, UnicodeError, msgspec.ValidationError)


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A text message that is refused, as far as it can be read; made by `read_refused`.

    `timestamp` is that of a frame, in ms since the epoch; None where it has none that is valid.
    """

    subject: Subject
    is_frame: bool = False
    timestamp: int | None = None


def read_refused(data: bytes, registered: str | None) -> RefusedMessage:
    """Read a message that is refused. Slow: called only for errors.

    Args:
        data: The message.
        registered: The stream that the client has registered; None: none.
    """
    try:
        members = read_members(data)
    except (JsonFault, UnicodeError):
        return RefusedMessage(wire.NOTHING)
    kind = _read(members, "type", str)
    request_id = None
    with contextlib.suppress(*_FAULTS):
        request_id = wire.read_request_id(members["requestId"])
    stream_id = _read(members, "streamId", StreamId)
    if "streamId" not in members and kind in _ABOUT_REGISTERED:
        stream_id = registered
    subject = Subject(request_id, stream_id)
    if kind != "video-frame":
        return RefusedMessage(subject)
    return RefusedMessage(subject, True, _read(members, "timestamp", wire.ClientTime, whole=True))


def _read(members: Mapping[str, memoryview], name: str, kind: Any, *, whole: bool = False) -> Any:
    """Return the value of a member; None when it is missing, too long or not of this type."""
    with contextlib.suppress(*_FAULTS):
        if len(value := members[name]) <= wire.MAX_VALUE_BYTES:
            found = read_json(value)
            return msgspec.convert(whole_ms(found) if whole else found, kind)
    return None
