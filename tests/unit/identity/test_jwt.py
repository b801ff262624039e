from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import math
import string
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import load
from watchout.identity.sources.claims import MAX_NAME, MAX_ROLES, MAX_TOKEN_BYTES, Claims, TokenRefused
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.jwt_claims import JwtPolicy, looks_like_jwt, read_jwt
from watchout.identity.sources.keys import KeyFault, KeySet, pem_key, read_jwks, secret_key

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
ALGORITHMS = sorted(set().union(*FAMILIES.values()))


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
            return dsa.generate_private_key(2048)
        case "secret":
            return SECRET.encode()
    assert family.startswith("ed25519")  # several of them where a test needs several keys
    return ed25519.Ed25519PrivateKey.generate()


def pem(family: str) -> str:
    public = private(family).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def algorithm_of(name: str) -> Any:
    return jwt.get_algorithm_by_name("EdDSA" if name == "Ed25519" else name)


def jwk(family: str, **more: Any) -> dict[str, Any]:
    algorithms = FAMILIES.get(family.partition("-")[0], {"RS256"})
    entry: dict[str, Any] = algorithm_of(min(algorithms)).to_jwk(private(family).public_key(), as_dict=True)
    entry.pop("key_ops", None)
    return entry | more


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


# ── keys and their algorithms ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_takes_its_own_algorithms_and_no_other(family: str, alg: str) -> None:
    signer = next(name for name, algorithms in FAMILIES.items() if alg in algorithms)
    token = signed(GOOD, signer, alg)
    if alg in FAMILIES[family]:
        assert verified(token, keys_of(family)).user_id == "u1"
    else:
        assert refusal(token, keys_of(family)) == "no key of its kid takes its alg"


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "secret"])
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_so_does_a_published_key_that_names_no_algorithm(family: str, alg: str) -> None:
    (key,) = read_jwks(json.dumps({"keys": [jwk(family, kid="k")]}).encode()).keys
    assert (alg in key.algorithms) == (alg in FAMILIES[family])
    assert key.kid == "k"


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "secret"])
def test_a_published_key_with_an_algorithm_takes_only_that(family: str) -> None:
    for own in sorted(FAMILIES[family]):
        keys = read_jwks(json.dumps({"keys": [jwk(family, kid="k", alg=own)]}).encode())
        for alg in sorted(FAMILIES[family]):
            token = signed(GOOD, family, alg, kid="k")
            if alg == own:
                assert verified(token, keys).user_id == "u1"
            else:
                assert refusal(token, keys) == "no key of its kid takes its alg"


def test_a_public_key_is_no_secret() -> None:
    for family in ("rsa", "p256", "ed25519"):
        head = f"{segment({'alg': 'HS256'})}.{segment(GOOD)}"
        for secret in (pem(family), pem(family).strip(), json.dumps(jwk(family))):
            mac = hmac.digest(secret.encode(), head.encode(), hashlib.sha256)
            assert refusal(f"{head}.{segment(mac)}", keys_of(family)) == "no key of its kid takes its alg"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS1", "ES256K", "EdDSA\0", "RS256 ", "__class__"])
def test_an_algorithm_that_is_no_keys_proves_nothing(alg: str) -> None:
    for tail in ("", "AA", segment(b"x" * 64)):
        token = f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(GOOD)}.{tail}"
        for family in FAMILIES:
            refusal(token, keys_of(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_another_key_of_the_same_kind_proves_nothing(family: str) -> None:
    for alg in FAMILIES[family]:
        head = f"{segment({'alg': alg})}.{segment(GOOD)}"
        match family:
            case "secret":
                other: Any = b"another secret that is 64 characters long, as it has to be for HS"
            case "rsa":
                other = rsa.generate_private_key(65537, 2048)
            case "ed25519":
                other = ed25519.Ed25519PrivateKey.generate()
            case _:
                other = ec.generate_private_key(private(family).curve)
        token = f"{head}.{segment(algorithm_of(alg).sign(head.encode(), other))}"
        assert refusal(token, keys_of(family)) == "its signature is wrong"


def test_a_key_that_comes_with_the_token_proves_nothing() -> None:
    head = {"jwk": jwk("ed25519"), "jku": "http://127.0.0.1/jwks", "x5u": "http://127.0.0.1/x", "kid": "../../dev/null"}
    token = signed(GOOD, "ed25519", "EdDSA", **head)
    refusal(token, KeySet.of([pem_key(pem("ed25519-b"))]))


@given(signature=st.binary(max_size=600), family=st.sampled_from(sorted(FAMILIES)))
def test_no_bytes_are_a_signature(signature: bytes, family: str) -> None:
    (key,) = keys_of(family).keys
    for alg in ALGORITHMS:
        assert not key.verifies(alg, b"a.b", signature)


@pytest.mark.parametrize("family", ["rsa1024", "secp256k1", "ed448", "x25519", "dsa"])
def test_a_public_key_of_another_kind_is_refused(family: str) -> None:
    with pytest.raises(KeyFault):
        pem_key(pem(family))


def test_what_is_no_public_key_is_refused_without_showing_it() -> None:
    hidden = private("rsa").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for text in (
        "",
        "canary",
        hidden,
        pem("rsa")[:-40],
        "-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----",
    ):
        with pytest.raises(KeyFault) as caught:
            pem_key(text)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", [pem("rsa"), json.dumps(jwk("ed25519"))], ids=["PEM", "JWK"])
def test_a_public_key_is_refused_as_a_secret(text: str) -> None:
    with pytest.raises(KeyFault):
        secret_key(text)


def test_nothing_shows_a_key_or_a_token() -> None:
    token = signed(GOOD)
    unproven = read_jwt(token, ANY, NOW)
    keys = keys_of("secret")
    shown = repr([unproven, keys, keys.keys, keys.find(None), unproven.verify(keys.keys)])
    for canary in (SECRET, *token.split(".")):
        assert canary not in shown


# ── key sets ─────────────────────────────────────────────────────────────────────────────────────────────────────


def set_of(*entries: object) -> KeySet:
    return read_jwks(json.dumps({"keys": entries}).encode())


@pytest.mark.parametrize(
    "entry",
    [
        lambda: jwk("rsa", use="enc"),
        lambda: jwk("rsa", alg="RSA-OAEP"),
        lambda: jwk("rsa", alg="HS256"),
        lambda: jwk("rsa", alg="ES256"),
        lambda: jwk("rsa", alg="none"),
        lambda: jwk("rsa", alg=["RS256"]),
        lambda: jwk("rsa", n=1),
        lambda: jwk("rsa", n=""),
        lambda: jwk("rsa", n="A" * 100_000),
        lambda: jwk("rsa", e="AA"),
        lambda: jwk("rsa", e=None),
        lambda: jwk("rsa", kty="rsa"),
        lambda: jwk("rsa", kid=7),
        lambda: jwk("rsa", key_ops=["encrypt"]),
        lambda: jwk("rsa", key_ops="verify"),
        lambda: jwk("rsa", d="AQAB"),
        lambda: jwk("p256", crv="P-384"),
        lambda: jwk("p256", crv=["P-256"]),
        lambda: jwk("p256", alg="ES384"),
        lambda: jwk("p256", x=segment(b"\1" * 32)),
        lambda: jwk("p256", y="AQ"),
        lambda: jwk("p256", y="!"),
        lambda: jwk("ed25519", crv="Ed448"),
        lambda: jwk("ed25519", crv="X25519"),
        lambda: jwk("ed25519", x="AQ"),
        lambda: jwk("ed25519", x=None),
        lambda: jwk("ed25519", kty=None),
        lambda: {"kty": "oct", "k": segment(SECRET.encode()), "alg": "HS256", "kid": "k"},
        lambda: {},  # noqa: PIE807
        lambda: None,
        lambda: [],  # noqa: PIE807
        lambda: "canary",
    ],
)
def test_keys_that_cannot_verify_are_passed_over(entry: Callable[[], object]) -> None:
    good = jwk("ed25519", kid="good")
    assert [key.kid for key in set_of(entry(), good, entry()).keys] == ["good"]


def test_a_short_rsa_key_is_passed_over() -> None:
    assert set_of(jwk("rsa1024")).keys == ()


@pytest.mark.parametrize("more", [{"use": "sig"}, {"use": None, "alg": None, "key_ops": None}, {"key_ops": ["verify"]}])
def test_what_says_nothing_else_is_a_key(more: dict[str, Any]) -> None:
    assert len(set_of(jwk("rsa", crv=None, **more)).keys) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"keys"', b"{}", b'{"keys":{}}', b'{"keys":null}', b"<html>", b"\xff\xfe", b"[" * 100_000,
        b'{"keys":[' + b",".join([b"0"] * 101) + b"]}",
    ],
)  # fmt: skip
def test_what_is_no_key_set_is_a_fault(body: bytes) -> None:
    with pytest.raises(KeyFault):
        read_jwks(body)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text(), st.lists, max_leaves=5).map(json.dumps).map(str.encode)
)
def test_any_bytes_are_a_key_set_or_a_fault(body: bytes) -> None:
    with suppress(KeyFault):
        read_jwks(body)


def test_an_empty_set_is_a_set() -> None:
    assert set_of().keys == ()
    assert set_of().find(None) == set_of().find("k") == ()


def test_keys_are_found_by_their_name_and_the_only_one_also_without() -> None:
    a, b = jwk("ed25519-a", kid="a"), jwk("ed25519-b", kid="b")
    assert [key.kid for key in set_of(a, b).find("b")] == ["b"]
    assert set_of(a, b).find("c") == set_of(a, b).find("") == set_of(a, b).find(None) == ()
    assert [key.kid for key in set_of(a).find(None)] == ["a"]
    assert [key.kid for key in set_of(a, {"kty": "oct"}).find(None)] == ["a"]
    nameless = set_of(jwk("ed25519"))
    assert len(nameless.find(None)) == 1
    assert nameless.find("a") == ()


def test_two_keys_of_one_name_are_told_apart_by_their_algorithm_and_by_trying() -> None:
    keys = set_of(*[jwk(family, kid="k") for family in ("rsa", "ed25519-a", "ed25519-b")])
    for family, alg in (("rsa", "PS256"), ("ed25519-a", "EdDSA"), ("ed25519-b", "EdDSA")):
        assert verified(signed(GOOD, family, alg, kid="k"), keys).user_id == "u1"


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_token_says_who_and_until_when() -> None:
    assert verified(signed(GOOD)) == Claims("u1", NOW + 60, None, frozenset())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exp": None}, "its exp is not a number"),
        ({"exp": "1800000060"}, "its exp is not a number"),
        ({"exp": True}, "its exp is not a number"),
        ({"exp": [NOW]}, "its exp is not a number"),
        ({"exp": 10**400}, "its exp is not a number"),
        ({"exp": NOW}, "it has expired"),
        ({"exp": NOW - 0.001}, "it has expired"),
        ({"exp": -1}, "it has expired"),
        ({"nbf": NOW + 0.5}, "it is not valid yet"),
        ({"nbf": None}, "its nbf is not a number"),
        ({"nbf": "0"}, "its nbf is not a number"),
        ({"aud": 7}, "its aud is neither text nor a list of texts"),
        ({"aud": ["a", 7]}, "its aud is neither text nor a list of texts"),
        ({"aud": {"a": 1}}, "its aud is neither text nor a list of texts"),
        ({"aud": "better-auth:session-cache"}, "it is a session cookie's cache"),
        ({"aud": ["a", "better-auth:session-cache"]}, "it is a session cookie's cache"),
        ({"banned": True}, "its user is banned"),
        ({"banned": True, "banExpires": "2999-01-01T00:00:00.000Z"}, "its user is banned"),
        ({"banned": True, "banExpires": "soon"}, "its user is banned"),
        ({"roles": [str(i) for i in range(MAX_ROLES + 1)]}, f"it has over {MAX_ROLES} roles"),
    ],
)
def test_claims_that_are_not_good_are_refused(change: dict[str, Any], reason: str) -> None:
    assert refusal(signed(GOOD | change)) == reason


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW + 0.5},
        {"exp": int(NOW) + 1},
        {"nbf": NOW},
        {"nbf": 0},
        {"iat": NOW + 1e6},
        {"iat": "yesterday"},
        {"jti": 7},
        {"iss": "anybody"},
        {"aud": "anybody"},
        {"aud": None},
        {"aud": []},
        {"banned": False},
        {"banned": True, "banExpires": "2020-01-01T00:00:00.000Z"},
        {"banned": True, "banExpires": (NOW - 1) * 1000},
    ],
)
def test_claims_that_nobody_asked_about_do_not_matter(change: dict[str, Any]) -> None:
    assert verified(signed(GOOD | change)).user_id == "u1"


def test_a_token_without_an_end_is_refused() -> None:
    assert refusal(signed({"sub": "u1"})) == "its exp is not a number"
    for text in (b'{"sub":"u1","exp":NaN}', b'{"sub":"u1","exp":Infinity}', b'{"sub":"u1","exp":1e999}'):
        assert refusal(signed(text)) == "a segment is not a JSON object"


def test_a_token_without_exp_ends_a_while_after_its_iat() -> None:
    policy = JwtPolicy(max_age_s=100, leeway_s=5)
    assert verified(signed({"sub": "u1", "iat": NOW - 50}), policy=policy).expires_at == NOW + 55
    assert verified(signed({"sub": "u1", "iat": (NOW - 50) * 1000}), policy=policy).expires_at == NOW + 55
    assert verified(signed({"sub": "u1", "iat": NOW - 50, "exp": NOW + 9000}), policy=policy).expires_at == NOW + 9005
    assert refusal(signed({"sub": "u1", "iat": NOW - 105}), policy=policy) == "it has expired"
    assert refusal(signed({"sub": "u1", "iat": NOW + 61}), policy=policy) == "its iat is in the future"
    assert refusal(signed({"sub": "u1", "iat": "now"}), policy=policy) == "its iat is not a number"
    assert refusal(signed({"sub": "u1"}), policy=policy) == "its exp is not a number"
    assert refusal(signed({"sub": "u1", "iat": NOW, "exp": None}), policy=policy) == "its exp is not a number"
    assert refusal(signed({"sub": "u1", "iat": NOW})) == "its exp is not a number"


def test_dates_in_milliseconds_are_no_far_future() -> None:
    assert verified(signed(GOOD | {"exp": (NOW + 60) * 1000})).expires_at == NOW + 60
    assert refusal(signed(GOOD | {"exp": (NOW - 60) * 1000})) == "it has expired"


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"userId": "u1"}, "u1"),
        ({"user_id": 7}, "7"),
        ({"uid": "u1"}, "u1"),
        ({"user": {"id": "u1"}}, "u1"),
        ({"id": "u1"}, "u1"),
        ({"sub": "u1", "userId": "u2", "user": {"id": "u3"}}, "u1"),
        ({"sub": None, "uid": "u2"}, "u2"),
        ({"user": {"id": "u1"}, "id": "token-7"}, "u1"),
    ],
)
def test_the_user_is_where_issuers_put_it(claims: dict[str, Any], user_id: str) -> None:
    assert verified(signed(claims | {"exp": NOW + 60})).user_id == user_id


@pytest.mark.parametrize("claims", [{"user": "u1"}, {"user": {"id": None}}, {"sub": ["u1"], "uid": "u2"}, {"uid": ""}])
def test_nobody_is_guessed(claims: dict[str, Any]) -> None:
    assert refusal(signed(claims | {"exp": NOW + 60})).startswith("its sub is not printable")


@pytest.mark.parametrize(("sub", "user_id"), [("u1", "u1"), (7, "7"), (0, "0"), ("é ü", "é ü"), ("x" * 255, "x" * 255)])
def test_a_user_id_is_text_or_a_whole_number(sub: object, user_id: str) -> None:
    assert verified(signed(GOOD | {"sub": sub})).user_id == user_id


@pytest.mark.parametrize(
    "sub", [None, "", "x" * 256, "a\0b", "a\nb", "\u202eu1", 1.0, True, ["u1"], {"id": "u1"}, 10**30], ids=repr
)
def test_anything_else_is_no_user(sub: object) -> None:
    assert refusal(signed(GOOD | {"sub": sub})).startswith("its sub is not printable")
    assert refusal(signed({"exp": NOW + 1})).startswith("its sub is not printable")


def test_the_session_is_the_claim_that_the_settings_name() -> None:
    policy = JwtPolicy(session_claim="sid")
    assert verified(signed(GOOD | {"sid": "s1"}), policy=policy).session_id == "s1"
    assert verified(signed(GOOD | {"sid": 7}), policy=policy).session_id == "7"
    assert verified(signed(GOOD | {"sid": None}), policy=policy).session_id is None
    assert verified(signed(GOOD), policy=policy).session_id is None
    assert verified(signed(GOOD | {"sid": {"what": "ever"}}), policy=ANY).session_id is None
    for wrong in ("", "x" * (MAX_NAME + 1), "a\0", 1.5, True, ["s1"], {}):
        assert refusal(signed(GOOD | {"sid": wrong}), policy=policy).startswith("its session is not printable")


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        ({"role": "admin"}, {"admin"}),
        ({"role": "admin, guard,,admin"}, {"admin", "guard"}),
        ({"role": ["admin", " guard "]}, {"admin", "guard"}),
        ({"role": "admin", "roles": ["guard"]}, {"admin", "guard"}),
        ({"roles": "admin,guard"}, {"admin", "guard"}),
        ({"roles": []}, set()),
        ({"role": None, "roles": None}, set()),
        ({"role": 7, "roles": {"admin": True}}, set()),
        ({"roles": ["", " ", 7, None, ["x"], "a\0b", "x" * 256, "ok"]}, {"ok"}),
    ],
)
def test_roles_are_a_list_or_a_text_with_commas(said: dict[str, Any], roles: set[str]) -> None:
    assert verified(signed(GOOD | said)).roles == roles


def test_the_issuer_is_exactly_the_one_expected() -> None:
    policy = JwtPolicy(issuer="https://app.example.com")
    assert verified(signed(GOOD | {"iss": "https://app.example.com"}), policy=policy).user_id == "u1"
    for iss in ("https://app.example.com/", "https://APP.example.com", ["https://app.example.com"], None, 7):
        assert refusal(signed(GOOD | {"iss": iss}), policy=policy) == "its iss is not JWT_ISSUER"
    assert refusal(signed(GOOD), policy=policy) == "its iss is not JWT_ISSUER"


def test_the_audience_is_among_those_of_the_token() -> None:
    policy = JwtPolicy(audience="watchout")
    for aud in ("watchout", ["watchout"], ["other", "watchout"]):
        assert verified(signed(GOOD | {"aud": aud}), policy=policy).user_id == "u1"
    for wrong in ("watchout2", "", [], ["other"], None):
        assert refusal(signed(GOOD | {"aud": wrong}), policy=policy) == "its aud is not the one expected"
    assert refusal(signed(GOOD), policy=policy) == "its aud is not the one expected"


def test_a_clock_that_is_off_is_forgiven_within_the_leeway() -> None:
    policy = JwtPolicy(leeway_s=30)
    claims = verified(signed(GOOD | {"exp": NOW - 29}), policy=policy)
    assert claims.expires_at == NOW + 1
    assert refusal(signed(GOOD | {"exp": NOW - 30}), policy=policy) == "it has expired"
    assert verified(signed(GOOD | {"nbf": NOW + 30}), policy=policy).user_id == "u1"
    assert refusal(signed(GOOD | {"nbf": NOW + 31}), policy=policy) == "it is not valid yet"


@pytest.mark.parametrize(
    "typ",
    ["better-auth.session-cache+jwt", "Better-Auth.Session-Cache+JWT", "application/better-auth.session-cache+jwt"],
)
def test_the_cache_of_a_session_cookie_is_no_token(typ: str) -> None:
    assert refusal(signed(GOOD, typ=typ)) == "it is a session cookie's cache"
    cache = JwtPolicy(audience="better-auth:session-cache")
    assert (
        refusal(signed(GOOD | {"aud": "better-auth:session-cache"}), policy=cache) == "it is a session cookie's cache"
    )


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], None, "b64", {}])
def test_a_header_with_critical_extensions_is_refused(crit: object) -> None:
    assert refusal(signed(GOOD, crit=crit, b64=True)) == "its header has crit"


@pytest.mark.parametrize("kid", [7, ["a"], {}, True])
def test_a_kid_that_is_no_text_is_refused(kid: object) -> None:
    assert refusal(signed(GOOD, kid=kid)) == "its kid is no text"


def test_other_things_in_a_header_do_not_matter() -> None:
    for header in ({"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": 7}, {"typ": None}, {"cty": "x"}, {"b64": False}):
        assert verified(signed(GOOD, **header)).user_id == "u1"
    assert refusal(signed(GOOD, kid="unknown")) == "no key of its kid takes its alg"


# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_looks_like_a_jwt() -> None:
    assert looks_like_jwt(signed(GOOD))
    assert looks_like_jwt(signed(GOOD, "ed25519", "EdDSA", kid="x"))
    assert looks_like_jwt(f"{segment({'alg': 'none'})}.e30.AA")
    assert looks_like_jwt(f"{segment({'alg': 'x'})}.____.----")
    for other in (
        "", ".", "..", "...", "a.b.c", "e30.e30.AA", f"{segment({'alg': 7})}.e30.AA", f"{segment(['alg'])}.e30.AA",
        f"{segment({'alg': 'HS256'})}.e30", f"{segment({'alg': 'HS256'})}.e30.", f"{segment({'alg': 'HS256'})}..AA",
        f"{signed(GOOD)}.AA", f"{signed(GOOD)}\n", f" {signed(GOOD)}", f"{signed(GOOD)}=", f"Bearer {signed(GOOD)}",
        "x" * 32, "x" * 32 + "." + base64.b64encode(b"x" * 32).decode(), "\0" * 40, "\ud800.\ud800.\ud800",
        "é" * 8 + ".e30.AA", f"{segment(b'[' * 4000)}.e30.AA",
    ):  # fmt: skip
        assert not looks_like_jwt(other)
        with pytest.raises(TokenRefused):
            read_jwt(other, ANY, NOW)


def test_a_token_has_a_greatest_length() -> None:
    empty = len(signed(GOOD | {"pad": ""}))
    room = (MAX_TOKEN_BYTES - empty) * 3 // 4 - 3
    assert verified(signed(GOOD | {"pad": "x" * room})).user_id == "u1"
    long = signed(GOOD | {"pad": "x" * (room + 10)})
    assert len(long) > MAX_TOKEN_BYTES
    assert not looks_like_jwt(long)
    assert refusal(long) == "it is too long"


@given(st.text() | st.text(alphabet="abcAB019-_.=") | st.binary().map(lambda data: f"{segment(data)}.e30.AA"))
def test_no_text_makes_it_raise(text: str) -> None:
    if not looks_like_jwt(text):
        with pytest.raises(TokenRefused):
            read_jwt(text, ANY, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
NAMES = ["sub", "exp", "nbf", "iat", "iss", "aud", "sid", "role", "roles", "banned", "banExpires"]


@given(
    claims=st.dictionaries(st.sampled_from(NAMES), JSON) | JSON,
    header=st.dictionaries(st.sampled_from(["typ", "kid", "crit", "b64", "alg"]), JSON),
)
def test_whatever_an_issuer_signs_is_claims_in_order_or_refused(claims: Any, header: dict[str, Any]) -> None:
    if isinstance(claims, dict):
        claims = {"sub": "u1", "exp": NOW + 1} | claims
    head = f"{segment({'alg': 'HS256'} | header)}.{segment(claims)}"
    token = f"{head}.{segment(hmac.digest(SECRET.encode(), head.encode(), hashlib.sha256))}"
    try:
        found = verified(token, policy=JwtPolicy(session_claim="sid"))
    except TokenRefused:
        return
    for name in (found.user_id, *([] if found.session_id is None else [found.session_id]), *found.roles):
        assert 0 < len(name) <= MAX_NAME
        assert name.isprintable()
    assert NOW < found.expires_at < math.inf


def test_a_token_in_which_one_character_is_another_is_refused() -> None:
    token = signed(GOOD)
    alphabet = string.ascii_letters + string.digits + "-_."
    for at, was in enumerate(token):
        for new in alphabet:
            if new != was:
                refusal(token[:at] + new + token[at + 1 :])


# ── the verifier with a key out of the settings ──────────────────────────────────────────────────────────────────


@asynccontextmanager
async def opened(**environ: str) -> AsyncIterator[JwtVerifier]:
    verifier = JwtVerifier(load(environ))
    await verifier.open()
    try:
        yield verifier
    finally:
        await verifier.close()


def lasting(**more: Any) -> dict[str, Any]:
    return {"sub": "u1", "exp": time.time() + 60} | more


async def test_a_secret_verifies_what_it_signed() -> None:
    async with opened(JWT_SECRET=SECRET, JWT_ISSUER="me") as verifier:
        await verifier.check()
        for alg in FAMILIES["secret"]:
            claims = await verifier.verify(signed(lasting(iss="me", sid="s1"), alg=alg))
            assert claims is not None
            assert (claims.user_id, claims.session_id) == ("u1", "s1")
        for token in (signed(lasting()), signed(lasting(iss="me"), "rsa", "RS256"), "x" * 32, "", "\ud800"):
            assert await verifier.verify(token) is None


async def test_each_kind_of_key_proves_its_own_tokens_beside_the_others() -> None:
    """A public key is known to everybody: what it says as a secret must not count."""
    async with opened(JWT_SECRET=SECRET, JWT_PUBLIC_KEY=pem("rsa")) as verifier:
        assert await verifier.verify(signed(lasting())) is not None
        assert await verifier.verify(signed(lasting(), "rsa", "RS256")) is not None
        for forged in (pem("rsa"), pem("rsa").strip(), "", "x" * 32):
            head, body = signed(lasting()).split(".")[:2]
            mac = hmac.digest(forged.encode(), f"{head}.{body}".encode(), hashlib.sha256)
            assert await verifier.verify(f"{head}.{body}.{segment(mac)}") is None
        assert await verifier.verify(signed(lasting(), "p256", "ES256")) is None


async def test_what_pyjwt_makes_is_taken() -> None:
    async with opened(JWT_SECRET=SECRET) as verifier:
        assert await verifier.verify(jwt.encode(lasting(), SECRET, "HS512")) is not None
    async with opened(JWT_PUBLIC_KEY=pem("rsa").replace("\n", "\\n")) as verifier:
        assert await verifier.verify(jwt.encode(lasting(), private("rsa"), "PS384")) is not None


async def test_a_short_secret_is_a_secret() -> None:
    head = f"{segment({'alg': 'HS256'})}.{segment(lasting())}"
    mac = hmac.digest(b"8 chars!", head.encode(), hashlib.sha256)
    async with opened(JWT_SECRET="8 chars!") as verifier:
        assert await verifier.verify(f"{head}.{segment(mac)}") is not None


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "secret"])
async def test_a_public_key_verifies_what_its_private_half_signed(family: str) -> None:
    async with opened(JWT_PUBLIC_KEY=pem(family), JWT_SESSION_CLAIM="none") as verifier:
        await verifier.check()
        for alg in FAMILIES[family]:
            claims = await verifier.verify(signed(lasting(sid="s1"), family, alg))
            assert claims is not None
            assert claims.session_id is None
        assert await verifier.verify(signed(lasting())) is None


async def test_an_old_fashioned_rsa_key_is_read_too() -> None:
    old = private("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    async with opened(JWT_PUBLIC_KEY=old) as verifier:
        assert await verifier.verify(signed(lasting(), "rsa", "RS256")) is not None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"JWT_PUBLIC_KEY": pem("rsa1024")}, "JWT_PUBLIC_KEY is an RSA key of 1024 bits, expected 2048 to 8192"),
        ({"JWT_PUBLIC_KEY": pem("ed448")}, "JWT_PUBLIC_KEY is a key that is neither RSA"),
        ({"JWT_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\ncanary"}, "JWT_PUBLIC_KEY is no public key in PEM"),
        ({"JWT_SECRET": pem("rsa")}, "JWT_SECRET is a key of another kind, expected a secret"),
        ({}, "neither JWT_SECRET, JWT_PUBLIC_KEY nor JWT_JWKS_URL is set"),
    ],
)
async def test_a_key_that_cannot_be_used_stops_the_start(environ: dict[str, str], words: str) -> None:
    with pytest.raises(StartError, match=words) as caught:
        await JwtVerifier(load(environ)).open()
    assert "canary" not in str(caught.value)


async def test_a_verifier_that_is_not_open_is_unavailable() -> None:
    verifier = JwtVerifier(load({"JWT_SECRET": SECRET}))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await verifier.verify(signed(lasting()))
        with pytest.raises(StoreUnavailable):
            await verifier.check()
        await verifier.open()
        assert await verifier.verify(signed(lasting())) is not None
        await verifier.close()
        await verifier.close()


def test_the_policy_is_what_the_settings_say() -> None:
    def of(**environ: str) -> JwtPolicy:
        return JwtPolicy.of(load(environ))

    assert of(JWT_SECRET=SECRET, JWT_ISSUER="me") == JwtPolicy(issuer="me", session_claim="sid", max_age_s=3600)
    remote = {"JWT_JWKS_URL": "http://127.0.0.1/jwks"}
    assert of(**remote, JWT_ISSUER="me") == JwtPolicy(issuer="me", audience="me", session_claim="sid", max_age_s=3600)
    assert of(**remote, JWT_AUDIENCE="us") == JwtPolicy(audience="us", session_claim="sid", max_age_s=3600)
    assert of(**remote, JWT_ISSUER="me", JWT_AUDIENCE="us").audience == "us"
    assert of(JWT_SESSION_CLAIM="None").session_claim is None
    assert of(JWT_LEEWAY_S="5").leeway_s == 5


async def test_the_log_says_why_a_token_is_refused_and_nothing_of_it() -> None:
    token = signed(lasting(exp=1, name="a canary"))
    async with opened(JWT_SECRET=SECRET) as verifier:
        with capture_logs() as lines:
            assert await verifier.verify(token) is None
    assert lines == [{"event": "JWT refused", "reason": "it has expired", "log_level": "debug", "module": "identity"}]
