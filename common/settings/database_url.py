"""A PostgreSQL URL as libpq, hosting providers and other drivers write it, read into what a connection needs. Pure.

Every option is understood (applied), passed over (it changes nothing here) or refused with the remedy; none is sent to
the server unknown. `OPTIONS` is the one table of them: the parser and docs/better-auth.md follow it.
"""

from __future__ import annotations

import configparser
import difflib
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from watchout.common.toolbox.default_ports import DEFAULT_PORTS

DEFAULT_PORT: Final = DEFAULT_PORTS["postgresql"]
#: Most hosts of one URL.
MAX_HOSTS: Final = 32

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: Of node-postgres, JDBC and others; libpq itself takes ``ssl=true`` for ``sslmode=require``.
_SSL_WORDS: Final = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
SESSION_ATTRIBUTES: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

#: ``postgresql+driver`` is SQLAlchemy's, ``psql``, ``pgsql`` and ``postgis`` are Django's.
_SCHEME: Final = re.compile(r"(?:postgres|postgresql)(?:\+[a-z0-9_]+)?|psql|pgsql|postgis")
_FOREIGN_SCHEMES: Final = {
    "prisma": "Prisma Accelerate is no PostgreSQL server: use the URL of the database behind it",
    "prisma+postgres": "Prisma Accelerate is no PostgreSQL server: use the URL of the database behind it",
    "socket": "write the directory of the socket as host: postgresql://user:password@/name?host=/var/run/postgresql",
    "jdbc": "leave out `jdbc:`, and write user and password before the host: postgresql://user:password@host/name",
}


#: What is copied along with a URL: a line of an env file, or the command that a provider's dashboard shows.
_IN_FRONT: Final = re.compile(r"(?:export\s+)?DATABASE_URL\s*=\s*|psql\s+(?:(?:-d\s*|--dbname[=\s]\s*)(?=\S))?(?!-)")
_QUOTED: Final = re.compile(r"(['\"`])(.*)\1", re.DOTALL)
#: libpq's other form: ``host=… dbname='…'``.
_PAIR: Final = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?:\s+|\Z)", re.DOTALL)
#: What stands in a provider's documentation, or in a template, in place of the value.
_PLACEHOLDER: Final = re.compile(
    r"\[(?:your[-_ ]?)?password\]|[<{](?:your[-_ ]?)?password[>}]|\$\{\w+\}|\$\(\w+\)", re.IGNORECASE
)


class UrlFault(Exception):
    """A URL that cannot be used. The text says what was expected instead, names the option, and shows no secret."""


class Verdict(enum.Enum):
    """What becomes of an option."""

    UNDERSTOOD = "understood"
    PASSED_OVER = "passed over"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a URL: `of` says who writes it, `what` what is done, or what helps instead."""

    name: str
    verdict: Verdict
    of: str
    what: str


def _table(verdict: Verdict, of: str, rows: str) -> list[Option]:
    found = []
    for row in rows.strip().splitlines():
        names, _, what = row.strip().partition(": ")
        found += [Option(name, verdict, of, what) for name in names.split(", ")]
    return found


_LIBPQ, _DRIVERS = "libpq", "other drivers and providers"

#: Every option that is known, as docs/better-auth.md lists them.
OPTIONS: Final = (
    *_table(Verdict.UNDERSTOOD, _LIBPQ, """
        host, port: hosts and ports, lists separated by commas; tried in order. A host that begins with `/` is the \
directory of a Unix socket
        hostaddr: the address that is connected to; `host` is then the name that the certificate must have
        dbname, user, password: as in the front of the URL, which they replace
        passfile: file with passwords, mode 0600
        service, servicefile: the section of a service file; what the URL says itself goes first
        connect_timeout: seconds for each host, within `STORE_TIMEOUT_S`; 0 and less: no bound of its own
        application_name: in place of `watchout-gateway`
        fallback_application_name: the same, where there is no `application_name`
        options: `-c search_path=…` qualifies the tables, so that it passes PgBouncer; settings that change no answer \
(timeouts, memory, time zone) are passed over; the rest is sent to the server
        channel_binding: `require`: the server proves by SCRAM-SHA-256-PLUS that it knows the password and holds the \
certificate, and only that certificate is accepted; refused without TLS. `prefer`, `disable`: without
        sslmode: `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`; also `no-verify` \
(node-postgres): TLS without a look at the certificate
        requiressl: `1` is `sslmode=require`
        sslrootcert: authorities in PEM, or `system`, which is `verify-full` by those of this machine
        sslcert, sslkey, sslpassword: the client's certificate, its key and the pass phrase of that
        sslcertmode: `disable`: no client certificate. `require` needs `sslcert`
        sslcrl, sslcrldir: revoked certificates, a file or a directory
        sslnegotiation: `direct` (PostgreSQL 17) or `postgres`
        ssl_min_protocol_version, ssl_max_protocol_version: `TLSv1.2`, `TLSv1.3`
        target_session_attrs: `any`, `read-write`, `read-only`, `primary`, `standby`, `prefer-standby`
        load_balance_hosts: `random`: the hosts in any order
        """),
    *_table(Verdict.PASSED_OVER, _LIBPQ, """
        client_encoding: text is read as UTF-8 whatever it says
        keepalives, keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout: each question has a \
deadline (`STORE_TIMEOUT_S`), and connections at rest are closed after a minute
        sslcompression: nobody compresses TLS any more
        sslsni: a host that is a name is always sent
        sslkeylogfile: keys are written nowhere
        krbsrvname, gsslib, gssdelegation: GSSAPI is not spoken
        """),
    *_table(Verdict.UNDERSTOOD, _LIBPQ, """
        gssencmode: `disable` and `prefer` are passed over, `require` is refused: GSSAPI is not spoken
        replication: `false` is passed over, anything else refused: a replication connection answers no look-up
        min_protocol_version, max_protocol_version: protocol 3.0 is spoken; a higher minimum is refused
        """),
    *_table(Verdict.REFUSED, _LIBPQ, """
        require_auth: leave it out; `channel_binding=require` or `sslmode=verify-full` keep out who only says that he \
is the server
        requirepeer: leave it out, and let nobody else write to the socket's directory
        scram_client_key, scram_server_key: give the password
        oauth_issuer, oauth_client_id, oauth_client_secret, oauth_scope: sign in with a password or a client certificate
        """),
    *_table(Verdict.UNDERSTOOD, _DRIVERS, """
        schema, currentSchema, schema_search_path, search_path: the schemas in which the tables are looked for \
(Prisma, JDBC, Rails)
        ssl: `true` is `sslmode=require`, as libpq has it; `false`, `no-verify`, or the name of a mode
        sslaccept: Prisma: `strict` checks the certificate and its name, `accept_invalid_certs` does not; `sslcert` is \
then the authority, as Prisma has it
        database: `dbname`
        ApplicationName: `application_name` (JDBC)
        """),
    *_table(Verdict.REFUSED, _DRIVERS, """
        sslidentity: take certificate and key out of the PKCS #12 file (`openssl pkcs12 -nodes`) into `sslcert` and \
`sslkey`, without `sslaccept`
        sslinline: write certificates and keys into files
        targetServerType: write `target_session_attrs` (JDBC; its `master` is `primary`, its `secondary` `standby`)
        unix_sock: write the directory of the socket, without the file's name, as `host` (pg8000)
        cloudSqlInstance, socketFactory, socketFactoryArg: write the directory of the proxy's socket as `host` \
(`host=/cloudsql/project:region:instance`)
        """),
    *_table(Verdict.PASSED_OVER, _DRIVERS, """
        pgbouncer, statement_cache_size, prepareThreshold, preparedStatementCacheQueries, prepared_statements, \
prepared_statement_cache_size, prepare, default_query_exec_mode, statement_cache_capacity, statement_limit, \
max_cached_statement_lifetime, binary_parameters: no prepared statement is named, so every pooler will do
        connection_limit, pool_timeout, pool_size, pool, max, min, max_connections, pool_max_conns, pool_min_conns, \
pool_max_conn_lifetime, pool_max_conn_idle_time, pool_recycle, max_overflow, pool_pre_ping, idle_timeout, \
max_lifetime, checkout_timeout, reaping_frequency, max_idle_connection_lifetime, conn_max_age, conn_health_checks: \
`STORE_CONNECTIONS` bounds the connections
        socket_timeout, socketTimeout, loginTimeout, connectTimeout, connect_timeout_ms, connectionTimeoutMillis, \
idleTimeoutMillis, query_timeout, command_timeout, statement_timeout, lock_timeout, \
idle_in_transaction_session_timeout, tcpKeepAlive: `STORE_TIMEOUT_S` is the deadline
        supa, workaround, uselibpqcompat, encoding, charset, timezone, TimeZone, datestyle, DateStyle, \
async_fallback, disable_server_side_cursors, fetch_types, reWriteBatchedInserts, hostRecheckSeconds, variables, \
sslfactory, max_prepared_statements, single_use_connections, pgtag: they change no look-up
        """),
)  # fmt: skip
_BY_NAME: Final = {option.name: option for option in OPTIONS}

#: Settings of the server that change no answer of a look-up, in ``options``.
_HARMLESS_SETTINGS: Final = re.compile(
    r"statement_timeout|lock_timeout|transaction_timeout|idle_.*_timeout|.*_mem|.*_cost|enable_.*|jit.*|timezone|"
    r"datestyle|intervalstyle|extra_float_digits|client_encoding|client_min_messages|log_.*|tcp_.*|geqo.*|"
    r"application_name|max_parallel_.*|bytea_output|lc_.*|synchronous_commit|plan_cache_mode",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Host:
    """One server: where to connect, None for the system's default, and the name that its certificate must have."""

    address: str | None
    port: int
    name: str | None = None

    @property
    def is_socket(self) -> bool:
        """Whether it is the directory of a Unix socket."""
        return self.address is None or self.address.startswith(("/", "@"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the connection is made private; None: what libpq takes where nothing is said."""

    mode: str | None = None
    checks_nothing: bool = False
    root: str | None = None
    cert: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    sends_cert: bool = True
    crl: str | None = None
    crl_dir: str | None = None
    direct: bool = False
    least: str | None = None
    most: str | None = None
    channel_binding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """What a URL says. `search_path`: schemas in which tables are looked for, empty: the server's own.

    `passed_over` names the options that change nothing here, `unknown` those of which that is only assumed.
    `options` is sent to the server. `transaction_pooler`: the URL looks like one's.
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
    passed_over: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def is_postgres(url: str) -> bool:
    """Whether the URL's scheme is one of PostgreSQL's."""
    return _SCHEME.fullmatch(url.partition(":")[0].lower()) is not None


def as_url(text: str) -> str:
    """Return the URL in a text that was copied: without quotes, `psql` or `DATABASE_URL=` around it.

    libpq's other form, `host=… dbname=…`, comes back as a URL. A text that is none of these comes back as it is.
    """
    found = text.strip()
    while (inner := _inner(found)) != found:
        found = inner
    pairs = _pairs(found)
    if pairs:
        return "postgresql://?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    return found


def _inner(text: str) -> str:
    """The text without one pair of quotes, or without what stands in front of the URL."""
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        return quoted[2].strip()
    front = _IN_FRONT.match(text)
    return text if front is None else text[front.end() :].strip()


def _pairs(text: str) -> list[tuple[str, str]]:
    """The options of a text in libpq's other form; none when it is something else."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return []
        value = pair[3] if pair[2] is None else pair[2]
        found.append((pair[1], re.sub(r"\\(.)", r"\1", value)))
        at = pair.end()
    return found if {name for name, _ in found} & {"host", "hostaddr", "dbname", "user", "service"} else []


def parse(url: str) -> DatabaseUrl:
    """What the URL says. Raises `UrlFault`. Reads a service file where the URL names a service."""
    scheme, colon, rest = url.partition(":")
    if (helps := _FOREIGN_SCHEMES.get(scheme.lower())) is not None:
        raise UrlFault(f"a URL of PostgreSQL: {helps}")
    if re.match(r"(?:PG[A-Z]+=\S*\s+)*psql\s", url):
        raise UrlFault("the URL instead of a psql command: postgres://user:password@host:port/name")
    if not colon or not _SCHEME.fullmatch(scheme.lower()) or not rest.startswith("//"):
        raise UrlFault("postgres://user:password@host:port/name?option=value")
    if any((c.isspace() and c != " ") or ord(c) < 32 for c in url) or " " in url.partition("?")[0]:
        raise UrlFault("a URL without spaces: percent-encode them (%20)")
    front, question, query = rest[2:].partition("?")
    authority, slash, database = front.partition("/")
    if "#" in authority or ("@" not in authority and ("@" in database or ("@" in query and not _is_query(query)))):
        raise UrlFault("a password in which / ? # and @ are percent-encoded (%2F %3F %23 %40)")
    if not authority and not slash and not question:
        raise UrlFault("postgres://user:password@host:port/name?option=value")
    login, _, hosts = authority.rpartition("@")
    options = _query(query)
    user, _, password = login.partition(":")
    said = {"host": "", "port": "", "user": unquote(user), "password": unquote(password), "dbname": unquote(database)}
    said["host"], said["port"] = _authority(hosts)
    merged = {name: value for name, value in said.items() if value} | options
    return _read(_with_service(merged))


def _is_query(query: str) -> bool:
    """Whether each field has a name: else it is a password's rest."""
    return all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(=.*)?", part) for part in query.split("&"))


def _query(query: str) -> dict[str, str]:
    """The options by name; of one that comes twice the last, as libpq has it. ``+`` is no space."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        if not part:
            continue
        name, _, value = part.partition("=")
        try:
            name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise UrlFault("options in UTF-8") from None
        if "\0" in value:
            raise UrlFault(f"a value without NUL for the option {_shown(name)}")
        found[{"database": "dbname"}.get(name, name)] = value
    return found


def _authority(hosts: str) -> tuple[str, str]:
    """Hosts and ports of the front of a URL, each separated by commas; both empty where there is nothing."""
    if not hosts:
        return "", ""
    names: list[str] = []
    ports: list[str] = []
    for part in hosts.split(","):
        found = re.fullmatch(r"(?:\[([^\]@]*)\]|([^:\[\]]*))(?::(.*))?", part)
        if found is None:
            raise UrlFault("host:port in the front of the URL, an IPv6 address in [ ]")
        names.append(unquote(found[1] if found[1] is not None else found[2]))
        ports.append(unquote(found[3] or ""))
    return ",".join(names), ",".join(ports) if any(ports) else ""


def _with_service(options: dict[str, str]) -> dict[str, str]:
    """The options with those of the service that they name; what the URL says itself goes first."""
    service, file = options.pop("service", ""), options.pop("servicefile", "")
    if not service:
        return options
    path = Path(file or "~/.pg_service.conf").expanduser()
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, ValueError, configparser.Error) as exc:
        raise UrlFault(f"a service file that can be read for service={_shown(service)}, not {path}: {exc}") from None
    if not parser.has_section(service):
        raise UrlFault(f"service={_shown(service)} to be a section of {path}")
    return dict(parser.items(service)) | options


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:64])


def _read(options: dict[str, str]) -> DatabaseUrl:
    passed_over, unknown = _sort_out(options)
    _check_unsupported(options)
    for name in ("password", "user", "host", "dbname"):
        if _PLACEHOLDER.fullmatch(options.get(name, "")):
            raise UrlFault(f"the {name} itself, where {options[name]} stands in its place")
    tls = _tls(options)
    hosts = _hosts(options)
    if tls.channel_binding and (tls.mode == "disable" or all(host.is_socket for host in hosts)):
        raise UrlFault("channel_binding=require only with TLS: sslmode=require or more, and no Unix socket")
    search_path, rest = _server_options(options.get("options", ""))
    for name in ("search_path", "schema_search_path", "currentSchema", "schema"):
        if options.get(name):
            search_path = _schemas(options[name], name)
    return DatabaseUrl(
        hosts=hosts,
        user=options.get("user"),
        password=options.get("password"),
        database=options.get("dbname"),
        passfile=options.get("passfile"),
        tls=tls,
        connect_timeout_s=_connect_timeout(options.get("connect_timeout", "")),
        application_name=options.get("application_name")
        or options.get("ApplicationName")
        or options.get("fallback_application_name")
        or None,
        search_path=search_path,
        options=rest or None,
        session_attributes=_one_of(options, "target_session_attrs", SESSION_ATTRIBUTES) or "any",
        shuffled=_one_of(options, "load_balance_hosts", ("disable", "random")) == "random",
        transaction_pooler=options.get("pgbouncer") in ("true", "1") or any(host.port == 6543 for host in hosts),
        passed_over=passed_over,
        unknown=unknown,
    )


def _sort_out(options: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the options that are passed over, and of those that nobody knows. Raises for what must be refused."""
    passed_over: list[str] = []
    unknown: list[str] = []
    for name in options:
        option = _BY_NAME.get(name)
        if option is None:
            _refuse_near(name)
            unknown.append(_shown(name))
        elif option.verdict is Verdict.REFUSED:
            raise UrlFault(f"no option {name}: {option.what}")
        elif option.verdict is Verdict.PASSED_OVER:
            passed_over.append(name)
    return tuple(passed_over), tuple(unknown)


def _refuse_near(name: str) -> None:
    """An unknown option that may have been meant for one that counts is not passed over."""
    lower = name.lower()
    counts = {each.lower(): each for each, option in _BY_NAME.items() if option.verdict is not Verdict.PASSED_OVER}
    near = difflib.get_close_matches(lower, counts, 1, 0.8)
    if near:
        raise UrlFault(f"no option {_shown(name)}: is {counts[near[0]]} meant?")
    if lower.startswith(("ssl", "tls", "gss", "auth", "channel", "require", "scram", "oauth")):
        raise UrlFault(f"no option {_shown(name)}: it is not known here, and would make the connection another one")


def _check_unsupported(options: Mapping[str, str]) -> None:
    if _one_of(options, "gssencmode", ("disable", "prefer", "require")) == "require":
        raise UrlFault("no gssencmode=require: GSSAPI is not spoken; use sslmode=verify-full")
    if options.get("replication", "false").lower() not in ("", "false", "off", "no", "0"):
        raise UrlFault("no option replication: a replication connection answers no look-up")
    least = options.get("min_protocol_version", "3.0")
    if least not in ("", "3.0", "3"):
        raise UrlFault(f"min_protocol_version=3.0, not {_shown(least)}: protocol 3.0 is spoken")
    _one_of(options, "max_protocol_version", ("3.0", "3.2", "latest"))


def _one_of(options: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    value = options.get(name)
    if not value:
        return None
    if value not in choices:
        raise UrlFault(f"{name} to be one of {', '.join(choices)}, not {_shown(value)!r}")
    return value


def _connect_timeout(raw: str) -> float | None:
    if not raw:
        return None
    try:
        seconds = float(raw)
    except ValueError:
        raise UrlFault(f"connect_timeout in seconds, not {_shown(raw)!r}") from None
    # As libpq has it: 1 is taken for 2, because a second may be nearly over.
    return None if not seconds > 0 else max(2.0, seconds)


# ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hosts(options: Mapping[str, str]) -> tuple[Host, ...]:
    names = options["host"].split(",") if options.get("host") else []
    addresses = options["hostaddr"].split(",") if options.get("hostaddr") else []
    if names and addresses and len(names) != len(addresses):
        raise UrlFault(f"as many addresses in hostaddr as hosts: {len(addresses)} and {len(names)}")
    many = max(len(names), len(addresses), 1)
    if many > MAX_HOSTS:
        raise UrlFault(f"at most {MAX_HOSTS} hosts, not {many}")
    ports = [_port(text) for text in options["port"].split(",")] if options.get("port") else [DEFAULT_PORT]
    if len(ports) == 1:
        ports *= many
    if len(ports) != many:
        raise UrlFault(f"one port, or as many as hosts: {len(ports)} and {many}")
    found = []
    for n, port in enumerate(ports):
        name = names[n] if names else ""
        address = addresses[n] if addresses else ""
        if not _fits_host(name) or not _fits_host(address):
            raise UrlFault("hosts that are names, addresses or directories of sockets")
        found.append(Host(address or name or None, port, name or None))
    return tuple(found)


def _fits_host(host: str) -> bool:
    if host.startswith("@"):
        raise UrlFault("the directory of a Unix socket, not an abstract one (@…)")
    return host.startswith("/") or re.fullmatch(r"[^\s/@?#\[\]]*", host) is not None


def _port(raw: str) -> int:
    if not raw:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", raw) or not 1 <= int(raw) <= 65535:
        raise UrlFault("a port from 1 to 65535 after the host; in a password, : @ / ? # are percent-encoded")
    return int(raw)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tls(options: Mapping[str, str]) -> Tls:
    mode, checks_nothing = _ssl_mode(options)
    accept = _one_of(options, "sslaccept", ("strict", "accept_invalid_certs"))
    root, cert = options.get("sslrootcert") or None, options.get("sslcert") or None
    if accept is not None:  # Prisma: its sslcert is the authority
        root, cert = root or cert, None
        if accept == "strict":
            if mode == "disable":
                raise UrlFault("sslaccept=strict not with sslmode=disable")
            mode, checks_nothing, root = "verify-full", False, root or "system"
        else:
            mode, checks_nothing, root = mode or "require", True, None
    if root == "system":
        if mode not in (None, "verify-full"):
            raise UrlFault(f"sslmode=verify-full with sslrootcert=system, not sslmode={mode}")
        mode = "verify-full"
    cert_mode = _one_of(options, "sslcertmode", ("disable", "allow", "require"))
    if cert_mode == "require" and cert is None:
        raise UrlFault("sslcert with sslcertmode=require")
    direct = _one_of(options, "sslnegotiation", ("postgres", "direct")) == "direct"
    if direct and mode in (None, "disable", "allow", "prefer"):
        raise UrlFault("sslmode=require or more with sslnegotiation=direct")
    least = _one_of(options, "ssl_min_protocol_version", TLS_VERSIONS)
    most = _one_of(options, "ssl_max_protocol_version", TLS_VERSIONS)
    if least and most and TLS_VERSIONS.index(least) > TLS_VERSIONS.index(most):
        raise UrlFault("ssl_min_protocol_version no higher than ssl_max_protocol_version")
    return Tls(
        mode=mode,
        checks_nothing=checks_nothing,
        root=root,
        cert=cert,
        key=options.get("sslkey") or None,
        key_password=options.get("sslpassword") or None,
        sends_cert=cert_mode != "disable",
        crl=options.get("sslcrl") or None,
        crl_dir=options.get("sslcrldir") or None,
        direct=direct,
        least=least,
        most=most,
        channel_binding=_one_of(options, "channel_binding", ("disable", "prefer", "require")) == "require",
    )


def _ssl_mode(options: Mapping[str, str]) -> tuple[str | None, bool]:
    """The mode, None where none is said, and whether the certificate is not to be looked at even if it could be."""
    mode = options.get("sslmode") or None
    for name, value in (("sslmode", mode), ("ssl", options.get("ssl") or None)):
        if value is None:
            continue
        meant = _SSL_WORDS.get(value, value) if name == "ssl" else value
        if meant == "no-verify":
            return "require", True
        if meant not in SSL_MODES:
            raise UrlFault(f"{name} to be one of {', '.join(SSL_MODES)}, not {_shown(value)!r}")
        return meant, False
    if options.get("requiressl") == "1":
        return "require", False
    return None, False


# ── what the server is told ──────────────────────────────────────────────────────────────────────────────────────


def _server_options(raw: str) -> tuple[tuple[str, ...], str]:
    """The search path in ``options``, and what of the rest the server has to know. A backslash keeps a space."""
    if " " not in raw and re.match(r"-c\+|--\S+=\S*\+--?", raw):
        raw = raw.replace("+", " ")  # as encoded by a form, which libpq's URLs are not
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", raw)]
    search_path: tuple[str, ...] = ()
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            setting = words.pop(0)
        elif word.startswith(("-c", "--")) and len(word) > 2:
            setting = word[2:]
        else:
            kept.append(_escaped(word))
            continue
        name, _, value = setting.partition("=")
        name = name.replace("-", "_")
        if name.lower() == "search_path":
            search_path = _schemas(value, "options")
        elif not _HARMLESS_SETTINGS.fullmatch(name):
            kept += [_escaped(word)] if word.startswith("--") else ["-c", _escaped(setting)]
    return search_path, " ".join(kept)


def _escaped(word: str) -> str:
    return re.sub(r"([\s\\])", r"\\\1", word)


def _schemas(raw: str, option: str) -> tuple[str, ...]:
    """Schemas separated by commas, as in ``search_path``: in double quotes as they are, else in lower case.

    Prisma's and JDBC's single schema is taken as it is.
    """
    found = [raw] if option == "schema" else []
    for quoted, plain in re.findall(r'"((?:[^"]|"")*)"|([^,"]+)', raw) if not found else ():
        if quoted:
            found.append(quoted.replace('""', '"'))
        elif plain.strip(" '"):
            found.append(plain.strip(" '").lower() if option != "currentSchema" else plain.strip())
    if not found or any("." in schema for schema in found):
        raise UrlFault(f"schemas in {option}, separated by commas, none with a dot in its name")
    return tuple(found)


def render_markdown() -> str:
    """The table of options for docs/better-auth.md."""
    lines = ["| option | whose | verdict | what |", "|---|---|---|---|"]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for option in OPTIONS:
        rows.setdefault((option.of, option.verdict.value, option.what), []).append(f"`{option.name}`")
    lines += [f"| {', '.join(names)} | {of} | {verdict} | {what} |" for (of, verdict, what), names in rows.items()]
    return "\n".join(lines) + "\n"
