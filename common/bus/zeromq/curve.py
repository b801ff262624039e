"""Keys of the bus over TCP (CURVE, ZeroMQ RFC 26): key pairs in files, and the list of bridges that may connect.

A key is 32 bytes, written as 64 hexadecimal digits, which survive mail, shells and .env files. A file with a secret key
has mode 0600. The list is a directory with one file for each bridge: adding or removing one is a single step, which a
running router notices by the directory's modification time.
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
from watchout.common.toolbox.reason import reason

SERVER_FILE: Final = "server.key"
CLIENTS: Final = "clients"
#: Most keys on the list.
MAX_CLIENTS: Final = 1_000
#: Bytes that are read of a key file; a valid one is never longer.
MAX_FILE_BYTES: Final = 4096
#: A change of the list is noticed within this time, in seconds.
READ_EVERY_S: Final = 0.25
#: Some file systems store modification times this coarsely: a directory that changed more recently is read again.
SETTLED_NS: Final = 2_000_000_000

KEY: Final = re.compile(r"[0-9a-fA-F]{64}\Z")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
SUFFIX: Final = ".pub"

_log = log.get("common.bus.zeromq.curve")


@dataclass(frozen=True, slots=True)
class Pair:
    """A CURVE key pair of the router or of a bridge, as 64 hexadecimal digits each; `repr` leaves the secret out.

    Made by `new_pair` and `load_pair`, for the bus over TCP.
    """

    public: str
    secret: str = field(repr=False)


def new_pair() -> Pair:
    """Return a new key pair, made from the system's random numbers."""
    public, secret = zmq.curve_keypair()
    return Pair(z85.decode(public).hex(), z85.decode(secret).hex())


def server_file(home: Path) -> Path:
    """Return the path of the router's own key pair in `home`."""
    return home / CURVE_DIRECTORY / SERVER_FILE


def clients_directory(home: Path) -> Path:
    """Return the directory of the keys that the router of `home` lets in."""
    return home / CURVE_DIRECTORY / CLIENTS


def write_pair(path: Path, pair: Pair, whose: str) -> None:
    """Write a key pair to a new file, mode 0600.

    Args:
        path: The file; missing directories are made with mode 0700.
        pair: The pair.
        whose: Owner of the pair, for the comment in the file.

    Raises:
        CurveFault: The file exists, or cannot be written.

    """
    text = (
        f"# watchout: key pair of {whose} (CURVE). The secret key stays in this file, the public one may be told.\n"
        f"public {pair.public}\nsecret {pair.secret}\n"
    )
    _write_new(path, text, 0o600)


def load_pair(path: Path) -> Pair:
    """Read a key pair.

    Args:
        path: A file of `write_pair`.

    Returns:
        The pair.

    Raises:
        CurveFault: The file cannot be read, is not a key pair, or others may read or change it.

    """
    try:
        status = path.stat()
        mode = status.st_mode & 0o777
        text = _read(path)
    except (OSError, ValueError) as error:
        raise CurveFault(f"the key pair {path} cannot be read: {_cause(error)}") from None
    if status.st_uid not in (0, os.geteuid()):
        # Its owner could read the secret, or replace it.
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
    """Add a public key to the list.

    Args:
        home: The router's home.
        name: Name of the bridge, not used yet.
        key: Its public key.

    Raises:
        CurveFault: Name or key is invalid or on the list already, the list is full, or a file cannot be written.

    """
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
    """Remove a key from the list; a connected bridge loses its membership within a second.

    Args:
        home: The router's home.
        name: The name under which the key was added.

    Raises:
        CurveFault: There is no such name, or the file cannot be removed.

    """
    try:
        if not NAME.match(name):
            raise FileNotFoundError
        (clients_directory(home) / f"{name}{SUFFIX}").unlink()
    except FileNotFoundError:
        raise CurveFault(f"no key is called {name[:80]!r}; `watchout-ctl keys list` shows them") from None
    except OSError as error:
        raise CurveFault(f"the key {name!r} cannot be removed: {_cause(error)}") from None


def allowed(home: Path) -> dict[str, str]:
    """Return the keys on the list by name, without files that hold no key.

    Raises:
        CurveFault: The directory cannot be read.

    """
    return _read_directory(clients_directory(home))[0]


def broken(home: Path) -> list[str]:
    """Return the names of the files in the list's directory that hold no key.

    Raises:
        CurveFault: The directory cannot be read.

    """
    return _read_directory(clients_directory(home))[1]


class AllowList:
    """The public keys of the bridges that may connect to the router over TCP, read from a directory in the router's
    home.

    Created for `TcpRouterTransport`, which asks `name_of` at each handshake. The directory is read again after a
    change, at most every `READ_EVERY_S` seconds. When it is missing or unreadable, no bridge may connect, and the
    reason is logged.

    Args:
        home: The router's home.

    """

    def __init__(self, home: Path) -> None:
        self._directory = clients_directory(home)
        self._keys: dict[str, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._read_at = float("-inf")
        self._fault: str | None = None

    def name_of(self, key: str) -> str | None:
        """Return the name of the bridge with this public key, None when the key is not on the list."""
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            self._read_again()
        return self._keys.get(key)

    def refresh(self) -> None:
        """Read the directory again for the next `name_of`."""
        self._read_at = float("-inf")

    def _read_again(self) -> None:
        """Read the list if its directory changed."""
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
            _log.warning(
                "some allowed keys cannot be read, bridges with them cannot connect",
                directory=str(self._directory),
                reason=fault,
            )
        self._fault = fault


def _read_directory(directory: Path) -> tuple[dict[str, str], list[str]]:
    """Return the keys by name, and the names of the files without a key. Raises `CurveFault`."""
    found: dict[str, str] = {}
    bad: list[str] = []
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise CurveFault(f"the allowed keys in {directory} cannot be read: {_cause(error)}") from None
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
    """Create a file with its content in one step, by a link, and never overwrite one. Raises `CurveFault`."""
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
        raise CurveFault(f"{path} cannot be written: {_cause(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _cause(error: Exception) -> str:
    """Return why a key file cannot be used, from an `OSError` or a `ValueError` of decoding."""
    return reason(error) if isinstance(error, OSError) else "it is no text"
