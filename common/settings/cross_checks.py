"""Checks of settings against each other: combinations that are invalid although each value is valid. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from watchout.common.settings.table import Settings


def faults_between(s: Settings) -> list[str]:
    """Return the faults of settings that exclude each other or lack another one; a sentence for each."""
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
            "AUTH_COMBINE is all and AUTH_METHODS has session without a DATABASE_URL: only watchout-ctl could create "
            "such a session; expected DATABASE_URL, or AUTH_METHODS without session"
        )
    if s.stream_access == "organization" and s.database_url is None:
        faults.append("STREAM_ACCESS is organization, expected DATABASE_URL with it: it has the members")
    if s.require_signed_tokens and s.better_auth_secret is None:
        faults.append("REQUIRE_SIGNED_TOKENS is true, expected BETTER_AUTH_SECRET with it")
    if s.jwt_require_session and s.database_url is None:
        faults.append("JWT_REQUIRE_SESSION is true, expected DATABASE_URL with it: it has the sessions")
    faults += _webhook_faults(s)
    if s.tls_key is not None and s.tls_cert is None:
        faults.append("TLS_KEY is set, expected TLS_CERT with it")
    faults += _ml_faults(s)
    faults += _cluster_faults(s)
    if s.revocation_channel is not None and (s.database_url is None or s.database_url.startswith("sqlite:")):
        faults.append("REVOCATION_CHANNEL is set, expected a DATABASE_URL of PostgreSQL with it")
    return faults


def _webhook_faults(s: Settings) -> list[str]:
    """Return the faults of the alert webhook."""
    if s.alert_webhook_url is None:
        return []
    faults: list[str] = []
    if not s.alert_webhook_secrets:
        faults.append("ALERT_WEBHOOK_URL is set, expected ALERT_WEBHOOK_SECRETS with it: alerts are only sent signed")
    if not s.alert_webhook_allow_private and urlsplit(s.alert_webhook_url).scheme == "http":
        faults.append("ALERT_WEBHOOK_URL is http://…, expected https://…, or ALERT_WEBHOOK_ALLOW_PRIVATE=true with it")
    return faults


def _ml_faults(s: Settings) -> list[str]:
    """Return the faults of the ML service, its TLS files, and the bus over TCP."""
    faults: list[str] = []
    if s.router_address is not None and (s.router_public_key is None or s.bridge_key_file is None):
        faults.append(
            "ROUTER_ADDRESS is set, expected ROUTER_PUBLIC_KEY and BRIDGE_KEY_FILE with it: the bus over TCP is "
            "always encrypted"
        )
    if s.ml_tls_key is not None and s.ml_tls_cert is None:
        faults.append("ML_TLS_KEY is set, expected ML_TLS_CERT with it")
    if s.ml_batch > s.ml_in_flight:
        faults.append(f"ML_BATCH is {s.ml_batch}, expected at most ML_IN_FLIGHT, which is {s.ml_in_flight}")
    if s.ml_fallback_url is not None and s.ml_service_url is None:
        faults.append("ML_FALLBACK_URL is set, expected ML_SERVICE_URL with it")
    return faults


def _cluster_faults(s: Settings) -> list[str]:
    """Return the faults of the bus over NATS, and of the frame mesh between hosts."""
    faults = _mesh_faults(s)
    files = {"BUS_CREDENTIALS": s.bus_credentials, "BUS_CA": s.bus_ca, "BUS_CERT": s.bus_cert, "BUS_KEY": s.bus_key}
    given = [name for name, path in files.items() if path is not None]
    if not s.bus:
        return [*faults, *([f"{given[0]} is set, expected WATCHOUT_BUS with it"] if given else [])]
    if s.bus_key is not None and s.bus_cert is None:
        faults.append("BUS_KEY is set, expected BUS_CERT with it")
    if s.bus_credentials is not None and any(server.has_credentials for server in s.bus):
        faults.append("BUS_CREDENTIALS is set and WATCHOUT_BUS has a user or a token, expected one of them")
    if (s.bus_ca is not None or s.bus_cert is not None) and any(server.scheme == "ws" for server in s.bus):
        faults.append("BUS_CA or BUS_CERT is set and WATCHOUT_BUS has a ws:// URL, expected wss:// or nats://")
    for name, value in (("ROUTER_LISTEN", s.router_listen), ("ROUTER_ADDRESS", s.router_address)):
        if value is not None:
            faults.append(f"{name} and WATCHOUT_BUS are set, expected one of them: both join other machines")
    return faults


def _mesh_faults(s: Settings) -> list[str]:
    """Return the faults of the frame mesh between hosts."""
    faults: list[str] = []
    if s.mesh_listen is not None and not s.bus:
        faults.append("MESH_LISTEN is set, expected WATCHOUT_BUS with it: it is for the hosts of a cluster")
    for name, path in (("MESH_CERT", s.mesh_cert), ("MESH_KEY", s.mesh_key), ("MESH_CA", s.mesh_ca)):
        if path is not None and s.mesh_listen is None:
            faults.append(f"{name} is set, expected MESH_LISTEN with it")
    if s.mesh_listen is not None and s.mesh_key is not None and s.mesh_cert is None:
        faults.append("MESH_KEY is set, expected MESH_CERT with it")
    return faults
