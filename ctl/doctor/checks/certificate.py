"""Check of the certificate and private key of the gateway: validity, chain, names, and who may read the key."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from watchout.common.settings import Settings
from watchout.common.toolbox.reason import reason
from watchout.ctl.doctor.check import blocking_check
from watchout.ctl.doctor.findings import Finding, Level, ok, warning, wrong
from watchout.ctl.terminal import counted

#: Days before a certificate expires from which the doctor warns.
CERTIFICATE_DAYS: Final = 14


def check_certificate(settings: Settings) -> list[Finding]:
    """Return the findings on `TLS_CERT` and `TLS_KEY`. Blocks."""
    if settings.tls_cert is None:
        return [ok("tls", "The gateway itself does not use TLS: TLS_CERT is not set.")]
    holder, key_file = ("TLS_CERT", settings.tls_cert) if settings.tls_key is None else ("TLS_KEY", settings.tls_key)
    try:
        certificate, key, mode = settings.tls_cert.read_bytes(), key_file.read_bytes(), key_file.stat().st_mode
    except OSError as exc:
        text = f"{exc.filename} cannot be read: {exc.strerror}."
        return [wrong("tls", text, "Let the user of watchout read it; TLS_CERT and TLS_KEY name the files.")]
    found = [
        *judge_certificate(certificate, key, datetime.now(UTC), holder=holder),
        *judge_key_mode(holder, key_file, mode),
    ]
    if not any(finding.level is Level.WRONG for finding in found):
        found += _load_with_openssl(settings.tls_cert, key_file)
    return found


CHECK: Final = blocking_check("tls", check_certificate)


def _load_with_openssl(certificate: Path, key: Path) -> Iterator[Finding]:
    """Yield a finding where OpenSSL refuses the files, such as for a key that is too short for its security level."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=str)
    except (ssl.SSLError, ValueError, OSError) as exc:
        yield wrong("tls", f"OpenSSL on this machine refuses the certificate: {reason(exc)}.", "Get a stronger one.")


def judge_certificate(certificate: bytes, key: bytes, now: datetime, *, holder: str = "TLS_KEY") -> Iterator[Finding]:
    """Yield the findings on a certificate and its key.

    Args:
        certificate: the chain in PEM, the server's own certificate first.
        key: the private key in PEM.
        now: the current time.
        holder: the setting that names the key's file.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate)
        names = _names(chain[0])
        public_keys = [_public_bytes(each.public_key()) for each in chain]
    except (ValueError, UnsupportedAlgorithm):
        yield wrong(
            "tls",
            "TLS_CERT holds no readable certificate in PEM.",
            "Set it to the file with the whole chain (fullchain.pem).",
        )
        return
    yield from _judge_key(public_keys, key, holder)
    yield _judge_dates(chain[0], names, now)
    if not names:
        yield wrong(
            "tls",
            "The certificate has no subjectAltName: browsers and phones refuse it.",
            "Get one that names the gateway's host.",
        )
    if chain[0].issuer == chain[0].subject:
        yield warning(
            "tls",
            "The certificate is self-signed: only clients that were configured to trust it can connect.",
            "Get one from an authority, unless this is intended.",
        )
    elif len(chain) == 1:
        yield warning(
            "tls",
            f"TLS_CERT has no certificate of the issuer ({chain[0].issuer.rfc4514_string()[:200]}): many clients "
            "cannot verify it.",
            "Set it to the file with the whole chain (fullchain.pem).",
        )


def _judge_key(public_keys: Sequence[bytes], key: bytes, holder: str) -> Iterator[Finding]:
    """Yield a finding where the key cannot be read or is not that of the first certificate."""
    try:
        own = _public_bytes(load_pem_private_key(key, None).public_key())
    except TypeError:
        yield wrong(
            "tls",
            f"The private key in {holder} is encrypted, and a server cannot ask for its pass phrase.",
            "Decrypt it (openssl pkey -in … -out …).",
        )
    except (ValueError, UnsupportedAlgorithm):
        yield wrong("tls", f"{holder} holds no readable private key in PEM.", "Set TLS_KEY to the key's file.")
    else:
        if own in public_keys[1:] and own != public_keys[0]:
            yield wrong("tls", "The server's own certificate is not the first one in TLS_CERT.", "Put it first.")
        elif own != public_keys[0]:
            yield wrong(
                "tls",
                f"The private key in {holder} does not belong to the certificate in TLS_CERT.",
                "Set both to files that were issued together.",
            )


def _judge_dates(leaf: x509.Certificate, names: Sequence[str], now: datetime) -> Finding:
    """Return the one finding on the validity period."""
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    days = (ends - now).total_seconds() / 86_400
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "no name"
    facts = {"names": list(names[:50]), "notAfter": ends.isoformat(), "daysLeft": round(days, 1)}
    renew = "Renew it; the gateway loads a new file within a minute."
    if days <= 0:
        text = f"The certificate for {shown} expired on {ends:%Y-%m-%d %H:%M} UTC: clients refuse it."
        return wrong("tls", text, renew, **facts)
    if begins > now:
        text = f"The certificate for {shown} is valid only from {begins:%Y-%m-%d %H:%M} UTC on."
        return wrong("tls", text, "Look at this machine's clock, or wait.", **facts)
    text = f"The certificate for {shown} is valid until {ends:%Y-%m-%d}, {counted(int(days), 'day')} from now."
    return warning("tls", text, renew, **facts) if days < CERTIFICATE_DAYS else ok("tls", text, **facts)


def judge_key_mode(holder: str, path: Path, mode: int) -> Iterator[Finding]:
    """Yield a warning where every user of the machine may read the private key."""
    if mode & stat.S_IROTH:
        yield warning(
            "tls",
            f"{holder} ({path}) has mode {mode & 0o777:04o}: every user of this machine may read the private key.",
            f"chmod o= {path}",
        )


def first_certificate(pem: bytes) -> bytes | None:
    """Return the certificate that a server with this PEM file presents, in DER; None when there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    except ValueError:
        return None


def _names(leaf: x509.Certificate) -> list[str]:
    """Return the host names and addresses of a certificate."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found
