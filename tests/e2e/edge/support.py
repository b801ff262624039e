"""Requests, cookies and patched gateways for the tests of the edge."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from typing import Any
from urllib.parse import quote

from tests.kit.clients import Answer, Clients, RawSocket, http
from tests.kit.processes import Process, Watchout
from tests.kit.services import missing

SUBSCRIBE, REGISTER = "/streams/subscribe", "/streams/register"
#: A second address of loopback, from which the misbehaved come.
ELSEWHERE = ("127.0.0.2", 0)
WEBHOOK_SECRET = b"w" * 24
SIGNED = {"SERVICE_WEBHOOK_SECRETS": f"whsec_{base64.b64encode(WEBHOOK_SECRET).decode()}"}
LOOPS = ("uvloop", "asyncio")


def cookie(token: str) -> str:
    """The session cookie as Better Auth sets it: signed, and encoded for a URL."""
    signature = base64.b64encode(hashlib.sha256(token.encode()).digest()).decode()
    return f"Cookie: better-auth.session_token={quote(f'{token}.{signature}', safe='')}"


def patched_gateway(started: Watchout, changes: str, environ: dict[str, str] | None = None) -> Process:
    """A gateway of which something is changed, so that a test need not wait for minutes."""
    code = f"{changes}\nfrom watchout.gateway.app import main\nmain()"
    return started.run("gateway", [sys.executable, "-c", code], environ)


async def from_elsewhere(clients: Clients, url: str) -> RawSocket:
    try:
        return await clients.raw(url, local_addr=ELSEWHERE)
    except OSError as error:
        missing(f"this system has no second address on loopback: {error}")


async def shake_hands(clients: Clients, url: str, *headers: str, path: str = SUBSCRIBE) -> Answer:
    raw = await clients.raw(url)
    await raw.send(raw.upgrade_head(path, *headers))
    return await raw.answer()


async def asks(raw: RawSocket, path: str, *headers: str, method: str = "GET") -> Answer:
    await raw.send(raw.head(path, *headers, method=method))
    return await raw.answer()


#: Progress is judged over so many seconds, not two minutes, and at so many bytes a second.
UNFINISHED = (
    "import watchout.gateway.progress, watchout.gateway.client.socket_reader\n"
    "watchout.gateway.progress.OVER_S = watchout.gateway.client.socket_reader.OVER_S = {}\n"
    "watchout.gateway.progress.LEAST_BYTES_PER_S = {}"
)

HURRIED = "import watchout.gateway.listen.dispatch\nwatchout.gateway.listen.dispatch.UNAUTHENTICATED_KEEPALIVE_S = 0.6"
ALERT = {"streamId": "door", "severity": "high", "message": "somebody"}


async def push(
    url: str, id: str, body: Any, *, secret: bytes = WEBHOOK_SECRET, timestamp: int | None = None, tamper: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """A signed request, as Standard Webhooks has it."""
    data = json.dumps(body).encode()
    sent_at = int(time.time()) if timestamp is None else timestamp
    digest = hmac.new(secret, f"{id}.{sent_at}.".encode() + data, hashlib.sha256).digest()
    signed = {
        "webhook-id": id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "Content-Type": "application/json",
    }
    return await http(f"{url}/alerts", method="POST", body=data + tamper, headers={**signed, **(headers or {})})


def signature(id: str, data: bytes) -> list[str]:
    """The header lines of a signed request."""
    sent_at = int(time.time())
    digest = hmac.new(WEBHOOK_SECRET, f"{id}.{sent_at}.".encode() + data, hashlib.sha256).digest()
    return [
        f"webhook-id: {id}",
        f"webhook-timestamp: {sent_at}",
        f"webhook-signature: v1,{base64.b64encode(digest).decode()}",
    ]
