"""Channel binding for PostgreSQL, which asyncpg lacks: proof that the TLS server is the one that knows the password.

`verify_server` signs in once with SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; ``tls-server-end-point``, RFC 5929) and
returns the server's certificate. Connections that accept only this certificate are bound to the same server.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

MECHANISM: Final = "SCRAM-SHA-256-PLUS"
_PROTOCOL: Final = 3 << 16
_SSL_REQUEST: Final = 80877103
#: Largest message of the server while it signs us in.
_MAX_BYTES: Final = 64 << 10
_SASL, _SASL_CONTINUE, _SASL_FINAL = 10, 11, 12


class ChannelBindingFailed(Exception):
    """The database server did not prove that it knows the password (SCRAM, RFC 5802); raised by `verify_server`.

    The text is safe to log. The caller reports the session store as unavailable and sends no password to this server.
    """


def endpoint_hash(certificate: bytes) -> bytes:
    """Return the channel-binding data of a certificate in DER (RFC 5929 section 4.1): the hash of the certificate.

    The hash function is that of the certificate's signature, SHA-256 in place of MD5 and SHA-1.
    """
    algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate)
    return digest.finalize()


def verify_server(
    address: str,
    port: int,
    context: ssl.SSLContext,
    *,
    server_name: str,
    user: str,
    password: str,
    database: str,
    direct: bool,
    timeout_s: float,
) -> bytes:
    """Sign in with channel binding, disconnect, and return the server's certificate in DER. Blocks.

    Args:
        address: Host name or address to connect to.
        port: TCP port.
        context: TLS context; it decides whether the certificate's authority and name are verified.
        server_name: Name sent in TLS (SNI) and compared with the certificate.
        user: Database role.
        password: Its password.
        database: Database name.
        direct: Start TLS at once (PostgreSQL 17) instead of asking for it first.
        timeout_s: Deadline of each read and write, in seconds.

    Raises:
        ChannelBindingFailed: The server offers no SCRAM-SHA-256-PLUS, or does not prove that it knows the password.
        OSError: There is no connection, or it ended.
    """
    with socket.create_connection((address, port), timeout=timeout_s) as plain:
        if not direct:
            plain.sendall(struct.pack("!ii", 8, _SSL_REQUEST))
            if plain.recv(1) != b"S":
                raise ChannelBindingFailed("the server offers no TLS")
        with context.wrap_socket(plain, server_hostname=server_name) as secure:
            certificate = secure.getpeercert(binary_form=True)
            if certificate is None:
                raise ChannelBindingFailed("the server shows no certificate")
            _sign_in(secure, user, password, database, certificate)
            with suppress(OSError):
                secure.sendall(b"X" + struct.pack("!i", 4))
            return certificate


def _sign_in(server: ssl.SSLSocket, user: str, password: str, database: str, certificate: bytes) -> None:
    from scramp import ScramClient, ScramException  # only those with channel_binding=require need it

    fields = b"".join(word.encode() + b"\0" for word in ("user", user, "database", database))
    body = struct.pack("!i", _PROTOCOL) + fields + b"\0"
    server.sendall(struct.pack("!i", len(body) + 4) + body)
    kind, content = _authentication(server)
    offered = content.decode("ascii", "replace").split("\0") if kind == _SASL else []
    if MECHANISM not in offered:
        raise ChannelBindingFailed(
            f"the server offers no {MECHANISM} (a pooler in between, or a password that is not SCRAM's)"
        )
    try:
        client = ScramClient([MECHANISM], user, password, ("tls-server-end-point", endpoint_hash(certificate)))
    except ScramException:
        raise ChannelBindingFailed("the password has characters that SASLprep (RFC 4013) does not allow") from None
    first = client.get_client_first().encode()
    _send(server, MECHANISM.encode() + b"\0" + struct.pack("!i", len(first)) + first)
    try:
        client.set_server_first(_expected(server, _SASL_CONTINUE))
        _send(server, client.get_client_final().encode())
        client.set_server_final(_expected(server, _SASL_FINAL))
    except ScramException:
        raise ChannelBindingFailed("the server does not prove that it knows the password") from None


def _send(server: ssl.SSLSocket, body: bytes) -> None:
    server.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)


def _expected(server: ssl.SSLSocket, kind: int) -> str:
    received, content = _authentication(server)
    if received != kind:
        raise ChannelBindingFailed("the server signs us in without channel binding")
    return content.decode("utf-8", "replace")


def _authentication(server: ssl.SSLSocket) -> tuple[int, bytes]:
    """Read one authentication message; return its kind and body. Raises `ChannelBindingFailed` for anything else."""
    head = _read(server, 5)
    length = int.from_bytes(head[1:]) - 4
    if not 0 <= length <= _MAX_BYTES:
        raise ChannelBindingFailed("what answers is no PostgreSQL")
    body = _read(server, length)
    if head[:1] == b"E":
        fields = {field[:1]: field[1:].decode("utf-8", "replace") for field in body.split(b"\0") if field}
        raise ChannelBindingFailed(f"the server refuses: {fields.get(b'M', 'it does not say why')}")
    if head[:1] != b"R" or length < 4:
        raise ChannelBindingFailed("what answers is no PostgreSQL")
    return int.from_bytes(body[:4]), body[4:]


def _read(server: ssl.SSLSocket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = server.recv(count - len(found))
        if not part:
            raise ConnectionError("the server closed the connection")
        found += part
    return found
