"""State machine of one client: every rule of docs/protocol.md about which message may come when. Pure.

Its caller, `ClientHandler`, reports events by calling methods, with the time as arguments, and carries out the commands
that they return, in order. While `pending` is set, a reply of the session store or of the router is awaited, and the
caller holds the client's next messages back. After a `Close` all methods return nothing.
"""

from __future__ import annotations

from typing import assert_never

from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.common.media.frames import FrameFault, parse_binary
from watchout.gateway import wire
from watchout.gateway.client import first_message
from watchout.gateway.client.asked_replies import PendingReply, subject_of
from watchout.gateway.client.commands import (
    AcknowledgeAlert,
    ChangeOwner,
    Command,
    PublishFrame,
    Reply,
    VerifyToken,
    WriteWaiting,
)
from watchout.gateway.client.refused_message import read_refused, read_refused_binary
from watchout.gateway.client.session_replies import pings_asked
from watchout.gateway.client.subscribing_replies import SubscribingReplies
from watchout.gateway.model import Owner, SocketPath
from watchout.gateway.progress import LEAST_BYTES_PER_S, OVER_S
from watchout.gateway.wire import Subject
from watchout.identity import Identity


class ClientProtocol(SubscribingReplies):
    """The protocol state of one WebSocket client, from the accepted upgrade on; made by `accept_upgrade`.

    `ClientHandler` calls a method for each message, result or event, and carries out the `Command`s that it returns, in
    their order. Wherever a method takes them, `now` is the loop's time in seconds and `now_ms` the time in milliseconds
    since the epoch.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ()

    # ── messages of the client ───────────────────────────────────────────────────────────────────────────────────

    def receive_text(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """Process a text message.

        Args:
            data: The payload, unmasked and complete.
            now: The loop's time in seconds.
            now_ms: Milliseconds since the epoch.
        """
        if self._closed:
            return []
        if not self._is_free_ping(data, now) and (limit := self._allowance.count_message(now, len(data))) is not None:
            refused = read_refused(data, self._own_stream().stream_id, over_rate=True)
            return self._acknowledged(self._rate_limited(limit, now, now_ms, refused.subject), refused, now_ms)
        try:
            if self.identity is None:
                return self._auth(first_message.read_auth(data), now_ms)
            return self._authenticated(wire.parse_text(data), now_ms)
        except ClientError as error:
            refused = read_refused(data, self._own_stream().stream_id)
            answer = self._error(error.code, error.message, now, now_ms, refused.subject)
            return self._acknowledged(answer, refused, now_ms)
        except UnicodeDecodeError:
            return self._close(CloseCode.INVALID_DATA, "text is not UTF-8")

    def receive_plain(self, size_bytes: int, now: float, now_ms: int) -> list[Command] | None:
        """Count a plain frame (`gateway.fastpath`); allowed only while `may_send_plain` is set.

        Args:
            size_bytes: Size of the message's payload.
            now: The loop's time in seconds.
            now_ms: Milliseconds since the epoch.

        Returns:
            None: the caller delivers the frame. Commands: the frame is over a rate and is dropped.
        """
        if (limit := self._allowance.count_message(now, size_bytes)) is not None:
            return self._rate_limited(limit, now, now_ms, self._own_stream())
        return None

    def receive_binary(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """Process a binary message; the arguments are those of `receive_text`."""
        if self._closed:
            return []
        if (limit := self._allowance.count_message(now, len(data))) is not None:
            refused = read_refused_binary(data, self._own_stream().stream_id)
            return self._acknowledged(self._rate_limited(limit, now, now_ms, refused.subject), refused, now_ms)
        named: str | None = None
        try:
            if self.identity is None:
                raise first_message.refuse_binary(data)
            try:
                frame = parse_binary(data)
            except FrameFault as fault:
                text = first_message.JSON_AS_BINARY if first_message.is_json(data) else str(fault)
                raise ClientError(ErrorCode.INVALID_MESSAGE, text) from None
            named = frame.stream_id
            self._check_frame(named)
        except ClientError as error:
            refused = read_refused_binary(data, self._own_stream().stream_id)
            subject = refused.subject if named is None else Subject(stream_id=named)
            return self._acknowledged(self._error(error.code, error.message, now, now_ms, subject), refused, now_ms)
        timestamp = now_ms if frame.timestamp is None else frame.timestamp
        return [PublishFrame(None, frame.picture, frame.codec, timestamp)]

    def receive_control(self, size_bytes: int, now: float, now_ms: int) -> list[Command]:
        """Count a ping, a pong or a group of fragments against the rates, as a message of `size_bytes`."""
        if self._closed:
            return []
        limit = self._allowance.count_message(now, size_bytes)
        return self._rate_limited(limit, now, now_ms) if limit is not None else []

    # ── results of commands ──────────────────────────────────────────────────────────────────────────────────────

    def on_verified(self, identity: Identity | None, now_ms: int) -> list[Command]:
        """Handle the session store's answer to `VerifyToken`; None: the token is not valid."""
        if self._closed:
            return []
        if identity is None:
            self.pending = None
            return self._error_and_close(
                ErrorCode.AUTH_FAILED, "the token is not valid, sign in again", CloseCode.POLICY, now_ms
            )
        asked, self.identity = self._take_asked(), identity
        success = wire.success("Authentication successful", "authenticated", now_ms, subject_of(asked))
        return [Reply(success), *pings_asked(asked)]

    def on_store_unavailable(self, now_ms: int) -> list[Command]:
        """Handle that the session store cannot be reached: close, and let the client reconnect."""
        self.pending = None
        return self._error_and_close(
            ErrorCode.AUTH_UNAVAILABLE, "sessions cannot be checked now, try again", CloseCode.TRY_LATER, now_ms
        )

    def on_connection_limit(self, what: str, now_ms: int) -> list[Command]:
        """Handle that a limit of connections is reached; `what` ends the sentence "too many connections …"."""
        return self._error_and_close(
            ErrorCode.TOO_MANY_CONNECTIONS, f"too many connections {what}", CloseCode.TRY_LATER, now_ms
        )

    # ── events from elsewhere ────────────────────────────────────────────────────────────────────────────────────

    def on_auth_timeout(self, now_ms: int) -> list[Command]:
        """Handle that `AUTH_TIMEOUT_S` is over; does nothing when the client is authenticated, or about to be."""
        if self.identity is not None or self.pending is PendingReply.STORE:
            return []
        text = f"no authentication within {self._settings.auth_timeout_s:g} s"
        if (ignored := self._ignored_cookie) is not None:
            if ignored.code is not ErrorCode.AUTH_REQUIRED:
                return self._error_and_close(ignored.code, ignored.reason, CloseCode.TRY_LATER, now_ms)
            text = f"{text}; {ignored.reason}"
        return self._error_and_close(ErrorCode.AUTH_TIMEOUT, text, CloseCode.POLICY, now_ms)

    def on_identity_changed(self, identity: Identity, now_ms: int) -> list[Command]:
        """Handle that the auth session's end, or its user's roles or organizations, have changed.

        Covers publishing and the identity of the subscriptions. Which streams the viewer may still receive depends on
        their owners: the caller checks that and calls `on_permission_lost`.
        """
        if self._closed or self.identity is None:
            return []
        before, self.identity = self.identity, identity
        for subscription in self._subscriptions.values():
            subscription.identity = identity
        if self.registration is None:
            return []
        if not self._authorization.may_publish(identity, self.registration.stream):
            return self._unpublish(now_ms)
        changed = Owner.of(before) != Owner.of(identity) and not self.registration.foreign
        return [ChangeOwner(Owner.of(identity))] if changed else []

    def on_slow_consumer(self, now_ms: int, reason: str | None = None) -> list[Command]:
        """Handle that the client does not read its messages: close. `reason`: None when its outbound queue is full."""
        full = (
            f"more than {self._settings.alert_queue_messages} messages or {self._settings.alert_queue_bytes} bytes of "
            "alerts and status wait for this socket"
        )
        return self._error_and_close(ErrorCode.SLOW_CONSUMER, reason or full, CloseCode.SLOW_CONSUMER, now_ms)

    def on_message_timeout(self, now_ms: int) -> list[Command]:
        """Handle that a message which the client has begun stalls, or arrives too slowly: close."""
        text = f"a message arrived slower than {LEAST_BYTES_PER_S} bytes/s over {OVER_S:g} s, or not at all: reconnect"
        return self._error_and_close(ErrorCode.MESSAGE_TIMEOUT, text, CloseCode.MESSAGE_TIMEOUT, now_ms)

    def close(self, code: CloseCode, reason: str) -> list[Command]:
        """Close the socket for a reason of the gateway, such as its restart.

        Args:
            code: The close code that the client gets.
            reason: Text of the close frame.
        """
        return self._close(code, reason)

    # ── messages by type ─────────────────────────────────────────────────────────────────────────────────────────

    def _auth(self, message: wire.Auth, now_ms: int) -> list[Command]:
        """Process the first `auth` message. A client that signed in with its upgrade has the token's identity then."""
        token = message.token
        if (fault := first_message.token_fault(token, self._settings)) is not None:
            return self._error_and_close(ErrorCode.AUTH_FAILED, fault, CloseCode.POLICY, now_ms, subject_of(message))
        self._auth_received, self.identity = True, None
        self._ask(message, PendingReply.STORE)
        return [VerifyToken(token)]

    def _auth_again(self, message: wire.Auth, now_ms: int) -> list[Command]:
        """Process an `auth` of a client that is signed in. Raises `ClientError`."""
        self._check_no_renewal()
        if message.renew:
            return self._renew(message)
        if self._auth_received:
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, "this socket is already authenticated")
        if self.registration is not None or self._subscriptions:
            text = (
                "this socket was authenticated at the upgrade and has registered or subscribed since: open another "
                "socket for another token"
            )
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, text)
        return self._auth(first_message.clean_auth(message), now_ms)

    def _authenticated(self, message: wire.AnyClientMessage, now_ms: int) -> list[Command]:
        """Process a message of an authenticated client. Raises `ClientError`."""
        match message:
            case wire.VideoFrame():
                self._check_frame(message.stream_id)
                timestamp = now_ms if message.timestamp is None else int(message.timestamp)
                return [PublishFrame(message.data, None, None, timestamp, message.more, message.request_id)]
            case wire.Ack():
                self._require_path(SocketPath.SUBSCRIBE, "ack")
                subscription = self._subscriptions.get(message.stream_id)
                if subscription is None:
                    return []
                subscription.acknowledge(message.frame_id)
                return [WriteWaiting()]
            case wire.Auth():
                return self._auth_again(message, now_ms)
            case wire.Register():
                return self._register(message, now_ms)
            case wire.Subscribe():
                return self._subscribe(message)
            case wire.Unsubscribe():
                return self._unsubscribe(message, now_ms)
            case wire.Acknowledge():
                return [AcknowledgeAlert(message.stream_id, message.alert_id, message.note, message.request_id)]
            case wire.Ping():
                return [Reply(wire.pong(now_ms, message.request_id))]
            case wire.PublisherAlert():
                return self._alert(message)
            case _:
                assert_never(message)

    def _is_free_ping(self, data: bytes, now: float) -> bool:
        """Whether a message is a `ping` that does not count against the rates."""
        return self.identity is not None and wire.is_ping(data) and self._allowance.take_ping(now)
