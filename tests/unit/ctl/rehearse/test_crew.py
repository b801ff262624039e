"""The processes of clients end with the rehearsal, also with one that is ended while they are started."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from watchout.ctl.rehearse import processes
from watchout.ctl.rehearse.crew import Crew


async def test_those_that_were_started_are_ended_although_not_all_were(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended, second = ["first"], [], asyncio.Event()

    async def start(_: str) -> Any:
        if started:
            return started.pop()
        second.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def end(those: Iterable[Any]) -> None:
        ended.extend(those)

    monkeypatch.setattr(processes, "start", start)
    monkeypatch.setattr(processes, "end", end)
    crew = Crew()
    starting = asyncio.create_task(crew.start(2))
    await second.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await crew.close()
    assert ended == ["first"]
