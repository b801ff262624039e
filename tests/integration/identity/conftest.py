"""Databases and poolers for the tests of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.identity.postgres_kit import Database, PgBouncer
from tests.kit.services import Postgres


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return Database(postgres)


@pytest.fixture
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(postgres)
    bouncer.start()
    yield bouncer
    bouncer.remove()
