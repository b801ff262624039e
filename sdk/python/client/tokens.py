"""The source of a client's token: a text, or a callback, of which one call at a time is under way."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from watchout.client.errors import NoToken
from watchout.common.toolbox.single_flight import SharedCalls

#: Returns the token, or an awaitable of it; may take one argument, the reason of the call (see `commands.FetchToken`).
TokenCallback: TypeAlias = Callable[..., str | Awaitable[str | None] | None]
Token: TypeAlias = str | TokenCallback

#: Seconds after which a callback counts as failed; the result of a later end is used for the next request.
CALLBACK_S: Final = 30.0
#: A token that expires within so many seconds is not used for a new connection.
LEAST_LIFE_S: Final = 5.0


def expiry_of(token: str) -> float | None:
    """Return when a JWT expires, in seconds since 1970; None for any other token. Its signature is not checked."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    at = claims.get("exp") if isinstance(claims, dict) else None
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e12 else None


class TokenSource:
    """The token of one client, shared by its connections.

    Args:
        token: the token, or the callback.
        wall_s: returns the time in seconds since 1970.

    Raises:
        TypeError: `token` is neither.
    """

    def __init__(self, token: Token, wall_s: Callable[[], float] = time.time) -> None:
        if not isinstance(token, str) and not callable(token):
            raise TypeError(f"token is {type(token).__name__}, expected text or a function that returns it")
        self.refreshable = not isinstance(token, str)
        self._token = token
        self._wall_s = wall_s
        self._cached: str | None = None
        self._calls: SharedCalls[str, str] = SharedCalls("token callback")

    async def get(self, why: str, former: str) -> tuple[str, float | None]:
        """Return a token and its expiry in seconds since 1970, None when that is not known.

        Args:
            why: see `commands.FetchToken`.
            former: the token that the connection has; it is not returned again unless `why` is ``connect``.

        Raises:
            NoToken: nobody is signed in; the client ends.
            TimeoutError: the callback has not returned in time.
            Exception: the exception of the callback; call again after a pause.
        """
        if isinstance(self._token, str):
            return checked(self._token), None
        cached = self._cached
        if cached is not None and cached != former if why != "connect" else cached is not None:
            assert cached is not None
            expires_at_s = expiry_of(cached)
            if expires_at_s is None or expires_at_s - self._wall_s() > LEAST_LIFE_S:
                return cached, expires_at_s
        task = self._calls.join("token", lambda: self._call(why))
        done, _ = await asyncio.wait({task}, timeout=CALLBACK_S)
        if not done:
            raise TimeoutError(f"the token callback has not returned within {CALLBACK_S:.0f} s")
        token = task.result()
        return token, expiry_of(token)

    async def close(self) -> None:
        """Stop waiting for a callback."""
        await self._calls.close()

    async def _call(self, why: str) -> str:
        assert callable(self._token)
        arguments = (why,) if _takes_argument(self._token) else ()
        if inspect.iscoroutinefunction(self._token):
            found: Any = self._token(*arguments)
        else:
            found = await _in_thread(self._token, arguments)
        if inspect.isawaitable(found):
            found = await found
        if not found:
            raise NoToken("the token callback returned no token: nobody is signed in")
        self._cached = checked(found)
        return self._cached


def checked(token: object) -> str:
    """Return a token that can be sent.

    Raises:
        NoToken: the value cannot be a token; it is not shown.
    """
    if not isinstance(token, str):
        raise NoToken(f"the token is {type(token).__name__}, expected text")
    if not token.strip() or not token.isascii() or not token.isprintable():
        raise NoToken("the token is empty, or contains characters that no token has")
    return token.strip()


def _takes_argument(callback: Callable[..., Any]) -> bool:
    """Whether a callback has a positional parameter without a default, for the reason."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in kinds and each.default is inspect.Parameter.empty for each in parameters)


async def _in_thread(callback: Callable[..., Any], arguments: tuple[str, ...]) -> Any:
    """Call a function that may block in a daemon thread of its own, so that it cannot keep the program from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def finish(value: Any, error: BaseException | None) -> None:
        if not result.done():
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

    def work() -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = callback(*arguments)
        except StopIteration as exc:  # a future accepts no StopIteration
            error = RuntimeError(f"the token callback raised {exc!r}")
        except BaseException as exc:
            error = exc
        try:
            loop.call_soon_threadsafe(finish, value, error)
        except RuntimeError:  # the loop is closed
            return

    threading.Thread(target=work, name="token callback", daemon=True).start()
    return await result
