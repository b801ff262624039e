"""Fixtures that several files of this folder use."""

from __future__ import annotations

import pytest

from tests.integration.mlbridge.targets_kit import WAIT_S


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame waits for a connection, and for its first result, as long as a paused machine may take.

    For tests with a service that is there and answers: where it is away, or gives no results, each frame would wait.
    """
    for module in ("reconnecting", "redis_server", "zeromq"):
        monkeypatch.setattr(f"watchout.mlbridge.targets.{module}.CONNECTION_WAIT_S", WAIT_S)
    monkeypatch.setattr("watchout.mlbridge.targets.pending_results.LEARN_S", WAIT_S)
