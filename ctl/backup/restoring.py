"""Checks a backup, and puts it into a home in which nothing runs; what was there is moved aside, not deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from watchout.common.bus.zeromq import curve
from watchout.common.errors import CurveFault
from watchout.common.home import lock_home, prepare_home
from watchout.common.home_files import (
    BEFORE_RESTORE_PREFIX,
    DATABASE_COMPANIONS,
    EPOCH_FILE,
    HOME_KEY_BYTES,
    KEPT_DATABASES,
    KEPT_DIRECTORIES,
    KEPT_KEYS,
    RESTORING_DIRECTORY,
)
from watchout.common.process.process_name import running
from watchout.common.toolbox.reason import reason
from watchout.ctl.backup.contents import CONTENTS_FILE, MAX_CONTENTS_BYTES, Contents, read_contents
from watchout.ctl.backup.saving import check_database, describe
from watchout.ctl.environment import Failure

_COPIED_AT_ONCE: Final = 1 << 20
#: All that a restore replaces, so that nothing of the former state is mixed into the restored one.
_REPLACED: Final = (
    *KEPT_DATABASES,
    *(name + companion for name in KEPT_DATABASES for companion in DATABASE_COMPANIONS),
    *KEPT_KEYS,
    EPOCH_FILE,
    *KEPT_DIRECTORIES,
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: the list of contents, and where the former files are (None: there were none)."""

    contents: Contents
    former: Path | None


def check(source: Path, staging: Path) -> Contents:
    """Unpack a backup into an empty directory, and check every file of it.

    Args:
        source: The backup.
        staging: The directory.

    Returns:
        What the backup holds.

    Raises:
        Failure: It is no backup, is not complete, is damaged, or is of a newer form.

    """
    try:
        with tarfile.open(source, "r:gz") as tar:
            contents = _unpacked(tar, staging)
    except (tarfile.TarError, EOFError, zlib.error, ValueError, msgspec.DecodeError) as exc:
        raise Failure(f"{source} is no backup of watchout, or is damaged: {str(exc) or type(exc).__name__}") from None
    except OSError as exc:  # gzip's own errors have no number
        raise Failure(f"{source} cannot be read: {reason(exc) if exc.errno else exc}") from None
    for name in (file.name for file in contents.files):
        try:
            _check_content(staging / name, name)
        except (sqlite3.DatabaseError, ValueError, CurveFault) as exc:
            raise Failure(f"{name} in {source} is damaged: {exc}") from None
    return contents


def _unpacked(tar: tarfile.TarFile, staging: Path) -> Contents:
    """Write the entries of a backup below `staging`, as the list of contents has them. Raises `ValueError`."""
    first = tar.next()
    if first is None or first.name != CONTENTS_FILE or not first.isreg() or first.size > MAX_CONTENTS_BYTES:
        raise ValueError(f"it does not begin with {CONTENTS_FILE}")
    contents = read_contents(_content(tar, first).read())
    for file in contents.files:
        entry = tar.next()
        if entry is None:
            raise ValueError(f"{file.name} is missing")
        if entry.name != file.name or not entry.isreg() or entry.size != file.bytes:
            raise ValueError(f"where {file.name} should be is {entry.name[:200]!r}, of {entry.size} bytes")
        path = staging / file.name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as copy:
            shutil.copyfileobj(_content(tar, entry), copy, _COPIED_AT_ONCE)
            copy.flush()
            os.fsync(copy.fileno())
        if describe(staging, file.name) != file:
            raise ValueError(f"the content of {file.name} was changed")
    if tar.next() is not None:
        raise ValueError("it has more entries than its list of contents")
    return contents


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(entry)
    if content is None:
        raise ValueError(f"{entry.name[:200]!r} is no file")
    return content


def _check_content(path: Path, name: str) -> None:
    """Raise one of three errors when a file of a backup is not what its name says."""
    if name in KEPT_DATABASES:
        check_database(path)
    elif name in KEPT_KEYS and path.stat().st_size != HOME_KEY_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes, expected {HOME_KEY_BYTES}")
    elif name == EPOCH_FILE and not path.read_bytes().strip().isdigit():
        raise ValueError("it is no number")
    elif name == curve.server_file(Path()).as_posix():
        curve.load_pair(path)


def restore(home: Path, source: Path, *, replace: bool) -> Restored:
    """Put a backup into a home. Nothing is changed before all of the backup was checked.

    Args:
        home: The home; created if it does not exist. No process may run in it.
        source: The backup.
        replace: Move files that are there aside, into a directory of the home. Without, they are an error.

    Returns:
        What was restored.

    Raises:
        Failure: A process runs in the home, there are files already, or the backup cannot be used.
        StartError: The home cannot be used, or its router runs.

    """
    prepare_home(home)
    _refuse_running(home)
    there = [name for name in _REPLACED if os.path.lexists(home / name)]
    if there and not replace:
        raise Failure(
            f"{home} holds {', '.join(there)} already: with --replace they are moved into a directory beside them"
        )
    lock = lock_home(home)
    staging = home / RESTORING_DIRECTORY
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a restore that was killed
        staging.mkdir(mode=0o700)
        contents = check(source, staging)
        _keep_higher_epoch(home, staging)
        _refuse_running(home)
        former = _exchange(home, staging)
    except OSError as exc:
        raise Failure(f"{home} cannot be written, and is as it was: {reason(exc)}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)
    return Restored(contents, former)


def _refuse_running(home: Path) -> None:
    """Raise `Failure` while processes run in the home: they hold open what would be replaced."""
    alive = running(home)
    if alive:
        names = ", ".join(f"{name} (process {pid})" if pid else name for name, pid in alive.items())
        raise Failure(f"{names} runs in {home}: stop all of watchout first, as it would go on with the former files")


def _keep_higher_epoch(home: Path, staging: Path) -> None:
    """Let the epoch not go back: members obey the router with the highest one."""
    with contextlib.suppress(OSError, ValueError):
        former = int((home / EPOCH_FILE).read_text(encoding="ascii")[:64])
        restored = staging / EPOCH_FILE
        if not restored.exists() or former > int(restored.read_text(encoding="ascii")):
            restored.write_text(f"{former}\n", encoding="ascii")
            restored.chmod(0o600)


def _exchange(home: Path, staging: Path) -> Path | None:
    """Move the former files aside and the new ones in; undo all of it when one step fails. Raises `OSError`."""
    aside = _new_directory(home)
    moves = [(home / name, aside / name) for name in _REPLACED if os.path.lexists(home / name)]
    moves += [(path, home / path.name) for path in sorted(staging.iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for before, after in moves:
            before.rename(after)
            done.append((before, after))
        for directory in (aside, home):
            _flush(directory)
    except OSError:
        for before, after in reversed(done):
            after.rename(before)
        aside.rmdir()
        raise
    if any(aside.iterdir()):
        return aside
    aside.rmdir()
    return None


def _new_directory(home: Path) -> Path:
    """Return a new directory in the home, named after the time."""
    stem = f"{BEFORE_RESTORE_PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for path in _names(home, stem):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path
    raise AssertionError("there is always a further name")


def _names(home: Path, stem: str) -> Iterator[Path]:
    yield home / stem
    number = 2
    while True:
        yield home / f"{stem}-{number}"
        number += 1


def _flush(directory: Path) -> None:
    """Make the names in a directory outlast a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
