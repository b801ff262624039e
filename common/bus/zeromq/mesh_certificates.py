"""Certificates of the frame mesh between hosts: loaded at the start, and again whenever their files change.

Both ends of a connection show a certificate of the cluster's own authority, TLS 1.3 only. A changed set of files
replaces the contexts as a whole or not at all, and only when another host with the same files would accept it.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.home_files import MESH_CA_FILE, MESH_CERT_FILE, MESH_DIRECTORY, MESH_KEY_FILE
from watchout.common.settings import Settings
from watchout.common.toolbox.file_stamps import FileStamps, file_stamps
from watchout.common.toolbox.reason import reason

#: Days before a certificate expires from which the log and the doctor warn.
EXPIRY_DAYS: Final = 30
#: Seconds between two warnings of the same certificate.
WARN_EVERY_S: Final = 86_400.0
#: Seconds between two looks at the files; a new connection looks as well, at most once in this time.
LOOK_EVERY_S: Final = 60.0
LOOK_AGAIN_S: Final = 1.0
#: Flights of a handshake in memory; TLS 1.3 needs two.
_MAX_FLIGHTS: Final = 6
#: Words in OpenSSL's name of a fault, and what they mean here.
_ALERTS: Final = (
    ("ALERT_UNKNOWN_CA", "the peer refuses the certificate of this host: it is of another authority"),
    ("ALERT_CERTIFICATE_EXPIRED", "the peer refuses the certificate of this host: it has expired"),
    ("ALERT_CERTIFICATE_REQUIRED", "the peer expects a certificate"),
    ("ALERT_BAD_CERTIFICATE", "the peer refuses the certificate of this host"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the peer shows no certificate"),
    ("WRONG_VERSION_NUMBER", "the peer does not speak TLS"),
    ("HTTP_REQUEST", "the peer speaks HTTP"),
    ("UNSUPPORTED_PROTOCOL", "the peer speaks an older TLS than 1.3"),
)

_log = log.get("common.bus.zeromq.mesh_certificates")


@dataclass(frozen=True, slots=True)
class MeshFiles:
    """The three PEM files of one host.

    Attributes:
        cert: certificate of the host, with its chain if there is one between it and the authority.
        key: its private key.
        ca: certificates of the authorities that the hosts of the cluster are accepted by.
    """

    cert: Path
    key: Path
    ca: Path

    @classmethod
    def of(cls, settings: Settings) -> MeshFiles:
        """Return the files that the settings name, by default those of `watchout-ctl keys host` in the home."""
        directory = settings.home / MESH_DIRECTORY
        return cls(
            settings.mesh_cert or directory / MESH_CERT_FILE,
            settings.mesh_key or (directory / MESH_KEY_FILE if settings.mesh_cert is None else settings.mesh_cert),
            settings.mesh_ca or directory / MESH_CA_FILE,
        )

    def stamps(self) -> FileStamps:
        """Return what changes when one of the files does."""
        return file_stamps((self.cert, self.key, self.ca))


@dataclass(frozen=True, slots=True)
class MeshContexts:
    """What is made of one set of files: the contexts of both ends, and until when the host's certificate is valid."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    not_after: datetime


class MeshCertificates:
    """The certificates of one process; made by `tls_mesh`, which takes a context for each new connection.

    Args:
        files: The host's files.
        host: Host name or address under which this host is reached; the certificate has to name it.

    Raises:
        StartError: The files cannot be used; the text says why.

    """

    def __init__(self, files: MeshFiles, host: str) -> None:
        self._files = files
        self._host = host
        self._stamps = files.stamps()
        self._contexts = load(files)
        self._looked_at = self._warned_at = float("-inf")
        refused = refusal(self._contexts, self._contexts, host)
        if refused is not None:
            _log.error("other hosts will refuse this host's certificate", reason=refused, file=str(files.cert))

    @property
    def contexts(self) -> MeshContexts:
        """The contexts for a connection that is made now."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_AGAIN_S:
            self._looked_at = now
            self._refresh()
        return self._contexts

    def look(self) -> None:
        """Load changed files, and warn of a certificate that expires soon; to be called every `LOOK_EVERY_S`."""
        not_after = self.contexts.not_after
        days = (not_after - datetime.now(UTC)).total_seconds() / 86_400
        if days < EXPIRY_DAYS and time.monotonic() - self._warned_at >= WARN_EVERY_S:
            self._warned_at = time.monotonic()
            _log.warning(
                "the certificate of the frame mesh has expired: other hosts refuse it" if days <= 0
                else "the certificate of the frame mesh expires soon",
                file=str(self._files.cert), not_after=not_after.isoformat(), days_left=round(days, 1),
                remedy="watchout-ctl keys host makes a new one, which is used without a restart",
            )  # fmt: skip

    def _refresh(self) -> None:
        """Take changed files; unusable ones are logged once."""
        stamps = self._files.stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            fresh = load(self._files)
        except StartError as error:
            _log.error("the new certificate of the frame mesh cannot be used, the old one stays", reason=str(error))
            return
        refused = refusal(fresh, fresh, self._host)
        if refused is not None:
            _log.error("other hosts would refuse the new certificate, the old one stays", reason=refused)
            return
        self._contexts, self._warned_at = fresh, float("-inf")
        _log.info("certificate of the frame mesh replaced", file=str(self._files.cert))


def load(files: MeshFiles) -> MeshContexts:
    """Return the contexts of these files.

    Raises:
        StartError: A file is missing or unusable, or the key does not belong to the certificate.

    """
    for name, path in (("MESH_CERT", files.cert), ("MESH_KEY", files.key), ("MESH_CA", files.ca)):
        try:
            path.read_bytes()
        except OSError as error:
            raise StartError(
                f"{name} cannot be read: {error.strerror} ({path}); `watchout-ctl keys cluster` and `watchout-ctl keys "
                "host` make the certificates of the frame mesh"
            ) from None
    try:
        not_after = x509.load_pem_x509_certificates(files.cert.read_bytes())[0].not_valid_after_utc
    except (ValueError, OSError):
        raise StartError(f"MESH_CERT is no certificate in PEM ({files.cert})") from None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    server.num_tickets = 0  # connections last: resuming one would only skip the check of the certificates
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.hostname_checks_common_name = False
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _fill(context, files)
    return MeshContexts(server, client, not_after)


def _fill(context: ssl.SSLContext, files: MeshFiles) -> None:
    """Load the three files into a context. Raises `StartError`."""
    asked: list[bool] = []

    def no_password() -> str:
        asked.append(True)  # without this callback OpenSSL would prompt on the terminal, and block
        return ""

    try:
        context.load_cert_chain(files.cert, files.key, password=no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        if asked:
            raise StartError(f"the private key in MESH_KEY is encrypted ({files.key}), expected one without") from None
        if "MISMATCH" in reason(error):
            raise StartError(f"the private key in MESH_KEY ({files.key}) does not belong to {files.cert}") from None
        raise StartError(f"MESH_CERT and MESH_KEY are no certificate with its key in PEM ({reason(error)})") from None
    try:
        context.load_verify_locations(files.ca)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise StartError(f"MESH_CA holds no certificate in PEM: {reason(error)} ({files.ca})") from None


def refusal(own: MeshContexts, other: MeshContexts, host: str) -> str | None:
    """Return why `other` would refuse a connection to `own` at this host, None when it would not.

    The handshake is made in memory.

    Args:
        own: The host that listens.
        other: The host that connects.
        host: What the other host connects to.

    Returns:
        A sentence, such as OpenSSL's own about a certificate.

    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = other.client.wrap_bio(to_client, to_server, server_hostname=host)
    server = own.server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_MAX_FLIGHTS):
        waiting = 0
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return reason(error)
        if not waiting:
            return None
    return "the handshake does not end"


def refusal_reason(error: BaseException) -> str:
    """Return why a connection between hosts failed, in a clause: what OpenSSL says of a certificate, or `reason`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "the peer did not answer in time"
    said = reason(error)
    for word, meaning in _ALERTS:
        if word in said:
            return f"{meaning} ({said})"
    return said
