"""Fetches the keys that a JWT issuer publishes (JWKS, RFC 7517), and keeps them.

At most one fetch is under way, for all callers. Known keys verify tokens during a fetch, and for a day while the issuer
cannot be reached. `identity.sources.key_cache` decides when to fetch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, assert_never

from yarl import URL

from watchout.common import log
from watchout.common.errors import StoreUnavailable
from watchout.common.toolbox.outage import OutageLog
from watchout.common.toolbox.single_flight import SharedCalls
from watchout.identity.sources.endpoint import EndpointFault, HttpEndpoint
from watchout.identity.sources.key_cache import KeyCache, KeyLookup, KeyMiss
from watchout.identity.sources.keys import KeyFault, VerificationKey, read_jwks

_log = log.get("identity.sources.jwks")

#: Deadline of one fetch in seconds, from connecting to the last byte.
FETCH_TIMEOUT_S: Final = 3.0
#: Longest key set that is read.
MAX_RESPONSE_BYTES: Final = 256 << 10
#: Most callers that wait for a fetch; a further one is refused at once.
MAX_WAITING: Final = 4096
#: Most bytes of their tokens.
MAX_WAITING_BYTES: Final = 32 << 20


class IssuerKeys:
    """The keys at an issuer's JWKS address (`JWT_JWKS_URL`). Created and called by `JwtVerifier`.

    Args:
        url: The JWKS address.
        clock: Returns monotonic seconds; for tests.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = URL(url)
        self._clock = clock
        self._cache = KeyCache()
        self._outage = OutageLog()
        self._endpoint: HttpEndpoint | None = None
        self._fetches: SharedCalls[None, None] = SharedCalls("fetch the JWT issuer's keys")
        self._waiting = self._waiting_bytes = 0
        self._reason = "they were not fetched yet"

    async def open(self) -> None:
        """Create the HTTP client. The keys are fetched for the first token."""
        self._endpoint = HttpEndpoint(timeout_s=FETCH_TIMEOUT_S, max_response_bytes=MAX_RESPONSE_BYTES, max_requests=1)
        await self._endpoint.open()

    async def find(self, kid: str | None, token_bytes: int = 0) -> tuple[VerificationKey, ...]:
        """Return the keys with this key id, none when the issuer has no such key.

        Args:
            kid: The key id of the token's header; None: the only key, if there is exactly one.
            token_bytes: Size of the token, which the caller holds while it waits.

        Raises:
            StoreUnavailable: There are no keys, and none can be fetched now.
        """
        verdict = self._cache.look_up(kid, self._clock())
        if verdict is KeyMiss.FETCH:
            await self._wait_for_fetch(token_bytes)
            verdict = self._cache.look_up(kid, self._clock(), waited=True)
        match verdict:
            case KeyLookup(keys, refresh):
                if refresh:
                    self._fetch()
                return keys
            case KeyMiss.UNKNOWN:
                return ()
            case KeyMiss.FETCH | KeyMiss.UNAVAILABLE:
                raise StoreUnavailable(f"no keys of the JWT issuer: {self._reason}")
        assert_never(verdict)

    async def check(self) -> None:
        """Fetch the keys when there are none.

        Raises:
            StoreUnavailable: They cannot be fetched now.
        """
        if not self._cache.usable(self._clock()):
            await self.find(None)

    async def close(self) -> None:
        """Cancel a fetch and close the connections. `find` then raises `StoreUnavailable` unless keys are known."""
        endpoint, self._endpoint = self._endpoint, None
        await self._fetches.close()
        if endpoint is not None:
            await endpoint.close()

    async def _wait_for_fetch(self, token_bytes: int) -> None:
        if self._waiting >= MAX_WAITING or self._waiting_bytes + token_bytes > MAX_WAITING_BYTES:
            raise StoreUnavailable(f"{self._waiting} callers wait for the JWT issuer's keys already")
        self._waiting += 1
        self._waiting_bytes += token_bytes
        try:
            # Not awaited directly: a caller that is cancelled must not cancel the fetch of the others.
            await asyncio.wait({self._fetch()})
        finally:
            self._waiting -= 1
            self._waiting_bytes -= token_bytes

    def _fetch(self) -> asyncio.Task[None]:
        if (endpoint := self._endpoint) is None:
            raise StoreUnavailable("the JWT issuer is not asked any more")
        if None not in self._fetches:
            self._cache.fetch_started(self._clock())
        return self._fetches.join(None, lambda: self._fetch_from(endpoint))

    async def _fetch_from(self, endpoint: HttpEndpoint) -> None:
        try:
            answer = await endpoint.request("GET", self._url)
            if answer.status != 200:
                raise EndpointFault(f"it answered with status {answer.status}")
            keys = read_jwks(answer.body)
        except asyncio.CancelledError:
            self._cache.failed(self._clock())
            raise
        except (EndpointFault, KeyFault) as exc:
            self._failed(str(exc))
        except Exception as exc:  # the next token must be able to try again, whatever it is
            self._failed(type(exc).__name__)
        else:
            news = self._cache.fetched(keys, self._clock())
            if self._outage.recovered():
                _log.info("JWT issuer is available again")
            if not keys.keys:
                if news:
                    _log.warning("the JWT issuer publishes no key that can be used")
            elif news:
                _log.info("JWT keys found", keys=len(keys.keys), algorithms=keys.algorithms)

    def _failed(self, reason: str) -> None:
        self._cache.failed(self._clock())
        self._reason = reason
        if self._outage.failed(reason, self._clock()):
            _log.warning("JWT issuer unavailable", reason=reason)
