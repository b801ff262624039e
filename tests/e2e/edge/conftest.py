"""Watchouts that several files of this folder use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.edge.support import HURRIED, SIGNED, patched_gateway
from tests.kit.processes import Watchout, running


@pytest.fixture(scope="module")
def hurried() -> Iterator[Watchout]:
    """One in which the connection of a stranger is kept for less than a second."""
    with running(environ={**SIGNED, "STATS_TOKEN": "s" * 16}, start=False) as started:
        started.start("router")
        patched_gateway(started, HURRIED)
        started.wait_ready()
        yield started


@pytest.fixture(scope="module")
def signed() -> Iterator[Watchout]:
    """One that takes signed alerts."""
    with running(environ=SIGNED) as started:
        yield started
