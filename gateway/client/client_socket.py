"""What a `ClientHandler` and its parts need of the socket they serve; implemented by `client.socket`. Pure."""

from __future__ import annotations

from typing import Protocol

from watchout.common.errors import CloseCode
from watchout.gateway.hub.streams import PublisherSocket, Viewer
from watchout.gateway.hub.subscription import Subscription


class ClientSocket(Viewer, PublisherSocket, Protocol):
    """The socket of one client; also the `Viewer` and the `PublisherSocket` that the hub delivers to.

    `ClientHandler` calls it to reply, to pause reading while an answer of the store or the router is pending, and to
    close.
    """

    @property
    def closing(self) -> bool:
        """Whether the close has begun: nothing more is sent to the client."""

    def send_message(self, message: bytes) -> None:
        """Send a ready-made message, after those that still wait; closes a client whose queue is full."""

    def hold(self) -> None:
        """Stop reading from the client until `resume`."""

    def resume(self) -> None:
        """Process the messages received meanwhile and read on."""

    def trust(self) -> None:
        """Raise the limits of an unauthenticated client to those of the settings."""

    def drain(self) -> None:
        """Write frames and messages that wait, as far as the kernel and the viewer's windows allow."""

    async def drained(self) -> None:
        """Wait until no message waits for this client, or the client is gone."""

    def drop(self, subscription: Subscription) -> None:
        """Discard the frame that waits for a subscription."""

    def too_slow(self, why: str | None = None) -> None:
        """Close with `SLOW_CONSUMER`; `why` is the text of the error message, None: the queue is full."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the messages that wait, then a close frame with this code and reason."""
