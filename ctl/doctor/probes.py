"""What ``watchout-ctl doctor`` asks: the disk, the session store, issuers, the gateway's port, the router.

Each probe ends within its deadline and changes nothing: it makes no file, uses up no ticket, and what it takes for a
moment it gives back. What the answers mean is said in `ctl.doctor.checks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import secrets
import socket
import ssl
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import msgspec
from yarl import URL

from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import ProcessReport, StatsReply
from watchout.common.bus.zeromq import curve
from watchout.common.errors import BusError, CurveFault, RouterUnavailable, SettingsError, StartError, StoreUnavailable
from watchout.common.home_files import CONTROL_SOCKET, LISTEN_LOCK, SESSION_STORE_FILE, is_home_file, port_of
from watchout.common.process import about, process_name
from watchout.common.settings import Settings, load
from watchout.common.settings.database_url import parse
from watchout.common.toolbox.http_client import HTTP_ERRORS, HttpClient
from watchout.common.toolbox.reach import reach
from watchout.common.toolbox.reason import reason
from watchout.ctl.bus_client import joined
from watchout.ctl.doctor import checks, running
from watchout.ctl.doctor.findings import Finding, ok, place, warning, wrong
from watchout.ctl.environment import Failure, edge_url
from watchout.identity import open_store
from watchout.identity.authenticator import methods
from watchout.identity.schema.plan import quoted
from watchout.identity.sources.connecting import Connector
from watchout.identity.sources.endpoint import Answer as HttpAnswer
from watchout.identity.sources.endpoint import Endpoint, EndpointFault
from watchout.identity.sources.introspection import Introspection
from watchout.identity.sources.jwks import FETCH_TIMEOUT_S, MAX_ANSWER_BYTES
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.keys import KeyFault, pem_key, read_jwks
from watchout.identity.sources.session_store import Store

#: Longest wait for one answer of anybody.
ASK_S: Final = 3.0
#: HTTP connections of one check.
CONNECTIONS: Final = 4
#: Look-ups whose median is told, and looks at a clock of which the quickest counts.
LOOKUPS: Final = 5
CLOCK_LOOKS: Final = 3
#: Largest answer of what may be a gateway.
MAX_HEALTH_BYTES: Final = 256 << 10

#: One look at the server; the last column is null where no channel is asked for.
_SERVER: Final = """
select (select rolsuper from pg_roles where rolname = current_user), pg_is_in_recovery(),
  current_setting('default_transaction_read_only') = 'on',
  case when $2 <> '' then exists (
    select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = to_regclass($1) and not t.tgisinternal and t.tgenabled <> 'D'
      and (position(quote_literal($2) in p.prosrc) > 0 or position($2 in encode(t.tgargs, 'escape')) > 0)) end
"""
_CLOCK: Final = "select extract(epoch from clock_timestamp())::float8"


# ── home ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def home(settings: Settings) -> list[Finding]:
    """`WATCHOUT_HOME`. Blocks."""
    path = settings.home
    try:
        found = _home(path)
    except OSError as exc:
        return [wrong("home", f"{path} cannot be looked at: {exc.strerror}.", "Run this as the user of watchout.")]
    return list(checks.of_home(found))


def _home(path: Path) -> checks.Home:
    there = path
    while not there.exists():
        there = there.parent
    disk = os.statvfs(there)
    found = checks.Home(
        path=path,
        user=os.geteuid(),
        writable=os.access(there, os.W_OK | os.X_OK),
        read_only=bool(disk.f_flag & os.ST_RDONLY),
        free_bytes=disk.f_bavail * disk.f_frsize,
        parent=there,
    )
    if there != path:
        return found
    status, store = path.stat(), path / SESSION_STORE_FILE
    names = {each.name for each in path.iterdir()} if os.access(path, os.R_OK) else set()
    ours = {name for name in names if is_home_file(name)}
    return replace(
        found,
        mode=status.st_mode,
        owner=status.st_uid,
        ours=bool(ours),
        others=bool(names - ours),
        store_mode=store.stat().st_mode if store.name in names else None,
    )


# ── the session store ────────────────────────────────────────────────────────────────────────────────────────────


async def store(settings: Settings) -> list[Finding]:
    """The session store: whether it answers, what it has, how fast it is."""
    url = settings.database_url
    if url is None and "session" not in methods(settings):
        return [ok("store", "No session store is asked: AUTH_METHODS has no session.")]
    if url is None:
        file = settings.home / SESSION_STORE_FILE
        if not await asyncio.to_thread(file.exists):
            text = f"The embedded session store {file} is not there yet, `watchout-gateway` makes it."
            return [ok("store", text)]
        url = f"sqlite:{file}"  # not as the embedded one, which would be made and mended
    asked = replace(settings, database_url=url, store_timeout_s=min(settings.store_timeout_s, ASK_S))
    is_file = url.startswith("sqlite:")
    at = url.removeprefix("sqlite:") if is_file else place(url)
    where = f" at {at}" if at else ""
    said = [] if is_file else list(checks.of_url(parse(url), channel=settings.revocation_channel))
    found = open_store(asked)
    assert isinstance(found, Store), "each of them is one"
    try:
        return [*await _asked(found, "SQLite" if is_file else "PostgreSQL", where), *said]
    except StartError as exc:
        return [checks.store_failed(where, str(exc).removeprefix("the session store cannot be used: ")), *said]
    except StoreUnavailable as exc:
        return [checks.store_failed(where, str(exc)), *said]
    finally:
        await found.close()


async def _asked(asked: Store, kind: str, where: str) -> list[Finding]:
    await asked.open()
    plan = asked.plan
    if plan is None:
        await asked.check()  # says why
        plan = asked.plan
    assert plan is not None, "a store that answers has a plan"
    took: list[float] = []
    for _ in range(LOOKUPS):
        began = time.perf_counter()
        await asked.find([secrets.token_hex(16)])
        took.append(1000 * (time.perf_counter() - began))
    return list(checks.of_store(kind, where, plan, statistics.median(took)))


async def server(settings: Settings) -> list[Finding]:
    """What PostgreSQL says of our role, of itself and of the time; nothing where it is away, which `store` says."""
    url = settings.database_url
    if url is None or url.startswith("sqlite:"):
        return [ok("clock", "The session store is a file: its sessions expire by this machine's clock.")]
    try:
        async with asyncio.timeout(ASK_S):
            connection = await Connector(parse(url), timeout_s=ASK_S).connect("watchout-doctor")
    except Exception:  # a server that is something else makes the driver raise nearly anything
        return []
    try:
        async with asyncio.timeout(ASK_S):
            return list(checks.of_server(await _server(connection, settings)))
    except Exception:
        return [warning("clock", "PostgreSQL answers, but did not tell its time.", "See the lines about the store.")]
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()


async def _server(connection: Any, settings: Settings) -> checks.Server:
    looks: list[tuple[float, float]] = []
    async with connection.transaction(readonly=True):
        names = [quoted(settings.session_table), settings.revocation_channel or ""]
        superuser, replica, read_only, trigger = await connection.fetchrow(_SERVER, *names)
        for _ in range(CLOCK_LOOKS):
            before_s = time.time()
            theirs_s = await connection.fetchval(_CLOCK)
            after_s = time.time()
            looks.append(((after_s - before_s) / 2, (before_s + after_s) / 2 - theirs_s))
    uncertainty_s, offset_s = min(looks)
    return checks.Server(
        superuser=bool(superuser),
        replica=replica,
        read_only=read_only,
        trigger=trigger,
        offset_s=offset_s,
        uncertainty_s=uncertainty_s,
    )


# ── keys, introspection, and their clocks ────────────────────────────────────────────────────────────────────────


async def keys(settings: Settings) -> list[Finding]:
    """The key of JWTs, or the issuer's published keys."""
    if "jwt" not in methods(settings):
        return [ok("keys", "No JWT is accepted: no JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL is in use.")]
    found = [] if settings.jwt_jwks_url is None else await _published(settings.jwt_jwks_url)
    if settings.jwt_public_key is None and settings.jwt_secret is None:
        return found
    verifier = JwtVerifier(replace(settings, jwt_jwks_url=None))
    try:
        await verifier.open()
    except StartError as exc:
        return [*found, wrong("keys", f"{exc}.", "Every gateway refuses to start with it: set the right one.")]
    finally:
        await verifier.close()
    if settings.jwt_public_key is not None:
        algorithms = " ".join(sorted(pem_key(settings.jwt_public_key).algorithms))
        found.append(ok("keys", f"JWT_PUBLIC_KEY can be used ({algorithms})."))
    if settings.jwt_secret is not None:
        found.append(ok("keys", "JWT_SECRET can be used (HS256 HS384 HS512)."))
    return found


async def _published(url: str) -> list[Finding]:
    at = place(url)
    where = f" at {at}" if at else ""
    remedy = "JWTs are refused until it is back; look at the issuer, and at JWT_JWKS_URL."
    endpoint = Endpoint(timeout_s=FETCH_TIMEOUT_S, max_answer_bytes=MAX_ANSWER_BYTES, at_once=1)
    await endpoint.open()
    try:
        answer = await endpoint.ask("GET", URL(url))
        if answer.status != 200:
            raise EndpointFault(f"it answered with status {answer.status}")
        found = read_jwks(answer.body)
    except (EndpointFault, KeyFault) as exc:
        return [wrong("keys", f"JWT_JWKS_URL{where} gives no keys: {exc}.", remedy)]
    finally:
        await endpoint.close()
    published = len(msgspec.json.decode(answer.body)["keys"])
    usable = len(found.keys)
    return [
        checks.of_published_keys(where, usable=usable, published=published, algorithms=found.algorithms),
        *await _http_clock("the JWT issuer", url),
    ]


class _Heard(Introspection):
    """Introspection that remembers the status of the last answer."""

    status = 0

    async def _asked(self, endpoint: Endpoint, token: str) -> HttpAnswer:
        answer = await super()._asked(endpoint, token)
        self.status = answer.status
        return answer


async def introspection(settings: Settings) -> list[Finding]:
    """The introspection endpoint, asked about a token that cannot be."""
    url = settings.introspection_url
    if url is None or "introspection" not in methods(settings):
        return []
    at = place(url)
    where = f"INTROSPECTION_URL{f' at {at}' if at else ''}"
    way = _Heard(replace(settings, store_timeout_s=min(settings.store_timeout_s, ASK_S)))
    try:
        await way.open()
        claims = await way.verify(f"doctor-{secrets.token_hex(16)}")
    except StartError as exc:
        return [wrong("keys", f"{exc}.", "Every gateway refuses to start so.")]
    except StoreUnavailable as exc:
        return [_not_introspected(where, str(exc).removeprefix("the introspection endpoint cannot be asked: "))]
    finally:
        await way.close()
    if claims is not None:
        text = f"{where} takes a token that was made up for somebody: everybody can sign in."
        found = wrong("keys", text, "It does not look at the token: see INTROSPECTION_TOKEN_PARAM and _METHOD.")
    elif way.status == 404:
        text = f"{where} answers with status 404, which is taken for an unknown token."
        found = warning("keys", text, "Some endpoints say so; if no token is accepted, the path is wrong.")
    else:
        found = ok("keys", f"{where} answers, and knows a token that was made up to be nobody's.", status=way.status)
    return [found, *await _http_clock("the introspection endpoint", url)]


def _not_introspected(where: str, reason: str) -> Finding:
    if "refuses this server" in reason:
        remedy = "Set INTROSPECTION_AUTH_HEADER_NAME and _VALUE to what the endpoint takes from this server."
    else:
        remedy = "Look at INTROSPECTION_URL, INTROSPECTION_METHOD, and the endpoint's own log."
    return wrong("keys", f"{where} cannot be asked: {reason}.", remedy)


async def _http_clock(whose: str, url: str) -> list[Finding]:
    """The clock by the `Date` of whatever answer, if it has one."""
    try:
        async with asyncio.timeout(ASK_S), _client() as client:
            before_s = time.time()
            async with client.request("HEAD", url) as answer:
                after_s = time.time()
                date, age = answer.headers.get("Date"), answer.headers.get("Age")
    except HTTP_ERRORS:
        return []
    looked = checks.http_clock(date, age, before_s, after_s)
    return [] if looked is None else [checks.of_clock(whose, *looked)]


def _client(tls: bool = True) -> HttpClient:
    """Return a client; with `tls` False it does not check the server's certificate."""
    return HttpClient(user_agent="watchout-ctl", connections=CONNECTIONS, timeout_s=ASK_S, tls=tls)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tls(settings: Settings) -> list[Finding]:
    """The certificate's files. Blocks."""
    if settings.tls_cert is None:
        return [ok("tls", "The gateway speaks no TLS itself: TLS_CERT is not set.")]
    holder, key_file = ("TLS_CERT", settings.tls_cert) if settings.tls_key is None else ("TLS_KEY", settings.tls_key)
    try:
        certificate, key, mode = settings.tls_cert.read_bytes(), key_file.read_bytes(), key_file.stat().st_mode
    except OSError as exc:
        text = f"{exc.filename} cannot be read: {exc.strerror}."
        return [wrong("tls", text, "Let the user of watchout read it; TLS_CERT and TLS_KEY name the files.")]
    found = [
        *checks.of_certificate(certificate, key, datetime.now(UTC), holder=holder),
        *checks.of_key_mode(holder, key_file, mode),
    ]
    if not any(finding.level == "wrong" for finding in found):
        found += _openssl(settings.tls_cert, key_file)
    return found


def _openssl(certificate: Path, key: Path) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=str)
    except (ssl.SSLError, ValueError, OSError) as exc:
        yield wrong("tls", f"OpenSSL on this machine refuses the certificate: {reason(exc)}.", "Get a stronger one.")


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────


async def processes(settings: Settings) -> list[Finding]:
    """What the processes that run tell of themselves, over the bus."""
    there = await asyncio.to_thread(process_name.running, settings.home)
    silent = [running.nothing_runs(str(settings.home), there)]
    if not await asyncio.to_thread((settings.home / CONTROL_SOCKET).exists):
        return silent
    asked = replace(settings, router_timeout_s=min(settings.router_timeout_s, ASK_S))
    try:
        async with joined(asked) as link:
            reports = await link.query(lambda number: Query(request=number, what="processes"), list[ProcessReport])
    except (Failure, RouterUnavailable, OSError):
        return silent
    except BusError:
        text = "The router tells nothing of the processes: it is of another version."
        return [warning("processes", text, "Restart all of watchout.")]
    found = [running.Running.of(report) for report in reports]
    return list(running.of_running(found, about.told(settings), about.version()))


async def _of_the_gateway(settings: Settings) -> Settings:
    """These settings with the port, host and certificate that the running gateway told, where there is one."""
    asked = replace(settings, router_timeout_s=min(settings.router_timeout_s, ASK_S))
    if not await asyncio.to_thread((settings.home / CONTROL_SOCKET).exists):
        return settings
    try:
        async with joined(asked) as link:
            reports = await link.query(lambda number: Query(request=number, what="processes"), list[ProcessReport])
    except (Failure, RouterUnavailable, BusError, OSError):
        return settings
    found = [running.Running.of(report) for report in reports]
    theirs = next((each.settings for each in found if each.kind == "gateway" and each.version), None)
    if theirs is not None:
        with contextlib.suppress(SettingsError):
            names = ("WATCHOUT_PORT", "WATCHOUT_HOST", "TLS_CERT", "TLS_KEY", "MAX_CONNECTIONS")
            told = load({name: theirs[name] for name in names if name in theirs})
            return replace(
                settings, port=told.port, host=told.host, tls_cert=told.tls_cert, tls_key=told.tls_key,
                max_connections=told.max_connections,
            )  # fmt: skip
    return settings


async def ports(settings: Settings) -> list[Finding]:
    """The gateway's port, the router, and what the kernel allows them."""
    given, settings = settings, await _of_the_gateway(settings)
    port, router = await asyncio.gather(_port(settings), _router(settings))
    own = [] if given.port == settings.port else [*checks.of_port(await _port(given), router=router.answers)]
    wants_bridge = settings.ml_service_url is not None
    return [
        *own,
        *checks.of_port(port, router=router.answers),
        *checks.of_router(router, settings.home, gateway=port.gateway or bool(port.others), wants_bridge=wants_bridge),
        _files(router.gateways, settings.max_connections),
        *_somaxconn(),
    ]


async def _port(settings: Settings) -> checks.Port:
    number = settings.port
    found = checks.Port(number=number, host=settings.host, wants_tls=settings.tls_cert is not None)
    held = await asyncio.to_thread(_held_ports, settings.home)
    found = replace(found, ours=held.pop(number, False), others=sorted(each for each, has in held.items() if has))
    parts = urlsplit(edge_url(None, settings))
    host = parts.hostname or "127.0.0.1"
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, number)
            writer.transport.abort()
    except (TimeoutError, OSError):
        return replace(found, cannot=await asyncio.to_thread(_cannot_listen, settings.host, number))
    found = replace(found, listening=True)
    for secure in (found.wants_tls, not found.wants_tls):
        answer = await _get(f"{'https' if secure else 'http'}://{parts.netloc}/health/live")
        found = replace(found, silence=found.silence or answer.silence)
        if answer.silence == _LATE:
            break
        if answer.body.get("status") != "live" and not (found.ours and answer.code):
            continue
        if answer.code:  # it is a gateway, and refuses even this
            return replace(found, live=True, tls=secure, health=answer.status, reason=answer.code)
        health = await _get(f"{'https' if secure else 'http'}://{parts.netloc}/health")
        reason = health.code or str(health.body.get("reason") or health.silence)
        found = replace(found, live=True, tls=secure, health=health.status, reason=reason)
        if secure and settings.tls_cert is not None:
            found = replace(found, stale=await _stale(host, number, settings.tls_cert))
        break
    return found


def _held_ports(path: Path) -> dict[int, bool | None]:
    """Ports that gateways of this home hold now, as the locks say (`gateway.listen.port`); None: it cannot be seen.

    A lock that is free is taken for a moment, at a time when no gateway starts.
    """
    held: dict[int, bool | None] = {}
    files = {port: file for file in _listed(path) if (port := port_of(file.name)) is not None}
    with contextlib.ExitStack() as stack:
        try:
            gate = _opened(path / LISTEN_LOCK, stack)
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return {}
        except OSError:  # of another user, or a gateway starts in this very moment
            return dict.fromkeys(files)
        for number, file in files.items():
            try:
                fcntl.flock(_opened(file, stack), fcntl.LOCK_EX | fcntl.LOCK_NB)
                held[number] = False
            except BlockingIOError:
                held[number] = True
            except OSError:
                held[number] = None
    return held


def _listed(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _opened(file: Path, stack: contextlib.ExitStack) -> int:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _cannot_listen(host: str, number: int) -> str:
    """Why a gateway could not listen there; empty when it could. Nobody can connect meanwhile."""
    try:
        infos = socket.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, address in infos:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as exc:
        if not host and exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return ""  # a machine without IPv6
        return reason(exc)
    return ""


class _Said:
    """What came of one request: `code` is that of an error body, `silence` says why there was no answer."""

    def __init__(self, status: int = 0, body: Mapping[str, Any] | None = None, silence: str = "") -> None:
        self.status = status
        self.body = body or {}
        self.silence = silence
        error = self.body.get("error")
        self.code = str(error.get("code") or "") if isinstance(error, dict) else ""


_LATE: Final = f"no answer within {ASK_S:g} s"


async def _get(url: str) -> _Said:
    try:
        async with (
            asyncio.timeout(ASK_S),
            _client(tls=False) as client,
            client.request("GET", url) as got,
        ):
            body = await got.content.read(MAX_HEALTH_BYTES)
            value = msgspec.json.decode(body)
    except TimeoutError:
        return _Said(silence=_LATE)
    except HTTP_ERRORS as exc:
        return _Said(silence=f"no answer that can be read ({type(exc).__name__})")
    return _Said(got.status, value if isinstance(value, dict) else {})


async def _stale(host: str, number: int, file: Path) -> bool:
    """Whether the port shows another certificate than the file has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        expected = checks.first_certificate(await asyncio.to_thread(file.read_bytes))
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, number, ssl=context)
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
    except (TimeoutError, OSError):
        return False
    return expected is not None and shown != expected


async def _router(settings: Settings) -> checks.Router:
    if not await asyncio.to_thread((settings.home / CONTROL_SOCKET).exists):
        return checks.Router()
    asked = replace(settings, router_timeout_s=min(settings.router_timeout_s, ASK_S))
    try:
        async with joined(asked) as link:
            stats = await link.query(lambda number: Query(request=number, what="stats"), StatsReply)
    except (Failure, RouterUnavailable, OSError):
        return checks.Router(socket=True)
    except BusError:
        return checks.Router(socket=True, answers=True)
    return checks.Router(
        socket=True,
        answers=True,
        up_s=stats.router.uptime_s,
        gateways=[member.pid for member in stats.members if member.kind == "gateway"],
        bridges=sum(member.kind == "mlbridge" for member in stats.members),
        streams=len(stats.streams),
    )


def _files(gateways: Sequence[int], max_connections: int) -> Finding:
    """The bound of open files: of a gateway that runs, where it can be seen, else of this process."""
    for pid in gateways:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            return checks.of_files(soft, f"The gateway (process {pid})", max_connections)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return checks.of_files(soft, "A process started from here", max_connections)


def _somaxconn() -> Iterator[Finding]:
    with contextlib.suppress(OSError, ValueError):
        yield from checks.of_somaxconn(int(Path("/proc/sys/net/core/somaxconn").read_text("ascii")))


# ── the ML service ───────────────────────────────────────────────────────────────────────────────────────────────


def remote_bus(settings: Settings) -> list[Finding]:
    """The keys of the bus over TCP, where it is used."""
    found: list[Finding] = []
    if settings.router_listen is not None:
        fault, clients, broken = None, 0, []
        try:
            curve.load_pair(curve.server_file(settings.home))
            clients, broken = len(curve.allowed(settings.home)), curve.broken(settings.home)
        except CurveFault as error:
            fault = str(error)
        bus = checks.RemoteBus(address=settings.router_listen, fault=fault, clients=clients, broken=broken)
        found += checks.of_remote_bus(bus)
    if settings.router_address is not None and settings.bridge_key_file is not None:
        fault = None
        try:
            curve.load_pair(settings.bridge_key_file)
        except CurveFault as error:
            fault = str(error)
        found.append(checks.of_bridge_key(fault, settings.router_address))
    return found


async def ml_service(settings: Settings) -> list[Finding]:
    """Whether somebody listens at `ML_SERVICE_URL`."""
    url = settings.ml_service_url
    if url is None:
        return [ok("ml", "ML_SERVICE_URL is not set: nobody looks at the pictures.")]
    at = place(url)
    where = f"ML_SERVICE_URL{f' at {at}' if at else ''}"
    reached = await reach(url, ASK_S)
    if not reached.fault:
        return [ok("ml", f"{where} takes connections.")]
    if reached.connected:
        text = f"{where} does not fit the service: {reached.fault}. Frames flow, but no alerts come."
        return [wrong("ml", text, "Write ML_SERVICE_URL as it says.")]
    text = f"{where} cannot be reached: {reached.fault}. Frames flow, but no alerts come."
    return [warning("ml", text, "Start it.")]
