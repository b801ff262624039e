"""The TLS options of a database URL. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from watchout.common.settings.database_url.model import InvalidDatabaseUrl, Tls
from watchout.common.settings.database_url.options import one_of, shown

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: Values of ``ssl`` in URLs of node-postgres, JDBC and others. libpq reads ``ssl=true`` as ``sslmode=require``.
_SSL_WORDS: Final = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


def read_tls(options: Mapping[str, str]) -> Tls:
    """Return the TLS options, of libpq and in the spellings of Prisma, JDBC and node-postgres.

    Raises `InvalidDatabaseUrl` for a value that is not accepted, and for options that contradict each other.
    """
    mode, skips_verification = _ssl_mode(options)
    accept = one_of(options, "sslaccept", ("strict", "accept_invalid_certs"))
    root, cert = options.get("sslrootcert") or None, options.get("sslcert") or None
    if accept is not None:  # with Prisma, sslcert is the authority
        root, cert = root or cert, None
        if accept == "strict":
            if mode == "disable":
                raise InvalidDatabaseUrl("sslaccept=strict without sslmode=disable")
            mode, skips_verification, root = "verify-full", False, root or "system"
        else:
            mode, skips_verification, root = mode or "require", True, None
    if root == "system":
        if mode not in (None, "verify-full"):
            raise InvalidDatabaseUrl(f"sslmode=verify-full with sslrootcert=system, not sslmode={mode}")
        mode = "verify-full"
    cert_mode = one_of(options, "sslcertmode", ("disable", "allow", "require"))
    if cert_mode == "require" and cert is None:
        raise InvalidDatabaseUrl("sslcert with sslcertmode=require")
    direct = one_of(options, "sslnegotiation", ("postgres", "direct")) == "direct"
    if direct and mode in (None, "disable", "allow", "prefer"):
        raise InvalidDatabaseUrl("sslmode=require or more with sslnegotiation=direct")
    min_version = one_of(options, "ssl_min_protocol_version", TLS_VERSIONS)
    max_version = one_of(options, "ssl_max_protocol_version", TLS_VERSIONS)
    if min_version and max_version and TLS_VERSIONS.index(min_version) > TLS_VERSIONS.index(max_version):
        raise InvalidDatabaseUrl("ssl_min_protocol_version no higher than ssl_max_protocol_version")
    return Tls(
        mode=mode,
        skips_verification=skips_verification,
        root=root,
        cert=cert,
        key=options.get("sslkey") or None,
        key_password=options.get("sslpassword") or None,
        sends_cert=cert_mode != "disable",
        crl=options.get("sslcrl") or None,
        crl_dir=options.get("sslcrldir") or None,
        direct=direct,
        min_version=min_version,
        max_version=max_version,
        channel_binding=one_of(options, "channel_binding", ("disable", "prefer", "require")) == "require",
    )


def _ssl_mode(options: Mapping[str, str]) -> tuple[str | None, bool]:
    """Return the TLS mode, None where the URL names none, and whether verification of the certificate is skipped."""
    mode = options.get("sslmode") or None
    for name, value in (("sslmode", mode), ("ssl", options.get("ssl") or None)):
        if value is None:
            continue
        meant = _SSL_WORDS.get(value, value) if name == "ssl" else value
        if meant == "no-verify":
            return "require", True
        if meant not in SSL_MODES:
            raise InvalidDatabaseUrl(f"{name} to be one of {', '.join(SSL_MODES)}, not {shown(value)!r}")
        return meant, False
    if options.get("requiressl") == "1":
        return "require", False
    return None, False
