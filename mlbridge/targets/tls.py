"""TLS towards an ML service: the authorities to trust, and mlbridge's own certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.common.toolbox.renewed import Renewed


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The PEM files with which mlbridge connects to an ML service over TLS; made from the settings.

    Attributes:
        ca: certificates of the authorities to trust in place of the system's.
        cert: the certificate that mlbridge shows to the service.
        key: the unencrypted key of `cert`; None: it is in the same file.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> ClientTls:
        """Return the files that the settings name."""
        return cls(settings.ml_tls_ca, settings.ml_tls_cert, settings.ml_tls_key)

    def renewed(self) -> Renewed[ssl.SSLContext]:
        """Return the context of a client, made anew when a file has changed; `look` at it before each connection.

        Raises:
            StartError: a file holds no certificate, or no unencrypted key.
        """
        return Renewed("certificates for the ML service", (self.ca, self.cert, self.key), self.context)

    def context(self) -> ssl.SSLContext:
        """Return the context of a client. It always checks the name of the host.

        Raises:
            StartError: a file holds no certificate, or no unencrypted key.
        """
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except (ssl.SSLError, OSError, ValueError) as exc:
            raise StartError(f"ML_TLS_CA: {self.ca} holds no certificates in PEM ({_short(exc)})") from None
        if self.cert is not None:
            try:
                context.load_cert_chain(
                    str(self.cert), None if self.key is None else str(self.key), password=_no_password
                )
            except (ssl.SSLError, OSError, ValueError) as exc:
                key = "that file itself" if self.key is None else f"ML_TLS_KEY {self.key}"
                raise StartError(
                    f"ML_TLS_CERT: {self.cert} with {key} is no certificate and its unencrypted key in PEM "
                    f"({_short(exc)})"
                ) from None
        return context


def _no_password() -> str:
    """Raise `ValueError`. OpenSSL calls it for an encrypted key, and would otherwise prompt on the terminal."""
    raise ValueError("the key is encrypted")


def _short(exc: Exception) -> str:
    return str(getattr(exc, "reason", None) or exc)[:100]
