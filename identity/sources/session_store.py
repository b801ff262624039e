"""The part of a session store that PostgreSQL and SQLite share: batches, deadlines, limits and logging.

Subclasses open connections and run statements. All failures are raised as `StoreUnavailable`; no text contains a token.
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

_log = log.get("identity.sources.session_store")

#: Most keys of one query; more keys are looked up by one query after another.
MAX_KEYS: Final = 1000

#: Most queries of one lane that are under way or wait; a further one is refused at once.
MAX_QUERIES: Final = 4096

#: While tickets cannot be deleted, the rights are read again at most once in this many seconds.
TICKETS_AGAIN_S: Final = 1.0

Choose = Callable[[Plan], Statement]


class UnusableStore(StoreUnavailable):
    """The database can never be used with these settings. Raised when `DatabaseStore` reads the schema.

    `DatabaseStore.open` turns it into a `StartError`, which ends the start; later it counts as `StoreUnavailable`.
    """


class HiddenRows(StoreUnavailable):
    """Row level security may hide rows from the gateway, so that a missing session may exist.

    Raised by `DatabaseStore` when it reads the schema. The caller keeps all sessions, as with every `StoreUnavailable`.
    """

    public = "row level security hides the sessions from the gateway"


class ChangedStore(StoreUnavailable):
    """The tables that answered are not those of before, so a missing session may still be live in the others.

    Raised by `DatabaseStore` until the store is accepted again (`identity.sources.continuity`). The caller keeps all
    sessions.
    """

    public = "the session store is not the one that it was"


class CannotRedeem(StoreUnavailable):
    """One-time tickets cannot be deleted from this database, so none can be redeemed; sessions can still be looked up.

    Raised by `DatabaseStore.redeem`; the text says which right or table is missing. The gateway asks the client to try
    again, because the ticket may be valid.
    """


class DatabaseStore(abc.ABC):
    """The part of a `SessionStore` that is the same for all databases; subclasses run the statements.

    It reads the schema into a `Plan` and renews it every minute, gives each query a turn (`PoolLanes`) and a deadline,
    checks that the store is still the same (`Continuity`), and logs outages. It does not combine look-ups: `Coalescer`
    does.

    Args:
        layout: Names of the tables and the operator's other settings.
        timeout_s: Deadline of each call in seconds, including the wait for a turn.
        connections: How many queries may run at the same time.
        max_waiting: Most one-time tickets that wait to be redeemed.
    """

    kind: ClassVar[str]
    dialect: ClassVar[Dialect]

    def __init__(self, layout: Layout, timeout_s: float, connections: int, max_waiting: int) -> None:
        self._layout = layout
        self._timeout_s = timeout_s
        self._is_open = False
        self._lanes = PoolLanes(connections)
        self._queries: dict[PoolLane, set[asyncio.Task[Any]]] = {lane: set() for lane in PoolLane}
        self._plans = PlanCache()
        self._outage = OutageLog()
        self._tickets = Coalescer(self._use_up, workers=1, timeout_s=timeout_s, max_waiting=max_waiting)
        self._ticket_fault = ""
        self._reread_at = 0.0
        self._continuity = Continuity()

    @property
    def plan(self) -> Plan | None:
        """The statements for this database; None before the schema was read, and when it has to be read again."""
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
        """See `SessionStore.live`. With two connections or more it never waits for `find` or `redeem`."""
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
        """See `SessionStore.redeem`. Raises `CannotRedeem` when this database does not let us delete tickets."""
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
        queries = [task for tasks in self._queries.values() for task in tasks]
        for task in queries:
            task.cancel()
        await asyncio.gather(*queries, return_exceptions=True)
        await self._release()

    @abc.abstractmethod
    async def _prepare(self) -> None:
        """Prepare without a query. Raises `StartError` for settings that cannot be used."""

    @abc.abstractmethod
    async def _release(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    async def _run(self, choose: Choose, keys: Sequence[str]) -> list[Any]:
        """Run the statement that `choose` picks from the plan, with these keys; return its rows.

        It is cancelled at the deadline. It raises `StoreUnavailable` or an exception of the driver.
        """

    @abc.abstractmethod
    def _describe(self, exc: Exception) -> str:
        """Return the text for a driver's exception; it must not contain any of the keys, which may be tokens."""

    async def _use_up(self, tickets: list[str]) -> Mapping[str, list[Identity]]:
        """Return the user of each valid ticket, in a list of one, which the first of several callers takes out."""
        ticket_of = {identifier: ticket for ticket in tickets for identifier in ticket_identifiers(ticket)}
        try:
            rows = await self._rows(PoolLane.LOOKUP, _redeem, list(ticket_of))
        except CannotRedeem as exc:
            if self._ticket_fault != str(exc):
                self._ticket_fault = str(exc)
                _log.warning("one-time tickets cannot be redeemed", reason=self._ticket_fault)
            if (now := asyncio.get_running_loop().time()) >= self._reread_at:
                self._reread_at = now + TICKETS_AGAIN_S
                self._plans.expire()
            raise
        self._ticket_fault = ""
        return {ticket_of[key]: [identity] for key, identity in map(read_identity, rows) if key in ticket_of}

    async def _identities(
        self, lane: PoolLane, choose: Choose, form: KeyForm, keys: Iterable[str]
    ) -> dict[str, Identity]:
        wanted = set(keys)
        rows = await self._all_rows(lane, choose, form, wanted)
        # In a numeric column SQLite finds 42 for '4.2e1'; only the text that is stored counts.
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
        queries = self._queries[lane]
        if len(queries) >= MAX_QUERIES:
            raise self._failed(StoreUnavailable(f"{MAX_QUERIES} queries are waiting already"))
        # A task of its own: a caller that is cancelled would otherwise cost a connection each time.
        task = asyncio.create_task(self._query(lane, choose, keys), name="query the session store")
        queries.add(task)
        task.add_done_callback(queries.discard)
        task.add_done_callback(retrieve_exception)
        await asyncio.wait({task})
        if task.cancelled():  # by `close`
            raise StoreUnavailable("the session store is closed")
        return task.result()

    async def _query(self, lane: PoolLane, choose: Choose, keys: Sequence[str]) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout_s), self._lanes.take(lane):
                rows = await self._run(choose, keys)
        except CannotRedeem:
            raise
        except StoreUnavailable as exc:
            raise self._failed(exc) from None
        except TimeoutError:
            raise self._failed(StoreUnavailable(f"{self.kind} gave no answer within {self._timeout_s:g} s")) from None
        except Exception as exc:  # a driver may raise nearly anything when the server is not what it expects
            raise self._failed(StoreUnavailable(self._describe(exc))) from None
        if self._outage.recovered():
            _log.info("session store is available again")
        return rows

    def _failed(self, exc: StoreUnavailable) -> StoreUnavailable:
        if self._outage.failed(str(exc), asyncio.get_running_loop().time()):
            _log.warning("session store unavailable", reason=str(exc))
        return exc

    async def _planned(self, find: Callable[[], Awaitable[TablesFound]]) -> Plan:
        """Return the plan in use, or make one from what `find` returns. Raises `StoreUnavailable` if there is none."""
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
        """Raise `ChangedStore` unless answers in this state are accepted; `look` probes the store for sessions."""
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
