"""The table of the options of a database URL: each is applied, ignored, or refused with a remedy. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from watchout.common.settings.database_url.model import InvalidDatabaseUrl


class OptionVerdict(enum.Enum):
    """How an option of a database URL is treated: applied, ignored without effect, or refused with a remedy."""

    APPLIED = "applied"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Option:
    """One known option of a database URL; a row of the table in docs/better-auth.md.

    Attributes:
        name: its name in the URL.
        verdict: how it is treated.
        of: the programs that write it.
        what: its effect; of a refused option what to write instead.
    """

    name: str
    verdict: OptionVerdict
    of: str
    what: str


def _table(verdict: OptionVerdict, of: str, rows: str) -> list[Option]:
    """Return the options of rows ``name, name: what``."""
    found = []
    for row in rows.strip().splitlines():
        names, _, what = row.strip().partition(": ")
        found += [Option(name, verdict, of, what) for name in names.split(", ")]
    return found


_LIBPQ, _DRIVERS = "libpq", "other drivers and providers"

#: Every known option, in the order of docs/better-auth.md.
OPTIONS: Final = (
    *_table(OptionVerdict.APPLIED, _LIBPQ, """
        host, port: hosts and ports, lists separated by commas, tried in order. A host that begins with `/` is the \
directory of a Unix socket
        hostaddr: the address to connect to; `host` is then only the name that the certificate must have
        dbname, user, password: replace those before the `?` of the URL
        passfile: file with passwords, mode 0600
        service, servicefile: the section of a service file; an option of the URL itself wins
        connect_timeout: seconds for each host, within `STORE_TIMEOUT_S`; 0 or less: no limit of its own
        application_name: in place of `watchout-gateway`
        fallback_application_name: the same, where there is no `application_name`
        options: `-c search_path=…` qualifies the tables, so that it passes PgBouncer; settings that change no result \
(timeouts, memory, time zone) are ignored; the rest is sent to the server
        channel_binding: `require`: the server must prove by SCRAM-SHA-256-PLUS that it knows the password and holds \
the certificate, and only that certificate is accepted; refused without TLS. `prefer`, `disable`: no such proof
        sslmode: `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`; also `no-verify` \
(node-postgres): TLS without verification of the certificate
        requiressl: `1` is `sslmode=require`
        sslrootcert: authorities in PEM, or `system`: `verify-full` with the authorities of this machine
        sslcert, sslkey, sslpassword: the client's certificate, its key and the key's pass phrase
        sslcertmode: `disable`: no client certificate. `require` needs `sslcert`
        sslcrl, sslcrldir: revoked certificates, a file or a directory
        sslnegotiation: `direct` (PostgreSQL 17) or `postgres`
        ssl_min_protocol_version, ssl_max_protocol_version: `TLSv1.2`, `TLSv1.3`
        target_session_attrs: `any`, `read-write`, `read-only`, `primary`, `standby`, `prefer-standby`
        load_balance_hosts: `random`: try the hosts in random order
        """),
    *_table(OptionVerdict.IGNORED, _LIBPQ, """
        client_encoding: text is always read as UTF-8
        keepalives, keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout: each query has a \
deadline (`STORE_TIMEOUT_S`), and idle connections are closed after a minute
        sslcompression: TLS compression is not supported
        sslsni: a host name is always sent (SNI)
        sslkeylogfile: TLS keys are never written to a file
        krbsrvname, gsslib, gssdelegation: GSSAPI is not supported
        """),
    *_table(OptionVerdict.APPLIED, _LIBPQ, """
        gssencmode: `disable` and `prefer` are ignored, `require` is refused: GSSAPI is not supported
        replication: `false` is ignored, anything else is refused: a replication connection runs no queries
        min_protocol_version, max_protocol_version: only protocol 3.0 is supported; a higher minimum is refused
        """),
    *_table(OptionVerdict.REFUSED, _LIBPQ, """
        require_auth: leave it out; `channel_binding=require` or `sslmode=verify-full` keep out a false \
server
        requirepeer: leave it out, and allow no other user to write to the socket's directory
        scram_client_key, scram_server_key: give the password
        oauth_issuer, oauth_client_id, oauth_client_secret, oauth_scope: sign in with a password or a client certificate
        """),
    *_table(OptionVerdict.APPLIED, _DRIVERS, """
        schema, currentSchema, schema_search_path, search_path: the schemas in which the tables are searched \
(Prisma, JDBC, Rails)
        ssl: `true` is `sslmode=require`, as in libpq; `false`, `no-verify`, or the name of a mode
        sslaccept: Prisma: `strict` verifies the certificate and its name, `accept_invalid_certs` does not; `sslcert` \
is then the authority, as in Prisma
        database: `dbname`
        ApplicationName: `application_name` (JDBC)
        """),
    *_table(OptionVerdict.REFUSED, _DRIVERS, """
        sslidentity: take certificate and key out of the PKCS #12 file (`openssl pkcs12 -nodes`) into `sslcert` and \
`sslkey`, without `sslaccept`
        sslinline: write certificates and keys into files
        targetServerType: write `target_session_attrs` (JDBC; its `master` is `primary`, its `secondary` `standby`)
        unix_sock: write the directory of the socket, without the file's name, as `host` (pg8000)
        cloudSqlInstance, socketFactory, socketFactoryArg: write the directory of the proxy's socket as `host` \
(`host=/cloudsql/project:region:instance`)
        """),
    *_table(OptionVerdict.IGNORED, _DRIVERS, """
        pgbouncer, statement_cache_size, prepareThreshold, preparedStatementCacheQueries, prepared_statements, \
prepared_statement_cache_size, prepare, default_query_exec_mode, statement_cache_capacity, statement_limit, \
max_cached_statement_lifetime, binary_parameters: prepared statements have no names, so every pooler works
        connection_limit, pool_timeout, pool_size, pool, max, min, max_connections, pool_max_conns, pool_min_conns, \
pool_max_conn_lifetime, pool_max_conn_idle_time, pool_recycle, max_overflow, pool_pre_ping, idle_timeout, \
max_lifetime, checkout_timeout, reaping_frequency, max_idle_connection_lifetime, conn_max_age, conn_health_checks: \
`STORE_CONNECTIONS` limits the connections
        socket_timeout, socketTimeout, loginTimeout, connectTimeout, connect_timeout_ms, connectionTimeoutMillis, \
idleTimeoutMillis, query_timeout, command_timeout, statement_timeout, lock_timeout, \
idle_in_transaction_session_timeout, tcpKeepAlive: `STORE_TIMEOUT_S` is the deadline
        supa, workaround, uselibpqcompat, encoding, charset, timezone, TimeZone, datestyle, DateStyle, \
async_fallback, disable_server_side_cursors, fetch_types, reWriteBatchedInserts, hostRecheckSeconds, variables, \
sslfactory, max_prepared_statements, single_use_connections, pgtag: they change no query
        """),
)  # fmt: skip
OPTIONS_BY_NAME: Final = {option.name: option for option in OPTIONS}


def shown(text: str) -> str:
    """Return the first 64 characters as an error may show them: unprintable ones as ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text[:64])


def one_of(options: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    """Return the option's value, None if missing or empty. Raises `InvalidDatabaseUrl` unless it is a choice."""
    value = options.get(name)
    if not value:
        return None
    if value not in choices:
        raise InvalidDatabaseUrl(f"{name} to be one of {', '.join(choices)}, not {shown(value)!r}")
    return value


def render_markdown() -> str:
    """Return the table of options for docs/better-auth.md, in Markdown."""
    lines = ["| option | written by | treatment | effect or remedy |", "|---|---|---|---|"]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for option in OPTIONS:
        rows.setdefault((option.of, option.verdict.value, option.what), []).append(f"`{option.name}`")
    lines += [f"| {', '.join(names)} | {of} | {verdict} | {what} |" for (of, verdict, what), names in rows.items()]
    return "\n".join(lines) + "\n"
