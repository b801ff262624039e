"""The verdict on certificates and their keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.doctor_report import levels, one
from watchout.ctl.doctor.checks.certificate import first_certificate, judge_certificate, judge_key_mode
from watchout.ctl.doctor.findings import Level

NOW = datetime(2030, 1, 1, tzinfo=UTC)

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


KEY, ISSUER_KEY = (generate_private_key(SECP256R1()) for _ in range(2))


def certificate(
    *, begins: float = -1, days: float = 90, names: Iterable[str] = ("cam.example",), own: bool = False
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam.example")])
    issuer = subject if own else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=begins))
        .not_valid_after(NOW + timedelta(days=days))
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(KEY if own else ISSUER_KEY, SHA256()).public_bytes(Encoding.PEM)


def authority() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(ISSUER_KEY.public_key())
    builder = builder.serial_number(2).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=900))
    return builder.sign(ISSUER_KEY, SHA256()).public_bytes(Encoding.PEM)


def pem(key: EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (90, OK, "cam.example is valid until 2030-04-01, 90 days from now"),
        (14, OK, "14 days"),
        (13.9, WARNING, "13 days from now. Renew it"),
        (0.5, WARNING, "0 days"),
        (0, WRONG, "expired on 2030-01-01 00:00 UTC"),
        (-0.5, WRONG, "expired on 2029-12-31 12:00 UTC"),
    ],
)
def test_the_days_of_a_certificate(days: float, level: Level, words: str) -> None:
    finding = one(judge_certificate(certificate(days=days) + authority(), pem(KEY), NOW))
    assert finding.level is level
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("chain", "key", "level", "words"),
    [
        (certificate(begins=1) + authority(), pem(KEY), WRONG, "valid only from 2030-01-02"),
        (certificate(names=()) + authority(), pem(KEY), WRONG, "no subjectAltName"),
        (certificate(own=True), pem(KEY), WARNING, "self-signed"),
        (certificate(), pem(KEY), WARNING, "no certificate of the issuer (CN=An Authority)"),
        (certificate() + authority(), pem(ISSUER_KEY), WRONG, "is not the first one"),
        (certificate() + authority(), pem(generate_private_key(SECP256R1())), WRONG, "does not belong to"),
        (certificate() + authority(), pem(KEY, b"canary"), WRONG, "TLS_KEY is encrypted"),
        (certificate() + authority(), b"", WRONG, "TLS_KEY holds no readable private key"),
        (certificate() + authority(), b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----", WRONG, "no"),
        (b"", pem(KEY), WRONG, "TLS_CERT holds no readable certificate"),
        (b"\xff\x00", pem(KEY), WRONG, "TLS_CERT holds no readable certificate"),
        (pem(KEY), pem(KEY), WRONG, "TLS_CERT holds no readable certificate"),
        (certificate()[:200], pem(KEY), WRONG, "TLS_CERT holds no readable certificate"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate(chain: bytes, key: bytes, level: Level, words: str) -> None:
    finding = one(f for f in judge_certificate(chain, key, NOW) if f.level is not OK)
    assert finding.level is level
    assert words in finding.sentence


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_file_makes_the_check_fail(chain: bytes, key: bytes) -> None:
    list(judge_certificate(chain, key, NOW))
    list(judge_certificate(certificate() + chain, key, NOW))
    first_certificate(chain)


@pytest.mark.parametrize(("mode", "seen"), [(0o100600, False), (0o100640, False), (0o100644, True)])
def test_a_key_that_everybody_may_read_is_a_warning(mode: int, seen: bool) -> None:
    assert levels(judge_key_mode("TLS_KEY", Path("/k"), mode)) == [WARNING] * seen
