"""A connection that is meant to last: opened, served to its end, opened again after a pause with jitter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

from watchout.common import log, supervisor
from watchout.common.toolbox.reach import SchemeHint
from watchout.common.toolbox.retry import backoff_s
from watchout.mlbridge.targets import TargetFailure
from watchout.mlbridge.targets.address import without_credentials

#: Pause before the first new try, seconds; it doubles up to `MAX_PAUSE_S`, and each is spread over half to all of it.
MIN_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 0.5
#: Deadline of opening a connection.
OPEN_S: Final = 5.0
#: How long closing it may take before it is cut off.
CLOSE_S: Final = 1.5
#: How long a frame waits for a connection, or for room in it: it must not get old there.
PATIENCE_S: Final = 0.5

#: What keeps the first connection from coming about is logged so often at most, seconds.
TOLD_EVERY_S: Final = 60.0

_log = log.get("mlbridge.lasting")

C = TypeVar("C")


class Reconnecting(Generic[C]):
    """Keeps one connection of a kind. `connect` gives it, `serve` reads it and returns or raises at its end.

    `url`: where it leads. Until the first connection stands, the reason is logged, with the scheme that is expected
    where the URL has another.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[C]],
        serve: Callable[[C], Awaitable[None]],
        *,
        lost: Callable[[str, BaseException | None], None],
        reason: Callable[[BaseException], str],
        url: str,
    ) -> None:
        self._connect = connect
        self._serve = serve
        self._lost = lost
        self._reason = reason
        self._url = url
        self._hint = SchemeHint(url)
        self._stood = False
        self._told: tuple[str, float] = "", float("-inf")
        self._connection: C | None = None
        self._stands = asyncio.Event()
        self._why = "not connected yet"
        self._task = supervisor.current().keep(self._keep, "connection to the ML service")

    async def get(self) -> C:
        """The connection that stands. Raises `TargetFailure` when there is none within `PATIENCE_S`."""
        if self._connection is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._stands.wait()
            except TimeoutError:
                raise TargetFailure(f"no connection: {self._why}") from None
        if self._connection is None:
            raise TargetFailure(f"no connection: {self._why}")
        return self._connection

    async def close(self) -> None:
        """End the connection and open no other."""
        while not self._task.done():
            self._task.cancel()  # again, as a library may swallow one: asyncio.wait_for does before Python 3.12
            await asyncio.wait((self._task,), timeout=CLOSE_S)

    async def _keep(self) -> None:
        retries = 0
        loop = asyncio.get_running_loop()
        while True:
            stood_at = None
            failure: BaseException | None = None
            try:
                async with _opened(self._connect()) as connection:
                    self._connection = connection
                    self._stands.set()
                    stood_at = loop.time()
                    self._stood = True
                    await self._serve(connection)
                    self._why = "it closed the connection"
            except Exception as exc:  # whatever a library raises: it is told with the next frame, and tried again
                failure = exc
                self._why = self._reason(exc)
            finally:
                self._connection = None
                self._stands.clear()
                self._lost(f"the connection was lost: {self._why}", failure)
            if failure is not None and not self._stood:
                self._why = await self._hint.added_to(self._why)
                self._tell_why(loop.time())
            if stood_at is not None and loop.time() - stood_at > 10 * MAX_PAUSE_S:
                retries = 0
            await asyncio.sleep(backoff_s(retries, first_s=MIN_PAUSE_S, most_s=MAX_PAUSE_S, chance=random.random()))
            retries += 1

    def _tell_why(self, now: float) -> None:
        told, told_at = self._told
        if self._why == told or now - told_at < TOLD_EVERY_S:
            return
        self._told = self._why, now
        _log.warning("no connection to the ML service yet", service=without_credentials(self._url), reason=self._why)


class _opened(Generic[C]):  # noqa: N801 - used as a word
    """A context manager whose way in has a deadline."""

    def __init__(self, manager: AbstractAsyncContextManager[C]) -> None:
        self._manager = manager

    async def __aenter__(self) -> C:
        async with asyncio.timeout(OPEN_S):
            return await self._manager.__aenter__()

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._manager.__aexit__(*exc)  # type: ignore[arg-type]
