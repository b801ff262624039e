"""Reads the first message of an unauthenticated client, and explains what is wrong when it is not `auth`. Pure."""

from __future__ import annotations

import json
from typing import Final

import msgspec

from watchout.common.errors import ClientError, ErrorCode
from watchout.common.settings import Settings
from watchout.gateway import wire
from watchout.identity import clean_token, longest_token

#: Longest text that is parsed before authentication, in bytes.
MAX_AUTH_BYTES: Final = 56 * 1024

#: Text of the error for JSON in a binary message, after authentication.
JSON_AS_BINARY: Final = (
    "JSON in a binary message (opcode 2): send it as a text message (opcode 1); a binary message is a frame"
)
_SEND_AUTH: Final = 'authenticate first: {"type":"auth","token":"…"}'
_WHITE_SPACE: Final = b" \t\r\n"
#: How errors name a JSON value that is not an object; any other is "a number".
_KINDS: Final = {list: "a JSON array", str: "a JSON string", bool: "true or false", type(None): "null"}


def read_auth(data: bytes) -> wire.Auth:
    """Return an `auth` text message, its token without surrounding white space and `Bearer`.

    Raises:
        ClientError: `INVALID_MESSAGE` for an `auth` with a wrong field, `AUTH_REQUIRED` for anything else; the text
            describes the message, the caller sends it.
        UnicodeDecodeError: The message is not UTF-8; the caller closes with 1007.
    """
    if len(data) > MAX_AUTH_BYTES:
        data.decode("utf-8")  # invalid text closes, whatever its length
        raise _required(f"this message has {len(data)} bytes, an `auth` has at most {MAX_AUTH_BYTES}")
    try:
        message = wire.parse_text(data)
    except ClientError as error:
        description, is_auth = _describe(data)
        if is_auth:
            raise error
        raise _required(description) from None
    if not isinstance(message, wire.Auth):
        raise _required(_describe(data)[0])
    return clean_auth(message)


def clean_auth(message: wire.Auth) -> wire.Auth:
    """Return the message with its token as it is verified: without surrounding white space and `Bearer`."""
    return msgspec.structs.replace(message, token=clean_token(message.token))


def token_fault(token: str, settings: Settings) -> str | None:
    """Return why the token of an `auth` cannot be one: what came, and what was expected; None: it may be."""
    if not token:
        return "the token is empty"
    most = longest_token(settings)
    return f"the token has {len(token)} characters, expected at most {most}" if len(token) > most else None


def refuse_binary(data: bytes) -> ClientError:
    """Return the error for a binary message before authentication."""
    what = "this is JSON in" if is_json(data) else "this is"
    return _required(f"{what} a binary message (opcode 2), `auth` is a text message (opcode 1)")


def is_json(data: bytes) -> bool:
    """Whether a binary message looks like a JSON object or array, which belongs in a text message."""
    return data[:64].lstrip(b"\xef\xbb\xbf" + _WHITE_SPACE)[:1] in (b"{", b"[")


def _required(description: str) -> ClientError:
    return ClientError(ErrorCode.AUTH_REQUIRED, f"{_SEND_AUTH}; {description}")


def _describe(data: bytes) -> tuple[str, bool]:
    """Return what a text message is, as the end of a sentence, and whether its `type` is `auth`."""
    if not data.strip(_WHITE_SPACE):
        return f"this message is empty, or longer than an `auth`, which has at most {MAX_AUTH_BYTES} bytes", False
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
        return "the `type` of this message is not a string", False
    return f"the `type` of this message is {kind[:40]!a}", kind == "auth"
