"""Reads the keys that the gateways of one home share, and makes their files when there are none."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from watchout.common import log
from watchout.common.home_files import SHARE_KEY_FILE, STREAM_KEY_FILE
from watchout.gateway.stream_ids import KEY_BYTES

_log = log.get("gateway.home_keys")


def stream_key(home: Path) -> bytes:
    """Return the key of this home for `gateway.stream_ids.StreamIds`; the first gateway makes it.

    If the file can be neither read nor written, a warning is logged and a key of this process alone is returned: ids
    made by other gateways are then protected by their reservation only. Raises nothing.

    Args:
        home: The home of the gateway.
    """
    return _key(home / STREAM_KEY_FILE, "stream ids")


def share_key(home: Path) -> bytes:
    """Return the key of this home for the tokens of shares; the first gateway makes it.

    If the file can be neither read nor written, a warning is logged and a key of this process alone is returned: tokens
    of other gateways are then refused here, and its own after its end. Raises nothing.

    Args:
        home: The home of the gateway.
    """
    return _key(home / SHARE_KEY_FILE, "shares")


def _key(path: Path, what: str) -> bytes:
    try:
        key = _read(path)
        if key is None:
            _make(path)
            key = _read(path)
        if key is None:
            raise OSError(0, f"it is not there, or has not {KEY_BYTES} bytes: remove it", str(path))
    except OSError as exc:
        _log.warning(
            f"the key of {what} cannot be used, this gateway makes one of its own", file=str(path),
            reason=exc.strerror,
        )  # fmt: skip
        return secrets.token_bytes(KEY_BYTES)
    return key


def _read(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        key = os.read(fd, KEY_BYTES + 1)
    finally:
        os.close(fd)
    return key if len(key) == KEY_BYTES else None


def _make(path: Path) -> None:
    """Create the key file atomically, unless another gateway was faster."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(fresh, flags, 0o600)
        try:
            os.write(fd, secrets.token_bytes(KEY_BYTES))
        finally:
            os.close(fd)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
