"""A NATS credentials file (``.creds``): the user's JWT, and the signature by the seed of its key.

A seed is base32 of two bytes with kind and role, 32 bytes of an Ed25519 seed, and a CRC-16 (nats-io/nkeys).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from watchout.common.errors import StartError

#: Bytes that are read of a credentials file.
MAX_FILE_BYTES: Final = 64 << 10
_BLOCK: Final = r"-{3,}\s*BEGIN %s\s*-{3,}\s*(\S+)\s*-{3,}\s*END %s\s*-{3,}"
_JWT: Final = re.compile(_BLOCK % ("NATS USER JWT", "NATS USER JWT"))
_SEED: Final = re.compile(_BLOCK % ("USER NKEY SEED", "USER NKEY SEED"))
_SEED_BYTES: Final = 36
#: First five bits of a seed, and the role of a user behind them.
_KIND_SEED: Final = 18 << 3
_ROLE_USER: Final = 20 << 3


@dataclass(frozen=True, slots=True)
class NatsCredentials:
    """The credentials of one NATS user; made by `load_credentials`. `repr` leaves the secret out."""

    jwt: str = field(repr=False)
    _key: Ed25519PrivateKey = field(repr=False)

    def sign(self, nonce: str) -> bytes:
        """Return the signature of a server's nonce, in base64.

        Args:
            nonce: What the server sent.

        """
        return base64.b64encode(self._key.sign(nonce.encode()))


def load_credentials(path: Path) -> NatsCredentials:
    """Read a credentials file.

    Args:
        path: The file, `BUS_CREDENTIALS`.

    Returns:
        The credentials.

    Raises:
        StartError: The file cannot be read, or holds no user's JWT and seed.

    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise StartError(f"BUS_CREDENTIALS: {path} cannot be read: {error.strerror}") from None
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        missing = "BEGIN NATS USER JWT" if jwt is None else "BEGIN USER NKEY SEED"
        raise StartError(
            f"BUS_CREDENTIALS: {path} has no part {missing!r}, expected a credentials file as `nsc generate creds` "
            "writes it"
        )
    return NatsCredentials(jwt[1], _key_of(seed[1], path))


def _key_of(seed: str, path: Path) -> Ed25519PrivateKey:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        raw = b""
    role = (raw[0] & 7) << 5 | raw[1] >> 3 if len(raw) == _SEED_BYTES else 0
    fits = len(raw) == _SEED_BYTES and raw[0] & 0xF8 == _KIND_SEED and role == _ROLE_USER
    if not fits or binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise StartError(f"BUS_CREDENTIALS: the seed in {path} is no seed of a user, expected SU… of 58 characters")
    return Ed25519PrivateKey.from_private_bytes(raw[2:34])
