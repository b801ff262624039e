"""The certificate of the gateway's port: read at start, read again when its files change.

Each connection takes the context that is current when it comes. A changed pair of files becomes a new context as a
whole or not at all, so a half-written one, or a certificate without its key, never serves.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.settings import Settings

#: How often the files are looked at, in seconds.
LOOK_EVERY_S: Final = 60.0
#: A peer that does not answer the end of TLS (close_notify) is cut off after this, in seconds.
SHUTDOWN_S: Final = 3.0

_Stamp = tuple[tuple[int, int, int], ...]

_log = log.get("gateway.listen.tls")


class Certificate:
    """The certificate and key that the settings name. Raises `StartError` when they cannot be used."""

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._stamp = self._look()
        self._context = load(cert, key)

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """The one of the settings; None: the port speaks no TLS."""
        return None if settings.tls_cert is None else cls(settings.tls_cert, settings.tls_key)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._context

    def look(self) -> None:
        """To be called every `LOOK_EVERY_S`: take up changed files."""
        self.refresh()

    def refresh(self) -> bool:
        """Take up changed files; whether there is a new certificate. One that cannot be used is logged, once."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._context = load(self._cert, self._key)
        except StartError as error:
            _log.error("the new certificate cannot be used, the old one goes on", reason=str(error))
            return False
        _log.info("new certificate", file=str(self._cert))
        return True

    def _look(self) -> _Stamp:
        """What changes when a file does; a file that is away for a moment counts as changed."""
        stamps = []
        for path in (self._cert, self._key or self._cert):
            try:
                stat = path.stat()
                stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


def load(cert: Path, key: Path | None) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, HTTP/1.1. Raises `StartError` with what is wrong with the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    asked: list[bool] = []

    def no_password() -> str:
        asked.append(True)  # without this OpenSSL would ask on the terminal, and wait
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


def _reason(error: Exception, holder: str, *, encrypted: bool) -> str:
    if encrypted:
        return f"the private key in {holder} is encrypted, expected one without a pass phrase"
    reason = getattr(error, "reason", None) or ""
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the last: of another kind
        return f"the private key in {holder} does not belong to the certificate in TLS_CERT"
    weak = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")
    if reason in weak:
        return f"the certificate in TLS_CERT is too weak for OpenSSL here ({reason})"
    where = f"TLS_CERT or {holder}" if holder != "TLS_CERT" else "TLS_CERT"
    return f"{where} is not a certificate with its private key in PEM ({reason or type(error).__name__})"
