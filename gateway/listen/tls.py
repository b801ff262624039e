"""Loads the TLS certificate of the gateway's port at the start, and again whenever its files change.

Each connection uses the context that is current when it is accepted. A changed pair of files replaces the context
completely or not at all: a half-written file, or a certificate without its key, is never used.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.common.toolbox.file_stamps import FileStamps, file_stamps
from watchout.gateway.listen.tls_session import TlsBuffers, TlsSession

#: Seconds between two checks of the files.
LOOK_EVERY_S: Final = 60.0

_log = log.get("gateway.listen.tls")


class Certificate:
    """The certificate of the port; `gateway.app` makes it, `listen.dispatch` takes the context for each connection.

    Args:
        cert: PEM file of the certificate and its chain.
        key: PEM file of the private key; None: it is in `cert`.

    Raises:
        StartError: The files cannot be used; the text says why.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._stamps = self._look()
        self._context = load(cert, key)
        #: When it expires, in seconds since the epoch; None: its dates cannot be read.
        self.expires_at = expiry(cert)
        self._buffers = TlsBuffers()

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """Return the certificate of `TLS_CERT` and `TLS_KEY`, None when TLS is not configured. Raises `StartError`."""
        return None if settings.tls_cert is None else cls(settings.tls_cert, settings.tls_key)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._context

    def session(self) -> TlsSession:
        """Return the TLS of a new connection."""
        return TlsSession(self._context, self._buffers)

    def look(self) -> None:
        """Load changed files; to be called every `LOOK_EVERY_S`."""
        self.refresh()

    def refresh(self) -> bool:
        """Load changed files; return whether the certificate was replaced. Unusable files are logged once."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self._context = load(self._cert, self._key)
        except StartError as error:
            _log.error("the new certificate cannot be used, the old one stays in use", reason=str(error))
            return False
        self.expires_at = expiry(self._cert)
        _log.info("certificate replaced", file=str(self._cert))
        return True

    def prepare(self, cert: Path, key: Path | None) -> Callable[[], None]:
        """Load a pair of files, maybe other ones; return what puts it to use. Raises `StartError`."""
        other = Certificate(cert, key)

        def use() -> None:
            replaced = (other._cert, other._key, other._stamps) != (self._cert, self._key, self._stamps)
            self._cert, self._key, self._stamps, self._context = other._cert, other._key, other._stamps, other._context
            self.expires_at = other.expires_at
            if replaced:
                _log.info("certificate replaced", file=str(self._cert))

        return use

    def _look(self) -> FileStamps:
        return file_stamps((self._cert, self._key or self._cert))


def load(cert: Path, key: Path | None) -> ssl.SSLContext:
    """Return the context of a server: TLS 1.2 or newer, ALPN for HTTP/1.1.

    Raises `StartError` with what is wrong with the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    asked: list[bool] = []

    def no_password() -> str:
        asked.append(True)  # without this callback OpenSSL would prompt on the terminal, and block
        return ""

    holder = "TLS_CERT" if key is None else "TLS_KEY"
    try:
        for name, path in (("TLS_CERT", cert), (holder, key or cert)):
            try:
                path.read_bytes()
            except OSError as error:
                raise StartError(f"{name} cannot be read: {error.strerror} ({path})") from None
        context.load_cert_chain(cert, key, password=no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise StartError(_reason(error, holder, encrypted=bool(asked))) from None
    return context


def expiry(cert: Path) -> float | None:
    """Return when the first certificate of a PEM file expires, in seconds since the epoch; None: it cannot be read."""
    from cryptography import x509  # a gateway without TLS does not need it

    try:
        return x509.load_pem_x509_certificates(cert.read_bytes())[0].not_valid_after_utc.timestamp()
    except (ValueError, OSError):
        return None


def _reason(error: Exception, holder: str, *, encrypted: bool) -> str:
    """Return why a certificate could not be loaded; `holder` is the setting that names the file of the key."""
    if encrypted:
        return f"the private key in {holder} is encrypted, expected one without a pass phrase"
    reason = getattr(error, "reason", None) or ""
    if reason in (
        "KEY_VALUES_MISMATCH",
        "KEY_TYPE_MISMATCH",
        "NO_CERTIFICATE_ASSIGNED",
    ):
        return f"the private key in {holder} does not belong to the certificate in TLS_CERT"
    weak = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")
    if reason in weak:
        return f"the certificate in TLS_CERT is too weak for this OpenSSL ({reason})"
    where = f"TLS_CERT or {holder}" if holder != "TLS_CERT" else "TLS_CERT"
    return f"{where} is not a certificate with its private key in PEM ({reason or type(error).__name__})"
