"""Looks again and again whether those who are here may still be: sessions in batches, tokens one by one, ends in time.

Decides nothing: `Presence` says who is due and what an answer means. While the session store cannot be asked nobody is
closed; the first round after it is back looks at everybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from watchout.common import log, metric_names, supervisor
from watchout.common.errors import StoreUnavailable
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.gateway.presence import Presence
from watchout.identity import Authenticator, Identity

#: Sessions, or users, of one query.
BATCH: Final = 1000
#: Tokens that are introspected at once.
INTROSPECTIONS: Final = 16
_log = log.get("gateway.revalidation")


class Member(Protocol):
    """Somebody who is here."""

    def __hash__(self) -> int: ...

    def session_ended(self) -> None:
        """What kept it in is no more."""

    def renewed(self, identity: Identity) -> None:
        """It is somebody with other rights now."""


class Revalidation:
    """The rounds of one gateway."""

    def __init__(
        self, settings: Settings, metrics: Metrics, presence: Presence[Any], authenticator: Authenticator
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._presence: Presence[Member] = presence
        self._authenticator = authenticator
        self._changed: set[str] = set()
        self._woken = asyncio.Event()
        self._all = False

    def changed(self, session_id: str | None, user_id: str | None) -> None:
        """The database says that this session or this user changed; neither: that anything may have."""
        if session_id is None and user_id is None:
            self._all = True
        else:
            self._changed |= self._presence.sessions_of(session_id, user_id)
        self._woken.set()

    def begin(self) -> list[Periodic]:
        """Look at everybody every `RECHECK_S` until the results are cancelled; `watch_changes` goes with it."""
        every, recheck_s = supervisor.current().every, self._settings.recheck_s
        looks = {
            "sessions": self._sessions,
            "ends of sessions": self._ends,
            "memberships": self._memberships,
            "introspections": self._introspections,
        }
        return [every(recheck_s, self._round_of(look), name, first_s=0) for name, look in looks.items()]

    def _round_of(self, look: Callable[[float], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
        loop, recheck_s = asyncio.get_running_loop(), self._settings.recheck_s
        return lambda: self._guarded(look, loop.time() + recheck_s)

    async def watch_changes(self) -> None:
        """Look at once at those who `changed`, for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            changed, self._changed = self._changed, set()
            everybody, self._all = self._all, False
            await self._guarded(self._look_up, self._presence.sessions() if everybody else list(changed))

    async def _guarded(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """That the store is away is said where it is noticed, and is no failure of the round."""
        try:
            await work(*arguments)
        except StoreUnavailable:
            self._metrics.count(metric_names.REVALIDATION_FAILED)

    async def _sessions(self, due: float) -> None:
        await self._look_up(self._presence.sessions(), due)

    async def _look_up(self, sessions: Sequence[str], due: float = 0.0) -> None:
        batches = [sessions[at : at + BATCH] for at in range(0, len(sessions), BATCH)]
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            live = await self._authenticator.live(batch)
            self._metrics.count(metric_names.SESSIONS_REVALIDATED, len(batch))
            ended, renewed = self._presence.compare(batch, live)
            self._end(ended)
            self._renew(renewed)
            if left:  # spread over the time until the next round, so that none of it is a burst
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()) / (left + 1))

    async def _ends(self, due: float) -> None:
        del due
        self._end(self._presence.overdue(time.time()))

    async def _memberships(self, due: float) -> None:
        del due
        users = self._presence.users_without_session()
        for at in range(0, len(users), BATCH):
            batch = users[at : at + BATCH]
            self._renew(self._presence.belong(batch, await self._authenticator.organizations(batch)))

    async def _introspections(self, due: float) -> None:
        del due
        tokens = self._presence.to_introspect(time.time(), self._settings.introspection_recheck_s)
        turn = asyncio.Semaphore(INTROSPECTIONS)

        async def one(member: Member, token: str) -> None:
            async with turn:
                found = await self._authenticator.introspect(token, recheck=True)
            ended, renewed = self._presence.introspected(member, found, time.time())
            self._end(ended)
            self._renew(renewed)

        guarding = supervisor.current().guarding

        async def guarded(member: Member, token: str) -> None:
            with guarding("introspection of a token"):
                await self._guarded(one, member, token)

        await asyncio.gather(*(guarded(member, token) for member, token in tokens))

    def _end(self, members: Sequence[Member]) -> None:
        for member in members:
            self._presence.remove(member)
            try:
                member.session_ended()
            except Exception:  # one member's trouble must not keep another in
                _log.exception("a client could not be told that its session has ended")

    def _renew(self, renewed: Sequence[tuple[Member, Identity]]) -> None:
        for member, identity in renewed:
            try:
                member.renewed(identity)
            except Exception:  # nor leave another with rights that it lost
                _log.exception("a client could not be told of its rights")
