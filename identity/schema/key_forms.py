"""What the keys of a look-up must look like, so that a database is asked only for keys that it can hold. Pure."""

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
    """What a key must look like to be looked up: as the database itself would write it, so that it can be compared."""

    TOKEN = "token"  # noqa: S105  the name of a form
    TEXT = "text"
    UUID = "uuid"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"

    def accepts(self, key: str) -> bool:
        """Whether the database is to be asked for this key at all; one that does not fit is in no table."""
        if (most := _MOST.get(self)) is not None:
            return _WHOLE.fullmatch(key) is not None and int(key) <= most
        return _FORMS[self].fullmatch(key) is not None


_FORMS: Final = {KeyForm.TOKEN: TOKEN, KeyForm.TEXT: _TEXT_ID, KeyForm.UUID: _UUID}


_MOST: Final = {KeyForm.SMALLINT: 2**15 - 1, KeyForm.INTEGER: 2**31 - 1, KeyForm.BIGINT: 2**63 - 1}


def ticket_identifiers(ticket: str) -> list[str]:
    """Where the one-time-token plugin may keep this ticket: in plain, and by its hash (``storeToken: "hashed"``)."""
    if not KeyForm.TOKEN.accepts(ticket):
        return []
    digest = base64.urlsafe_b64encode(hashlib.sha256(ticket.encode()).digest()).decode().rstrip("=")
    hashed = TICKET_PREFIX + digest
    # What looks like a hash is only looked up by its own hash: otherwise a hash that is kept would be a ticket itself.
    return [hashed] if _SHA256_BASE64URL.fullmatch(ticket) else [TICKET_PREFIX + ticket, hashed]
