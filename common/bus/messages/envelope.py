"""Bytes of the control messages: the numbered envelope, encoding and decoding, and the table for docs/bus.md. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, get_args

import msgpack
import msgspec

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages.fields import MAX_CONTROL_BYTES, MAX_EPOCH, VERSION, Message
from watchout.common.bus.messages.from_member import FromMember
from watchout.common.bus.messages.from_router import FromRouter
from watchout.common.errors import BusError

M = TypeVar("M", covariant=True)


@dataclass(frozen=True, slots=True)
class Envelope(Generic[M]):
    """One decoded control message with what orders it; returned by `decode_from_member` and `decode_from_router`.

    `epoch` is the router's, as the sender knows it. `seq` counts the messages from this sender to this receiver since
    the last `Hello` or `Welcome`, which have 0: a gap means that a message was lost.
    """

    epoch: int
    seq: int
    body: M


class _OfMember(msgspec.Struct, array_like=True, frozen=True):
    """Holds the union: msgspec works out what a union means at each call, and keeps what it found of a struct. That is
    three quarters of the time of a call.
    """

    body: FromMember


class _OfRouter(msgspec.Struct, array_like=True, frozen=True):
    """Holds the other union."""

    body: FromRouter


_Of = TypeVar("_Of", _OfMember, _OfRouter)


def encode(epoch: int, seq: int, body: Message) -> bytes:
    """Encode a control message as the msgpack array ``[version, epoch, seq, body]``.

    Args:
        epoch: The router's epoch, 0 in a first `Hello`.
        seq: Number of the message, see `Envelope`.
        body: The message.

    Returns:
        The bytes of one message for a transport.

    Raises:
        BusError: The message has more than `MAX_CONTROL_BYTES`; the caller drops it.

    """
    plain = msgspec.to_builtins(body, builtin_types=(bytes,), enc_hook=_encode_alert)
    data: bytes = msgpack.packb([VERSION, epoch, seq, plain])
    if len(data) > MAX_CONTROL_BYTES:
        raise BusError(f"{type(body).__name__} has {len(data)} bytes, expected at most {MAX_CONTROL_BYTES}")
    return data


def decode_from_member(data: bytes) -> Envelope[FromMember]:
    """Decode a message that the router received.

    Args:
        data: One message of a transport.

    Returns:
        The message with its epoch and number.

    Raises:
        BusError: The bytes are no message that a member may send; the router counts it and sends `Rejoin`.

    """
    epoch, seq, body = _unpack(data)
    return Envelope(epoch, seq, _convert(body, _OfMember).body)


def decode_from_router(data: bytes) -> Envelope[FromRouter]:
    """Decode a message that a member received.

    Args:
        data: One message of a transport.

    Returns:
        The message with its epoch and number.

    Raises:
        BusError: The bytes are no message that the router may send; the member counts and drops it, and joins again
            when it notices the gap in the numbers.

    """
    epoch, seq, body = _unpack(data)
    return Envelope(epoch, seq, _convert(body, _OfRouter).body)


def _encode_alert(value: object) -> bytes:
    """Alerts cross the bus as the JSON bytes in which they were received."""
    if isinstance(value, Alert):
        return value.json
    raise NotImplementedError(type(value).__name__)


def _decode_alert(kind: type, value: object) -> object:
    if kind is object:  # the body of a `QueryReply`, which `common.bus.reply_records` reads
        return value
    if kind is not Alert or not isinstance(value, bytes):
        raise ValueError(f"an alert is bytes, got {type(value).__name__}")
    return Alert.from_json(value)


def _unpack(data: bytes) -> tuple[int, int, object]:
    """Return (epoch, seq, body). Raises `BusError`."""
    if len(data) > MAX_CONTROL_BYTES:
        raise BusError(f"control message of {len(data)} bytes, expected at most {MAX_CONTROL_BYTES}")
    try:
        value = msgpack.unpackb(data, strict_map_key=True)
    except Exception as exc:  # msgpack raises ValueError, OverflowError, UnicodeError and exceptions of its own
        raise BusError(f"not msgpack: {type(exc).__name__}") from None
    match value:
        case [int(version), int(epoch), int(seq), body] if epoch >= 0 and seq >= 0:
            if version != VERSION:
                raise BusError(f"bus version {version}, expected {VERSION}")
            if epoch >= MAX_EPOCH:
                raise BusError(f"epoch {epoch}, expected below {MAX_EPOCH}")
            return epoch, seq, body
    raise BusError("expected [version, epoch, seq, body]")


def _convert(body: object, kind: type[_Of]) -> _Of:
    """Check the map against the union that `kind` holds, and return its holder. Raises `BusError`."""
    try:
        return msgspec.convert((body,), kind, dec_hook=_decode_alert)
    except (msgspec.ValidationError, RecursionError) as exc:  # `$[0]` is the place of the message in its holder
        raise BusError(str(exc).removesuffix(" - at `$[0]`").replace("`$[0]", "`$", 1)) from None


def render_markdown() -> str:
    """Return the tables of control messages for docs/bus.md."""
    lines: list[str] = []
    for title, union in (("Member → router", FromMember), ("Router → member", FromRouter)):
        lines += [f"### {title}", "", "| `t` | fields | class | what |", "|---|---|---|---|"]
        for kind in get_args(union):
            fields = ", ".join(f"`{f.encode_name}`" + ("" if f.required else "?") for f in msgspec.structs.fields(kind))
            what = " ".join((kind.__doc__ or "").split())
            lines.append(f"| `{kind.__struct_config__.tag}` | {fields or '–'} | `{kind.__name__}` | {what} |")
        lines.append("")
    return "\n".join(lines)
