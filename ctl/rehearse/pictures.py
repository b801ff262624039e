"""Makes JPEGs of a stated size without an imaging library: grey blocks that move, and comments as weight. Pure.

They are baseline JPEGs that every decoder shows. The comments hold what does not compress, as a photograph does not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

#: Pictures differ so often before they repeat.
PICTURES: Final = 12
WIDTH: Final = 64
HEIGHT: Final = 64
#: The smallest picture that can be made, in bytes, with some room.
LEAST_BYTES: Final = 400
#: Most bytes of one comment segment, with its length.
_SEGMENT: Final = 0xFFFF
#: Codes of the standard table for differences of grey, of 0 to 11 bits: how many codes of each length, and their order.
_DC_LENGTHS: Final = bytes((0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0))
_DC_CATEGORIES: Final = bytes(range(12))
#: The table for all other coefficients has one code of one bit, "no more of this block".
_AC_LENGTHS: Final = bytes((1, *([0] * 15)))


def synthetic(size_bytes: int, chance: Callable[[], float]) -> Iterator[bytes]:
    """Yield `PICTURES` pictures of exactly this size.

    Args:
        size_bytes: Size of each in bytes, at least `LEAST_BYTES`.
        chance: Returns numbers of at least 0 and below 1; the bytes of the comments come from it.

    Raises:
        ValueError: The size is too small.
    """
    if size_bytes < LEAST_BYTES:
        raise ValueError(f"a picture of {size_bytes} bytes is too small, expected {LEAST_BYTES} or more")
    noise = bytes(int(chance() * 256) for _ in range(4096))
    for number in range(PICTURES):
        body = _picture(number)
        yield b"\xff\xd8" + _weight(size_bytes - len(body) - 2, noise[number:] + noise[:number]) + body


def _weight(size: int, noise: bytes) -> bytes:
    """Return comment segments of this many bytes in all; the size is 0 or 4 and more."""
    found = b""
    while size:
        part = min(size, _SEGMENT + 2)
        if 0 < size - part < 4:
            part -= 4
        content = (noise * (part // len(noise) + 1))[: part - 4]
        found += b"\xff\xfe" + struct.pack(">H", part - 2) + content
        size -= part
    return found


def _picture(number: int) -> bytes:
    """Return all of a picture behind its first two bytes."""
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([8] * 64)
    frame = b"\xff\xc0" + struct.pack(">HBHHB3B", 11, 8, HEIGHT, WIDTH, 1, 1, 0x11, 0)
    codes = b"\xff\xc4" + struct.pack(">HB", 31, 0x00) + _DC_LENGTHS + _DC_CATEGORIES
    codes += b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + _AC_LENGTHS + b"\x00"
    scan = b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0x00, 0, 63, 0)
    return tables + frame + codes + scan + _scan(number) + b"\xff\xd9"


def _scan(number: int) -> bytes:
    """Return the entropy-coded bytes of blocks of one grey each."""
    codes = _dc_codes()
    bits, before = "", 0
    across = WIDTH // 8
    for block in range(across * (HEIGHT // 8)):
        row, column = divmod(block, across)
        grey = ((row + column + number) * 16) % 192 - 96
        difference, before = grey - before, grey
        category = abs(difference).bit_length()
        value = difference if difference >= 0 else difference + (1 << category) - 1
        bits += codes[category] + (f"{value:0{category}b}" if category else "") + "0"
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")


def _dc_codes() -> list[str]:
    """Return the code of each category, by the rule of the standard: shorter ones first, counted upwards."""
    codes, code = [], 0
    for length, count in enumerate(_DC_LENGTHS, 1):
        for _ in range(count):
            codes.append(f"{code:0{length}b}")
            code += 1
        code <<= 1
    return codes
