"""How a client's protocol reports faults: error replies, strikes for repeated faults, and closing. Pure."""

from __future__ import annotations

import abc
from typing import Final

from watchout.common.errors import CloseCode, ErrorCode
from watchout.gateway import wire
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.commands import Close, Command, Reply
from watchout.gateway.quotas import Allowance
from watchout.gateway.wire import NOTHING, Subject

#: Reason of the close of a client that repeats faults; the handler counts it.
ABUSE: Final = "repeated abuse"
#: Errors that count as a strike. Too many of them within a time close the socket (`Allowance.count_error`).
#: `AUTH_FAILED` is one of a renewal; any other closes by itself.
_STRIKES: Final = frozenset({ErrorCode.INVALID_MESSAGE, ErrorCode.RATE_LIMITED, ErrorCode.AUTH_FAILED})


class ErrorReplies(abc.ABC):
    """The part of a client's protocol that replies with errors and closes; base class of `ClientProtocol`.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ("_allowance", "_closed", "_ignored_cookie", "_settings", "limited", "may_send_plain", "unauthorized")

    def __init__(self, client: AcceptedClient) -> None:
        #: Requests of this client, since the handler last counted them, for which it has no permission.
        self.unauthorized = 0
        #: Its messages over the rates, since the handler last counted them.
        self.limited = 0
        #: Whether plain frames may skip `receive_text` and `receive_binary`: see `ClientProtocol.receive_plain`.
        self.may_send_plain = False
        self._settings = client.settings
        self._allowance = Allowance(client.settings, client.now)
        self._ignored_cookie = client.ignored_cookie
        #: A `Close` was returned: no further command is.
        self._closed = False

    def _error(
        self,
        code: ErrorCode,
        message: str,
        now: float,
        now_ms: int,
        subject: Subject = NOTHING,
        *,
        strike: bool = True,
    ) -> list[Command]:
        """Reply with an error about `subject`; close as well after too many strikes, unless this one is no `strike`."""
        if self._closed:
            return []
        if code is ErrorCode.UNAUTHORIZED:
            self.unauthorized += 1
        if code is ErrorCode.AUTH_REQUIRED and (ignored := self._ignored_cookie) is not None:
            if ignored.code is not ErrorCode.AUTH_REQUIRED:
                return self._error_and_close(ignored.code, ignored.reason, CloseCode.TRY_LATER, now_ms, subject)
            message = f"{message}; {ignored.reason}"
        reply = Reply(wire.error(code, message, now_ms, subject))
        if strike and code in _STRIKES and not self._allowance.count_error(now):
            return [reply, *self._close(CloseCode.POLICY, ABUSE)]
        return [reply]

    def _rate_limited(self, limit: str, now: float, now_ms: int, subject: Subject = NOTHING) -> list[Command]:
        """Report a message over a rate, which is dropped: an error now and then, a close after too many strikes.

        A message with a `requestId` always gets its error: the strikes bound how many there are. `limit` is "messages",
        "bytes" or "alerts".
        """
        self.limited += 1
        if not self._allowance.count_error(now):
            return self._close(CloseCode.POLICY, ABUSE)
        if not self._allowance.take_report(now) and subject.request_id is None:
            return []
        rates = {
            "messages": f"{self._settings.message_rate:g} messages per second",
            "bytes": f"{self._settings.byte_rate:g} bytes per second",
            "alerts": f"{self._settings.alert_rate:g} alerts per second, the limit of one user",
        }
        text = f"this socket sent more than {rates[limit]}; what exceeds it is dropped"
        return [Reply(wire.error(ErrorCode.RATE_LIMITED, text, now_ms, subject))]

    def _error_and_close(
        self, code: ErrorCode, message: str, close: CloseCode, now_ms: int, subject: Subject = NOTHING
    ) -> list[Command]:
        """Reply with an error and close; the reason of the close is the error's code.

        The error answers the message that awaits its reply, too.
        """
        if self._closed:
            return []
        if subject.request_id is None:
            subject = Subject(self._awaited_request_id(), subject.stream_id)
        return [Reply(wire.error(code, message, now_ms, subject)), *self._close(close, str(code))]

    @abc.abstractmethod
    def _awaited_request_id(self) -> str | None:
        """Return the `requestId` of the message that awaits a reply of the store or the router, if there is one."""

    def _close(self, code: CloseCode, reason: str) -> list[Command]:
        if self._closed:
            return []
        self._closed = True
        self.may_send_plain = False
        return [Close(code, reason)]
