"""What a `ClientHandler` and its parts need of the socket they serve; implemented by `client.socket`. Pure."""

from __future__ import annotations

from typing import Protocol

from watchout.common.errors import CloseCode
from watchout.gateway.hub.streams import PublisherSocket, Viewer
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.why.tally import Tally


class ClientSocket(Viewer, PublisherSocket, Protocol):
    """The socket of one client; also the `Viewer` and the `PublisherSocket` that the hub delivers to.

    `ClientHandler` calls it to reply, to stop reading while a reply of the store or the router is pending, and to
    close.
    """

    @property
    def tally(self) -> Tally:
        """What the connection sent and received."""

    @property
    def closing(self) -> bool:
        """Whether the close has begun: nothing more is sent to the client."""

    def send_message(self, message: bytes) -> None:
        """Send a ready-made message, after those that still wait; closes a client whose outbound queue is full."""

    def hold_messages(self) -> None:
        """Stop reading, and hold back received messages until `resume_messages`."""

    def resume_messages(self) -> None:
        """Process the messages that were held back, and read on."""

    def on_authenticated(self) -> None:
        """Raise the limits of an unauthenticated client to those of the settings."""

    def write_waiting(self) -> None:
        """Write messages and frames that wait, as far as the kernel and the viewer's windows allow."""

    def send_ack(self, message: bytes) -> None:
        """Send an acknowledgement; while the kernel takes no bytes the newest waits, and replaces the one before."""

    def ping_silence(self, every_s: float) -> None:
        """Send a `ping` in every silence of this many seconds from now on."""

    async def wait_until_written(self) -> None:
        """Wait until no message waits for this client, or the connection is lost."""

    def discard_waiting(self, subscription: Subscription) -> None:
        """Discard the frame that waits for a subscription."""

    def close_slow(self, reason: str | None = None) -> None:
        """Close with `SLOW_CONSUMER`; `reason` is the error's text, None: the outbound queue is full."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the messages that wait, then a close frame with this code and reason."""
