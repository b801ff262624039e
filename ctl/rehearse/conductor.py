"""Conducts a rehearsal: starts what it needs, runs the clients, asks the system, and makes the result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from watchout.client import WatchoutClientError, connect
from watchout.common import metric_names
from watchout.common.settings import Settings
from watchout.ctl.client import Edge, failure_of
from watchout.ctl.environment import Failure
from watchout.ctl.rehearse import processes
from watchout.ctl.rehearse.crew import Crew
from watchout.ctl.rehearse.explained import compare
from watchout.ctl.rehearse.figures import joined_durations
from watchout.ctl.rehearse.ml_service import MlCounts, MlProfile
from watchout.ctl.rehearse.objectives import Verdict, judge, verdict_of
from watchout.ctl.rehearse.observer import Observer, observing
from watchout.ctl.rehearse.own_system import SERVERS, OwnSystem, kind_of
from watchout.ctl.rehearse.plan import LoadPlan, Scenario, make_plan, processes_for
from watchout.ctl.rehearse.result import Result, Whole, measured, own_load, points_of
from watchout.ctl.rehearse.soak import SMALL_BOUNDS, Soaking
from watchout.ctl.rehearse.soak_result import Soak, soak_verdict

ML_SERVICE: Final = "watchout.ctl.rehearse.ml_service"
#: Seconds for the ML service to end, and for the last reports of members to be in the stats.
ML_END_S: Final = 5.0
SETTLE_S: Final = 2.5
#: Minutes for which its own system remembers beyond the rehearsal, and the most that `WHY_MINUTES` may be.
REMEMBERED_LONGER_MIN: Final = 15.0
MAX_REMEMBERED_MIN: Final = 1440.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a rehearsal is to be. Made by the command from its options.

    Attributes:
        scenario: The load.
        limits: The objectives; of those, `optional` are left out where they cannot be measured.
        pictures: What cameras send.
        seed: Everything that is by chance follows from it.
        processes: Processes of clients; None: as many as the load needs.
        own_lag_ms: How late the clients' processes may be.
        ml: The ML service to run; None: none, the system has its own.
        edge: The running system; None: the rehearsal starts its own.
        tokens: Tokens for a running system.
        settings: The settings with which the bus of a running system is found.
        given: Settings of its own system, by name.
        soak: Whether it is a soak, of its own system.
        gateways: How many gateways its own system has.
    """

    scenario: Scenario
    limits: Mapping[str, float]
    pictures: Sequence[bytes]
    seed: int
    processes: int | None
    own_lag_ms: float
    ml: MlProfile | None
    edge: Edge | None
    tokens: Sequence[str]
    settings: Settings
    given: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    soak: bool = False
    gateways: int = 1


@dataclass(slots=True)
class _System:
    """The system that is rehearsed with; `observer` is None when its bus cannot be reached from here, `own` when it is
    not the rehearsal's.
    """

    url: str
    tokens: Sequence[str]
    says: str
    observer: Observer | None = None
    check: Callable[[], None] = lambda: None
    own: OwnSystem | None = None


class Conductor:
    """Conducts one rehearsal; `run` does.

    Args:
        wanted: What it is to be.
        on_stage: Gets a line when something begins.
        on_second: Gets the crew when figures came.
    """

    def __init__(self, wanted: Rehearsal, on_stage: Callable[[str], None], on_second: Callable[[Crew], None]) -> None:
        self._wanted = wanted
        self._on_stage = on_stage
        self._on_second = on_second
        self._random = random.Random(wanted.seed)
        self._notes: list[str] = []
        self._interrupted = False

    async def run(self) -> Result:
        """Run the rehearsal, and return its result. SIGINT and SIGTERM end it early, with the result of what was seen.

        Raises:
            Failure: It could not be run, or something that it needs ended.
        """
        async with contextlib.AsyncExitStack() as stack:
            ml = await stack.enter_async_context(_ml_service(self._wanted.ml, self._wanted.seed))
            system = await self._system(stack, ml)
            crew = Crew()
            stack.push_async_callback(crew.close)
            plan = self._plan(len(system.tokens))
            self._on_stage("starting the clients")
            await crew.start(self._wanted.processes or processes_for(plan, os.cpu_count() or 1))
            with self._ending_early(crew):
                soaking = await self._work(crew, plan, system)
            return await self._result(crew, system, ml, None if soaking is None else soaking.result())

    def _plan(self, tokens: int) -> LoadPlan:
        prefix = f"rehearse-{self._wanted.seed:x}-{os.getpid():x}"
        return make_plan(self._wanted.scenario, prefix=prefix, tokens=tokens, chance=self._random.random)

    # ── the system ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _system(self, stack: contextlib.AsyncExitStack, ml: _Ml | None) -> _System:
        if self._wanted.edge is None:
            assert ml is not None
            return await self._own_system(stack, ml)
        edge, tokens = self._wanted.edge, self._wanted.tokens or [self._wanted.edge.token()]
        for token in tokens:
            await _try_token(edge, token)
        system = _System(edge.url, tokens, f"running system at {edge.url}")
        try:
            system.observer = await stack.enter_async_context(observing(self._wanted.settings))
        except Failure as failure:
            self._notes.append(
                "hops, memory of processes, drops by reason and why are not known: this machine has no access to the "
                f"bus of the system ({failure.message})"
            )
        return system

    async def _own_system(self, stack: contextlib.AsyncExitStack, ml: _Ml) -> _System:
        self._on_stage("starting a system of its own")
        # Ends of connections are to be remembered until they are asked for.
        minutes = self._wanted.scenario.seconds / 60 + REMEMBERED_LONGER_MIN
        given = dict(self._wanted.given)
        if minutes > Settings().why_minutes:
            given = {"WHY_MINUTES": f"{min(minutes, MAX_REMEMBERED_MIN):g}", **given}
        if self._wanted.soak:  # services raise alerts in a soak
            given = {"SERVICE_TOKEN": secrets.token_hex(16), **SMALL_BOUNDS, **given}
        own = OwnSystem(given, f"http://127.0.0.1:{ml.port}/", gateways=self._wanted.gateways)
        stack.push_async_callback(own.close)
        token = await own.start()
        observer = await stack.enter_async_context(observing(own.settings))
        await observer.wait_for([kind_of(name) for name in own.names if name != SERVERS[0]], own.check)
        return _System(own.url, [token], "a system of its own", observer, own.check, own)

    # ── the load ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, crew: Crew, plan: LoadPlan, system: _System) -> Soaking | None:
        """Run the load, and what goes on beside it; return the soak, when it is one."""
        self._on_stage("the load begins")
        beside: list[asyncio.Task[None]] = []
        soaking = None
        if system.observer is not None:
            beside.append(asyncio.create_task(system.observer.watch(lambda: crew.at_s), name="stats"))
        if self._wanted.soak:
            assert system.own is not None
            assert system.observer is not None
            streams = [camera.stream for camera in plan.cameras]
            soaking = Soaking(system.own, system.tokens[0], streams, system.observer.watched.told)
            beside.append(asyncio.create_task(soaking.run(lambda: crew.at_s, plan.seconds), name="soak"))
            # It only ends by itself when it is broken: the load need not go on for hours then.
            beside[-1].add_done_callback(lambda task: None if task.cancelled() else crew.stop())
        try:
            await crew.work(plan, system.url, system.tokens, self._wanted.pictures, lambda: self._on_second(crew))
        finally:
            for task in beside:
                task.cancel()
            ended = await asyncio.gather(*beside, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        return soaking

    @contextlib.contextmanager
    def _ending_early(self, crew: Crew) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def end(number: int) -> None:
            if self._interrupted:
                os._exit(128 + number)
            self._interrupted = True
            self._on_stage("ending early; once more ends at once")
            crew.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
        yield

    # ── the result ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _result(self, crew: Crew, system: _System, ml: _Ml | None, soak: Soak | None) -> Result:
        wanted, counts, points = self._wanted, crew.counts, crew.series.points()
        seconds = min(wanted.scenario.seconds, max(0.0, crew.at_s)) if self._interrupted else wanted.scenario.seconds
        glass, alert = (
            Whole.of(joined_durations(each.glass for each in points)),
            Whole.of(joined_durations(each.alert for each in points)),
        )
        observer, explained, failures = system.observer, None, None
        hops, watched, dropped = [], [], {}
        if observer is not None:
            self._on_stage("asking the system what it saw")
            memories = await observer.memories(counts.streams, crew.begin_ms)
            explained = compare(
                counts.streams, memories, await observer.streamless(memories, crew.begin_ms), counts.lost
            )
            await asyncio.sleep(SETTLE_S)
            await observer.look(crew.at_s)
            hops, watched = await observer.hops(), observer.watched.processes()
            dropped = {
                reason: int(grown)
                for reason, name in metric_names.FRAMES_DROPPED.items()
                if (grown := observer.watched.grown(name))
            }
            requests = observer.watched.grown(metric_names.ML_REQUESTS)
            failures = observer.watched.grown(metric_names.ML_FAILURES) / requests if requests else None
        own = own_load(crew.series, crew.cores, counts, wanted.own_lag_ms)
        found = measured(
            counts, glass, alert, numbered=ml is not None, explained=explained, ml_failures=failures, processes=watched
        )
        limits = {
            name: limit
            for name, limit in wanted.limits.items()
            if name not in wanted.optional or found[name] is not None
        }
        judged = judge(limits, found)
        verdict = verdict_of(judged, own.says)
        if soak is not None:
            verdict = soak_verdict(verdict, soak)
        try:
            system.check()
        except Failure as failure:
            self._notes.append(failure.message)
            verdict = Verdict.FAILED
        return Result(
            verdict=verdict, objectives=judged, scenario=wanted.scenario, began_ms=crew.begin_ms,
            seconds=round(seconds, 1), interrupted=self._interrupted, system=system.says, seed=wanted.seed,
            counts=counts, glass=glass, alert=alert, own=own, ml=wanted.ml,
            ml_counts=None if ml is None else await ml.end(), hops=hops, processes=watched, dropped=dropped,
            explained=explained, ml_failures=failures, notes=self._notes, points=points_of(crew.series), soak=soak,
        )  # fmt: skip


class _Ml:
    """The ML service of a rehearsal, as a process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self._process = process

    async def end(self) -> MlCounts | None:
        """End it, and return what it counted; None when it does not say."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(ML_END_S):
                return msgspec.json.decode(await processes.line_of(self._process, "the ML service"), type=MlCounts)
        except (TimeoutError, Failure):
            return None


@contextlib.asynccontextmanager
async def _ml_service(profile: MlProfile | None, seed: int) -> AsyncIterator[_Ml | None]:
    if profile is None:
        yield None
        return
    process = await processes.start(ML_SERVICE, msgspec.json.encode(profile).decode(), str(seed))
    try:
        line = await processes.line_of(process, "the ML service of the rehearsal")
        yield _Ml(process, msgspec.json.decode(line, type=MlCounts).port)
    finally:
        await processes.end([process])


async def _try_token(edge: Edge, token: str) -> None:
    """Raise `Failure` when the gateway is not there, or refuses a token."""
    try:
        async with (
            connect(edge.url, token=token, wait_s=edge.wait_s) as client,
            client.subscribe("rehearse-token", alerts=False),
        ):
            pass
    except WatchoutClientError as error:
        raise failure_of(error, edge) from None
