"""What router processes say of slots: the entry of a slot in the key-value store, and the beat of a process. Pure."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from watchout.common.bus.messages.fields import MAX_EPOCH, Text

#: Slots of a cluster at most.
MAX_SLOTS: Final = 64
#: Version of the layout that the key `cluster` names.
LAYOUT: Final = 1

_T = TypeVar("_T")

#: Id of one run of a router process, 16 hexadecimal digits; empty: nobody.
RouterId = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?\Z")]
Epoch = Annotated[int, msgspec.Meta(ge=0, lt=MAX_EPOCH)]
SlotNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]


class SlotEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who runs the router of a slot: the value of the key ``slot.<n>``.

    Attributes:
        router: The process that has the slot; empty: it was released.
        epoch: The epoch of its router, or of the last one.
        name: The name of the process, for operators.
        host: Its machine, for operators.
        heir: The process that a released slot is given to; empty: whoever comes first.
    """

    router: RouterId
    epoch: Epoch
    name: Text = ""
    host: Text = ""
    heir: RouterId = ""


class Shape(msgspec.Struct, frozen=True):
    """What all processes of a cluster have to agree on: the value of the key ``cluster``."""

    slots: Annotated[int, msgspec.Meta(ge=1, le=MAX_SLOTS)]
    version: int = LAYOUT


class SlotBeat(msgspec.Struct, frozen=True, array_like=True):
    """A slot in a `Beat`: its epoch, the revision of its entry, and of a released one, who it is given to."""

    slot: SlotNumber
    epoch: Epoch
    revision: Annotated[int, msgspec.Meta(ge=0)]
    heir: RouterId = ""


class Beat(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each router process tells the others every 500 ms, and at once when it gains or releases a slot.

    Attributes:
        router: The process.
        held: The slots that it runs the router of.
        released: Those that it released lately, so that nobody has to wait for its silence.
        leaving: It takes no slot: it ends, or no member can reach it.
        name: Its name, for operators.
        host: Its machine, for operators.
        pid: Its process id, for operators; 0: it does not say.
        version: Its version, for operators.
        up_s: Seconds since it started, for operators.
        leader_here: The NATS server of its machine leads the bucket of leases: others have the slots, if there are any.
    """

    router: RouterId
    held: Annotated[tuple[SlotBeat, ...], msgspec.Meta(max_length=MAX_SLOTS)] = ()
    released: Annotated[tuple[SlotBeat, ...], msgspec.Meta(max_length=MAX_SLOTS)] = ()
    leaving: bool = False
    name: Text = ""
    host: Text = ""
    pid: Annotated[int, msgspec.Meta(ge=0)] = 0
    version: Text = ""
    up_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    leader_here: bool = False


def decode_entry(data: bytes | None) -> SlotEntry | None:
    """Return the entry of a slot; None for one that is missing or that watchout did not write."""
    return _decode(data, SlotEntry)


def decode_shape(data: bytes | None) -> Shape | None:
    """Return the shape of the cluster; None for one that is missing or that watchout did not write."""
    return _decode(data, Shape)


def decode_beat(data: bytes) -> Beat | None:
    """Return a beat; None for bytes that are none."""
    return _decode(data, Beat)


def encode(value: SlotEntry | Shape | Beat) -> bytes:
    """Return the JSON of a value, for the store or the other processes."""
    return msgspec.json.encode(value)


def _decode(data: bytes | None, kind: type[_T]) -> _T | None:
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        return None
