"""Verifies opaque tokens at an endpoint that knows them: RFC 7662, or Better Auth's ``get-session``.

One request per token serves all callers that wait for it. `identity.sources.introspection_claims` reads the response.
Tokens of connections that are already authenticated have a request pool of their own, so that a flood of unknown
tokens cannot delay their re-check.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

import msgspec
from yarl import URL

from watchout.common import log
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import Settings
from watchout.common.toolbox.outage import OutageLog
from watchout.common.toolbox.single_flight import SharedCalls
from watchout.identity.sources.claims import Claims, TokenRefused
from watchout.identity.sources.endpoint import EndpointFault, EndpointResponse, HttpEndpoint
from watchout.identity.sources.introspection_claims import UnreadableResponse, read_introspection, well_formed

_log = log.get("identity.sources.introspection")

#: Requests at the same time for new tokens, and for tokens that are re-checked.
MAX_REQUESTS: Final = 48
MAX_RECHECKS: Final = 16
#: Tokens of one pool that wait for a request; further callers are told at once to try again.
MAX_WAITING: Final = 1024
#: Longest response that is read.
MAX_RESPONSE_BYTES: Final = 64 << 10

_CLOSED: Final = "tokens are not introspected any more"

#: With these statuses the endpoint says that it does not know the token, or cannot take such a token.
_UNKNOWN_TOKEN: Final = frozenset({400, 404, 410, 413, 414, 422, 431})
#: With these it refuses this server, where the settings give it credentials, and otherwise the token.
_REFUSED: Final = frozenset({401, 403})


class _RequestPool:
    """The HTTP connections of `Introspection` for one purpose (new tokens, or re-checks), and the calls under way on
    them, by token.
    """

    def __init__(self, max_requests: int, timeout_s: float) -> None:
        self.max_calls = max_requests + MAX_WAITING
        self.endpoint = HttpEndpoint(
            timeout_s=timeout_s, max_response_bytes=MAX_RESPONSE_BYTES, max_requests=max_requests
        )
        self.calls: SharedCalls[str, Claims | StoreUnavailable | None] = SharedCalls("introspect a token")


class Introspection:
    """Verifies tokens at the endpoint `INTROSPECTION_URL`. Created by `make_authenticator`, called by `Authenticator`.

    Args:
        settings: The ``INTROSPECTION_*`` settings and `STORE_TIMEOUT_S`, the deadline of a request.
        now: Returns seconds since the Unix epoch; for tests.
    """

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        assert settings.introspection_url is not None, "AUTH_METHODS says so"
        self._url = URL(settings.introspection_url)
        self._method = settings.introspection_method.upper()
        self._parameter = settings.introspection_token_param
        self._json = settings.introspection_body == "json"
        self._bearer = settings.introspection_token_in == "bearer"  # noqa: S105 - the name of a place
        self._own_credentials: dict[str, str] = {}
        if settings.introspection_auth_header_value is not None:
            self._own_credentials[settings.introspection_auth_header_name] = settings.introspection_auth_header_value
        self._timeout_s = settings.store_timeout_s
        self._now = now
        self._pools: dict[bool, _RequestPool] = {}
        self._outage = OutageLog()
        #: Status of the last response, 0 before the first; shown by ``watchout-ctl doctor``.
        self.last_status = 0

    async def open(self) -> None:
        """Create the HTTP clients; the endpoint need not be reachable.

        Raises:
            StartError: Two settings need the header ``Authorization``.
        """
        needing_authorization = [
            name
            for name, is_set in (
                ("INTROSPECTION_TOKEN_IN=bearer", self._bearer),
                (
                    "INTROSPECTION_AUTH_HEADER_NAME",
                    any(name.lower() == "authorization" for name in self._own_credentials),
                ),
                ("the user in INTROSPECTION_URL", self._url.user is not None),
            )
            if is_set
        ]
        if len(needing_authorization) > 1:
            raise StartError(
                f"{' and '.join(needing_authorization)} both need the header Authorization, expected one of them"
            )
        self._pools = {
            recheck: _RequestPool(max_requests, self._timeout_s)
            for recheck, max_requests in ((False, MAX_REQUESTS), (True, MAX_RECHECKS))
        }
        for pool in self._pools.values():
            await pool.endpoint.open()

    async def verify(self, token: str, *, recheck: bool = False) -> Claims | None:
        """Ask the endpoint about a token.

        Args:
            token: The token as the client sent it.
            recheck: Whether the token belongs to a connection that is already authenticated; such requests wait only
                for each other.

        Returns:
            The claims, or None when the endpoint says that the token is not valid, or the token is malformed.

        Raises:
            StoreUnavailable: The endpoint cannot be reached, its response cannot be understood, or too many tokens
                wait. The caller keeps authenticated connections and asks new clients to try again.
        """
        if not well_formed(token):
            return None
        if (pool := self._pools.get(recheck)) is None:
            raise StoreUnavailable(_CLOSED)
        if token not in pool.calls and len(pool.calls) >= pool.max_calls:
            raise self._unavailable(f"{MAX_WAITING} tokens are waiting already")
        task = pool.calls.join(token, lambda: self._verify(pool.endpoint, token))
        await asyncio.wait({task})  # the call goes on when this caller is cancelled: others may have joined it
        result = StoreUnavailable(_CLOSED) if task.cancelled() else task.result()
        if isinstance(result, StoreUnavailable):
            raise StoreUnavailable(str(result))
        return result

    async def close(self) -> None:
        """Cancel all requests and close the connections. Callers that wait or follow get `StoreUnavailable`."""
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.calls.close() for pool in pools))
        for pool in pools:
            await pool.endpoint.close()

    async def _verify(self, endpoint: HttpEndpoint, token: str) -> Claims | StoreUnavailable | None:
        try:
            claims = self._read(await self._request(endpoint, token))
        except (EndpointFault, UnreadableResponse) as exc:
            return self._unavailable(str(exc))
        except Exception as exc:  # its text may hold the token
            return self._unavailable(type(exc).__name__)
        if self._outage.recovered():
            _log.info("introspection is available again")
        return claims

    async def _request(self, endpoint: HttpEndpoint, token: str) -> EndpointResponse:
        url, headers = self._url, dict(self._own_credentials)
        body: bytes | None = None
        fields = {} if self._bearer else {self._parameter: token}
        if self._bearer:
            headers["Authorization"] = f"Bearer {token}"
        if self._method == "POST":
            body = msgspec.json.encode(fields) if self._json else urlencode(fields).encode("ascii")
            headers["Content-Type"] = "application/json" if self._json else "application/x-www-form-urlencoded"
        else:
            url = url.update_query(fields)
        response = await endpoint.request(self._method, url, headers=headers, body=body)
        self.last_status = response.status
        return response

    def _read(self, response: EndpointResponse) -> Claims | None:
        """Return the claims of a response, None for an invalid token. Raises `UnreadableResponse`."""
        if response.status in _REFUSED and (self._own_credentials or self._url.user is not None):
            raise UnreadableResponse(
                f"it refuses this server with status {response.status}: see INTROSPECTION_AUTH_HEADER_VALUE"
            )
        if response.status in _UNKNOWN_TOKEN | _REFUSED:
            if response.body.lstrip()[:1] == b"<":  # from a proxy or framework in front of the endpoint
                raise UnreadableResponse(f"it answered with status {response.status} and a page instead of a verdict")
            return None
        if response.status != 200:
            raise UnreadableResponse(f"it answered with status {response.status}")
        try:
            return read_introspection(response.body, self._now())
        except TokenRefused as refused:
            _log.debug("token refused by introspection", reason=str(refused))
            return None

    def _unavailable(self, reason: str) -> StoreUnavailable:
        if self._outage.failed(reason, asyncio.get_running_loop().time()):
            _log.warning("introspection unavailable", reason=reason)
        return StoreUnavailable(f"the introspection endpoint cannot be asked: {reason}")
