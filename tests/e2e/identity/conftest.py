"""Houses, clubs and doors: Better Auth with a watchout, shared by the files of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.identity.support import House, furnished
from tests.kit.services import BETTER_AUTH, Postgres


@pytest.fixture(scope="session")
def house(postgres: Postgres, each_better_auth: str) -> Iterator[House]:
    """One for all files, for whatever changes nothing but its own users; JWTs name their session."""
    with furnished(postgres, each_better_auth, {"BA_CONFIG_MODULE": str(BETTER_AUTH / "session_in_jwt.mjs")}) as made:
        yield made
