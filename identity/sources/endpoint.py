"""One HTTP endpoint that is asked about callers: a small question, a small answer, a deadline for all of it.

The answer is bounded in bytes, redirects are not followed, and nothing of the environment (proxies, netrc) or of
earlier answers (cookies) has a say. No text made here holds an address, a header or anything of a question.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from watchout.common.toolbox.http_client import BodyTooLarge, HttpClient, http_reason, read_body

#: One fault is not logged more often than this, however often it comes and goes.
QUIET_S: Final = 10.0


class EndpointFault(Exception):
    """There is no answer; the text says why and is safe to log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is empty when it was too long and the status is not 200."""

    status: int
    body: bytes = field(repr=False)


class Outage:
    """What the log already knows of an outage. Pure; `now` is monotonic, in s."""

    def __init__(self) -> None:
        self._said: str | None = None
        self._quiet_until = -math.inf

    def failed(self, reason: str, now: float) -> bool:
        """Note a failure; True when it is to be logged."""
        if reason == self._said or now < self._quiet_until:
            return False
        self._said, self._quiet_until = reason, now + QUIET_S
        return True

    def answered(self) -> bool:
        """Note an answer; True when the log knows of an outage that is over now."""
        was, self._said = self._said, None
        return was is not None


class Endpoint:
    """The client of one endpoint. Connections last; `at_once` questions are under way, others wait for their turn."""

    def __init__(self, *, timeout_s: float, max_answer_bytes: int, at_once: int) -> None:
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._at_once = at_once
        self._turn = asyncio.Semaphore(at_once)
        self._client: HttpClient | None = None

    async def open(self) -> None:
        """Prepare the client; connections are opened when they are needed."""
        self._client = HttpClient(
            user_agent="watchout-gateway", connections=self._at_once, headers={"Accept": "application/json"}
        )  # no deadline there: `ask` has one

    async def ask(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Ask, and read the whole answer within the deadline, the wait for a turn included.

        Raises `EndpointFault` when there is none, or a longer one with status 200.
        """
        if self._client is None:
            raise EndpointFault("it is not asked any more")
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                return await self._ask(self._client, method, url, headers, body)
        except TimeoutError:
            reason = f"no whole answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as exc:
            reason = http_reason(exc)
        raise EndpointFault(reason)  # outside, so that it does not carry an exception that shows the address

    async def _ask(
        self,
        client: HttpClient,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> Answer:
        again = True
        while True:
            try:
                async with client.request(method, url, headers=headers, body=body) as response:
                    return await self._read(response)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The server closed a connection that rested, just as the question went out. Asking changes nothing
                # there, so it may be asked twice.
                if not again:
                    raise
                again = False

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        try:
            return Answer(response.status, await read_body(response, self._max_answer_bytes))
        except BodyTooLarge:
            if response.status == 200:
                raise EndpointFault(f"its answer has over {self._max_answer_bytes} bytes") from None
            return Answer(response.status, b"")

    async def close(self) -> None:
        """Close all connections; whoever asks afterwards gets `EndpointFault`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
