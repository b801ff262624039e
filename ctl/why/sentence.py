"""What `watchout-ctl why` says: sentences with their cause and figures, and the words for figures in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from watchout.common.why.answer import SilentProcess, WhyAnswer
from watchout.ctl.terminal import clock, size

Figure = float | int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence. Made by the modules of `ctl.why`, put together by `explain`.

    Attributes:
        cause: The cause in one word, for programs; the same words are in docs/why.md.
        text: The sentence, without the time before it.
        at: When it happened, in ms since the epoch; None: it holds now.
        figures: What the sentence says in numbers.
        subject: The connection, stream, alert or process that it is about.
    """

    cause: str
    text: str
    at: int | None = None
    subject: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyFacts:
    """Everything that was answered about one subject. Made by `survey`.

    Attributes:
        about: The subject.
        now: The time of the question, in ms since the epoch.
        answers: One for each process.
        silent: The processes that did not answer.
        missing_slots: The slots of which no router answered, with the reason.
    """

    about: str
    now: int
    answers: Sequence[WhyAnswer] = ()
    silent: Sequence[SilentProcess] = ()
    missing_slots: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to the question.

    Attributes:
        about: The subject.
        found: Whether any process knows it.
        now: What holds now; of an alert, its life.
        past: What happened, oldest first.
        everybody: What happened meanwhile to all clients of a process.
        limits: What is not known: who did not answer, and since when the others remember.
    """

    about: str
    found: bool
    now: list[Sentence] = field(default_factory=list)
    past: list[Sentence] = field(default_factory=list)
    everybody: list[Sentence] = field(default_factory=list)
    limits: list[Sentence] = field(default_factory=list)


def fps(rate: float) -> str:
    """Return a rate of frames as a number, without digits that nobody can read: 30, 7.5, 0.4."""
    return f"{rate:.0f}" if rate >= 9.95 or abs(rate - round(rate)) < 0.05 else f"{rate:.1f}"


def per_second(bytes_per_s: float) -> str:
    """Return a rate of bytes: 0.6 MB/s, 40.0 kB/s."""
    return f"{bytes_per_s / 1e6:.1f} MB/s" if bytes_per_s >= 100_000 else f"{size(bytes_per_s)}/s"


def lasted(seconds: float) -> str:
    """Return a time span in its largest sensible unit: 140 ms, 12 s, 3.5 min, 2.0 h, 6.9 days."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def times(count: int) -> str:
    """Return how often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names in a sentence; those past `most` are counted."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def at(time_ms: int) -> str:
    """Return a time of day in a sentence."""
    return clock(time_ms)
