"""What the tests of every session store ask of it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from watchout.common.errors import StoreUnavailable
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.identity import Identity, SessionStore


async def verify(store: SessionStore, token: str) -> Identity | None:
    """Who has this token; nobody else is found."""
    found = await store.find([token])
    assert set(found) <= {token}
    return found.get(token)


async def refusal(store: SessionStore, token: str, timeout_s: float) -> str:
    """Why the store cannot be asked: it says so within its deadline, and not the token."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await verify(store, token)
    assert time.monotonic() - began < timeout_s + 20
    assert token not in str(caught.value)
    return str(caught.value)


def end_session(home: Path, token: str) -> None:
    """Sign out: the session of this token is gone from the embedded store of a home."""
    with contextlib.closing(sqlite3.connect(home / SESSION_STORE_FILE)) as store, store:
        assert store.execute("DELETE FROM session WHERE token = ?", (token,)).rowcount == 1
