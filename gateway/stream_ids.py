"""The stream ids that the gateway makes: nobody can guess them, and nobody but their user can ever register them.

An id carries a tag that is made of its user and a key of the home. So it needs no memory to refuse it to others,
however long ago it was made. The key is secret only because a tag would else confirm a guess at whose a stream is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from typing import Final

KEY_BYTES: Final = 32
_DIGITS: Final = string.digits + string.ascii_lowercase
_RANDOM_CHARS: Final = 16
_KEY_CHARS: Final = 4
_TAG_CHARS: Final = 10
_MADE: Final = re.compile(
    rf"(stream_\d{{13,16}}_[0-9a-z]{{{_RANDOM_CHARS}}})_([0-9a-z]{{{_KEY_CHARS}}})([0-9a-z]{{{_TAG_CHARS}}})\Z"
)


class StreamIds:
    """Makes and recognizes ids with one key, of `KEY_BYTES`."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._key_name = self._digest(b"key", _KEY_CHARS)

    def new(self, user: str, now_ms: int) -> str:
        r"""An id for a stream of this user.

        It matches ``stream_\w+`` as a whole, as old clients cut it out of a text.
        """
        head = f"stream_{now_ms}_{''.join(secrets.choice(_DIGITS) for _ in range(_RANDOM_CHARS))}"
        return f"{head}_{self._key_name}{self._tag(head, user)}"

    def is_anothers(self, stream: str, user: str) -> bool:
        """Whether an id was made with this key for another user. Of ids that clients made it says nothing: False."""
        made = _MADE.match(stream)
        if made is None or made[2] != self._key_name:
            return False
        return not hmac.compare_digest(made[3], self._tag(made[1], user))

    def _tag(self, head: str, user: str) -> str:
        return self._digest(f"{head}\0{user}".encode("utf-8", "surrogatepass"), _TAG_CHARS)

    def _digest(self, text: bytes, chars: int) -> str:
        number = int.from_bytes(hashlib.blake2b(text, key=self._key, digest_size=16).digest())
        made = ""
        for _ in range(chars):
            number, digit = divmod(number, len(_DIGITS))
            made += _DIGITS[digit]
        return made
