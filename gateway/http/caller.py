"""Who waits for the answer to an HTTP request: the identity may change, or its session end, while he waits. Pure."""

from __future__ import annotations

from watchout.identity import Identity


class Caller:
    """A member of the roster for as long as something is awaited for its request; `identity` is the newest known."""

    __slots__ = ("ended", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        #: The session is no more: what was awaited must not be sent.
        self.ended = False

    def session_ended(self) -> None:
        """The session behind the request is no more."""
        self.ended = True

    def renewed(self, identity: Identity) -> None:
        """The session says something else now."""
        self.identity = identity
