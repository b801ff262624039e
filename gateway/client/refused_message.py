"""Reads of a refused message what its error, and the acknowledgement of a frame, have to name. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watchout.common.alerts.model import StreamId, whole_ms
from watchout.common.errors import ClientError
from watchout.common.media.frames import timestamp_of_binary
from watchout.common.toolbox.jsontext import JsonFault, read_json, read_members
from watchout.gateway import wire
from watchout.gateway.client import first_message, unread_text
from watchout.gateway.wire import Subject

#: Types of messages that are about the registered stream where they name none.
_ABOUT_REGISTERED: Final = frozenset({"video-frame", "alert"})
_FAULTS: Final = (ClientError, JsonFault, KeyError, UnicodeError, msgspec.ValidationError)
#: A text that is longer is not read as a whole where its beginning tells all.
_MAX_WHOLE_BYTES: Final = 64 * 1024
#: A text that tells nothing of its type counts as a frame if it is longer: no other message has to be.
_LEAST_FRAME_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that is refused, as far as it can be read; made by `read_refused` and `read_refused_binary`.

    `is_frame`: whether its camera counts it as a frame that is under way. `timestamp` is that of a frame, in ms since
    the epoch; None where it has none that is valid.
    """

    subject: Subject
    is_frame: bool = False
    timestamp: int | None = None


def read_refused(data: bytes, registered: str | None, *, over_rate: bool = False) -> RefusedMessage:
    """Read a text message that is refused. Slow: called only for errors.

    Args:
        data: The message, JSON or not.
        registered: The stream that the client has registered; None: none.
        over_rate: Whether it is over a rate: then only its beginning is read, and its end searched, if it is long.
    """
    members, whole = _members(data, over_rate=over_rate)
    kind = _read(members, "type", str)
    if kind is None and not whole:
        kind = unread_text.type_in(data)
    is_frame = kind == "video-frame" or (kind is None and _carries_picture(data, members, whole=whole))
    request_id = None
    with contextlib.suppress(*_FAULTS):
        request_id = wire.read_request_id(members["requestId"])
    stream_id = _read(members, "streamId", StreamId)
    if members.get("streamId", b"null") == b"null" and (is_frame or kind in _ABOUT_REGISTERED):
        stream_id = registered
    subject = Subject(request_id, stream_id)
    if not is_frame:
        return RefusedMessage(subject)
    timestamp = _read(members, "timestamp", wire.ClientTime, whole=True)
    if "timestamp" not in members and not whole:
        with contextlib.suppress(*_FAULTS):
            timestamp = msgspec.convert(unread_text.timestamp_in(data), wire.ClientTime)
    return RefusedMessage(subject, True, timestamp)


def read_refused_binary(data: bytes, registered: str | None) -> RefusedMessage:
    """Read a binary message that is refused: a frame, or JSON that should have been text. Arguments: `read_refused`."""
    if first_message.is_json(data):
        return read_refused(data, registered, over_rate=True)
    return RefusedMessage(Subject(stream_id=registered), True, timestamp_of_binary(data))


def _members(data: bytes, *, over_rate: bool) -> tuple[dict[str, memoryview], bool]:
    """Return the members of the object, and whether these are all of it."""
    if len(data) > _MAX_WHOLE_BYTES:
        members, whole = unread_text.find_members(data)
        if whole or over_rate:
            return members, whole
    try:
        return read_members(data), True
    except (JsonFault, UnicodeError):
        return unread_text.find_members(data)


def _carries_picture(data: bytes, members: Mapping[str, memoryview], *, whole: bool) -> bool:
    """Return whether a message without a type looks like a frame."""
    if "data" in members:
        return members["data"].tobytes()[:1] == b'"'
    return not whole and len(data) > _LEAST_FRAME_BYTES


def _read(members: Mapping[str, memoryview], name: str, kind: Any, *, whole: bool = False) -> Any:
    """Return the value of a member; None when it is missing, too long or not of this type."""
    with contextlib.suppress(*_FAULTS):
        if len(value := members[name]) <= wire.MAX_VALUE_BYTES:
            found = read_json(value)
            return msgspec.convert(whole_ms(found) if whole else found, kind)
    return None
