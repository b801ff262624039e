"""TLS of the points that have it: one authority, one certificate and one cipher for all systems.

The cipher is the one that OpenSSL puts first for TLS 1.3, so that a server by default takes it with every client that
has it. The load offers no other one: a system cannot be measured with a cheaper cipher than its peers.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load.model import CIPHER
from tests.kit.certificates import make_certificate, make_key, pem

#: What OpenSSL reads from the file that `OPENSSL_CONF` names: contexts offer TLS 1.3 with `CIPHER` and nothing else.
_OPENSSL: Final = f"""\
openssl_conf = all
[all]
ssl_conf = tls
[tls]
system_default = of_everything
[of_everything]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER}
"""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM.

    Attributes:
        authority: The certificate that clients trust.
        certificate: That of the server on 127.0.0.1: P-256, signed by the authority, with the authority's after it.
        key: The server's private key.
        both: Certificate and key in one file, as HAProxy takes them.
        openssl: Settings for the load's OpenSSL.
    """

    authority: Path
    certificate: Path
    key: Path
    both: Path
    openssl: Path


def make_files(directory: Path) -> TlsFiles:
    """Make an authority and a certificate of it, in files of a directory that is made."""
    directory.mkdir(parents=True)
    files = TlsFiles(
        *(directory / name for name in ("authority.pem", "fullchain.pem", "key.pem", "both.pem", "openssl.cnf"))
    )
    authority_key, key = make_key(), make_key()
    authority = make_certificate(authority_key)
    files.authority.write_bytes(authority)
    files.certificate.write_bytes(make_certificate(key, authority=(authority_key, authority)) + authority)
    files.key.write_bytes(pem(key))
    files.both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    files.openssl.write_text(_OPENSSL)
    return files


def client_context(authority: Path) -> ssl.SSLContext:
    """Return what the load connects with: it trusts the authority alone."""
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
