"""JSON Schema (draft 2020-12) of what goes to an ML service and what comes back: docs/schemas/*.json. Pure.

Made from the types that check the messages, so that a schema cannot say what the code does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from watchout.common.alerts.model import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_METADATA_VALUES,
    AlertFields,
    FrameId,
    Milliseconds,
    StreamId,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Python's ``\Z`` is unknown to ECMA-262, which JSON Schema's patterns are written in, and its ``$`` passes over a
#: line's end in Python. This says the same in both.
_END: Final = r"(?![\s\S])"

_ALERT_FIELDS: Final = {
    "severity": "How urgent it is.",
    "message": "One sentence for people. The only text that they surely see.",
    "type": 'May be left out. Any other value than "alert" is refused.',
    "streamId": "The stream that it is about; left out or null: that of the frame that it answers.",
    "timestamp": "Milliseconds (not seconds) since 1970-01-01T00:00Z, without a decimal point; left out or null: that "
    "of the frame.",
    "frameId": "The frame that it is about, without a decimal point; left out or null: the one that it answers.",
    "id": "Makes the alert one: the same id again for a stream has no second effect. Left out or null: made from "
    "stream, frame and content.",
    "metadata": f"Anything else; at most {MAX_METADATA_BYTES} bytes as JSON, {MAX_METADATA_VALUES} values, nested at "
    f"most {MAX_METADATA_DEPTH} deep, "
    "whole numbers of at most 64 bits. Known to viewers: confidence (0 to 1), location ({x, y}, 0 to 1 from the left "
    "and the top), objectType (also the kind by which repeated alerts are held back).",
}


class FrameBody(msgspec.Struct, frozen=True, rename="camel"):
    """One frame as an ML service gets it as JSON. Fields may be added; a service passes over those it does not know."""

    stream_id: Annotated[StreamId, msgspec.Meta(description="The stream that the frame is of.")]
    frame: Annotated[
        str,
        msgspec.Meta(
            description="The encoded picture (mostly a JPEG) in standard base64 with padding (RFC 4648, section 4).",
            extra_json_schema={"contentEncoding": "base64"},
            min_length=4,
        ),
    ]
    timestamp: Annotated[
        Milliseconds,
        msgspec.Meta(description="When the camera took it, in milliseconds since 1970-01-01T00:00Z, by its own clock."),
    ]
    frame_id: Annotated[FrameId, msgspec.Meta(description="Rises within a stream, with gaps.")]


def alert_schema() -> dict[str, Any]:
    """What `common.alerts.model.check_draft` accepts, but for the bounds of metadata, which JSON Schema cannot say."""
    schema = _whole(AlertFields, "alert", "An alert, as an ML service sends it.")
    for name, field in schema["properties"].items():
        field["description"] = _ALERT_FIELDS[name]
    return schema


def frame_schema() -> dict[str, Any]:
    """The body of a frame for an ML service."""
    return _whole(FrameBody, "frame", FrameBody.__doc__ or "")


def render(schema: dict[str, Any]) -> str:
    """The text of a schema's file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


#: File name below docs/schemas → what makes it.
FILES: Final = {"alert.json": alert_schema, "frame.json": frame_schema}


def _whole(struct: type, name: str, description: str) -> dict[str, Any]:
    (found,) = msgspec.json.schema(struct)["$defs"].values()
    plain: dict[str, Any] = _portable(found)
    return {"$schema": DIALECT, **plain, "title": f"watchout {name}", "description": description}


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: inner.removesuffix(r"\Z") + _END if key == "pattern" and isinstance(inner, str) else _portable(inner)
            for key, inner in value.items()
        }
    return [_portable(each) for each in value] if isinstance(value, list) else value
