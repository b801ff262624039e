"""RFC 7692: permessage-deflate."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import zlib
from typing import Final

import psutil
import pytest

from tests.contract.rfc6455.support import (
    HELLO,
    KIB,
    MIB,
    PART,
    RSV1,
    SUBSCRIBE,
    Case,
    check,
    deflated,
    fails,
    packed,
    wired,
)
from tests.kit.clients import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, pack_frame, web_socket_frame
from tests.kit.dialogue import BAD, HI, HOW, dialogue, message, named, ping, split, text

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """What these bytes mean does not depend on the event loop."""
    return "uvloop"


DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate"


def stored(data: bytes) -> bytes:
    """In blocks without compression (section 7.2.3.3)."""
    blocks = [
        b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part for part in split(data, 65535) or [b""]
    ]
    return b"".join(blocks) + b"\x00"


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
