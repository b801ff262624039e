"""Keys, their algorithms, and sets of published keys."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity.jwt_kit import (
    ANY,
    FAMILIES,
    GOOD,
    NOW,
    SECRET,
    algorithm_of,
    keys_of,
    pem,
    private,
    refusal,
    segment,
    signed,
    verified,
)
from watchout.identity.sources.jwt_claims import read_jwt
from watchout.identity.sources.keys import KeyFault, KeySet, pem_key, read_jwks, secret_key

ALGORITHMS = sorted(set().union(*FAMILIES.values()))


def jwk(family: str, **more: Any) -> dict[str, Any]:
    algorithms = FAMILIES.get(family.partition("-")[0], {"RS256"})
    entry: dict[str, Any] = algorithm_of(min(algorithms)).to_jwk(private(family).public_key(), as_dict=True)
    entry.pop("key_ops", None)
    return entry | more


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
    match family:
        case "secret":
            other: Any = b"another secret that is 64 characters long, as it has to be for HS"
        case "rsa":
            other = rsa.generate_private_key(65537, 2048)
        case "ed25519":
            other = ed25519.Ed25519PrivateKey.generate()
        case _:
            other = ec.generate_private_key(private(family).curve)
    for alg in FAMILIES[family]:
        head = f"{segment({'alg': alg})}.{segment(GOOD)}"
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
