"""What every session store does, whatever database it is on: batches, deadlines, bounds, and what is said of faults.

A store on a database adds how a connection is had and a statement is run. Whatever goes wrong is `StoreUnavailable`;
no text made here holds a token.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from watchout.common import log
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.toolbox.futures import retrieve_exception
from watchout.common.toolbox.outage import OutageLog
from watchout.identity.caller import Identity, Organizations
from watchout.identity.coalescing import Coalescer
from watchout.identity.pool_lanes import PoolLane, PoolLanes
from watchout.identity.schema.catalogue import Layout, SchemaRefusal, TablesFound
from watchout.identity.schema.dialects import Dialect
from watchout.identity.schema.key_forms import KeyForm, ticket_identifiers
from watchout.identity.schema.plan import Plan, PlanCache, Statement, make_plan
from watchout.identity.schema.rows import read_identity, read_organizations
from watchout.identity.sources.continuity import Continuity, Evidence, StoreState

_log = log.get("identity")

#: Keys that one query looks up; more are asked for one query after another.
MAX_KEYS: Final = 1000

#: Queries of one lane that are under way or wait for a connection.
MAX_QUERIES: Final = 4096

#: How often a ticket that cannot be used up makes us look whether it can be by now.
TICKETS_AGAIN_S: Final = 1.0

Choose = Callable[[Plan], Statement]


class UnusableStore(StoreUnavailable):
    """The database can never be used with these settings."""


class HiddenRows(StoreUnavailable):
    """Row level security hides rows from us, so that what is missing may be there."""

    public = "row level security hides the sessions from the gateway"


class ChangedStore(StoreUnavailable):
    """What answers is not the store that it was, so that what is missing may be in the other one."""

    public = "the session store is not the one that it was"


class CannotRedeem(StoreUnavailable):
    """Tickets cannot be used up here, while sessions can be looked up; the text says what is missing."""


class DatabaseStore(abc.ABC):
    """A `SessionStore` but for its database."""

    kind: ClassVar[str]
    dialect: ClassVar[Dialect]

    def __init__(self, layout: Layout, timeout_s: float, connections: int) -> None:
        self._layout = layout
        self._timeout_s = timeout_s
        self._is_open = False
        self._turns = PoolLanes(connections)
        self._asking: dict[PoolLane, set[asyncio.Task[Any]]] = {lane: set() for lane in PoolLane}
        self._plans = PlanCache()
        self._outage = OutageLog()
        self._tickets = Coalescer(self._use_up, workers=1, timeout_s=timeout_s)
        self._no_tickets = ""
        self._look_again_at = 0.0
        self._continuity = Continuity()

    @property
    def plan(self) -> Plan | None:
        """What was found of the database, once it was asked; looked at again every minute."""
        return self._plans.current(asyncio.get_running_loop().time())

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._prepare()
        self._is_open = True
        try:
            await self.check()
        except UnusableStore as exc:
            await self.close()
            raise StartError(f"the session store cannot be used: {exc}") from None
        except StoreUnavailable:
            pass  # it may come later; the log has it

    async def find(self, tokens: Iterable[str]) -> dict[str, Identity]:
        """See `SessionStore.find`."""
        found = await self._identities(PoolLane.LOOKUP, lambda plan: plan.by_token, KeyForm.TOKEN, tokens)
        self._continuity.remember(found.values())
        return found

    async def live(self, session_ids: Iterable[str]) -> dict[str, Identity]:
        """See `SessionStore.live`. It waits for no `find` and no `redeem` where there are two connections."""
        asked = list(session_ids)
        found = await self._identities(PoolLane.RECHECK, lambda plan: plan.by_session, KeyForm.TEXT, asked)
        self._continuity.forget_ended(asked, found)
        self._continuity.remember(found.values())
        return found

    async def organizations(self, user_ids: Iterable[str]) -> dict[str, Organizations]:
        """See `SessionStore.organizations`."""
        if not self._layout.organizations:
            return {}
        rows = await self._all_rows(PoolLane.RECHECK, _members, KeyForm.TEXT, user_ids)
        return {user_id: found for user_id, pairs in rows if (found := read_organizations(pairs))}

    async def redeem(self, ticket: str) -> Identity | None:
        """See `SessionStore.redeem`. A database that does not let us use up tickets says nothing about one."""
        if not ticket_identifiers(ticket):
            return None
        caller = await self._tickets.get(ticket)
        return caller.pop() if caller else None

    async def check(self) -> None:
        """See `SessionStore.check`."""
        await self._rows(PoolLane.RECHECK, lambda plan: plan.by_token, [])

    async def close(self) -> None:
        """See `SessionStore.close`."""
        self._is_open = False
        await self._tickets.close()
        asking = [task for tasks in self._asking.values() for task in tasks]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._release()

    @abc.abstractmethod
    async def _prepare(self) -> None:
        """Make ready without asking the database. Raises `StartError`."""

    @abc.abstractmethod
    async def _release(self) -> None:
        """Let go of every connection."""

    @abc.abstractmethod
    async def _run(self, choose: Choose, keys: Sequence[str]) -> list[Any]:
        """The rows of the statement that `choose` takes from the plan. May be cancelled at the deadline."""

    @abc.abstractmethod
    def _describe(self, exc: Exception) -> str:
        """What the driver's exception means, without any key in it."""

    async def _use_up(self, tickets: list[str]) -> Mapping[str, list[Identity]]:
        """The caller of each good ticket, in a list that the first of those who came with that ticket empties."""
        ticket_of = {identifier: ticket for ticket in tickets for identifier in ticket_identifiers(ticket)}
        try:
            rows = await self._rows(PoolLane.LOOKUP, _redeem, list(ticket_of))
        except CannotRedeem as exc:
            if self._no_tickets != str(exc):
                self._no_tickets = str(exc)
                _log.warning("tickets cannot be honoured", reason=self._no_tickets)
            if (now := asyncio.get_running_loop().time()) >= self._look_again_at:
                self._look_again_at = now + TICKETS_AGAIN_S
                self._plans.expire()
            raise
        self._no_tickets = ""
        return {ticket_of[key]: [identity] for key, identity in map(read_identity, rows) if key in ticket_of}

    async def _identities(
        self, lane: PoolLane, choose: Choose, form: KeyForm, keys: Iterable[str]
    ) -> dict[str, Identity]:
        wanted = set(keys)
        rows = await self._all_rows(lane, choose, form, wanted)
        # SQLite compares '42' and '4.2e1' as equal where a column is a number; only the one that is kept was found.
        return {key: identity for key, identity in map(read_identity, rows) if key in wanted}

    async def _all_rows(self, lane: PoolLane, choose: Choose, form: KeyForm, keys: Iterable[str]) -> list[Any]:
        fitting = [key for key in dict.fromkeys(keys) if form.accepts(key)]
        rows: list[Any] = []
        for start in range(0, len(fitting), MAX_KEYS):
            rows += await self._rows(lane, choose, fitting[start : start + MAX_KEYS])
        return rows

    async def _rows(self, lane: PoolLane, choose: Choose, keys: Sequence[str]) -> list[Any]:
        if not self._is_open:
            raise StoreUnavailable("the session store is closed")
        asking = self._asking[lane]
        if len(asking) >= MAX_QUERIES:
            raise self._failed(StoreUnavailable(f"{MAX_QUERIES} queries are waiting already"))
        # A task of its own: whoever asked may leave meanwhile, which would otherwise cost a connection each time.
        task = asyncio.create_task(self._answer(lane, choose, keys), name="ask the session store")
        asking.add(task)
        task.add_done_callback(asking.discard)
        task.add_done_callback(retrieve_exception)
        await asyncio.wait({task})
        if task.cancelled():  # by `close`
            raise StoreUnavailable("the session store is closed")
        return task.result()

    async def _answer(self, lane: PoolLane, choose: Choose, keys: Sequence[str]) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout_s), self._turns.take(lane):
                rows = await self._run(choose, keys)
        except CannotRedeem:
            raise
        except StoreUnavailable as exc:
            raise self._failed(exc) from None
        except TimeoutError:
            raise self._failed(StoreUnavailable(f"{self.kind} gave no answer within {self._timeout_s:g} s")) from None
        except Exception as exc:  # a server that is something else makes a driver raise nearly anything
            raise self._failed(StoreUnavailable(self._describe(exc))) from None
        if self._outage.recovered():
            _log.info("session store is available again")
        return rows

    def _failed(self, exc: StoreUnavailable) -> StoreUnavailable:
        if self._outage.failed(str(exc), asyncio.get_running_loop().time()):
            _log.warning("session store unavailable", reason=str(exc))
        return exc

    async def _planned(self, find: Callable[[], Awaitable[TablesFound]]) -> Plan:
        """The plan in use, or a new one from what `find` finds. Raises `StoreUnavailable` when there is none."""
        loop = asyncio.get_running_loop()
        if (plan := self._plans.current(loop.time())) is not None:
            return plan
        made = make_plan(await find(), self._layout, self.dialect)
        if isinstance(made, SchemaRefusal):
            raise (UnusableStore if made.final else HiddenRows if made.hidden else StoreUnavailable)(made.reason)
        if self._plans.replace(made, loop.time()):
            _log.info("session store found", store=self.kind, **made.facts)
            for warning in made.warnings:
                _log.warning("session store is slow", reason=warning)
        return made

    async def _trust(self, state: StoreState, look: Callable[[Sequence[str]], Awaitable[Evidence]]) -> None:
        """Raise `ChangedStore` when answers of this state are not to be believed; `look` gathers the evidence."""
        if self._continuity.accepts(state):
            return
        now = asyncio.get_running_loop().time()
        reason = self._continuity.recent_doubt(state, now)
        if reason is None:
            reason = self._continuity.judge(state, await look(self._continuity.sessions_to_probe()), now)
        if reason is not None:
            raise ChangedStore(reason)


def _members(plan: Plan) -> Statement:
    assert plan.members is not None, "a layout with organizations has them in each plan"
    return plan.members


def _redeem(plan: Plan) -> Statement:
    if isinstance(plan.redeem, SchemaRefusal):
        raise CannotRedeem(plan.redeem.reason)
    return plan.redeem
