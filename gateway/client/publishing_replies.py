"""How a client's protocol registers a stream, and which frames and alerts of it are taken. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.gateway import wire
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.asked_replies import AskedReplies, PendingReply, subject_of
from watchout.gateway.client.commands import (
    AcknowledgeFrame,
    ChangePublication,
    ClaimStream,
    Command,
    PublicationOptions,
    Publish,
    Reply,
    SubmitAlert,
    Unpublish,
)
from watchout.gateway.client.refused_message import RefusedMessage
from watchout.gateway.client.session_replies import pings_asked
from watchout.gateway.model import Owner, SocketPath
from watchout.gateway.wire import Subject

#: A publisher that consumes any of these receives the stream's status as well.
_CONSUMABLE: Final = frozenset({"video-frame", "alert", "demand"})


@dataclass(frozen=True, slots=True)
class Registration:
    """The stream that a publisher has registered on its socket; kept by its `ClientProtocol`.

    `producing`: the publisher sends frames; `may_alert`: its user may raise alerts for the stream. `foreign`: the
    stream belongs to another user, and the publisher's token grants it. `acknowledges`: the publisher has a window, and
    waits for acknowledgements of its frames, and `window` is how many may be missing.
    """

    stream: str
    producing: bool
    may_alert: bool
    foreign: bool = False
    acknowledges: bool = False
    window: int | None = None


class PublishingReplies(AskedReplies):
    """The part of a client's protocol that is about the stream that it publishes; base class of `ClientProtocol`.

    `ClientHandler` carries out the `Command`s that a method returns, in their order. Every method takes the time: `now`
    in seconds of the loop's clock, `now_ms` in ms since the epoch.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ("_stream_ids", "registration")

    def __init__(self, client: AcceptedClient) -> None:
        super().__init__(client)
        self.registration: Registration | None = None
        self._stream_ids = client.stream_ids

    def on_claimed(self, term: int, first_frame_id: int, now_ms: int, owner: Owner | None = None) -> list[Command]:
        """Handle that the router granted the stream of `ClaimStream`.

        Args:
            term: Number of the grant; frames of the stream carry it on the bus.
            first_frame_id: The first frame gets this id, so that ids do not fall when the publisher changes.
            now_ms: See the class.
            owner: Another user, who stays the stream's owner; None: it belongs to this client's user.
        """
        asked = self._take_asked()
        if self._closed or self.identity is None or not isinstance(asked, wire.Register) or asked.stream_id is None:
            return []
        former: list[Command] = [Unpublish()] if self.registration is not None else []
        self._register_stream(asked.stream_id, asked, foreign=owner is not None)
        owner = owner or Owner.of(self.identity)
        publish = Publish(asked.stream_id, owner, term, first_frame_id, _options(asked))
        if not self._authorization.may_publish(self.identity, asked.stream_id):  # it ended while the router decided
            return [*former, publish, *self._unpublish(now_ms, asked.request_id)]
        return [*former, self._registered_reply(asked, now_ms), publish, *pings_asked(asked)]

    def on_taken_over(self, stream: str, now_ms: int) -> list[Command]:
        """Handle that another socket registered the stream of this publisher: close."""
        if self.registration is None or self.registration.stream != stream:
            return []
        self.registration, self.may_send_plain = None, False
        text, subject = f"another socket registered {stream}", Subject(stream_id=stream)
        return self._error_and_close(ErrorCode.STREAM_TAKEN_OVER, text, CloseCode.TAKEN_OVER, now_ms, subject)

    def _register(self, message: wire.Register, now_ms: int) -> list[Command]:
        self._require_path(SocketPath.REGISTER, "register")
        assert self.identity is not None
        granted = self.identity.grants is not None
        if not self._authorization.may_publish(self.identity, message.stream_id):
            text = "your token does not permit to publish this stream" if granted else "you may not publish streams"
            raise ClientError(ErrorCode.UNAUTHORIZED, text)
        if self.registration is not None and message.stream_id in (None, self.registration.stream):
            stream = self.registration.stream
            self._register_stream(stream, message, foreign=self.registration.foreign)
            reply = self._registered_reply(msgspec.structs.replace(message, stream_id=stream), now_ms)
            return [reply, ChangePublication(_options(message)), *pings_asked(message)]
        if message.stream_id is None:
            new_id = self._stream_ids.new(self.identity.user_id, now_ms)
            if not self._authorization.may_publish(self.identity, new_id):
                text = "your token permits streams of certain ids only: send `streamId`"
                raise ClientError(ErrorCode.UNAUTHORIZED, text)
            message = msgspec.structs.replace(message, stream_id=new_id)
        assert message.stream_id is not None
        if not granted and self._stream_ids.belongs_to_other(message.stream_id, self.identity.user_id):
            raise ClientError(ErrorCode.UNAUTHORIZED, "this stream belongs to another user")
        self._ask(message, PendingReply.CLAIM)
        producing = "video-frame" in (message.produces or [])
        return [ClaimStream(message.stream_id, Owner.of(self.identity), producing, granted, message.info or "")]

    def _register_stream(self, stream: str, message: wire.Register, *, foreign: bool) -> None:
        """Replace the registration of this socket by that of the message."""
        produces = message.produces or []
        self.registration = Registration(
            stream,
            producing="video-frame" in produces,
            may_alert="alert" in produces,
            foreign=foreign,
            acknowledges=message.window is not None,
            window=message.window,
        )
        self.may_send_plain = self.registration.producing

    def _registered_reply(self, message: wire.Register, now_ms: int) -> Reply:
        text = f"Registration successful. Stream ID: {message.stream_id}"
        return Reply(wire.success(text, "registered", now_ms, subject_of(message)))

    def _alert(self, message: wire.PublisherAlert) -> list[Command]:
        self._require_path(SocketPath.REGISTER, "alert")
        registration = self.registration
        if registration is None or message.draft.stream_id not in (None, registration.stream):
            raise ClientError(ErrorCode.UNAUTHORIZED, "an alert is for the stream that this socket registered")
        if not registration.may_alert:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "alert" in `produces` to send alerts')
        return [SubmitAlert(message.draft, registration.stream, message.request_id)]

    def _unpublish(self, now_ms: int, request_id: str | None = None) -> list[Command]:
        subject = Subject(request_id, self._own_stream().stream_id)
        self.registration, self.may_send_plain = None, False
        text = "you may not publish streams any more"
        return [Unpublish(), Reply(wire.error(ErrorCode.UNAUTHORIZED, text, now_ms, subject))]

    def _check_frame(self, stream_id: str | None) -> None:
        """Raise `ClientError` unless this socket may send frames, and frames of this stream if one is named."""
        self._require_path(SocketPath.REGISTER, "video-frame")
        registration = self.registration
        if registration is None:
            if stream_id is None:
                raise ClientError(ErrorCode.INVALID_MESSAGE, "a frame before `register`: register a stream first")
            raise ClientError(ErrorCode.UNAUTHORIZED, f"stream {stream_id} is not registered on this socket")
        if stream_id is not None and stream_id != registration.stream:
            raise ClientError(
                ErrorCode.UNAUTHORIZED,
                f"stream {stream_id} is not registered on this socket, which registered {registration.stream}",
            )
        if not registration.producing:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "video-frame" in `produces` to send frames')

    def _own_stream(self) -> Subject:
        """Return the registered stream as the subject of an answer."""
        return wire.NOTHING if self.registration is None else Subject(stream_id=self.registration.stream)

    def _acknowledged(self, answer: list[Command], refused: RefusedMessage, now_ms: int) -> list[Command]:
        """Return the answer to a refused message, with the acknowledgement of a frame where the camera has a window."""
        if self._closed or self.registration is None or not self.registration.acknowledges or not refused.is_frame:
            return answer
        timestamp = now_ms if refused.timestamp is None else refused.timestamp
        return [*answer, AcknowledgeFrame(timestamp)]


def _options(message: wire.Register) -> PublicationOptions:
    consumes = set(message.consumes or [])
    return PublicationOptions(
        producing="video-frame" in (message.produces or []),
        wants_alerts="alert" in consumes,
        wants_demand="demand" in consumes,
        wants_status=bool(consumes & _CONSUMABLE),
        acknowledges=message.window is not None,
        info=message.info or "",
        window=message.window or 0,
    )
