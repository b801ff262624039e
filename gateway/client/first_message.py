"""Reads what a client that has not authenticated says, and tells it what it said instead of `auth`. Pure."""

from __future__ import annotations

import json
from typing import Final

from watchout.common.errors import ClientError, ErrorCode
from watchout.gateway import wire
from watchout.identity import clean_token

#: Longest text that is parsed before authentication, in bytes.
MAX_AUTH_BYTES: Final = 16 * 1024

_SEND_AUTH: Final = 'authenticate first: {"type":"auth","token":"…"}'
_WHITE_SPACE: Final = b" \t\r\n"
_KINDS: Final = {list: "a JSON array", str: "a JSON string", bool: "true or false", type(None): "null"}


def read_token(data: bytes) -> str:
    """Return the token of an `auth` text message, without the white space or `Bearer` around it.

    Raises `ClientError`: `INVALID_MESSAGE` for an `auth` with a wrong field, `AUTH_REQUIRED` for everything else; its
    text says what came. Raises `UnicodeDecodeError` for what is not UTF-8: the socket is then closed with 1007.
    """
    if len(data) > MAX_AUTH_BYTES:
        data.decode("utf-8")  # broken text closes, however long
        raise _required(f"this message has {len(data)} bytes, and an `auth` at most {MAX_AUTH_BYTES}")
    try:
        message = wire.parse_text(data)
    except ClientError as error:
        what, is_auth = _describe(data)
        if is_auth:
            raise error
        raise _required(what) from None
    if not isinstance(message, wire.Auth):
        raise _required(_describe(data)[0])
    return clean_token(message.token)


def refuse_binary(data: bytes) -> ClientError:
    """Return the error for a binary message that comes before authentication."""
    came = "JSON came" if is_json(data) else "this message came"
    return _required(f"{came} as a binary message (opcode 2), `auth` is a text message (opcode 1)")


def is_json(data: bytes) -> bool:
    """Whether a binary message looks like a JSON object or array, which belongs into a text message."""
    return data[:64].lstrip(b"\xef\xbb\xbf" + _WHITE_SPACE)[:1] in (b"{", b"[")


def _required(came: str) -> ClientError:
    return ClientError(ErrorCode.AUTH_REQUIRED, f"{_SEND_AUTH}; {came}")


def _describe(data: bytes) -> tuple[str, bool]:
    """What a text message is, as the end of a sentence, and whether it is meant as `auth`."""
    if not data.strip(_WHITE_SPACE):
        return "this message is empty, or longer than any that is looked at before `auth`", False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return "this message is not JSON", False
    if not isinstance(value, dict):
        return f"this message is {_KINDS.get(type(value), 'a number')}, not a JSON object", False
    if "type" not in value:
        return "this message has no `type`", False
    kind = value["type"]
    if not isinstance(kind, str):
        return "the `type` of this message is no string", False
    return f"the `type` of this message is {kind[:40]!a}", kind == "auth"
