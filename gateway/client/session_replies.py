"""How a client's protocol renews the auth session that its socket lives by, and how it ends. Pure."""

from __future__ import annotations

import abc

from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.gateway import wire
from watchout.gateway.client import first_message
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.alert_replies import AlertReplies
from watchout.gateway.client.commands import Command, PingSilence, RenewSession, Reply
from watchout.gateway.wire import Subject
from watchout.identity import Identity


class SessionReplies(AlertReplies):
    """The part of a client's protocol that is about its auth session; base class of `ClientProtocol`.

    A renewal holds nothing back: frames and messages go on while the token is verified. Every method takes the time:
    `now` in seconds of the loop's clock, `now_ms` in ms since the epoch.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ("_auth_received", "_former_ended", "_renewing", "identity")

    def __init__(self, client: AcceptedClient) -> None:
        super().__init__(client)
        self.identity = client.identity
        self._auth_received = False
        #: The `auth` message of the renewal that is under way.
        self._renewing: wire.Auth | None = None
        #: The session has ended during the renewal, which decides whether the socket closes.
        self._former_ended = False

    @abc.abstractmethod
    def on_identity_changed(self, identity: Identity, now_ms: int) -> list[Command]:
        """Handle a changed identity of the same user."""

    def on_session_ended(self, now_ms: int) -> list[Command]:
        """Handle that the auth session expired or was revoked, or that its user was banned: close.

        While a renewal is under way, its result decides.
        """
        if self._renewing is not None and not self._closed:
            self._former_ended = True
            return []
        return self._error_and_close(
            ErrorCode.SESSION_ENDED, "the session has ended, sign in again", CloseCode.SESSION_ENDED, now_ms
        )

    def on_renewed(self, identity: Identity | None, now: float, now_ms: int) -> list[Command]:
        """Handle the session store's answer to `RenewSession`.

        Args:
            identity: The token's; None: the token is not valid. One of another user is refused.
            now: See the class.
            now_ms: See the class.
        """
        before = self.identity
        if self._closed or before is None:
            return []
        if identity is None:
            return self._not_renewed(ErrorCode.AUTH_FAILED, "the token is not valid", now, now_ms)
        if identity.user_id != before.user_id:
            return self._not_renewed(ErrorCode.AUTH_FAILED, "the token is of another user", now, now_ms)
        asked, self._renewing = self._renewing, None
        self._former_ended, self._auth_received = False, True
        changes = self.on_identity_changed(identity, now_ms)
        subject = wire.NOTHING if asked is None else Subject(asked.request_id)
        success = wire.success("Authentication successful", "authenticated", now_ms, subject)
        return [Reply(success), *changes, *pings_asked(asked)]

    def on_renewal_unavailable(self, now: float, now_ms: int) -> list[Command]:
        """Handle that the session store cannot be reached to verify the token of a renewal."""
        if self._closed:
            return []
        return self._not_renewed(ErrorCode.AUTH_UNAVAILABLE, "sessions cannot be checked now, try again", now, now_ms)

    def _renew(self, message: wire.Auth) -> list[Command]:
        """Process an `auth` of a client that is signed in and asks for a renewal. Raises `ClientError`."""
        token = first_message.clean_auth(message).token
        if (fault := first_message.token_fault(token, self._settings)) is not None:
            raise ClientError(ErrorCode.AUTH_FAILED, f"the session was not renewed: {fault}")
        self._renewing = message
        return [RenewSession(token)]

    def _check_no_renewal(self) -> None:
        """Raise `ClientError` while a renewal is under way: an `auth` has to wait for its answer."""
        if self._renewing is not None:
            text = "a renewal of this socket is under way: send the next `auth` after its answer"
            raise ClientError(ErrorCode.INVALID_MESSAGE, text)

    def _not_renewed(self, code: ErrorCode, reason: str, now: float, now_ms: int) -> list[Command]:
        """Report that the socket goes on with what it had, or close it when that has ended meanwhile."""
        asked, self._renewing = self._renewing, None
        subject = wire.NOTHING if asked is None else Subject(asked.request_id)
        error = self._error(code, f"the session was not renewed: {reason}", now, now_ms, subject)
        return [*error, *(self.on_session_ended(now_ms) if self._former_ended else [])]


def pings_asked(message: wire.Auth | wire.Register | wire.Subscribe | None) -> list[Command]:
    """Return the command that a `pingEvery` of a message asks for."""
    return [] if message is None or message.ping_every is None else [PingSilence(message.ping_every)]
