"""One WebSocket: the bytes of a connection on one side, messages for its `ClientHandler` on the other.

It uses the receiving side and the control frames of websockets' sans-I/O `ServerProtocol`. Messages to clients are
written ready-made, as one buffer for all viewers (`gateway.wire`); rules about messages are in `client.protocol`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Final, cast

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from watchout.common import metric_names
from watchout.common.errors import CloseCode
from watchout.gateway.client.deflate import EXTENSIONS
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.client.handshake import HandshakeFault, one_form
from watchout.gateway.client.message_assembler import MessageAssembler, TooManyFragments
from watchout.gateway.client.socket_writer import SocketWriter
from watchout.gateway.client.unfinished import FREE_BYTES
from watchout.gateway.client.upgrade import NO_HANDSHAKE, UpgradeRefused, accept_upgrade, first_subprotocol, refusal
from watchout.gateway.closed_transport import CLOSED_TRANSPORT
from watchout.gateway.context import Context
from watchout.gateway.kernel_buffers import WRITE_HIGH_BYTES, limit_kernel_buffers
from watchout.gateway.progress import OVER_S, TransferProgress
from watchout.gateway.quotas import ConnectionSlot
from watchout.identity.credentials import SECURE_PREFIX

#: Largest message of an unauthenticated client that is processed, in bytes.
STRANGER_BYTES: Final = 64 * 1024
#: A longer message of an unauthenticated client, up to this size, is discarded as it arrives when it is uncompressed
#: and unfragmented: a publisher that sends a frame before its `auth` gets an error and stays connected.
STRANGER_LONGEST_BYTES: Final = 1 << 20
#: Memory of zlib for an unfinished compressed message, with a window of 32 KiB.
INFLATER_BYTES: Final = 44 * 1024
#: Bytes passed to the library at once: of an unauthenticated client, and of an authenticated one. The latter are mostly
#: compressed, and may inflate to a thousand times their size.
STRANGER_PIECE_BYTES: Final = 512
PIECE_BYTES: Final = 8192
#: Seconds that the peer has to answer a close frame before the connection is dropped.
CLOSE_TIMEOUT_S: Final = 3.0

_PING: Final = b"\x89\x00"


class WebSocket(SocketWriter, asyncio.BufferedProtocol):
    """The socket of one client, from its upgrade request until the connection is lost.

    Made by `ConnectionDispatcher`, which has read the head of the request; the event loop calls it from then on. While
    the handler waits for a reply, received messages are held back and reading is paused.

    Args:
        context: What the gateway's connections share.
        slot: How the connection counts in the limits; one that exceeds a limit is closed after the upgrade.
    """

    __slots__ = (
        "_aborter",
        "_assembler",
        "_deaf",
        "_feed_due",
        "_frame_reader",
        "_handler",
        "_held_bytes",
        "_inbox",
        "_limit",
        "_peer_ended",
        "_pinged_at",
        "_protocol",
        "_received",
        "_slot",
        "_unfinished",
        "_upgrading",
        "received_at",
    )  # fmt: skip

    def __init__(self, context: Context, slot: ConnectionSlot) -> None:
        super().__init__(context)
        self._slot = slot
        self._limit = slot.reached
        max_bytes = min(STRANGER_BYTES, context.settings.max_message_bytes)
        self._protocol = ServerProtocol(extensions=EXTENSIONS, max_size=max_bytes, select_subprotocol=first_subprotocol)
        #: None before the upgrade was accepted, and after the connection is lost.
        self._handler: ClientHandler | None = None
        self._assembler = MessageAssembler()
        #: Messages that are held back; None: none ever was.
        self._inbox: deque[tuple[Opcode, bytes]] | None = None
        #: Drops the connection when the peer does not answer the close.
        self._aborter: asyncio.TimerHandle | None = None
        self._peer_ended = self._upgrading = False
        #: Received bytes are discarded, because the client had too much unfinished.
        self._deaf = False
        #: Bytes that count in `context.unfinished`.
        self._held_bytes = 0
        self._frame_reader = FrameReader(
            context.scratch, max_bytes=max_bytes, piece_bytes=STRANGER_PIECE_BYTES,
            longest_bytes=min(STRANGER_LONGEST_BYTES, context.settings.max_message_bytes),
        )  # fmt: skip
        #: A call of `_feed` is due in a later turn (`context.turns`).
        self._feed_due = False
        #: Progress of the message that is unfinished now.
        self._unfinished: TransferProgress | None = None
        #: Bytes received so far, control frames not counted: what `_unfinished` measures.
        self._received = 0
        #: When bytes were received last, and when a ping was sent last; the loop's time in seconds.
        self.received_at = self._pinged_at = self._loop.time()

    # ── asyncio.Protocol ─────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from the dispatcher."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's classes do not inherit from asyncio's
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        limit_kernel_buffers(self._transport)
        self._context.sockets.add(self)

    def receive_head(self, head: bytes) -> None:
        """Process the head of the upgrade request, which the dispatcher has read and checked."""
        name = self._context.settings.session_cookie
        try:
            self._protocol.receive_data(one_form(head, (name, SECURE_PREFIX + name)))
        except HandshakeFault as fault:
            self._refuse(fault.status, fault.code, str(fault))
            return
        self._process_events()

    def receive_rest(self, data: bytes) -> None:
        """Keep bytes that the dispatcher has read after the head; they are processed after the upgrade."""
        self._frame_reader.add(memoryview(data))

    def eof_received(self) -> bool:
        """Handle the end of the peer's bytes; False lets the transport close."""
        self._begin_close()  # before the library's end of stream: nothing may be written after it
        if self._handler is not None and not self._deaf:
            self._peer_ended = True
            self._protocol.receive_eof()
            self._process_events()
        return False

    def pause_writing(self) -> None:
        """Queue frames and messages from now on: the kernel takes no more."""
        self._block()
        if self._handler is not None:
            self._handler.on_writing_paused()
        self._count_transport_bytes()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Release everything that the connection holds."""
        if self._lost:
            return
        self._lost = self.closing = True
        self._context.sockets.discard(self)
        if self._context.draining and not self._context.sockets:
            self._context.all_gone.set()
        self._slot.release()
        self._context.unfinished.release(self)
        self._context.waiting_frames.release(self)
        for timer in (self._window_timer, self._aborter):
            if timer is not None:
                timer.cancel()
        self._set_written()
        if self._handler is not None:
            self._handler.on_connection_lost()
        self._inbox = None
        self._assembler.clear()
        self._break_cycles()

    def _break_cycles(self) -> None:
        """Break the reference cycles around this socket, so that its memory is freed now and not by the collector.

        Handler, outbound queue and TLS transport refer to this socket; the library's generator refers to its protocol.
        """
        protocol = self._protocol
        protocol.parser.close()
        vars(protocol).pop("select_subprotocol", None)  # a bound method of the protocol
        for error in (protocol.parser_exc, protocol.handshake_exc):
            if error is not None:
                error.__traceback__ = error.__context__ = error.__cause__ = None
        self._outbound_queue.close()
        self._frame_reader.close()
        self._handler = None
        self._transport = CLOSED_TRANSPORT

    # ── asyncio.BufferedProtocol ─────────────────────────────────────────────────────────────────────────────────

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the memory that the next bytes are read into."""
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
            and handler.receive_plain(reader, nbytes, publication, self.received_at)
        ):
            self._unfinished = None
        elif (whole := reader.whole(nbytes)) is not None:
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
        while (item := reader.next()) is not None:
            opcode, data = item
            if opcode is None:
                self._protocol.receive_data(data)
                self._process_events()
            else:
                self._unfinished = None
                self._receive_message(opcode, data)
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

    @property
    def _user_id(self) -> str | None:
        return None if self._handler is None else self._handler.user_id

    # ── upgrade ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _process_events(self) -> None:
        """Process what the library has read: the upgrade request, or WebSocket frames that are not plain."""
        failed = self._protocol.handshake_exc or self._protocol.parser_exc
        if self._handler is None and failed is not None:
            self._refuse(HTTPStatus.BAD_REQUEST, "BAD_REQUEST", NO_HANDSHAKE)
            return
        events = self._protocol.events_received()
        for event in events:
            if isinstance(event, WebSocketFrame):
                if event.opcode is Opcode.PING and self._protocol.writes:  # write the pong in the ping's place
                    pong = self._protocol.writes.pop(0)
                    if not self.closing:  # after a close frame no other may be sent
                        self._write_control(pong)
                self._receive_frame(event)
                event.data = b""  # the library keeps its last frame until the next one
            elif isinstance(event, Request):
                self._upgrading = True
                self.hold_messages()
                self._context.tasks.start(self._upgrade(event), "handshake")
        if self._protocol.writes:  # after the events: a reply to a message goes before the answer to a close
            self._flush()
        if self._protocol.close_expected():
            self._begin_close()
            self._expect_close()

    async def _upgrade(self, request: Request) -> None:
        """Answer the upgrade request, and begin with the messages of an accepted client."""
        try:
            await self._accept(request)
        except UpgradeRefused as refused:
            self._refuse(refused.status, refused.code, str(refused))
        except Exception:
            if self._protocol.state is OPEN:
                self.close(CloseCode.INTERNAL, "the request failed here")
            else:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "the request failed here")
            raise

    async def _accept(self, request: Request) -> None:
        now = self._loop.time()
        response, path, signed_in = await accept_upgrade(
            self._context, self._protocol, request, self._transport, signs_in=self._limit is None
        )
        if self.closing:  # the client left meanwhile
            return
        self._protocol.send_response(response)
        self._flush()
        self._handler = ClientHandler.after_upgrade(self._context, self, path, signed_in, now)
        full = self._limit.what if self._limit is not None else None
        self._handler.begin(full=full, store_unavailable=signed_in.unavailable)
        self._upgrading = False
        self._feed()
        self.resume_messages()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Refuse the upgrade with an HTTP error, in any state of the library's protocol."""
        if self.closing:
            return
        self.closing = True
        self._transport.write(refusal(status, code, message))
        self._write_eof()  # not closed at once: with unread bytes the kernel would reset the connection
        self._expect_close()

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
                self._assembler.begin(opcode, bytes(event.data))
        elif opcode is Opcode.CONT:
            if self._assembler.is_open:
                self._receive_fragment(event)
        elif (opcode is Opcode.PING or opcode is Opcode.PONG) and handler is not None:
            self._received -= len(event.data)  # a control frame inside a message is no progress of the message
            handler.receive_control(len(event.data))  # an unsolicited pong costs as much as a ping

    def _receive_fragment(self, event: WebSocketFrame) -> None:
        """Process a further fragment of a message."""
        try:
            counts = self._assembler.append(event.data)
        except TooManyFragments:
            self.close(CloseCode.POLICY, "too many fragments")
            return
        if counts and self._handler is not None:
            self._handler.receive_control(0)
        if event.fin:
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

    # ── hub.streams.Viewer and PublisherSocket ───────────────────────────────────────────────────────────────────

    def on_permission_lost(self, stream: str) -> None:
        """End the subscription to a stream that this viewer may not receive any more."""
        if self._handler is not None:
            self._handler.on_permission_lost(stream)

    def on_taken_over(self, stream: str) -> None:
        """Close, because another socket registered the stream of this publisher."""
        if self._handler is not None:
            self._handler.on_taken_over(stream)

    # ── closing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def close_slow(self, reason: str | None = None) -> None:
        """Close a client that does not read its messages; the close code asks it to reconnect for them.

        `reason`: text of the error; None: the outbound queue is full.
        """
        if self.closing:
            return
        self._context.metrics.count(metric_names.CLOSED_SLOW)
        self._outbound_queue.blocked = False  # what still waits is not sent: the client is to reconnect
        self._outbound_queue.clear_messages()
        if self._handler is not None:
            self._handler.on_slow_consumer(reason)

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the messages that wait, then a close frame; drop the connection if the peer does not answer it."""
        if self.closing:
            return
        self._write_queued_messages()
        self._begin_close()
        if self._protocol.state is OPEN:
            self._protocol.send_close(int(code), reason)
            self._flush()
        self._expect_close()

    def _begin_close(self) -> None:
        """Process and send nothing more, and end what the client publishes and receives."""
        if not self.closing:
            self.closing = True
            self._inbox = None
            self._assembler.clear()
            self._set_written()
            if self._handler is not None:
                self._handler.leave()

    def _expect_close(self) -> None:
        """Read on until the peer closes, at most for `CLOSE_TIMEOUT_S`."""
        if self._aborter is None and not self._lost:
            self._set_reading(True)
            self._aborter = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _set_reading(self, on: bool) -> None:
        if self._lost or self._transport.is_closing():
            return
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _flush(self) -> None:
        """Write what the library has to send."""
        for data in self._protocol.data_to_send():
            self._write_control(data)

    # ── context.OpenSocket ───────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, now: float) -> None:
        """Ping a quiet client, close one that stalls or is gone, and report drops to the metrics."""
        idle_s = self._context.settings.idle_timeout_s
        if (
            self._unfinished is not None
            and not self.closing
            and not self._unfinished.keeps_up(self._received, now, waiting=True)
        ):
            self._context.metrics.count(metric_names.CLOSED_STALLED)
            if self._handler is not None:
                self._handler.on_message_timeout()
            else:
                self._transport.abort()
        elif now - self.received_at > idle_s:
            self._context.metrics.count(metric_names.CLOSED_IDLE)
            self._transport.abort()
        elif (
            now - max(self.received_at, self._pinged_at) > idle_s / 4
            and self._protocol.state is OPEN
            and not self.closing
        ):
            self._pinged_at = now
            self._transport.write(_PING)
        if self._handler is not None:
            self._handler.count_dropped()

    def end(self) -> None:
        """Close with the code that asks the client to reconnect, because the gateway restarts."""
        if self._handler is not None:
            self._handler.end()
        else:
            self._transport.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()
