"""Copies what has to be kept of a home into one compressed tar file, while watchout runs.

Databases are copied by SQLite's online backup: a state that was committed at one moment, also while the router writes.
Copying the files would tear a transaction apart, or leave out what is in the write-ahead log.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from watchout.common.home import check_file, prepare_home
from watchout.common.home_files import EPOCH_FILE, KEPT_DATABASES, KEPT_DIRECTORIES, KEPT_KEYS
from watchout.common.process.about import VERSION
from watchout.common.toolbox import sqlite_alone
from watchout.common.toolbox.reason import reason
from watchout.ctl.backup.contents import (
    CONTENTS_FILE,
    FORMAT,
    MAX_FILES,
    MAX_SMALL_BYTES,
    Contents,
    KeptFile,
    is_kept,
)
from watchout.ctl.environment import Failure

#: Seconds to wait for a process that writes.
BUSY_S: Final = 10.0


def save(home: Path, target: Path) -> Contents:
    """Write a backup of a home.

    Args:
        home: The home; processes may run in it.
        target: The file to make, mode 0600.

    Returns:
        What the backup holds.

    Raises:
        Failure: The target exists or cannot be written, the home holds nothing to keep, or a file of it is damaged. No
            target is left behind.

    """
    if not home.is_dir():
        raise Failure(f"there is no home at {home}: give it with --home or WATCHOUT_HOME")
    prepare_home(home)
    try:
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Failure(f"{target} exists, and a backup replaces nothing: give another name") from None
    except OSError as exc:
        raise Failure(f"{target} cannot be written: {reason(exc)}") from None
    try:
        with os.fdopen(out, "wb") as file:
            os.fchmod(out, 0o600)
            contents = _write(home, file, target.parent)
            file.flush()
            os.fsync(out)
    except BaseException as exc:
        with contextlib.suppress(OSError):
            target.unlink()
        if isinstance(exc, OSError):
            raise Failure(f"{target} cannot be written: {reason(exc)}") from None
        raise
    return contents


def _write(home: Path, file: io.BufferedWriter, beside: Path) -> Contents:
    """Copy everything into a directory of this user alone, and from there into the open file."""
    with tempfile.TemporaryDirectory(prefix=".watchout-backup-", dir=beside) as name:
        copies = Path(name)
        files = tuple(_copied(home, copies))
        if not files:
            raise Failure(f"{home} holds nothing to keep: it is not the home of a watchout that ran")
        made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        contents = Contents(FORMAT, VERSION, made, socket.gethostname(), str(home.absolute()), files)
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            listed = msgspec.json.format(msgspec.json.encode(contents))
            _add(tar, CONTENTS_FILE, io.BytesIO(listed), len(listed))
            for each in files:
                with (copies / each.name).open("rb") as copy:
                    _add(tar, each.name, copy, each.bytes)
    return contents


def _add(tar: tarfile.TarFile, name: str, content: io.BufferedIOBase, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(datetime.now(UTC).timestamp())
    tar.addfile(entry, content)


def _copied(home: Path, copies: Path) -> Iterator[KeptFile]:
    """Copy what is kept, one file after the other."""
    for name in KEPT_DATABASES:
        if (home / name).exists():
            copy_database(home / name, copies / name)
            yield describe(copies, name)
    names = [name for name in (*KEPT_KEYS, EPOCH_FILE) if (home / name).exists()]
    for directory in KEPT_DIRECTORIES:
        found = (path.relative_to(home).as_posix() for path in sorted((home / directory).rglob("*")) if path.is_file())
        names += [name for name in found if is_kept(name) and not name.endswith(".new")]
    if len(names) > MAX_FILES - len(KEPT_DATABASES):
        raise Failure(f"{home} holds {len(names)} keys and certificates, expected at most {MAX_FILES}")
    for name in names:
        content = _read_small(home / name)
        if content is None:
            continue  # a key that was removed just now
        (copies / name).parent.mkdir(parents=True, exist_ok=True)
        (copies / name).write_bytes(content)
        yield describe(copies, name)


def _read_small(path: Path) -> bytes | None:
    """Return the content of a key or certificate; None when it has gone. Raises `Failure`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SMALL_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {reason(exc)}") from None
    if len(content) > MAX_SMALL_BYTES:
        raise Failure(f"{path} has over {MAX_SMALL_BYTES} bytes: it is no file of watchout")
    return content


def copy_database(path: Path, copy: Path) -> None:
    """Copy an SQLite file that others may be writing to, as it was at one moment, and check the copy.

    Raises:
        Failure: It stays locked, is damaged, or cannot be read.

    """
    check_file(path)
    try:
        with (
            contextlib.closing(
                sqlite_alone.open_file(
                    f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
                )
            ) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            # The copy waits for writers here, for a bounded time; `Connection.backup` would wait for ever.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target)
            source.execute("ROLLBACK")
        check_database(copy)
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Failure(
                f"{path} stayed locked for {BUSY_S:g} s: by a router of a release before this command, which has to be "
                "stopped or restarted, or by another program"
            ) from None
        raise Failure(f"{path} cannot be copied: {exc}") from None


def check_database(path: Path) -> None:
    """Raise `sqlite3.DatabaseError` when the content of an SQLite file that nobody uses is damaged."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def describe(directory: Path, name: str) -> KeptFile:
    """Return size and digest of a file below a directory. Raises `OSError`."""
    with (directory / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return KeptFile(name, file.tell(), digest)
