"""Fixtures that several files of this folder use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.clients import new_name
from tests.kit.processes import Watchout, running


@pytest.fixture(scope="module")
def pair() -> Iterator[Watchout]:
    """Two gateways on one port. Do not end them."""
    with running(gateways=2) as started:
        yield started


@pytest.fixture
def token(pair: Watchout) -> str:
    return pair.token(new_name("user"))
