"""The header `Expect` (RFC 9110 section 10.1.1): whoever waits for 100 gets it when the body is about to be read.

aiohttp would send it before it is known who sends the request and whether its path exists, and would refuse other
expectations in plain text. So it does not see the header.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from watchout.gateway.http.responses import HttpError

#: What the request's sender expects, in lower case; missing: nothing.
EXPECTS: Final = web.RequestKey("expects", str)
_CONTINUE: Final = "100-continue"


def make_request(make: Callable[..., web.BaseRequest], message: Any, *arguments: Any) -> web.BaseRequest:
    """Make a request without the header `Expect`, which it keeps as `EXPECTS`.

    Args:
        make: aiohttp's function, which takes the other arguments.
        message: The head of the request.
        arguments: Whatever else aiohttp passes.
    """
    if "Expect" not in message.headers:
        return make(message, *arguments)
    headers = CIMultiDict(message.headers)
    expected = ",".join(headers.popall("Expect")).strip().lower()
    request = make(message._replace(headers=CIMultiDictProxy(headers)), *arguments)
    if request.version >= HttpVersion11:
        request[EXPECTS] = expected
    return request


def check_expectation(request: web.Request) -> None:
    """Raise `HttpError` 417 for an expectation that is not known."""
    expected = request.get(EXPECTS, _CONTINUE)
    if expected != _CONTINUE:
        raise HttpError(417, "BAD_REQUEST", f"Expect is {_CONTINUE}, got {expected[:40]!a}")


def send_continue(request: web.Request) -> None:
    """Tell the sender that its body is wanted, if it waits for that."""
    if EXPECTS in request and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
