"""One WebSocket: the bytes of a connection on one side, messages for its `ClientHandler` on the other.

`socket_reader` and `socket_writer` are its two halves. It uses the receiving side and the control frames of websockets'
sans-I/O `ServerProtocol`. Messages to clients are written ready-made, as one buffer for all viewers (`gateway.wire`);
rules about messages are in `client.protocol`.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import Final, cast

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN

from watchout.common import metric_names
from watchout.common.errors import RESTART, CloseCode
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.client.handshake import HandshakeFault, one_form
from watchout.gateway.client.socket_reader import ClientSocketReader
from watchout.gateway.client.upgrade import NO_HANDSHAKE, UpgradeRefused, accept_upgrade, refusal
from watchout.gateway.closed_transport import CLOSED_TRANSPORT
from watchout.gateway.context import Context
from watchout.gateway.kernel_buffers import WRITE_HIGH_BYTES, limit_kernel_buffers
from watchout.gateway.quotas import ConnectionSlot
from watchout.gateway.why.tally import ABNORMAL
from watchout.gateway.why.tcp_info import read_tcp_info
from watchout.identity.credentials import SECURE_PREFIX

#: Seconds that the peer has to answer a close frame before the connection is dropped.
CLOSE_TIMEOUT_S: Final = 3.0

_PING: Final = b"\x89\x00"


class WebSocket(ClientSocketReader, asyncio.BufferedProtocol):
    """The socket of one client, from its upgrade request until the connection is lost.

    Made by `ConnectionDispatcher`, which has read the head of the request; the event loop calls it from then on.

    Args:
        context: What the gateway's connections share.
        slot: How the connection counts in the limits; one that exceeds a limit is closed after the upgrade.
    """

    __slots__ = ("_aborter", "_limit", "_pinged_at")

    def __init__(self, context: Context, slot: ConnectionSlot) -> None:
        super().__init__(context, slot)
        self.tally = context.recorder.begin(slot.address)
        self._limit = slot.reached
        #: Drops the connection when the peer does not answer the close.
        self._aborter: asyncio.TimerHandle | None = None
        #: When a ping was sent last; the loop's time in seconds.
        self._pinged_at = self.received_at

    # ── gateway.why ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def client(self) -> ClientHandler | None:
        """The handler of the client; None before the upgrade is accepted and after the connection is lost."""
        return self._handler

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the connection."""
        return self._transport

    @property
    def is_blocked(self) -> bool:
        """Whether the kernel takes no more bytes for the client now."""
        return self._outbound_queue.blocked

    @property
    def messages_waiting(self) -> tuple[int, int]:
        """Number of messages that wait for the client, and their bytes."""
        return self._outbound_queue.pending

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
        self._context.silences.remove(self)
        self._context.hub.delivery.rate_waits.remove(self)
        for timer in (self._window_timer, self._aborter):
            if timer is not None:
                timer.cancel()
        self._set_written()
        if self._handler is not None:
            self._report_end(self._handler)
        self._inbox = None
        self._assembler.clear()
        self._break_cycles()

    def _report_end(self, handler: ClientHandler) -> None:
        """Let the handler release what it holds, and remember and log how the connection ended."""
        user, path, protocol = handler.user_id, str(handler.protocol.path), self._protocol
        tcp = read_tcp_info(self._transport)
        handler.on_connection_lost()
        if (received := protocol.close_rcvd) is not None and protocol.close_rcvd_then_sent:
            self.tally.end(received.code, received.reason, "client")
        elif (sent := protocol.close_sent) is not None:  # by the library: the client violated RFC 6455
            self.tally.end(sent.code, sent.reason, "gateway")
        self._context.recorder.closed(self.tally, user=user, path=path, tcp=tcp)

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
        accepted = await accept_upgrade(
            self._context, self._protocol, request, self._transport, signs_in=self._limit is None
        )
        if self.closing:  # the client left meanwhile
            return
        self._protocol.send_response(accepted.response)
        self._flush()
        self._handler = ClientHandler(self._context, self, accepted.protocol)
        limit = self._limit.what if self._limit is not None else None
        self._handler.begin(limit=limit, store_unavailable=accepted.store_unavailable)
        self._upgrading = False
        self._feed()
        self.resume_messages()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Refuse the upgrade with an HTTP error, in any state of the library's protocol."""
        if self.closing:
            return
        self.closing = True
        self._context.recorder.refused(self.tally.address, status, code, message)
        self._transport.write(refusal(status, code, message))
        self._write_eof()  # not closed at once: with unread bytes the kernel would reset the connection
        self._expect_close()

    # ── hub.streams.Viewer and PublisherSocket ───────────────────────────────────────────────────────────────────

    def on_permission_lost(self, stream: str) -> None:
        """End the subscription to a stream that this viewer may not receive any more."""
        if self._handler is not None:
            self._handler.on_permission_lost(stream)

    def _last_sent_at(self) -> float:
        return max(self._sent_at, -math.inf if self._handler is None else self._handler.last_direct_write_at())

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
        self.tally.end(int(code), reason, "gateway")
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
            self._context.silences.remove(self)
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

    def _flush(self) -> None:
        """Write what the library has to send."""
        for data in self._protocol.data_to_send():
            self._write_control(data)

    # ── context.OpenSocket ───────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, now: float, *, halted_s: float = 0.0) -> None:
        """Ping a quiet client, close one that stalls or is gone, and report drops to the metrics.

        Args:
            now: Seconds of the loop's clock.
            halted_s: Seconds since the last sweep in which this process did not run: no silence of the client.
        """
        idle_s = self._context.settings.idle_timeout_s
        self.received_at = min(now, self.received_at + halted_s)
        if (
            self._unfinished is not None
            and not self.closing
            and not self._unfinished.keeps_up(self._received, now, waiting=True)
        ):
            self._context.metrics.count(metric_names.CLOSED_STALLED)
            if self._handler is not None:
                self._handler.on_message_timeout()
            else:
                self.tally.end(ABNORMAL, "a message that it had begun stalled before it was let in", "gateway")
                self._transport.abort()
        elif now - self.received_at > idle_s:
            self._context.metrics.count(metric_names.CLOSED_IDLE)
            self.tally.end(ABNORMAL, f"nothing came from it for {idle_s:g} s, not even a pong", "gateway")
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

    def end(self, reason: str = RESTART) -> None:
        """Close with the code that asks the client to reconnect, because the gateway restarts."""
        if self._handler is not None:
            self._handler.end(reason)
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.tally.end(ABNORMAL, "dropped: the gateway ends", "gateway")
        self._transport.abort()
