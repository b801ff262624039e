"""The router's end of a bus that records what is sent, and a clock that stands until a test moves it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from watchout.common.bus.messages import Envelope, FromRouter, Hello, decode_from_router
from watchout.router.members import Members

EPOCH = 5
NOW_MS = 1_700_000_000_000
GATEWAY, OTHER, BRIDGE, OPERATOR, STRANGER = (letter * 8 for letter in (b"g", b"o", b"b", b"c", b"s"))


class RecordedBus:
    """A `RouterTransport` that keeps what it is given. `remote` members come from other machines."""

    frames_sent = frames_dropped = malformed = 0
    frames_at = refused = None
    over = "ipc"

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Envelope[FromRouter]]] = []
        self.frames: list[tuple[bytes, bytes]] = []
        self.forgotten: list[bytes] = []
        self.remote: set[bytes] = set()
        self.without_permission: list[bytes] = []

    def is_remote(self, member: bytes) -> bool:
        return member in self.remote

    def send_control(self, member: bytes, message: bytes) -> bool:
        self.sent.append((member, decode_from_router(message)))
        return True

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:
        self.frames.append((member, frame))

    def broadcast(self, message: bytes) -> None:
        """There is nobody who would have to be told."""

    def reaches(self, member: bytes) -> bool:
        return True

    def forget(self, member: bytes) -> None:
        self.forgotten.append(member)

    def revoked(self) -> list[bytes]:
        return self.without_permission

    def close(self) -> None:
        """There is nothing to close."""

    def take(self, member: bytes) -> list[FromRouter]:
        """Return the messages for a member since the last call, in their order."""
        taken = [envelope.body for to, envelope in self.sent if to == member]
        self.sent = [(to, envelope) for to, envelope in self.sent if to != member]
        return taken


class Clock:
    """The part of an event loop that the router's handler uses; in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, work: Callable[[], None]) -> Any:
        """Keep what is to run in the next turn, for `run_turn`."""
        self.soon.append(work)
        return SimpleNamespace(cancel=lambda: self.soon.remove(work))

    def call_later(self, delay_s: float, work: Callable[[], None]) -> Any:
        """Keep what is to run later, for `advance`."""
        due = self.now + delay_s, work
        self.later.append(due)
        return SimpleNamespace(cancel=lambda: self.later.remove(due), when=lambda: due[0])

    def advance(self, seconds: float) -> None:
        """Let time pass, run what is due, and turns until nothing waits."""
        self.now += seconds
        due = [each for each in self.later if each[0] <= self.now]
        self.later = [each for each in self.later if each not in due]
        for _, work in sorted(due, key=lambda each: each[0]):
            work()
        self.run_turns()

    def run_turn(self) -> bool:
        """Run what waits for the next turn. Return whether there was anything."""
        soon, self.soon = self.soon, []
        for work in soon:
            work()
        return bool(soon)

    def run_turns(self) -> None:
        """Run turns until nothing waits."""
        while self.run_turn():
            pass


def join(members: Members, member: bytes, kind: str = "gateway", now: float = 1000.0, **more: Any) -> None:
    """Make a process a member."""
    hello = Hello(kind=kind, name=kind, pid=1, **more)  # type: ignore[arg-type]
    members.receive(member, Envelope(0, 0, hello), now)
