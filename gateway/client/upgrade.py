"""Decides on a WebSocket upgrade: authenticates its request, and makes the response that accepts or refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.handshake import path_and_query
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.context import Context
from watchout.gateway.error_response import SERVER, error_response
from watchout.gateway.requests.sign_in import BAD_TOKEN, Sender, SignedIn, sign_in

#: Text of the error for a request that the library does not accept as a handshake.
NO_HANDSHAKE: Final = "not a valid WebSocket handshake (RFC 6455)"


class UpgradeRefused(Exception):
    """An upgrade that is refused; raised by `accept_upgrade`.

    `WebSocket` sends an HTTP error with `status`, `code` and the text, and closes.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class AcceptedUpgrade:
    """Result of `accept_upgrade`: the response to send, and the protocol state of the new client.

    `store_unavailable`: the request carries a token that could not be verified now; the client is closed after the
    upgrade, because only a WebSocket close tells a browser to reconnect.
    """

    response: Response
    protocol: ClientProtocol
    store_unavailable: bool


async def accept_upgrade(
    context: Context, protocol: ServerProtocol, request: Request, transport: asyncio.Transport, *, signs_in: bool
) -> AcceptedUpgrade:
    """Check and authenticate an upgrade request.

    Args:
        context: What the gateway's connections share.
        protocol: The connection's protocol, which has read the request.
        request: The request.
        transport: The connection's transport, for the peer's address and whether it speaks TLS.
        signs_in: Whether to authenticate the request; not for one that a limit of connections refuses afterwards.

    Raises:
        UpgradeRefused: The request is malformed, or carries a token that is not valid.
    """
    now = asyncio.get_running_loop().time()
    path, query = path_and_query(request.path)
    response = protocol.accept(request)
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        raise UpgradeRefused(response.status_code, "BAD_REQUEST", NO_HANDSHAKE)
    response.headers["Server"] = SERVER
    signed_in = SignedIn()
    if signs_in:
        peer = transport.get_extra_info("peername")
        secure = transport.get_extra_info("sslcontext") is not None
        sender = Sender(request.headers.get_all, query, str(peer[0]) if peer else "", secure)
        try:
            signed_in = await sign_in(context, sender, handshake=True)
        except ValueError as error:
            raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "BAD_REQUEST", str(error)) from None
    if signed_in.refused:
        raise UpgradeRefused(HTTPStatus.UNAUTHORIZED, "AUTH_FAILED", BAD_TOKEN)
    client = AcceptedClient(
        path=path,
        settings=context.settings,
        authorization=context.authorization,
        now=now,
        stream_ids=context.stream_ids,
        identity=signed_in.identity,
        ignored_cookie=signed_in.ignored_cookie,
    )
    return AcceptedUpgrade(response, ClientProtocol(client), signed_in.unavailable)


def refusal(status: int, code: str, message: str) -> bytes:
    """Return the HTTP response that refuses an upgrade; the caller closes the connection after it."""
    headers = {"Sec-WebSocket-Version": "13"}  # RFC 6455 section 4.4
    if status == HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110 section 15.5.22
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade, close"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(status, code, message, headers)


def first_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the first subprotocol that the client offers, None when it offers none.

    No subprotocol has a meaning here, but browsers fail a handshake that accepts none of those they offered.
    """
    return offered[0] if offered else None
