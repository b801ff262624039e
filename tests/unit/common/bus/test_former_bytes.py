"""A release that knows neither the frame mesh nor several routers works beside this one, in both directions.

`former_bytes.json` has what processes of that release send. The sides of one update differ by one release, so what the
former one does not know has to be optional, and what it does not send has to be missed by nobody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgpack
import msgspec
import pytest

from tests.unit.common.bus.test_recorded_bytes import DECODERS, KINDS, RECORDED
from watchout.common.bus.frames import decode_frame, read_frame_head
from watchout.common.bus.messages import LEVEL, encode

FORMER: Final = json.loads(Path(__file__).with_name("former_bytes.json").read_text())


#: Messages that members send only to routers which understand them (`Welcome.level`): a former router would take them
#: for malformed, and make the member join again. And those of the router for members that understand them
#: (`Hello.level`).
BY_LEVEL: Final[dict[str, dict[str, int]]] = {
    "from_member": {"links": 2, "latency": 3, "because": 3}, "from_router": {"why": 3},
}  # fmt: skip
#: Messages that a router sends only to members whose `Hello` has a field that came with them.
BY_FIELD: Final[dict[str, set[str]]] = {"from_member": set(), "from_router": {"slotsdiffer"}}


def messages(recordings: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(direction, recorded, id=f"{direction}-{tag}-{number}")
        for direction in DECODERS
        for tag, found in recordings[direction].items()
        for number, recorded in enumerate(found)
    ]


def known_fields(direction: str, tag: str) -> set[str]:
    """The fields of a message that the former release knows; empty: it does not know the message."""
    return {name for recorded in FORMER[direction].get(tag, ()) for name in fields_of(recorded)}


def fields_of(recorded: str) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(bytes.fromhex(recorded))[3]
    return body


@pytest.mark.parametrize(("direction", "recorded"), messages(FORMER))
def test_what_the_former_release_sends_is_understood_and_sent_by_this_one_with_the_same_bytes(
    direction: str, recorded: str
) -> None:
    """Without the newer fields, a message of this release is byte for byte one of the former release."""
    envelope = DECODERS[direction](bytes.fromhex(recorded))
    assert encode(envelope.epoch, envelope.seq, envelope.body).hex() == recorded


@pytest.mark.parametrize("direction", DECODERS)
def test_only_fields_were_added_and_all_of_them_may_be_absent(direction: str) -> None:
    """The former release takes a message that it does not know for malformed, and ignores a field."""
    assert set(RECORDED[direction]) == set(FORMER[direction]) | set(BY_LEVEL[direction]) | BY_FIELD[direction]
    assert not [level for level in BY_LEVEL[direction].values() if not 0 < level <= LEVEL]
    for kind in KINDS[direction]:
        tag = str(kind.__struct_config__.tag)
        if tag in BY_LEVEL[direction] or tag in BY_FIELD[direction]:
            continue
        known, fields = known_fields(direction, tag), msgspec.structs.fields(kind)
        assert known - {field.encode_name for field in fields} == {"t"}, tag
        assert not [field.name for field in fields if field.required and field.encode_name not in known], tag


@pytest.mark.parametrize(
    ("direction", "recorded"),
    [each for each in messages(RECORDED) if known_fields(each.values[0], fields_of(each.values[1])["t"])],
)
def test_a_message_without_its_newer_fields_or_with_one_of_a_later_release_is_understood(
    direction: str, recorded: str
) -> None:
    version, epoch, seq, body = msgpack.unpackb(bytes.fromhex(recorded))
    known = known_fields(direction, body["t"])
    kept = {name: value for name, value in body.items() if name in known}
    decode = DECODERS[direction]
    found = decode(msgpack.packb([version, epoch, seq, kept]))
    assert encode(found.epoch, found.seq, found.body) == msgpack.packb([version, epoch, seq, kept])
    assert decode(msgpack.packb([version, epoch, seq, {**kept, "of a later release": [1]}])) == found


@pytest.mark.parametrize("recorded", FORMER["frames"])
def test_a_frame_of_the_former_release_is_understood_and_sent_with_the_same_bytes(recorded: str) -> None:
    data = bytes.fromhex(recorded)
    assert decode_frame(data).encode() == data
    assert read_frame_head(data).form < 3, "the forms of the mesh go only to members that named an address"
