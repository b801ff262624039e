"""What applies to every HTTP request: header checks, CORS, keep-alive, and errors as JSON."""

from __future__ import annotations

from typing import Final

from aiohttp import HttpVersion11, web

from watchout.common.errors import RouterRefused, RouterUnavailable, StoreUnavailable
from watchout.common.settings import Settings
from watchout.gateway.error_response import SERVER
from watchout.gateway.http.bodies import TOO_LARGE
from watchout.gateway.http.expectations import check_expectation
from watchout.gateway.http.responses import RETRY, Handler, HttpError, connection_of
from watchout.gateway.listen.head import HeadFault, check_fields
from watchout.gateway.model import SocketPath
from watchout.gateway.requests import origins

#: Methods that pages may use of a path that is for services as well; all others may be used by pages.
_FOR_SERVICES: Final = {"/alerts": frozenset({"GET", "HEAD"})}
_WEBSOCKET_PATHS: Final = frozenset(map(str, SocketPath))


@web.middleware
async def keep_or_close(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that a request is under way; close it afterwards when its dispatcher decides so."""
    connection = connection_of(request)
    if connection is None:
        return await handler(request)
    connection.on_request()
    response = await handler(request)
    if not connection.on_response() and not response.prepared:
        response.force_close()
    return response


@web.middleware
async def convert_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert what a handler raises to an error response of the edge protocol."""
    try:
        return await handler(request)
    except HttpError as error:
        return error.response()
    except RouterRefused as error:
        return HttpError(503, "ROUTING_ERROR", str(error), RETRY).response()
    except RouterUnavailable:
        return HttpError(503, "ROUTING_ERROR", "the router did not answer in time, try again", RETRY).response()
    except StoreUnavailable:
        return HttpError(503, "AUTH_UNAVAILABLE", "sessions cannot be checked now, try again", RETRY).response()
    except web.HTTPException as error:
        error.__traceback__ = None  # the request keeps the exception, whose frames would keep the request
        return _from_aiohttp(request, error).response()


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> HttpError:
    match error:
        case web.HTTPMethodNotAllowed():
            allow = ", ".join(sorted(error.allowed_methods))
            text = f"{request.method[:20]} is not allowed here, expected {allow}"
            return HttpError(405, "METHOD_NOT_ALLOWED", text, {"Allow": allow})
        case web.HTTPNotFound():
            without_slash = request.path.rstrip("/")
            slash = f"there is no slash at the end of {without_slash}"
            known = without_slash in _WEBSOCKET_PATHS
            return HttpError(404, "NOT_FOUND", slash if known else "there is no such path, see GET /")
        case web.HTTPRequestEntityTooLarge():
            return HttpError(413, "TOO_LARGE", TOO_LARGE)
    return HttpError(error.status, "BAD_REQUEST", error.reason)


class RequestRules:
    """Checks the headers of each request and answers CORS preflights; adds the `Server` and CORS headers.

    Args:
        settings: `ALLOWED_ORIGINS`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request with malformed headers, answer a preflight, else call the handler. Raises `HttpError`."""
        try:
            check_fields(request.raw_headers, host_needed=request.version >= HttpVersion11)
        except HeadFault as fault:
            response = HttpError(fault.status, fault.code, str(fault)).response()
            response.force_close()
            return response
        check_expectation(request)
        if (methods := _preflight_methods(request)) is None:
            return await handler(request)
        headers = origins.preflight_headers(
            _single_value(request, "Origin"), ", ".join(sorted(methods)), self._settings.allowed_origins
        )
        if headers is None:
            raise HttpError(403, "ORIGIN_NOT_ALLOWED", "a page of this origin may not ask here", {"Vary": "Origin"})
        return web.Response(status=204, headers=headers)

    async def add_server(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Set the `Server` header, without a version."""
        response.headers["Server"] = SERVER

    async def add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        """Permit pages of allowed origins to read the response, also an error.

        Not for `POST /alerts`, which is for services and not for pages.
        """
        if (request.method, request.path) != ("POST", "/alerts") and request.method != "OPTIONS":
            response.headers.update(
                origins.cors_headers(_single_value(request, "Origin"), self._settings.allowed_origins)
            )


def _preflight_methods(request: web.Request) -> set[str] | None:
    """Return the methods that a preflight may be granted for its path; None when the request is no preflight."""
    headers = request.headers
    if request.method != "OPTIONS" or "Origin" not in headers or "Access-Control-Request-Method" not in headers:
        return None
    error = request.match_info.http_exception
    if not isinstance(error, web.HTTPMethodNotAllowed) or request.path in _WEBSOCKET_PATHS:
        return None
    for_pages = _FOR_SERVICES.get(request.path, frozenset({"GET", "HEAD", "POST", "DELETE"}))
    return set(error.allowed_methods & for_pages) or None


def _single_value(request: web.Request, name: str) -> str | None:
    """Return the value of a header that occurs exactly once, else None."""
    values = request.headers.getall(name, [])
    return values[0] if len(values) == 1 else None
