"""Whether alerts are missing: against a model that remembers every alert that there ever was."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.router.alerts.completeness import STEP_MS, Completeness
from watchout.router.alerts.recent import RecentAlerts

START_MS = 1_700_000_000_000
STREAMS = ("a", "b", "c")


@dataclass
class World:
    """A router with small bounds, its clocks, and everything that happened."""

    monotonic_s: float = 1000.0
    wall_ms: int = START_MS
    latest_ms: int = START_MS
    router: RecentAlerts = field(init=False)
    #: Stream, id, accepted at, latest time by which it is found, run of the router, number.
    accepted: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    #: When viewers left: stream, the server's time then, how many alerts there were.
    left: list[tuple[str, int, int]] = field(default_factory=list)
    run: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start a router; its clock is not behind what it ever showed."""
        self.run += 1
        self.monotonic_s, self.wall_ms = 5.0, max(self.wall_ms, self.latest_ms)
        self.router = RecentAlerts(limit=4, minutes=1.0, max_bytes=20_000, started_ms=self.wall_ms)
        self.router.completeness = Completeness(self.wall_ms, max_streams=2)
        self.observe()

    def observe(self) -> None:
        self.router.completeness.observe(self.monotonic_s, self.wall_ms)

    def wait(self, ms: int) -> None:
        self.monotonic_s += ms / 1000
        self.wall_ms += ms
        self.latest_ms = max(self.latest_ms, self.wall_ms)

    def step(self, ms: int) -> None:
        """Set the wall clock."""
        self.wall_ms += ms
        self.latest_ms = max(self.latest_ms, self.wall_ms)

    def alert(self, stream: str, ahead_ms: int, size: int) -> None:
        self.observe()
        name, timestamp = f"n{len(self.accepted)}", self.wall_ms + ahead_ms
        alert = Alert(id=name, stream_id=stream, severity="low", message="m" * size, timestamp=timestamp)
        assert self.router.accept(alert, self.wall_ms, owner="ann")
        self.accepted.append((stream, name, self.wall_ms, max(self.wall_ms, timestamp), self.run))

    def leave(self, stream: str) -> None:
        self.left.append((stream, self.wall_ms + 1, len(self.accepted)))
        self.wait(2)

    def ask(self, stream: str, since: int) -> tuple[set[str], int | None]:
        self.observe()
        rows = self.router.recent(stream, since=since, limit=3, or_acknowledged=True)
        return {row[0] for row in rows}, self.router.missing(stream, since, len(rows), self.wall_ms)

    def check(self) -> None:
        """Nothing that is claimed to be there is missing."""
        for stream, since, number in self.left:
            found, missing = self.ask(stream, since)
            if missing is None:
                later = {name for of, name, *_ in self.accepted[number:] if of == stream}
                assert later <= found, (stream, since)
            else:
                assert missing <= self.latest_ms
        for since in (self.wall_ms - 100, self.wall_ms - 30_000, START_MS, 1, self.wall_ms + 5):
            for stream in STREAMS:
                found, missing = self.ask(stream, since)
                ever = {name for of, name, _, newest, run in self.accepted if (of, run) == (stream, self.run)
                        and newest >= since}  # fmt: skip
                if missing is None:
                    assert found == ever, (stream, since)


STREAM = st.sampled_from(STREAMS)
STEPS = st.integers(-100_000, 100_000).filter(lambda ms: abs(ms) > STEP_MS + 1)
EVENTS = st.lists(
    st.tuples(st.just("alert"), STREAM, st.sampled_from([0, 0, -50, 5_000, 90_000]), st.sampled_from([1, 3_000]))
    | st.tuples(st.just("leave"), STREAM)
    | st.tuples(st.just("wait"), st.integers(0, 90_000))
    | st.tuples(st.just("step"), STEPS)
    | st.tuples(st.just("restart"))
    | st.tuples(st.just("check")),
    max_size=40,
)


@given(EVENTS)
@example([("leave", "a"), ("alert", "a", 0, 1), ("step", -60_000), ("alert", "a", 0, 1), ("wait", 61_000), ("check",)])
@example([("leave", "a"), *[("alert", "a", 0, 1)] * 5, ("wait", 1), ("check",)])
@example([("leave", "a"), ("alert", "a", 0, 1), ("wait", 61_000), ("check",)])
@example([("leave", "a"), ("alert", "a", 0, 1), ("step", -10_002)])
@example([("leave", "a"), ("alert", "a", 0, 1), ("restart",), ("wait", 5), ("check",)])
def test_what_is_claimed_to_be_complete_is(events: list[tuple[object, ...]]) -> None:
    world = World()
    for what, *arguments in events:
        getattr(world, str(what))(*arguments)
    world.wait(1)
    world.check()


# ── and it is claimed whenever it is so ───────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_claimed() -> None:
    world = World()
    world.wait(10)
    since = world.wall_ms
    for stream in STREAMS:
        world.alert(stream, 0, 1)
    world.wait(10)
    for number, stream in enumerate(STREAMS):
        assert world.ask(stream, since) == ({f"n{number}"}, None)
    assert world.ask("quiet", since) == (set(), None)
    assert world.ask("a", START_MS + 1)[1] is None
    assert world.ask("a", START_MS)[1] is not None, "before the router's start"


def test_the_oldest_that_is_kept_is_named() -> None:
    world = World()
    world.wait(10)
    since = world.wall_ms
    for _ in range(6):
        world.wait(1000)
        world.alert("a", -100, 1)
    found, oldest = world.ask("a", since)
    assert found == {"n3", "n4", "n5"}, "at most three in a reply of this test"
    assert oldest == since + 4000 - 100
    world.wait(200_000)
    world.router.prune(world.wall_ms)
    assert world.ask("a", since) == (set(), since + 6000 + 1)


def test_a_stream_that_lost_alerts_says_nothing_of_others() -> None:
    world = World()
    world.wait(10)
    since = world.wall_ms
    world.alert("b", 0, 1)
    for _ in range(9):
        world.alert("a", 0, 1)
    world.wait(10)
    assert world.ask("a", since)[1] is not None
    assert world.ask("b", since) == ({"n0"}, None)


def test_a_clock_that_was_set_forward_loses_nothing() -> None:
    world = World()
    world.wait(10)
    since = world.wall_ms
    world.step(30_000)
    world.alert("a", 0, 1)
    world.wait(10)
    assert world.ask("a", since) == ({"n0"}, None)


def test_readings_that_differ_a_little_are_no_step() -> None:
    found = Completeness(START_MS)
    for number in range(1000):
        found.observe(number, START_MS + number * 1000 - number % 90)
    assert found.covers("a", START_MS + 1, START_MS + 10**6)


def test_an_acknowledgement_of_a_dropped_alert_is_missing_too() -> None:
    world = World()
    world.wait(10)
    world.alert("a", 0, 1)
    world.wait(1000)
    assert world.router.acknowledge("a", "n0", Acknowledgement(user="ann", at=world.wall_ms)) is not None
    since = world.wall_ms
    world.wait(59_500)
    world.router.prune(world.wall_ms)
    assert world.ask("a", since)[1] is not None


def test_what_is_known_of_streams_is_bounded_and_what_is_forgotten_counts_for_all() -> None:
    found = Completeness(0, max_streams=10)
    for number in range(1000):
        found.drop(f"s{number}", 1000 + number)
        assert len(found) <= 10
    for number in range(1000):
        assert found.missing_until(f"s{number}") >= 1000 + number
    assert found.missing_until("other") < 2000


def test_alerts_that_are_kept_and_not_in_the_reply_are_missing() -> None:
    world = World()
    world.wait(10)
    since = world.wall_ms
    for _ in range(4):
        world.wait(1000)
        world.alert("a", 0, 1)
    assert world.ask("a", since) == ({"n1", "n2", "n3"}, since + 2000)


def test_of_a_time_to_come_nothing_is_known() -> None:
    world = World()
    world.wait(10)
    assert world.ask("a", world.wall_ms)[1] is None
    assert world.ask("a", world.wall_ms + 1) == (set(), START_MS + 1)
