"""Acknowledgements of alerts: who has seen one and when, and the JSON by which clients learn of it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from watchout.common.alerts.model import Alert, Milliseconds
from watchout.common.toolbox.jsontext import write_json

#: Longest note, in characters.
MAX_NOTE_CHARS: Final = 1000
Note = Annotated[str, msgspec.Meta(max_length=MAX_NOTE_CHARS)]
#: The field of an alert that holds its acknowledgement; senders cannot set it.
FIELD: Final = "acknowledged"
#: Memory that an acknowledgement takes beside its texts, about, in bytes.
COST_BYTES: Final = 300


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a user has acknowledged an alert; kept by the router with the alert, and part of bus messages.

    Attributes:
        user: Id of the user.
        at: When the router accepted it, in ms since the epoch.
        note: What the user wrote about it, None for nothing.
    """

    user: Annotated[str, msgspec.Meta(max_length=1024)]
    at: Milliseconds
    note: Note | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields by their names in the edge protocol."""
        note = {} if self.note is None else {"note": self.note}
        return {"userId": self.user, **note, "timestamp": self.at}

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, about."""
        return COST_BYTES + len(self.user) + 4 * len(self.note or "")


def clean_note(note: str) -> str | None:
    """Return a note without lone surrogates, which become U+FFFD as in browsers; None for an empty one."""
    return note.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or None


def acknowledged_json(json: bytes, acknowledgement: Acknowledgement | None) -> bytes:
    """Return the JSON of an alert as clients receive it later: with the acknowledgement, if there is one."""
    if acknowledgement is None:
        return json
    return Alert.from_json(json).changed(**{FIELD: acknowledgement.fields()}).to_json()


def acknowledged_message(stream: str, alert_id: str, acknowledgement: Acknowledgement) -> bytes:
    """Return the JSON of the message ``alert-acknowledged``."""
    head = {"type": "alert-acknowledged", "streamId": stream, "alertId": alert_id}
    return write_json({**head, **acknowledgement.fields()})
