"""What is broken, which alerts it has to raise, and how a rehearsal watches them fire and resolve.

A breakage is an asynchronous context manager with `breaks(…)`: it breaks something when it is entered, and mends it at
its end. A scene is a running system, and its plan: steps of breakages, those of one step at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from tests.kit.clients import eventually
from tests.kit.prefork import run_forked
from tests.kit.processes import BIN, REPOSITORY, Watchout
from tests.kit.prometheus import Alert, Prometheus, prometheus

S = TypeVar("S")

#: An alert fires within this, and ends within that: windows of half an hour are two minutes here.
FIRES_S: Final = 120.0
RESOLVES_S: Final = 300.0
#: A command says what it has to within this.
SAYS_S: Final = 45.0
#: Seconds that Prometheus has scraped before something is broken.
KNOWN_S: Final = 8
#: Seconds between two looks at what fires.
LOOK_EVERY_S: Final = 0.5


@dataclass(frozen=True)
class Shows:
    """A command that an alert names, and what it says while the alert fires: a regular expression that is found."""

    command: tuple[str, ...]
    pattern: str


@dataclass(frozen=True)
class Breakage(Generic[S]):
    """One thing that is broken.

    Attributes:
        how: What is done, as a clause.
        alerts: The alerts that fire, each with the labels that it has to have.
        scene: Breaks it when it is entered, and mends it at its end.
        shows: What the commands of the page say meanwhile.
    """

    name: str
    how: str
    alerts: Mapping[str, Mapping[str, str]]
    run: Callable[[S], contextlib.AbstractAsyncContextManager[None]]
    shows: Sequence[Shows] = ()


def breaks(
    *rules: str, how: str, where: Mapping[str, str] | None = None, shows: Sequence[Shows] = ()
) -> Callable[[Callable[[S], AsyncIterator[None]]], Breakage[S]]:
    """Make a breakage of a generator function of a scene that yields once, while it is broken."""

    def register(function: Callable[[S], AsyncIterator[None]]) -> Breakage[S]:
        name = getattr(function, "__name__", "")
        return Breakage(
            name, how, dict.fromkeys(rules, where or {}), contextlib.asynccontextmanager(function), tuple(shows)
        )

    return register


@dataclass(frozen=True)
class Outcome:
    """What was seen of one rule and breakage; times in seconds."""

    rule: str
    how: str
    fired_s: float
    resolved_s: float
    summary: str


@dataclass
class Watch:
    """Looks at Prometheus' alerts while its block runs."""

    seen: Prometheus
    #: How many gateways it scrapes.
    targets: int
    #: What fires at this moment.
    firing: list[Alert] = field(default_factory=list)
    #: Every alert that fired, by name and labels, as it was told last.
    ever: dict[tuple[str, str], Alert] = field(default_factory=dict)
    looks: int = 0
    #: Of each rule that fired, the arms of its expression that had data meanwhile.
    arms: dict[str, set[str]] = field(default_factory=dict)
    #: All arms of each rule.
    rules: dict[str, list[str]] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Watch]:
        """Look while the block runs."""
        task = asyncio.create_task(self._look())
        try:
            yield self
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            alerts = await asyncio.to_thread(self.seen.alerts)
            self.firing = [alert for alert in alerts if alert.state == "firing"]
            await asyncio.to_thread(self._note_arms)
            self.ever |= {(alert.name, json.dumps(alert.labels)): alert for alert in self.firing}
            self.looks += 1
            await asyncio.sleep(LOOK_EVERY_S)

    def _note_arms(self) -> None:
        self.rules = self.rules or self.seen.arms()
        for rule in {alert.name for alert in self.firing}:
            known = self.arms.setdefault(rule, set())
            known |= {arm for arm in self.rules[rule] if arm not in known and self.seen.values(arm)}

    async def settled(self) -> None:
        """Wait until all is known that rules compare with: Prometheus begins some seconds after its start."""

        def known() -> bool:
            seen = self.seen.values(f"count_over_time(up[{KNOWN_S}s])")
            return len(seen) == self.targets and all(count >= KNOWN_S / 2 for _, count in seen)

        async def is_known() -> bool:
            return await asyncio.to_thread(known)

        await eventually(is_known, FIRES_S, "Prometheus does not scrape")

    def unexpected(self, steps: Sequence[Sequence[Breakage[Any]]]) -> set[str]:
        """Rules that fired and that no breakage names, with the labels for which they did."""
        named = {
            (rule, labels.get("process")) for step in steps for each in step for rule, labels in each.alerts.items()
        }
        return {
            f"{alert.name} {alert.labels.get('process', '')}"
            for alert in self.ever.values()
            if not {(alert.name, None), (alert.name, alert.labels.get("process"))} & named
        }

    def find(self, rule: str, labels: Mapping[str, str]) -> Alert | None:
        """An alert of this rule that fires, with these labels."""
        for alert in self.firing:
            if alert.name == rule and labels.items() <= alert.labels.items():
                return alert
        return None

    async def fires(self, rule: str, labels: Mapping[str, str] | None = None, within_s: float = FIRES_S) -> Alert:
        """Wait until the rule fires."""
        found = await eventually(lambda: self.find(rule, labels or {}), within_s, f"nobody is told: {rule} {labels}")
        assert isinstance(found, Alert)
        return found

    async def is_silent(self, rule: str, labels: Mapping[str, str] | None = None, within_s: float = RESOLVES_S) -> None:
        """Wait until the rule does not fire, as was looked at after this call."""
        looks = self.looks + 1
        await eventually(
            lambda: self.looks > looks and self.find(rule, labels or {}) is None, within_s,
            f"it does not end with its cause: {rule} {labels}",
        )  # fmt: skip


@contextlib.asynccontextmanager
async def watching(folder: Path, ports: Sequence[int]) -> AsyncIterator[Watch]:
    """A Prometheus that scrapes these gateways, and who looks at its alerts."""
    with prometheus(folder, *ports) as seen:
        async with Watch(seen, len(ports)).watching() as watch:
            yield watch


async def rehearse(
    steps: Sequence[Sequence[Breakage[S]]], scene: S, system: Watchout | None, watch: Watch
) -> list[Outcome]:
    """Break what the steps name, mend it, and return what was seen.

    Args:
        steps: What is broken at the same time.
        scene: The system, for the breakages.
        system: Where the commands are run that show the causes; None: they are not run.
        watch: Who looks at the alerts.

    Raises:
        AssertionError: Rules were silent, did not end, or a command did not say what it has to; all of one step.
    """
    await watch.settled()
    outcomes: list[Outcome] = []
    for step in steps:
        together = [asyncio.create_task(_one(breakage, scene, system, watch), name=breakage.name) for breakage in step]
        try:
            done = await asyncio.gather(*together, return_exceptions=True)
        finally:
            for task in together:
                task.cancel()
            await asyncio.gather(*together, return_exceptions=True)
        faults = [f"{fault!r}" for fault in done if isinstance(fault, BaseException)]
        assert not faults, "\n".join(faults)
        outcomes += itertools.chain.from_iterable(done)
    return outcomes


async def _one(breakage: Breakage[S], scene: S, system: Watchout | None, watch: Watch) -> list[Outcome]:
    for rule, labels in breakage.alerts.items():
        await watch.is_silent(rule, labels)
    began = time.monotonic()
    fired: dict[str, tuple[Alert, float]] = {}

    async def note(rule: str, labels: Mapping[str, str]) -> None:
        fired[rule] = (await watch.fires(rule, labels), time.monotonic() - began)
        print(f"{rule} fired after {fired[rule][1]:.0f} s: {breakage.how}: {fired[rule][0].annotations['summary']}")

    try:
        async with breakage.run(scene):
            await asyncio.gather(*(note(rule, labels) for rule, labels in breakage.alerts.items()))
            for shows in breakage.shows if system is not None else ():
                await _says(shows, system)
    except AssertionError as error:
        raise AssertionError(f"{breakage.name}: {error}") from error
    mended, outcomes = time.monotonic(), []
    for rule, labels in breakage.alerts.items():
        await watch.is_silent(rule, labels)
        alert, fired_s = fired[rule]
        resolved_s = time.monotonic() - mended
        print(f"{rule} ended {resolved_s:.0f} s after the mending: {breakage.how}")
        outcomes.append(Outcome(rule, breakage.how, fired_s, resolved_s, alert.annotations["summary"]))
    return outcomes


async def _says(shows: Shows, system: Watchout) -> None:
    """Wait until the command says it: what it is told of is as old as a report."""
    last = ""

    async def says() -> bool:
        nonlocal last
        command = [str(BIN / "watchout-ctl"), *shows.command]
        done = await asyncio.to_thread(run_forked, REPOSITORY, command, system.environ)
        last = done.stdout + done.stderr
        return re.search(shows.pattern, last) is not None

    await eventually(says, SAYS_S, lambda: f"{' '.join(shows.command)} does not say {shows.pattern!r}: {last}")


def write(outcomes: Sequence[Outcome], watch: Watch, path: Path) -> None:
    """Keep what was seen for the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arms = {rule: sorted(arms) for rule, arms in watch.arms.items()}
    kept = {"outcomes": [asdict(outcome) for outcome in outcomes], "rules": watch.rules, "arms": arms}
    path.write_text(json.dumps(kept, indent=1))


def read(folder: Path) -> tuple[list[Outcome], dict[str, list[str]], dict[str, set[str]]]:
    """All that was kept: the outcomes, the arms of each rule, and those that had data while it fired."""
    outcomes: list[Outcome] = []
    rules: dict[str, list[str]] = {}
    arms: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.json")):
        kept: dict[str, Any] = json.loads(path.read_text())
        outcomes += [Outcome(**row) for row in kept["outcomes"]]
        rules |= kept["rules"]
        for rule, seen in kept["arms"].items():
            arms.setdefault(rule, set()).update(seen)
    return outcomes, rules, arms


def silent_arms(rules: Mapping[str, Sequence[str]], seen: Mapping[str, set[str]]) -> list[str]:
    """Of the arms of each rule those that never had data, as sentences."""
    return [
        f"{rule}: nothing made this part of it true: {arm}"
        for rule, arms in rules.items()
        for arm in arms
        if arm not in seen.get(rule, set())
    ]
