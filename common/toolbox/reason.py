"""Short texts for exceptions, for logs and error messages: one word or clause, without addresses and secrets."""

from __future__ import annotations

import os
import ssl
from typing import Final

#: Characters of an exception's own text that `reason_with_text` shows.
MAX_TEXT_CHARS: Final = 150


def reason(exc: BaseException) -> str:
    """Return the cause of a failure in a few words, such as ``Connection refused``; safe to log.

    For an error of the operating system it is the system's text for its number: the exception's own text may name
    the peer's address. For a TLS error it is OpenSSL's name of the fault. For any other exception it is the name of
    its type, as its text may hold a token or a URL with a password.
    """
    if isinstance(exc, ssl.SSLError):
        return getattr(exc, "reason", None) or type(exc).__name__  # one that Python raises itself has none
    if isinstance(exc, OSError):
        if exc.errno is not None and exc.errno > 0:
            return os.strerror(exc.errno)
        return exc.strerror or type(exc).__name__  # a resolver's numbers are negative, and have texts of their own
    return type(exc).__name__


def reason_with_text(exc: BaseException) -> str:
    """Return ``Type: text`` with the first `MAX_TEXT_CHARS` of the exception's own text.

    Only for exceptions that cannot hold a secret, such as those of a client library about what a peer answered.
    """
    return f"{type(exc).__name__}: {str(exc)[:MAX_TEXT_CHARS]}"
