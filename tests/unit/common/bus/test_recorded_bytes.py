"""Every message of the bus and every form of a frame keep the bytes recorded in `recorded_bytes.json`.

Processes of two releases run side by side during an update. The names of classes and of their fields in Python may
change; tags and fields on the wire may not. Each field of each message has a value other than its default in one of the
recordings at least, so a field that is renamed on the wire is missing after decoding and encoding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import msgpack
import msgspec
import pytest

from watchout.common.bus.frames import decode_frame
from watchout.common.bus.messages import (
    Envelope,
    FromMember,
    FromRouter,
    decode_from_member,
    decode_from_router,
    encode,
)

RECORDED: Final = json.loads(Path(__file__).with_name("recorded_bytes.json").read_text())
DECODERS: Final[dict[str, Callable[[bytes], Envelope[Any]]]] = {
    "from_member": decode_from_member,
    "from_router": decode_from_router,
}
KINDS: Final = {"from_member": get_args(FromMember), "from_router": get_args(FromRouter)}


@pytest.mark.parametrize(
    ("direction", "recorded"),
    [
        pytest.param(direction, recorded, id=f"{direction}-{tag}-{number}")
        for direction in DECODERS
        for tag, messages in RECORDED[direction].items()
        for number, recorded in enumerate(messages)
    ],
)
def test_a_recorded_message_is_decoded_and_encoded_to_the_same_bytes(direction: str, recorded: str) -> None:
    envelope = DECODERS[direction](bytes.fromhex(recorded))
    assert encode(envelope.epoch, envelope.seq, envelope.body).hex() == recorded


@pytest.mark.parametrize("direction", DECODERS)
def test_every_message_and_every_field_of_it_is_recorded(direction: str) -> None:
    for kind in KINDS[direction]:
        recorded = RECORDED[direction][kind.__struct_config__.tag]
        fields = {name for message in recorded for name in msgpack.unpackb(bytes.fromhex(message))[3]}
        assert {field.encode_name for field in msgspec.structs.fields(kind)} - fields == set(), kind.__name__


@pytest.mark.parametrize("recorded", RECORDED["frames"])
def test_a_recorded_frame_is_decoded_and_encoded_to_the_same_bytes(recorded: str) -> None:
    assert decode_frame(bytes.fromhex(recorded)).encode().hex() == recorded
