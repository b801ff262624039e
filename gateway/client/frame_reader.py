"""Splits a client's bytes into simple messages, and bytes for the websockets library (RFC 6455 section 5.2). Pure.

A simple message is uncompressed, masked, within the size limit, and in one frame or in few fragments: nearly all that
publishers send. Those of authenticated clients are unmasked here, in one pass over their bytes. A simple message of an
unauthenticated client that is over its limit is discarded, and an empty message stands for it. All other bytes go to
the library's `ServerProtocol` unchanged and in order: it judges a broken stream as it would without this module.
Fragments that are followed by anything but a further fragment of their message, a ping or a pong go to the library
as one fragment, so that it knows all that it has to judge.
"""

from __future__ import annotations

import struct
from typing import Final

from websockets.frames import Opcode

from watchout.gateway import fastpath

try:
    from websockets.speedups import apply_mask
except ImportError:  # an installation without its C part
    from websockets.utils import apply_mask

#: Size of the read buffer that all connections share; it is empty between two callbacks of the event loop.
SCRATCH_BYTES: Final = 256 * 1024
#: First size of the memory for a frame that arrives in several reads; it grows with the bytes received.
FIRST_BYTES: Final = 256 * 1024
#: Bytes read of an unauthenticated client at once, and possibly kept while a reply is pending.
UNAUTHENTICATED_READ_BYTES: Final = 16 * 1024

#: Most fragments of a message that are joined here; the library and `MessageAssembler` bound and count more.
MOST_FRAGMENTS: Final = 15

_FIN: Final = 0x80
#: First byte of an unfragmented, uncompressed data frame, and its opcode.
_WHOLE: Final = {_FIN | int(opcode): opcode for opcode in (Opcode.TEXT, Opcode.BINARY)}
#: First byte of an uncompressed first fragment, and its opcode; those of further ones.
_FIRST: Final = {int(opcode): opcode for opcode in (Opcode.TEXT, Opcode.BINARY)}
_FURTHER: Final = (int(Opcode.CONT), _FIN | int(Opcode.CONT))
#: First bytes of the frames that may come between fragments.
_BETWEEN: Final = (_FIN | int(Opcode.PING), _FIN | int(Opcode.PONG))
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
#: Bytes of the shortest and of the longest header of a masked frame.
_SHORT_HEADER: Final = 2 + 4
_LONGEST: Final = 2 + 8 + 4


class FrameReader:
    """Splits the bytes of one WebSocket client into messages; `ClientSocketReader` has one per connection.

    The transport writes into `buffer`. Then three methods are tried, from the fastest to the general one: `plain` (a
    complete video frame in its usual form), `whole` (one complete simple message), and `next`, repeatedly until it
    returns None. `next` returns simple messages, and passes all other bytes to the WebSocket library, which also
    detects violations of the protocol; before each of its calls `next_plain` may be tried. Before the event loop's
    callback ends, `keep` copies the rest, because `scratch` is shared.

    Args:
        scratch: The read buffer that all connections share.
        max_bytes: Largest payload of a simple message; the library refuses longer ones.
        piece_bytes: Most bytes that `next` returns for the library at once.
        longest_bytes: Largest payload over `max_bytes` that is discarded while the client is not `trusted`.
    """

    __slots__ = (
        "_broken", "_data", "_discarding", "_end", "_fragments", "_given", "_got", "_header", "_in_message", "_joined",
        "_left", "_need", "_opcode", "_partial", "_pos", "_scratch", "_stands_for", "longest_bytes", "max_bytes",
        "piece_bytes", "trusted",
    )  # fmt: skip

    def __init__(self, scratch: memoryview, *, max_bytes: int, piece_bytes: int, longest_bytes: int = 0) -> None:
        self._scratch = scratch
        self.max_bytes = max_bytes
        self.longest_bytes = longest_bytes
        self.piece_bytes = piece_bytes
        #: The client is authenticated: simple messages are taken here, not by the library.
        self.trusted = False
        #: Bytes received and not returned: those of `_data` from `_pos` to `_end`.
        self._data: memoryview | None = None
        self._pos = self._end = 0
        #: Beginning of a frame whose header is incomplete.
        self._header = b""
        #: Bytes of that header that the library has already, because the frame is not simple.
        self._given = 0
        #: Remaining bytes of a frame that goes to the library, or is discarded.
        self._left = 0
        #: Type of the message whose remaining bytes are discarded; None: they go to the library.
        self._discarding: Opcode | None = None
        #: A simple message that arrives in several reads: its bytes, header included; `_got` of `_need` are there.
        self._partial: bytearray | None = None
        self._got = self._need = 0
        #: Between the first and the last frame of a fragmented message.
        self._in_message = False
        #: Payloads of its fragments, and their bytes; None: the library has them.
        self._fragments: list[bytes] | None = None
        self._joined = 0
        #: Type of that message.
        self._opcode = Opcode.TEXT
        #: Fragments for which the library's next first fragment stands.
        self._stands_for = 1
        #: The stream violates RFC 6455: everything goes to the library, which will fail the connection.
        self._broken = False

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def buffer(self, most_bytes: int = SCRATCH_BYTES) -> memoryview:
        """Return the memory for the next bytes; never empty.

        Args:
            most_bytes: Most bytes that may have to wait here; the rest of a message that has begun does not count.
        """
        partial, got = self._partial, self._got
        if partial is None or got == self._need:
            if self.trusted and most_bytes >= SCRATCH_BYTES:
                return self._scratch
            return self._scratch[: min(most_bytes, SCRATCH_BYTES if self.trusted else UNAUTHENTICATED_READ_BYTES)]
        if got == len(partial):
            self._partial = bytearray(min(self._need, 2 * got))  # a new one: the loop may still have a view of the old
            self._partial[:got] = partial
            partial = self._partial
        return memoryview(partial)[got:]

    def received(self, count: int) -> None:
        """Take `count` bytes that were written into `buffer`."""
        if self._partial is not None and self._got < self._need:
            self._got += count
        else:
            self.add(self._scratch[:count])

    def add(self, data: memoryview) -> None:
        """Take bytes from elsewhere; those before them must have been returned by `next`, or kept."""
        if self._data is None:
            self._data, self._pos, self._end = data, 0, len(data)
        else:
            self._data = memoryview(bytes(self._data[self._pos : self._end]) + bytes(data))
            self._pos, self._end = 0, len(self._data)

    def keep(self) -> None:
        """Copy the bytes not returned yet, before another client uses `scratch`."""
        if self._data is not None:
            self._data = memoryview(bytes(self._data[self._pos : self._end]))
            self._pos, self._end = 0, len(self._data)

    def close(self) -> None:
        """Discard all bytes, because the connection ends."""
        self._data = self._partial = self._fragments = None
        self._header = b""
        self._got = self._need = self._left = self._joined = 0
        self._discarding = None

    def plain(self, count: int, json_head: bytes, name: bytes, frame_id: int, now_ms: int) -> fastpath.Taken | None:
        """Return the plain frame that the last `count` bytes in `buffer` are, or complete; None: call `whole` next.

        The further arguments and the result are those of `fastpath.Take`.
        """
        if (
            fastpath.take is None
            or self._data is not None
            or self._left
            or self._header
            or not self.trusted
            or self._in_message
            or self._broken
        ):
            return None
        partial = self._partial
        if partial is None:
            return fastpath.take(self._scratch, count, self.max_bytes, json_head, name, frame_id, now_ms)
        if self._got == self._need or self._got + count != self._need:
            return None
        whole = memoryview(partial)
        found = fastpath.take(whole, self._need, self.max_bytes, json_head, name, frame_id, now_ms)
        if found is not None:
            self._partial = None
        return found

    def next_plain(self, json_head: bytes, name: bytes, frame_id: int, now_ms: int) -> fastpath.Taken | None:
        """Return the plain frame with which the bytes begin that were not returned yet; None: call `next`.

        A publisher's frames come several in one read when the gateway is behind. The further arguments and the result
        are those of `fastpath.Take`.
        """
        data, pos = self._data, self._pos
        if (
            fastpath.take is None
            or data is None
            or self._partial is not None
            or self._left
            or self._header
            or not self.trusted
            or self._in_message
            or self._broken
        ):
            return None
        at, length = _place(data, pos, self._end)
        size = at + 4 + length - pos
        if length > self.max_bytes or size > self._end - pos:
            return None
        found = fastpath.take(data[pos : pos + size], size, self.max_bytes, json_head, name, frame_id, now_ms)
        if found is not None:
            self._advance(pos + size)
        return found

    def whole(self, count: int) -> tuple[Opcode, bytes] | None:
        """Return type and payload of the one simple message that the last `count` bytes in `buffer` are.

        None when they are anything else: they are then taken as with `received`, and `next` returns them. Without
        `fastpath` nearly every read is one whole message, for which `next` would take longer.
        """
        if (
            self._data is None
            and self._partial is None
            and not self._left
            and not self._header
            and self.trusted
            and not self._in_message
            and not self._broken
            and count > _LONGEST
        ):
            data = self._scratch
            opcode = _WHOLE.get(data[0])
            second = data[1]
            if opcode is not None and second >= _MASKED:
                if second == _MASKED | 126:
                    if (data[2] << 8 | data[3]) == count - 8 and count - 8 <= self.max_bytes:
                        return opcode, apply_mask(data[8:count], bytes(data[4:8]))
                elif (
                    second == _MASKED | 127
                    and int.from_bytes(data[2:10], "big") == count - 14
                    and count - 14 <= self.max_bytes
                ):
                    return opcode, apply_mask(data[14:count], bytes(data[10:14]))
        self.received(count)
        return None

    # ── frames out ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def waiting(self) -> bool:
        """Whether `next` has bytes to process."""
        return self._data is not None or (self._partial is not None and self._got == self._need)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory held for this client alone."""
        kept = self._end - self._pos if self._data is not None else 0
        return kept + len(self._partial or b"") + len(self._header) + self._joined

    @property
    def unfinished(self) -> bool:
        """Whether a frame, or a message in fragments that are joined here, has begun and not ended."""
        return self._partial is not None or self._left > 0 or bool(self._header) or self._fragments is not None

    def count_first_fragment(self) -> int:
        """Return how many fragments the first fragment stands for that the library has just read."""
        count, self._stands_for = self._stands_for, 1
        return count

    def next(self) -> tuple[Opcode | None, bytes] | None:
        """Return type and payload of a message, or None and bytes for the library; None when more bytes are needed."""
        if self._partial is not None:
            return self._finish(self._partial)
        if self._data is None:
            return None
        if self._discarding is not None:
            return self._discard(self._discarding)
        if self._left or self._broken:
            return self._for_library()
        data, pos = self._data, self._pos
        if not self._header and self._end - pos >= _LONGEST:
            opcode = _WHOLE.get(data[pos])
            second = data[pos + 1]
            if opcode is not None and second & _MASKED and self.trusted and not self._in_message:
                at, length = _place(data, pos, self._end)
                if length <= self.max_bytes:
                    return self._take(at, length)
        return self._begin()

    def _take(self, at: int, length: int) -> tuple[Opcode | None, bytes] | None:
        """Take the frame at `_pos`, whose mask begins at `at`, or keep what is there of it and return None."""
        assert self._data is not None
        data, begin = self._data, at + 4
        end = begin + length
        if end <= self._end:
            first = data[self._pos]
            self._advance(end)
            return self._taken(first, apply_mask(data[begin:end], bytes(data[at:begin])))
        pos, self._need = self._pos, end - self._pos
        self._got = self._end - pos
        partial = bytearray(max(self._got, min(self._need, FIRST_BYTES)))
        partial[: self._got] = data[pos : self._end]
        self._partial = partial
        self._advance(self._end)
        return None

    def _taken(self, first: int, payload: bytes) -> tuple[Opcode | None, bytes] | None:
        """Return the message that ends with a frame, or what follows if none does; `first`: the frame's first byte."""
        opcode = _WHOLE.get(first)
        if opcode is not None:
            return opcode, payload
        if self._fragments is None:
            self._fragments, self._opcode, self._in_message = [], _FIRST[first], True
        self._fragments.append(payload)
        self._joined += len(payload)
        if not first & _FIN:
            return self.next()  # at most `MOST_FRAGMENTS` deep
        message = b"".join(self._fragments)
        self._fragments, self._joined, self._in_message = None, 0, False
        return self._opcode, message

    def _hand_over(self, fragments: list[bytes]) -> tuple[None, bytes]:
        """Return for the library, as one fragment, what was joined here."""
        self._fragments, self._joined, self._stands_for = None, 0, len(fragments)
        payload = b"".join(fragments)
        # The longest form of the length, which a client may use too, and a mask of zeros.
        return None, struct.pack("!BBQI", self._opcode, _MASKED | _LENGTH, len(payload), 0) + payload

    def _finish(self, partial: bytearray) -> tuple[Opcode | None, bytes] | None:
        """Return the message that arrived in several reads, None while it is incomplete."""
        if self._got < self._need:
            return None
        self._partial = None
        at = {126: 4, 127: 10}.get(partial[1] & _LENGTH, 2)
        whole = memoryview(partial)
        return self._taken(partial[0], apply_mask(whole[at + 4 :], bytes(whole[at : at + 4])))

    def _begin(self) -> tuple[Opcode | None, bytes] | None:
        """Begin with the next frame of any kind; its header may be incomplete, and invalid nevertheless."""
        assert self._data is not None
        held, given = self._header, self._given
        header = held + bytes(self._data[self._pos : min(self._end, self._pos + _LONGEST)])
        size, length = _header_of(header)
        second = header[1] if len(header) > 1 else _MASKED
        opcode = _WHOLE.get(header[0])
        fragments = self._fragments
        data_message = opcode is not None and not self._in_message and not given
        if fragments is None:
            ours = self.trusted and (data_message or (header[0] in _FIRST and not self._in_message and not given))
        else:
            fits = self._joined + length <= self.max_bytes  # the library refuses also a ping that does not
            ours = header[0] in _FURTHER and second & _MASKED > 0 and fits and len(fragments) < MOST_FRAGMENTS
            if not ours and not (header[0] in _BETWEEN and fits):
                return self._hand_over(fragments)
        too_long = data_message and not self.trusted and self.max_bytes < length <= self.longest_bytes
        self._broken = not second & _MASKED or (length > self.max_bytes and not too_long)
        if len(header) < size and not self._broken:
            self._advance(self._end)
            self._header = header
            if ours or len(header) < 2 or (data_message and self.longest_bytes):
                return None
            self._given = len(header)
            return None, header[given:]
        self._header, self._given = b"", 0
        if ours and not self._broken:
            if held:  # rare: the header arrived in two reads
                self._data = memoryview(held + bytes(self._data[self._pos : self._end]))
                self._pos, self._end = 0, len(self._data)
            return self._take(self._pos + size - 4, length)
        if too_long and opcode is not None and not self._broken:
            self._left, self._discarding = size + length - len(held), opcode
            return self._discard(opcode)
        if header[0] & 0x0F < 8:  # not a control frame
            self._in_message = not header[0] & _FIN
        self._left = size + length - len(held)
        return (None, held[given:]) if held[given:] else self._for_library()

    def _discard(self, opcode: Opcode) -> tuple[Opcode, bytes] | None:
        """Discard bytes of a message over the limit; return an empty message in its place when it has ended."""
        count = min(self._left, self._end - self._pos)
        self._left -= count
        self._advance(self._pos + count)
        if self._left:
            return None
        self._discarding = None
        return opcode, b""

    def _for_library(self) -> tuple[None, bytes] | None:
        """Return the next piece for the library, within the current frame."""
        assert self._data is not None
        size = min(self.piece_bytes, self._end - self._pos)
        if not self._broken:
            size = min(size, self._left)
            self._left -= size
        pos = self._pos
        data = self._data
        self._advance(pos + size)
        return None, bytes(data[pos : pos + size])

    def _advance(self, pos: int) -> None:
        if pos == self._end:
            self._data = None
        else:
            self._pos = pos


def _place(data: memoryview, pos: int, end: int) -> tuple[int, int]:
    """Return where the mask of the frame at `pos` begins and the length of its payload; too much: there is no header.

    The mask is not looked at: it may be that there is none.
    """
    if end - pos < _LONGEST:
        return pos, end
    length, at = data[pos + 1] & _LENGTH, pos + 2
    if length == 126:
        return at + 2, data[at] << 8 | data[at + 1]
    if length == 127:
        return at + 8, int.from_bytes(data[at : at + 8], "big")
    return at, length


def _header_of(header: bytes) -> tuple[int, int]:
    """Return the size of a header, mask included, and the payload length that it states, 0 while that is incomplete."""
    short = header[1] & _LENGTH if len(header) > 1 else 0
    more = {126: 2, 127: 8}.get(short, 0)
    if not more:
        return _SHORT_HEADER, short
    known = len(header) >= 2 + more
    return _SHORT_HEADER + more, int.from_bytes(header[2 : 2 + more], "big") if known else 0
