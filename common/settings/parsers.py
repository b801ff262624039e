"""Parsers of numbers, flags, names, lists and paths: text of a variable to a checked value, or `InvalidValue`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchout.common.home_files import SOCKET_NAME_BYTES
from watchout.common.settings.spec import InvalidValue
from watchout.common.toolbox import globs

#: Longest path of a Unix socket in bytes: ``sockaddr_un.sun_path`` holds 108 on Linux and 104 on macOS, with the
#: closing zero byte.
SOCKET_PATH_BYTES: Final = 103
#: Methods of verifying a caller, as ``AUTH_METHODS`` names them.
AUTH_METHODS: Final = ("session", "jwt", "introspection")
#: Permissions that a role can have: publish own streams, view streams, receive alerts without their pictures.
PERMISSIONS: Final = ("publish", "view", "alerts")


def text(raw: str) -> str:
    """Return the text unchanged."""
    return raw


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `low` to `high`, both included."""

    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise InvalidValue(f"a whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers from `low` to `high`, both included; NaN is refused."""

    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise InvalidValue(f"a number from {low:g} to {high:g}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser that takes one of the choices, in upper or lower case, and returns it in lower case."""

    def parse(raw: str) -> str:
        if raw.lower() not in choices:
            raise InvalidValue("one of " + ", ".join(choices))
        return raw.lower()

    return parse


def flag(raw: str) -> bool:
    """Parse true, yes, on, 1 and false, no, off, 0, in upper or lower case."""
    if raw.lower() in ("true", "yes", "on", "1"):
        return True
    if raw.lower() in ("false", "no", "off", "0"):
        return False
    raise InvalidValue("true or false")


def split_list(raw: str) -> list[str]:
    """Return the items of a list separated by commas or white space."""
    return [item for item in re.split(r"[\s,]+", raw) if item]


def names(raw: str) -> tuple[str, ...]:
    """Parse a list of texts without white space or commas."""
    return tuple(split_list(raw))


def auth_methods(raw: str) -> tuple[str, ...]:
    """Parse a list of `AUTH_METHODS`, each at most once; the order is kept."""
    items = tuple(item.lower() for item in split_list(raw))
    if not items or len(set(items)) < len(items) or not set(items) <= set(AUTH_METHODS):
        raise InvalidValue(f"some of {', '.join(AUTH_METHODS)}, each once, in the order in which they are tried")
    return items


def role_permissions(raw: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Parse ``role:permission+permission,…`` into (role, permissions); `none` is the empty set."""
    found: dict[str, frozenset[str]] = {}
    for item in split_list(raw):
        role, colon, listed = item.rpartition(":")
        names = frozenset(name for name in listed.split("+") if name)
        if not colon or not role or role in found or not names <= {*PERMISSIONS, "none"} or not names:
            raise InvalidValue(
                f"role:permission+permission,… with the permissions {', '.join(PERMISSIONS)} or none, and * for any "
                "other role"
            )
        found[role] = names - {"none"}
    return tuple(found.items())


def table_name(raw: str) -> str:
    """Parse the name of a SQL table, with or without its schema: ``table`` or ``schema.table``."""
    parts = raw.split(".")
    if len(parts) > 2 or not all(re.fullmatch(r"[^\s\".]{1,63}", part) for part in parts):
        raise InvalidValue("a table's name, or schema.table, without quotes")
    return raw


def channel(raw: str) -> str:
    """Parse the name of a PostgreSQL notification channel, such as needs no quotes."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", raw):
        raise InvalidValue("1 to 63 of a-z 0-9 _, no digit first")
    return raw


def timezone(raw: str) -> str:
    """Parse the name of a time zone that this machine's time zone database has."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # for one setting alone

    try:
        ZoneInfo(raw)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidValue("the name of a time zone, such as UTC or Asia/Tokyo") from None
    return raw


def token_name(raw: str) -> str:
    """Parse the name of a header, cookie, field or claim: a token of RFC 9110 section 5.6.2."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", raw):
        raise InvalidValue("a name of letters, digits and . _ - (RFC 9110 token)")
    return raw


def header_value(raw: str) -> str:
    """Parse the value of an HTTP header: printable ASCII."""
    if not raw.isascii() or not raw.isprintable():
        raise InvalidValue("printable ASCII")
    return raw


def group_name(raw: str) -> str:
    """Parse the name of a group of bridges: 1 to 64 printable characters."""
    if len(raw) > 64 or not raw.isprintable():
        raise InvalidValue("a name of at most 64 printable characters")
    return raw


def process_name(raw: str) -> str:
    """Parse the name of a process, as metrics and logs show it."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", raw):
        raise InvalidValue("1 to 64 of A-Z a-z 0-9 _ . @ -, the first a letter, a digit or _")
    return raw


def cluster_name(raw: str) -> str:
    """Parse the name of a site of several machines: one part of a NATS subject, and of a bucket's name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", raw):
        raise InvalidValue("1 to 32 of A-Z a-z 0-9 _ -")
    return raw


def stream_patterns(raw: str) -> tuple[str, ...]:
    """Parse a list of patterns of stream ids (`common.toolbox.globs`)."""
    items = tuple(split_list(raw))
    expected = globs.fault(items)
    if expected is not None:
        raise InvalidValue(expected)
    return items


def file(raw: str) -> Path:
    """Parse the path of a file that exists; ``~`` is expanded. Returns the absolute path."""
    try:
        path = Path(raw).expanduser().absolute()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # unknown ~user, no permission, or a NUL in the path
        pass
    raise InvalidValue("a file that exists and can be reached")


def new_file(raw: str) -> Path:
    """Parse the path of a file that need not exist yet; ``~`` is expanded. Returns the absolute path."""
    try:
        path = Path(raw).expanduser().absolute()
        if not path.is_dir():
            return path
    except (OSError, RuntimeError, ValueError):  # unknown ~user, no permission, or a NUL in the path
        pass
    raise InvalidValue("the path of a file")


def home(raw: str) -> Path:
    """Parse the path of ``WATCHOUT_HOME``, short enough for the sockets in it. Returns the absolute path.

    The directory need not exist yet.
    """
    longest = SOCKET_PATH_BYTES - SOCKET_NAME_BYTES
    try:
        path = Path(raw).expanduser().absolute()
        size = len(str(path).encode(errors="surrogateescape"))
        if size > longest:
            raise InvalidValue(
                f"a directory whose absolute path has at most {longest} bytes (it holds sockets, and the system "
                f"allows {SOCKET_PATH_BYTES} bytes for a socket's path); {path} has {size}"
            )
        if path.exists() and not path.is_dir():
            raise InvalidValue("a directory; a file of this name exists")
    except (OSError, RuntimeError, ValueError):  # unknown ~user, no permission, or a NUL in the path
        raise InvalidValue("a directory that can be reached") from None
    return path
