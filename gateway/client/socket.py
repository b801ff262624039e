"""One WebSocket: the bytes of a socket on one side, a `ClientProtocol` on the other. Decides nothing.

The protocol is websockets' sans-I/O `ServerProtocol`; only its receiving side and its control frames are used. What
goes to clients is written ready-made, one buffer for all viewers (`gateway.wire`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, cast

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from watchout.common import log, metric_names
from watchout.common.clock import now_ms
from watchout.common.errors import CloseCode
from watchout.common.media.frames import Frame, FrameFault
from watchout.gateway import wire
from watchout.gateway.client.deflate import EXTENSIONS
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.client.handshake import HandshakeFault, one_form, path_and_query
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.client.unfinished import FREE_BYTES
from watchout.gateway.closed_transport import CLOSED_TRANSPORT
from watchout.gateway.context import Context
from watchout.gateway.error_response import SERVER, error_response
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.subscription import UNACKED_EVERY_S, DropReason, Subscription
from watchout.gateway.kernel_buffers import WRITE_HIGH_BYTES, limit_kernel_buffers, shares_writes
from watchout.gateway.progress import OVER_S, TransferProgress
from watchout.gateway.quotas import ConnectionSlot
from watchout.gateway.requests.sign_in import BAD_TOKEN, Sender, SignedIn, sign_in
from watchout.identity.credentials import SECURE_PREFIX

#: Largest message of a client that has not authenticated that is looked at.
STRANGER_BYTES: Final = 64 * 1024
#: A longer one up to this size that comes whole and uncompressed is passed over, and nothing of it is kept: a camera
#: that sends a frame before its `auth` is told so and stays.
STRANGER_LONGEST_BYTES: Final = 1 << 20
#: What zlib keeps of an unfinished compressed message, with a window of 32 KiB.
INFLATER_BYTES: Final = 44 * 1024
#: Bytes that the protocol gets at once: of a stranger, and of somebody known, from whom they are compressed mostly and
#: may be a thousand times as long as they look.
STRANGER_PIECE_BYTES: Final = 512
PIECE_BYTES: Final = 8192
#: First byte of a pong frame.
PONG_BYTE: Final = 0x8A
#: After a close was sent, the peer has this long to answer it.
CLOSE_TIMEOUT_S: Final = 3.0
#: Most fragments of one message (the flaw of CVE-2026-48779: a fragment costs more than its bytes).
MAX_FRAGMENTS: Final = 131_072
#: So many fragments count as one message for the rates.
FRAGMENTS_A_MESSAGE: Final = 16

_NO_HANDSHAKE: Final = "not a WebSocket handshake that can be accepted (RFC 6455)"
_PING: Final = b"\x89\x00"

_log = log.get("gateway.client.socket")


class WebSocket(asyncio.BufferedProtocol):
    """One client's socket, from the handshake on. `place` is what it takes of the limits of connections."""

    __slots__ = (
        "_aborter",
        "_assembling",
        "_assembling_opcode",
        "_context",
        "_deaf",
        "_drained",
        "_feed_due",
        "_fragments",
        "_frame_reader",
        "_full",
        "_handler",
        "_heard_eof",
        "_held",
        "_inbox",
        "_late_pong",
        "_loop",
        "_lost",
        "_outbound_queue",
        "_pinged_at",
        "_place",
        "_protocol",
        "_received",
        "_shaking",
        "_transport",
        "_unfinished",
        "_window_timer",
        "_wrote_eof",
        "closing",
        "heard_at",
    )  # fmt: skip

    def __init__(self, context: Context, place: ConnectionSlot) -> None:
        self._context = context
        self._place = place
        self._full = place.reached
        self._loop = asyncio.get_running_loop()
        max_bytes = min(STRANGER_BYTES, context.settings.max_message_bytes)
        self._protocol = ServerProtocol(extensions=EXTENSIONS, max_size=max_bytes, select_subprotocol=_first)
        self._outbound_queue = OutboundQueue(context.settings, self._encode_late, context.waiting_frames)
        self._transport: asyncio.Transport
        self._handler: ClientHandler | None = None
        #: The fragments of a message so far; the first alone as it came, because a copy of it may be large.
        self._assembling: bytearray | bytes | None = None
        self._assembling_opcode = Opcode.TEXT
        self._fragments = 0
        self._inbox: deque[tuple[Opcode, bytes]] | None = None
        self._window_timer: asyncio.TimerHandle | None = None
        self._aborter: asyncio.TimerHandle | None = None
        #: From now on nothing is written but what ends the connection.
        self.closing = False
        self._lost = self._heard_eof = self._wrote_eof = self._shaking = False
        #: Had too much unfinished: what comes is not looked at.
        self._deaf = False
        #: Bytes that count against `context.unfinished`.
        self._held = 0
        self._frame_reader = FrameReader(
            context.scratch, max_bytes=max_bytes, piece_bytes=STRANGER_PIECE_BYTES,
            longest_bytes=min(STRANGER_LONGEST_BYTES, context.settings.max_message_bytes),
        )  # fmt: skip
        self._feed_due = False
        self._late_pong = b""
        self._unfinished: TransferProgress | None = None
        self._received = 0
        self._drained: asyncio.Future[None] | None = None
        self.heard_at = self._pinged_at = self._loop.time()

    # ── asyncio.Protocol ─────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from the listener."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        limit_kernel_buffers(self._transport)
        self._context.sockets.add(self)

    def head_received(self, head: bytes) -> None:
        """The head of the handshake, which the listener has read."""
        name = self._context.settings.session_cookie
        try:
            self._protocol.receive_data(one_form(head, (name, SECURE_PREFIX + name)))
        except HandshakeFault as fault:
            self._refuse(fault.status, fault.code, str(fault))
            return
        self._pump()

    def more_received(self, data: bytes) -> None:
        """What the listener has read beyond the head: it is heard after the handshake."""
        self._frame_reader.add(memoryview(data))

    # ── asyncio.BufferedProtocol ─────────────────────────────────────────────────────────────────────────────────

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go."""
        return self._frame_reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self.heard_at = self._loop.time()
        if self._wrote_eof or self._deaf:
            return
        self._received += nbytes
        intake, handler = self._frame_reader, self._handler
        if (
            handler is not None
            and (camera := handler.publication) is not None
            and not self.closing
            and handler.hear_plain(intake, nbytes, camera, self.heard_at)
        ):
            self._unfinished = None
        elif (whole := intake.whole(nbytes)) is not None:
            self._unfinished = None
            self._message(*whole)
        elif self._shaking or self._inbox or self._feed_due:  # bounded: reading is paused
            intake.keep()
        elif self._handler is not None and self._context.turns.is_over:
            intake.keep()
            self.hold()
            self._feed_soon()
        else:
            self._feed()
        if self._held or intake.unfinished or intake.waiting or self._assembling is not None:
            self._account()

    def _account(self) -> None:
        """Count what this client has begun and not finished; somebody who has too much gives way."""
        held = (
            self._frame_reader.held_bytes
            + len(self._protocol.reader.buffer)
            + sum(len(d) for _, d in self._inbox or ())
        )
        if self._assembling is not None:
            held += len(self._assembling) + (INFLATER_BYTES if self._protocol.extensions else 0)
        held = held if held > FREE_BYTES and not self._lost else 0
        if held != self._held:
            self._held = held
            identity = self._handler.session.identity if self._handler is not None else None
            self._context.unfinished.hold(self, None if identity is None else identity.user_id, held)

    def give_way(self) -> None:
        """Too much is unfinished, and this client has the most of it: let go of that, and let it come back."""
        self._held = 0
        self.close(CloseCode.TRY_LATER, "too much is unfinished here, try again")
        self._deaf = True
        self._assembling = self._inbox = None
        self._frame_reader.close()
        self._protocol.parser.close()
        self._protocol.reader.buffer.clear()
        self._protocol.extensions = []

    def _feed(self) -> None:
        """Hand on what came, for a while: frames of six bytes, or compressed ones, may cost more than they look."""
        intake, turns = self._frame_reader, self._context.turns
        while (item := intake.next()) is not None:
            opcode, data = item
            if opcode is None:
                self._protocol.receive_data(data)
                self._pump()
            else:
                self._unfinished = None
                self._message(opcode, data)
            if self._wrote_eof:
                return
            if intake.waiting:
                waits = self._inbox or self._awaits()
                if waits or turns.is_over:
                    intake.keep()
                    self.hold()
                    if not waits:
                        self._feed_soon()
                    return
        if intake.unfinished or self._assembling is not None:
            if self._unfinished is None:
                self._unfinished = TransferProgress(OVER_S, self._received, self.heard_at)
        else:
            self._unfinished = None

    def _awaits(self) -> bool:
        """Whether an answer is awaited, after which the client may be trusted with more."""
        return self._handler is not None and self._handler.session.waiting is not None

    def _feed_soon(self) -> None:
        if not self._feed_due:
            self._feed_due = True
            identity = self._handler.session.identity if self._handler is not None else None
            self._context.turns.ask(None if identity is None else identity.user_id, self._fed)

    def _fed(self) -> None:
        self._feed_due = False
        if not self._lost and not self._heard_eof and not self._deaf:
            self._feed()
            self.resume()
            if self._held or self._frame_reader.unfinished:
                self._account()

    def eof_received(self) -> bool:
        """The peer will send no more."""
        self._ending()  # before the protocol's own end of stream: nothing may be written after it
        if self._handler is not None and not self._deaf:
            self._heard_eof = True
            self._protocol.receive_eof()
            self._pump()
        return False

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._outbound_queue.blocked = True
        if self._handler is not None:
            for subscription in self._handler.session.subscriptions():
                self._context.hub.delivery.stop_direct_writes(subscription)
        self._count_kept()

    def _count_kept(self) -> None:
        """Count what the transport keeps for this client, which it has not taken."""
        identity = self._handler.session.identity if self._handler is not None else None
        size, body = self._transport.get_write_buffer_size(), self._context.hub.delivery.writing
        if not size or identity is None or self.closing:
            return
        if body is not None and shares_writes(self._transport, self._loop):
            self._context.waiting_frames.hold(self, identity.user_id, body, len(body))
        else:
            self._context.waiting_frames.hold(self, identity.user_id, self, size)

    def on_frame_evicted(self) -> None:
        """The frame of which this client has taken a part gives way to those of others: end it, to come back."""
        if not self._lost:
            self._context.metrics.count(metric_names.CLOSED_SLOW)
            _log.info("viewer closed, it did not take its frame, and too many wait")
            self._transport.abort()  # nothing can be said in the middle of a frame

    def resume_writing(self) -> None:
        """The kernel took what there was."""
        self._outbound_queue.blocked = False
        self._context.waiting_frames.release(self)
        if self._late_pong and not self.closing:
            self._transport.write(self._late_pong)
        self._late_pong = b""
        self.drain()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        if self._lost:
            return
        self._lost = self.closing = True
        self._context.sockets.discard(self)
        if self._context.draining and not self._context.sockets:
            self._context.all_gone.set()
        self._place.release()
        self._context.unfinished.release(self)
        self._context.waiting_frames.release(self)
        for timer in (self._window_timer, self._aborter):
            if timer is not None:
                timer.cancel()
        self._tell_drained()
        if self._handler is not None:
            self._handler.gone()
        self._inbox = self._assembling = None
        self._let_go()

    def _let_go(self) -> None:
        """Break the circles of references around this socket, so that its memory is free now and not at a garbage
        collection: the conversation, the lanes and a TLS transport point back here, and the protocol's generator at
        the protocol.
        """
        protocol = self._protocol
        protocol.parser.close()
        vars(protocol).pop("select_subprotocol", None)  # a bound method of its own
        for error in (protocol.parser_exc, protocol.handshake_exc):
            if error is not None:
                error.__traceback__ = error.__context__ = error.__cause__ = None
        self._outbound_queue.close()
        self._frame_reader.close()
        self._handler = None
        self._transport = CLOSED_TRANSPORT

    # ── handshake ────────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        failed = self._protocol.handshake_exc or self._protocol.parser_exc
        if self._handler is None and failed is not None:
            self._refuse(400, "BAD_REQUEST", _NO_HANDSHAKE)
            return
        events = self._protocol.events_received()
        for event in events:
            if isinstance(event, WebSocketFrame):
                if event.opcode is Opcode.PING and self._protocol.writes:  # the pong stands where the ping stood
                    pong = self._protocol.writes.pop(0)
                    if not self.closing:  # after a close there is nothing more to say
                        self._write(pong)
                self._frame_event(event)
                event.data = b""  # the library keeps its last frame until the next one comes
            elif isinstance(event, Request):
                self._shaking = True
                self.hold()
                self._context.tasks.start(self._shake_hands(event), "handshake")
        if self._protocol.writes:  # after the events: an answer to a message goes before the answer to a close
            self._flush()
        if self._protocol.close_expected():
            self._ending()
            self._expect_close()

    async def _shake_hands(self, request: Request) -> None:
        try:
            await self._handshake(request)
        except Exception:
            if self._protocol.state is OPEN:
                self.close(CloseCode.INTERNAL, "the request failed here")
            else:
                self._refuse(500, "INTERNAL_ERROR", "the request failed here")
            raise

    async def _handshake(self, request: Request) -> None:
        now = self._loop.time()
        path, query = path_and_query(request.path)
        response = self._protocol.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response.status_code, "BAD_REQUEST", _NO_HANDSHAKE)
            return
        response.headers["Server"] = SERVER
        signed_in = SignedIn()
        if self._full is None:
            try:
                signed_in = await sign_in(self._context, self._sender(request, query), handshake=True)
            except ValueError as error:
                self._refuse(400, "BAD_REQUEST", str(error))
                return
        if signed_in.refused:
            self._refuse(401, "AUTH_FAILED", BAD_TOKEN)
            return
        if self.closing:  # the client did not wait
            return
        self._protocol.send_response(response)
        self._flush()
        session = ClientProtocol(
            path,
            self._context.settings,
            self._context.authorization,
            now=now,
            stream_ids=self._context.stream_ids,
            identity=signed_in.identity,
            ignored=signed_in.ignored,
        )
        self._handler = ClientHandler(self._context, self, session)
        full = self._full.what if self._full is not None else None
        self._handler.begin(refused=full, store_away=signed_in.unavailable)
        self._shaking = False
        self._feed()
        self.resume()

    def _sender(self, request: Request, query: str) -> Sender:
        peer = self._transport.get_extra_info("peername")
        secure = self._transport.get_extra_info("sslcontext") is not None
        return Sender(request.headers.get_all, query, str(peer[0]) if peer else "", secure)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """End the handshake with an HTTP error, whatever state the protocol is in."""
        if self.closing:
            return
        self.closing = True
        headers = {"Sec-WebSocket-Version": "13"}  # RFC 6455 section 4.4
        if status == HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110 section 15.5.22
            headers |= {"Upgrade": "websocket", "Connection": "Upgrade, close"}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        self._transport.write(error_response(status, code, message, headers))
        self._write_eof()  # not closed at once: unread bytes would make the kernel drop the answer
        self._expect_close()

    # ── messages in ──────────────────────────────────────────────────────────────────────────────────────────────

    def _frame_event(self, event: WebSocketFrame) -> None:
        if self.closing:
            return
        opcode, handler = event.opcode, self._handler
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if event.fin:
                self._unfinished = None
                self._message(opcode, bytes(event.data))
            else:
                self._assembling = bytes(event.data)
                self._assembling_opcode = opcode
                self._fragments = 1
        elif opcode is Opcode.CONT:
            if self._assembling is not None:
                self._continue(self._assembling, event)
        elif (opcode is Opcode.PING or opcode is Opcode.PONG) and handler is not None:
            self._received -= len(event.data)  # no progress of a message that it stands in
            handler.ping(len(event.data))  # a pong that nobody asked for costs as much

    def _continue(self, assembling: bytearray | bytes, event: WebSocketFrame) -> None:
        if isinstance(assembling, bytes):
            assembling = self._assembling = bytearray(assembling)
        assembling += event.data
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS:
            self._assembling = None
            self.close(CloseCode.POLICY, "too many fragments")
            return
        if self._fragments % FRAGMENTS_A_MESSAGE == 0 and self._handler is not None:
            self._handler.ping(0)
        if event.fin:
            self._assembling = None
            self._unfinished = None
            self._message(self._assembling_opcode, bytes(assembling))

    def _message(self, opcode: Opcode, data: bytes) -> None:
        if self.closing:
            return
        handler = self._handler
        if handler is None or handler.session.waiting is not None or self._inbox:
            # Bounded: reading is paused, so this is no more than one turn of reading brought.
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append((opcode, data))
            self.hold()
            return
        handler.hear(data, self.heard_at, text=opcode is Opcode.TEXT)

    def hold(self) -> None:
        """Read no more: an answer is awaited."""
        self._read(False)

    def resume(self) -> None:
        """The answer is there: hear what was held back, and read on."""
        handler = self._handler
        if handler is None:
            return
        while self._inbox and handler.session.waiting is None and not self.closing:
            opcode, data = self._inbox.popleft()
            handler.hear(data, self._loop.time(), text=opcode is Opcode.TEXT)
        if not self._inbox and handler.session.waiting is None:
            if self._frame_reader.waiting:
                self._feed_soon()
            else:
                self._read(True)

    # ── hub.streams.Viewer and PublisherSocket ───────────────────────────────────────────────────────────────────────

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """A frame for this viewer, if its lanes take it."""
        if self.closing:
            return
        if subscription.format == "binary" and not frame.has_binary:  # it replaces no picture that waits
            subscription.drop(DropReason.UNDECODABLE)
            self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
            self._context.router.undecodable(frame, frame.fault, now_ms())
            return
        if self._outbound_queue.offer_frame(subscription, frame, now):
            encoded = frame.json_wire if subscription.format == "json" else frame.binary_wire
            if encoded is None and (encoded := self._encode(subscription, frame)) is None:
                subscription.mark_undecodable()
                return
            self._count_out(encoded)
            self._write_whole(encoded)
            if subscription.sampler is None and subscription.window is None and not self._outbound_queue.blocked:
                self._context.hub.delivery.start_direct_writes(subscription, self._transport.write)
        elif subscription.waiting_frame is not None:
            self._arm_window_timer()

    def send_message(self, message: bytes) -> None:
        """An answer, alert or status for this client."""
        if self.closing:
            return
        if wire.is_error(message):
            self._context.metrics.count(metric_names.CLIENT_ERRORS)
        try:
            write = self._outbound_queue.offer_message(message)
        except OutboundQueueFull as full:
            _log.info("viewer closed, its alert lane is full", messages=full.messages, bytes=full.pending_bytes)
            self.too_slow()
            return
        if write:
            self._transport.write(message)

    def on_permission_lost(self, stream: str) -> None:
        """This viewer may watch a stream no more."""
        if self._handler is not None:
            self._handler.right_lost(stream)

    def on_taken_over(self, stream: str) -> None:
        """Another socket has this camera's stream."""
        if self._handler is not None:
            self._handler.taken_over(stream)

    # ── lanes and closing ────────────────────────────────────────────────────────────────────────────────────────

    def _encode(self, subscription: Subscription, frame: Frame) -> bytes | None:
        try:
            return wire.frame_message(frame, subscription.format)
        except FrameFault as fault:
            self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
            self._context.router.undecodable(frame, str(fault), now_ms())
            return None

    def _encode_late(self, subscription: Subscription, frame: Frame) -> bytes | None:
        """The bytes of a frame that has waited, which goes out now."""
        encoded = self._encode(subscription, frame)
        if encoded is not None:
            self._count_out(encoded)
        return encoded

    def _count_out(self, encoded: bytes) -> None:
        delivery = self._context.hub.delivery
        delivery.frames_out += 1
        delivery.frame_bytes_out += len(encoded)

    def drain(self) -> None:
        """Write what waits, as far as the socket and the windows take it."""
        now = self._loop.time()
        while not self._outbound_queue.blocked and not self.closing:  # after a close nothing is written
            waiting = self._outbound_queue.next(now)
            if waiting is None:
                break
            self._write_whole(waiting)
        if self._outbound_queue.depth[1]:
            self._arm_window_timer()
        if not self._outbound_queue.blocked:
            self._tell_drained()

    def _arm_window_timer(self) -> None:
        """A frame waits for the window: it goes out in a while even when no `ack` comes."""
        if self._window_timer is None and not self._outbound_queue.blocked and not self.closing:
            self._window_timer = self._loop.call_later(UNACKED_EVERY_S, self._window_due)

    def _window_due(self) -> None:
        self._window_timer = None
        self.drain()

    def trust(self) -> None:
        """The client is authenticated: its messages may be as large as the setting says."""
        self._place.mark_authenticated()
        self._protocol.max_message_size = self._frame_reader.max_bytes = self._context.settings.max_message_bytes
        self._frame_reader.piece_bytes = PIECE_BYTES
        self._frame_reader.trusted = True

    async def drained(self) -> None:
        """Wait until no message waits for this client, or the client is gone."""
        while not self.closing and (self._outbound_queue.blocked or self._outbound_queue.depth[0]):
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def _tell_drained(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def drop(self, subscription: Subscription) -> None:
        """What waits for this subscription is not wanted any more."""
        self._outbound_queue.remove(subscription)

    def too_slow(self, why: str | None = None) -> None:
        """This client does not take its alerts: end it, and let it come back for them."""
        if self.closing:
            return
        self._context.metrics.count(metric_names.CLOSED_SLOW)
        self._outbound_queue.blocked = False  # what still waits is not sent: the code tells the client to come back
        self._outbound_queue.clear_messages()
        if self._handler is not None:
            self._handler.run(self._handler.session.slow(now_ms(), why))

    def close(self, code: CloseCode, reason: str) -> None:
        """Send what still waits in the message lane, then the close."""
        if self.closing:
            return
        while self._outbound_queue.depth[0] and (waiting := self._outbound_queue.next(self._loop.time())) is not None:
            self._transport.write(waiting)
        self._ending()
        if self._protocol.state is OPEN:
            self._protocol.send_close(int(code), reason)
            self._flush()
        self._expect_close()

    def _ending(self) -> None:
        if not self.closing:
            self.closing = True
            self._inbox = self._assembling = None
            self._tell_drained()
            if self._handler is not None:
                self._handler.leave()

    def _expect_close(self) -> None:
        if self._aborter is None and not self._lost:
            self._read(True)
            self._aborter = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _read(self, on: bool) -> None:
        if self._lost or self._transport.is_closing():
            return
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._wrote_eof:
            return
        if data == SEND_EOF:
            self._write_eof()
        elif self._outbound_queue.blocked and data[0] == PONG_BYTE:
            self._late_pong = data  # the newest is answer enough (RFC 6455 section 5.5.3)
        else:
            self._transport.write(data)

    def _write_whole(self, data: bytes) -> None:
        """Write bytes that other clients may get as well."""
        delivery = self._context.hub.delivery
        delivery.writing = data
        self._transport.write(data)
        delivery.writing = None

    def _write_eof(self) -> None:
        self._wrote_eof = True
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the peer was faster
            self._transport.write_eof()

    def sweep(self, now: float) -> None:
        """Ping a quiet client, close one that is gone, move its counts into the figures."""
        idle_s = self._context.settings.idle_timeout_s
        if (
            self._unfinished is not None
            and not self.closing
            and not self._unfinished.keeps_up(self._received, now, waiting=True)
        ):
            self._context.metrics.count(metric_names.CLOSED_STALLED)
            self._timed_out()
        elif now - self.heard_at > idle_s:
            self._context.metrics.count(metric_names.CLOSED_IDLE)
            self._transport.abort()
        elif (
            now - max(self.heard_at, self._pinged_at) > idle_s / 4 and self._protocol.state is OPEN and not self.closing
        ):
            self._pinged_at = now
            self._transport.write(_PING)
        if self._handler is not None:
            self._handler.count_dropped()

    def _timed_out(self) -> None:
        if self._handler is not None:
            self._handler.run(self._handler.session.message_timeout(now_ms()))
        else:
            self._transport.abort()

    def end(self) -> None:
        """The gateway restarts: say so."""
        if self._handler is not None:
            self._handler.end()
        else:
            self._transport.abort()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()


def _first(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The subprotocol for a client: none means anything here, and browsers fail a handshake without one of theirs."""
    return offered[0] if offered else None
