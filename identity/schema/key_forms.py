"""The forms of keys in look-ups, so that a database is asked only for keys that it can contain. Pure."""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from typing import Final

from watchout.identity.credentials import TOKEN

#: A NUL or a lone surrogate would make a driver raise instead of finding nothing.
_TEXT_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,512}")


_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


_SHA256_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{43}")


#: What Better Auth's one-time-token plugin puts before the token in ``verification.identifier``.
TICKET_PREFIX: Final = "one-time-token:"


class KeyForm(enum.Enum):
    """How the database writes the values of a key column as text, such as UUID or INTEGER. Chosen by `Dialect.form`.

    `DatabaseStore` does not ask the database for keys that `accepts` rejects, as no row can have them.
    """

    TOKEN = "token"  # noqa: S105  the name of a form
    TEXT = "text"
    UUID = "uuid"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"

    def accepts(self, key: str) -> bool:
        """Return whether a key has this form; when not, the database is not asked for it."""
        if (most := _MOST.get(self)) is not None:
            return _WHOLE.fullmatch(key) is not None and int(key) <= most
        return _FORMS[self].fullmatch(key) is not None


_FORMS: Final = {KeyForm.TOKEN: TOKEN, KeyForm.TEXT: _TEXT_ID, KeyForm.UUID: _UUID}


_MOST: Final = {KeyForm.SMALLINT: 2**15 - 1, KeyForm.INTEGER: 2**31 - 1, KeyForm.BIGINT: 2**63 - 1}


def ticket_identifiers(ticket: str) -> list[str]:
    """Return the identifiers under which the one-time-token plugin may store a ticket: plain, and its SHA-256."""
    if not KeyForm.TOKEN.accepts(ticket):
        return []
    digest = base64.urlsafe_b64encode(hashlib.sha256(ticket.encode()).digest()).decode().rstrip("=")
    hashed = TICKET_PREFIX + digest
    # A ticket that looks like a hash is looked up by its hash only: otherwise a stored hash could be used as a ticket.
    return [hashed] if _SHA256_BASE64URL.fullmatch(ticket) else [TICKET_PREFIX + ticket, hashed]
