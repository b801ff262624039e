"""Keys, and JWTs signed with them, for the tests of JWTs."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from watchout.identity.sources.claims import Claims, TokenRefused
from watchout.identity.sources.jwt_claims import JwtPolicy, read_jwt
from watchout.identity.sources.keys import KeySet, pem_key, secret_key

NOW = 1_800_000_000.0


SECRET = "a-canary-that-is-shared-by-two-parties-and-64-characters-long-ok"


ANY = JwtPolicy()


GOOD = {"sub": "u1", "exp": NOW + 60}


FAMILIES: dict[str, set[str]] = {
    "secret": {"HS256", "HS384", "HS512"},
    "rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
    "p256": {"ES256"},
    "p384": {"ES384"},
    "p521": {"ES512"},
    "ed25519": {"EdDSA", "Ed25519"},
}


@functools.cache
def private(family: str) -> Any:
    match family:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "x25519":
            return x25519.X25519PrivateKey.generate()
        case "dsa":
            return dsa.generate_private_key(1024)
        case "secret":
            return SECRET.encode()
    assert family.startswith("ed25519")  # several of them where a test needs several keys
    return ed25519.Ed25519PrivateKey.generate()


def pem(family: str) -> str:
    public = private(family).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def algorithm_of(name: str) -> Any:
    return jwt.get_algorithm_by_name("EdDSA" if name == "Ed25519" else name)


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: object, family: str = "secret", alg: str = "HS256", **header: Any) -> str:
    """A JWT by hand, so that it may be as wrong as a test needs it."""
    head = f"{segment({'alg': alg} | header)}.{segment(claims)}"
    return f"{head}.{segment(algorithm_of(alg).sign(head.encode(), private(family)))}"


def keys_of(family: str) -> KeySet:
    return KeySet.of([secret_key(SECRET) if family == "secret" else pem_key(pem(family))])


def verified(token: str, keys: KeySet | None = None, policy: JwtPolicy = ANY, now: float = NOW) -> Claims:
    unproven = read_jwt(token, policy, now)
    return unproven.verify((keys or keys_of("secret")).find(unproven.kid))


def refusal(token: str, keys: KeySet | None = None, policy: JwtPolicy = ANY, now: float = NOW) -> str:
    with pytest.raises(TokenRefused) as caught:
        verified(token, keys, policy, now)
    assert token not in str(caught.value)
    return str(caught.value)
