"""Fixtures of the tests of published keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.identity.jwks_kit import Clock, Issuer, opened
from watchout.identity.sources import jwks
from watchout.identity.sources.jwt import JwtVerifier


@pytest.fixture(autouse=True)
def issuers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No issuer of a test is too late because the machine is slow; a test of the deadline sets its own."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 60.0)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[JwtVerifier]:
    async with opened(issuer.url, clock) as verifier:
        yield verifier
