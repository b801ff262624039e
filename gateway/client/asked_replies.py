"""Which message of a client awaits a reply of the store or the router, and what an answer is about. Pure."""

from __future__ import annotations

import enum

from watchout.common.errors import ClientError, ErrorCode
from watchout.gateway import wire
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.commands import Command
from watchout.gateway.client.session_replies import SessionReplies
from watchout.gateway.model import SocketPath
from watchout.gateway.wire import Subject

#: A message that is answered after a reply of the session store or of the router.
AskedMessage = wire.Auth | wire.Register | wire.Subscribe


class PendingReply(enum.Enum):
    """The reply that a `ClientProtocol` waits for; the client's next messages are handled after it.

    STORE: of the session store, for `auth`. CLAIM: of the router, for `register`. OWNER: of the router, for
    `subscribe`. ALERTS: of the router, for `subscribe` with `alertsSince`.
    """

    STORE = enum.auto()
    CLAIM = enum.auto()
    OWNER = enum.auto()
    ALERTS = enum.auto()


class AskedReplies(SessionReplies):
    """The part of a client's protocol that awaits replies; base class of `ClientProtocol`.

    `ClientHandler` carries out the `Command`s that a method returns, in their order. Every method takes the time: `now`
    in seconds of the loop's clock, `now_ms` in ms since the epoch.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ("_asked", "_authorization", "path", "pending")

    def __init__(self, client: AcceptedClient) -> None:
        super().__init__(client)
        self.path = client.path
        #: What is awaited; None: the client's next message may be processed.
        self.pending: PendingReply | None = None
        self._authorization = client.authorization
        #: The message that `pending` is about; after a failed reply, which closes, the one that the error answers.
        self._asked: AskedMessage | None = None

    def on_refused(self, code: str, message: str, now: float, now_ms: int) -> list[Command]:
        """Handle that a claim or a subscription was refused, by the router or by a limit of the gateway.

        Args:
            code: An `ErrorCode`, or a code of a newer router, which is reported as `ROUTING_ERROR`.
            message: The reason, for the client.
            now: See the class.
            now_ms: See the class.
        """
        subject, known = subject_of(self._take_asked()), code in ErrorCode.__members__
        return self._error(ErrorCode(code) if known else ErrorCode.ROUTING_ERROR, message, now, now_ms, subject)

    def on_router_unavailable(self, now: float, now_ms: int) -> list[Command]:
        """Handle that the router did not answer `ClaimStream` or `FindStream` in time."""
        return self.on_refused(ErrorCode.ROUTING_ERROR, "the router did not answer in time, try again", now, now_ms)

    def _ask(self, message: AskedMessage, reply: PendingReply) -> None:
        """Await the reply of the store or the router that a message needs."""
        self._asked, self.pending = message, reply

    def _take_asked(self) -> AskedMessage | None:
        """Return the message whose reply has come, and await nothing any more."""
        asked, self._asked, self.pending = self._asked, None, None
        return asked

    def _awaited_request_id(self) -> str | None:
        return None if self._asked is None else self._asked.request_id

    def _require_path(self, path: SocketPath, message_type: str) -> None:
        """Raise `ClientError` when this socket is not on the path that a type of message belongs to."""
        if self.path is not path:
            text = f"`{message_type}` is for {path}, this socket is on {self.path}"
            raise ClientError(ErrorCode.INVALID_MESSAGE, text)


def subject_of(message: AskedMessage | wire.Unsubscribe | None) -> Subject:
    """Return what the answer to a message is about."""
    if message is None or isinstance(message, wire.Auth):
        return wire.NOTHING if message is None else Subject(message.request_id)
    return Subject(message.request_id, message.stream_id)
