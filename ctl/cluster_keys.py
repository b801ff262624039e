"""Makes the certificates of a cluster's frame mesh: its authority, and a key and certificate for each host.

All of it is in one directory, which is not needed by any running process: ``ca.key`` signs, ``ca.crt`` is what hosts
are verified with, ``shared/`` has the keys that all hosts share, and ``hosts/NAME/`` is what is copied into
`WATCHOUT_HOME` of a host, with the same names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from watchout.common.home_files import (
    HOME_KEY_BYTES,
    MESH_CA_FILE,
    MESH_CERT_FILE,
    MESH_DIRECTORY,
    MESH_KEY_FILE,
    SHARE_KEY_FILE,
    STREAM_KEY_FILE,
)
from watchout.common.toolbox.hosts import bracketed, checked_host
from watchout.common.toolbox.reason import reason
from watchout.ctl.environment import Failure

#: Days that the authority and the certificate of a host are valid, if nothing else is asked for.
AUTHORITY_DAYS: Final = 3650
HOST_DAYS: Final = 397
#: A certificate that is valid for fewer days is made anew.
RENEW_DAYS: Final = 60
#: Certificates begin that much earlier, because the clocks of hosts differ.
_BACKDATED: Final = timedelta(days=1)
#: What all hosts of a cluster share: the keys of shares' tokens and of the ids that gateways make.
SHARED_FILES: Final = (SHARE_KEY_FILE, STREAM_KEY_FILE)
CA_KEY_FILE: Final = "ca.key"
_SHARED: Final = "shared"
_HOSTS: Final = "hosts"


@dataclass(frozen=True, slots=True)
class Made:
    """What a command did.

    Attributes:
        place: the directory that it is about.
        written: the files that are new or replaced.
        kept: the files that were there and stay as they are.
        not_after: until when the certificate is valid.
    """

    place: Path
    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    not_after: datetime


def make_cluster(directory: Path, *, name: str, days: int, home: Path, force: bool, now: datetime) -> Made:
    """Make the authority and the shared keys of a cluster, or keep those that are there.

    Args:
        directory: Where to; created with mode 0700.
        name: Name of the cluster, within the name of the authority.
        days: For how many days the authority is valid.
        home: A home whose shared keys are taken where it has them, so that tokens of shares stay valid.
        force: Replace what is there.
        now: The time.

    Raises:
        Failure: A file cannot be read or written.

    """
    written: list[Path] = []
    kept: list[Path] = []
    ca_key, ca_cert = directory / CA_KEY_FILE, directory / MESH_CA_FILE
    if force or not (ca_key.exists() or ca_cert.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority(key, name, now, days)
        _write(ca_key, _key_pem(key))
        _write(ca_cert, certificate.public_bytes(Encoding.PEM))
        written += (ca_key, ca_cert)
    else:
        certificate, _ = _load_authority(directory)
        kept += (ca_key, ca_cert)
    for file in SHARED_FILES:
        path = directory / _SHARED / file
        if path.exists() and not force:
            kept.append(path)
            continue
        _write(path, _home_key(home / file) or secrets.token_bytes(HOME_KEY_BYTES))
        written.append(path)
    return Made(directory, tuple(written), tuple(kept), certificate.not_valid_after_utc)


def make_host(directory: Path, name: str, addresses: Sequence[str], *, days: int, force: bool, now: datetime) -> Made:
    """Make key and certificate of a host, and put what the cluster shares beside them.

    A certificate that is valid for `RENEW_DAYS` and names the same addresses stays; any other one is made anew for the
    key that is there.

    Args:
        directory: The directory of `make_cluster`.
        name: Name of the host.
        addresses: Further names and IP addresses under which other hosts reach it; none: those of the certificate that
            is there.
        days: For how many days the certificate is valid.
        force: Make a new key.
        now: The time.

    Raises:
        Failure: A name is invalid, there is no authority, or a file cannot be read or written.

    """
    names = _names((name,))
    cert_path = directory / _HOSTS / names[0] / MESH_DIRECTORY / MESH_CERT_FILE
    names = _names((name, *(addresses or _names_in(cert_path))))
    authority, authority_key = _load_authority(directory)
    if authority.not_valid_after_utc <= now:
        raise Failure(f"the authority in {directory} expired on {authority.not_valid_after_utc:%Y-%m-%d}")
    place = directory / _HOSTS / names[0]
    key_path = place / MESH_DIRECTORY / MESH_KEY_FILE
    files: dict[Path, bytes] = {}
    fresh_key = force or not key_path.exists()
    key = ec.generate_private_key(ec.SECP256R1()) if fresh_key else _load_key(key_path)
    if fresh_key:
        files[key_path] = _key_pem(key)
    certificate = None if fresh_key else _still_good(cert_path, key, authority, names, now)
    if certificate is None:
        certificate = _host(key, names, authority, authority_key, now, days)
        files[cert_path] = certificate.public_bytes(Encoding.PEM)
    shared = {place / MESH_DIRECTORY / MESH_CA_FILE: directory / MESH_CA_FILE}
    shared |= {place / file: directory / _SHARED / file for file in SHARED_FILES}
    for path, source in shared.items():
        content = _read(source)
        if not path.exists() or _read(path) != content:
            files[path] = content
    for path, content in files.items():
        _write(path, content)
    kept = [path for path in (key_path, cert_path, *shared) if path not in files]
    return Made(place, tuple(files), tuple(kept), certificate.not_valid_after_utc)


def _names(given: Sequence[str]) -> list[str]:
    """Return the checked names, each once, the host's own first, which is no wildcard. Raises `Failure`."""
    found: list[str] = []
    for text in given:
        host = checked_host(text) or checked_host(bracketed(text)) or (_wildcard(text) if found else None)
        if host is None:
            raise Failure(f"{text[:80]!r} is no host name and no IP address")
        if host not in found:
            found.append(host)
    return found


def _wildcard(text: str) -> str | None:
    """Return ``*.`` and a domain, which stands for every name directly below it; None for what nobody would accept.

    OpenSSL accepts it for domains with at least two labels only.
    """
    domain = checked_host(text.removeprefix("*."))
    if domain is None or not text.startswith("*.") or "." not in domain or not domain.rpartition(".")[2].isalpha():
        return None
    return f"*.{domain}"


def _names_in(path: Path) -> list[str]:
    """Return the names and addresses of the certificate in a file, none where there is no certificate."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _authority(key: ec.EllipticCurvePrivateKey, name: str, now: datetime, days: int) -> x509.Certificate:
    # The serial number in the name: two authorities of one cluster can be told apart in a file that has both.
    serial = x509.random_serial_number()
    subject = _subject(f"watchout cluster {name[:24]} {serial & 0xFFFFFFFF:08x}")
    builder = _builder(subject, subject, key.public_key(), now, days).serial_number(serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _host(
    key: ec.EllipticCurvePrivateKey, names: Sequence[str], authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey, now: datetime, days: int,
) -> x509.Certificate:  # fmt: skip
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = _builder(_subject(names[0][:64]), authority.subject, key.public_key(), now, days)
    builder = (
        builder.serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(both_ends, critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _subject(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _still_good(
    path: Path, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, names: Sequence[str], now: datetime
) -> x509.Certificate | None:
    """Return the certificate in a file if it need not be made anew."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        found.verify_directly_issued_by(authority)
        has = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    same_key = _public(found.public_key()) == _public(key.public_key())
    same_names = set(has) == {_general_name(name) for name in names}
    good = same_key and same_names and found.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
    return found if good else None


def _public(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load_authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the authority's certificate and key. Raises `Failure`."""
    if not (directory / CA_KEY_FILE).exists():
        raise Failure(
            f"there is no authority in {directory}: `watchout-ctl keys cluster` makes it, --directory names its place"
        )
    key = _load_key(directory / CA_KEY_FILE)
    try:
        certificate = x509.load_pem_x509_certificate(_read(directory / MESH_CA_FILE))
    except ValueError:
        raise Failure(f"{directory / MESH_CA_FILE} is no certificate in PEM") from None
    if _public(certificate.public_key()) != _public(key.public_key()):
        raise Failure(f"{directory / MESH_CA_FILE} does not belong to {directory / CA_KEY_FILE}")
    return certificate, key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Failure(f"{path} is no key of `watchout-ctl keys`; --force replaces it")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _home_key(path: Path) -> bytes | None:
    """Return the key in a file of a home, None where there is none."""
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == HOME_KEY_BYTES else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {reason(error)}") from None


def _write(path: Path, content: bytes) -> None:
    """Write a file in one step, mode 0600; missing directories are made with mode 0700. Raises `Failure`."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        for parent in reversed(path.parents):
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o700)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {reason(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
