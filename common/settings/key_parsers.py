"""Parsers of secrets, keys and headers with secrets: text of a variable to a checked value, or `InvalidValue`."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Final

from watchout.common.settings.parsers import split_list
from watchout.common.settings.spec import InvalidValue

#: Headers of a request to an ML service that watchout sets itself; ``ML_HEADERS`` may not replace them.
_RESERVED_HEADERS: Final = frozenset(
    ("connection", "content-encoding", "content-length", "content-type", "host", "keep-alive", "te", "trailer",
     "transfer-encoding", "upgrade", "expect", "accept-encoding")
)  # fmt: skip


def bearer_secret(raw: str) -> str:
    """Parse a secret that goes into an ``Authorization`` header: at least 16 printable ASCII characters."""
    if len(raw) < 16 or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise InvalidValue("at least 16 printable ASCII characters without spaces")
    return raw


def shared_secret(raw: str) -> str:
    """Parse a secret that another program chose (Better Auth, the issuer of JWTs): at least 8 characters."""
    if len(raw) < 8:
        raise InvalidValue("at least 8 characters; 32 are good")
    return raw


def webhook_secrets(raw: str) -> tuple[bytes, ...]:
    """Parse a list of ``whsec_…`` secrets of the Standard Webhooks specification into their bytes."""
    found: list[bytes] = []
    for item in split_list(raw):
        try:
            secret = base64.b64decode(item.removeprefix("whsec_"), validate=True)
        except ValueError:
            secret = b""
        if not 24 <= len(secret) <= 64:
            raise InvalidValue("whsec_… secrets of 24 to 64 bytes in base64, separated by commas")
        found.append(secret)
    return tuple(found)


def curve_key(raw: str) -> str:
    """Parse a public CURVE key of the bus: 64 hexadecimal digits, returned in lower case."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", raw):
        raise InvalidValue("64 hexadecimal digits, as `watchout-ctl keys server` shows them")
    return raw.lower()


def public_key(raw: str) -> str:
    r"""Parse a public key in PEM, or the path of a file with one. Returns the PEM.

    A PEM in an environment file stands on one line, with ``\n`` for its line ends.
    """
    text = raw.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        try:
            text = Path(raw).expanduser().read_text("ascii")
        except (OSError, RuntimeError, ValueError):
            text = ""
    if "-----BEGIN PUBLIC KEY-----" not in text and "-----BEGIN RSA PUBLIC KEY-----" not in text:
        raise InvalidValue("a public key in PEM (-----BEGIN PUBLIC KEY-----), or the path of a file with one")
    return text


def ml_headers(raw: str) -> tuple[tuple[str, str], ...]:
    """Parse a JSON object of headers for the ML service into (name, value) pairs."""
    expected = 'headers as JSON, such as {"Authorization":"Bearer …"}: at most 32 names with printable ASCII values'
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidValue(expected) from None
    if not isinstance(found, dict) or len(found) > 32:
        raise InvalidValue(expected)
    for name, value in found.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name) or not isinstance(value, str):
            raise InvalidValue(expected)
        if len(value) > 8192 or not value.isascii() or not value.isprintable():
            raise InvalidValue(expected)
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith(("sec-websocket-", "x-frame-", "x-stream-")):
            raise InvalidValue(f"no header {name}: watchout sets it itself")
    return tuple(found.items())
