"""The verdict on the PostgreSQL server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from watchout.ctl.doctor.checks.database_server import ServerFacts, judge_server
from watchout.ctl.doctor.findings import Level

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


SERVER = ServerFacts(superuser=False, replica=False, trigger=None, offset_s=0.0, uncertainty_s=0.001)


@pytest.mark.parametrize(
    ("server", "level", "words"),
    [
        (replace(SERVER, superuser=True), WARNING, "superuser"),
        (replace(SERVER, replica=True), WARNING, "read replica"),
        (replace(SERVER, read_only=True), WARNING, "read-only"),
        (replace(SERVER, trigger=False), WARNING, "no trigger"),
        (replace(SERVER, trigger=True), OK, "exists"),
    ],
)
def test_what_a_server_says_of_itself(server: ServerFacts, level: Level, words: str) -> None:
    first, clock = judge_server(server)
    assert (first.level, clock.check) == (level, "clock")
    assert words in first.says
