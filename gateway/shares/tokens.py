"""Makes and reads the tokens of shares: a random id, and its signature by a key of the home. Pure.

A token contains neither stream nor user nor time: the router has the share under its id. Nobody can make a token
without the key, not even from the router's file, and a forged one is refused without a request to the router.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

PREFIX: Final = "wos1_"
#: Bytes of a share's id.
ID_BYTES: Final = 16
_TOKEN: Final = re.compile(PREFIX + r"([A-Za-z0-9_-]{22})([A-Za-z0-9_-]{43})\Z")


class ShareTokens:
    """The tokens of one home. One per gateway.

    Args:
        key: Random bytes, the same for all gateways of a home: see `gateway.home_keys`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token_of(self, share_id: str) -> str:
        """Return the token of a share.

        Args:
            share_id: Its id, as `share_id_of` returns it.
        """
        return f"{PREFIX}{share_id}{self._signature(share_id)}"

    def share_of(self, token: str) -> str | None:
        """Return the id of the share that a token was made for; None for any other text.

        Args:
            token: The text that a client sent.
        """
        found = _TOKEN.match(token)
        if found is None or not hmac.compare_digest(found[2], self._signature(found[1])):
            return None
        return found[1]

    def _signature(self, share_id: str) -> str:
        return _text(hmac.digest(self._key, b"watchout share " + share_id.encode("ascii"), hashlib.sha256))


def share_id_of(random_bytes: bytes) -> str:
    """Return the id of a new share.

    Args:
        random_bytes: `ID_BYTES` unguessable bytes.
    """
    return _text(random_bytes)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
