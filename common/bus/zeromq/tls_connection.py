"""The sending end of a frame connection between hosts: it lets frames wait as soon as the peer falls behind."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq.echoes import Echoes
from watchout.common.bus.zeromq.frame_connection import FrameProtocol, FrameSender
from watchout.common.bus.zeromq.zmtp import command

#: Bytes that the TLS layer buffers beyond what the kernel has taken; one frame may exceed it.
WRITE_BYTES: Final = 64 << 10
#: Frames up to this size are written as one piece: each piece begins a TLS record of its own.
JOINED_BYTES: Final = 64 << 10
#: A look at the unanswered PINGs that comes later than this says nothing of the peer: this process was held up itself.
HELD_UP_S: Final = 1.0
#: A PING's time to live, which is not used, and its number.
_PING: Final = struct.Struct(">HQ")
_NUMBER: Final = struct.Struct(">Q")


class TlsFrameProtocol(FrameProtocol):
    """A PUSH connection over TLS, with PINGs between the frames (`Echoes`); made by `tls_sockets.dial`.

    Args:
        max_bytes: Largest message accepted of the peer, in bytes; a PULL sends commands only.
        sender: Its frames go over this connection once the peer is ready.
        lost: Called with this object when the connection is over.

    """

    def __init__(self, max_bytes: int, sender: FrameSender, lost: Callable[[FrameProtocol], None]) -> None:
        super().__init__(b"PUSH", max_bytes, ready=lambda made: made.attach(sender), lost=lost)
        self._echoes = Echoes()
        self._paused = False
        self._look_timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the write buffer, and send this end's greeting."""
        super().connection_made(transport)
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=WRITE_BYTES, low=WRITE_BYTES // 4)

    def write_frame(self, parts: Parts) -> None:
        """Write a frame, and a PING behind it when one is due."""
        size = sum(map(len, parts))
        now = self._loop.time()
        number = self._echoes.written(size, now)
        if number is not None:
            parts = (*parts, command(b"PING", _PING.pack(0, number)))
            if self._look_timer is None:
                self._look_later(self._echoes.max_behind_s)
        if size <= JOINED_BYTES:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)
        if self._echoes.behind:
            self.full = True

    def pause_writing(self) -> None:
        """The write buffer is full: frames wait in the queue of the sender."""
        self._paused = self.full = True

    def resume_writing(self) -> None:
        """The write buffer has room: send what waits, unless the peer is behind."""
        self._paused = False
        self._decide()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; frames that it had not written are lost."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        super().connection_lost(exc)

    def _on_echo(self, context: bytes) -> None:
        """The peer has taken everything up to a PING."""
        if len(context) == _NUMBER.size:
            self._echoes.answered(_NUMBER.unpack(context)[0], self._loop.time())
            self._decide()

    def _decide(self) -> None:
        """Send what waits, if frames may flow."""
        self.full = self._paused or self._echoes.behind
        if not self.full and self._sender is not None:
            self._sender.pump()

    def _look_later(self, delay_s: float) -> None:
        self._look_at = self._loop.time() + delay_s
        self._look_timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        """Decide by the time whether the peer is behind, or gone."""
        self._look_timer = None
        now = self._loop.time()
        if self._echoes.is_gone(now) and now - self._look_at < HELD_UP_S:
            self.fault = "the peer does not answer"
            self.transport.abort()
            return
        next_s = self._echoes.look(now)
        self._decide()
        if next_s is not None and self._look_timer is None:
            self._look_later(next_s)
