"""What ``watchout-ctl doctor`` says of settings: where they come from, which are weak, which contradict others. Pure.

Settings that are wrong by themselves are refused by `common.settings.load` before anybody gets here.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from watchout.common.settings import Settings
from watchout.common.settings.misspelled import known_names, near_misses, notes
from watchout.ctl.doctor.findings import Finding, is_local, ok, warning
from watchout.ctl.terminal import printable
from watchout.identity.sources.claims import JwtPolicy

#: A shorter secret can be guessed from one token that it signed (RFC 7518 section 3.2).
SECRET_CHARACTERS: Final = 32
#: Who signed out is out after so long at most.
PROMISED_RECHECK_S: Final = 2.0

_weak = functools.partial(warning, "settings")


def of_sources(environ: Mapping[str, str], dotenv: Mapping[str, str], dotenv_mode: int | None) -> Iterator[Finding]:
    """Where the settings come from: names, never values. `dotenv_mode` is that of .env, None where there is none."""
    known = known_names()
    given = sorted(name for name in known & environ.keys() if environ[name].strip())
    filed = sorted(name for name in (known & dotenv.keys()) - environ.keys() if dotenv[name].strip())
    sources = ((given, "from the environment"), (filed, "from .env"))
    parts = [f"{', '.join(names)} {where}" for names, where in sources if names]
    text = f"Set are {'; '.join(parts)}." if parts else "Nothing is set: all settings have their defaults."
    yield ok("settings", text, environment=given, dotenv=filed)
    hidden = sorted(name for name in known & dotenv.keys() & environ.keys() if environ[name] != dotenv[name])
    if hidden:
        yield _weak(
            f"{', '.join(hidden)} in .env: not used, the environment has something else.", "Remove one of the two."
        )
    for name, meant in near_misses(dotenv, given):
        remedy = f"Is {meant} meant?" if meant else "See docs/settings.md."
        yield _weak(f"{printable(name)} in .env is no setting.", remedy)
    for note in notes({**dict.fromkeys(filed, "x"), **environ}):
        yield _weak(f"Environment: {printable(note)}.", "Correct or remove it.")
    if dotenv_mode is not None and dotenv_mode & stat.S_IROTH:
        yield _weak(
            f".env has mode {dotenv_mode & 0o777:04o}: everybody on this machine may read the secrets in it.",
            "chmod 600 .env",
        )


def of_dotenv(text: str, read: Callable[[str], Mapping[str, str]]) -> Iterator[Finding]:
    """Lines of .env that are read as something else than they say; `read` is honcho's parser. Names, never values."""
    if text.startswith("\ufeff"):
        yield _weak(".env begins with a byte order mark: its first line is not read.", "Save it as UTF-8 without one.")
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name, equals, raw = line.partition("=")
        name, raw = name.strip(), raw.strip()
        if not equals or name.removeprefix("export ").strip() not in known_names():
            continue
        if name.startswith("export "):
            yield _weak(f"Line {number} of .env begins with export: it is not read.", "Remove that word.")
            continue
        try:
            found = read(line).get(name)
        except ValueError:
            found = None
        if found is None and raw:
            yield _weak(f"Line {number} of .env, {name}, is not read.", "Close its quotes.")
        elif raw and not {"'", '"'} & set(raw) and found != raw:
            yield _weak(
                f"{name} in .env is read as something else than it says: # , spaces and backslashes have a meaning.",
                "Put the value in single quotes.",
            )


def of_settings(s: Settings, ways: Sequence[str]) -> Iterator[Finding]:
    """What is weak or contradictory in settings that are right each by itself. `ways` are those of verifying."""
    yield from _of_secrets(s, ways)
    if "jwt" in ways:
        yield from _of_jwt(s)
    yield from _of_urls(s)
    if "session" in ways or "introspection" in ways:
        yield from _of_cookies(s)
    yield from _of_rights(s)
    yield from _of_reach(s)


def _of_secrets(s: Settings, ways: Sequence[str]) -> Iterator[Finding]:
    for name, secret, where in (
        ("BETTER_AUTH_SECRET", s.better_auth_secret, "in Better Auth and here"),
        ("JWT_SECRET", s.jwt_secret, "at the issuer and here"),
    ):
        if secret is not None and len(secret) < SECRET_CHARACTERS:
            yield _weak(
                f"{name} has {len(secret)} characters: it can be guessed from one token that it signed.",
                f"Take one of {SECRET_CHARACTERS} or more (openssl rand -base64 32), {where}.",
            )
        if secret is not None and secret[0] == secret[-1] and secret[0] in "'\"":
            yield _weak(
                f"{name} begins and ends with a quote, which counts as a part of it.",
                f"Leave the quotes out (env files of containers keep them), unless the secret has them {where}.",
            )
    if s.database_url is None:
        return
    if s.better_auth_secret is None and "session" in ways:
        yield _weak(
            "BETTER_AUTH_SECRET is not set: the signatures of cookies are not checked, so whoever can read the session "
            "table can sign in as anybody.",
            "Set it to Better Auth's secret.",
        )
    if s.database_url.count("@") > 1:
        yield _weak(
            "DATABASE_URL has more than one @.",
            "In its password, percent-encode what has a meaning in URLs (@ is %40, / is %2F, # is %23).",
        )


def _of_jwt(s: Settings) -> Iterator[Finding]:
    policy = JwtPolicy.of(s)
    for name, value, claim, meant in (
        ("JWT_ISSUER", policy.issuer, "iss", "made by another issuer with the same key"),
        ("JWT_AUDIENCE", policy.audience, "aud", "meant for another service"),
    ):
        if value is None:
            yield _weak(
                f"{name} is not set: a JWT that is {meant} is accepted.", f"Set it to the {claim} of your JWTs."
            )
    if s.database_url is None or policy.session_claim is None:
        yield _weak(
            "JWTs are good until they expire: signing out does not end them.",
            "Put the session's id into them (JWT_SESSION_CLAIM) and set DATABASE_URL, or keep their life short.",
        )


def _of_urls(s: Settings) -> Iterator[Finding]:
    for name, url, harm in (
        ("JWT_JWKS_URL", s.jwt_jwks_url, "keys can be exchanged on the way"),
        ("INTROSPECTION_URL", s.introspection_url, "tokens can be read on the way"),
    ):
        if url is not None and urlsplit(url).scheme == "http" and not is_local(urlsplit(url).hostname):
            yield _weak(f"{name} is http to another machine: {harm}.", "Make it https.")


def _of_cookies(s: Settings) -> Iterator[Finding]:
    if not s.allowed_origins:
        if s.database_url is not None:
            yield _weak(
                "ALLOWED_ORIGINS is empty: only pages of the gateway's own origin may use the session cookie.",
                "Set it to the origin of your web app, such as https://app.example.com, unless both have the same.",
            )
        return
    plain = [origin for origin in s.allowed_origins if origin.startswith("http:")]
    foreign = [origin for origin in plain if not is_local(urlsplit(origin).hostname)]
    if foreign:
        yield _weak(
            f"ALLOWED_ORIGINS has {', '.join(foreign)} without TLS: whoever is on the way to such a page acts with its "
            "user's cookie.",
            "Serve it over https.",
        )
    if not plain and not s.secure_cookie_only:
        yield _weak(
            "SECURE_COOKIE_ONLY is false though all ALLOWED_ORIGINS are https: another sub-domain could plant a cookie "
            "over http.",
            "Set SECURE_COOKIE_ONLY=true, if Better Auth sets its cookie with __Secure-.",
        )
    if plain and s.secure_cookie_only:
        yield _weak(
            f"SECURE_COOKIE_ONLY is true, but no page of {', '.join(plain)} has such a cookie.",
            "Remove it from ALLOWED_ORIGINS, or set SECURE_COOKIE_ONLY=false where you develop.",
        )


def _of_rights(s: Settings) -> Iterator[Finding]:
    if s.stream_access == "authenticated":
        yield _weak(
            "STREAM_ACCESS is authenticated: everybody who is signed in may view every stream.",
            "Set it to owner or organization, unless that is meant.",
        )
    roles = dict(s.role_rights)
    if roles and "*" not in roles:
        yield _weak(
            f"ROLE_RIGHTS has no *: who has no role, or another than {', '.join(roles)}, may do nothing.",
            "Add *:publish+view or *:none, so that it says what is meant.",
        )


def _of_reach(s: Settings) -> Iterator[Finding]:
    if s.recheck_s > PROMISED_RECHECK_S:
        yield _weak(
            f"RECHECK_S is {s.recheck_s:g}: who signed out or was banned stays for up to {s.recheck_s:g} s, and not "
            f"the promised {PROMISED_RECHECK_S:g} s.",
            "Set it to 1.",
        )
    everybody = [str(network) for network in s.trusted_proxies if network.prefixlen == 0]
    if everybody:
        yield _weak(
            f"TRUSTED_PROXIES has {', '.join(everybody)}: everybody may claim any address, so that the limits per "
            "address hold nobody.",
            "Name your proxies' addresses only.",
        )
    if is_local(s.host or None):
        return
    if s.stats_token is None:
        yield _weak(
            "STATS_TOKEN is not set: everybody who reaches the port may read /stats and /metrics, with all streams' "
            "ids.",
            "Set it, and give it to whoever collects them.",
        )
    if s.tls_cert is None and not s.trusted_proxies:
        yield _weak(
            "TLS_CERT is not set, and no proxy that could speak TLS is named: tokens and pictures can be read on the "
            "way.",
            "Set TLS_CERT, or TRUSTED_PROXIES, or WATCHOUT_HOST=127.0.0.1.",
        )
