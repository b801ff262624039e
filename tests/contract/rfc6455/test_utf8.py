"""RFC 6455 section 8.1: text is UTF-8, however it is cut."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from tests.contract.rfc6455.support import HELLO, SUBSCRIBE, wired
from tests.kit.clients import BINARY
from tests.kit.dialogue import BAD, Heard, close, dialogue, message, split, text

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """What these bytes mean does not depend on the event loop."""
    return "uvloop"


KAPPA: Final = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
VALID: Final = {
    "6.1.1": b"", "6.2.1": "Hello-µ@ßöäüàá-UTF-8!!".encode(), "6.5.1": KAPPA,
    "6.7.1": b"\x00", "6.7.2": b"\xc2\x80", "6.7.3": b"\xe0\xa0\x80", "6.7.4": b"\xf0\x90\x80\x80",
    "6.9.1": b"\x7f", "6.9.2": b"\xdf\xbf", "6.9.3": b"\xef\xbf\xbf", "6.9.4": b"\xf4\x8f\xbf\xbf",
    "6.11.1": b"\xed\x9f\xbf", "6.11.2": b"\xee\x80\x80", "6.11.3": b"\xef\xbf\xbd", "6.11.4": b"\xf3\xbf\xbf\xbf",
    "6.22.1": b"\xef\xbf\xbe", "6.22.2": b"\xef\xbf\xbf",
    **{f"6.22.{plane + 2}": chr(plane << 16 | 0xFFFE).encode() + chr(plane << 16 | 0xFFFF).encode()
       for plane in range(1, 17)},
    "6.23.1": "\ufdd0\ufeff\u2028".encode(),
}  # fmt: skip
INVALID: Final = {
    "6.3.1": KAPPA + b"\xed\xa0\x80edited",
    "6.4.1": KAPPA + b"\xf4\x90\x80\x80edited",
    **{f"6.6.{n}": KAPPA[:n] for n in range(1, len(KAPPA)) if n not in (2, 5, 7, 9)},
    "6.8.1": b"\xf8\x88\x80\x80\x80", "6.8.2": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1": b"\xf7\xbf\xbf\xbf", "6.10.2": b"\xfb\xbf\xbf\xbf\xbf", "6.10.3": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "6.11.5": b"\xf4\x90\x80\x80",
    "6.12.1": b"\x80", "6.12.2": b"\xbf", "6.12.3": b"\x80\xbf", "6.12.4": b"\x80\xbf\x80",
    "6.12.5": b"\x80\xbf\x80\xbf", "6.12.6": b"\x80\xbf\x80\xbf\x80", "6.12.7": b"\x80\xbf\x80\xbf\x80\xbf",
    "6.12.8": bytes(range(0x80, 0xC0)),
    "6.13.1": b"".join(bytes((n, 0x20)) for n in range(0xC0, 0xE0)),
    "6.13.2": b"".join(bytes((n, 0x20)) for n in range(0xE0, 0xF0)),
    "6.13.3": b"".join(bytes((n, 0x20)) for n in range(0xF0, 0xF8)),
    "6.13.4": b"".join(bytes((n, 0x20)) for n in range(0xF8, 0xFC)), "6.13.5": b"\xfc\x20\xfd\x20",
    "6.14.1": b"\xc0", "6.14.2": b"\xe0\x80", "6.14.3": b"\xf0\x80\x80", "6.14.4": b"\xf8\x80\x80\x80",
    "6.14.5": b"\xfc\x80\x80\x80\x80", "6.14.6": b"\xdf", "6.14.7": b"\xef\xbf", "6.14.8": b"\xf7\xbf\xbf",
    "6.14.9": b"\xfb\xbf\xbf\xbf", "6.14.10": b"\xfd\xbf\xbf\xbf\xbf",
    "6.15.1": b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf"
              b"\xfd\xbf\xbf\xbf\xbf",
    "6.16.1": b"\xfe", "6.16.2": b"\xff", "6.16.3": b"\xfe\xfe\xff\xff",
    "6.17.1": b"\xc0\xaf", "6.17.2": b"\xe0\x80\xaf", "6.17.3": b"\xf0\x80\x80\xaf", "6.17.4": b"\xf8\x80\x80\x80\xaf",
    "6.17.5": b"\xfc\x80\x80\x80\x80\xaf",
    "6.18.1": b"\xc1\xbf", "6.18.2": b"\xe0\x9f\xbf", "6.18.3": b"\xf0\x8f\xbf\xbf", "6.18.4": b"\xf8\x87\xbf\xbf\xbf",
    "6.18.5": b"\xfc\x83\xbf\xbf\xbf\xbf",
    "6.19.1": b"\xc0\x80", "6.19.2": b"\xe0\x80\x80", "6.19.3": b"\xf0\x80\x80\x80", "6.19.4": b"\xf8\x80\x80\x80\x80",
    "6.19.5": b"\xfc\x80\x80\x80\x80\x80",
    **{f"6.20.{n}": chr(surrogate).encode("utf-8", "surrogatepass")
       for n, surrogate in enumerate((0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF), 1)},
    **{f"6.21.{n}": (chr(high) + chr(low)).encode("utf-8", "surrogatepass")
       for n, (high, low) in enumerate(itertools.product((0xD800, 0xDB7F, 0xDB80, 0xDBFF), (0xDC00, 0xDFFF)), 1)},
}  # fmt: skip


@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "stranger"])
@pytest.mark.parametrize("sequence", VALID.values(), ids=VALID)
async def test_6_text_in_utf_8_is_taken_however_it_is_cut(url, token, clients, sequence, authenticated):
    raw = await clients.raw(url)
    await raw.upgrade(SUBSCRIBE)
    if authenticated:
        await raw.sign_in(token)
    sent = [text(sequence), text(*split(sequence, 1)) if sequence else text(b"", b"")]
    sent += [text(sequence[:at], sequence[at:]) for at in range(1, len(sequence))]
    heard = await dialogue(raw, [frame for frames in sent for frame in frames])
    assert heard == Heard([BAD if authenticated else "AUTH_REQUIRED"] * len(sent))


@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "stranger"])
@pytest.mark.parametrize("sequence", INVALID.values(), ids=INVALID)
async def test_6_text_that_is_no_utf_8_closes_with_1007_however_it_is_cut(url, token, clients, sequence, authenticated):
    ways = [text(sequence), text(*split(sequence, 1)), text(b'{"type":"', sequence, b'"}')]
    ways += [text(sequence[:at], sequence[at:]) for at in range(1, min(len(sequence), 6))]
    ways += [text(b'{"type":"auth","token":"' + sequence + b'"}'), text(b" " * 20_000 + sequence)]
    for frames in ways:
        raw = await clients.raw(url)
        await raw.upgrade(SUBSCRIBE)
        if authenticated:
            await raw.sign_in(token)
        heard = await dialogue(raw, [*frames, *HELLO], ends=True)
        assert (heard.said, heard.code) == ([], 1007)
        await raw.leave()


@pytest.mark.parametrize("sequence", INVALID.values(), ids=INVALID)
async def test_6_a_reason_that_is_no_utf_8_closes_with_1007(socket, sequence):
    assert (await dialogue(socket, [close(1000, sequence)], ends=True)).code == 1007


async def test_6_bytes_that_are_no_utf_8_are_no_matter_in_binary_messages(socket):
    sent = [frame for each in INVALID.values() for frame in message(BINARY, each)]
    assert await dialogue(socket, sent) == Heard([BAD] * len(sent))


async def test_6_text_arrives_as_it_was_said(url, token, clients):
    wire = await wired(url, token, clients, form="json")
    said = "κόσμε-ä€𝄞\U0010ffff\u2028"
    whole = f'{{"type":"video-frame","data":"{said}"}}'.encode()
    for at in range(len(whole) - len(said.encode()) - 2, len(whole)):
        await wire.camera.send(b"".join(text(whole[:at], whole[at:])))
        assert await wire.picture() == said.encode()
