"""The exceptions of `watchout.client`, in one hierarchy; each docstring says what the program can do."""

from __future__ import annotations

from typing import Final

from watchout.common.errors import CloseCode, ErrorCode, WatchoutError

#: Error codes after which the same request may succeed later.
TRANSIENT: Final = frozenset(
    {
        ErrorCode.ROUTING_ERROR,
        ErrorCode.RATE_LIMITED,
        ErrorCode.AUTH_UNAVAILABLE,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.AUTH_TIMEOUT,
        ErrorCode.SLOW_CONSUMER,
        ErrorCode.MESSAGE_TIMEOUT,
    }
)


class WatchoutClientError(WatchoutError):
    """Base class of all errors of `watchout.client`; its text is a sentence that may be shown to users."""


class Refused(WatchoutClientError):
    """The gateway refused a request: a subscription, a registration, an alert. The same request will be refused again.

    Args:
        code: the error code of the protocol, such as ``UNAUTHORIZED``.
        message: the text of the gateway.
        stream_id: the stream of the request, if the gateway names one.
    """

    def __init__(self, code: str, message: str, stream_id: str | None = None) -> None:
        self.code = code
        self.message = message
        self.stream_id = stream_id
        super().__init__(f"{code}: {message}")


class Unauthorized(Refused):
    """The stream belongs to another user, or this user has no permission for the request."""


class TokenRefused(Refused):
    """The gateway refuses the token, and the token callback returned no valid one: sign in again."""


class NoToken(WatchoutClientError):
    """Nobody is signed in. A token callback raises it to end the client; after any other exception it is called again.

    The client also raises it when the callback returned nothing.
    """


class Disconnected(WatchoutClientError):
    """The gateway closed the connection and would refuse the same client again.

    Args:
        close_code: the WebSocket close code, such as 1008.
        text: a sentence that may be shown to users.
        code: the last error code that the gateway sent on the connection, empty if none.
        message: the text of that error.
    """

    def __init__(self, close_code: int | None, text: str, code: str = "", message: str = "") -> None:
        self.close_code = close_code
        self.code = code
        self.message = message
        super().__init__(text)


class SessionEnded(Disconnected):
    """The session expired or was ended (4500), and the token callback has no new one: sign in again."""


class TakenOver(Disconnected):
    """Another socket of the same user registered this camera's stream (4501).

    The client does not take it back: the two sockets would replace each other without end.
    """


class Unreachable(WatchoutClientError):
    """No gateway responds. Raised only for the first connection, and only with a `wait_s`; all others are retried."""


class NotAGateway(WatchoutClientError):
    """The server is no watchout gateway, or its certificate is not trusted: check the address."""


class NoAnswer(WatchoutClientError):
    """The gateway did not confirm a request in time. It may have been carried out."""


class ClientClosed(WatchoutClientError):
    """The client, camera or subscription was closed by this program."""


class FrameTooLarge(WatchoutClientError, ValueError):
    """A frame is over the gateway's limit, which would close the connection.

    Args:
        size_bytes: size of its message.
        max_bytes: the limit.
    """

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(
            f"a frame of {size_bytes} bytes is over the gateway's MAX_MESSAGE_BYTES, {max_bytes}: use binary frames, a "
            "lower quality or a smaller picture"
        )


def refusal(code: str, message: str, stream_id: str | None = None) -> Refused:
    """Return the exception for an error message of the gateway.

    Args:
        code: its error code.
        message: its text.
        stream_id: the stream that it is about, None when it names none.
    """
    kind = {ErrorCode.UNAUTHORIZED: Unauthorized, ErrorCode.AUTH_FAILED: TokenRefused}.get(code, Refused)  # type: ignore[call-overload]
    made: Refused = kind(code, message, stream_id)
    return made


def may_reconnect(code: int | None) -> bool:
    """Whether a client may reconnect unchanged after this close code; None: the connection was lost without one."""
    return code is None or (code != CloseCode.POLICY and not 4500 <= code <= 4999)
