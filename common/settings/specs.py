"""The one table of settings: environment names, defaults, units, checks, and the source of docs/settings.md.

Pure: `load` takes the environment as a mapping. It reports every fault at once, by name.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from watchout.common.errors import SettingsError
from watchout.common.settings import ml_url
from watchout.common.settings.database_url import UrlFault, as_url
from watchout.common.settings.database_url import parse as parse_database_url
from watchout.common.toolbox import globs, origins

GROUPS: Final = ("Where", "Identity and rights", "Limits", "ML service", "Alerts", "Logs and process")

#: Longest file name that `common.bus.zeromq.control` puts below ``WATCHOUT_HOME``, with its slash.
SOCKET_NAME_BYTES: Final = 12
#: ``sockaddr_un.sun_path`` holds 108 bytes on Linux and 104 on macOS, with the closing zero.
SOCKET_PATH_BYTES: Final = 103


#: Ways of verifying a caller.
AUTH_METHODS: Final = ("session", "jwt", "introspection")
#: What a role may give: to publish streams of one's own, to view, to receive alerts without pictures.
RIGHTS: Final = ("publish", "view", "alerts")


#: Headers of a request to an ML service that are not for a setting to give.
_OWN_HEADERS: Final = frozenset(
    ("connection", "content-encoding", "content-length", "content-type", "host", "keep-alive", "te", "trailer",
     "transfer-encoding", "upgrade", "expect", "accept-encoding")
)  # fmt: skip


class _Fault(Exception):
    """What a value should have been; `load` adds the name, and what came unless `came` is what may be shown of it."""

    def __init__(self, expected: str, came: str | None = None) -> None:
        super().__init__(expected)
        self.came = came


#: Value that Kubernetes gives to `X_PORT` for a Service named `x`.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d{1,5}\Z")


def is_service_link(env: str, raw: str) -> bool:
    """Whether Kubernetes made this variable for a Service whose name collides with a setting's."""
    return env.endswith("_PORT") and _SERVICE_LINK.match(raw) is not None


def _text(raw: str) -> str:
    return raw


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise _Fault(f"a whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise _Fault(f"a number from {low:g} to {high:g}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw.lower() not in choices:
            raise _Fault("one of " + ", ".join(choices))
        return raw.lower()

    return parse


def _secret(raw: str) -> str:
    if len(raw) < 16 or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise _Fault("at least 16 printable ASCII characters without spaces")
    return raw


def _shared_secret(raw: str) -> str:
    if len(raw) < 8:
        raise _Fault("at least 8 characters; 32 are good")
    return raw


def _database_url(raw: str) -> str:
    raw = as_url(raw)
    scheme, _, rest = raw.partition(":")
    if scheme == "sqlite":
        if not rest.strip("/"):
            raise _Fault("sqlite:/path/to/file.db")
        return raw
    try:
        parse_database_url(raw)
    except UrlFault as fault:
        raise _Fault(f"{fault} (or sqlite:/path/to/file.db)" if "://" in str(fault) else str(fault)) from None
    return raw


def _ml_service_url(raw: str) -> str:
    try:
        return ml_url.check(raw)
    except ml_url.MlUrlFault as fault:
        raise _Fault(fault.expected, fault.came) from None


def _ml_headers(raw: str) -> tuple[tuple[str, str], ...]:
    expected = 'headers as JSON, such as {"Authorization":"Bearer …"}: at most 32 names with printable ASCII values'
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise _Fault(expected) from None
    if not isinstance(found, dict) or len(found) > 32:
        raise _Fault(expected)
    for name, value in found.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name) or not isinstance(value, str):
            raise _Fault(expected)
        if len(value) > 8192 or not value.isascii() or not value.isprintable():
            raise _Fault(expected)
        if name.lower() in _OWN_HEADERS or name.lower().startswith(("sec-websocket-", "x-frame-", "x-stream-")):
            raise _Fault(f"no header {name}: it belongs to the request itself")
    return tuple(found.items())


def _host(raw: str) -> str:
    if any(c.isspace() or c in "/@?#" for c in raw):
        raise _Fault("a host name or an IP address")
    if raw.count(":") == 1 or "]:" in raw:
        raise _Fault("a host name or an IP address alone: the port is WATCHOUT_PORT")
    return raw


def _home(raw: str) -> Path:
    longest = SOCKET_PATH_BYTES - SOCKET_NAME_BYTES
    try:
        path = Path(raw).expanduser().absolute()
        size = len(str(path).encode(errors="surrogateescape"))
        if size > longest:
            raise _Fault(
                f"a directory whose absolute path has at most {longest} bytes (sockets live in it, and the system "
                f"allows {SOCKET_PATH_BYTES} bytes for a socket's path); {path} has {size}"
            )
        if path.exists() and not path.is_dir():
            raise _Fault("a directory; a file is in its place")
    except (OSError, RuntimeError, ValueError):  # a ~user that is not there, no right to look, no text
        raise _Fault("a directory that can be reached") from None
    return path


def _flag(raw: str) -> bool:
    if raw.lower() in ("true", "yes", "on", "1"):
        return True
    if raw.lower() in ("false", "no", "off", "0"):
        return False
    raise _Fault("true or false")


def _words(raw: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", raw) if word]


def _methods(raw: str) -> tuple[str, ...]:
    words = tuple(word.lower() for word in _words(raw))
    if not words or len(set(words)) < len(words) or not set(words) <= set(AUTH_METHODS):
        raise _Fault(f"some of {', '.join(AUTH_METHODS)}, each once, in the order in which they are asked")
    return words


def _identifier(raw: str) -> str:
    parts = raw.split(".")
    if len(parts) > 2 or not all(re.fullmatch(r"[^\s\".]{1,63}", part) for part in parts):
        raise _Fault("a table's name, or schema.table, without quotes")
    return raw


def _channel(raw: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", raw):
        raise _Fault("1 to 63 of a-z 0-9 _, no digit first")
    return raw


def _timezone(raw: str) -> str:
    try:
        ZoneInfo(raw)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _Fault("the name of a time zone, such as UTC or Asia/Tokyo") from None
    return raw


def _token_name(raw: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", raw):
        raise _Fault("a name of letters, digits and . _ - (RFC 9110 token)")
    return raw


def _header_value(raw: str) -> str:
    if not raw.isascii() or not raw.isprintable():
        raise _Fault("printable ASCII")
    return raw


def _origins(raw: str) -> tuple[str, ...]:
    try:
        return tuple(str(origins.from_setting(word)) for word in _words(raw))
    except ValueError as fault:
        raise _Fault(
            "origins as browsers send them, such as https://app.example.com or capacitor://localhost, separated by "
            f"commas; {fault}"
        ) from None


def _networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(word, strict=False) for word in _words(raw))
    except ValueError:
        raise _Fault("addresses or networks such as 10.0.0.0/8 or ::1, separated by commas") from None


def _file(raw: str) -> Path:
    try:
        path = Path(raw).expanduser().absolute()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # a ~user that is not there, no right to look, no text
        pass
    raise _Fault("a file that is there")


def _http_url(raw: str) -> str:
    try:
        parts = urlsplit(raw)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise _Fault("http(s)://host[:port]/path") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise _Fault("http(s)://host[:port]/path")
    return raw


def _tcp_address(raw: str) -> str:
    try:
        parts = urlsplit(raw)
        fits = parts.scheme == "tcp" and parts.hostname and parts.port and not parts.path and not parts.query
    except ValueError:
        fits = False
    if not fits or "@" in raw or "#" in raw or any(c.isspace() for c in raw):
        raise _Fault("tcp://host:port, such as tcp://192.0.2.7:5550 or tcp://[2001:db8::7]:5550")
    return raw


def _curve_key(raw: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", raw):
        raise _Fault("64 hexadecimal digits, as `watchout-ctl keys server` shows them")
    return raw.lower()


def _group_name(raw: str) -> str:
    if len(raw) > 64 or not raw.isprintable():
        raise _Fault("a name of at most 64 printable characters")
    return raw


def _process_name(raw: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", raw):
        raise _Fault("1 to 64 of A-Z a-z 0-9 _ . @ -, the first a letter, a digit or _")
    return raw


def _patterns(raw: str) -> tuple[str, ...]:
    words = tuple(_words(raw))
    expected = globs.fault(words)
    if expected is not None:
        raise _Fault(expected)
    return words


def _public_key(raw: str) -> str:
    # In an environment file a PEM stands on one line, with \n in it; or the setting names a file.
    text = raw.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        try:
            text = Path(raw).expanduser().read_text("ascii")
        except (OSError, RuntimeError, ValueError):
            text = ""
    if "-----BEGIN PUBLIC KEY-----" not in text and "-----BEGIN RSA PUBLIC KEY-----" not in text:
        raise _Fault("a public key in PEM (-----BEGIN PUBLIC KEY-----), or the path of a file with one")
    return text


def _webhook_secrets(raw: str) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for word in _words(raw):
        try:
            secret = base64.b64decode(word.removeprefix("whsec_"), validate=True)
        except ValueError:
            secret = b""
        if not 24 <= len(secret) <= 64:
            raise _Fault("whsec_… secrets of 24 to 64 bytes in base64, separated by commas")
        found.append(secret)
    return tuple(found)


def _role_rights(raw: str) -> tuple[tuple[str, frozenset[str]], ...]:
    found: dict[str, frozenset[str]] = {}
    for word in _words(raw):
        role, colon, rights = word.rpartition(":")
        names = frozenset(name for name in rights.split("+") if name)
        if not colon or not role or role in found or not names <= {*RIGHTS, "none"} or not names:
            raise _Fault(f"role:right+right,… with the rights {', '.join(RIGHTS)} or none, and * for any other role")
        found[role] = names - {"none"}
    return tuple(found.items())


def _webhook_url(raw: str) -> str:
    expected = "https://host[:port]/path (or http://) without a user or a fragment, on port 80, 443 or one from 1024 on"
    try:
        parts = urlsplit(raw)
        port = parts.port
    except ValueError:
        raise _Fault(expected) from None
    if (
        parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment
        or not raw.isascii() or any(c.isspace() for c in raw)
        or (port is not None and port not in (80, 443) and port < 1024)
    ):  # fmt: skip
        raise _Fault(expected)
    return raw


@dataclass(frozen=True, slots=True)
class Spec:
    """What the table knows of one setting besides its default."""

    env: str
    parse: Callable[[str], Any]
    group: str
    expects: str
    help: str
    secret: bool = False


def _setting(
    env: str,
    parse: Callable[[str], Any],
    default: Any,
    *,
    group: str,
    expects: str,
    help: str,
    secret: bool = False,
) -> Any:
    return field(default=default, repr=not secret, metadata={"spec": Spec(env, parse, group, expects, help, secret)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of every process, checked. Made by `load`."""

    port: int = _setting(
        "WATCHOUT_PORT", _whole(1, 65535), 3000, group="Where", expects="1–65535",
        help="Port of the gateway, for WebSocket and HTTP. `PORT` is used when this is not set, but only outside "
        "honcho, which hands each process a `PORT` of its own. What Kubernetes makes of a Service named `watchout` "
        "(`tcp://…`) is passed over.",
    )  # fmt: skip
    host: str = _setting(
        "WATCHOUT_HOST", _host, "", group="Where", expects="host or address",
        help="Address that the gateway listens on; empty: every address of the machine, IPv4 and IPv6.",
    )  # fmt: skip
    home: Path = _setting(
        "WATCHOUT_HOME", _home, Path(".watchout"), group="Where", expects="directory",
        help="Sockets of the bus, lock files and the embedded session store. Made with mode 0700. Processes that "
        "share a home are one watchout.",
    )  # fmt: skip
    tls_cert: Path | None = _setting(
        "TLS_CERT", _file, None, group="Where", expects="file",
        help="Certificate with its chain, in PEM: the port then speaks TLS only. A new file is taken up within a "
        "minute, without a restart.",
    )  # fmt: skip
    tls_key: Path | None = _setting(
        "TLS_KEY", _file, None, group="Where", expects="file",
        help="The certificate's private key, in PEM; not set: it is in the same file.",
    )  # fmt: skip
    router_listen: str | None = _setting(
        "ROUTER_LISTEN", _tcp_address, None, group="Where", expects="tcp://address:port",
        help="Where the router also listens for bridges on other machines, `tcp://*:5550` for every address of the "
        "machine (IPv4). Always encrypted (CURVE), for those whose keys `watchout-ctl keys allow` let in. Not set: "
        "nowhere.",
    )  # fmt: skip
    router_address: str | None = _setting(
        "ROUTER_ADDRESS", _tcp_address, None, group="Where", expects="tcp://host:port",
        help="The router of another machine that mlbridge joins, with `ROUTER_PUBLIC_KEY` and `BRIDGE_KEY_FILE`. Not "
        "set: the router of `WATCHOUT_HOME`.",
    )  # fmt: skip
    router_public_key: str | None = _setting(
        "ROUTER_PUBLIC_KEY", _curve_key, None, group="Where", expects="64 hexadecimal digits",
        help="That router's public key: `watchout-ctl keys server` shows it there.",
    )  # fmt: skip
    bridge_key_file: Path | None = _setting(
        "BRIDGE_KEY_FILE", _file, None, group="Where", expects="file",
        help="The bridge's own key pair, made by `watchout-ctl keys client FILE`, mode 0600.",
    )  # fmt: skip
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "TRUSTED_PROXIES", _networks, (), group="Where", expects="addresses, networks",
        help="Reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. From anybody else they "
        "are ignored.",
    )  # fmt: skip
    database_url: str | None = _setting(
        "DATABASE_URL", _database_url, None, group="Identity and rights", expects="URL", secret=True,
        help="Better Auth's database: `postgres://user:password@host/name`, as providers, Prisma and libpq write it "
        "(docs/better-auth.md has the options), or `sqlite:/path/file.db`. Without it "
        "an embedded SQLite file `sessions.db` in `WATCHOUT_HOME`, with Better Auth's schema.",
    )  # fmt: skip
    store_timeout_s: float = _setting(
        "STORE_TIMEOUT_S", _number(0.1, 60), 3.0, group="Identity and rights", expects="0.1–60 s",
        help="How long one look-up in the session store may take, waiting for a connection included; then "
        "`AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    store_connections: int = _setting(
        "STORE_CONNECTIONS", _whole(1, 100), 5, group="Identity and rights", expects="1–100",
        help="Most connections that one gateway opens to PostgreSQL.",
    )  # fmt: skip
    store_waiting: int = _setting(
        "STORE_WAITING", _whole(1, 1_000_000), 20_000, group="Identity and rights", expects="tokens",
        help="Most tokens that wait for a query to the session store at one gateway; past it `AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    session_table: str = _setting(
        "SESSION_TABLE", _identifier, "session", group="Identity and rights", expects="table",
        help="Better Auth's session table, where `session.modelName` renames it; `schema.table` is possible.",
    )  # fmt: skip
    user_table: str = _setting(
        "USER_TABLE", _identifier, "user", group="Identity and rights", expects="table", help="Its user table."
    )  # fmt: skip
    member_table: str = _setting(
        "MEMBER_TABLE", _identifier, "member", group="Identity and rights", expects="table",
        help="The organization plugin's table of members.",
    )  # fmt: skip
    verification_table: str = _setting(
        "VERIFICATION_TABLE", _identifier, "verification", group="Identity and rights", expects="table",
        help="The table in which the one-time-token plugin keeps its tickets.",
    )  # fmt: skip
    naive_timezone: str | None = _setting(
        "NAIVE_TIMEZONE", _timezone, None, group="Identity and rights", expects="time zone",
        help="The time zone of the Better Auth process, for a database made by Better Auth 1.3.0 to 1.3.10, whose "
        "dates have none. Such a database is refused without it: expired sessions could pass.",
    )  # fmt: skip
    auth_methods: tuple[str, ...] = _setting(
        "AUTH_METHODS", _methods, (), group="Identity and rights", expects="list of session, jwt, introspection",
        help="Ways of verifying a token, in the order in which they are asked. Empty: `session`, and then `jwt` and "
        "`introspection` as far as they are configured.",
    )  # fmt: skip
    auth_combine: str = _setting(
        "AUTH_COMBINE", _one_of("any", "all"), "any", group="Identity and rights", expects="any, all",
        help="`any`: the first way that knows the token decides. `all`: every way must accept it, as the same user.",
    )  # fmt: skip
    auth_cache_s: float = _setting(
        "AUTH_CACHE_S", _number(0, 60), 1.0, group="Identity and rights", expects="0–60 s",
        help="How long a request over HTTP with a token that was accepted is accepted again without asking. A socket's "
        "token is asked for afresh, unless the store is busy; refused ones are always asked for.",
    )  # fmt: skip
    auth_cache_tokens: int = _setting(
        "AUTH_CACHE_TOKENS", _whole(1, 1_000_000), 10_000, group="Identity and rights", expects="tokens",
        help="Most tokens that are remembered so.",
    )  # fmt: skip
    recheck_s: float = _setting(
        "RECHECK_S", _number(0.2, 3600), 1.0, group="Identity and rights", expects="0.2–3600 s",
        help="How often the sessions of open sockets are looked up again: one query per 1000 sessions. A session "
        "that ended closes its sockets with 4500 after at most this long and one query.",
    )  # fmt: skip
    revocation_channel: str | None = _setting(
        "REVOCATION_CHANNEL", _channel, None, group="Identity and rights", expects="channel",
        help="Listen on this channel of PostgreSQL for sessions that change, and look those up at once. Needs the "
        "trigger of docs/better-auth.md, and a connection that is not PgBouncer's transaction mode.",
    )  # fmt: skip
    better_auth_secret: str | None = _setting(
        "BETTER_AUTH_SECRET", _shared_secret, None, group="Identity and rights", expects="≥ 8 characters", secret=True,
        help="Better Auth's secret. When set, the signature of cookies and signed tokens must be right; when not, "
        "the token in front of it decides alone.",
    )  # fmt: skip
    require_signed_tokens: bool = _setting(
        "REQUIRE_SIGNED_TOKENS", _flag, False, group="Identity and rights", expects="true, false",
        help="Refuse session tokens without a signature, as the bearer plugin's `requireSignature` does. Needs "
        "`BETTER_AUTH_SECRET`.",
    )  # fmt: skip
    session_cookie: str = _setting(
        "SESSION_COOKIE", _token_name, "better-auth.session_token", group="Identity and rights", expects="name",
        help="Name of Better Auth's session cookie, without `__Secure-`: `<cookiePrefix>.session_token`, or what "
        "`cookies.session_token.name` says.",
    )  # fmt: skip
    secure_cookie_only: bool = _setting(
        "SECURE_COOKIE_ONLY", _flag, False, group="Identity and rights", expects="true, false",
        help="Take only the cookie with `__Secure-` in front, as an https site sets it: another sub-domain cannot "
        "plant that one over http.",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = _setting(
        "ALLOWED_ORIGINS", _origins, (), group="Identity and rights", expects="origins",
        help="Origins of web apps that may use the session cookie, and read answers over HTTP (CORS), as browsers and "
        "hybrid apps send them (`https://app.example.com`, `capacitor://localhost`). The gateway's own origin always "
        "may.",
    )  # fmt: skip
    jwt_secret: str | None = _setting(
        "JWT_SECRET", _shared_secret, None, group="Identity and rights", expects="≥ 8 characters", secret=True,
        help="Secret of JWTs signed with HS256, HS384 or HS512. `JWT_PUBLIC_KEY` and `JWT_JWKS_URL` may be set beside "
        "it: each is for tokens of its own algorithms only.",
    )  # fmt: skip
    jwt_public_key: str | None = _setting(
        "JWT_PUBLIC_KEY", _public_key, None, group="Identity and rights", expects="PEM or path",
        help="Public key of JWTs, RSA, EC or Ed25519; in PEM, with `\\n` for new lines, or as the path of a file.",
    )  # fmt: skip
    jwt_jwks_url: str | None = _setting(
        "JWT_JWKS_URL", _http_url, None, group="Identity and rights", expects="URL", secret=True,
        help="Where the issuer publishes its keys; Better Auth's jwt plugin does so at `/api/auth/jwks`. Set "
        "`JWT_ISSUER` with it: the same keys may sign what is meant for others.",
    )  # fmt: skip
    jwt_issuer: str | None = _setting(
        "JWT_ISSUER", _text, None, group="Identity and rights", expects="text", help="`iss` that a JWT must have."
    )  # fmt: skip
    jwt_audience: str | None = _setting(
        "JWT_AUDIENCE", _text, None, group="Identity and rights", expects="text",
        help="`aud` that a JWT must have. With `JWT_JWKS_URL` it defaults to `JWT_ISSUER`, as Better Auth has it.",
    )  # fmt: skip
    jwt_session_claim: str = _setting(
        "JWT_SESSION_CLAIM", _token_name, "sid", group="Identity and rights", expects="name, none",
        help="Claim with the id of the session. Where a JWT has it and `DATABASE_URL` is set, that session must be "
        "live, so that sign-out ends the JWT too. `none`: not looked at.",
    )  # fmt: skip
    jwt_require_session: bool = _setting(
        "JWT_REQUIRE_SESSION", _flag, False, group="Identity and rights", expects="true, false",
        help="Refuse JWTs without that claim: they would be good until they expire, whatever happens to the session.",
    )  # fmt: skip
    jwt_max_age_s: float = _setting(
        "JWT_MAX_AGE_S", _number(0, 31_536_000), 3600.0, group="Identity and rights", expects="0–31536000 s",
        help="How long after its `iat` a JWT without `exp` is good. One with neither is refused; 0: so is one without "
        "`exp`.",
    )  # fmt: skip
    jwt_leeway_s: float = _setting(
        "JWT_LEEWAY_S", _number(0, 300), 0.0, group="Identity and rights", expects="0–300 s",
        help="How far the issuer's clock may be off, for `exp` and `nbf`.",
    )  # fmt: skip
    introspection_url: str | None = _setting(
        "INTROSPECTION_URL", _http_url, None, group="Identity and rights", expects="URL", secret=True,
        help="Endpoint that says who a token is: RFC 7662 (`active`, `sub`, `exp`), plain claims, Better Auth's "
        "`get-session`, or such an answer under `claims` or `data`.",
    )  # fmt: skip
    introspection_method: str = _setting(
        "INTROSPECTION_METHOD", _one_of("post", "get"), "post", group="Identity and rights", expects="POST, GET",
        help="How it is asked: the token in the body, or in the query.",
    )  # fmt: skip
    introspection_body: str = _setting(
        "INTROSPECTION_BODY", _one_of("form", "json"), "form", group="Identity and rights", expects="form, json",
        help="Body of a `POST`: a form (RFC 7662), or a JSON object.",
    )  # fmt: skip
    introspection_token_param: str = _setting(
        "INTROSPECTION_TOKEN_PARAM", _token_name, "token", group="Identity and rights", expects="name",
        help="Name of the field that carries the token.",
    )  # fmt: skip
    introspection_token_in: str = _setting(
        "INTROSPECTION_TOKEN_IN", _one_of("param", "bearer"), "param", group="Identity and rights",
        expects="param, bearer",
        help="`bearer`: the token goes as `Authorization: Bearer …` instead, as Better Auth's `get-session` wants it.",
    )  # fmt: skip
    introspection_auth_header_name: str = _setting(
        "INTROSPECTION_AUTH_HEADER_NAME", _token_name, "Authorization", group="Identity and rights", expects="name",
        help="Header by which this server proves itself to the endpoint.",
    )  # fmt: skip
    introspection_auth_header_value: str | None = _setting(
        "INTROSPECTION_AUTH_HEADER_VALUE", _header_value, None, group="Identity and rights", expects="text",
        secret=True, help="Its value; not set: no such header.",
    )  # fmt: skip
    introspection_recheck_s: float = _setting(
        "INTROSPECTION_RECHECK_S", _number(1, 86_400), 30.0, group="Identity and rights", expects="1–86400 s",
        help="How often the tokens of open sockets are introspected again: one request each.",
    )  # fmt: skip
    stream_access: str = _setting(
        "STREAM_ACCESS", _one_of("owner", "organization", "authenticated"), "owner", group="Identity and rights",
        expects="owner, organization, authenticated",
        help="Who may view a stream: only the user whose camera it is, also the members of his organizations (Better "
        "Auth's organization plugin), or everybody who is signed in.",
    )  # fmt: skip
    role_rights: tuple[tuple[str, frozenset[str]], ...] = _setting(
        "ROLE_RIGHTS", _role_rights, (), group="Identity and rights", expects="role:right+right,…",
        help="What roles may do: `publish`, `view`, `alerts` (alerts without pictures) or `none`, and `*` for any "
        "other role, for example `camera:publish,guard:alerts,*:publish+view`. On a stream shared by an "
        "organization the member's roles in it count, elsewhere the user's own. Empty: everybody may publish and view.",
    )  # fmt: skip
    stats_token: str | None = _setting(
        "STATS_TOKEN", _secret, None, group="Identity and rights", expects="≥ 16 characters", secret=True,
        help="When set, `/stats` and `/metrics` want it as `Authorization: Bearer …`; `/health` then says only "
        "whether it is healthy.",
    )  # fmt: skip
    service_token: str | None = _setting(
        "SERVICE_TOKEN", _secret, None, group="Identity and rights", expects="≥ 16 characters", secret=True,
        help="What an ML service sends as `Authorization: Bearer …` with `POST /alerts`. Without this and "
        "`SERVICE_WEBHOOK_SECRETS` that path refuses everybody.",
    )  # fmt: skip
    service_webhook_secrets: tuple[bytes, ...] = _setting(
        "SERVICE_WEBHOOK_SECRETS", _webhook_secrets, (), group="Identity and rights", expects="whsec_…,…", secret=True,
        help="Secrets with which `POST /alerts` may be signed instead (Standard Webhooks); several while they are "
        "rotated.",
    )  # fmt: skip
    auth_timeout_s: float = _setting(
        "AUTH_TIMEOUT_S", _number(0.1, 300), 10.0, group="Limits", expects="0.1–300 s",
        help="A socket that has not authenticated by then gets `AUTH_TIMEOUT` and is closed.",
    )  # fmt: skip
    handshake_timeout_s: float = _setting(
        "HANDSHAKE_TIMEOUT_S", _number(0.1, 60), 5.0, group="Limits", expects="0.1–60 s",
        help="Deadline for the TLS handshake, and then for the head of the first request on a connection.",
    )  # fmt: skip
    idle_timeout_s: float = _setting(
        "IDLE_TIMEOUT_S", _number(1, 3600), 120.0, group="Limits", expects="1–3600 s",
        help="A client from which nothing came for so long, not even an answer to a ping, is closed. Pings go out "
        "after a quarter of it.",
    )  # fmt: skip
    router_timeout_s: float = _setting(
        "ROUTER_TIMEOUT_S", _number(0.1, 60), 2.0, group="Limits", expects="0.1–60 s",
        help="How long the gateway waits for the router's answer before it says `ROUTING_ERROR`.",
    )  # fmt: skip
    max_message_bytes: int = _setting(
        "MAX_MESSAGE_BYTES", _whole(1024, 256 << 20), 16 << 20, group="Limits", expects="bytes",
        help="Largest WebSocket message; over it a socket closes with 1009. Before authentication "
        "nothing over 64 KiB is looked at.",
    )  # fmt: skip
    unfinished_bytes: int = _setting(
        "UNFINISHED_BYTES", _whole(1 << 20, 64 << 30), 96 << 20, group="Limits", expects="bytes",
        help="Most bytes of messages that signed-in clients of one gateway process have begun, not finished; past it "
        "the largest is closed with 1013, to come back. All strangers together have 12 MiB.",
    )  # fmt: skip
    unfinished_bytes_per_user: int = _setting(
        "UNFINISHED_BYTES_PER_USER", _whole(65536, 64 << 30), 32 << 20, group="Limits", expects="bytes",
        help="The same of one user. One message of `MAX_MESSAGE_BYTES` is never too much.",
    )  # fmt: skip
    max_connections: int = _setting(
        "MAX_CONNECTIONS", _whole(1, 1_000_000), 20_000, group="Limits", expects="connections",
        help="Most open connections of one gateway process.",
    )  # fmt: skip
    max_connections_per_user: int = _setting(
        "MAX_CONNECTIONS_PER_USER", _whole(1, 1_000_000), 5_000, group="Limits", expects="connections",
        help="Most authenticated sockets of one user on one gateway process.",
    )  # fmt: skip
    max_connections_per_address: int = _setting(
        "MAX_CONNECTIONS_PER_ADDRESS", _whole(1, 1_000_000), 10_000, group="Limits", expects="connections",
        help="Most connections from one address on one gateway process; of IPv6 the first 64 bits count. Behind a "
        "reverse proxy that is the proxy's, unless it is one of `TRUSTED_PROXIES`.",
    )  # fmt: skip
    max_strangers_per_address: int = _setting(
        "MAX_STRANGERS_PER_ADDRESS", _whole(1, 1_000_000), 4_000, group="Limits", expects="connections",
        help="Most connections from one address that have not authenticated. All strangers together never have more "
        "than half of `MAX_CONNECTIONS`.",
    )  # fmt: skip
    max_subscriptions: int = _setting(
        "MAX_SUBSCRIPTIONS", _whole(1, 100_000), 1_000, group="Limits", expects="streams",
        help="Most streams that one socket may subscribe to.",
    )  # fmt: skip
    max_subscriptions_per_user: int = _setting(
        "MAX_SUBSCRIPTIONS_PER_USER", _whole(1, 10_000_000), 20_000, group="Limits", expects="streams",
        help="Most subscriptions of all sockets of one user on one gateway process.",
    )  # fmt: skip
    max_waits_per_user: int = _setting(
        "MAX_WAITS_PER_USER", _whole(1, 1_000_000), 2_000, group="Limits", expects="streams",
        help="Most subscriptions of one user on one gateway process to streams that nobody owns yet.",
    )  # fmt: skip
    max_streams: int = _setting(
        "MAX_STREAMS", _whole(1, 1_000_000), 20_000, group="Limits", expects="streams",
        help="Most streams that have a camera; as many more are waited for by viewers of their owners, and as many by "
        "others.",
    )  # fmt: skip
    stream_reserved_s: float = _setting(
        "STREAM_RESERVED_S", _number(0, 31_536_000), 604_800.0, group="Limits", expects="0–31536000 s",
        help="How long the id of a stream stays its user's after its camera went: others who register it get "
        "`UNAUTHORIZED`. Also across restarts of the router.",
    )  # fmt: skip
    stream_reserved_per_user: int = _setting(
        "STREAM_RESERVED_PER_USER", _whole(1, 1_000_000), 5_000, group="Limits", expects="streams",
        help="Most ids of one user that are kept so; the one whose camera went first gives way.",
    )  # fmt: skip
    stream_reserved_max: int = _setting(
        "STREAM_RESERVED_MAX", _whole(1, 1_000_000), 100_000, group="Limits", expects="streams",
        help="Most ids of all users that are kept so; the user who has the most loses his oldest.",
    )  # fmt: skip
    message_rate: float = _setting(
        "MESSAGE_RATE", _number(1, 1e6), 2_000.0, group="Limits", expects="messages per s",
        help="Messages, frames and pings that one socket may send; two seconds' worth may come at once. Over it "
        "they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    byte_rate: float = _setting(
        "BYTE_RATE", _number(1024, 1e10), float(64 << 20), group="Limits", expects="bytes per s",
        help="Bytes that one socket may send; two seconds' worth may come at once.",
    )  # fmt: skip
    newest_frame_bytes: int = _setting(
        "NEWEST_FRAME_BYTES", _whole(0, 16 << 30), 128 << 20, group="Limits", expects="bytes",
        help="Most bytes that the newest frames of all streams hold in one gateway process, or one frame that is "
        "larger. The one that came first gives way: until its camera sends again, `lastFrame` shows nothing and "
        "`frame.jpg` is 404.",
    )  # fmt: skip
    waiting_frame_bytes: int = _setting(
        "WAITING_FRAME_BYTES", _whole(1 << 20, 64 << 30), 256 << 20, group="Limits", expects="bytes",
        help="Most bytes that the frames hold which viewers of one gateway process have not taken, each counted once "
        "however many wait for it, or one frame that is larger. Past it the user whose viewers hold the most loses his "
        "oldest: a viewer that waits for it skips it, one that has a part of it is cut off, to come back.",
    )  # fmt: skip
    alert_rate: float = _setting(
        "ALERT_RATE", _number(0.1, 1e6), 20.0, group="Limits", expects="alerts per s",
        help="Alerts that the cameras of one user may raise at one gateway process; two seconds' worth may come at "
        "once. Over it they are dropped with `RATE_LIMITED`.",
    )  # fmt: skip
    service_alert_rate: float = _setting(
        "SERVICE_ALERT_RATE", _number(50, 1e6), 1_000.0, group="Limits", expects="alerts per s",
        help="Alerts that `POST /alerts` takes at one gateway process; two seconds' worth may come at once. Over it "
        "the answer is 429 with `Retry-After`, and none of the request is taken.",
    )  # fmt: skip
    abuse_limit: int = _setting(
        "ABUSE_LIMIT", _whole(1, 1_000_000), 100, group="Limits", expects="errors",
        help="`INVALID_MESSAGE` and `RATE_LIMITED` errors that a socket may earn at once; one is forgiven per "
        "second. Past it the socket is closed with 1008.",
    )  # fmt: skip
    alert_lane_messages: int = _setting(
        "ALERT_LANE_MESSAGES", _whole(1, 1_000_000), 1_000, group="Limits", expects="messages",
        help="Alerts and status messages that may wait for one viewer; past it `SLOW_CONSUMER`.",
    )  # fmt: skip
    alert_lane_bytes: int = _setting(
        "ALERT_LANE_BYTES", _whole(1024, 1 << 30), 1 << 20, group="Limits", expects="bytes",
        help="The same in bytes.",
    )  # fmt: skip
    recent_alerts: int = _setting(
        "RECENT_ALERTS", _whole(0, 1_000_000), 1_000, group="Limits", expects="alerts",
        help="Alerts that the router keeps for `alertsSince` and `GET /alerts`.",
    )  # fmt: skip
    recent_alerts_minutes: float = _setting(
        "RECENT_ALERTS_MINUTES", _number(0.01, 1440), 60.0, group="Limits", expects="0.01–1440 min",
        help="How long it keeps them.",
    )  # fmt: skip
    recent_alert_bytes: int = _setting(
        "RECENT_ALERT_BYTES", _whole(1024, 16 << 30), 32 << 20, group="Limits", expects="bytes",
        help="Most bytes of them, half of it of one user and a quarter of one stream at most; the user with the most "
        "bytes loses his oldest.",
    )  # fmt: skip
    demand_fps: float = _setting(
        "DEMAND_FPS", _number(0.1, 1000), 30.0, group="Limits", expects="frames per s",
        help="What a camera that asks for `demand` is told is worth sending while somebody watches without `maxFps`.",
    )  # fmt: skip
    ml_service_url: str | None = _setting(
        "ML_SERVICE_URL", _ml_service_url, None, group="ML service", expects="URL", secret=True,
        help="Where mlbridge sends frames: `http(s)://host` is asked with `POST /analyze`; `ws(s)://host/path`; "
        "`redis(s)://host`, `redis(s)+sentinel://host/name`, `nats://host`, `tls://host` (NATS) (options "
        "`?frames=NAME&alerts=NAME`); `tcp://host:port` (ZeroMQ, option `?alerts=PORT`). Not set: mlbridge waits.",
    )  # fmt: skip
    ml_http_format: str = _setting(
        "ML_HTTP_FORMAT", _one_of("json", "raw"), "json", group="ML service", expects="json, raw",
        help="Body of a request over HTTP: JSON with base64, or the picture itself with `X-Stream-Id`, `X-Frame-Id` "
        "and `X-Frame-Time`.",
    )  # fmt: skip
    ml_batch: int = _setting(
        "ML_BATCH", _whole(1, 64), 1, group="ML service", expects="frames",
        help="Most frames in a request over HTTP: those that are due within 5 ms go together. 1: each goes alone. More "
        "than `ML_IN_FLIGHT` never are.",
    )  # fmt: skip
    ml_redis_mode: str = _setting(
        "ML_REDIS_MODE", _one_of("pubsub", "streams"), "pubsub", group="ML service", expects="pubsub, streams",
        help="How Redis is used: pub/sub, or Streams, in which a service may lag behind by some 256 frames.",
    )  # fmt: skip
    ml_headers: tuple[tuple[str, str], ...] = _setting(
        "ML_HEADERS", _ml_headers, (), group="ML service", expects="JSON object", secret=True,
        help='Headers of each HTTP request and WebSocket to the ML service: `{"Authorization":"Bearer …"}`.',
    )  # fmt: skip
    ml_tls_ca: Path | None = _setting(
        "ML_TLS_CA", _file, None, group="ML service", expects="file",
        help="Authorities in PEM that are trusted for the ML service, in place of the system's.",
    )  # fmt: skip
    ml_tls_cert: Path | None = _setting(
        "ML_TLS_CERT", _file, None, group="ML service", expects="file",
        help="Certificate in PEM that mlbridge shows to the ML service, with its key if that is in no other file.",
    )  # fmt: skip
    ml_tls_key: Path | None = _setting(
        "ML_TLS_KEY", _file, None, group="ML service", expects="file",
        help="Its key in PEM, not encrypted.",
    )  # fmt: skip
    ml_fallback_url: str | None = _setting(
        "ML_FALLBACK_URL", _ml_service_url, None, group="ML service", expects="URL", secret=True,
        help="A second ML service, that gets the frames while the first one is away. The first is tried meanwhile with "
        "single copies, and gets all again when it answers.",
    )  # fmt: skip
    ml_max_age_s: float = _setting(
        "ML_MAX_AGE_S", _number(0.05, 60), 1.0, group="ML service", expects="0.05–60 s",
        help="A frame that has waited for so long since it came to mlbridge is not sent. An alert whose frame is older "
        "when the answer comes is marked with that age.",
    )  # fmt: skip
    ml_fps: float = _setting(
        "ML_FPS", _number(0.01, 1000), 2.0, group="ML service", expects="frames per s",
        help="Frames of each stream that the ML service is shown.",
    )  # fmt: skip
    ml_in_flight: int = _setting(
        "ML_IN_FLIGHT", _whole(1, 1000), 16, group="ML service", expects="requests",
        help="Most requests under way at the ML service, and never more than one per stream. Below it the number "
        "follows the service's latency: one that works on a frame at a time gets two or three.",
    )  # fmt: skip
    ml_timeout_s: float = _setting(
        "ML_TIMEOUT_S", _number(0.1, 300), 5.0, group="ML service", expects="0.1–300 s",
        help="Deadline of one request to the ML service.",
    )  # fmt: skip
    ml_group: str = _setting(
        "ML_GROUP", _group_name, "default", group="ML service", expects="1–64 characters",
        help="Bridges of one group share the streams; each group gets them all.",
    )  # fmt: skip
    ml_ring_bytes: int = _setting(
        "ML_RING_BYTES", _whole(0, 16 << 30), 64 << 20, group="ML service", expects="bytes",
        help="Frames shown to the ML service that mlbridge holds, so that an alert's very frame can be had, a quarter "
        "of it for one stream at most; half of it is for those that alerts spoke of. 0: none.",
    )  # fmt: skip
    ml_ring_s: float = _setting(
        "ML_RING_S", _number(0.1, 3600), 30.0, group="ML service", expects="0.1–3600 s",
        help="How long it holds a frame that no alert spoke of.",
    )  # fmt: skip
    alert_cooldown_s: float = _setting(
        "ALERT_COOLDOWN_S", _number(0, 86_400), 5.0, group="Alerts", expects="0–86400 s",
        help="After an alert of the ML service, further ones of the same stream and kind are only counted for so "
        "long, unless their severity is higher; the next one says how many (`metadata.suppressed`). 0: all are told.",
    )  # fmt: skip
    alert_picture_bytes: int = _setting(
        "ALERT_PICTURE_BYTES", _whole(0, 16 << 30), 64 << 20, group="Alerts", expects="bytes",
        help="Pictures of alerts' frames that the router keeps for `GET /alerts/{id}/frame.jpg`, no longer than the "
        "alerts themselves. 0: none.",
    )  # fmt: skip
    alert_webhook_url: str | None = _setting(
        "ALERT_WEBHOOK_URL", _webhook_url, None, group="Alerts", expects="URL", secret=True,
        help="Every alert is sent there with `POST`, signed (Standard Webhooks). `https` only, unless "
        "`ALERT_WEBHOOK_ALLOW_PRIVATE`.",
    )  # fmt: skip
    alert_webhook_secrets: tuple[bytes, ...] = _setting(
        "ALERT_WEBHOOK_SECRETS", _webhook_secrets, (), group="Alerts", expects="whsec_…,…", secret=True,
        help="Secrets that it is signed with; while they are rotated there are two, and two signatures.",
    )  # fmt: skip
    alert_webhook_allow_private: bool = _setting(
        "ALERT_WEBHOOK_ALLOW_PRIVATE", _flag, False, group="Alerts", expects="true, false",
        help="Also send to private, link-local and loopback addresses, and over plain `http`.",
    )  # fmt: skip
    alert_webhook_timeout_s: float = _setting(
        "ALERT_WEBHOOK_TIMEOUT_S", _number(0.1, 60), 15.0, group="Alerts", expects="0.1–60 s",
        help="Deadline of one try.",
    )  # fmt: skip
    alert_webhook_give_up_s: float = _setting(
        "ALERT_WEBHOOK_GIVE_UP_S", _number(1, 86_400), 3600.0, group="Alerts", expects="1–86400 s",
        help="How long an alert is tried again, after 1 s, 2 s, 4 s … up to a minute apart, before it is given up.",
    )  # fmt: skip
    ml_streams: tuple[str, ...] = _setting(
        "ML_STREAMS", _patterns, (), group="ML service", expects="patterns",
        help="Streams that the ML service is shown: patterns such as `cam-*` or `[ab]-?`, separated by commas, 64 at "
        "most. Empty: all. In a group, each stream goes to one of the bridges that match it.",
    )  # fmt: skip
    process_name: str = _setting(
        "WATCHOUT_PROCESS_NAME", _process_name, "", group="Logs and process", expects="1–64 characters",
        help="What this process is called in figures (`process=`), `stats` and logs. Not set: its name under honcho "
        "(`gateway.1`), else what it is (`gateway`). Of several that would be called the same in one `WATCHOUT_HOME`, "
        "each further one gets a number (`gateway-2`), the lowest that is free.",
    )  # fmt: skip
    log_level: str = _setting(
        "LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info", group="Logs and process",
        expects="debug, info, warning, error", help="Least level that is logged.",
    )  # fmt: skip
    log_format: str = _setting(
        "LOG_FORMAT", _one_of("auto", "text", "json"), "auto", group="Logs and process", expects="auto, text, json",
        help="`auto`: text on a terminal and under honcho, JSON lines elsewhere.",
    )  # fmt: skip
    loop: str = _setting(
        "WATCHOUT_LOOP", _one_of("uvloop", "asyncio"), "uvloop", group="Logs and process", expects="uvloop, asyncio",
        help="The event loop.",
    )  # fmt: skip
    drain_s: float = _setting(
        "DRAIN_S", _number(0, 3.5), 3.0, group="Logs and process", expects="0–3.5 s",
        help="How long a process that was told to end waits for its clients to close. honcho kills after 5 s.",
    )  # fmt: skip


def table() -> tuple[tuple[str, Spec, Any], ...]:
    """Every setting as (attribute, spec, default), in the order of the docs."""
    return tuple((f.name, f.metadata["spec"], f.default) for f in fields(Settings))


def load(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings. An empty value counts as not set.

    Raises `SettingsError` that names every wrong value.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    under_honcho = "HONCHO_PROCESS_NAME" in environ
    for name, spec, default in table():
        env, raw = spec.env, environ.get(spec.env, "").strip()
        if is_service_link(env, raw):
            raw = ""
        if name == "port" and not raw and not under_honcho:
            env, raw = "PORT", environ.get("PORT", "").strip()
        if name == "home" and not raw:
            raw = str(default)
        if not raw:
            continue
        try:
            values[name] = spec.parse(raw)
        except _Fault as fault:
            came = fault.came or ("a value that is not shown" if spec.secret else repr(raw[:80]))
            faults.append(f"{env} is {came}, expected {fault}")
    if faults:
        raise SettingsError(faults)
    settings = Settings(**values)
    if faults := _together(settings):
        raise SettingsError(faults)
    return settings


def _together(s: Settings) -> list[str]:
    """What is wrong although each value by itself is right."""
    faults: list[str] = []
    keys = {"JWT_SECRET": s.jwt_secret, "JWT_PUBLIC_KEY": s.jwt_public_key, "JWT_JWKS_URL": s.jwt_jwks_url}
    given = [name for name, value in keys.items() if value is not None]
    if "jwt" in s.auth_methods and not given:
        faults.append("AUTH_METHODS has jwt, expected JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL with it")
    if "introspection" in s.auth_methods and s.introspection_url is None:
        faults.append("AUTH_METHODS has introspection, expected INTROSPECTION_URL with it")
    if given and s.auth_methods and "jwt" not in s.auth_methods:
        faults.append(f"{given[0]} is set, but AUTH_METHODS has no jwt: expected both or none")
    if s.introspection_url is not None and s.auth_methods and "introspection" not in s.auth_methods:
        faults.append("INTROSPECTION_URL is set, but AUTH_METHODS has no introspection: expected both or none")
    if s.jwt_require_session and s.jwt_session_claim == "none":
        faults.append("JWT_REQUIRE_SESSION is true and JWT_SESSION_CLAIM is none, expected the name of a claim")
    sessions = "session" in s.auth_methods or not s.auth_methods
    if s.auth_combine == "all" and sessions and s.database_url is None and (given or s.introspection_url):
        faults.append(
            "AUTH_COMBINE is all and AUTH_METHODS has session without a DATABASE_URL: nobody but watchout-ctl could "
            "make such a session; expected DATABASE_URL, or AUTH_METHODS without session"
        )
    if s.stream_access == "organization" and s.database_url is None:
        faults.append("STREAM_ACCESS is organization, expected DATABASE_URL with it: the members are looked up there")
    if s.require_signed_tokens and s.better_auth_secret is None:
        faults.append("REQUIRE_SIGNED_TOKENS is true, expected BETTER_AUTH_SECRET with it")
    if s.jwt_require_session and s.database_url is None:
        faults.append("JWT_REQUIRE_SESSION is true, expected DATABASE_URL with it: the sessions are looked up there")
    faults += _webhook_together(s)
    if s.tls_key is not None and s.tls_cert is None:
        faults.append("TLS_KEY is set, expected TLS_CERT with it")
    faults += _ml_together(s)
    if s.revocation_channel is not None and (s.database_url is None or s.database_url.startswith("sqlite:")):
        faults.append("REVOCATION_CHANNEL is set, expected a DATABASE_URL of PostgreSQL with it")
    return faults


def _webhook_together(s: Settings) -> list[str]:
    if s.alert_webhook_url is None:
        return []
    faults: list[str] = []
    if not s.alert_webhook_secrets:
        faults.append("ALERT_WEBHOOK_URL is set, expected ALERT_WEBHOOK_SECRETS with it: alerts are sent signed only")
    if not s.alert_webhook_allow_private and urlsplit(s.alert_webhook_url).scheme == "http":
        faults.append("ALERT_WEBHOOK_URL is http://…, expected https://…, or ALERT_WEBHOOK_ALLOW_PRIVATE=true with it")
    return faults


def _ml_together(s: Settings) -> list[str]:
    faults: list[str] = []
    if s.router_address is not None and (s.router_public_key is None or s.bridge_key_file is None):
        faults.append(
            "ROUTER_ADDRESS is set, expected ROUTER_PUBLIC_KEY and BRIDGE_KEY_FILE with it: the bus over TCP is never "
            "plain"
        )
    if s.ml_tls_key is not None and s.ml_tls_cert is None:
        faults.append("ML_TLS_KEY is set, expected ML_TLS_CERT with it")
    if s.ml_batch > s.ml_in_flight:
        faults.append(f"ML_BATCH is {s.ml_batch}, expected at most ML_IN_FLIGHT, which is {s.ml_in_flight}")
    if s.ml_fallback_url is not None and s.ml_service_url is None:
        faults.append("ML_FALLBACK_URL is set, expected ML_SERVICE_URL with it")
    return faults


def _fastpath(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def render_markdown() -> str:
    """docs/settings.md, whole."""
    lines = [
        "# Settings",
        "",
        "Environment variables, all optional; `honcho` and `watchout-ctl` also read them from `.env`.",
        "Every wrong value is reported by name, all at once, before a socket opens; the exit code is then 2.",
        "This page is generated from the table in `common/settings/specs.py` (`make docs`).",
        "",
    ]
    for group in GROUPS:
        lines += [f"## {group}", "", "| name | default | expects | what |", "|---|---|---|---|"]
        for _, spec, default in table():
            if spec.group == group:
                shown = "" if default in (None, "", ()) else f"`{_fastpath(default)}`"
                lines.append(f"| `{spec.env}` | {shown} | {spec.expects} | {spec.help} |")
        lines.append("")
    return "\n".join(lines)
