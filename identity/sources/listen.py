"""Hears from PostgreSQL which sessions and users changed: one connection that LISTENs, come back to when it is lost.

What is heard is a hint to look again, never a fact: the look-up decides. So anything lost or too much for the bounds
below becomes "anything may have changed".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

from watchout.common import log
from watchout.common.errors import StoreUnavailable
from watchout.common.toolbox.retry import backoff_s

_log = log.get("identity")

#: (session id, user id); None for what did not change.
Change = tuple[str | None, str | None]

ANY_CHANGE: Final[Change] = (None, None)

#: PendingChanges that were heard and not told yet; past it they become `ANY_CHANGE`.
MAX_CHANGES: Final = 10_000
#: PendingChanges told at a time, before the loop may do something else.
CHANGES_AT_ONCE: Final = 256

MAX_ID_CHARACTERS: Final = 512

#: When nothing was heard for so long, the channel is tried with a message of our own.
SILENCE_S: Final = 15.0

#: The first and the longest wait before the next connecting; it doubles, and from half of it on is left to chance.
RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 15.0

#: Payloads that are none of the trigger's are not spoken of more often than this.
MALFORMED_QUIET_S: Final = 60.0

CLOSE_S: Final = 0.3


def parse_notification(payload: str) -> Change | str | None:
    """A change, the word of a heartbeat (a text), or None for what is neither.

    A payload is JSON: ``{"session": id or null, "user": id or null}``, or ``{"heartbeat": word}``.
    """
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    if isinstance(beat := said.get("heartbeat"), str):
        return beat
    session_id, user_id = said.get("session"), said.get("user")
    if session_id is None and user_id is None:
        return None
    if not _is_id(session_id) or not _is_id(user_id):
        return None
    return session_id, user_id


def _is_id(value: object) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS)


class PendingChanges:
    """What was heard and not told yet: each change once, in order, and a bounded number of them."""

    def __init__(self) -> None:
        self._waiting: dict[Change, None] = {}
        self._news = asyncio.Event()
        self._lost = False
        #: The word of the heartbeat that is awaited.
        self.awaited: str | None = None
        #: Payloads that were nothing of ours.
        self.malformed = 0

    def add(self, payload: str) -> None:
        """Take in one notification."""
        match parse_notification(payload):
            case None:
                self.malformed += 1
            case str(word):
                if word == self.awaited:
                    self.awaited = None
            case change:
                if len(self._waiting) >= MAX_CHANGES and change not in self._waiting:
                    self._waiting.clear()
                    change = ANY_CHANGE
                if ANY_CHANGE not in self._waiting:
                    self._waiting[change] = None
        self._news.set()

    def connection_lost(self) -> None:
        """Note that the connection is gone."""
        self._lost = True
        self._news.set()

    async def wait(self) -> None:
        """Until something was heard. Raises `StoreUnavailable` when the connection is gone."""
        await self._news.wait()
        self._news.clear()
        if self._lost:
            raise StoreUnavailable("the connection was closed")

    def take(self) -> list[Change]:
        """Some changes, which are then told."""
        taken = [change for change, _ in zip(self._waiting, range(CHANGES_AT_ONCE), strict=False)]
        for change in taken:
            del self._waiting[change]
        return taken


class RevocationListener:
    """See `identity.sources.postgres.PostgresStore.listen`; `connect` gives a connection that nobody else uses.

    `words` says what a driver's exception means.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        channel: str,
        on_change: Callable[[str | None, str | None], None],
        *,
        timeout_s: float,
        describe: Callable[[Exception], str],
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._on_change = on_change
        self._timeout_s = timeout_s
        self._describe = describe
        self._retries = 0
        self._fault_known = False
        self._quiet_until = -math.inf

    async def run(self) -> NoReturn:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except Exception as exc:  # a server that is something else makes the driver raise nearly anything
                if not self._fault_known:
                    self._fault_known = True
                    reason = str(exc) if isinstance(exc, StoreUnavailable) else self._describe(exc)
                    _log.warning("not listening for sessions that change", channel=self._channel, reason=reason)
            await asyncio.sleep(backoff_s(self._retries, first_s=RETRY_S, most_s=MAX_RETRY_S, chance=random.random()))
            self._retries += 1

    async def _listen(self) -> None:
        changes = PendingChanges()
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: changes.connection_lost())
            async with self._deadline("LISTEN was not answered"):
                await connection.add_listener(self._channel, lambda *heard: changes.add(heard[3]))
            await self._beat(connection, changes)
            _log.info("listening for sessions that change", channel=self._channel)
            self._retries, self._fault_known = 0, False
            self._on_change(*ANY_CHANGE)
            while True:
                await self._tell(changes)
                try:
                    async with asyncio.timeout(SILENCE_S):
                        await changes.wait()
                except TimeoutError:
                    await self._beat(connection, changes)
        finally:
            # After the deadline the driver has cut it off by itself.
            with contextlib.suppress(Exception):
                await connection.close(timeout=CLOSE_S)

    async def _tell(self, changes: PendingChanges) -> None:
        while taken := changes.take():
            for change in taken:
                self._on_change(*change)
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        if changes.malformed and now >= self._quiet_until:
            _log.warning("notifications that are not the trigger's", channel=self._channel, count=changes.malformed)
            changes.malformed, self._quiet_until = 0, now + MALFORMED_QUIET_S

    async def _beat(self, connection: Any, changes: PendingChanges) -> None:
        """Whether the channel carries: PgBouncer's transaction mode takes a LISTEN and loses most of what comes."""
        changes.awaited = secrets.token_hex(8)
        async with self._deadline("a notification of our own did not come back; through PgBouncer none may"):
            await connection.execute(
                f"notify \"{self._channel}\", '{json.dumps({'heartbeat': changes.awaited})}'"  # a setting, and hex
            )
            while changes.awaited is not None:
                await changes.wait()

    @contextlib.asynccontextmanager
    async def _deadline(self, otherwise: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise StoreUnavailable(otherwise) from None
