"""Functions of the program that the client calls: what they do wrong is theirs."""

from __future__ import annotations

import threading

import pytest

from watchout.client import Problem, connect
from watchout.client.background import Background
from watchout.client.commands import ConnectionPhase, PhaseChanged, Report


async def test_a_callback_that_raises_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    phases: list[PhaseChanged] = []

    def on_phase(change: PhaseChanged) -> None:
        phases.append(change)
        raise ValueError("a fault of the program")

    def on_problem(problem: Problem) -> None:
        raise KeyError(problem.code)

    async with connect("ws://127.0.0.1:9", token="t", on_phase=on_phase, on_problem=on_problem) as client:
        viewer = client.viewer()
        changed = PhaseChanged(ConnectionPhase.CONNECTING, "", None, "")
        viewer.do([Report(Problem(stream_id=None, code="RATE_LIMITED", message="slower")), changed, changed])
    assert [each.phase for each in phases] == [*[ConnectionPhase.CONNECTING] * 2, ConnectionPhase.CLOSED]
    assert "a fault of the program" in caplog.text
    assert "RATE_LIMITED" in caplog.text


def test_a_callback_in_the_thread_is_told_that_it_cannot_wait_for_the_thread() -> None:
    ended: list[BaseException | None] = []
    begin, end = threading.Event(), threading.Event()

    async def nothing() -> None:
        pass

    async def work() -> None:
        begin.wait(60)
        background.submit(nothing(), 60)

    def on_end(error: BaseException | None) -> None:
        ended.append(error)
        end.set()

    background = Background(work, on_end, "test")
    begin.set()
    assert end.wait(60)
    background.close()
    assert "cannot wait for that thread" in str(ended[0])
