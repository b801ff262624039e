"""What was felt: gaps of frames, alerts lost or delivered twice, and how long claims took. Pure; times in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Arrivals:
    """When frames came to one viewer."""

    name: str
    at: list[float] = field(default_factory=list)

    def longest_gap(self, since: float, now: float) -> float:
        """The longest time without a frame since then; the time that still lasts counts too."""
        longest, before = 0.0, next((each for each in reversed(self.at) if each <= since), since)
        for each in (*(each for each in self.at if each > since), now):
            longest, before = max(longest, each - before), each
        return longest

    def rate(self, since: float, now: float) -> float:
        """Frames a second since then."""
        return sum(each > since for each in self.at) / (now - since) if now > since else 0.0


@dataclass
class Claims:
    """How long claims of new streams of one slot took, with all their attempts."""

    slot: int
    done: list[tuple[float, float]] = field(default_factory=list)
    open_since: float | None = None

    def began(self, now: float) -> None:
        """A claim is tried for the first time."""
        self.open_since = now

    def granted(self, now: float) -> None:
        """It was granted."""
        assert self.open_since is not None
        self.done.append((self.open_since, now))
        self.open_since = None

    def longest(self, since: float, now: float) -> float:
        """The longest that a claim took, of those that ended since then; one that still waits counts too."""
        waits = [ended - max(began, since) for began, ended in self.done if ended > since]
        waits += [] if self.open_since is None else [now - max(self.open_since, since)]
        return max(waits, default=0.0)

    def works(self, since: float) -> bool:
        """Whether a claim that began since then was granted."""
        return any(began >= since for began, _ in self.done)


@dataclass
class AlertBook:
    """The alerts that were accepted, and those that came to each receiver, each in order."""

    accepted: list[str] = field(default_factory=list)
    came: dict[str, list[str]] = field(default_factory=dict)

    def accept(self, alert: str) -> None:
        """A gateway has accepted this alert."""
        self.accepted.append(alert)

    def arrive(self, receiver: str, alert: str) -> None:
        """It came to this receiver."""
        self.came.setdefault(receiver, []).append(alert)

    def lost(self, receivers: Iterable[str], since: int = 0) -> int:
        """How many of the alerts that were accepted after so many did not come to somebody, or have not yet."""
        have = [set(self.came.get(receiver, ())) for receiver in receivers]
        return sum(any(alert not in each for each in have) for alert in self.accepted[since:])

    def twice(self, since: int = 0) -> int:
        """How many of them came to somebody more than once."""
        counts = [Counter(came) for came in self.came.values()]
        return sum(any(count[alert] > 1 for count in counts) for alert in self.accepted[since:])
