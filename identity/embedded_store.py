"""Creates the embedded session store, a SQLite file with Better Auth's schema, and the users and tokens in it.

Synchronous; used by `watchout-ctl token` and the gateway when no `DATABASE_URL` is set. A real Better Auth can use the
file: the schema is the one that its migrations create. Verification is done by `identity.sources.sqlite`.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
import string
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from watchout.common.errors import StartError
from watchout.common.home import check_file
from watchout.common.toolbox import sqlite_alone

DEFAULT_USER: Final = "watchout"
DAY_S: Final = 86_400.0

#: User agent of the sessions that `mint_token` created; it returns and deletes no others.
MINTED_BY: Final = "watchout mint_token"

MAX_USER_CHARACTERS: Final = 64
MAX_LIFETIME_S: Final = 3650 * DAY_S

#: How long to wait for another process that writes, in seconds.
BUSY_S: Final = 5.0

#: As the migrations of Better Auth 1.7.25 make it; real Better Auth adds to it what its plugins need.
SCHEMA: Final = (
    (
        'CREATE TABLE "user" ("id" text not null primary key, "name" text not null, "email" text not null unique, '
        '"emailVerified" integer not null, "image" text, "createdAt" date not null, "updatedAt" date not null)'
    ),
    (
        'CREATE TABLE "session" ("id" text not null primary key, "expiresAt" date not null, "token" text not null '
        'unique, "createdAt" date not null, "updatedAt" date not null, "ipAddress" text, "userAgent" text, '
        '"userId" text not null references "user" ("id") on delete cascade)'
    ),
    (
        'CREATE TABLE "account" ("id" text not null primary key, "accountId" text not null, "providerId" text not '
        'null, "userId" text not null references "user" ("id") on delete cascade, "accessToken" text, '
        '"refreshToken" text, "idToken" text, "accessTokenExpiresAt" date, "refreshTokenExpiresAt" date, "scope" text, '
        '"password" text, "createdAt" date not null, "updatedAt" date not null)'
    ),
    (
        'CREATE TABLE "verification" ("id" text not null primary key, "identifier" text not null, "value" text not '
        'null, "expiresAt" date not null, "createdAt" date not null, "updatedAt" date not null)'
    ),
    'CREATE INDEX "session_userId_idx" on "session" ("userId")',
    'CREATE INDEX "account_userId_idx" on "account" ("userId")',
    'CREATE INDEX "verification_identifier_idx" on "verification" ("identifier")',
)


def ensure(path: Path) -> None:
    """Create the file (mode 0600), its schema and the default user, as far as they are missing.

    Safe when several processes do it at the same time.

    Raises:
        StartError: The file cannot be used.
    """
    with _opened(path):
        pass


def mint_token(path: Path, user: str | None = None, lifetime_s: float = 7 * DAY_S) -> str:
    """Return a session token for a user of the embedded store; create the file and the user when missing.

    The newest session that this function created for the user is reused while it has over a day left and does not
    outlive `lifetime_s`.

    Args:
        path: The file.
        user: Name of the user, None for the default user.
        lifetime_s: How long a new session lasts, in seconds.

    Raises:
        StartError: The name or the lifetime is not allowed, or the file cannot be used.
    """
    name = DEFAULT_USER if user is None else user
    if not 1 <= len(name) <= MAX_USER_CHARACTERS or not name.isprintable() or name != name.strip():
        raise StartError(
            f"the user name is {name[: MAX_USER_CHARACTERS + 1]!r}, expected 1 to {MAX_USER_CHARACTERS} printable "
            "characters without spaces around them"
        )
    if not math.isfinite(lifetime_s) or not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise StartError(f"the lifetime is {lifetime_s:g} s, expected over 0 and at most {MAX_LIFETIME_S:g} s")
    with _opened(path) as db, _transaction(db):
        return _session(db, _user(db, name), lifetime_s)


def _session(db: sqlite3.Connection, user_id: str, lifetime_s: float) -> str:
    now = time.time()
    ours = 'from "session" where "userId" = ? and "userAgent" = ?'
    newest = db.execute(
        f'select "token" {ours} and "expiresAt" > ? and "expiresAt" <= ? order by "expiresAt" desc limit 1',
        (user_id, MINTED_BY, _iso(now + DAY_S), _iso(now + lifetime_s)),
    ).fetchone()
    if newest is not None:
        return str(newest[0])
    # Better Auth deletes an expired row when it reads it; these may never be read.
    db.execute(f'delete {ours} and "expiresAt" <= ?', (user_id, MINTED_BY, _iso(now)))
    token = _random()
    db.execute(
        'insert into "session" ("id", "expiresAt", "token", "createdAt", "updatedAt", "ipAddress", "userAgent", '
        "\"userId\") values (?, ?, ?, ?, ?, '', ?, ?)",
        (_random(), _iso(now + lifetime_s), token, _iso(now), _iso(now), MINTED_BY, user_id),
    )
    return token


def _user(db: sqlite3.Connection, name: str) -> str:
    # Quoting keeps different names different, and any name a possible local part.
    email = f"{quote(name, safe='')}@localhost"
    found = db.execute('select "id" from "user" where "email" = ?', (email,)).fetchone()
    if found is not None:
        return str(found[0])
    user_id, now = _random(), _iso(time.time())
    db.execute(
        'insert into "user" ("id", "name", "email", "emailVerified", "createdAt", "updatedAt") '
        "values (?, ?, ?, 0, ?, ?)",
        (user_id, name, email, now, now),
    )
    return user_id


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as `ensure` leaves it. Raises `StartError` for every failure of the file."""
    try:
        _create(path)
        with contextlib.closing(sqlite_alone.open_file(str(path), timeout=BUSY_S, isolation_level=None)) as db:
            if not _has_schema(db):
                with _transaction(db):
                    _make_schema(db)
            _use_wal(db)
            yield db
    except OSError as exc:
        raise StartError(f"the session store {path} cannot be made: {exc.strerror}") from None
    except sqlite3.Error as exc:
        raise StartError(f"the session store {path} cannot be used: {exc}") from None


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        check_file(path.with_name(name))
    try:
        # Only a new file is opened here: closing a second descriptor of a database would drop
        # the locks that SQLite holds in this process (sqlite.org/howtocorrupt.html, section 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise StartError(f"the session store {path} cannot be used: it is not a file") from None


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, so that readers do not wait for writers."""
    give_up = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("pragma journal_mode = wal").fetchone()
        except sqlite3.OperationalError as exc:
            # The switch does not wait for the lock as other statements do.
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _has_schema(db: sqlite3.Connection) -> bool:
    return db.execute("select 1 from sqlite_master where type = 'table' and name = 'session'").fetchone() is not None


def _make_schema(db: sqlite3.Connection) -> None:
    if _has_schema(db):  # another process created it meanwhile
        return
    for statement in SCHEMA:
        db.execute(statement)
    _user(db, DEFAULT_USER)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("begin immediate")
    try:
        yield
    except BaseException:
        db.execute("rollback")
        raise
    db.execute("commit")


def _random() -> str:
    """Return 32 letters and digits, the form of Better Auth's ids and tokens."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(32))


def _iso(moment_s: float) -> str:
    """Return a time as Better Auth writes dates: ISO 8601 in UTC with milliseconds, so that they sort as text."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
