"""A new registry for each test."""

from __future__ import annotations

import pytest

from tests.unit.router.streams.room import Room


@pytest.fixture
def room() -> Room:
    return Room()
