"""One WebSocket: the bytes of a socket on one side, a `Session` on the other. Decides nothing.

The protocol is websockets' sans-I/O `ServerProtocol`; only its receiving side and its control frames are used. What
goes to clients is written ready-made, one buffer for all viewers (`gateway.wire`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import uuid
from collections import deque
from http import HTTPStatus
from typing import Final, assert_never, cast
from urllib.parse import parse_qs, urlsplit

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from common import alerts, log
from common.errors import CloseCode, RouterUnavailable, StoreUnavailable
from common.frames import Frame, FrameFault
from common.messages import Granted, Refused
from gateway import wire
from gateway.access import may_view, without_right
from gateway.auth import Identity
from gateway.hub import Publication
from gateway.lanes import UNACKED_EVERY_S, LaneFull, Lanes, Subscription
from gateway.limits import Full
from gateway.link import KeptAlert
from gateway.rooms import Rooms, new_stream_id, now_ms
from gateway.session import (
    Acknowledged,
    AskClaim,
    AskOwner,
    Close,
    Command,
    Path,
    Publish,
    Reply,
    SendAlert,
    SendFrame,
    Session,
    Unwatch,
    Verify,
    Waiting,
    Watch,
)

#: Above this many bytes that the kernel did not take, frames wait in their slots.
WRITE_HIGH_BYTES: Final = 64 * 1024
#: Bytes that the kernel may hold unsent (tcp(7) TCP_NOTSENT_LOWAT), so that a slow viewer is not behind inside it.
NOTSENT_LOWAT_BYTES: Final = 128 * 1024
#: After a close was sent, the peer has this long to answer it.
CLOSE_TIMEOUT_S: Final = 3.0
#: A message that is not whole after this long closes the socket.
UNFINISHED_S: Final = 60.0

_EXTENSIONS: Final = (
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        compress_settings={"memLevel": 5},
    ),
)
_NO_HANDSHAKE: Final = "not a WebSocket handshake that can be accepted (RFC 6455)"
_PING: Final = b"\x89\x00"

_log = log.get("gateway.websocket")


class WebSocket(asyncio.Protocol):
    """One client's socket, from the handshake on. `head` is the HTTP request that the listener has read."""

    __slots__ = (
        "_aborter", "_assembling", "_assembling_opcode", "_assembling_since", "_auth_timer", "_closing", "_full",
        "_inbox", "_lanes", "_loop", "_lost", "_pinged_at", "_protocol", "_publication", "_rooms",
        "_session", "_transport", "_user", "_window_timer", "_wrote_eof", "address", "heard_at",
    )  # fmt: skip

    def __init__(self, rooms: Rooms, address: str, full: Full | None) -> None:
        self._rooms = rooms
        self._full = full
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(extensions=_EXTENSIONS, max_size=rooms.settings.max_message_bytes)
        self._lanes = Lanes(rooms.settings, self._encode)
        self._transport: asyncio.Transport
        self._session: Session | None = None
        self._publication: Publication | None = None
        self._user: str | None = None
        self._assembling: bytearray | None = None
        self._assembling_opcode = Opcode.TEXT
        self._assembling_since = 0.0
        self._inbox: deque[tuple[Opcode, bytes]] | None = None
        self._auth_timer: asyncio.TimerHandle | None = None
        self._window_timer: asyncio.TimerHandle | None = None
        self._aborter: asyncio.TimerHandle | None = None
        self._closing = self._lost = self._wrote_eof = False
        self.heard_at = self._pinged_at = self._loop.time()

    # ── asyncio.Protocol ─────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection from the listener."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        raw = self._transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        self._rooms.sockets.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.heard_at = self._loop.time()
        if self._wrote_eof:
            return
        self._protocol.receive_data(data)
        self._pump()

    def eof_received(self) -> bool:
        """The peer will send no more."""
        self._ending()  # before the protocol's own end of stream: nothing may be written after it
        if self._session is not None:
            self._protocol.receive_eof()
            self._pump()
        return False

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._lanes.blocked = True

    def resume_writing(self) -> None:
        """The kernel took what there was."""
        self._lanes.blocked = False
        self._drain_lanes()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._rooms.sockets.discard(self)
        if self._rooms.draining and not self._rooms.sockets:
            self._rooms.all_gone.set()
        self._rooms.connections.closed(self.address)
        if self._user is not None:
            self._rooms.connections.left(self._user)
        for timer in (self._auth_timer, self._window_timer, self._aborter):
            if timer is not None:
                timer.cancel()
        self._leave()
        self._inbox = self._assembling = None

    # ── handshake ────────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        failed = self._protocol.handshake_exc or self._protocol.parser_exc
        if self._session is None and failed is not None:
            self._refuse(400, "BAD_REQUEST", _NO_HANDSHAKE)
            return
        events = self._protocol.events_received()
        if self._protocol.writes:
            self._flush()
        for event in events:
            if isinstance(event, WebSocketFrame):
                self._frame_event(event)
            elif isinstance(event, Request):
                self._read(False)
                self._rooms.tasks.start(self._handshake(event), "handshake")
        if self._protocol.close_expected():
            self._ending()
            self._expect_close()

    async def _handshake(self, request: Request) -> None:
        now = self._loop.time()
        url = urlsplit(request.path)
        try:
            token = _token_of(request, url.query)
        except ValueError as error:
            self._refuse(400, "BAD_REQUEST", str(error))
            return
        identity: Identity | None = None
        unavailable = False
        if token is not None and self._full is None:
            try:
                identity = await self._rooms.store.verify(token)
            except StoreUnavailable:
                self._rooms.figures.count("auth_unavailable_total")
                unavailable = True
            if identity is None and not unavailable:
                self._rooms.figures.count("auth_refused_total")
                self._refuse(401, "AUTH_FAILED", "the token is not that of a session")
                return
        if self._closing:  # the client did not wait
            return
        response = self._protocol.accept(request)
        if response.status_code != 101:
            self._refuse(response.status_code, "BAD_REQUEST", _NO_HANDSHAKE)
            return
        self._protocol.send_response(response)
        self._flush()
        session = Session(Path(url.path), self._rooms.settings, now=now, new_stream_id=new_stream_id, identity=identity)
        self._session = session
        if self._full is not None:
            self.run(session.too_many(self._full.what, now_ms()))
        elif unavailable:
            self.run(session.store_unavailable(now_ms()))
        elif self._rooms.draining:
            self.run(session.close(CloseCode.RESTART, "restart"))
        elif identity is None:
            self._auth_timer = self._loop.call_later(self._rooms.settings.auth_timeout_s, self._auth_timeout)
        else:
            self._joined(identity)
        self._resume()
        self._pump()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """End the handshake with an HTTP error, whatever state the protocol is in."""
        if self._closing:
            return
        self._closing = True
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/json; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            "Sec-WebSocket-Version: 13",  # RFC 6455 section 4.4
        ]
        if status == HTTPStatus.UNAUTHORIZED:
            lines.append("WWW-Authenticate: Bearer")
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._write_eof()  # not closed at once: unread bytes would make the kernel drop the answer
        self._expect_close()

    # ── messages in ──────────────────────────────────────────────────────────────────────────────────────────────

    def _frame_event(self, event: WebSocketFrame) -> None:
        opcode = event.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if event.fin:
                self._message(opcode, bytes(event.data))
            else:
                self._assembling = bytearray(event.data)
                self._assembling_opcode, self._assembling_since = opcode, self.heard_at
        elif opcode is Opcode.CONT:
            if self._assembling is not None:
                self._assembling += event.data
                if event.fin:
                    whole, self._assembling = bytes(self._assembling), None
                    self._message(self._assembling_opcode, whole)
        elif opcode is Opcode.PING and self._session is not None:
            self.run(self._session.ping(len(event.data), self.heard_at, now_ms()))

    def _message(self, opcode: Opcode, data: bytes) -> None:
        session = self._session
        if session is None or session.waiting is not None or self._inbox:
            # Bounded: reading is paused, so this is no more than one turn of reading brought.
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append((opcode, data))
            self._read(False)
            return
        self._hear(session, opcode, data)

    def _hear(self, session: Session, opcode: Opcode, data: bytes) -> None:
        if self._closing:
            return
        self._rooms.figures.values["messages_in_total"] += 1
        now = self._loop.time()
        heard = session.text if opcode is Opcode.TEXT else session.binary
        self.run(heard(data, now, now_ms()))

    def _resume(self) -> None:
        """What was held back while an answer was awaited."""
        session = self._session
        while self._inbox and session is not None and session.waiting is None and not self._closing:
            self._hear(session, *self._inbox.popleft())
        if not self._inbox and not self._lost and (session is None or session.waiting is None):
            self._read(True)

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, commands: list[Command]) -> None:
        """Carry out what the session said, in order."""
        for command in commands:
            match command:
                case SendFrame():
                    if self._publication is not None:
                        self._rooms.hub.frame(
                            self._publication,
                            text=command.text,
                            picture=command.picture,
                            codec=command.codec,
                            timestamp=command.timestamp,
                            now=self._loop.time(),
                            now_ms=now_ms(),
                        )
                case Acknowledged():
                    self._drain_lanes()
                case Reply():
                    self.message(command.wire)
                case Close():
                    self._close(command.code, command.reason)
                case Verify():
                    self._read(False)
                    self._rooms.tasks.start(self._verify(command.token), "verify")
                case AskClaim():
                    self._read(False)
                    self._rooms.tasks.start(self._claim(command), "claim")
                case AskOwner():
                    self._read(False)
                    self._rooms.tasks.start(self._find(command.stream), "find")
                case Publish():
                    self._publish(command)
                case SendAlert():
                    self._rooms.tasks.start(self._alert(command), "camera alert")
                case Watch():
                    self._watch(command)
                case Unwatch():
                    self._lanes.drop(command.subscription)
                    self._count_skipped(command.subscription)
                    self._rooms.hub.unwatch(command.subscription)
                case _:
                    assert_never(command)

    async def _verify(self, token: str) -> None:
        assert self._session is not None
        try:
            identity = await self._rooms.store.verify(token)
        except StoreUnavailable:
            self._rooms.figures.count("auth_unavailable_total")
            self.run(self._session.store_unavailable(now_ms()))
            return
        if identity is None:
            self._rooms.figures.count("auth_refused_total")
        if self._lost:
            return
        self.run(self._session.verified(identity, now_ms()))
        if identity is not None:
            self._joined(identity)
        self._resume()

    def _joined(self, identity: Identity) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None
        full = self._rooms.connections.joined(identity.user_id)
        if full is None:
            self._user = identity.user_id
        elif self._session is not None:
            self.run(self._session.too_many(full.what, now_ms()))

    async def _claim(self, command: AskClaim) -> None:
        assert self._session is not None
        stream, floor = command.stream, self._rooms.hub.last_frame_id(command.stream)
        try:
            reply: Granted | Refused | None = await self._rooms.link.claim(
                stream, command.user, producing=command.producing, floor=floor
            )
        except RouterUnavailable:
            reply = None
        now = self._loop.time()
        if isinstance(reply, Granted) and self._closing:
            self._rooms.link.release(stream, reply.term)
            return
        if isinstance(reply, Granted):
            self.run(self._session.granted(reply.term, reply.first_frame_id, now_ms()))
        elif isinstance(reply, Refused):
            self.run(self._session.refused(reply.code, reply.message, now, now_ms()))
        else:
            self.run(self._session.router_unavailable(now, now_ms()))
        self._resume()

    async def _find(self, stream: str) -> None:
        assert self._session is not None
        owner = self._rooms.hub.owner(stream)
        try:
            if owner is not None:
                commands = self._session.found(self._rooms.hub.status(stream), owner, self._loop.time(), now_ms())
            else:
                found = await self._rooms.link.find(stream)
                commands = self._session.found(found.status, found.user, self._loop.time(), now_ms())
        except RouterUnavailable:
            commands = self._session.router_unavailable(self._loop.time(), now_ms())
        if self._lost:
            return
        self.run(commands)
        self._resume()

    def _publish(self, command: Publish) -> None:
        hub, policy = self._rooms.hub, self._rooms.settings.stream_access
        for _, viewer in without_right(policy, hub.viewers_of(command.stream), command.user):
            viewer.right_lost(command.stream)
        self._publication = hub.publish(
            command.stream,
            command.user,
            self,
            term=command.term,
            first_frame_id=command.first_frame_id,
            producing=command.producing,
            wants_alerts=command.wants_alerts,
            now=self._loop.time(),
            now_ms=now_ms(),
        )

    async def _alert(self, command: SendAlert) -> None:
        assert self._session is not None
        try:
            alert = alerts.complete(
                command.draft, alert_id=uuid.uuid4().hex, timestamp=now_ms(), stream_id=command.stream
            )
            await self._rooms.link.raise_alert(alert)
        except RouterUnavailable:
            text = "the alert was not handed on: the router did not answer in time, try again"
            self.run(self._session.alerts_failed(text, self._loop.time(), now_ms()))

    def _watch(self, command: Watch) -> None:
        subscription = command.subscription
        subscription.held = {} if command.alerts_since is not None else None
        ask = self._rooms.hub.watch(subscription, self, command.status, command.owner, self._loop.time(), now_ms())
        if ask:
            self._rooms.link.ask_newest(subscription.stream)
        if command.alerts_since is not None:
            self._rooms.tasks.start(self._replay(subscription, command.alerts_since), "replay of alerts")

    async def _replay(self, subscription: Subscription, since: int) -> None:
        # What is kept comes first, then the live ones that came meanwhile: none is lost, none comes twice.
        assert self._session is not None
        kept: list[KeptAlert] = []
        try:
            kept = await self._rooms.link.alerts(subscription.stream, since=since)
        except RouterUnavailable:
            text = "recent alerts cannot be had: the router did not answer in time, subscribe again"
            self.run(self._session.alerts_failed(text, self._loop.time(), now_ms()))
        held, subscription.held = subscription.held or {}, None
        if self._closing or subscription not in self._session.subscriptions():
            return
        policy = self._rooms.settings.stream_access
        for alert in kept:
            if may_view(policy, subscription.identity, alert.owner):
                held.pop(alert.id, None)
                self.message(wire.text_message(alert.json))
        for message in held.values():
            self.message(message)

    # ── hub.Viewer and hub.Camera ────────────────────────────────────────────────────────────────────────────────

    def frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """A frame for this viewer, if its lanes take it."""
        if self._closing:
            return
        if self._lanes.frame(subscription, frame, now):
            encoded = self._encode(subscription, frame)
            if encoded is not None:
                self._transport.write(encoded)
            else:
                subscription.unsent()
        elif subscription.slot is not None:
            self._arm_window_timer()

    def message(self, message: bytes) -> None:
        """An answer, alert or status for this client."""
        if self._closing:
            return
        try:
            write = self._lanes.message(message)
        except LaneFull as full:
            self._too_slow(full)
            return
        if write:
            self._transport.write(message)

    def right_lost(self, stream: str) -> None:
        """This viewer may watch a stream no more."""
        if self._session is not None:
            self.run(self._session.right_lost(stream, self._loop.time(), now_ms()))

    def taken_over(self, stream: str) -> None:
        """Another socket has this camera's stream."""
        self._publication = None
        if self._session is not None:
            self.run(self._session.taken_over(stream, now_ms()))

    # ── lanes and closing ────────────────────────────────────────────────────────────────────────────────────────

    def _encode(self, subscription: Subscription, frame: Frame) -> bytes | None:
        try:
            encoded = wire.frame_message(frame, subscription.format)
        except FrameFault as fault:
            self._rooms.figures.count("frames_undecodable_total")
            self._rooms.link.undecodable(frame, str(fault), now_ms())
            return None
        values = self._rooms.figures.values
        values["frames_out_total"] += 1
        values["frame_bytes_out_total"] += len(encoded)
        return encoded

    def _drain_lanes(self) -> None:
        now = self._loop.time()
        while not self._lanes.blocked and not self._lost:
            waiting = self._lanes.next(now)
            if waiting is None:
                break
            self._transport.write(waiting)
        if self._lanes.waiting[1]:
            self._arm_window_timer()

    def _arm_window_timer(self) -> None:
        """A frame waits for the window: it goes out in a while even when no `ack` comes."""
        if self._window_timer is None and not self._lanes.blocked and not self._closing:
            self._window_timer = self._loop.call_later(UNACKED_EVERY_S, self._window_due)

    def _window_due(self) -> None:
        self._window_timer = None
        self._drain_lanes()

    def _too_slow(self, full: LaneFull) -> None:
        self._rooms.figures.count("closed_slow_total")
        _log.info("viewer closed, its alert lane is full", messages=full.messages, bytes=full.pending_bytes)
        self._lanes.blocked = False  # what still waits is not sent: the code tells the client to come back
        if self._session is not None:
            for command in self._session.slow(now_ms()):
                if isinstance(command, Reply):
                    self._transport.write(command.wire)
                elif isinstance(command, Close):
                    self._close(command.code, command.reason)

    def _close(self, code: CloseCode, reason: str) -> None:
        if self._closing:
            return
        if code is not CloseCode.SLOW_CONSUMER:
            while self._lanes.waiting[0] and (waiting := self._lanes.next(self._loop.time())) is not None:
                self._transport.write(waiting)
        if code is CloseCode.POLICY and reason == "repeated abuse":
            self._rooms.figures.count("closed_abuse_total")
        self._ending()
        if self._protocol.state is OPEN:
            self._protocol.send_close(int(code), reason)
            self._flush()
        self._expect_close()

    def _ending(self) -> None:
        """From now on nothing is written but what ends the connection."""
        if not self._closing:
            self._closing = True
            self._leave()

    def _leave(self) -> None:
        """Let go of what this client publishes and watches."""
        if self._publication is not None:
            self._rooms.hub.release(self._publication, now_ms())
            self._publication = None
        if self._session is not None:
            for subscription in self._session.subscriptions():
                self._lanes.drop(subscription)
                self._count_skipped(subscription)
                self._rooms.hub.unwatch(subscription)

    def _count_skipped(self, subscription: Subscription) -> None:
        values = self._rooms.figures.values
        values["frames_skipped_slow_total"] += subscription.skipped_slow
        values["frames_skipped_window_total"] += subscription.skipped_window
        values["frames_skipped_rate_total"] += subscription.skipped_rate
        subscription.skipped_slow = subscription.skipped_window = subscription.skipped_rate = 0

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
            if self._wrote_eof:
                break
            if data == SEND_EOF:
                self._write_eof()
            else:
                self._transport.write(data)

    def _write_eof(self) -> None:
        self._wrote_eof = True
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the peer was faster
            self._transport.write_eof()

    def _auth_timeout(self) -> None:
        self._auth_timer = None
        if self._session is not None:
            if self._session.waiting is Waiting.STORE:  # the store has its own deadline
                return
            self.run(self._session.auth_timeout(now_ms()))

    def sweep(self, now: float) -> None:
        """Ping a quiet client, close one that is gone, move its counts into the figures."""
        idle_s = self._rooms.settings.idle_timeout_s
        if now - self.heard_at > idle_s:
            self._rooms.figures.count("closed_idle_total")
            self._transport.abort()
        elif self._assembling is not None and now - self._assembling_since > UNFINISHED_S:
            if self._session is not None:
                self.run(self._session.close(CloseCode.POLICY, "a message was not finished in time"))
        elif (
            now - max(self.heard_at, self._pinged_at) > idle_s / 4
            and self._protocol.state is OPEN
            and not self._closing
        ):
            self._pinged_at = now
            self._transport.write(_PING)
        if self._session is not None:
            for subscription in self._session.subscriptions():
                self._count_skipped(subscription)

    def end(self) -> None:
        """The gateway restarts: say so."""
        if self._session is not None:
            self.run(self._session.close(CloseCode.RESTART, "restart"))
        else:
            self._transport.abort()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()


def _token_of(request: Request, query: str) -> str | None:
    """The token that an upgrade carries, or None. Raises ValueError when it is malformed beyond meaning."""
    values = request.headers.get_all("Authorization")
    if len(values) > 1:
        raise ValueError("more than one Authorization header")
    if values:
        scheme, _, token = values[0].partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    found = parse_qs(query, max_num_fields=32).get("token")
    return found[0] if found else None
