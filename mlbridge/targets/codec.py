"""What goes to an ML service and what comes back, as bytes (docs/protocol.md, "The ML side"). Pure.

Nothing that a service writes raises here but `AlertFault` and `UnusableAnswer`: bytes that are no message are
`Nonsense`.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watchout.common.alerts.model import MAX_ALERTS, AlertFault, split_answer, split_push
from watchout.common.media.frames import Frame
from watchout.mlbridge.targets import UnusableAnswer

#: Largest message of a service: an answer, or alerts that it sends by itself.
MAX_ANSWER_BYTES: Final = 1 << 20
#: So many characters of an answer that cannot be used are told.
MAX_SHOWN: Final = 120
#: What an answer without alerts may hold: the frame that it answers.
_NAMES: Final = frozenset(("streamId", "frameId", "timestamp"))
#: Deepest nesting of a MessagePack message; JSON has the decoder's own bound.
MAX_DEPTH: Final = 64

#: Which frame: stream and frame id.
Key = tuple[str, int]

_json: Final = msgspec.json.Decoder()
_msgpack: Final = msgspec.msgpack.Decoder()
_packer: Final = msgspec.msgpack.Encoder()
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = MAX_SHOWN


@dataclass(frozen=True, slots=True)
class Nonsense:
    """A message that could not be decoded; `reason` says what came and what was expected."""

    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """A part of a message that came by itself: its alerts, and the frame that it names, if it does.

    `answers`: it is an answer to that frame (it may bring no alert at all), and not an alert alone.
    """

    key: Key | None
    alerts: list[object]
    answers: bool


def key_of(frame: Frame) -> Key:
    """The frame as a service names it."""
    return frame.stream_id, frame.frame_id


def json_body(frame: Frame) -> bytes:
    """One frame as JSON, its picture in base64. Raises `common.media.frames.FrameFault` as `Frame.picture` does."""
    # A stream id holds nothing that JSON would escape.
    return b"".join(
        (
            b'{"streamId":"%b","frame":"' % frame.stream_id.encode("ascii"),
            frame.base64,
            b'","timestamp":%d,"frameId":%d}' % (frame.timestamp, frame.frame_id),
        )
    )


def json_batch(frames: Sequence[Frame]) -> bytes:
    """Several frames as JSON: ``{"frames":[…]}``."""
    return b'{"frames":[' + b",".join(map(json_body, frames)) + b"]}"


def packed_body(frame: Frame) -> bytes:
    """One frame as MessagePack, its picture as `bin`."""
    return _packer.encode(
        {
            "streamId": frame.stream_id,
            "frame": frame.picture,
            "timestamp": frame.timestamp,
            "frameId": frame.frame_id,
        }
    )


def frame_headers(frame: Frame) -> dict[str, str]:
    """What is told beside a raw picture."""
    return {
        "X-Stream-Id": frame.stream_id,
        "X-Frame-Id": str(frame.frame_id),
        "X-Frame-Time": str(frame.timestamp),
    }


def multipart_batch(frames: Sequence[Frame], boundary: str) -> bytes:
    """Several raw pictures as ``multipart/form-data`` (RFC 7578): parts named ``frames``, each with its headers."""
    parts: list[bytes] = []
    for number, frame in enumerate(frames):
        head = [
            f"--{boundary}",
            f'Content-Disposition: form-data; name="frames"; filename="{number}"',
            f"Content-Type: {frame.codec.content_type}",
            *(f"{name}: {value}" for name, value in frame_headers(frame).items()),
            "",
            "",
        ]
        parts += ["\r\n".join(head).encode("ascii"), frame.picture, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(parts)


def read_json(data: bytes | str) -> object:
    """JSON, or `Nonsense`.

    What some services write for JSON (NaN, lone surrogates) is read too, so that the alert in it is refused with a
    reason and not just missing.
    """
    try:
        return _json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return Nonsense(f"{len(data)} bytes that are no JSON: {beginning(data)}" if data else "an empty text, no JSON")
    return value


def read_msgpack(data: bytes) -> object:
    """MessagePack that JSON could say as well, or `Nonsense`."""
    try:
        value: object = _msgpack.decode(data)
    except (ValueError, RecursionError, TypeError):
        shown = f": {beginning(data)}" if data else ""
        return Nonsense(f"{len(data)} bytes that are no MessagePack{shown}")
    if not _is_plain(value, MAX_DEPTH):
        return Nonsense(f"MessagePack with what JSON has not (bytes, keys that are no text), or {MAX_DEPTH} deep")
    return value


def beginning(data: bytes | str) -> str:
    """The beginning of what came, on one line, fit for a log: at most `MAX_SHOWN` characters in quotes."""
    start = data[: 4 * MAX_SHOWN]
    text = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = len(plain) > MAX_SHOWN or len(data) > len(start)
    return f"'{plain[:MAX_SHOWN]}{'…' if cut else ''}'"


def read_answer(value: object) -> list[object]:
    """The alerts of a decoded answer to one frame: an object with ``alert`` or ``alerts``, or an empty one.

    One that holds nothing but the names of its frame has no alerts either. Raises `UnusableAnswer` for anything else,
    such as an object with ``error`` or predictions and no alerts, and `AlertFault` for alerts that are no list, or too
    many.
    """
    if isinstance(value, Nonsense):
        raise UnusableAnswer(value.reason)
    if not isinstance(value, dict):
        raise UnusableAnswer(f"{_brief(value)}, expected an object with alert or alerts")
    alerts = split_answer(value)
    if not alerts and value.get("error"):
        raise UnusableAnswer(f"an error: {_brief(value['error'])}", key=_key(value))
    if not alerts and not value.keys() & {"alert", "alerts"} and not value.keys() <= _NAMES:
        raise UnusableAnswer(f"an object without alert or alerts: {_brief(value)}", key=_key(value))
    return alerts


def read_push(value: object) -> list[Said]:
    """What a message says that came by itself: an alert, a list of alerts, or an answer that names its frame.

    An answer is an object with ``streamId`` and ``frameId`` and, where there are any, ``alert`` or ``alerts``: the
    service is done with that frame. Raises `UnusableAnswer` for a message that is none of them, and `AlertFault` for
    alerts that are no list, or too many.
    """
    if isinstance(value, dict) and "severity" not in value:
        alerts = read_answer(value)
        key = _key(value)
        if value and key is None and value.keys() <= _NAMES:
            raise UnusableAnswer(f"an object that names no frame: {_brief(value)}")
        return [Said(key, _named(alerts, value), answers=True)]
    if isinstance(value, list):
        if value and not any(isinstance(alert, dict) and "severity" in alert for alert in value):
            raise UnusableAnswer(f"a list without an alert: {_brief(value)}")
    elif not isinstance(value, dict):
        reason = value.reason if isinstance(value, Nonsense) else f"{_brief(value)}, expected an object or a list"
        raise UnusableAnswer(reason)
    return [Said(_key(alert), [alert], answers=False) for alert in split_push(value)]


#: What became of one frame of a batch: its alerts, or why they cannot be had.
OfBatch = list[object] | UnusableAnswer | AlertFault


def split_batch(value: object, keys: Sequence[Key]) -> tuple[list[OfBatch], list[object]]:
    """The answer to a batch: for each frame its alerts, or what is wrong with its answer; and alerts of no frame.

    Either one answer per frame in the frames' order (``{"answers":[…]}`` or a bare list), in which
    ``{"error":"…"}`` is a failure of that frame alone; or ``{"alerts":[…]}`` whose alerts name their frames.
    Raises `UnusableAnswer` when it is neither, or the answers are not as many as the frames.
    """
    answers = value.get("answers") if isinstance(value, dict) else value
    if isinstance(value, dict) and "answers" in value and not isinstance(answers, list):
        raise UnusableAnswer(f"answers is {_brief(answers)}, expected a list")
    if isinstance(answers, list):
        if len(answers) != len(keys):
            raise UnusableAnswer(f"{len(answers)} answers to {len(keys)} frames, expected one for each")
        return [_one_of_batch(answer) for answer in answers], []
    if not (isinstance(value, dict) and (_batch_alerts(value) or value.keys() <= {"alert", "alerts"})):
        read_answer(value)
    found: list[list[object]] = [[] for _ in keys]
    strangers: list[object] = []
    for alert in _bounded(_batch_alerts(value), MAX_ALERTS * len(keys)):
        place = _place(alert, keys)
        if place is None:
            strangers.append(alert)
        else:
            found[place].append(alert)
    return [*found], strangers


def _key(value: object) -> Key | None:
    if not isinstance(value, dict):
        return None
    stream, number = value.get("streamId"), value.get("frameId")
    if isinstance(stream, str) and isinstance(number, int) and not isinstance(number, bool):
        return stream, number
    return None


def _named(alerts: list[object], answer: dict[Any, Any]) -> list[object]:
    """The alerts with the frame that their answer names, where they do not name one themselves."""
    if not alerts:
        return alerts
    names = {name: answer[name] for name in ("streamId", "frameId", "timestamp") if name in answer}
    stream = names.get("streamId")
    return [
        {**names, **alert} if isinstance(alert, dict) and alert.get("streamId", stream) == stream else alert
        for alert in alerts
    ]


def _batch_alerts(value: object) -> list[object]:
    """All alerts of ``{"alert":{…}}`` and ``{"alerts":[…]}``, however many."""
    if not isinstance(value, dict):
        return []
    one, many = value.get("alert"), value.get("alerts")
    if many is not None and not isinstance(many, list):
        raise AlertFault(f"alerts is {_brief(many)}, expected a list")
    return ([] if one is None else [one]) + (many or [])


def _place(alert: object, keys: Sequence[Key]) -> int | None:
    """Which frame an alert names: its stream alone is enough where one frame of it is there."""
    if not isinstance(alert, dict):
        return None
    stream, number = alert.get("streamId"), alert.get("frameId")
    places = [
        place for place, key in enumerate(keys) if stream in (None, key[0]) and (number is None or number == key[1])
    ]
    return places[0] if len(places) == 1 else None


def _one_of_batch(answer: object) -> OfBatch:
    try:
        return [] if answer is None else read_answer(answer)
    except (UnusableAnswer, AlertFault) as fault:
        return fault


def _brief(value: object) -> str:
    """A decoded value in few characters, whatever its size."""
    return beginning(_short.repr(value))


def _bounded(alerts: list[object], most: int) -> list[object]:
    if len(alerts) > most:
        raise AlertFault(f"{len(alerts)} alerts at once, expected at most {most}")
    return alerts


def _is_plain(value: object, depth: int) -> bool:
    if value is None or isinstance(value, str | int | float):
        return True
    if not depth:
        return False
    if isinstance(value, list):
        return all(_is_plain(inner, depth - 1) for inner in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner, depth - 1) for key, inner in value.items())
    return False
