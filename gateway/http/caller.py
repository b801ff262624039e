"""Tracks the user of an HTTP request while it awaits something: the identity may change, or the session end. Pure."""

from __future__ import annotations

from watchout.identity import Identity


class Caller:
    """A user whose session is tracked while a request handler awaits something. Created by `UserAuth.tracked`.

    A `RevalidatedClient`: `Revalidation` calls the methods. The handler reads the attributes after its last await.

    Attributes:
        identity: The newest identity.
        ended: The session has ended: nothing that was awaited may be sent.
    """

    __slots__ = ("ended", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.ended = False

    def on_session_ended(self) -> None:
        """Record that the session has ended."""
        self.ended = True

    def on_identity_changed(self, identity: Identity) -> None:
        """Record the changed identity."""
        self.identity = identity
