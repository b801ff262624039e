"""RFC 6455 sections 5.2 to 5.5: lengths, fragments, control frames."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import struct
from typing import Final

import pytest

from tests.contract.rfc6455.support import (
    AFTER,
    HELLO,
    KIB,
    LIMIT,
    PART,
    RSV1,
    SUBSCRIBE,
    Case,
    check,
    fails,
    wired,
)
from tests.kit.clients import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, pack_frame, web_socket_frame
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
    named,
    ping,
    pong,
    say,
    split,
    text,
)

pytestmark = pytest.mark.e2e


# ── cases ────────────────────────────────────────────────────────────────────────────────────────────────────────

PINGS: Final = [b"payload-%d" % n for n in range(10)]
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
    for first in range(len(whole) + 1):  # a few at a time: of pongs that wait for the kernel only the newest is sent
        sent: list[bytes] = []
        for second in range(first, len(whole) + 1):
            parts = text(whole[:first], whole[first:second], whole[second:])
            sent += [parts[0], ping(b"1"), parts[1], ping(b"2"), parts[2]]
        heard = await dialogue(socket, sent)
        assert heard == Heard([b"1", b"2", "anywhere"] * (len(whole) + 1 - first))


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
