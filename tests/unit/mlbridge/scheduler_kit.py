"""A scheduler with usual settings, and what its commands say."""

from __future__ import annotations

from watchout.mlbridge.commands import Command, OfferOutcome, SendFrame
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler


def make(
    *,
    max_fps: float = 2.0,
    in_flight: int = 2,
    timeout_s: float = 5.0,
    max_age_s: float = 1e6,
    max_streams: int = 100,
    max_waiting_bytes: int = 1 << 20,
    endpoints: int = 1,
    max_in_flight_bytes: int = 1 << 20,
) -> Scheduler[str]:
    return Scheduler(
        Failover(endpoints, in_flight, chance=lambda: 0.0),
        max_fps=max_fps,
        max_age_s=max_age_s,
        timeout_s=timeout_s,
        max_streams=max_streams,
        max_waiting_bytes=max_waiting_bytes,
        max_in_flight_bytes=max_in_flight_bytes,
    )


def sent(commands: list[Command[str]]) -> list[str]:
    return [command.frame for command in commands if isinstance(command, SendFrame)]


def offer(scheduler: Scheduler[str], stream: str, number: int, now: float, size: int = 1) -> OfferOutcome:
    return scheduler.offer(stream, (1, number), f"{stream}{number}", size, now)


def ticket(commands: list[Command[str]]) -> int:
    (command,) = commands
    assert isinstance(command, SendFrame)
    return command.ticket
