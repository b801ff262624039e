"""JSON Schemas (draft 2020-12) of frames for an ML service and of its alerts: docs/schemas/*.json. Pure.

They are made from the types that check the messages, so that schema and code cannot differ.
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

#: End of a pattern. Python's ``\Z`` is unknown to ECMA-262, the dialect of JSON Schema's patterns, and ``$`` also
#: matches before a final line feed in Python. This means the same in both.
_END: Final = r"(?![\s\S])"

_ALERT_FIELDS: Final = {
    "severity": "How urgent it is.",
    "message": "One sentence for people. The only text that they surely see.",
    "type": 'May be left out. Any other value than "alert" is refused.',
    "streamId": "The stream that it is about; left out or null: that of the frame that it answers.",
    "timestamp": "Milliseconds (not seconds) since 1970-01-01T00:00Z, of which a fraction is dropped; left out or "
    "null: that of the frame.",
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
    """Return the schema of what `check_draft` accepts, without the bounds of metadata: JSON Schema has none."""
    schema = _whole(AlertFields, "alert", "An alert, as an ML service sends it.")
    for name, field in schema["properties"].items():
        field["description"] = _ALERT_FIELDS[name]
    for form in schema["properties"]["timestamp"]["anyOf"]:
        if form["type"] == "integer":
            form["type"] = "number"  # clocks with fractions of a ms are common: `whole_ms`
    return schema


def frame_schema() -> dict[str, Any]:
    """Return the schema of a frame as an ML service receives it."""
    return _whole(FrameBody, "frame", FrameBody.__doc__ or "")


def render(schema: dict[str, Any]) -> str:
    """Return the text of a schema's file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


#: File names below docs/schemas, each with the function that makes the schema.
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
