"""Opens connections to PostgreSQL by a parsed `DATABASE_URL`: several hosts, TLS, and the kind of server.

asyncpg understands only some options of a URL and sends the others to the server, so it gets no URL: all options are
applied here. No text made here contains a password.
"""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import os
import random
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import asyncpg

from watchout.common.errors import StoreUnavailable
from watchout.common.settings.database_url import DatabaseUrl, Host, InvalidDatabaseUrl, Tls
from watchout.common.toolbox.reason import reason
from watchout.identity.sources.channel_binding import ChannelBindingFailed, verify_server

#: Part of asyncpg's message when the server offers no TLS.
_REJECTED: Final = "rejected SSL upgrade"

_KIND: Final = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"


class _Named(ssl.SSLContext):
    """A TLS context that checks the certificate for another name than the one connected to; made by `make_context`.

    asyncpg connects to an IP address (``hostaddr``), while the certificate carries the host name, `server_name`.
    """

    server_name: str | None = None

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`."""
        if self.server_name is not None and len(args) < 4:
            options["server_hostname"] = self.server_name
        return super().wrap_bio(*args, **options)


def make_context(tls: Tls, mode: str, name: str | None = None) -> ssl.SSLContext:
    """Return the TLS context for `sslmode=require` and stricter modes.

    Args:
        tls: The TLS options of the URL.
        mode: The `sslmode` in effect.
        name: The name in the server's certificate, None for the host name.

    Raises:
        InvalidDatabaseUrl: A file cannot be used; the text names the option and the file.
    """
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = name
    context.check_hostname = mode == "verify-full" and not tls.skips_verification
    context.verify_mode = ssl.CERT_NONE if tls.skips_verification else ssl.CERT_REQUIRED
    if not tls.skips_verification:
        _trust(context, tls, mode)
    if tls.sends_cert:
        _show(context, tls)
    if tls.min_version is not None:
        context.minimum_version = ssl.TLSVersion[tls.min_version.replace(".", "_")]
    if tls.max_version is not None:
        context.maximum_version = ssl.TLSVersion[tls.max_version.replace(".", "_")]
    context.set_alpn_protocols(["postgresql"])
    return context


def _home_file(name: str) -> str | None:
    """Return the path of a file in ``~/.postgresql``, where libpq looks as well; None when it is not there."""
    try:
        path = Path.home() / ".postgresql" / name
        return str(path) if path.is_file() else None
    except (RuntimeError, OSError):
        return None


def _trust(context: ssl.SSLContext, tls: Tls, mode: str) -> None:
    root = tls.root or os.environ.get("PGSSLROOTCERT") or _home_file("root.crt")
    if root == "system":
        context.load_default_certs()
    elif root is not None:
        _load("sslrootcert", root, lambda: context.load_verify_locations(cafile=root))
    elif mode == "require":
        context.verify_mode = ssl.CERT_NONE
    else:
        raise InvalidDatabaseUrl(f"sslrootcert=FILE or sslrootcert=system with sslmode={mode}: no authority is known")
    if crl := tls.crl or os.environ.get("PGSSLCRL"):
        _load("sslcrl", crl, lambda: context.load_verify_locations(cafile=crl))
    if crl_dir := tls.crl_dir:
        if not Path(crl_dir).is_dir():
            raise InvalidDatabaseUrl(f"sslcrldir to be a directory, not {crl_dir}")
        context.load_verify_locations(capath=crl_dir)
    if (crl or crl_dir) and context.verify_mode is not ssl.CERT_NONE:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _show(context: ssl.SSLContext, tls: Tls) -> None:
    cert = tls.cert or os.environ.get("PGSSLCERT") or _home_file("postgresql.crt")
    if cert is None:
        return
    key = tls.key or os.environ.get("PGSSLKEY") or (None if tls.cert else _home_file("postgresql.key"))
    for option, file in (("sslcert", cert), ("sslkey", key)):
        if file is not None:
            _load(option, file, Path(file).read_bytes)
    _load("sslkey" if key else "sslcert", key or cert, lambda: context.load_cert_chain(cert, key, lambda: _pass(tls)))


def _pass(tls: Tls) -> str:
    return tls.key_password or ""


def _load(option: str, file: str, load: Any) -> None:
    try:
        load()
    except ssl.SSLError as exc:
        what = "certificate and key that belong together" if "MISMATCH" in str(exc.reason) else "PEM that can be read"
        raise InvalidDatabaseUrl(f"{option}={file} to be {what} ({reason(exc)})") from None
    except OSError as exc:
        raise InvalidDatabaseUrl(f"{option}={file} to be a file that can be read: {exc.strerror}") from None


class PostgresConnector:
    """Opens connections as one URL says. Used by `PostgresStore` and ``watchout-ctl doctor``.

    Args:
        url: The parsed URL.
        timeout_s: Deadline for each connection, in seconds.
    """

    def __init__(self, url: DatabaseUrl, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._mode = url.tls.mode or _env_mode()
        self._passfile = None if url.passfile is None else str(Path(url.passfile).expanduser())
        self._proven: dict[Host, bytes] = {}

    def check(self) -> None:
        """Check the files that the URL names: certificates, keys, the file of passwords. Blocks.

        Raises:
            InvalidDatabaseUrl: One of them cannot be used; the gateway does not start.
        """
        if self._verifies:
            make_context(self._url.tls, self._mode)
        elif self._url.tls.cert is not None and self._mode != "disable":
            _show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self._url.tls)
        if (file := self._passfile) is not None:
            try:
                mode = Path(file).stat().st_mode
            except OSError as exc:
                raise InvalidDatabaseUrl(f"passfile={file} to be a file that can be read: {exc.strerror}") from None
            if mode & 0o077:
                raise InvalidDatabaseUrl(f"passfile={file} to have mode 0600, not {mode & 0o777:04o}")

    @property
    def _verifies(self) -> bool:
        return self._mode in ("require", "verify-ca", "verify-full")

    async def connect(self, application_name: str, **of_pool: Any) -> Any:
        """Open a connection to the first host that fits `target_session_attrs`.

        Args:
            application_name: Shown in ``pg_stat_activity``, unless the URL has one.
            of_pool: Arguments that an asyncpg pool adds.

        Raises:
            StoreUnavailable: No host can be used; the text says why.
            OSError, TimeoutError, asyncpg.PostgresError: What asyncpg raised for the last host.
        """
        hosts = list(self._url.hosts)
        if self._url.shuffled:
            random.shuffle(hosts)
        wanted = self._url.session_attributes
        last: Exception | None = None
        for attributes in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
            for host in hosts:
                try:
                    connection = await self._connect_host(host, len(hosts), application_name, of_pool)
                except (OSError, StoreUnavailable, asyncpg.CannotConnectNowError) as exc:  # also TimeoutError
                    last = exc
                    continue
                if await _will_do(connection, attributes):
                    return connection
                connection.terminate()
                last = StoreUnavailable(f"no host of DATABASE_URL is target_session_attrs={wanted}")
        assert last is not None, "there is one host at least"
        raise last

    async def _connect_host(self, host: Host, hosts: int, application_name: str, of_pool: Any) -> Any:
        url = self._url
        # A host that does not respond must leave time for the others.
        timeout_s = min(url.connect_timeout_s or self._timeout_s / hosts, self._timeout_s)
        settings = {"application_name": url.application_name or application_name}
        if url.options is not None:
            settings["options"] = url.options
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncpg.connect(
                    host=host.address,
                    port=host.port,
                    user=url.user,
                    password=url.password,
                    database=url.database,
                    passfile=self._passfile,
                    timeout=timeout_s,
                    # No named statements: a pooler gives each transaction another server connection.
                    statement_cache_size=0,
                    server_settings=settings,
                    **await self._tls(host, timeout_s),
                    **of_pool,
                )
        except InvalidDatabaseUrl as fault:
            raise StoreUnavailable(f"DATABASE_URL cannot be used: expected {fault}") from None
        except TimeoutError:
            if url.connect_timeout_s is None and hosts == 1:
                raise
            raise StoreUnavailable(f"PostgreSQL cannot be reached: no connection within {timeout_s:g} s") from None
        except ChannelBindingFailed as exc:
            raise StoreUnavailable(f"channel_binding=require: {exc}") from None
        except (ssl.SSLError, ConnectionError) as exc:
            self._proven.pop(host, None)
            if (words := self._tls_words(exc)) is None:
                raise
            raise StoreUnavailable(words) from None
        except asyncpg.PostgresError as exc:
            if isinstance(exc, asyncpg.CannotConnectNowError) or (words := self._refusal(exc)) is None:
                raise
            raise StoreUnavailable(words) from None

    async def _tls(self, host: Host, timeout_s: float) -> dict[str, Any]:
        """Return the TLS arguments of `asyncpg.connect`."""
        tls = self._url.tls
        if host.is_socket or self._mode == "disable":
            return {"ssl": None if host.address is None and self._mode != "disable" else False}
        if tls.channel_binding:
            return {"ssl": await self._bound(host, timeout_s), "direct_tls": tls.direct}
        if self._verifies:
            name = host.name if host.name != host.address else None
            context = await asyncio.to_thread(make_context, tls, self._mode, name)
            return {"ssl": context, "direct_tls": tls.direct}
        # asyncpg implements `allow` and `prefer`: it knows when to retry with or without TLS.
        files = {"sslcert": tls.cert, "sslkey": tls.key, "sslpassword": tls.key_password}
        files |= {"ssl_min_protocol_version": tls.min_version, "ssl_max_protocol_version": tls.max_version}
        given = {option: value for option, value in files.items() if value is not None}
        dsn = {"dsn": f"postgresql://?{urlencode(given, quote_via=quote)}"} if given else {}
        return {"ssl": self._mode, **dsn}

    async def _bound(self, host: Host, timeout_s: float) -> ssl.SSLContext:
        """Return a context that accepts only the certificate with which this host proved that it knows the password."""
        url, tls = self._url, self._url.tls
        name = host.name or host.address or "localhost"
        mode = self._mode if self._verifies else "require"
        context = await asyncio.to_thread(make_context, tls, mode, name)
        if host not in self._proven:
            user = url.user or os.environ.get("PGUSER") or getpass.getuser()
            password = url.password or os.environ.get("PGPASSWORD")
            if password is None:
                raise ChannelBindingFailed("it needs the password in DATABASE_URL")
            self._proven[host] = await asyncio.to_thread(
                verify_server,
                host.address or "localhost",
                host.port,
                context,
                server_name=name,
                user=user,
                password=password,
                database=url.database or user,
                direct=tls.direct,
                timeout_s=timeout_s,
            )
        pinned = await asyncio.to_thread(make_context, dataclasses.replace(tls, skips_verification=True), mode, name)
        pinned.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(self._proven[host]))
        pinned.verify_mode = ssl.CERT_REQUIRED
        pinned.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return pinned

    def _tls_words(self, exc: Exception) -> str | None:
        """Return the text for a TLS failure, with the option that causes it; None for any other failure."""
        mode = f"sslmode={self._mode}"
        if self._url.tls.direct and not isinstance(exc, ssl.SSLCertVerificationError | ConnectionRefusedError):
            return f"{mode}&sslnegotiation=direct: PostgreSQL 17 or newer takes TLS so, leave it out for an older one"
        if isinstance(exc, ssl.SSLCertVerificationError):
            helps = "" if self._url.tls.root else "; sslrootcert names the authority"
            return f"{mode}: the server's certificate is not accepted: {exc.verify_message}{helps}"
        if isinstance(exc, ssl.SSLError):
            return f"{mode}: TLS with PostgreSQL fails: {reason(exc)}"
        if _REJECTED in str(exc) and self._mode != "prefer":
            return f"{mode}, but PostgreSQL there offers no TLS: let it (ssl = on), or set sslmode=disable"
        return None

    def _refusal(self, exc: asyncpg.PostgresError) -> str | None:
        """Return the text for a refusal of the server that an option of the URL causes; None for any other."""
        message = str(exc)
        if "pg_hba.conf" in message and ("no encryption" in message or "SSL off" in message):
            return f"PostgreSQL refused: {message} (sslmode={self._mode}: it may want TLS)"
        if "unsupported startup parameter" in message:
            return (
                f"the pooler refused: {message}: leave it out of DATABASE_URL, or set ignore_startup_parameters there"
            )
        if "certificate" in message:
            return f"PostgreSQL refused: {message} (sslcert, sslkey)"
        return None


def _env_mode() -> str:
    mode = os.environ.get("PGSSLMODE", "")
    return mode if mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full") else "prefer"


async def _will_do(connection: Any, attributes: str) -> bool:
    if attributes == "any":
        return True
    try:
        standby, read_only = await connection.fetchrow(_KIND)
    except BaseException:
        connection.terminate()
        raise
    kinds = {"primary": not standby, "standby": standby, "read-write": not read_only, "read-only": read_only}
    return bool(kinds[attributes])


def option_notices(url: DatabaseUrl) -> Iterator[tuple[str, str]]:
    """Yield log messages about options of the URL that have no effect, each with the names of those options."""
    if url.ignored:
        yield "options of DATABASE_URL that change nothing here", ", ".join(url.ignored)
    if url.unknown:
        yield "options of DATABASE_URL that are not known here, and are not sent to the server", ", ".join(url.unknown)
