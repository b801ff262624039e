"""What a check of the doctor is: a section of the report and a coroutine that returns findings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from watchout.common.settings import Settings
from watchout.ctl.doctor.findings import Finding

#: Longest wait for one reply of a server, in seconds.
ASK_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the doctor. Each module in `ctl.doctor.checks` defines one as `CHECK`.

    Attributes:
        section: section of the report in which a failure of the check itself is shown; one of
            `ctl.doctor.registry.SECTIONS`.
        run: returns the findings for these settings. What it raises is reported by `ctl.doctor.examination`.
    """

    section: str
    run: Callable[[Settings], Awaitable[Sequence[Finding]]]


def blocking_check(section: str, probe: Callable[[Settings], Sequence[Finding]]) -> Check:
    """Return a `Check` that calls `probe` in a thread, because it does blocking I/O."""

    async def run(settings: Settings) -> Sequence[Finding]:
        return await asyncio.to_thread(probe, settings)

    return Check(section, run)
