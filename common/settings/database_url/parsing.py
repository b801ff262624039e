"""Reads a PostgreSQL URL as libpq, hosting providers and other drivers write it into a `DatabaseUrl`."""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from watchout.common.settings.database_url.hosts import read_hosts
from watchout.common.settings.database_url.model import DatabaseUrl, InvalidDatabaseUrl
from watchout.common.settings.database_url.options import OPTIONS_BY_NAME, OptionVerdict, one_of, shown
from watchout.common.settings.database_url.server_options import read_schemas, read_server_options
from watchout.common.settings.database_url.tls import read_tls

SESSION_ATTRIBUTES: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
#: Schemes that mean PostgreSQL: SQLAlchemy writes ``postgresql+driver``, Django ``psql``, ``pgsql`` and ``postgis``.
_SCHEME: Final = re.compile(r"(?:postgres|postgresql)(?:\+[a-z0-9_]+)?|psql|pgsql|postgis")
#: Schemes of other programs, with the remedy.
_FOREIGN_SCHEMES: Final = {
    "prisma": "Prisma Accelerate is no PostgreSQL server: use the URL of the database behind it",
    "prisma+postgres": "Prisma Accelerate is no PostgreSQL server: use the URL of the database behind it",
    "socket": "write the directory of the socket as host: postgresql://user:password@/name?host=/var/run/postgresql",
    "jdbc": "leave out `jdbc:`, and write user and password before the host: postgresql://user:password@host/name",
}
#: Placeholders of providers' documentation and of templates that were not replaced by a value.
_PLACEHOLDER: Final = re.compile(
    r"\[(?:your[-_ ]?)?password\]|[<{](?:your[-_ ]?)?password[>}]|\$\{\w+\}|\$\(\w+\)", re.IGNORECASE
)


def is_postgres(url: str) -> bool:
    """Whether the URL's scheme is one of PostgreSQL's."""
    return _SCHEME.fullmatch(url.partition(":")[0].lower()) is not None


def parse(url: str) -> DatabaseUrl:
    """Return the parts and options of a PostgreSQL URL.

    Where the URL names a service, its service file is read; this is the only I/O.

    Raises:
        InvalidDatabaseUrl: the URL is malformed, or an option is refused or contradicts another.
    """
    scheme, colon, rest = url.partition(":")
    if (helps := _FOREIGN_SCHEMES.get(scheme.lower())) is not None:
        raise InvalidDatabaseUrl(f"a URL of PostgreSQL: {helps}")
    if re.match(r"(?:PG[A-Z]+=\S*\s+)*psql\s", url):
        raise InvalidDatabaseUrl("the URL instead of a psql command: postgres://user:password@host:port/name")
    if not colon or not _SCHEME.fullmatch(scheme.lower()) or not rest.startswith("//"):
        raise InvalidDatabaseUrl("postgres://user:password@host:port/name?option=value")
    if any((c.isspace() and c != " ") or ord(c) < 32 for c in url) or " " in url.partition("?")[0]:
        raise InvalidDatabaseUrl("a URL without spaces: percent-encode them (%20)")
    front, question, query = rest[2:].partition("?")
    authority, slash, database = front.partition("/")
    if "#" in authority or ("@" not in authority and ("@" in database or ("@" in query and not _is_query(query)))):
        raise InvalidDatabaseUrl("a password in which / ? # and @ are percent-encoded (%2F %3F %23 %40)")
    if not authority and not slash and not question:
        raise InvalidDatabaseUrl("postgres://user:password@host:port/name?option=value")
    login, _, hosts = authority.rpartition("@")
    options = _query(query)
    user, _, password = login.partition(":")
    host, port = _authority(hosts)
    authority_options = {
        "host": host, "port": port, "user": unquote(user), "password": unquote(password), "dbname": unquote(database)
    }  # fmt: skip
    merged = {name: value for name, value in authority_options.items() if value} | options
    return _read(_with_service(merged))


def _is_query(query: str) -> bool:
    """Whether each field has a name; otherwise it is the rest of a password with an unencoded ``?``."""
    return all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(=.*)?", part) for part in query.split("&"))


def _query(query: str) -> dict[str, str]:
    """Return the options by name; of a repeated one the last counts, as in libpq. ``+`` is not a space."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        if not part:
            continue
        name, _, value = part.partition("=")
        try:
            name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidDatabaseUrl("options in UTF-8") from None
        if "\0" in value:
            raise InvalidDatabaseUrl(f"a value without NUL for the option {shown(name)}")
        found[{"database": "dbname"}.get(name, name)] = value
    return found


def _authority(hosts: str) -> tuple[str, str]:
    """Return the hosts and the ports of a URL's authority, each separated by commas; both empty for an empty one."""
    if not hosts:
        return "", ""
    names: list[str] = []
    ports: list[str] = []
    for part in hosts.split(","):
        found = re.fullmatch(r"(?:\[([^\]@]*)\]|([^:\[\]]*))(?::(.*))?", part)
        if found is None:
            raise InvalidDatabaseUrl("host:port in the front of the URL, an IPv6 address in [ ]")
        names.append(unquote(found[1] if found[1] is not None else found[2]))
        ports.append(unquote(found[3] or ""))
    return ",".join(names), ",".join(ports) if any(ports) else ""


def _with_service(options: dict[str, str]) -> dict[str, str]:
    """Return the options and those of the service that they name; an option of the URL itself wins."""
    service, file = options.pop("service", ""), options.pop("servicefile", "")
    if not service:
        return options
    path = Path(file or "~/.pg_service.conf").expanduser()
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, ValueError, configparser.Error) as exc:
        raise InvalidDatabaseUrl(
            f"a service file that can be read for service={shown(service)}, not {path}: {exc}"
        ) from None
    if not parser.has_section(service):
        raise InvalidDatabaseUrl(f"service={shown(service)} to be a section of {path}")
    return dict(parser.items(service)) | options


def _read(options: dict[str, str]) -> DatabaseUrl:
    ignored, unknown = _sort_out(options)
    _check_unsupported(options)
    for name in ("password", "user", "host", "dbname"):
        if _PLACEHOLDER.fullmatch(options.get(name, "")):
            raise InvalidDatabaseUrl(f"the {name} itself, not the placeholder {options[name]}")
    tls = read_tls(options)
    hosts = read_hosts(options)
    if tls.channel_binding and (tls.mode == "disable" or all(host.is_socket for host in hosts)):
        raise InvalidDatabaseUrl("channel_binding=require only with TLS: sslmode=require or more, and no Unix socket")
    search_path, rest = read_server_options(options.get("options", ""))
    for name in ("search_path", "schema_search_path", "currentSchema", "schema"):
        if options.get(name):
            search_path = read_schemas(options[name], name)
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
        session_attributes=one_of(options, "target_session_attrs", SESSION_ATTRIBUTES) or "any",
        shuffled=one_of(options, "load_balance_hosts", ("disable", "random")) == "random",
        transaction_pooler=options.get("pgbouncer") in ("true", "1") or any(host.port == 6543 for host in hosts),
        ignored=ignored,
        unknown=unknown,
    )


def _sort_out(options: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of ignored and of unknown options. Raises `InvalidDatabaseUrl` for one that must be refused."""
    ignored: list[str] = []
    unknown: list[str] = []
    for name in options:
        option = OPTIONS_BY_NAME.get(name)
        if option is None:
            _refuse_near(name)
            unknown.append(shown(name))
        elif option.verdict is OptionVerdict.REFUSED:
            raise InvalidDatabaseUrl(f"no option {name}: {option.what}")
        elif option.verdict is OptionVerdict.IGNORED:
            ignored.append(name)
    return tuple(ignored), tuple(unknown)


def _refuse_near(name: str) -> None:
    """Refuse an unknown option that resembles one with an effect, or may concern security; do not ignore it."""
    lower = name.lower()
    effective = {
        each.lower(): each for each, option in OPTIONS_BY_NAME.items() if option.verdict is not OptionVerdict.IGNORED
    }
    near = difflib.get_close_matches(lower, effective, 1, 0.8)
    if near:
        raise InvalidDatabaseUrl(f"no option {shown(name)}: is {effective[near[0]]} meant?")
    if lower.startswith(("ssl", "tls", "gss", "auth", "channel", "require", "scram", "oauth")):
        raise InvalidDatabaseUrl(
            f"no option {shown(name)}: it is unknown here, and may change how the connection is secured"
        )


def _check_unsupported(options: Mapping[str, str]) -> None:
    if one_of(options, "gssencmode", ("disable", "prefer", "require")) == "require":
        raise InvalidDatabaseUrl("no gssencmode=require: GSSAPI is not supported; use sslmode=verify-full")
    if options.get("replication", "false").lower() not in ("", "false", "off", "no", "0"):
        raise InvalidDatabaseUrl("no option replication: a replication connection runs no queries")
    least = options.get("min_protocol_version", "3.0")
    if least not in ("", "3.0", "3"):
        raise InvalidDatabaseUrl(f"min_protocol_version=3.0, not {shown(least)}: only protocol 3.0 is supported")
    one_of(options, "max_protocol_version", ("3.0", "3.2", "latest"))


def _connect_timeout(raw: str) -> float | None:
    if not raw:
        return None
    try:
        seconds = float(raw)
    except ValueError:
        raise InvalidDatabaseUrl(f"connect_timeout in seconds, not {shown(raw)!r}") from None
    # As in libpq: 1 counts as 2, because libpq's clock has whole seconds.
    return None if not seconds > 0 else max(2.0, seconds)
