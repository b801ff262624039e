"""Check of ``WATCHOUT_HOME``: owner, modes, free space, and the length of socket paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from watchout.common.home_files import SESSION_STORE_FILE, SOCKET_NAME_BYTES, is_home_file
from watchout.common.settings import SOCKET_PATH_BYTES, Settings
from watchout.ctl.doctor.check import blocking_check
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.terminal import size

#: Free bytes on the home's disk below which the doctor warns, and below which the session store fails soon.
FREE_WARNING_BYTES: Final = 200_000_000
FREE_WRONG_BYTES: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeFacts:
    """What `probe_home` found out about ``WATCHOUT_HOME``.

    Attributes:
        path: the home.
        mode: its mode, None if it does not exist.
        owner: id of the user who owns it.
        user: id of the user who runs the doctor.
        writable: whether this user may write to it, or to `parent` if it does not exist.
        read_only: whether its file system is mounted read-only.
        has_own_files: whether it holds files of watchout.
        has_other_files: whether it holds other files.
        store_mode: mode of the embedded session store, None if there is none.
        free_bytes: free space on its disk.
        parent: the nearest directory above it that exists.
    """

    path: Path
    mode: int | None = None
    owner: int = 0
    user: int = 0
    writable: bool = True
    read_only: bool = False
    has_own_files: bool = False
    has_other_files: bool = False
    store_mode: int | None = None
    free_bytes: int = 1 << 40
    parent: Path = Path("/")


def check_home(settings: Settings) -> list[Finding]:
    """Return the findings on the home. Blocks."""
    path = settings.home
    try:
        facts = probe_home(path)
    except OSError as exc:
        return [wrong("home", f"{path} cannot be examined: {exc.strerror}.", "Run this as the user of watchout.")]
    return list(judge_home(facts))


CHECK: Final = blocking_check("home", check_home)


def probe_home(path: Path) -> HomeFacts:
    """Return the facts about a home, whether or not it exists. Raises `OSError`."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    disk = os.statvfs(existing)
    facts = HomeFacts(
        path=path,
        user=os.geteuid(),
        writable=os.access(existing, os.W_OK | os.X_OK),
        read_only=bool(disk.f_flag & os.ST_RDONLY),
        free_bytes=disk.f_bavail * disk.f_frsize,
        parent=existing,
    )
    if existing != path:
        return facts
    status, store = path.stat(), path / SESSION_STORE_FILE
    names = {each.name for each in path.iterdir()} if os.access(path, os.R_OK) else set()
    own = {name for name in names if is_home_file(name)}
    return replace(
        facts,
        mode=status.st_mode,
        owner=status.st_uid,
        has_own_files=bool(own),
        has_other_files=bool(names - own),
        store_mode=store.stat().st_mode if store.name in names else None,
    )


def judge_home(home: HomeFacts) -> Iterator[Finding]:
    """Yield whether the processes can use the home, and whether its files are private."""
    yield _judge_directory(home)
    if home.store_mode is not None and home.store_mode & 0o077:
        store = home.path / SESSION_STORE_FILE
        yield wrong(
            "home",
            f"{store} has mode {home.store_mode & 0o777:04o}: other users of this machine may read valid tokens in it.",
            f"chmod 600 {store}",
        )
    if home.free_bytes < FREE_WARNING_BYTES:
        make = wrong if home.free_bytes < FREE_WRONG_BYTES else warning
        yield make("home", f"Only {size(home.free_bytes)} are free on the disk of {home.path}.", "Free some space.")


def _judge_directory(home: HomeFacts) -> Finding:
    """Return the one finding on the directory itself."""
    path = home.path
    socket_bytes = len(str(path).encode(errors="surrogateescape")) + SOCKET_NAME_BYTES
    lengths = f"socket paths have {socket_bytes} of {SOCKET_PATH_BYTES} bytes, {size(home.free_bytes)} are free"
    facts = {"path": str(path), "socketPathBytes": socket_bytes, "freeBytes": home.free_bytes}
    if home.read_only:
        return wrong(
            "home",
            f"{path} is on a file system that is mounted read-only, but sockets and locks are created in it.",
            "Mount it for writing, or set WATCHOUT_HOME.",
            **facts,
        )
    if home.mode is None:
        if home.writable:
            return ok("home", f"{path} does not exist yet, `watchout-gateway` creates it ({lengths}).", **facts)
        return wrong(
            "home",
            f"{path} does not exist, and user {home.user} may not create it in {home.parent}.",
            f"As root: install -d -m 700 -o <user of watchout> {path}; or set WATCHOUT_HOME.",
            **facts,
        )
    mode = f"{home.mode & 0o777:04o}"
    if home.user not in (0, home.owner):
        return wrong(
            "home",
            f"{path} belongs to user {home.owner}, and this is user {home.user}.",
            "Run all of watchout, and this command, as one user.",
            **facts,
        )
    if not home.writable:
        return wrong("home", f"{path} is not writable for this user.", f"chmod 700 {path}", **facts)
    if home.mode & 0o077 and home.has_other_files and not home.has_own_files:
        return wrong(
            "home",
            f"{path} has mode {mode} and holds other files: watchout refuses to start there.",
            "Set WATCHOUT_HOME to a directory of its own.",
            **facts,
        )
    if home.mode & 0o077:
        return warning("home", f"{path} has mode {mode}, expected 0700.", f"chmod 700 {path}", **facts)
    return ok("home", f"{path} is private ({lengths}).", **facts)
