"""HTTP requests of the doctor: a client with its deadline, and a request for a small JSON object."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from watchout.common.toolbox.http_client import HTTP_ERRORS, HttpClient
from watchout.ctl.doctor.check import ASK_S

#: HTTP connections of one check.
CONNECTIONS: Final = 4
#: Most bytes that are read of a response.
MAX_BODY_BYTES: Final = 256 << 10
#: `JsonResponse.failure` of a server that kept silent until the deadline.
TIMED_OUT: Final = f"no answer within {ASK_S:g} s"


def http_client(*, verify_tls: bool = True) -> HttpClient:
    """Return a client with the deadline `ASK_S` for each request."""
    return HttpClient(user_agent="watchout-ctl", connections=CONNECTIONS, timeout_s=ASK_S, tls=verify_tls)


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """The outcome of `get_json`, also where there is no response.

    Attributes:
        status: HTTP status, 0 for no response.
        body: the JSON object of the response; empty where it was something else.
        failure: why there is no readable response; empty where there is one.
    """

    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def error_code(self) -> str:
        """The code of an error body of watchout (``{"error": {"code": …}}``), empty for any other body."""
        error = self.body.get("error")
        return str(error.get("code") or "") if isinstance(error, dict) else ""


async def get_json(url: str) -> JsonResponse:
    """Request a JSON object with GET; the server's certificate is not verified."""
    try:
        async with (
            asyncio.timeout(ASK_S),
            http_client(verify_tls=False) as client,
            client.request("GET", url) as response,
        ):
            value = msgspec.json.decode(await response.content.read(MAX_BODY_BYTES))
    except TimeoutError:
        return JsonResponse(failure=TIMED_OUT)
    except HTTP_ERRORS as exc:
        return JsonResponse(failure=f"no readable response ({type(exc).__name__})")
    return JsonResponse(response.status, value if isinstance(value, dict) else {})
