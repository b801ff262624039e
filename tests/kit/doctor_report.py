"""What the tests of the doctor share: reading its report, servers, and certificates."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.kit.ctl_command import Ended
from watchout.ctl.doctor.findings import Finding, Level

#: The command to its end, with these options and settings.
Doctor = Callable[..., Awaitable[Ended]]


def levels(findings: Iterable[Finding]) -> list[Level]:
    """The level of each finding."""
    return [finding.level for finding in findings]


def one(findings: Iterable[Finding]) -> Finding:
    """The only finding; it has a remedy unless all is well."""
    (finding,) = findings
    assert finding.level is Level.OK or finding.remedy
    return finding


def lines(ended: Ended, check: str, level: str) -> list[str]:
    """The sentences of one check and level."""
    assert ended.err == ""
    return [m[1] for m in re.finditer(rf"^{level} +{check} +(.+)$", ended.out, re.MULTILINE)]


def line(ended: Ended, check: str, level: str, words: str) -> str:
    """The one sentence of that check and level that has these words."""
    (found,) = [text for text in lines(ended, check, level) if words in text]
    return found


@asynccontextmanager
async def served(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = handler(request)
        return answer

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def make_certificate(folder: Path, days: float) -> dict[str, str]:
    """Files of a certificate that ends in so many days, and the settings for them."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cam.example")]), critical=False)
        .sign(key, SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[1].chmod(0o600)
    return {"TLS_CERT": str(files[0]), "TLS_KEY": str(files[1])}
