"""Addresses of the frame mesh, and what decoding takes for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.mesh_address import MeshAddress, parse
from watchout.common.bus.messages.fields import FrameAddress

NAME = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=8, max_size=8).map("f-{}".format)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:f-abcdefg7", MeshAddress("f-abcdefg7")),
        ("tls:10.0.0.5:7400/f-abcdefg7", MeshAddress("f-abcdefg7", "10.0.0.5", 7400)),
        ("tls:[fd00::5]:7400/f-abcdefg7", MeshAddress("f-abcdefg7", "fd00::5", 7400)),
        ("tls:host-a.example.com:1/f-abcdefg7", MeshAddress("f-abcdefg7", "host-a.example.com", 1)),
    ],
)
def test_addresses(text: str, address: MeshAddress) -> None:
    assert parse(text) == address
    assert str(address) == text
    assert msgspec.json.decode(msgspec.json.encode(text), type=FrameAddress) == text


@given(NAME, st.ip_addresses().map(str), st.integers(1, 65535))
def test_every_address_crosses_the_bus_and_is_read_again(name: str, host: str, port: int) -> None:
    address = MeshAddress(name, host, port)
    assert parse(msgspec.msgpack.decode(msgspec.msgpack.encode(str(address)), type=FrameAddress)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "unix:", "unix:../f-abcdefg7", "unix:f-abcdefg7/../x", "unix:f-ABCDEFGH", "tls:/f-abcdefg7",
        "tls:a/f-abcdefg7", "tls:a:0/f-abcdefg7", "tls:a:65536/f-abcdefg7", "tls:a:1/f-abc", "tls:1.2.3:1/f-abcdefg7",
        "tls:[1]:1/f-abcdefg7", "tls:a b:1/f-abcdefg7", "tls:a:1/f-abcdefg7\n", "tcp:a:1/f-abcdefg7",
        "tls:user@a:1/f-abcdefg7",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="of the frame mesh"):
        parse(text)
