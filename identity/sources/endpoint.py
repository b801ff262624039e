"""An HTTP endpoint that is asked about users: a small request, a small response, one deadline for both.

No text made here holds an address, a header or any part of a request, so that all of it may be logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.common.toolbox.http_client import HTTP_ERRORS, HttpClient, http_reason, read_body


class EndpointFault(Exception):
    """An HTTP endpoint gave no usable response; raised by `HttpEndpoint.request`. The text says why and is safe to log.

    The caller reports the endpoint as unavailable and does not decide about the token.
    """


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """The status and the whole body of an HTTP response; returned by `HttpEndpoint.request`.

    The body is empty when it was too long and the status is not 200.
    """

    status: int
    body: bytes = field(repr=False)


class HttpEndpoint:
    """Sends requests to one HTTP endpoint, such as an issuer's JWKS address or an introspection endpoint.

    Connections are kept. A request whose kept connection turns out to be closed is sent once more, so that requests
    must not change anything at the endpoint.

    Args:
        timeout_s: Deadline of a request in seconds, including the wait for one of the connections.
        max_response_bytes: Longest body that is read.
        max_requests: Requests under way at the same time; others wait.
    """

    def __init__(self, *, timeout_s: float, max_response_bytes: int, max_requests: int) -> None:
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        self._max_requests = max_requests
        self._turn = asyncio.Semaphore(max_requests)
        self._client: HttpClient | None = None

    async def open(self) -> None:
        """Create the client. Connections are opened by the first requests, so this never fails."""
        self._client = HttpClient(
            user_agent="watchout-gateway", connections=self._max_requests, headers={"Accept": "application/json"}
        )  # without a deadline: `request` has one

    async def request(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> EndpointResponse:
        """Send a request and return the whole response.

        Args:
            method: ``GET`` or ``POST``.
            url: The endpoint's address.
            headers: Sent besides ``Accept`` and ``User-Agent``.
            body: The request's body, None for none.

        Raises:
            EndpointFault: There is no response within the deadline, a response with status 200 is too long, or
                `close` was called.
        """
        if self._client is None:
            raise EndpointFault("it is not asked any more")
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                return await self._send(self._client, method, url, headers, body)
        except TimeoutError:
            reason = f"no whole answer within {self._timeout_s:g} s"
        except (*HTTP_ERRORS, RuntimeError) as exc:  # RuntimeError: the client was closed meanwhile
            reason = http_reason(exc)
        raise EndpointFault(reason)  # outside of the handler: the exception as its context would show the address

    async def close(self) -> None:
        """Close all connections. Requests that are under way or follow raise `EndpointFault`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _send(
        self, client: HttpClient, method: str, url: URL, headers: Mapping[str, str] | None, body: bytes | None
    ) -> EndpointResponse:
        may_retry = True
        while True:
            try:
                async with client.request(method, url, headers=headers, body=body) as response:
                    return await self._read(response)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The server closed an idle connection just as the request went out.
                if not may_retry:
                    raise
                may_retry = False

    async def _read(self, response: aiohttp.ClientResponse) -> EndpointResponse:
        try:
            return EndpointResponse(response.status, await read_body(response, self._max_response_bytes))
        except BodyTooLarge:
            if response.status == 200:
                raise EndpointFault(f"its answer has over {self._max_response_bytes} bytes") from None
            return EndpointResponse(response.status, b"")
