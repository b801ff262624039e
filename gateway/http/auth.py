"""Who sends an HTTP request and what they may do: users by their session, operators and ML services by their token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Iterator, Sequence

from aiohttp import web

from watchout.common import log, metric_names
from watchout.common.alerts.model import STREAM_ID
from watchout.common.errors import ErrorCode, StoreUnavailable
from watchout.common.settings import Settings
from watchout.gateway.authorization import Permission
from watchout.gateway.client.handshake import read_target
from watchout.gateway.context import Context
from watchout.gateway.http.caller import Caller
from watchout.gateway.http.responses import CHALLENGE, CLIENT, HttpError, connection_of, mark_authenticated
from watchout.gateway.http.webhook_requests import Replays, Signed, WebhookFault, read_headers
from watchout.gateway.model import StreamState
from watchout.gateway.requests.sign_in import BAD_TOKEN, Sender, sign_in
from watchout.identity import Identity

_log = log.get("gateway.http.auth")


class UserAuth:
    """Signs in the user of an HTTP request, and checks their permissions on a stream. One per gateway, made by
    `make_app`.

    The methods raise `HttpError` (400, 401 or 404) for the client, and `StoreUnavailable`, which becomes status 503.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def sign_in(self, request: web.Request, *, changes: bool = False) -> Identity:
        """Return the user who sends a request.

        Args:
            request: The request.
            changes: Whether it changes something, for which a cookie needs an `Origin` that may use it.

        Raises:
            HttpError: 401 without a valid credential, 400 for an ambiguous one.
            StoreUnavailable: The session store cannot be asked.
        """
        try:
            signed_in = await sign_in(self._context, _sender(request), handshake=False, changes=changes)
        except ValueError as error:
            raise HttpError(400, "BAD_REQUEST", str(error)) from None
        ignored = signed_in.ignored_cookie
        if signed_in.unavailable or (ignored is not None and ignored.code is ErrorCode.AUTH_UNAVAILABLE):
            raise StoreUnavailable("the caller cannot be verified")
        if signed_in.refused:
            _remember(self._context, request, BAD_TOKEN)
            raise HttpError(401, "AUTH_FAILED", BAD_TOKEN, CHALLENGE)
        if signed_in.identity is None:
            why = "" if ignored is None else f"; {ignored.reason}"
            text = f"sign in with Authorization: Bearer <session token>{why}"
            raise HttpError(401, "AUTH_REQUIRED", text, CHALLENGE)
        mark_authenticated(request)
        request[CLIENT] = f"user {signed_in.identity.user_id}"
        return signed_in.identity

    @contextlib.contextmanager
    def tracked(self, user: Identity) -> Iterator[Caller]:
        """Track changes of the user's session while the handler awaits something; then ask `current`."""
        caller = Caller(user)
        self._context.presence.add(caller, user, time.time())
        try:
            yield caller
        finally:
            self._context.presence.remove(caller)

    @staticmethod
    def current(caller: Caller) -> Identity:
        """Return the identity of a caller as it is now. Raises `HttpError` 401 when the session has ended."""
        if caller.ended:
            raise HttpError(401, "AUTH_FAILED", "the session has ended, sign in again", CHALLENGE)
        return caller.identity

    async def viewable(self, request: web.Request, stream: str) -> tuple[Identity, StreamState]:
        """Return the user, and the state of a stream that they may view.

        Raises:
            HttpError: As `sign_in`, and 404 both for a stream that does not exist and for one they may not view.
            RouterUnavailable: The state of the stream cannot be asked for.
        """
        viewer = await self.sign_in(request)
        if not STREAM_ID.match(stream):
            raise HttpError(404, "NOT_FOUND", "streamId has 1 to 128 of A-Z a-z 0-9 _ . : -")
        state = await self._context.router.find(stream)
        if Permission.VIEW not in self._context.authorization.permissions(viewer, state.owner, stream):
            self.count_unauthorized()
            raise no_such_stream()
        return viewer, state

    def count_unauthorized(self) -> None:
        """Count a request for what the user may not have."""
        self._context.metrics.count(metric_names.UNAUTHORIZED)


class StatsAuth:
    """Checks the bearer token that `STATS_TOKEN` requires for `/stats` and `/metrics`. Made by `HealthPages`.

    `require` raises `HttpError` 401; `permits` returns False instead.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def permits(self, request: web.Request) -> bool:
        """Return whether the request carries the token, or none is required."""
        token = self._settings.stats_token
        if token is None:
            return True
        if not _equal(_bearer(request), token):
            return False
        mark_authenticated(request)
        return True

    def require(self, request: web.Request) -> None:
        """Raise `HttpError` 401 unless `permits`."""
        if not self.permits(request):
            raise HttpError(401, "AUTH_FAILED", "this path wants the stats token", CHALLENGE)


class ServiceAuth:
    """Authenticates the senders of `POST /alerts`: by the service token, or by the signature of Standard Webhooks.

    Made by `AlertIntake`. The methods raise `HttpError` 401 for a sender that cannot be authenticated.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._replays = Replays()

    def check_headers(self, request: web.Request) -> Signed | None:
        """Return the signature headers of a request, which `verify` checks against the body; None: the token was good.

        Raises `HttpError` 401 for a request with neither.
        """
        settings, headers = self._context.settings, request.headers
        if settings.service_token is not None and _equal(_bearer(request), settings.service_token):
            mark_authenticated(request)
            return None
        try:
            if not settings.service_webhook_secrets:
                raise WebhookFault("no service token, and no webhook secrets are set")
            if "Content-Encoding" in headers:
                raise WebhookFault("the body is encoded: only its raw bytes can be signed")
            return read_headers(
                headers.getall("webhook-id", []),
                headers.getall("webhook-timestamp", []),
                headers.getall("webhook-signature", []),
                now_s=time.time(),
            )
        except WebhookFault as fault:
            raise self._refuse(request, fault) from None

    def verify(self, request: web.Request, signed: Signed, body: bytes) -> tuple[str, ...] | None:
        """Check the signature of the body. Raises `HttpError` 401.

        Returns:
            The ids of the alerts of this request, when the same one was accepted before; None: it is new.
        """
        try:
            signed.verify(body, self._context.settings.service_webhook_secrets)
        except WebhookFault as fault:
            raise self._refuse(request, fault) from None
        mark_authenticated(request)
        return self._replays.accepted(signed.id, asyncio.get_running_loop().time())

    def accept(self, signed: Signed, alert_ids: Sequence[str]) -> None:
        """Remember a request whose alerts the router took; one that failed must be processed when it is repeated."""
        self._replays.accept(signed.id, alert_ids, asyncio.get_running_loop().time())

    def _refuse(self, request: web.Request, fault: WebhookFault) -> HttpError:
        self._context.metrics.count(metric_names.AUTH_REFUSED)
        _remember(self._context, request, fault.reason)
        _log.debug("POST /alerts refused", reason=fault.reason)
        return HttpError(401, "AUTH_FAILED", "POST /alerts wants the service token or a valid signature", CHALLENGE)


def _remember(context: Context, request: web.Request, reason: str) -> None:
    """Remember a login over HTTP that is refused, for `watchout-ctl why`."""
    connection = connection_of(request)
    address = "" if connection is None else connection.address
    context.recorder.refused_request(address, f"{request.method[:10]} {request.path[:100]}", reason)


def no_such_stream() -> HttpError:
    """Return the error for a stream that does not exist, and for one that the user may not view."""
    return HttpError(404, "NOT_FOUND", "there is no such stream")


def _sender(request: web.Request) -> Sender:
    """Return what `gateway.requests.sign_in` needs of a request."""
    peer = request.transport and request.transport.get_extra_info("peername")

    def values(name: str) -> Sequence[str]:
        if name == "Host" and (target := read_target(request.raw_path)) is not None and target.host is not None:
            return [target.host]  # an absolute target replaces the header (RFC 9112 section 3.2.2)
        return request.headers.getall(name, ())

    return Sender(values, request.rel_url.raw_query_string, str(peer[0]) if peer else "", request.secure)


def _equal(received: str | None, token: str) -> bool:
    """Compare a received token with the configured one in constant time."""
    return received is not None and hmac.compare_digest(received.encode("utf-8", "surrogateescape"), token.encode())


def _bearer(request: web.Request) -> str | None:
    """Return the token of the `Authorization` header, None when it has another scheme or is missing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
