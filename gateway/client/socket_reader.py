"""The reading half of a client's socket: received bytes to complete messages for the handler, in fair turns."""

from __future__ import annotations

import abc
from collections import deque
from typing import Final

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from watchout.common.errors import CloseCode
from watchout.gateway.client.deflate import EXTENSIONS
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.client.message_assembler import MessageAssembler, TooManyFragments
from watchout.gateway.client.socket_writer import ClientSocketWriter
from watchout.gateway.client.unfinished import FREE_BYTES
from watchout.gateway.client.upgrade import first_subprotocol
from watchout.gateway.context import Context
from watchout.gateway.progress import OVER_S, TransferProgress
from watchout.gateway.quotas import ConnectionSlot

#: Largest message of an unauthenticated client that is processed, in bytes.
UNAUTHENTICATED_BYTES: Final = 64 * 1024
#: A longer message of an unauthenticated client, up to this size, is discarded as it arrives when it is uncompressed
#: and unfragmented: a publisher that sends a frame before its `auth` gets an error and stays connected.
UNAUTHENTICATED_LONGEST_BYTES: Final = 1 << 20
#: Memory of zlib for an unfinished compressed message, with a window of 32 KiB.
INFLATER_BYTES: Final = 44 * 1024
#: Bytes passed to the library at once: of an unauthenticated client, and of an authenticated one. The latter are mostly
#: compressed, and may inflate to a thousand times their size.
UNAUTHENTICATED_PIECE_BYTES: Final = 512
PIECE_BYTES: Final = 8192


class ClientSocketReader(ClientSocketWriter):
    """Reads the messages of one client; base class of `WebSocket`, which does the upgrade and the closing.

    While the handler waits for a reply, received messages are held back and reading is paused.

    Args:
        context: What the gateway's connections share.
        slot: How the connection counts in the limits.
    """

    __slots__ = (
        "_assembler",
        "_deaf",
        "_feed_due",
        "_frame_reader",
        "_handler",
        "_held_bytes",
        "_inbox",
        "_peer_ended",
        "_protocol",
        "_received",
        "_slot",
        "_unfinished",
        "_upgrading",
        "received_at",
    )

    def __init__(self, context: Context, slot: ConnectionSlot) -> None:
        super().__init__(context)
        self._slot = slot
        max_bytes = min(UNAUTHENTICATED_BYTES, context.settings.max_message_bytes)
        self._protocol = ServerProtocol(extensions=EXTENSIONS, max_size=max_bytes, select_subprotocol=first_subprotocol)
        #: None before the upgrade was accepted, and after the connection is lost.
        self._handler: ClientHandler | None = None
        self._assembler = MessageAssembler()
        #: Messages that are held back; None: none ever was.
        self._inbox: deque[tuple[Opcode, bytes]] | None = None
        #: The peer sends no more; an upgrade request is being answered.
        self._peer_ended = self._upgrading = False
        #: Received bytes are discarded, because the client had too much unfinished.
        self._deaf = False
        #: Bytes that count in `context.unfinished`.
        self._held_bytes = 0
        self._frame_reader = FrameReader(
            context.scratch, max_bytes=max_bytes, piece_bytes=UNAUTHENTICATED_PIECE_BYTES,
            longest_bytes=min(UNAUTHENTICATED_LONGEST_BYTES, context.settings.max_message_bytes),
        )  # fmt: skip
        #: A call of `_feed` is due in a later turn (`context.turns`).
        self._feed_due = False
        #: Progress of the message that is unfinished now.
        self._unfinished: TransferProgress | None = None
        #: Bytes received so far, control frames not counted: what `_unfinished` measures.
        self._received = 0
        #: When bytes were received last; the loop's time in seconds.
        self.received_at = self._loop.time()

    @abc.abstractmethod
    def close(self, code: CloseCode, reason: str) -> None:
        """Send the messages that wait, then a close frame."""

    @abc.abstractmethod
    def _process_events(self) -> None:
        """Process what the library has read."""

    @property
    def _user_id(self) -> str | None:
        return None if self._handler is None else self._handler.user_id

    # ── asyncio.BufferedProtocol ─────────────────────────────────────────────────────────────────────────────────

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the memory that the next bytes are read into."""
        unfinished = self._context.unfinished
        if unfinished.is_filling and (user := self._user_id) is not None:
            return self._frame_reader.buffer(unfinished.most_to_read(user))
        return self._frame_reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Process `nbytes` that were read into the buffer: at once if they are one whole message, else in turns."""
        self.received_at = self._loop.time()
        if self._wrote_eof or self._deaf:
            return
        self._received += nbytes
        reader, handler = self._frame_reader, self._handler
        if (
            handler is not None
            and (publication := handler.publication) is not None
            and not self.closing
            and handler.receive_plain(
                reader,
                nbytes,
                publication,
                self.received_at,
                self.received_at if self._unfinished is None else self._unfinished.began_at,
            )
        ):  # nothing is left of what came
            self._unfinished = None
            if self._held_bytes:
                self._count_unfinished()
            return
        if (whole := reader.whole(nbytes)) is not None:
            self._unfinished = None
            self._receive_message(*whole)
        elif self._upgrading or self._inbox or self._feed_due:  # bounded: reading is paused
            reader.keep()
        elif self._handler is not None and self._context.turns.is_over:
            reader.keep()
            self.hold_messages()
            self._feed_later()
        else:
            self._feed()
        if self._held_bytes or reader.unfinished or reader.waiting or self._assembler.is_open:
            self._count_unfinished()

    def _feed(self) -> None:
        """Process received bytes until this turn of the loop is over.

        Tiny frames and compressed ones cost much more time than their size suggests: clients take turns with them.
        """
        reader, turns = self._frame_reader, self._context.turns
        while self._process_next():
            if self._wrote_eof:
                return
            if reader.waiting:
                # After a pending reply the client may be trusted with larger messages: its bytes wait for it too.
                waits = self._inbox or (self._handler is not None and self._handler.is_waiting)
                if waits or turns.is_over:
                    reader.keep()
                    self.hold_messages()
                    if not waits:
                        self._feed_later()
                    return
        if reader.unfinished or self._assembler.is_open:
            if self._unfinished is None:
                self._unfinished = TransferProgress(OVER_S, self._received, self.received_at)
        else:
            self._unfinished = None

    def _process_next(self) -> bool:
        """Process the next message, or the next bytes for the library; return False when more bytes are needed."""
        reader, handler = self._frame_reader, self._handler
        if (
            handler is not None
            and (publication := handler.publication) is not None
            and not self.closing
            and not handler.is_waiting
            and not self._inbox
            and handler.receive_next_plain(reader, publication, self.received_at)
        ):
            self._unfinished = None
            return True
        if (item := reader.next()) is None:
            return False
        opcode, data = item
        if opcode is None:
            self._protocol.receive_data(data)
            self._process_events()
        else:
            self._unfinished = None
            self._receive_message(opcode, data)
        return True

    def _feed_later(self) -> None:
        if not self._feed_due:
            self._feed_due = True
            self._context.turns.enqueue(self._user_id, self._feed_in_turn)

    def _feed_in_turn(self) -> None:
        self._feed_due = False
        if not self._lost and not self._peer_ended and not self._deaf:
            self._feed()
            self.resume_messages()
            if self._held_bytes or self._frame_reader.unfinished:
                self._count_unfinished()

    def _count_unfinished(self) -> None:
        """Count the memory of what this client has begun and not finished; a client with too much is evicted."""
        held = (
            self._frame_reader.held_bytes
            + len(self._protocol.reader.buffer)
            + sum(len(d) for _, d in self._inbox or ())
        )
        if self._assembler.is_open:
            held += self._assembler.held_bytes + (INFLATER_BYTES if self._protocol.extensions else 0)
        held = held if held > FREE_BYTES and not self._lost else 0
        if held != self._held_bytes:
            self._held_bytes = held
            self._context.unfinished.hold(self, self._user_id, held)

    def give_way(self) -> None:
        """Discard what is unfinished and close; called by `Unfinished` when a budget is exceeded."""
        self._held_bytes = 0
        self.close(CloseCode.TRY_LATER, "too many unfinished bytes here, try again")
        self._deaf = True
        self._inbox = None
        self._assembler.clear()
        self._frame_reader.close()
        self._protocol.parser.close()
        self._protocol.reader.buffer.clear()
        self._protocol.extensions = []

    # ── messages of the client ───────────────────────────────────────────────────────────────────────────────────

    def _receive_frame(self, event: WebSocketFrame) -> None:
        """Process a WebSocket frame that the library has read."""
        if self.closing:
            return
        opcode, handler = event.opcode, self._handler
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if event.fin:
                self._unfinished = None
                self._receive_message(opcode, bytes(event.data))
            else:
                self._assembler.begin(opcode, bytes(event.data), self._frame_reader.count_first_fragment())
        elif opcode is Opcode.CONT:
            if self._assembler.is_open:
                self._receive_fragment(event)
        elif (opcode is Opcode.PING or opcode is Opcode.PONG) and handler is not None:
            self._received -= len(event.data)  # a control frame inside a message is no progress of the message
            handler.receive_control(len(event.data))  # an unsolicited pong costs as much as a ping
            if opcode is Opcode.PONG:
                handler.on_pong(bytes(event.data))

    def _receive_fragment(self, event: WebSocketFrame) -> None:
        """Process a further fragment of a message."""
        try:
            counts = self._assembler.append(event.data)
        except TooManyFragments:
            self.close(CloseCode.POLICY, "too many fragments")
            return
        if counts and self._handler is not None:
            self._handler.receive_control(0)  # may close the socket, which discards the message
        if event.fin and not self.closing:
            self._unfinished = None
            opcode, data = self._assembler.opcode, self._assembler.finish()
            self._receive_message(opcode, data)

    def _receive_message(self, opcode: Opcode, data: bytes) -> None:
        """Pass a complete message to the handler, or hold it back while a reply is pending."""
        if self.closing:
            return
        handler = self._handler
        if handler is None or handler.is_waiting or self._inbox:
            # Bounded by one read of the transport, because reading is paused.
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append((opcode, data))
            self.hold_messages()
            return
        handler.receive(data, self.received_at, text=opcode is Opcode.TEXT)

    def hold_messages(self) -> None:
        """Stop reading, and hold back received messages until `resume_messages`."""
        self._set_reading(False)

    def resume_messages(self) -> None:
        """Process the messages that were held back, and read on, unless another reply is pending."""
        handler = self._handler
        if handler is None:
            return
        while self._inbox and not handler.is_waiting and not self.closing:
            opcode, data = self._inbox.popleft()
            handler.receive(data, self._loop.time(), text=opcode is Opcode.TEXT)
        if not self._inbox and not handler.is_waiting:
            if self._frame_reader.waiting:
                self._feed_later()
            else:
                self._set_reading(True)

    def on_authenticated(self) -> None:
        """Raise the limits of an unauthenticated client to those of the settings."""
        self._slot.mark_authenticated()
        self._protocol.max_message_size = self._frame_reader.max_bytes = self._context.settings.max_message_bytes
        self._frame_reader.piece_bytes = PIECE_BYTES
        self._frame_reader.trusted = True

    def _set_reading(self, on: bool) -> None:
        if self._lost or self._transport.is_closing():
            return
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
