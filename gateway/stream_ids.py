"""Makes stream ids that cannot be guessed, and that only the user they were made for can ever register.

An id carries a tag computed from the user and a key of the home. So ids need no storage to be refused to other users,
however old they are. The key is secret only because otherwise a tag would confirm a guess of the stream's user.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from typing import Final

from watchout.common.home_files import HOME_KEY_BYTES

KEY_BYTES: Final = HOME_KEY_BYTES
_DIGITS: Final = string.digits + string.ascii_lowercase
_RANDOM_CHARS: Final = 16
_KEY_CHARS: Final = 4
_TAG_CHARS: Final = 10
_MADE: Final = re.compile(
    rf"(stream_\d{{13,16}}_[0-9a-z]{{{_RANDOM_CHARS}}})_([0-9a-z]{{{_KEY_CHARS}}})([0-9a-z]{{{_TAG_CHARS}}})\Z"
)


class StreamIds:
    """Makes and checks stream ids with one key. One per gateway; `ClientProtocol` asks it at register.

    Args:
        key: `KEY_BYTES` random bytes, the same for all gateways of a home: see `gateway.home_keys`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._key_name = self._digest(b"key", _KEY_CHARS)

    def new(self, user: str, now_ms: int) -> str:
        r"""Return a new id for a stream of this user. `now_ms` in ms since the epoch.

        It matches ``stream_\w+`` as a whole: older clients extract it from the text of a message by this pattern.
        """
        head = f"stream_{now_ms}_{''.join(secrets.choice(_DIGITS) for _ in range(_RANDOM_CHARS))}"
        return f"{head}_{self._key_name}{self._tag(head, user)}"

    def belongs_to_other(self, stream: str, user: str) -> bool:
        """Return whether an id was made with this key for another user; False for ids that clients chose."""
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
