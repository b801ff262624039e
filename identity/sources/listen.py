"""Receives notifications from PostgreSQL about sessions and users that changed, over one connection that LISTENs.

A notification is only a hint to look the session up again. So after a lost connection, or more notifications than the
bounds allow, the listener reports that anything may have changed.
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

_log = log.get("identity.sources.listen")

#: The session id and the user id that changed; None where there is none.
Change = tuple[str | None, str | None]

#: Stands for "any session or user may have changed".
ANY_CHANGE: Final[Change] = (None, None)

#: Most changes that wait to be reported; past it they become one `ANY_CHANGE`.
MAX_CHANGES: Final = 10_000
#: Changes that are reported before other tasks may run.
CHANGES_AT_ONCE: Final = 256

#: Longest id in a notification.
MAX_ID_CHARACTERS: Final = 512

#: After this many seconds without a notification the channel is tested with one of our own.
SILENCE_S: Final = 15.0

#: First and longest pause before reconnecting, in seconds; see `common.toolbox.retry.backoff_s`.
RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 15.0

#: Payloads in an unknown form are logged at most once in this many seconds.
MALFORMED_QUIET_S: Final = 60.0

#: How long closing the connection may take, in seconds.
CLOSE_S: Final = 0.3


def parse_notification(payload: str) -> Change | str | None:
    """Return the change in a notification, the text of a heartbeat, or None for any other payload.

    A payload is JSON: ``{"session": id or null, "user": id or null}``, or ``{"heartbeat": text}``.
    """
    try:
        notification = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(notification, dict):
        return None
    if isinstance(beat := notification.get("heartbeat"), str):
        return beat
    session_id, user_id = notification.get("session"), notification.get("user")
    if session_id is None and user_id is None:
        return None
    if not _is_id(session_id) or not _is_id(user_id):
        return None
    return session_id, user_id


def _is_id(value: object) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS)


class PendingChanges:
    """Changes that were received and not reported yet: each once, in order, at most `MAX_CHANGES`.

    Filled by the driver's callbacks, emptied by `RevocationListener`.
    """

    def __init__(self) -> None:
        self._waiting: dict[Change, None] = {}
        self._news = asyncio.Event()
        self._lost = False
        #: Text of the heartbeat that has not come back yet.
        self.awaited: str | None = None
        #: Payloads in an unknown form since they were last logged.
        self.malformed = 0

    def add(self, payload: str) -> None:
        """Add the payload of one notification."""
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
        """Record that the connection was lost; `wait` then raises."""
        self._lost = True
        self._news.set()

    async def wait(self) -> None:
        """Wait for a notification.

        Raises:
            StoreUnavailable: The connection was lost.
        """
        await self._news.wait()
        self._news.clear()
        if self._lost:
            raise StoreUnavailable("the connection was closed")

    def take(self) -> list[Change]:
        """Remove and return up to `CHANGES_AT_ONCE` changes, oldest first."""
        taken = [change for change, _ in zip(self._waiting, range(CHANGES_AT_ONCE), strict=False)]
        for change in taken:
            del self._waiting[change]
        return taken


class RevocationListener:
    """Listens on a channel and reports changes; reconnects for ever. Created by `PostgresStore.listen`.

    Args:
        connect: Opens a connection for this listener alone; may raise `StoreUnavailable` or a driver's exception.
        channel: The channel of the trigger (`REVOCATION_CHANNEL`).
        on_change: Called with the session id and the user id of each change, both None when anything may have
            changed: after each connect, and after an overflow.
        timeout_s: Deadline of each statement, in seconds.
        describe: Returns the text for a driver's exception.
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
        """Connect, listen and reconnect until cancelled. Failures are logged once per outage."""
        while True:
            try:
                await self._listen()
            except Exception as exc:  # the driver may raise nearly anything when the server is not PostgreSQL
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
                await self._report(changes)
                try:
                    async with asyncio.timeout(SILENCE_S):
                        await changes.wait()
                except TimeoutError:
                    await self._beat(connection, changes)
        finally:
            # After the deadline the driver has terminated the connection itself.
            with contextlib.suppress(Exception):
                await connection.close(timeout=CLOSE_S)

    async def _report(self, changes: PendingChanges) -> None:
        while taken := changes.take():
            for change in taken:
                self._on_change(*change)
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        if changes.malformed and now >= self._quiet_until:
            _log.warning(
                "notifications that the trigger did not send are ignored",
                channel=self._channel,
                count=changes.malformed,
            )
            changes.malformed, self._quiet_until = 0, now + MALFORMED_QUIET_S

    async def _beat(self, connection: Any, changes: PendingChanges) -> None:
        """Send a notification and wait for it: PgBouncer in transaction mode accepts LISTEN but loses most of them.

        Raises `StoreUnavailable` when it does not come back.
        """
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
