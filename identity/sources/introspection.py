"""Tokens that only their issuer can read: an endpoint says who they are (RFC 7662, or Better Auth's ``get-session``).

One request per token and lane, however many callers wait for it; what an answer means is decided in
`identity.sources.claims`. Who is here already is asked for in a lane of its own, which strangers cannot fill.
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
from watchout.common.toolbox.single_flight import SharedCalls
from watchout.identity.sources.claims import Claims, Refused, Unreadable, read_introspection, well_formed
from watchout.identity.sources.endpoint import Answer, Endpoint, EndpointFault, Outage

_log = log.get("identity")

#: Requests under way, of strangers' tokens and of those that are looked at again.
MAX_UNDER_WAY: Final = 48
MAX_RECHECKS: Final = 16
#: Tokens of one lane that wait for their turn; past it callers are told at once to try again.
MAX_WAITING: Final = 1024
#: Largest answer.
MAX_ANSWER_BYTES: Final = 64 << 10

_CLOSED: Final = "tokens are not introspected any more"

#: The endpoint does not know such a token, or finds it too long or not of its form.
_NOBODY: Final = frozenset({400, 404, 410, 413, 414, 422, 431})
#: Somebody is refused: this server where it proves itself, else the token.
_REFUSED: Final = frozenset({401, 403})


class _Lane:
    """Requests that share a number of connections, by their token."""

    def __init__(self, at_once: int, timeout_s: float) -> None:
        self.most = at_once + MAX_WAITING
        self.endpoint = Endpoint(timeout_s=timeout_s, max_answer_bytes=MAX_ANSWER_BYTES, at_once=at_once)
        self.calls: SharedCalls[str, Claims | StoreUnavailable | None] = SharedCalls("introspect a token")


class Introspection:
    """Who a token's bearer is, by the word of `INTROSPECTION_URL`. `now` gives seconds since the epoch."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        assert settings.introspection_url is not None, "AUTH_METHODS says so"
        self._url = URL(settings.introspection_url)
        self._method = settings.introspection_method.upper()
        self._parameter = settings.introspection_token_param
        self._json = settings.introspection_body == "json"
        self._bearer = settings.introspection_token_in == "bearer"  # noqa: S105 - the name of a place
        self._proof: dict[str, str] = {}
        if settings.introspection_auth_header_value is not None:
            self._proof[settings.introspection_auth_header_name] = settings.introspection_auth_header_value
        self._timeout_s = settings.store_timeout_s
        self._now = now
        self._lanes: dict[bool, _Lane] = {}
        self._outage = Outage()

    async def open(self) -> None:
        """Prepare. Raises `StartError` when two settings want the same header."""
        claimants = [
            name
            for name, there in (
                ("INTROSPECTION_TOKEN_IN=bearer", self._bearer),
                ("INTROSPECTION_AUTH_HEADER_NAME", any(name.lower() == "authorization" for name in self._proof)),
                ("the user in INTROSPECTION_URL", self._url.user is not None),
            )
            if there
        ]
        if len(claimants) > 1:
            raise StartError(f"{' and '.join(claimants)} both need the header Authorization, expected one of them")
        self._lanes = {
            recheck: _Lane(at_once, self._timeout_s)
            for recheck, at_once in ((False, MAX_UNDER_WAY), (True, MAX_RECHECKS))
        }
        for lane in self._lanes.values():
            await lane.endpoint.open()

    async def verify(self, token: str, *, recheck: bool = False) -> Claims | None:
        """The bearer's claims; None when the endpoint says that it is nobody's.

        `recheck`: the bearer is here already; the answer waits for other such ones at most, and for no stranger's.
        Raises `StoreUnavailable` when the endpoint cannot be asked, or its answer cannot be understood.
        """
        if not well_formed(token):
            return None
        if (lane := self._lanes.get(recheck)) is None:
            raise StoreUnavailable(_CLOSED)
        if token not in lane.calls and len(lane.calls) >= lane.most:
            raise self._unavailable(f"{MAX_WAITING} tokens are waiting already")
        task = lane.calls.join(token, lambda: self._answer(lane.endpoint, token))
        # The task goes on without a caller that leaves: others may wait for it too.
        await asyncio.wait({task})
        answer = StoreUnavailable(_CLOSED) if task.cancelled() else task.result()
        if isinstance(answer, StoreUnavailable):
            raise StoreUnavailable(str(answer))
        return answer

    async def close(self) -> None:
        """Let go of connections; whoever asks afterwards gets `StoreUnavailable`."""
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.calls.close() for lane in lanes))
        for lane in lanes:
            await lane.endpoint.close()

    async def _answer(self, endpoint: Endpoint, token: str) -> Claims | StoreUnavailable | None:
        try:
            claims = self._understood(await self._asked(endpoint, token))
        except (EndpointFault, Unreadable) as exc:
            return self._unavailable(str(exc))
        except Exception as exc:  # whatever it is, its text may hold the token
            return self._unavailable(type(exc).__name__)
        if self._outage.answered():
            _log.info("introspection answers again")
        return claims

    async def _asked(self, endpoint: Endpoint, token: str) -> Answer:
        url, headers = self._url, dict(self._proof)
        body: bytes | None = None
        fields = {} if self._bearer else {self._parameter: token}
        if self._bearer:
            headers["Authorization"] = f"Bearer {token}"
        if self._method == "POST":
            body = msgspec.json.encode(fields) if self._json else urlencode(fields).encode("ascii")
            headers["Content-Type"] = "application/json" if self._json else "application/x-www-form-urlencoded"
        else:
            url = url.update_query(fields)
        return await endpoint.ask(self._method, url, headers=headers, body=body)

    def _understood(self, answer: Answer) -> Claims | None:
        if answer.status in _REFUSED and (self._proof or self._url.user is not None):
            raise Unreadable(f"it refuses this server with status {answer.status}: see INTROSPECTION_AUTH_HEADER_VALUE")
        if answer.status in _NOBODY | _REFUSED:
            if answer.body.lstrip()[:1] == b"<":  # of whatever stands in front of the endpoint, or in its place
                raise Unreadable(f"it answered with status {answer.status} and a page instead of a verdict")
            return None
        if answer.status != 200:
            raise Unreadable(f"it answered with status {answer.status}")
        try:
            return read_introspection(answer.body, self._now())
        except Refused as refused:
            _log.debug("token refused by introspection", reason=str(refused))
            return None

    def _unavailable(self, reason: str) -> StoreUnavailable:
        if self._outage.failed(reason, asyncio.get_running_loop().time()):
            _log.warning("introspection unavailable", reason=reason)
        return StoreUnavailable(f"the introspection endpoint cannot be asked: {reason}")
