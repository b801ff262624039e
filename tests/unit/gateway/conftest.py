"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

import pytest

from tests.kit.hub import HubHarness


@pytest.fixture
def harness() -> HubHarness:
    return HubHarness()
