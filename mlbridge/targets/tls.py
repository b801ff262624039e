"""TLS towards an ML service: whom to trust, and the bridge's own certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from watchout.common.errors import StartError


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files in PEM: the authorities that are trusted in place of the system's; a certificate to show, and its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A client's context; the host's name is always checked. Raises `StartError` for files of no such content."""
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
    raise ValueError("the key is encrypted")


def _short(exc: Exception) -> str:
    return str(getattr(exc, "reason", None) or exc)[:100]
