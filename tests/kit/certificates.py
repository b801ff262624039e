"""Certificates for tests, good for a day or as asked, of themselves or of an authority."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_key() -> PrivateKey:
    """A private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """The key as a file has it."""
    encryption = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def make_certificate(
    key: PrivateKey,
    address: str = "127.0.0.1",
    authority: tuple[PrivateKey, bytes] | None = None,
    days: float = 1.0,
) -> bytes:
    """A certificate for an address, as a file has it: of an authority's key and certificate, or self-signed."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "watchout test")])
    issuer, signer = name, key
    if authority is not None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"watchout test at {address}")])
        issuer, signer = x509.load_pem_x509_certificate(authority[1]).subject, authority[0]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
