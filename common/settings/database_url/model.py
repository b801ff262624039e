"""What a database URL says: hosts, TLS and session options, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


class InvalidDatabaseUrl(Exception):
    """A database URL that cannot be used, raised by `parse` and when its files are read.

    The text completes "expected …": it names the option and what would be accepted, and shows no secret.
    """


@dataclass(frozen=True, slots=True)
class Host:
    """One server of a database URL; made by `read_hosts`.

    Attributes:
        address: host name, IP address or directory of a Unix socket; None: the system's default socket.
        port: TCP port, or the number in the socket's file name.
        name: host name that the server's certificate must carry; None: there is none to check.
    """

    address: str | None
    port: int
    name: str | None = None

    @property
    def is_socket(self) -> bool:
        """Whether the connection goes over a Unix socket."""
        return self.address is None or self.address.startswith(("/", "@"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS options of a database URL, made by `read_tls`; None stands for libpq's default.

    Attributes:
        mode: an ``sslmode`` of libpq.
        skips_verification: encrypt, but do not verify the server's certificate although an authority is known.
        root: file of trusted authorities in PEM, or ``system``.
        cert: file of the client's certificate in PEM.
        key: file of its private key in PEM.
        key_password: pass phrase of that key.
        sends_cert: whether the client's certificate is used at all.
        crl: file of revoked certificates.
        crl_dir: directory of such files.
        direct: start TLS without PostgreSQL's own negotiation before it (PostgreSQL 17).
        min_version: lowest TLS version, as libpq writes it (``TLSv1.2``).
        max_version: highest TLS version.
        channel_binding: require SCRAM-SHA-256-PLUS, which proves that the server holds its certificate.
    """

    mode: str | None = None
    skips_verification: bool = False
    root: str | None = None
    cert: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    sends_cert: bool = True
    crl: str | None = None
    crl_dir: str | None = None
    direct: bool = False
    min_version: str | None = None
    max_version: str | None = None
    channel_binding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """A parsed database URL: everything that a connection to PostgreSQL needs. Made by `parse`.

    Attributes:
        hosts: servers to try in order; at least one.
        passfile: file with passwords, in the format of libpq's ``.pgpass``.
        connect_timeout_s: seconds for each host, None: no limit of its own.
        search_path: schemas in which the tables are searched; empty: the server's own search path.
        options: command-line options that are sent to the server, as in ``PGOPTIONS``.
        session_attributes: which of the hosts will do (``target_session_attrs``).
        shuffled: try the hosts in random order (``load_balance_hosts=random``).
        transaction_pooler: the URL looks like that of a pooler in transaction mode (port 6543, ``pgbouncer=true``).
        ignored: names of known options that have no effect here.
        unknown: names of options that are not in `OPTIONS`; they are ignored too.
    """

    hosts: tuple[Host, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    passfile: str | None = None
    tls: Tls = Tls()
    connect_timeout_s: float | None = None
    application_name: str | None = None
    search_path: tuple[str, ...] = ()
    options: str | None = None
    session_attributes: str = "any"
    shuffled: bool = False
    transaction_pooler: bool = False
    ignored: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
