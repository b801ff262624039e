"""Check of settings that are valid one by one, but weak or contradictory together.

Settings that are invalid are refused by `common.settings.load` before any check runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from watchout.common.settings import Settings
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.findings import Finding, warning
from watchout.ctl.doctor.scrubbing import is_local
from watchout.identity.authenticator import auth_methods
from watchout.identity.sources.jwt_claims import JwtPolicy

#: A shorter secret can be guessed from one token that it signed (RFC 7518 section 3.2).
SECRET_CHARACTERS: Final = 32
#: Seconds after which a user who signed out is disconnected at the latest, as docs/security.md promises.
PROMISED_RECHECK_S: Final = 2.0

_weak = functools.partial(warning, "settings")


async def check_settings(settings: Settings) -> list[Finding]:
    """Return the weaknesses of the settings."""
    return list(judge_settings(settings, auth_methods(settings)))


CHECK: Final = Check("settings", check_settings)


def judge_settings(s: Settings, methods: Sequence[str]) -> Iterator[Finding]:
    """Yield the weaknesses of the settings. `methods` of verifying a caller, as `AUTH_METHODS` names them. Pure."""
    yield from _judge_secrets(s, methods)
    if "jwt" in methods:
        yield from _judge_jwt(s)
    yield from _judge_urls(s)
    if "session" in methods or "introspection" in methods:
        yield from _judge_cookies(s)
    yield from _judge_permissions(s)
    yield from _judge_exposure(s)
    if s.alert_escalate_s > 0 and s.alert_webhook_url is None:
        yield _weak(
            "ALERT_ESCALATE_S is set, and ALERT_WEBHOOK_URL is not: it does nothing, an alert that nobody acknowledges "
            "is sent to nobody.",
            "Set ALERT_WEBHOOK_URL, or remove ALERT_ESCALATE_S.",
        )
    if s.alert_escalate_s > s.recent_alerts_minutes * 60:
        yield _weak(
            f"ALERT_ESCALATE_S is longer than the {s.recent_alerts_minutes:g} minutes for which alerts are kept: after "
            "them an alert can no longer be acknowledged, and is escalated.",
            "Raise RECENT_ALERTS_MINUTES, or lower ALERT_ESCALATE_S.",
        )


def _judge_secrets(s: Settings, methods: Sequence[str]) -> Iterator[Finding]:
    """Yield secrets that are short, quoted or missing."""
    for name, secret, where in (
        ("BETTER_AUTH_SECRET", s.better_auth_secret, "in Better Auth and here"),
        ("JWT_SECRET", s.jwt_secret, "at the issuer and here"),
    ):
        if secret is not None and len(secret) < SECRET_CHARACTERS:
            yield _weak(
                f"{name} has {len(secret)} characters: it can be guessed from one token that it signed.",
                f"Use one of {SECRET_CHARACTERS} or more (openssl rand -base64 32), {where}.",
            )
        if secret is not None and secret[0] == secret[-1] and secret[0] in "'\"":
            yield _weak(
                f"{name} begins and ends with a quote, which is part of the secret.",
                f"Leave the quotes out (env files of containers keep them), unless the secret has them {where}.",
            )
    if s.database_url is None:
        return
    if s.better_auth_secret is None and "session" in methods:
        yield _weak(
            "BETTER_AUTH_SECRET is not set: the signatures of cookies are not verified, so anyone who can read the "
            "session table can sign in as any user.",
            "Set it to Better Auth's secret.",
        )
    if s.database_url.count("@") > 1:
        yield _weak(
            "DATABASE_URL has more than one @.",
            "In its password, percent-encode what has a meaning in URLs (@ is %40, / is %2F, # is %23).",
        )


def _judge_jwt(s: Settings) -> Iterator[Finding]:
    """Yield claims of JWTs that are not checked."""
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


def _judge_urls(s: Settings) -> Iterator[Finding]:
    """Yield URLs without TLS to other machines."""
    for name, url, harm in (
        ("JWT_JWKS_URL", s.jwt_jwks_url, "the keys can be replaced on the way"),
        ("INTROSPECTION_URL", s.introspection_url, "tokens can be read on the way"),
    ):
        if url is not None and urlsplit(url).scheme == "http" and not is_local(urlsplit(url).hostname):
            yield _weak(f"{name} is http to another machine: {harm}.", "Use https.")


def _judge_cookies(s: Settings) -> Iterator[Finding]:
    """Yield weaknesses of the origins that may use the session cookie."""
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
            f"ALLOWED_ORIGINS has {', '.join(foreign)} without TLS: an attacker on the network can act with the user's "
            "cookie.",
            "Serve it over https.",
        )
    if not plain and not s.secure_cookie_only:
        yield _weak(
            "SECURE_COOKIE_ONLY is false although all ALLOWED_ORIGINS are https: another sub-domain could set a cookie "
            "over http.",
            "Set SECURE_COOKIE_ONLY=true, if Better Auth sets its cookie with __Secure-.",
        )
    if plain and s.secure_cookie_only:
        yield _weak(
            f"SECURE_COOKIE_ONLY is true, but no page of {', '.join(plain)} can have such a cookie.",
            "Remove it from ALLOWED_ORIGINS, or set SECURE_COOKIE_ONLY=false for development.",
        )


def _judge_permissions(s: Settings) -> Iterator[Finding]:
    """Yield permissions that are wider, or narrower, than they may be meant."""
    if s.stream_access == "authenticated":
        yield _weak(
            "STREAM_ACCESS is authenticated: every signed-in user may view every stream.",
            "Set it to owner or organization, unless this is intended.",
        )
    roles = dict(s.role_rights)
    if roles and "*" not in roles:
        yield _weak(
            f"ROLE_RIGHTS has no *: a user without a role, or with another than {', '.join(roles)}, may do nothing.",
            "Add *:publish+view or *:none, to make it explicit.",
        )


def _judge_exposure(s: Settings) -> Iterator[Finding]:
    """Yield what is exposed to the network: late revocation, any proxy, open statistics, plain text."""
    if s.recheck_s > PROMISED_RECHECK_S:
        yield _weak(
            f"RECHECK_S is {s.recheck_s:g}: a user who signed out or was banned stays connected for up to "
            f"{s.recheck_s:g} s instead of the promised {PROMISED_RECHECK_S:g} s.",
            "Set it to 1.",
        )
    everybody = [str(network) for network in s.trusted_proxies if network.prefixlen == 0]
    if everybody:
        yield _weak(
            f"TRUSTED_PROXIES has {', '.join(everybody)}: every client may claim any address, so the limits per "
            "address have no effect.",
            "List the addresses of your proxies only.",
        )
    if is_local(s.host or None):
        return
    if s.stats_token is None:
        yield _weak(
            "STATS_TOKEN is not set: anyone who can connect may read /stats and /metrics, with the ids of all streams.",
            "Set it, and give it to the monitoring that collects them.",
        )
    if s.tls_cert is None and not s.trusted_proxies:
        yield _weak(
            "TLS_CERT is not set, and no proxy that could terminate TLS is named: tokens and frames can be read on "
            "the way.",
            "Set TLS_CERT, or TRUSTED_PROXIES, or WATCHOUT_HOST=127.0.0.1.",
        )
