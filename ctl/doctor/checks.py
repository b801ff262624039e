"""What ``watchout-ctl doctor`` thinks of what it found around the settings: facts go in, findings come out. Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from watchout.common.home_files import SOCKET_NAME_BYTES
from watchout.common.settings import SOCKET_PATH_BYTES
from watchout.common.settings.database_url import DatabaseUrl
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.stats_view import duration
from watchout.ctl.terminal import counted, printable, size
from watchout.identity.schema.plan import Plan, Refusal

#: Clocks that differ by more make tokens end at the wrong time, and by much more refuse most of them.
CLOCK_WARNING_S: Final = 2.0
CLOCK_WRONG_S: Final = 30.0
#: A certificate that ends sooner is spoken of.
CERTIFICATE_DAYS: Final = 14
#: What the session store and the sockets write is little, but some is needed.
FREE_WARNING_BYTES: Final = 200_000_000
FREE_WRONG_BYTES: Final = 10_000_000
#: From here on a client notices each look-up.
SLOW_LOOKUP_MS: Final = 200.0
#: Files that a gateway has open besides its connections, with some for those that are just closing.
SPARE_FILES: Final = 128
#: Connections that the gateway lets wait to be accepted; the kernel cuts it to its own bound.
BACKLOG: Final = 1024


# ── home ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What there is of `WATCHOUT_HOME`; modes are None for what is not there.

    `owner` has it, `user` runs this; `writable` is about it, or else about `parent`, the nearest directory above that
    is there; `read_only`: its file system is mounted so. `ours` and `others`: it holds
    files of watchout, and of somebody else.
    """

    path: Path
    mode: int | None = None
    owner: int = 0
    user: int = 0
    writable: bool = True
    read_only: bool = False
    ours: bool = False
    others: bool = False
    store_mode: int | None = None
    free_bytes: int = 1 << 40
    parent: Path = Path("/")


def of_home(home: Home) -> Iterator[Finding]:
    """Whether watchout can live there."""
    yield _of_directory(home)
    if home.store_mode is not None and home.store_mode & 0o077:
        yield wrong(
            "home",
            f"{home.path}/sessions.db has mode {home.store_mode & 0o777:04o}: others on this machine may read live "
            "tokens in it.",
            f"chmod 600 {home.path}/sessions.db",
        )
    if home.free_bytes < FREE_WARNING_BYTES:
        make = wrong if home.free_bytes < FREE_WRONG_BYTES else warning
        yield make("home", f"Only {size(home.free_bytes)} are free on the disk of {home.path}.", "Make room.")


def _of_directory(home: Home) -> Finding:
    path = home.path
    socket_bytes = len(str(path).encode(errors="surrogateescape")) + SOCKET_NAME_BYTES
    lengths = f"socket paths have {socket_bytes} of {SOCKET_PATH_BYTES} bytes, {size(home.free_bytes)} are free"
    facts = {"path": str(path), "socketPathBytes": socket_bytes, "freeBytes": home.free_bytes}
    if home.read_only:
        return wrong(
            "home",
            f"{path} is on a file system that is mounted read-only: sockets and locks are written there.",
            "Mount it for writing, or set WATCHOUT_HOME.",
            **facts,
        )
    if home.mode is None:
        if home.writable:
            return ok("home", f"{path} is not there yet, `watchout-gateway` makes it ({lengths}).", **facts)
        return wrong(
            "home",
            f"{path} is not there, and user {home.user} may not make it in {home.parent}.",
            f"As root: install -d -m 700 -o <user of watchout> {path}; or set WATCHOUT_HOME.",
            **facts,
        )
    mode = f"{home.mode & 0o777:04o}"
    if home.user not in (0, home.owner):
        return wrong(
            "home",
            f"{path} belongs to user {home.owner}, and this is user {home.user}.",
            "Run all of watchout, and this command, as one user.",
            **facts,
        )
    if not home.writable:
        return wrong("home", f"{path} is not writable for this user.", f"chmod 700 {path}", **facts)
    if home.mode & 0o077 and home.others and not home.ours:
        return wrong(
            "home",
            f"{path} has mode {mode} and holds other files: watchout refuses to start there.",
            "Set WATCHOUT_HOME to a directory of its own.",
            **facts,
        )
    if home.mode & 0o077:
        return warning("home", f"{path} has mode {mode}, expected 0700.", f"chmod 700 {path}", **facts)
    return ok("home", f"{path} is private ({lengths}).", **facts)


# ── the bus over TCP ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBus:
    """What there is for `ROUTER_LISTEN`: `fault` of the router's key pair, how many bridges are let in, and the files
    on their list that hold no key.
    """

    address: str
    fault: str | None = None
    clients: int = 0
    broken: Sequence[str] = ()


def of_remote_bus(bus: RemoteBus) -> Iterator[Finding]:
    """Whether bridges of other machines can join."""
    if bus.fault is not None:
        yield wrong(
            "bus", f"The router does not start with ROUTER_LISTEN: {bus.fault}.", "watchout-ctl keys server makes it."
        )
    elif not bus.clients:
        yield warning(
            "bus",
            f"The router listens on {bus.address} for bridges, and none is let in.",
            "watchout-ctl keys allow NAME KEY, or remove ROUTER_LISTEN.",
        )
    else:
        text = f"{counted(bus.clients, 'bridge')} may join the router on {bus.address}, encrypted."
        yield ok("bus", text, clients=bus.clients)
    if bus.broken:
        yield warning(
            "bus",
            f"On the list of allowed keys are files without a key: {', '.join(bus.broken[:5])}.",
            "Remove them, and use watchout-ctl keys.",
        )


def of_bridge_key(fault: str | None, address: str) -> Finding:
    """Whether mlbridge can prove who it is to the router of another machine."""
    if fault is not None:
        return wrong("bus", f"mlbridge cannot join {address}: {fault}.", "watchout-ctl keys client FILE makes a pair.")
    return ok("bus", f"mlbridge has its key pair for {address}.")


# ── the session store ────────────────────────────────────────────────────────────────────────────────────────────

_BUSY: Final = "Look at the load and the locks of the database, and at the network."
_SLOTS: Final = "Raise max_connections of PostgreSQL, or lower STORE_CONNECTIONS."

#: What helps, by what the store's reason has in it; the first that fits.
_STORE_REMEDIES: Final = (
    ("row level security", ""),
    ("GRANT ", ""),
    ("ALTER TABLE ", ""),
    ("password authentication failed", "Set user and password in DATABASE_URL."),
    ("no pg_hba.conf entry", "Let PostgreSQL accept this user from here (pg_hba.conf), perhaps only over TLS."),
    ("too many", _SLOTS),
    ("connection slots", _SLOTS),
    ("does not exist", "Set user and database in DATABASE_URL."),
    ("sslmode=", "See the options of the URL in docs/better-auth.md."),
    ("cannot be reached", "Start PostgreSQL, or set host and port in DATABASE_URL."),
    ("no answer within", f"{_BUSY} STORE_TIMEOUT_S bounds the wait."),
    ("migrations have not run", "Run them (npx @better-auth/cli migrate), or name the tables."),
    ("No such file", "Set DATABASE_URL to Better Auth's file."),
    ("unable to open", "Let this user read and write the file and its directory."),
    ("locked", "Somebody else writes to it for long: find him."),
    ("not a database", "Set DATABASE_URL to Better Auth's file, or restore it."),
    ("malformed", "Restore the file."),
)


def store_failed(where: str, reason: str) -> Finding:
    """The store at `where` cannot be asked, for the reason that it gives."""
    remedy = next((remedy for words, remedy in _STORE_REMEDIES if words in reason), "")
    has_sql = any(words in reason for words in ("GRANT ", "ALTER TABLE ", "ALTER ROLE "))
    end = "" if has_sql else "."  # SQL at the end is there to be copied
    return wrong("store", f"The session store{where} cannot be asked, so nobody can sign in: {reason}{end}", remedy)


def of_store(kind: str, where: str, plan: Plan, latency_ms: float) -> Iterator[Finding]:
    """A store that answers: how fast, what it has, and what that does not allow."""
    facts = plan.facts
    slow = latency_ms > SLOW_LOOKUP_MS
    yield (warning if slow else ok)(
        "store",
        f"{kind} {facts.get('version')}{where} answers; a look-up takes {latency_ms:.1f} ms (median of 5).",
        _BUSY if slow else "",
        latencyMs=round(latency_ms, 2),
        version=facts.get("version"),
    )
    shared = f", members in {facts['organizations']}" if facts.get("organizations") else ""
    bans = "bans count" if facts.get("bans") else "there are no bans"
    yield ok(
        "schema",
        f"Sessions are in {facts.get('session')}, users in {facts.get('user')}{shared}: {facts.get('spelling')}, dates "
        f"are {facts.get('dates')}, ids are {facts.get('ids')}, {bans}.",
        **facts,
    )
    for text in plan.warnings:
        name, _, _ = text.partition(" has no index")
        owner, _, column = name.rpartition(".")
        yield warning("schema", f"{text}.", f"CREATE INDEX ON {owner} ({column})" if owner else "")
    if isinstance(plan.redeem, Refusal):
        yield warning(
            "schema",
            "One-time tickets (?ticket=) cannot be used up (AUTH_UNAVAILABLE), which is right where no client has any: "
            f"{plan.redeem.reason}",
        )
    else:
        yield ok("schema", f"One-time tickets (?ticket=) are taken from {facts.get('tickets')}.")


def of_url(url: DatabaseUrl, *, channel: str | None) -> Iterator[Finding]:
    """What of the options of `DATABASE_URL` is not done; `channel` is `REVOCATION_CHANNEL`."""
    if url.unknown:
        yield warning(
            "store",
            f"DATABASE_URL has options that are not known here and not sent to the server: {', '.join(url.unknown)}.",
            "Leave them out; docs/better-auth.md has those that are known.",
            options=list(url.unknown),
        )
    if url.ignored:
        text = f"Options of DATABASE_URL that change nothing here: {', '.join(url.ignored)}."
        yield ok("store", text, options=list(url.ignored))
    if channel is not None and url.transaction_pooler:
        yield warning(
            "store",
            "REVOCATION_CHANNEL is set, but DATABASE_URL leads through a transaction pooler (port 6543, "
            "pgbouncer=true), which loses notifications: sign-outs are seen at the next re-check.",
            "Set DATABASE_URL to the direct address.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a PostgreSQL server says of our role, itself and its clock.

    `trigger`: one speaks on `REVOCATION_CHANNEL`; None: nobody wants one. `read_only`: it takes no writing from us,
    though it is no replica. `offset_s` is positive where our clock is ahead, and may be off by `uncertainty_s`.
    """

    superuser: bool
    replica: bool
    trigger: bool | None
    offset_s: float
    uncertainty_s: float
    read_only: bool = False


def of_server(server: Server) -> Iterator[Finding]:
    """What is not as it should be with a server that answers, and its clock."""
    if server.superuser:
        yield warning(
            "store",
            "DATABASE_URL signs in as a superuser, who may do everything.",
            "Make a role that may only read the columns that are used (docs/better-auth.md).",
        )
    if server.replica:
        yield warning(
            "store",
            "DATABASE_URL is a read replica: sign-outs are seen as late as it lags, and tickets cannot be used up.",
            "Set it to the primary.",
        )
    elif server.read_only:
        yield warning(
            "store",
            "PostgreSQL is read-only for us (default_transaction_read_only): tickets (?ticket=) are AUTH_UNAVAILABLE. "
            "Providers do so when the disk is full.",
            "Make room at the provider, or ALTER ROLE … SET default_transaction_read_only = off.",
        )
    if server.trigger is False:
        yield warning(
            "store",
            "REVOCATION_CHANNEL is set, but no trigger of the session table speaks on it: sign-outs are seen at the "
            "next re-check only.",
            "Make the trigger of docs/better-auth.md.",
        )
    elif server.trigger:
        yield ok("store", "The trigger of REVOCATION_CHANNEL is there.")
    yield of_clock("PostgreSQL", server.offset_s, server.uncertainty_s)


# ── clocks and keys ──────────────────────────────────────────────────────────────────────────────────────────────


def of_clock(whose: str, offset_s: float, uncertainty_s: float) -> Finding:
    """This machine's clock against another; `offset_s` is positive where ours is ahead."""
    surely_s = max(0.0, abs(offset_s) - uncertainty_s)
    facts = {"against": whose, "offsetS": round(offset_s, 3), "uncertaintyS": round(uncertainty_s, 3)}
    if surely_s <= CLOCK_WARNING_S:
        within_s = max(abs(offset_s), uncertainty_s, 0.05)
        return ok("clock", f"This machine's clock agrees with that of {whose}, within {within_s:.1f} s.", **facts)
    way, early = ("ahead of", "early") if offset_s > 0 else ("behind", "late")
    return (wrong if surely_s > CLOCK_WRONG_S else warning)(
        "clock",
        f"This machine's clock is {abs(offset_s):.1f} s {way} that of {whose}: what expires does so too {early} here.",
        "Let both keep time by NTP (timedatectl status, chronyc tracking).",
        **facts,
    )


def http_clock(date: str | None, age: str | None, before_s: float, after_s: float) -> tuple[float, float] | None:
    """Offset and uncertainty by a `Date` header (RFC 9110 section 6.6.1) that came between those moments of ours.

    `age` is what a cache says (RFC 9111 section 5.1). None where there is no date.
    """
    try:
        moment = parsedate_to_datetime(date or "")
        theirs_s = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + min(int(age or 0), 10**9)
    except (ValueError, TypeError, OverflowError):
        return None
    # Both headers are whole seconds, cut off.
    return (before_s + after_s) / 2 - (theirs_s + 0.5), 0.5 + (after_s - before_s) / 2 + (1.0 if age else 0.0)


def of_published_keys(where: str, *, usable: int, published: int, algorithms: str) -> Finding:
    """The keys at `JWT_JWKS_URL`."""
    facts = {"usableKeys": usable, "publishedKeys": published, "algorithms": algorithms.split()}
    if not usable:
        return wrong(
            "keys",
            f"JWT_JWKS_URL{where} publishes {counted(published, 'key')}, none of which can be used: every JWT is "
            "refused.",
            "Let the issuer sign with RSA of 2048 bits or more, EC on P-256, P-384 or P-521, or Ed25519.",
            **facts,
        )
    which = f"{usable} of {published} keys" if usable < published else counted(usable, "key")
    return ok("keys", f"JWT_JWKS_URL{where} publishes {which} that can be used ({algorithms}).", **facts)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def of_certificate(certificate: bytes, key: bytes, now: datetime, *, holder: str = "TLS_KEY") -> Iterator[Finding]:
    """What of a certificate and its key, both in PEM, keeps clients out now or soon; `holder` sets the key's file."""
    try:
        chain = x509.load_pem_x509_certificates(certificate)
        names = _names(chain[0])
        public_keys = [_public_bytes(each.public_key()) for each in chain]
    except (ValueError, UnsupportedAlgorithm):
        yield wrong(
            "tls",
            "TLS_CERT is no certificate in PEM that can be read.",
            "Set it to the file with the whole chain (fullchain.pem).",
        )
        return
    yield from _of_key(public_keys, key, holder)
    yield _of_dates(chain[0], names, now)
    if not names:
        yield wrong(
            "tls",
            "The certificate has no subjectAltName: browsers and phones refuse it.",
            "Get one that names the gateway's host.",
        )
    if chain[0].issuer == chain[0].subject:
        yield warning(
            "tls",
            "The certificate is signed by itself: only clients that were told to trust it come in.",
            "Get one of an authority, unless that is meant.",
        )
    elif len(chain) == 1:
        yield warning(
            "tls",
            f"TLS_CERT has no certificate of the issuer ({chain[0].issuer.rfc4514_string()[:200]}): many clients "
            "cannot check it.",
            "Set it to the file with the whole chain (fullchain.pem).",
        )


def _of_key(public_keys: Sequence[bytes], key: bytes, holder: str) -> Iterator[Finding]:
    try:
        own = _public_bytes(load_pem_private_key(key, None).public_key())
    except TypeError:
        yield wrong(
            "tls",
            f"The private key in {holder} is encrypted, and nobody is there to be asked for its pass phrase.",
            "Decrypt it (openssl pkey -in … -out …).",
        )
    except (ValueError, UnsupportedAlgorithm):
        yield wrong("tls", f"{holder} has no private key in PEM that can be read.", "Set TLS_KEY to the key's file.")
    else:
        if own in public_keys[1:] and own != public_keys[0]:
            yield wrong("tls", "The server's own certificate is not the first one in TLS_CERT.", "Put it first.")
        elif own != public_keys[0]:
            yield wrong(
                "tls",
                f"The private key in {holder} does not belong to the certificate in TLS_CERT.",
                "Set both to files of the same issue.",
            )


def _of_dates(leaf: x509.Certificate, names: Sequence[str], now: datetime) -> Finding:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    days = (ends - now).total_seconds() / 86_400
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "no name"
    facts = {"names": list(names[:50]), "notAfter": ends.isoformat(), "daysLeft": round(days, 1)}
    renew = "Renew it; the gateway takes up a new file within a minute."
    if days <= 0:
        text = f"The certificate for {shown} expired on {ends:%Y-%m-%d %H:%M} UTC: clients refuse it."
        return wrong("tls", text, renew, **facts)
    if begins > now:
        text = f"The certificate for {shown} is good only from {begins:%Y-%m-%d %H:%M} UTC on."
        return wrong("tls", text, "Look at this machine's clock, or wait.", **facts)
    text = f"The certificate for {shown} is good until {ends:%Y-%m-%d}, {counted(int(days), 'day')} from now."
    return warning("tls", text, renew, **facts) if days < CERTIFICATE_DAYS else ok("tls", text, **facts)


def of_key_mode(holder: str, path: Path, mode: int) -> Iterator[Finding]:
    """Who may read the private key."""
    if mode & stat.S_IROTH:
        yield warning(
            "tls",
            f"{holder} ({path}) has mode {mode & 0o777:04o}: everybody on this machine may read the private key.",
            f"chmod o= {path}",
        )


def first_certificate(pem: bytes) -> bytes | None:
    """The one that a server with this file shows, in DER; None when there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    except ValueError:
        return None


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What is at the gateway's port.

    `ours`: a gateway of this home holds it, None where that cannot be seen. `live`: what listens answers as a gateway
    does, over TLS or not; else `silence` says how it does not. `stale`: it shows another certificate than the file
    has. `health` and `reason` are its own words. `cannot`: why nobody could listen. `others`: ports that gateways of
    this home hold besides.
    """

    number: int
    host: str = ""
    ours: bool | None = False
    listening: bool = False
    live: bool = False
    silence: str = ""
    tls: bool = False
    wants_tls: bool = False
    stale: bool = False
    health: int = 0
    reason: str = ""
    cannot: str = ""
    others: Sequence[int] = ()

    @property
    def gateway(self) -> bool:
        """Whether a gateway of this home has it, as far as can be seen."""
        return self.listening and (self.live if self.ours is None else self.ours)


def of_port(port: Port, *, router: bool) -> Iterator[Finding]:
    """Who has the gateway's port, and whether he is well; `router`: one runs on this home."""
    number = port.number
    if port.gateway:
        yield from _of_gateway(port)
    elif port.listening:
        who = "A watchout with another WATCHOUT_HOME" if port.live else "Another program"
        yield wrong(
            "ports",
            f"{who} listens on port {number}: no gateway of this home can.",
            f"Find it (ss -ltnp 'sport = :{number}') and end it, or set WATCHOUT_PORT to a free port.",
        )
    elif port.cannot:
        yield wrong(
            "ports",
            f"Port {number} of {port.host or 'all addresses'} cannot be had: {port.cannot}.",
            next(remedy for words, remedy in _PORT_REMEDIES if words in port.cannot),
        )
    elif port.others:
        yield warning(
            "ports",
            f"Nobody listens on port {number}, but a gateway of this home does on {', '.join(map(str, port.others))}.",
            "It was started with other settings: restart it, or set WATCHOUT_PORT here.",
        )
    elif router:
        text = f"Port {number} is free: a router runs on this home, but no gateway."
        yield warning("ports", text, "Start `watchout-gateway`.")
    else:
        yield ok("ports", f"Port {number} is free; no gateway runs on this home.")


_PORT_REMEDIES: Final = (
    ("ermission", "Ports below 1024 need CAP_NET_BIND_SERVICE; set WATCHOUT_PORT, or let a proxy have that port."),
    ("in use", "Somebody has it on an address of this machine (ss -ltnp): end him, or set WATCHOUT_PORT."),
    ("", "Set WATCHOUT_HOST to an address of this machine, or leave it empty."),
)

_HEALTH_REMEDIES: Final = (
    ("drains", "It ends: start another."),
    ("just begun", "Look again in a second."),
    ("router", "Start `watchout-router` with the same WATCHOUT_HOME, or look at its log."),
    ("store", "Where the lines on the store are well, the gateway has other settings: restart it."),
    ("TOO_MANY", "Raise MAX_CONNECTIONS or MAX_CONNECTIONS_PER_ADDRESS, or find who connects so often."),
    ("", "Look at its log."),
)


def _of_gateway(port: Port) -> Iterator[Finding]:
    facts = {"port": port.number, "health": port.health}
    if not port.live:
        yield wrong(
            "ports",
            f"A gateway of this home has port {port.number}, but does not answer: {port.silence}.",
            "It hangs or is overloaded: look at its log, and restart it.",
            **facts,
        )
        return
    if port.tls != port.wants_tls:
        yield wrong(
            "ports",
            f"The gateway on port {port.number} speaks {'TLS' if port.tls else 'plain HTTP'}, but TLS_CERT is "
            f"{'set' if port.wants_tls else 'not set'}.",
            "It was started with other settings: restart it.",
        )
    if port.stale:
        yield warning(
            "ports",
            f"The gateway on port {port.number} shows another certificate than TLS_CERT has.",
            "It takes up a new file within a minute; if not, its log says why.",
        )
    if port.health == 200:
        yield ok("ports", f"The gateway on port {port.number} answers, and is healthy.", **facts)
        return
    reason = printable(port.reason) or "it does not say why"
    passing = "drains" in reason or "just begun" in reason
    yield (warning if passing else wrong)(
        "ports",
        f"The gateway on port {port.number} answers, but is not healthy: {reason}.",
        next(remedy for words, remedy in _HEALTH_REMEDIES if words in reason),
        reason=reason,
        **facts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What there is of the router: its socket's file, and what it answers; `gateways` are their process ids."""

    socket: bool = False
    answers: bool = False
    up_s: float = 0.0
    gateways: Sequence[int] = field(default=())
    bridges: int = 0
    streams: int = 0


def of_router(router: Router, home: Path, *, gateway: bool, wants_bridge: bool) -> Iterator[Finding]:
    """Whether the router is there; `gateway`: one of this home runs, `wants_bridge`: there is an ML service."""
    start = "Start `watchout-router`, or look at its log."
    if router.answers:
        facts = {"gateways": len(router.gateways), "bridges": router.bridges, "streams": router.streams}
        yield ok(
            "ports",
            f"The router answers, up {duration(router.up_s)}: {counted(len(router.gateways), 'gateway')}, "
            f"{counted(router.bridges, 'mlbridge')}, {counted(router.streams, 'stream')}.",
            **facts,
        )
        if wants_bridge and not router.bridges:
            text = "ML_SERVICE_URL is set, but no mlbridge runs: nobody looks at the pictures."
            yield warning("ports", text, "Start `watchout-mlbridge`.")
    elif gateway:
        yield wrong("ports", f"No router answers on {home}: nobody can start or find a stream.", start)
    elif router.socket:
        yield warning("ports", f"{home}/control is there, but no router answers: it was killed, or hangs.", start)
    else:
        yield ok("ports", f"No router runs on {home}.")


def of_files(limit: int, whose: str, max_connections: int) -> Finding:
    """Whether a gateway may open a file for each connection; `limit` -1: there is none."""
    facts = {"openFiles": limit, "maxConnections": max_connections}
    needed = max_connections + SPARE_FILES
    if limit < 0 or limit >= needed:
        shown = "any number of" if limit < 0 else str(limit)
        return ok("ports", f"{whose} may open {shown} files, enough for MAX_CONNECTIONS={max_connections}.", **facts)
    return warning(
        "ports",
        f"{whose} may open {limit} files, enough for some {max(0, limit - SPARE_FILES)} connections and not for "
        f"MAX_CONNECTIONS={max_connections}.",
        f"Raise it to {needed} (ulimit -n, LimitNOFILE= of systemd), or lower MAX_CONNECTIONS.",
        **facts,
    )


def of_somaxconn(bound: int) -> Iterator[Finding]:
    """Whether the kernel lets as many connections wait to be accepted as the gateway does."""
    if bound < BACKLOG:
        yield warning(
            "ports",
            f"net.core.somaxconn is {bound}: when thousands reconnect at once, those beyond it wait and try again.",
            f"sysctl -w net.core.somaxconn={BACKLOG}",
            somaxconn=bound,
        )
