"""Keeps one connection to an ML service: opens it, reads it to its end, and opens it again after a pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

from watchout.common import log, supervisor
from watchout.common.ml_targets.reach import SchemeHint
from watchout.common.toolbox.retry import backoff_s
from watchout.mlbridge.targets.address import without_credentials
from watchout.mlbridge.targets.target import TargetFailure

#: Pause before the first retry, in seconds. It doubles up to `MAX_PAUSE_S`; each pause is 50 to 100 % of that.
MIN_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 0.5
#: Deadline for opening a connection, in seconds.
OPEN_S: Final = 5.0
#: How long closing may take before the task is cancelled again, in seconds.
CLOSE_S: Final = 1.5
#: How long a frame waits for a connection, or for room in its buffer, in seconds. Frames must not get old there.
CONNECTION_WAIT_S: Final = 0.5

#: Shortest time between two log lines about why there is no first connection, in seconds.
LOG_EVERY_S: Final = 60.0

_log = log.get("mlbridge.targets.reconnecting")

C = TypeVar("C")


class Reconnecting(Generic[C]):
    """Keeps one connection open in a background task. Created by a target in `open`, closed by it in `close`.

    Until the first connection succeeds, the reason of each failure is logged, with the URL scheme that the server
    expects if it is another.

    Args:
        connect: returns a context manager that opens a connection and closes it.
        serve: reads a connection; returns or raises when it ended.
        on_lost: called after each end and each failed attempt, with the reason as text and the exception if there was
            one.
        reason: describes an exception for the log.
        url: URL of the service.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[C]],
        serve: Callable[[C], Awaitable[None]],
        *,
        on_lost: Callable[[str, BaseException | None], None],
        reason: Callable[[BaseException], str],
        url: str,
    ) -> None:
        self._connect = connect
        self._serve = serve
        self._on_lost = on_lost
        self._reason = reason
        self._url = url
        self._hint = SchemeHint(url)
        self._was_connected = False
        self._logged: tuple[str, float] = "", float("-inf")  # the reason that was logged last, and when
        self._connection: C | None = None
        self._connected = asyncio.Event()
        self._why = "not connected yet"
        self._task = supervisor.current().keep(self._keep, "connection to the ML service")

    async def get(self) -> C:
        """Return the current connection, waiting up to `CONNECTION_WAIT_S` for one.

        Raises:
            TargetFailure: there is none.
        """
        if self._connection is None:
            try:
                async with asyncio.timeout(CONNECTION_WAIT_S):
                    await self._connected.wait()
            except TimeoutError:
                raise TargetFailure(f"no connection: {self._why}") from None
        if self._connection is None:
            raise TargetFailure(f"no connection: {self._why}")
        return self._connection

    async def close(self) -> None:
        """Close the connection and stop the background task."""
        while not self._task.done():
            self._task.cancel()  # again, as a library may swallow one: asyncio.wait_for does before Python 3.12
            await asyncio.wait((self._task,), timeout=CLOSE_S)

    async def _keep(self) -> None:
        retries = 0
        loop = asyncio.get_running_loop()
        while True:
            connected_at = None
            failure: BaseException | None = None
            try:
                async with _OpenedInTime(self._connect()) as connection:
                    self._connection = connection
                    self._connected.set()
                    connected_at = loop.time()
                    self._was_connected = True
                    await self._serve(connection)
                    self._why = "it closed the connection"
            except Exception as exc:  # libraries raise many types; the reason is in the failure of the next frame
                failure = exc
                self._why = self._reason(exc)
            finally:
                self._connection = None
                self._connected.clear()
                self._on_lost(f"the connection was lost: {self._why}", failure)
            if failure is not None and not self._was_connected:
                self._why = await self._hint.added_to(self._why)
                self._log_why(loop.time())
            if connected_at is not None and loop.time() - connected_at > 10 * MAX_PAUSE_S:
                retries = 0
            await asyncio.sleep(backoff_s(retries, first_s=MIN_PAUSE_S, most_s=MAX_PAUSE_S, chance=random.random()))
            retries += 1

    def _log_why(self, now: float) -> None:
        """Log why there is no connection, unless the same reason, or any within `LOG_EVERY_S`, was logged before."""
        logged, logged_at = self._logged
        if self._why == logged or now - logged_at < LOG_EVERY_S:
            return
        self._logged = self._why, now
        _log.warning("no connection to the ML service yet", service=without_credentials(self._url), reason=self._why)


class _OpenedInTime(Generic[C]):
    """Wraps the context manager of a connection: entering it raises `TimeoutError` after `OPEN_S`. Made by
    `Reconnecting`.
    """

    def __init__(self, manager: AbstractAsyncContextManager[C]) -> None:
        self._manager = manager

    async def __aenter__(self) -> C:
        async with asyncio.timeout(OPEN_S):
            return await self._manager.__aenter__()

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._manager.__aexit__(*exc)  # type: ignore[arg-type]
