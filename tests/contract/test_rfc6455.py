"""The WebSocket edge against RFC 6455 and RFC 7692, in the sections of the Autobahn test suite, without an echo.

Autobahn's own suite wants a server that echoes; here the edge protocol shows what arrived. A second `auth` is answered
by ALREADY_AUTHENTICATED, a type that is not known is named in the answer, a ping by its pong, and the pictures of a
camera reach a viewer byte by byte. Each case of the tables is a dialogue, and is sent at once, frame by frame, and byte
by byte. The numbers say which section of Autobahn a case stands for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import secrets
import socket as socketlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil
import pytest

from tests.kit.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEADLINE_S,
    PING,
    PONG,
    TEXT,
    Clients,
    RawSocket,
    base64_of,
    http,
    new_name,
    pack_frame,
    web_socket_frame,
)
from tests.kit.dialogue import (
    ALIVE,
    BAD,
    HI,
    HOW,
    Heard,
    again,
    close,
    dialogue,
    hear,
    message,
    named,
    ping,
    pong,
    say,
    split,
    text,
)
from tests.kit.processes import BAD_WORDS, SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e

REGISTER: Final = "/streams/register"
SUBSCRIBE: Final = "/streams/subscribe"
DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate"
KIB: Final = 1 << 10
MIB: Final = 1 << 20
LIMIT: Final = 16 * MIB
#: Set in the first frame of a compressed message (RFC 7692 section 6).
RSV1: Final = 4


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def watchout_loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def token(plain_watchout: Watchout) -> str:
    return plain_watchout.token("autobahn")


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; the test that made the gateway print a fault is the one that fails."""
    gateway = plain_watchout.one("gateway")
    before = len(gateway.output)
    yield plain_watchout.url
    said = gateway.output[before:]
    assert not any(word in said for word in BAD_WORDS), said


# ── cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Case:
    """What a client sends, what it hears, and the codes with one of which it ends, if it does."""

    frames: Sequence[bytes]
    says: Sequence[str | bytes] = ()
    closes: Sequence[int] = ()


HELLO: Final = text(again())


def fails(*frames: bytes, says: Sequence[str] = (), code: int = 1002) -> Case:
    """What follows the breach is not answered."""
    return Case([*frames, *HELLO, ping(b"after")], says, [code])


PINGS: Final = [b"payload-%d" % n for n in range(10)]
AFTER: Final = [*HELLO, ping(b"after")]
PART: Final = web_socket_frame(TEXT, named("part")[:5], fin=False)
END: Final = web_socket_frame(CONTINUATION, named("part")[5:])

FRAMING: Final = {
    # 2: pings and pongs
    "2.1": Case([ping()], [b""]),
    "2.2": Case([ping(b"Hello, world!")], [b"Hello, world!"]),
    "2.3": Case([ping(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], [b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"]),
    "2.4": Case([ping(b"\xfe" * 125)], [b"\xfe" * 125]),
    "2.5": fails(ping(b"\xfe" * 126)),
    "2.5 64-bit length": fails(b"\x89\xff" + struct.pack("!Q", 65536) + b"mask" + bytes(65536)),
    "2.7": Case([pong()]),
    "2.8": Case([pong(b"unsolicited")]),
    "2.8 pong of 126": fails(pong(b"\xfe" * 126)),
    "2.9": Case([pong(b"unsolicited"), ping(b"payload")], [b"payload"]),
    "2.10": Case([ping(each) for each in PINGS], PINGS),
    "2.x every length": Case([ping(bytes(n)) for n in range(126)], [bytes(n) for n in range(126)]),
    # 3: reserved bits
    "3.1": fails(web_socket_frame(TEXT, again(), rsv=1)),
    "3.2": fails(*HELLO, web_socket_frame(TEXT, again(), rsv=2), says=[HI]),
    "3.3": fails(*HELLO, web_socket_frame(TEXT, again(), rsv=3), says=[HI]),
    "3.4": fails(*HELLO, web_socket_frame(TEXT, again(), rsv=RSV1), says=[HI]),
    "3.5": fails(web_socket_frame(BINARY, bytes(8), rsv=5)),
    "3.6": fails(web_socket_frame(PING, b"x", rsv=6)),
    "3.7": fails(web_socket_frame(CLOSE, b"\x03\xe8", rsv=7)),
    "3.x continuation": fails(PART, web_socket_frame(CONTINUATION, b"x", rsv=RSV1)),
    "3.x pong": fails(web_socket_frame(PONG, b"x", rsv=RSV1)),
    # 4: reserved opcodes
    **{
        f"4.{1 if opcode < 8 else 2}.{opcode} {len(payload)}": fails(
            *HELLO, web_socket_frame(opcode, payload), says=[HI]
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        for payload in (b"", b"reserved opcode payload")
    },
    # 5: fragmentation
    "5.1": fails(web_socket_frame(PING, b"frag1", fin=False), web_socket_frame(CONTINUATION, b"frag2")),
    "5.2": fails(web_socket_frame(PONG, b"frag1", fin=False), web_socket_frame(CONTINUATION, b"frag2")),
    "5.x fragmented close": fails(web_socket_frame(CLOSE, b"\x03", fin=False), web_socket_frame(CONTINUATION, b"\xe8")),
    "5.3": Case(text(named("a")[:4], named("a")[4:]), ["a"]),
    "5.6": Case([PART, ping(b"between"), END], [b"between", "part"]),
    "5.6 pong": Case([PART, pong(b"between"), END], ["part"]),
    "5.9": fails(web_socket_frame(CONTINUATION, b"nothing to continue")),
    "5.10": fails(*HELLO, web_socket_frame(CONTINUATION, b"nothing to continue"), says=[HI]),
    "5.12": fails(web_socket_frame(CONTINUATION, b"nothing to continue", fin=False)),
    "5.12 empty": fails(web_socket_frame(CONTINUATION, fin=False)),
    "5.15": fails(*text(named("a")[:3], named("a")[3:]), web_socket_frame(CONTINUATION, b"more", fin=False),
                  says=["a"]),
    "5.16": fails(web_socket_frame(CONTINUATION, b"x", fin=False), *text(b"{", b"}")),
    "5.17": fails(web_socket_frame(CONTINUATION, b"x"), *text(b"{", b"}")),
    "5.18": fails(PART, web_socket_frame(TEXT, b"fragment2")),
    "5.18 binary": fails(PART, web_socket_frame(BINARY, b"fragment2")),
    "5.18 in binary": fails(web_socket_frame(BINARY, b"W", fin=False), web_socket_frame(TEXT, again())),
    "5.18 unfinished": fails(PART, web_socket_frame(TEXT, b"fragment2", fin=False)),
    "5.19": Case(
        [
            web_socket_frame(TEXT, b'{"ty', fin=False), web_socket_frame(CONTINUATION, b'pe"', fin=False),
            ping(b"ping 1"), web_socket_frame(CONTINUATION, b":", fin=False),
            web_socket_frame(CONTINUATION, b'"five', fin=False), ping(b"ping 2"), web_socket_frame(CONTINUATION, b'"}'),
        ],
        [b"ping 1", b"ping 2", "five"],
    ),
    "5.x empty fragments": Case(text(b"", b"", b'{"type":', b"", b'"a"}', b""), ["a"]),
    "5.x only empty fragments": Case(text(b"", b"", b""), [BAD]),
    "5.x ten messages": Case([f for n in range(10) for f in text(*split(named(f"m{n}"), n + 1))],
                             [f"m{n}" for n in range(10)]),
    # 7: closing
    "7.1.1": Case([*HELLO, close()], [HI], closes=[1000]),
    "7.1.2": Case([close(), close(1001)], closes=[1000]),
    "7.1.3": Case([close(), ping(b"after")], closes=[1000]),
    "7.1.4": Case([close(), *AFTER], closes=[1000]),
    "7.1.5": Case([PART, close(), END], closes=[1000, 1002]),
    "7.1.6": Case([*text(again(256 * KIB)), close(), ping(b"after")], [HI], closes=[1000]),
    "7.1.x garbage after": Case([close(), bytes(range(256)) * 20], closes=[1000]),
    "7.3.1": Case([close(None), *AFTER], closes=[1005, 1000]),
    "7.3.2": Case([web_socket_frame(CLOSE, b"\x03"), *AFTER], closes=[1002]),
    "7.3.3": Case([close(), *AFTER], closes=[1000]),
    "7.3.4": Case([close(1000, b"Hello World!"), *AFTER], closes=[1000]),
    "7.3.5": Case([close(1000, b"*" * 123), *AFTER], closes=[1000]),
    "7.3.5 UTF-8": Case([close(1000, "ä€𝄞".encode()), *AFTER], closes=[1000]),
    "7.3.6": Case([close(1000, b"*" * 124), *AFTER], closes=[1002]),
    "7.5.1": Case([close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")], closes=[1007]),
    **{
        f"7.7 {code}": Case([close(code), *AFTER], closes=[code])
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 {code}{' and a reason' if reason else ''}": Case([close(code, reason), *AFTER], closes=[1002])
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535)
        for reason in (b"", b"Reason for closing")
    },
    # masking and lengths (RFC 6455 sections 5.1 and 5.2)
    **{
        f"unmasked {opcode}": fails(web_socket_frame(opcode, b"\x03\xe8", masked=False))
        for opcode in (TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG)
    },
    "unmasked fragment": fails(PART, web_socket_frame(CONTINUATION, b"x", masked=False)),
    "unmasked empty": fails(web_socket_frame(TEXT, masked=False)),
    "mask of zeros": Case([b"\x81" + bytes((0x80 | 27,)) + bytes(4) + again()], [HI]),
}  # fmt: skip


@pytest.fixture
async def socket(url: str, token: str, clients: Clients) -> RawSocket:
    """A viewer's connection, authenticated."""
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}")
    await raw.sign_in(token)
    return raw


def check(heard: Heard, case: Case) -> None:
    assert heard.said == list(case.says)
    assert heard.code in (case.closes or (None,))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", FRAMING.values(), ids=FRAMING)
async def test_frames_are_answered_as_rfc_6455_says(socket, case, how):
    length = sum(map(len, case.frames))
    check(await dialogue(socket, case.frames, how if length < 10_000 else HOW[0], ends=bool(case.closes)), case)


# ── 1: framing, with every encoding of the length ────────────────────────────────────────────────────────────────


LENGTHS: Final = (0, 1, 27, 125, 126, 127, 128, 65535, 65536, 70000)


@pytest.mark.parametrize(
    ("length", "chop"), [(n, chop) for n in LENGTHS for chop in (LIMIT, 997, 61, 1) if chop > 1 or n < 1000]
)
async def test_1_1_a_text_of_any_length_is_heard(socket, length, chop):
    sent = web_socket_frame(TEXT, again(length) if length >= 27 else b" " * length)
    for piece in split(sent, chop):
        await socket.send(piece)
        await asyncio.sleep(0)
    assert await dialogue(socket, []) == Heard([HI if length >= 27 else BAD])


@pytest.mark.parametrize(("code", "length"), [(126, 27), (127, 27), (127, 1000)])
async def test_1_1_a_length_in_more_bytes_than_it_needs_is_read_or_a_protocol_error(socket, code, length):
    packed = struct.pack("!H" if code == 126 else "!Q", length)
    await say(socket, [b"\x81" + bytes((0x80 | code,)) + packed + bytes(4) + again(length), ping(ALIVE)])
    heard = await hear(socket)
    assert (heard.said, heard.code) in (([HI], None), ([], 1002))


@dataclass(frozen=True, slots=True)
class Wire:
    """A camera that sends bytes, and a viewer that gets its pictures as they are."""

    camera: RawSocket
    viewer: RawSocket

    async def picture(self) -> bytes:
        """The next one that the viewer gets, without its header; or the data of a JSON frame."""
        while (frame := await self.viewer.frame(DEADLINE_S * 4)).opcode != BINARY:
            data = json.loads(frame.payload)
            if data["type"] == "video-frame":
                return str(data["data"]).encode()
        return frame.payload[18 + frame.payload[17] :]


async def wired(url: str, token: str, clients: Clients, *headers: str, form: str = "binary") -> Wire:
    camera, viewer = await clients.raw(url), await clients.raw(url)
    stream = new_name()
    for raw, path, wish in (
        (camera, REGISTER, {"type": "register", "streamId": stream, "produces": ["video-frame"]}),
        (viewer, SUBSCRIBE, {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"], "format": form}),
    ):
        await raw.upgrade(f"{path}?token={token}", *(headers if raw is camera else ()))
        await raw.sign_in(token)
        await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
        await raw.json("success")
    await viewer.json("status")
    return Wire(camera, viewer)


async def stream(camera: RawSocket, frames: Sequence[bytes]) -> None:
    """Send without a wait for each."""
    for some in itertools.batched(frames, 500) if hasattr(itertools, "batched") else [frames]:
        await camera.send(b"".join(some))


@pytest.mark.parametrize("chop", [0, 997], ids=["whole", "chopped by 997"])
async def test_1_2_a_binary_message_of_any_length_arrives_unchanged(url, token, clients, chop):
    wire = await wired(url, token, clients)
    for length in (19, 125, 126, 127, 128, 65535, 65536, 65537, 131072):
        picture = secrets.token_bytes(length - 18)
        sent = web_socket_frame(BINARY, pack_frame(picture, codec=0))
        for piece in split(sent, chop or len(sent)):
            await wire.camera.send(piece)
            await asyncio.sleep(0)
        assert await wire.picture() == picture, length
    for length in (0, 1, 17, 18):
        await wire.camera.send(web_socket_frame(BINARY, pack_frame(b"")[:length]))
        assert (await wire.camera.json("error"))["code"] == BAD


# ── 5: fragmentation ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_5_a_message_may_be_cut_anywhere_with_pings_in_every_gap(socket):
    whole = named("anywhere")
    sent: list[bytes] = []
    for first, second in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
        parts = text(whole[:first], whole[first:second], whole[second:])
        sent += [parts[0], ping(b"1"), parts[1], ping(b"2"), parts[2]]
    heard = await dialogue(socket, sent)
    assert heard == Heard([b"1", b"2", "anywhere"] * ((len(whole) + 1) * (len(whole) + 2) // 2))


async def test_5_every_order_of_frames_is_heard_or_refused_as_the_standard_says(url, token, clients):
    kinds = {
        "text": (TEXT, True), "text-": (TEXT, False), "binary": (BINARY, True), "binary-": (BINARY, False),
        "cont": (CONTINUATION, True), "cont-": (CONTINUATION, False), "ping": (PING, True), "ping-": (PING, False),
    }  # fmt: skip
    for order in itertools.product(kinds, repeat=3):
        raw = await clients.raw(url)
        await raw.upgrade(f"{SUBSCRIBE}?token={token}")
        await raw.sign_in(token)
        says: list[str | bytes] = []
        opened = ends = False
        for name in order:
            opcode, fin = kinds[name]
            if name == "ping-" or (opcode != PING and (opcode == CONTINUATION) != opened):
                ends = True
                break
            if opcode == PING:
                says.append(b"x")
            else:
                opened = not fin
                says += [BAD] if fin else []
        frames = [web_socket_frame(kinds[name][0], b"x", fin=kinds[name][1]) for name in order]
        heard = await dialogue(raw, frames, ends=ends)
        assert heard.said == says, order
        assert heard.code == (1002 if ends else None), order
        await raw.leave()


# ── 6: UTF-8 ─────────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── 9 and 10: limits, and messages in many fragments ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["json", "binary"])
async def test_9_1_and_9_2_large_messages_arrive_unchanged(url, token, clients, form):
    wire = await wired(url, token, clients, form=form)
    head = 18 if form == "binary" else len('{"type":"video-frame","data":""}')
    for length in (64 * KIB, 256 * KIB, MIB, 4 * MIB, LIMIT):
        picture = (secrets.token_bytes(KIB) if form == "binary" else base64_of(secrets.token_bytes(768)).encode()) * (
            length // KIB
        )
        picture = picture[: length - head]
        whole = pack_frame(picture, codec=0) if form == "binary" else b'{"type":"video-frame","data":"%b"}' % picture
        assert len(whole) == length
        await wire.camera.send(web_socket_frame(BINARY if form == "binary" else TEXT, whole))
        assert await wire.picture() == picture


@pytest.mark.parametrize("size", [64, 256, KIB, 4 * KIB, 64 * KIB, 256 * KIB, MIB])
@pytest.mark.parametrize("form", ["json", "binary"])
async def test_9_3_and_9_4_large_messages_in_fragments_arrive_unchanged(url, token, clients, form, size):
    wire = await wired(url, token, clients, form=form)
    if form == "binary":
        picture = secrets.token_bytes(min(MIB, size * 4000))
        frames = message(BINARY, *split(pack_frame(picture, codec=0), size))
    else:
        picture = base64_of(secrets.token_bytes(min(MIB, size * 4000) // 4 * 3)).encode()
        frames = text(*split(b'{"type":"video-frame","data":"%b"}' % picture, size))
    await stream(wire.camera, frames)
    assert await wire.picture() == picture


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024, 2048])
async def test_9_5_and_9_6_large_messages_that_come_in_small_pieces_arrive_unchanged(url, token, clients, size):
    wire = await wired(url, token, clients)
    picture = secrets.token_bytes(min(MIB, size * 1000))
    for piece in split(web_socket_frame(BINARY, pack_frame(picture, codec=0)), size):
        await wire.camera.send(piece)
        await asyncio.sleep(0)
    assert await wire.picture() == picture


async def test_9_5_a_message_that_comes_byte_by_byte_arrives_unchanged(url, token, clients):
    wire = await wired(url, token, clients)
    picture = secrets.token_bytes(4 * KIB)
    for piece in split(web_socket_frame(BINARY, pack_frame(picture, codec=0)), 1):
        await wire.camera.send(piece)
        await asyncio.sleep(0)
    assert await wire.picture() == picture


@pytest.mark.parametrize("length", [27, 64, 256, KIB, 4 * KIB])
async def test_9_7_and_9_8_a_thousand_messages_are_answered_one_by_one(socket, length):
    sent = web_socket_frame(TEXT, again(length))
    for _ in range(1000):
        await socket.send(sent)
        assert (await socket.json("error"))["code"] == HI


async def test_10_1_1_a_message_in_frames_of_1300_bytes_arrives_unchanged(url, token, clients):
    wire = await wired(url, token, clients)
    for opcode in (BINARY, TEXT):
        picture = b"\xff\xd8\xff\xe0" + secrets.token_bytes(64 * KIB)
        whole = pack_frame(picture, codec=0)
        if opcode == TEXT:
            whole = json.dumps({"type": "video-frame", "data": base64_of(picture)}).encode()
        await wire.camera.send(b"".join(message(opcode, *split(whole, 1300))))
        assert await wire.picture() == picture


@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 32, (1 << 63) - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_length_over_the_limit_closes_with_1009_before_any_of_it_came(socket, opcode, length):
    heard = await dialogue(socket, [bytes((0x80 | opcode, 0xFF)) + struct.pack("!Q", length)], ends=True)
    assert (heard.said, heard.code) == ([], 1009)


@pytest.mark.parametrize("length", [MIB + 1, LIMIT])
async def test_a_strangers_length_over_1_mib_closes_with_1009_before_any_of_it_came(url, clients, length):
    raw = await clients.raw(url)
    await raw.upgrade(SUBSCRIBE)
    assert (await dialogue(raw, [b"\x81\xff" + struct.pack("!Q", length)], ends=True)).code == 1009


async def test_fragments_count_together_and_close_with_1009_where_they_pass_the_limit(socket):
    frames = message(BINARY, *[bytes(4 * MIB)] * 3, b"")[:3]
    await stream(socket, frames)
    over = b"\x80\xff" + struct.pack("!Q", 4 * MIB + 1)
    assert (await dialogue(socket, [ping(b"between"), over], ends=True)).code == 1009


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) + 5, 0xFFFFFFFFFFFFFFF0, (1 << 64) - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, CLOSE])
async def test_a_length_with_the_top_bit_set_ends_the_connection(socket, opcode, length):
    # RFC 6455 section 5.2: the bit must be 0. It is over every limit as well, so that 1009 says it as rightly as 1002.
    heard = await dialogue(socket, [bytes((0x80 | opcode, 0xFF)) + struct.pack("!Q", length), *AFTER], ends=True)
    assert heard.said == []
    assert heard.code in (1002, 1009)


# ── 7: the end of the connection ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reason", [b"", b"bye", b"*" * 123])
@pytest.mark.parametrize("code", [1000, 1001, 4999])
async def test_7_the_close_is_answered_with_its_own_code_and_the_server_ends_the_connection(socket, code, reason):
    heard = await dialogue(socket, [close(code, reason)], ends=True)
    assert heard.close is not None
    assert heard.close[:2] == struct.pack("!H", code)
    assert heard.close[2:] in (b"", reason)


async def test_7_an_end_of_the_connection_without_a_close_frees_it(url, token, clients):
    for frames in ([], [PART], [b"\x81"], [b"\x81\xfe\x01"], [web_socket_frame(BINARY, bytes(100))[:50]]):
        for ends in ("eof", "abort"):
            raw = await clients.raw(url)
            await raw.upgrade(f"{SUBSCRIBE}?token={token}")
            await raw.sign_in(token)
            await say(raw, frames)
            if ends == "eof":
                raw.writer.write_eof()
                await raw.gone()
            await raw.leave()
    assert (await http(f"{url}/health/live")).status == 200


async def test_7_a_server_that_closes_first_waits_for_the_answer_and_no_longer(url, token, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}")
    await raw.sign_in(token)
    await say(raw, [web_socket_frame(TEXT, b"\xff")])
    assert await raw.close_code() == 1007
    await say(raw, [*HELLO, close(1007)])
    assert await raw.gone() == b""


async def test_7_alerts_that_wait_for_a_viewer_that_closes_are_not_written_after_the_close(url, token, clients):
    stream = new_name()
    camera = await clients.camera(url, token)
    await camera.register(stream)
    narrow = socketlib.socket()
    narrow.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    narrow.setblocking(False)
    raw = RawSocket(*await asyncio.open_connection(sock=narrow, limit=1024), url.removeprefix("http://"))
    async with raw:
        await raw.upgrade(f"{SUBSCRIBE}?token={token}")
        await raw.sign_in(token)
        wish = {"type": "subscribe", "streamId": stream, "consumes": ["alert"]}
        await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
        await raw.json("status")
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        alert = {"streamId": stream, "severity": "low", "message": "x", "metadata": {"x": "y" * 15_000}}
        for _ in range(3):  # the kernel takes some of 900 kB, the lane keeps the others
            answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=[alert] * 20)
            assert answer.status == 202
        await raw.send(close())
        assert (await http(f"{url}/health/live")).status == 200
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while (frame := await raw.frame()).opcode != CLOSE:
            assert frame.opcode == TEXT
        assert await raw.gone() == b""
    assert (await http(f"{url}/health/live")).status == 200


# ── 12 and 13: permessage-deflate (RFC 7692) ─────────────────────────────────────────────────────────────────────


def deflated(data: bytes, bits: int = 15, *, final: bool = False) -> bytes:
    """Compressed as RFC 7692 section 7.2.1 says, or with the last block marked as such (section 7.2.3.4)."""
    packer = zlib.compressobj(wbits=-bits)
    if final:
        return packer.compress(data) + packer.flush() + b"\x00"
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def stored(data: bytes) -> bytes:
    """In blocks without compression (section 7.2.3.3)."""
    blocks = [
        b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part for part in split(data, 65535) or [b""]
    ]
    return b"".join(blocks) + b"\x00"


def packed(data: bytes, **options: Any) -> list[bytes]:
    return message(TEXT, deflated(data, **options), rsv=RSV1)


def two_blocks(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    half = packer.compress(data[:5]) + packer.flush(zlib.Z_SYNC_FLUSH)
    return half + (packer.compress(data[5:]) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


NAMED: Final = named("deflated")
SHORT: Final = deflated(NAMED)
COMPRESSED: Final = {
    "12 one": Case(packed(NAMED), ["deflated"]),
    "12 many": Case(packed(NAMED) * 20, ["deflated"] * 20),
    "12 mixed": Case([*HELLO, *packed(NAMED), *text(named("plain"))], [HI, "deflated", "plain"]),
    "12 fragments": Case(message(TEXT, *split(SHORT, 1), rsv=RSV1), ["deflated"]),
    "12 empty fragments": Case(message(TEXT, b"", SHORT[:4], b"", SHORT[4:], b"", rsv=RSV1), ["deflated"]),
    "12 pings between": Case(
        [message(TEXT, SHORT[:4], SHORT[4:], rsv=RSV1)[0], ping(b"x"), message(TEXT, b"", SHORT[4:])[1]],
        [b"x", "deflated"],
    ),
    "12 stored": Case(message(TEXT, stored(NAMED), rsv=RSV1), ["deflated"]),
    "12 final block": Case(packed(NAMED, final=True), ["deflated"]),
    "12 two blocks": Case(message(TEXT, two_blocks(NAMED), rsv=RSV1), ["deflated"]),
    "12 empty": Case(message(TEXT, b"\x00", rsv=RSV1), [BAD]),
    "12 no bytes at all": Case(message(TEXT, b"", rsv=RSV1), [BAD]),
    "12 uncompressed after compressed fragments": Case(
        [*message(TEXT, SHORT[:3], SHORT[3:], rsv=RSV1), *text(NAMED[:3], NAMED[3:])], ["deflated"] * 2
    ),
    "12 bytes that are no UTF-8": Case([*packed(b"\xff\xfe"), *HELLO], closes=[1007]),
    "13 compressed ping": fails(web_socket_frame(PING, deflated(b"x"), rsv=RSV1)),
    "13 compressed pong": fails(web_socket_frame(PONG, deflated(b"x"), rsv=RSV1)),
    "13 compressed close": fails(web_socket_frame(CLOSE, b"\x03\xe8", rsv=RSV1)),
    "13 RSV1 on a continuation": fails(
        message(TEXT, SHORT[:4], SHORT[4:], rsv=RSV1)[0], web_socket_frame(CONTINUATION, SHORT[4:], rsv=RSV1)
    ),
    "13 RSV1 on a continuation of plain text": fails(PART, web_socket_frame(CONTINUATION, SHORT, rsv=RSV1)),
    "13 RSV1 on an orphan": fails(web_socket_frame(CONTINUATION, SHORT, rsv=RSV1)),
    "13 RSV2": fails(web_socket_frame(TEXT, SHORT, rsv=RSV1 | 2)),
    "13 RSV3": fails(web_socket_frame(TEXT, NAMED, rsv=1)),
    "13 unmasked": fails(web_socket_frame(TEXT, SHORT, rsv=RSV1, masked=False)),
    "13 text inside compressed text": fails(
        message(TEXT, SHORT[:4], SHORT[4:], rsv=RSV1)[0], web_socket_frame(TEXT, SHORT, rsv=RSV1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", COMPRESSED.values(), ids=COMPRESSED)
async def test_compressed_messages_are_answered_as_rfc_7692_says(url, token, clients, case, how):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}", DEFLATE)
    await raw.sign_in(token)
    check(await dialogue(raw, case.frames, how, ends=bool(case.closes)), case)


CORRUPT: Final = {
    "reserved block type": b"\x07", "stored with a wrong length": b"\x00\x05\x00\x00\x00Hello\x00",
    "random": random.Random(7692).randbytes(200), "text": b"{}" * 50, "a distance too far": b"\x4b\x04\x42\x00",
    "a zlib header": zlib.compress(NAMED), "the end of it cut off": stored(b"x" * 100)[:50],
}  # fmt: skip


@pytest.mark.parametrize("fragments", [1, 5])
@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
async def test_12_what_cannot_be_inflated_ends_the_connection(url, token, clients, data, fragments):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}", DEFLATE)
    await raw.sign_in(token)
    frames = message(TEXT, *split(data, -(-len(data) // fragments)), rsv=RSV1)
    heard = await dialogue(raw, frames, ends=True) if data[:1] != b"\x4b" else await dialogue(raw, [*frames, *HELLO])
    assert heard.code in (1002, 1007) or (data[:1] == b"\x4b" and heard.said[:1] == [BAD])


async def test_12_a_message_that_leans_on_the_one_before_is_refused_for_there_is_no_context(url, token, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}", DEFLATE)
    await raw.sign_in(token)
    packer = zlib.compressobj(wbits=-15)
    parts = [(packer.compress(NAMED) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)]
    heard = await dialogue(raw, [web_socket_frame(TEXT, part, rsv=RSV1) for part in parts], ends=True)
    assert heard.said == ["deflated"]
    assert heard.code in (1002, 1007)


OFFERS: Final = [
    "permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=15",
    "permessage-deflate; client_max_window_bits=9", 'permessage-deflate; client_max_window_bits="10"',
    "permessage-deflate; client_no_context_takeover", "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=11",
    "x-unknown; a=1, permessage-deflate", "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9, permessage-deflate",
    "permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
]  # fmt: skip


def agreed(header: str) -> dict[str, str]:
    """The parameters of the one extension of an answer."""
    name, *words = [word.strip() for word in header.split(";")]
    assert name == "permessage-deflate"
    pairs = [word.partition("=") for word in words]
    assert len(pairs) == len({key for key, _, _ in pairs}), header
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("offer", OFFERS)
async def test_12_and_13_messages_of_every_size_arrive_unchanged_whatever_was_offered(url, token, clients, offer):
    raw = await clients.raw(url)
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={token}", f"Sec-WebSocket-Extensions: {offer}")
    await raw.sign_in(token)
    terms = agreed(answer.headers["sec-websocket-extensions"])
    assert terms.keys() >= {"server_no_context_takeover", "client_no_context_takeover"}
    assert terms.keys() <= {
        "server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits",
    }  # fmt: skip
    for side in ("server", "client"):  # RFC 7692 section 7.1.2: never more than was offered, and digits
        name = f"{side}_max_window_bits"
        offered = [int(bits) for bits in offer.replace('"', "").replace(f"{name}=", "\0").split("\0")[1:] for bits in
                   [bits.partition(";")[0].partition(",")[0].split()[0]]]  # fmt: skip
        if name in terms:
            assert 8 <= int(terms[name]) <= (max(offered) if offered else 15)
            assert side == "server" or name in offer
    bits = int(terms.get("client_max_window_bits") or 15)
    wire = await wired(url, token, clients, f"Sec-WebSocket-Extensions: {offer}")
    for length in (1, 16, 64, 256, KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB):
        half = random.Random(length).randbytes(length)
        picture = half + half  # so that the window counts
        data = deflated(pack_frame(picture, codec=0), max(bits, 9))
        await wire.camera.send(b"".join(message(BINARY, *split(data, max(1, len(data) // 3)), rsv=RSV1)))
        assert await wire.picture() == picture


@pytest.mark.parametrize(
    "parameters",
    [
        "; unknown", "; unknown=1", "; server_no_context_takeover=1", "; client_no_context_takeover=true",
        "; server_max_window_bits", "; server_max_window_bits=7", "; server_max_window_bits=16",
        "; server_max_window_bits=010", "; server_max_window_bits=9.5", "; server_max_window_bits=-9",
        "; server_max_window_bits=99999999999999999999", "; client_max_window_bits=7", "; client_max_window_bits=16",
        "; client_max_window_bits=08", "; client_max_window_bits; client_max_window_bits",
        "; server_no_context_takeover; server_no_context_takeover", "; SERVER_NO_CONTEXT_TAKEOVER=x", "-x",
    ],
)  # fmt: skip
async def test_13_an_offer_that_is_not_as_rfc_7692_says_is_declined_and_the_socket_opens(
    url, token, clients, parameters
):
    raw = await clients.raw(url)
    header = f"Sec-WebSocket-Extensions: permessage-deflate{parameters}"
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={token}", header)
    await raw.sign_in(token)
    assert "sec-websocket-extensions" not in answer.headers
    assert (await dialogue(raw, packed(NAMED), ends=True)).code == 1002


@pytest.mark.parametrize(
    "header",
    ["permessage-deflate;", "permessage-deflate; ;", ";", "permessage-deflate; =1", "a b", "permessage-deflate; a=",
     'permessage-deflate; a="', "\x7f", "permessage-deflate, ,, ;"],
)  # fmt: skip
async def test_13_extensions_that_cannot_be_read_are_refused_or_passed_over(url, token, clients, header):
    raw = await clients.raw(url)
    await raw.send(raw.upgrade_head(f"{SUBSCRIBE}?token={token}", f"Sec-WebSocket-Extensions: {header}"))
    answer = await raw.answer()
    if answer.status != 101:
        assert answer.status == 400
        assert answer.error


def resident_mib(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / MIB


@pytest.mark.parametrize("whole", [False, True], ids=["in one message", "in many messages"])
async def test_12_bytes_after_the_last_block_do_not_pile_up(watchout, watchout_loop, clients, whole):
    # They inflate to nothing (RFC 1951 section 3.2.3), so that no limit of inflated bytes meets them.
    started = watchout(loop=watchout_loop)  # of its own: memory that others gave back would hide it
    raw = await clients.raw(started.url)
    await raw.upgrade(SUBSCRIBE, DEFLATE)
    pid = started.one("gateway").pid
    end, junk = deflated(b"{}", final=True), bytes(512 * KIB)
    first = web_socket_frame(TEXT, end + (junk if whole else b""), fin=whole, rsv=RSV1)
    more = first if whole else web_socket_frame(CONTINUATION, junk, fin=False)
    before = peak = resident_mib(pid)
    with contextlib.suppress(ConnectionError, TimeoutError):
        await raw.send(first)
        for _ in range(100):
            async with asyncio.timeout(5):
                await raw.send(more)
            peak = max(peak, resident_mib(pid))
    assert peak - before < 30  # of 50 MiB that were sent


# ── the handshake (RFC 6455 section 4) ───────────────────────────────────────────────────────────────────────────

KEY: Final = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION: Final = "Sec-WebSocket-Version: 13"
UPGRADE: Final = ("Upgrade: websocket", "Connection: Upgrade")


async def shaken(
    clients: Clients, url: str, *lines: str, method: str = "GET", version: str = "HTTP/1.1", target: str = SUBSCRIBE,
    later: bool = False,
) -> Any:  # fmt: skip
    """The answer to a handshake, on a new connection or on one that has served another request."""
    raw = await clients.raw(url)
    if later:
        await raw.send(raw.head("/health/live"))
        assert (await raw.answer()).status == 200
    await raw.send(raw.head(target, *lines, method=method, version=version))
    return await raw.answer()


async def test_the_handshake_is_answered_with_the_accept_of_the_standards_example(url, clients):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
    assert answer.headers["upgrade"].lower() == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert "sec-websocket-protocol" not in answer.headers
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    "lines",
    [
        ("upgrade: WebSocket", "connection: upgrade", KEY.lower().replace("dghlihnhbxbszsbub25jzq", KEY[19:41]),
         VERSION),
        ("Upgrade: WEBSOCKET", "Connection: keep-alive, Upgrade", KEY, VERSION),
        ("Upgrade:websocket", "Connection:Upgrade", KEY, VERSION),
        ("Upgrade: websocket ", "Connection: Upgrade ", KEY + " ", VERSION + " "),
        (*UPGRADE, KEY, VERSION, "Cookie: a=b", "X-Anything: \u00e4"),
        ("Upgrade: websocket, h2c", "Connection: Upgrade, HTTP2-Settings", KEY, VERSION),
        ("Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: upgrade", KEY, VERSION),
        ("Upgrade:\twebsocket\t", "Connection: ,\tUpgrade ,", KEY, VERSION, "Content-Length: 0"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol:"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: x-webkit-deflate-frame, foo; bar"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_handshakes_of_any_spelling_are_accepted(url, clients, lines, later):
    answer = await shaken(clients, url, *lines, later=later)
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers
    assert answer.headers["server"] == "watchout"


TARGETS: Final = [
    "/streams/subscribe?", "/streams/%73ubscribe", "/%73treams/%73%75bscribe?x=1", "http://HOST/streams/subscribe",
    "HTTP://HOST/streams/subscribe?x=1", "http://another.example:1/streams/subscribe", "ws://HOST/streams/%73ubscribe",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_targets_of_any_form_are_understood(url, token, clients, target, later):
    target = target.replace("HOST", url.removeprefix("http://"))
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, target=target, later=later)
    assert answer.status == 101
    named = f"{target}{'&' if '?' in target else '?'}token={token}"
    raw = await clients.raw(url)
    await raw.upgrade(named)
    await raw.sign_in(token)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/streams/subscribe/", 404), ("//streams/subscribe", 404), ("/streams/Subscribe", 404),
        ("/streams%2Fsubscribe", 404), ("/x/../streams/subscribe", 404), ("ftp://a/streams/subscribe", 400),
        ("http://u:p@a/streams/subscribe", 400), ("/streams/subscribe#x", 400),
    ],
)  # fmt: skip
async def test_other_targets_are_no_websocket(url, clients, target, status):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, target=target)
    assert (answer.status, bool(answer.error)) == (status, True)


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (["chat"], "chat"), (["chat, superchat"], "chat"), (["chat", "superchat"], "chat"), (["", ", b, a"], "b"),
        (["bearer, abc.def-_~"], "bearer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("later", [False, True], ids=["first request", "later request"])
async def test_the_first_subprotocol_that_is_offered_is_chosen(url, clients, lines, first, later):
    offers = [f"Sec-WebSocket-Protocol: {line}" for line in lines]
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, *offers, later=later)
    assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, first)


async def test_messages_that_come_with_a_later_upgrade_are_heard_after_it(url, token, clients):
    raw = await clients.raw(url)
    await raw.send(raw.head("/health/live"))
    assert (await raw.answer()).status == 200
    auth = web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode())
    subscribe = web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"x"}')
    await raw.send(raw.upgrade_head(SUBSCRIBE) + auth + subscribe)
    assert (await raw.answer()).status == 101
    assert [(await raw.json("success"))["event"] for _ in range(2)] == ["authenticated", "subscribed"]


REFUSED: Final = {
    "no key": (*UPGRADE, VERSION),
    "an empty key": (*UPGRADE, "Sec-WebSocket-Key:", VERSION),
    "a short key": (*UPGRADE, "Sec-WebSocket-Key: " + base64_of(bytes(15)), VERSION),
    "a long key": (*UPGRADE, "Sec-WebSocket-Key: " + base64_of(bytes(17)), VERSION),
    "a key that is no base64": (*UPGRADE, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==", VERSION),
    "two keys": (*UPGRADE, KEY, KEY, VERSION),
    "no version": (*UPGRADE, KEY),
    "two versions": (*UPGRADE, KEY, VERSION, VERSION),
    "no Connection": (UPGRADE[0], KEY, VERSION),
    "another Connection": (UPGRADE[0], "Connection: keep-alive", KEY, VERSION),
    "no Upgrade": (UPGRADE[1], KEY, VERSION),
    "another Upgrade": ("Upgrade: h2c", UPGRADE[1], KEY, VERSION),
    "a body": (*UPGRADE, KEY, VERSION, "Content-Length: 5"),
    "a subprotocol that is no token": (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: a b"),
    "a folded header": (*UPGRADE, KEY, VERSION, "X-Folded: a\r\n b"),
    "a header without a name": (*UPGRADE, KEY, VERSION, ": a"),
    "a space before the colon": (*UPGRADE, KEY, VERSION, "X-Space : a"),
    "a NUL in a header": (*UPGRADE, KEY, VERSION, "X-Nul: a\0b"),
}


@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED)
async def test_a_handshake_that_lacks_something_is_a_4xx(url, clients, lines):
    answer = await shaken(clients, url, *lines)
    assert 400 <= answer.status < 500
    assert answer.error
    assert answer.headers["server"] == "watchout"
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize(
    "version", ["0", "7", "8", "12", "14", "25", "255", "1300", "013", "-13", "13.0", "x", "13, 8"]
)
async def test_another_version_is_426_and_the_answer_says_which_one_is_spoken(url, clients, version):
    answer = await shaken(clients, url, *UPGRADE, KEY, f"Sec-WebSocket-Version: {version}")
    assert answer.headers["sec-websocket-version"] == "13"  # RFC 6455 section 4.2.2
    assert answer.status == 426
    assert answer.error


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_is_no_handshake(url, clients, method):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, "Content-Length: 0", method=method)
    assert 400 <= answer.status < 500 or (method == "OPTIONS" and answer.status in (200, 204))


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/x", "http/1.1"])
async def test_another_version_of_http_is_no_handshake(url, clients, version):
    answer = await shaken(clients, url, *UPGRADE, KEY, VERSION, version=version)
    assert 400 <= answer.status <= 505
    assert answer.status not in (500, 502, 503, 504)
    assert answer.error
