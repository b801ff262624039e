"""Keys that verify JWTs, and which algorithms each key takes. Pure.

An algorithm belongs to a key (RFC 8725 section 3.1): the header of a token only picks among those of its key. No repr
shows key material.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm

#: Most keys in a key set; a larger set is refused.
MAX_KEYS: Final = 100


#: Bits of an RSA modulus: at least what NIST SP 800-131A allows, at most what one verification may cost.
RSA_BITS: Final = (2048, 8192)


#: Characters in base64url of the largest number in a published key: 8192 bits.
_MAX_NUMBER: Final = 1366


_HMAC: Final = frozenset({"HS256", "HS384", "HS512"})


_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


#: RFC 8037 calls it EdDSA, RFC 9864 Ed25519.
_ED25519: Final = frozenset({"EdDSA", "Ed25519"})


#: The curve of a published key, and of a key in PEM, and its one algorithm (RFC 7518 section 3.4).
_EC: Final = {"P-256": frozenset({"ES256"}), "P-384": frozenset({"ES384"}), "P-521": frozenset({"ES512"})}


_EC_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    name: jwt.get_algorithm_by_name("EdDSA" if name in _ED25519 else name)
    for name in _HMAC | _RSA | _ED25519 | frozenset[str]().union(*_EC.values())
}


class KeyFault(Exception):
    """A text that is not a key, or not a set of keys; raised by the functions of this module.

    The message says what is expected and shows no part of the text. A bad key in the settings ends the start; a bad
    response of an issuer counts as a failed fetch.
    """


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that verifies signatures of JWTs; made by `secret_key`, `pem_key` and `read_jwks`.

    `algorithms` are the names it may be used with (RFC 7518 section 3.1), `kid` is its key id, None for a key of the
    settings.
    """

    kid: str | None
    algorithms: frozenset[str]
    _material: Any = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Return whether this key made the signature. Takes about 0.1 ms.

        Args:
            algorithm: The `alg` of the token's header; for one that the key is not for, the result is False.
            signed: The bytes that are signed: header and payload in base64url, with the dot between them.
            signature: The signature, decoded.
        """
        if algorithm not in self.algorithms:
            return False
        return _ALGORITHMS[algorithm].verify(signed, self._material, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer, in the order in which it publishes them.

    Made by `read_jwks`, kept by `KeyCache`.
    """

    keys: tuple[VerificationKey, ...]
    _by_kid: Mapping[str, tuple[VerificationKey, ...]] = field(repr=False)

    @classmethod
    def of(cls, keys: Iterable[VerificationKey]) -> KeySet:
        """Create a set of these keys."""
        kept = tuple(keys)
        by_kid: dict[str, tuple[VerificationKey, ...]] = {}
        for key in kept:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        return cls(kept, by_kid)

    def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys with this key id; for None the only key, if there is exactly one."""
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return self._by_kid.get(kid, ())

    @property
    def algorithms(self) -> str:
        """Names of the algorithms of all keys, for the log."""
        return " ".join(sorted({name for key in self.keys for name in key.algorithms}))


def secret_key(secret: str) -> VerificationKey:
    """Return the key for a shared secret (HS256, HS384, HS512).

    Raises:
        KeyFault: The text is a public key.
    """
    try:
        return VerificationKey(None, _HMAC, _ALGORITHMS["HS256"].prepare_key(secret))
    except jwt.InvalidKeyError:
        raise KeyFault("a key of another kind, expected a secret") from None


def pem_key(pem: str) -> VerificationKey:
    """Return the key for an RSA, EC or Ed25519 public key in PEM.

    Raises:
        KeyFault: The text is anything else, or a key of a size or curve that is not supported.
    """
    try:
        material = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("no public key in PEM that can be read") from None
    return VerificationKey(None, _algorithms_of(material), material)


def read_jwks(body: bytes) -> KeySet:
    """Return the keys of a JWK set (RFC 7517) that can verify signatures.

    Ignored are keys for encryption, symmetric keys, unknown types and curves, RSA keys outside of `RSA_BITS`, and keys
    that were published together with their private half.

    Raises:
        KeyFault: The text is not a JWK set, or has over `MAX_KEYS` keys.
    """
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise KeyFault("its answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeyFault("its answer is no JWK set")
    if len(entries) > MAX_KEYS:
        raise KeyFault(f"its answer has {len(entries)} keys, expected at most {MAX_KEYS}")
    return KeySet.of(key for key in map(_published_key, entries) if key is not None)


def _published_key(entry: object) -> VerificationKey | None:
    if not isinstance(entry, dict) or entry.get("use") not in (None, "sig") or "d" in entry:
        return None
    kid, alg, operations = entry.get("kid"), entry.get("alg"), entry.get("key_ops")
    if not (kid is None or isinstance(kid, str)):
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    algorithms, numbers = _kind(entry.get("kty"), entry.get("crv"))
    if alg is not None:
        algorithms &= {alg} if isinstance(alg, str) else set()
    values = {name: entry.get(name) for name in numbers}
    if not algorithms or not all(isinstance(v, str) and len(v) <= _MAX_NUMBER for v in values.values()):
        return None
    name = min(algorithms)  # each of them reads the same key
    try:
        material = _ALGORITHMS[name].from_jwk({"kty": entry["kty"], "crv": entry.get("crv"), **values})
        if not algorithms <= _algorithms_of(material):
            return None
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm, KeyFault):
        return None
    return VerificationKey(kid, algorithms, material)


def _kind(kty: object, crv: object) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the algorithms of a key type and curve, and the names of the numbers in such a key."""
    if kty == "RSA":
        return _RSA, ("n", "e")
    if kty == "EC" and isinstance(crv, str):
        return _EC.get(crv, frozenset()), ("x", "y")
    if kty == "OKP" and crv == "Ed25519":
        return _ED25519, ("x",)
    return frozenset(), ()


def _algorithms_of(material: object) -> frozenset[str]:
    match material:
        case RSAPublicKey():
            low, high = RSA_BITS
            if not low <= material.key_size <= high:
                raise KeyFault(f"an RSA key of {material.key_size} bits, expected {low} to {high}")
            return _RSA
        case EllipticCurvePublicKey() if material.curve.name in _EC_NAMES:
            return _EC[_EC_NAMES[material.curve.name]]
        case Ed25519PublicKey():
            return _ED25519
    raise KeyFault("a key that is neither RSA, EC on P-256, P-384 or P-521, nor Ed25519")
