"""Keys that prove JWTs, which algorithms each of them takes, and when the issuer is asked for its keys again. Pure.

An algorithm belongs to a key (RFC 8725 section 3.1): what a token's header says only picks among those of its key.
Bytes and `now` (monotonic, in s) go in, keys or decisions come out. No repr shows a secret.
"""

from __future__ import annotations

import enum
import math
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

from watchout.common.toolbox.retry import backoff_s

#: Most keys of one issuer.
MAX_KEYS: Final = 100
#: Bounds of an RSA modulus: NIST SP 800-131A below, what one verification may cost above.
RSA_BITS: Final = (2048, 8192)
#: Longest number of a published key in base64url: 8192 bits.
_MAX_NUMBER: Final = 1366

#: Keys are fetched anew, behind the back of who asks, when they are older than this.
TTL_S: Final = 300.0
#: A token whose kid is unknown makes us fetch at most so often, all such tokens together.
REFETCH_S: Final = 10.0
#: While the issuer cannot be asked, its keys are good for so long.
STALE_S: Final = 86_400.0
#: Pause before the next fetch after a failed one, in seconds; it doubles with each failure up to the second number.
FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 10.0

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
    """What was to be a key, or a set of keys, and is none; the text shows nothing of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its algorithms; `kid` is the issuer's name for it."""

    kid: str | None
    algorithms: frozenset[str]
    _material: Any = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether it made this signature with this algorithm, which has to be one of its own. Takes about 0.1 ms."""
        if algorithm not in self.algorithms:
            return False
        return _ALGORITHMS[algorithm].verify(signed, self._material, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer that can be used, in its order."""

    keys: tuple[Key, ...]
    _by_kid: Mapping[str, tuple[Key, ...]] = field(repr=False)

    @classmethod
    def of(cls, keys: Iterable[Key]) -> KeySet:
        """A set of these."""
        kept = tuple(keys)
        by_kid: dict[str, tuple[Key, ...]] = {}
        for key in kept:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        return cls(kept, by_kid)

    def find(self, kid: str | None) -> tuple[Key, ...]:
        """The keys of that name; for a token without kid the only one, if there is exactly one."""
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return self._by_kid.get(kid, ())

    @property
    def algorithms(self) -> str:
        """For the log."""
        return " ".join(sorted({name for key in self.keys for name in key.algorithms}))


def secret_key(secret: str) -> Key:
    """A shared secret, for HS256, HS384 and HS512. Raises `KeyFault` for what is a public key by its form."""
    try:
        return Key(None, _HMAC, _ALGORITHMS["HS256"].prepare_key(secret))
    except jwt.InvalidKeyError:
        raise KeyFault("a key of another kind, expected a secret") from None


def pem_key(pem: str) -> Key:
    """An RSA, EC or Ed25519 public key in PEM. Raises `KeyFault`."""
    try:
        material = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("no public key in PEM that can be read") from None
    return Key(None, _algorithms_of(material), material)


def read_jwks(body: bytes) -> KeySet:
    """The keys of a JWK set (RFC 7517) that can verify; others in it are passed over.

    Passed over are keys for encryption, symmetric ones, unknown types and curves, RSA outside of `RSA_BITS`, and those
    that were published together with their private half. Raises `KeyFault` when it is no such set.
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


def _published_key(entry: object) -> Key | None:
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
    return Key(kid, algorithms, material)


def _kind(kty: object, crv: object) -> tuple[frozenset[str], tuple[str, ...]]:
    """The algorithms of a key type and curve, and the names of the numbers that make such a key."""
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


@dataclass(frozen=True, slots=True)
class Found:
    """The keys of a kid; `refresh`: start a fetch beside it, and do not wait for it."""

    keys: tuple[Key, ...]
    refresh: bool = False


class Ask(enum.Enum):
    """What else a look-up may come to."""

    FETCH = "fetch, or wait for the fetch under way, and look again"
    UNKNOWN = "no such key"
    UNAVAILABLE = "no keys at all, and too early to try again"


class KeyCache:
    """What is known of an issuer's keys. `now` is monotonic, in s. At most one fetch is under way."""

    def __init__(self) -> None:
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._started_at = -math.inf
        self._retry_at = -math.inf
        self._failures = 0
        self._under_way = False

    def look_up(self, kid: str | None, now: float, *, asked: bool = False) -> Found | Ask:
        """What to do for a token of this kid. `asked`: a fetch was waited for already, so it is not FETCH again."""
        if self._keys is None or not self.usable(now):
            self._keys = None
            return Ask.FETCH if self._may_fetch(now, 0.0) and not asked else Ask.UNAVAILABLE
        if keys := self._keys.find(kid):
            due = now >= self._fetched_at + TTL_S
            return Found(keys, refresh=due and not self._under_way and self._may_fetch(now, 0.0))
        if self._may_fetch(now, REFETCH_S) and not asked:
            return Ask.FETCH
        # An issuer that is down may have a new key that nobody could fetch: that is not the client's fault.
        return Ask.UNAVAILABLE if self._failures else Ask.UNKNOWN

    def usable(self, now: float) -> bool:
        """Whether there are keys at all."""
        return self._keys is not None and now < self._fetched_at + STALE_S

    def _may_fetch(self, now: float, interval_s: float) -> bool:
        return self._under_way or now >= max(self._retry_at, self._started_at + interval_s)

    def fetch_started(self, now: float) -> None:
        """A request went out."""
        self._under_way, self._started_at = True, now

    def fetched(self, keys: KeySet, now: float) -> bool:
        """It brought these keys, which replace all others; True when they are news."""
        news = self._keys is None or [k.kid for k in keys.keys] != [k.kid for k in self._keys.keys]
        self._keys, self._fetched_at = keys, now
        self._under_way, self._failures, self._retry_at = False, 0, -math.inf
        return news

    def failed(self, now: float) -> None:
        """It brought none."""
        self._under_way = False
        self._retry_at = now + backoff_s(self._failures, first_s=FIRST_BACKOFF_S, most_s=MAX_BACKOFF_S)
        self._failures += 1
