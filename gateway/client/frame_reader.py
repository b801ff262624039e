"""What a client sends, taken apart at the borders of WebSocket frames (RFC 6455 section 5.2). Pure.

A whole plain data frame (unfragmented, uncompressed, masked, within the size limit) of a client that is known is taken
out ready, in one pass over its bytes: that is nearly all that a camera sends. One of a client that is not known yet
and that is too long for such a one is passed over, and an empty message stands for it. Everything else is left to
websockets' `ServerProtocol`, byte for byte and in order, which so sees a stream that is as valid or broken as the
client's.
"""

from __future__ import annotations

from typing import Final

from websockets.frames import Opcode

from watchout.gateway import fastpath

try:
    from websockets.speedups import apply_mask
except ImportError:  # an installation without its C part
    from websockets.utils import apply_mask

#: Bytes that are read at once, shared by all connections: between two turns of the loop nothing is in it.
SCRATCH_BYTES: Final = 256 * 1024
#: A frame that is on its way has memory for this many bytes at first; it grows as the bytes come.
FIRST_BYTES: Final = 256 * 1024
#: Bytes that are read of a stranger at once, and may have to be kept while an answer is awaited.
STRANGER_READ_BYTES: Final = 16 * 1024

_FIN: Final = 0x80
_WHOLE: Final = {_FIN | int(opcode): opcode for opcode in (Opcode.TEXT, Opcode.BINARY)}
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_SHORT_HEADER: Final = 2 + 4
_LONGEST: Final = 2 + 8 + 4


class FrameReader:
    """The bytes of one client. Use: `buffer`, write into it, `received`, then `next` until it is None.

    What `next` has not given by the end of the loop's turn has to be kept with `keep`: `scratch` is shared.
    """

    __slots__ = (
        "_data", "_end", "_given", "_got", "_header", "_in_message", "_left", "_need", "_partial", "_pos", "_scratch",
        "_skipped", "_spoilt", "longest_bytes", "max_bytes", "piece_bytes", "trusted",
    )  # fmt: skip

    def __init__(self, scratch: memoryview, *, max_bytes: int, piece_bytes: int, longest_bytes: int = 0) -> None:
        self._scratch = scratch
        #: Largest payload that is taken out; a longer one is the protocol's to refuse.
        self.max_bytes = max_bytes
        #: Largest payload of a client that is not trusted that is passed over where it is over `max_bytes`.
        self.longest_bytes = longest_bytes
        #: Most bytes that the protocol gets at once.
        self.piece_bytes = piece_bytes
        #: Until then the protocol gets everything.
        self.trusted = False
        self._data: memoryview | None = None
        self._pos = self._end = 0
        #: Beginning of a frame whose header is not whole yet.
        self._header = b""
        #: Bytes of it that the protocol has already: the frame is not plain, whatever else it is.
        self._given = 0
        #: Bytes to come of a frame that is the protocol's.
        self._left = 0
        #: Whether they are passed over, and of what kind of message.
        self._skipped: Opcode | None = None
        #: A frame that will be taken out: its bytes so far, header included, and how many it has in all.
        self._partial: bytearray | None = None
        self._got = self._need = 0
        #: Between the first and the last frame of a fragmented message.
        self._in_message = False
        #: The stream is broken, its borders are not known any more: the protocol has said so, or will.
        self._spoilt = False

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def buffer(self) -> memoryview:
        """Where the next bytes are to be written; not empty."""
        partial, got = self._partial, self._got
        if partial is None or got == self._need:
            return self._scratch if self.trusted else self._scratch[:STRANGER_READ_BYTES]
        if got == len(partial):
            self._partial = bytearray(min(self._need, 2 * got))  # a new one: the loop may still hold a view of the old
            self._partial[:got] = partial
            partial = self._partial
        return memoryview(partial)[got:]

    def received(self, count: int) -> None:
        """So many bytes were written into `buffer`."""
        if self._partial is not None and self._got < self._need:
            self._got += count
        else:
            self.add(self._scratch[:count])

    def add(self, data: memoryview) -> None:
        """More bytes, that came another way; all before them must have been taken with `next` or kept."""
        if self._data is None:
            self._data, self._pos, self._end = data, 0, len(data)
        else:
            self._data = memoryview(bytes(self._data[self._pos : self._end]) + bytes(data))
            self._pos, self._end = 0, len(self._data)

    def keep(self) -> None:
        """Copy what is left, before `scratch` is used by another client."""
        if self._data is not None:
            self._data = memoryview(bytes(self._data[self._pos : self._end]))
            self._pos, self._end = 0, len(self._data)

    def close(self) -> None:
        """No more bytes come: let go of what is held."""
        self._data = self._partial = None
        self._header = b""
        self._got = self._need = self._left = 0
        self._skipped = None

    def plain(self, count: int, json_head: bytes, name: bytes, frame_id: int, now_ms: int) -> fastpath.Taken | None:
        """So many bytes were written into `buffer`; they are, or complete, just one plain frame: see `plain.Take`.

        None: ask `whole`.
        """
        if (
            fastpath.take is None
            or self._data is not None
            or self._left
            or self._header
            or not self.trusted
            or self._in_message
            or self._spoilt
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

    def whole(self, count: int) -> tuple[Opcode, bytes] | None:
        """So many bytes were written into `buffer`, and they are just one whole message: the usual case, at its price.

        None: they are something else, ask `next`.
        """
        if (
            self._data is None
            and self._partial is None
            and not self._left
            and not self._header
            and self.trusted
            and not self._in_message
            and not self._spoilt
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
        """Whether there are bytes that `next` has not looked at."""
        return self._data is not None or (self._partial is not None and self._got == self._need)

    @property
    def held_bytes(self) -> int:
        """What is kept here for this client alone."""
        kept = self._end - self._pos if self._data is not None else 0
        return kept + len(self._partial or b"") + len(self._header)

    @property
    def unfinished(self) -> bool:
        """Whether the client has begun a frame and not ended it."""
        return self._partial is not None or self._left > 0 or bool(self._header)

    def next(self) -> tuple[Opcode | None, bytes] | None:
        """A whole message with its opcode, or None and bytes for the protocol; None when there is nothing more now."""
        if self._partial is not None:
            return self._finish(self._partial)
        if self._data is None:
            return None
        if self._skipped is not None:
            return self._pass_over(self._skipped)
        if self._left or self._spoilt:
            return self._for_protocol()
        data, pos = self._data, self._pos
        if not self._header and self._end - pos >= _LONGEST:
            opcode = _WHOLE.get(data[pos])
            second = data[pos + 1]
            if opcode is not None and second & _MASKED and self.trusted and not self._in_message:
                length = second & _LENGTH
                at = pos + 2
                if length == 126:
                    length = data[at] << 8 | data[at + 1]
                    at += 2
                elif length == 127:
                    length = int.from_bytes(data[at : at + 8], "big")
                    at += 8
                if length <= self.max_bytes:
                    return self._take(opcode, at, length)
        return self._begin()

    def _take(self, opcode: Opcode, at: int, length: int) -> tuple[Opcode, bytes] | None:
        """A frame that is taken out, whose mask begins at `at`: now, or when it is whole."""
        assert self._data is not None
        data, begin = self._data, at + 4
        end = begin + length
        if end <= self._end:
            self._advance(end)
            return opcode, apply_mask(data[begin:end], bytes(data[at:begin]))
        pos, self._need = self._pos, end - self._pos
        self._got = self._end - pos
        partial = bytearray(max(self._got, min(self._need, FIRST_BYTES)))
        partial[: self._got] = data[pos : self._end]
        self._partial = partial
        self._advance(self._end)
        return None

    def _finish(self, partial: bytearray) -> tuple[Opcode, bytes] | None:
        if self._got < self._need:
            return None
        self._partial = None
        at = {126: 4, 127: 10}.get(partial[1] & _LENGTH, 2)
        whole = memoryview(partial)
        return _WHOLE[partial[0]], apply_mask(whole[at + 4 :], bytes(whole[at : at + 4]))

    def _begin(self) -> tuple[Opcode | None, bytes] | None:
        """The next frame, whatever it is; its header may come in pieces, and be wrong before it is whole."""
        assert self._data is not None
        held, given = self._header, self._given
        header = held + bytes(self._data[self._pos : min(self._end, self._pos + _LONGEST)])
        size, length = _header_of(header)
        second = header[1] if len(header) > 1 else _MASKED
        opcode = _WHOLE.get(header[0])
        data_message = opcode is not None and not self._in_message and not given
        ours = data_message and self.trusted
        too_long = data_message and not self.trusted and self.max_bytes < length <= self.longest_bytes
        self._spoilt = not second & _MASKED or (length > self.max_bytes and not too_long)
        if len(header) < size and not self._spoilt:
            self._advance(self._end)
            self._header = header
            if ours or len(header) < 2 or (data_message and self.longest_bytes):
                return None
            self._given = len(header)
            return None, header[given:]
        self._header, self._given = b"", 0
        if ours and opcode is not None and not self._spoilt:
            if held:  # rare: the border of two reads went through the header
                self._data = memoryview(held + bytes(self._data[self._pos : self._end]))
                self._pos, self._end = 0, len(self._data)
            return self._take(opcode, self._pos + size - 4, length)
        if too_long and opcode is not None and not self._spoilt:
            self._left, self._skipped = size + length - len(held), opcode
            return self._pass_over(opcode)
        if header[0] & 0x0F < 8:  # no control frame
            self._in_message = not header[0] & _FIN
        self._left = size + length - len(held)
        return (None, held[given:]) if held[given:] else self._for_protocol()

    def _pass_over(self, opcode: Opcode) -> tuple[Opcode, bytes] | None:
        """Let go of what came of a message that is not looked at; an empty one when it has ended."""
        count = min(self._left, self._end - self._pos)
        self._left -= count
        self._advance(self._pos + count)
        if self._left:
            return None
        self._skipped = None
        return opcode, b""

    def _for_protocol(self) -> tuple[None, bytes] | None:
        assert self._data is not None
        size = min(self.piece_bytes, self._end - self._pos)
        if not self._spoilt:
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


def _header_of(header: bytes) -> tuple[int, int]:
    """How many bytes this header has, mask included, and the length that it says, 0 while that is not whole."""
    short = header[1] & _LENGTH if len(header) > 1 else 0
    more = {126: 2, 127: 8}.get(short, 0)
    if not more:
        return _SHORT_HEADER, short
    known = len(header) >= 2 + more
    return _SHORT_HEADER + more, int.from_bytes(header[2 : 2 + more], "big") if known else 0
