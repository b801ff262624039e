"""Keys of the bus over TCP: pairs in files, and the list of bridges that a router lets in (CURVE, ZeroMQ RFC 26).

A key is 32 bytes, shown as 64 hexadecimal digits: they go through mail, shells and .env files unharmed. A file with a
secret key has mode 0600. The list is a directory with one file for each bridge, so that adding or removing one is a
single step that a running router sees by the directory's time.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from watchout.common import log
from watchout.common.errors import CurveFault
from watchout.common.home_files import CURVE_DIRECTORY

SERVER_FILE: Final = "server.key"
CLIENTS: Final = "clients"
#: Most bridges that a router lets in.
MAX_CLIENTS: Final = 1_000
#: A file of keys is never longer.
MAX_FILE_BYTES: Final = 4096
#: Changes of the list are noticed after this at the latest.
LOOK_EVERY_S: Final = 0.25
#: The time of a directory is not finer than this on every file system; younger than that, it is read again.
SETTLED_NS: Final = 2_000_000_000

KEY: Final = re.compile(r"[0-9a-fA-F]{64}\Z")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
SUFFIX: Final = ".pub"

_log = log.get("common.bus.zeromq.curve")


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair, in hexadecimal digits."""

    public: str
    secret: str = field(repr=False)


def new_pair() -> Pair:
    """A fresh pair."""
    public, secret = zmq.curve_keypair()
    return Pair(z85.decode(public).hex(), z85.decode(secret).hex())


def server_file(home: Path) -> Path:
    """Where the router of `home` keeps its own pair."""
    return home / CURVE_DIRECTORY / SERVER_FILE


def clients_directory(home: Path) -> Path:
    """Where the router of `home` keeps who is let in."""
    return home / CURVE_DIRECTORY / CLIENTS


def write_pair(path: Path, pair: Pair, whose: str) -> None:
    """Write a pair into a file that is not there yet, mode 0600. Raises `CurveFault`."""
    text = (
        f"# watchout: key pair of {whose} (CURVE). The secret key stays in this file, the public one may be told.\n"
        f"public {pair.public}\nsecret {pair.secret}\n"
    )
    _write_new(path, text, 0o600)


def load_pair(path: Path) -> Pair:
    """The pair of a file. Raises `CurveFault` that says what is wrong with it."""
    try:
        status = path.stat()
        mode = status.st_mode & 0o777
        text = _read(path)
    except (OSError, ValueError) as error:
        raise CurveFault(f"the key pair {path} cannot be read: {_why(error)}") from None
    if status.st_uid not in (0, os.geteuid()):
        # Whoever owns it can read the secret, and put another one in its place.
        raise CurveFault(
            f"the key pair {path} belongs to user {status.st_uid}, and this is user {os.geteuid()}: chown it"
        )
    if mode & 0o027:
        raise CurveFault(f"the key pair {path} has mode {mode:04o}, expected 0600: others could read or change it")
    words = dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) == 2)
    public, secret = words.get("public", ""), words.get("secret", "")
    if not KEY.match(public) or not KEY.match(secret):
        raise CurveFault(f"{path} is no key pair; expected what `watchout-ctl keys` writes")
    if zmq.curve_public(z85.encode(bytes.fromhex(secret))) != z85.encode(bytes.fromhex(public)):
        raise CurveFault(f"the public key in {path} does not belong to its secret key")
    return Pair(public.lower(), secret.lower())


def allow(home: Path, name: str, key: str) -> None:
    """Let in who holds the secret to this public key. Raises `CurveFault`, also for a name that is there."""
    if not NAME.match(name):
        raise CurveFault(f"{name[:80]!r} is no name for a key: 1 to 64 of A-Z a-z 0-9 _ . -, a letter or digit first")
    if not KEY.match(key):
        raise CurveFault(f"a public key has 64 hexadecimal digits, this one has {len(key)} characters")
    known = allowed(home)
    if len(known) >= MAX_CLIENTS:
        raise CurveFault(f"{len(known)} keys are allowed, which is the most")
    for other, its in known.items():
        if its == key.lower() and other != name:
            raise CurveFault(f"this key is allowed already, as {other}")
    _write_new(clients_directory(home) / f"{name}{SUFFIX}", f"{key.lower()}\n", 0o600)


def remove(home: Path, name: str) -> None:
    """Let in the holder of this name's key no more. Raises `CurveFault`."""
    try:
        if not NAME.match(name):
            raise FileNotFoundError
        (clients_directory(home) / f"{name}{SUFFIX}").unlink()
    except FileNotFoundError:
        raise CurveFault(f"no key is called {name[:80]!r}; `watchout-ctl keys list` shows them") from None
    except OSError as error:
        raise CurveFault(f"the key {name!r} cannot be removed: {_why(error)}") from None


def allowed(home: Path) -> dict[str, str]:
    """Names and keys of who is let in, by name. Files that hold no key are left out. Raises `CurveFault`."""
    return _read_directory(clients_directory(home))[0]


def broken(home: Path) -> list[str]:
    """Files among them that hold no key. Raises `CurveFault`."""
    return _read_directory(clients_directory(home))[1]


class AllowList:
    """Who is let in, as the directory now says; a missing or unreadable one lets nobody in."""

    def __init__(self, home: Path) -> None:
        self._directory = clients_directory(home)
        self._keys: dict[str, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked_at = float("-inf")
        self._fault: str | None = None

    def name_of(self, key: str) -> str | None:
        """Under which name this public key is let in; None: it is not."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._look()
        return self._keys.get(key)

    def look_again(self) -> None:
        """Whatever is asked next is answered from the directory as it is then."""
        self._looked_at = float("-inf")

    def _look(self) -> None:
        try:
            status = self._directory.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            found, bad = _read_directory(self._directory)
            fault = f"no key in {', '.join(bad[:5])}" if bad else None
        except FileNotFoundError:
            found, stamp, fault = {}, None, None
        except (OSError, CurveFault) as error:
            found, stamp, fault = {}, None, str(error)
        self._keys = {key: name for name, key in found.items()}
        self._stamp = stamp if stamp is not None and time.time_ns() - stamp[1] > SETTLED_NS else None
        if fault is not None and fault != self._fault:
            _log.warning("the list of allowed keys is not whole", directory=str(self._directory), reason=fault)
        self._fault = fault


def _read_directory(directory: Path) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    bad: list[str] = []
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise CurveFault(f"the allowed keys in {directory} cannot be read: {_why(error)}") from None
    for name in names[: 2 * MAX_CLIENTS]:
        try:
            key = _read(directory / name).strip()
        except FileNotFoundError:  # removed just now
            continue
        except (OSError, ValueError):
            key = ""
        if KEY.match(key) and NAME.match(name.removesuffix(SUFFIX)) and len(found) < MAX_CLIENTS:
            found[name.removesuffix(SUFFIX)] = key.lower()
        else:
            bad.append(name)
    return found, bad


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode("ascii")


def _write_new(path: Path, text: str, mode: int) -> None:
    """All or nothing: whoever reads meanwhile sees no half of it, and what was there is never overwritten."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.link(fresh, path)
    except FileExistsError:
        raise CurveFault(f"{path} is there already; remove it first if it is to be replaced") from None
    except OSError as error:
        raise CurveFault(f"{path} cannot be written: {_why(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
