"""Fixtures of the doctor's tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.kit.ctl_command import Ctl, Ended
from tests.kit.doctor_report import Doctor


@pytest.fixture
def doctor(ctl: Ctl, unused_port: int) -> Doctor:
    """The command to its end, on a port of its own unless said otherwise."""

    async def doctor(*arguments: object, **environ: str) -> Ended:
        return await ctl("doctor", *arguments, **{"WATCHOUT_PORT": str(unused_port), **environ})

    return doctor


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]
