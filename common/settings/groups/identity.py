"""How a caller is verified, and what a caller may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Identity and authorization")


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """Identity and authorization: one field a setting. `Settings` inherits them."""

    database_url: str | None = _GROUP.setting(
        "DATABASE_URL", url_parsers.database_url, None, expects="URL", secret=True,
        help="Better Auth's database: `postgres://user:password@host/name`, as providers, Prisma and libpq write it "
        "(docs/better-auth.md has the options), or `sqlite:/path/file.db`. Without it "
        "an embedded SQLite file `sessions.db` in `WATCHOUT_HOME`, with Better Auth's schema.",
    )  # fmt: skip
    store_timeout_s: float = _GROUP.setting(
        "STORE_TIMEOUT_S", parsers.number(0.1, 60), 3.0, expects="0.1–60 s",
        help="How long one look-up in the session store may take, waiting for a connection included; then "
        "`AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    store_connections: int = _GROUP.setting(
        "STORE_CONNECTIONS", parsers.whole(1, 100), 5, expects="1–100",
        help="Most connections that one gateway opens to PostgreSQL.",
    )  # fmt: skip
    store_waiting: int = _GROUP.setting(
        "STORE_WAITING", parsers.whole(1, 1_000_000), 20_000, expects="tokens",
        help="Most tokens that wait for a query to the session store at one gateway; past it `AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    session_table: str = _GROUP.setting(
        "SESSION_TABLE", parsers.table_name, "session", expects="table",
        help="Better Auth's session table, where `session.modelName` renames it; `schema.table` is possible.",
    )  # fmt: skip
    user_table: str = _GROUP.setting(
        "USER_TABLE", parsers.table_name, "user", expects="table", help="Its user table."
    )  # fmt: skip
    member_table: str = _GROUP.setting(
        "MEMBER_TABLE", parsers.table_name, "member", expects="table",
        help="The organization plugin's table of members.",
    )  # fmt: skip
    verification_table: str = _GROUP.setting(
        "VERIFICATION_TABLE", parsers.table_name, "verification", expects="table",
        help="The table in which the one-time-token plugin keeps its tickets.",
    )  # fmt: skip
    naive_timezone: str | None = _GROUP.setting(
        "NAIVE_TIMEZONE", parsers.timezone, None, expects="time zone",
        help="The time zone of the Better Auth process, for a database made by Better Auth 1.3.0 to 1.3.10, whose "
        "dates have none. Such a database is refused without it: expired sessions could pass.",
    )  # fmt: skip
    auth_methods: tuple[str, ...] = _GROUP.setting(
        "AUTH_METHODS", parsers.auth_methods, (), expects="list of session, jwt, introspection",
        help="Ways of verifying a token, in the order in which they are asked. Empty: `session`, and then `jwt` and "
        "`introspection` as far as they are configured.",
    )  # fmt: skip
    auth_combine: str = _GROUP.setting(
        "AUTH_COMBINE", parsers.one_of("any", "all"), "any", expects="any, all",
        help="`any`: the first way that knows the token decides. `all`: every way must accept it, as the same user.",
    )  # fmt: skip
    auth_cache_s: float = _GROUP.setting(
        "AUTH_CACHE_S", parsers.number(0, 60), 1.0, expects="0–60 s",
        help="How long a request over HTTP with a token that was accepted is accepted again without asking. A socket's "
        "token is asked for afresh, unless the store is busy; refused ones are always asked for.",
    )  # fmt: skip
    auth_cache_tokens: int = _GROUP.setting(
        "AUTH_CACHE_TOKENS", parsers.whole(1, 1_000_000), 10_000, expects="tokens",
        help="Most tokens that are remembered so.",
    )  # fmt: skip
    recheck_s: float = _GROUP.setting(
        "RECHECK_S", parsers.number(0.2, 3600), 1.0, expects="0.2–3600 s",
        help="How often the sessions of open sockets are looked up again: one query per 1000 sessions. A session "
        "that ended closes its sockets with 4500 after at most this long and one query.",
    )  # fmt: skip
    revocation_channel: str | None = _GROUP.setting(
        "REVOCATION_CHANNEL", parsers.channel, None, expects="channel",
        help="Listen on this channel of PostgreSQL for sessions that change, and look those up at once. Needs the "
        "trigger of docs/better-auth.md, and a connection that is not PgBouncer's transaction mode.",
    )  # fmt: skip
    better_auth_secret: str | None = _GROUP.setting(
        "BETTER_AUTH_SECRET", key_parsers.shared_secret, None, expects="≥ 8 characters", secret=True,
        help="Better Auth's secret. When set, the signature of cookies and signed tokens must be right; when not, "
        "the token in front of it decides alone.",
    )  # fmt: skip
    require_signed_tokens: bool = _GROUP.setting(
        "REQUIRE_SIGNED_TOKENS", parsers.flag, False, expects="true, false",
        help="Refuse session tokens without a signature, as the bearer plugin's `requireSignature` does. Needs "
        "`BETTER_AUTH_SECRET`.",
    )  # fmt: skip
    session_cookie: str = _GROUP.setting(
        "SESSION_COOKIE", parsers.token_name, "better-auth.session_token", expects="name",
        help="Name of Better Auth's session cookie, without `__Secure-`: `<cookiePrefix>.session_token`, or what "
        "`cookies.session_token.name` says.",
    )  # fmt: skip
    secure_cookie_only: bool = _GROUP.setting(
        "SECURE_COOKIE_ONLY", parsers.flag, False, expects="true, false",
        help="Take only the cookie with `__Secure-` in front, as an https site sets it: another sub-domain cannot "
        "plant that one over http.",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = _GROUP.setting(
        "ALLOWED_ORIGINS", url_parsers.origins, (), expects="origins",
        help="Origins of web apps that may use the session cookie, and read answers over HTTP (CORS), as browsers and "
        "hybrid apps send them (`https://app.example.com`, `capacitor://localhost`). The gateway's own origin always "
        "may.",
    )  # fmt: skip
    jwt_secret: str | None = _GROUP.setting(
        "JWT_SECRET", key_parsers.shared_secret, None, expects="≥ 8 characters", secret=True,
        help="Secret of JWTs signed with HS256, HS384 or HS512. `JWT_PUBLIC_KEY` and `JWT_JWKS_URL` may be set beside "
        "it: each is for tokens of its own algorithms only.",
    )  # fmt: skip
    jwt_public_key: str | None = _GROUP.setting(
        "JWT_PUBLIC_KEY", key_parsers.public_key, None, expects="PEM or path",
        help="Public key of JWTs, RSA, EC or Ed25519; in PEM, with `\\n` for new lines, or as the path of a file.",
    )  # fmt: skip
    jwt_jwks_url: str | None = _GROUP.setting(
        "JWT_JWKS_URL", url_parsers.http_url, None, expects="URL", secret=True,
        help="Where the issuer publishes its keys; Better Auth's jwt plugin does so at `/api/auth/jwks`. Set "
        "`JWT_ISSUER` with it: the same keys may sign what is meant for others.",
    )  # fmt: skip
    jwt_issuer: str | None = _GROUP.setting(
        "JWT_ISSUER", parsers.text, None, expects="text", help="`iss` that a JWT must have."
    )  # fmt: skip
    jwt_audience: str | None = _GROUP.setting(
        "JWT_AUDIENCE", parsers.text, None, expects="text",
        help="`aud` that a JWT must have. With `JWT_JWKS_URL` it defaults to `JWT_ISSUER`, as Better Auth has it.",
    )  # fmt: skip
    jwt_session_claim: str = _GROUP.setting(
        "JWT_SESSION_CLAIM", parsers.token_name, "sid", expects="name, none",
        help="Claim with the id of the session. Where a JWT has it and `DATABASE_URL` is set, that session must be "
        "live, so that sign-out ends the JWT too. `none`: not looked at.",
    )  # fmt: skip
    jwt_require_session: bool = _GROUP.setting(
        "JWT_REQUIRE_SESSION", parsers.flag, False, expects="true, false",
        help="Refuse JWTs without that claim: they would be good until they expire, whatever happens to the session.",
    )  # fmt: skip
    jwt_max_age_s: float = _GROUP.setting(
        "JWT_MAX_AGE_S", parsers.number(0, 31_536_000), 3600.0, expects="0–31536000 s",
        help="How long after its `iat` a JWT without `exp` is good. One with neither is refused; 0: so is one without "
        "`exp`.",
    )  # fmt: skip
    jwt_leeway_s: float = _GROUP.setting(
        "JWT_LEEWAY_S", parsers.number(0, 300), 0.0, expects="0–300 s",
        help="How far the issuer's clock may be off, for `exp` and `nbf`.",
    )  # fmt: skip
    introspection_url: str | None = _GROUP.setting(
        "INTROSPECTION_URL", url_parsers.http_url, None, expects="URL", secret=True,
        help="Endpoint that says who a token is: RFC 7662 (`active`, `sub`, `exp`), plain claims, Better Auth's "
        "`get-session`, or such an answer under `claims` or `data`.",
    )  # fmt: skip
    introspection_method: str = _GROUP.setting(
        "INTROSPECTION_METHOD", parsers.one_of("post", "get"), "post", expects="POST, GET",
        help="How it is asked: the token in the body, or in the query.",
    )  # fmt: skip
    introspection_body: str = _GROUP.setting(
        "INTROSPECTION_BODY", parsers.one_of("form", "json"), "form", expects="form, json",
        help="Body of a `POST`: a form (RFC 7662), or a JSON object.",
    )  # fmt: skip
    introspection_token_param: str = _GROUP.setting(
        "INTROSPECTION_TOKEN_PARAM", parsers.token_name, "token", expects="name",
        help="Name of the field that carries the token.",
    )  # fmt: skip
    introspection_token_in: str = _GROUP.setting(
        "INTROSPECTION_TOKEN_IN", parsers.one_of("param", "bearer"), "param",
        expects="param, bearer",
        help="`bearer`: the token goes as `Authorization: Bearer …` instead, as Better Auth's `get-session` wants it.",
    )  # fmt: skip
    introspection_auth_header_name: str = _GROUP.setting(
        "INTROSPECTION_AUTH_HEADER_NAME", parsers.token_name, "Authorization", expects="name",
        help="Header by which this server proves itself to the endpoint.",
    )  # fmt: skip
    introspection_auth_header_value: str | None = _GROUP.setting(
        "INTROSPECTION_AUTH_HEADER_VALUE", parsers.header_value, None, expects="text",
        secret=True, help="Its value; not set: no such header.",
    )  # fmt: skip
    introspection_recheck_s: float = _GROUP.setting(
        "INTROSPECTION_RECHECK_S", parsers.number(1, 86_400), 30.0, expects="1–86400 s",
        help="How often the tokens of open sockets are introspected again: one request each.",
    )  # fmt: skip
    stream_access: str = _GROUP.setting(
        "STREAM_ACCESS", parsers.one_of("owner", "organization", "authenticated"), "owner",
        expects="owner, organization, authenticated",
        help="Who may view a stream: only the user whose camera it is, also the members of his organizations (Better "
        "Auth's organization plugin), or everybody who is signed in.",
    )  # fmt: skip
    role_rights: tuple[tuple[str, frozenset[str]], ...] = _GROUP.setting(
        "ROLE_RIGHTS", parsers.role_permissions, (), expects="role:right+right,…",
        help="What roles may do: `publish`, `view`, `alerts` (alerts without pictures) or `none`, and `*` for any "
        "other role, for example `camera:publish,guard:alerts,*:publish+view`. On a stream shared by an "
        "organization the member's roles in it count, elsewhere the user's own. Empty: everybody may publish and view.",
    )  # fmt: skip
    stats_token: str | None = _GROUP.setting(
        "STATS_TOKEN", key_parsers.bearer_secret, None, expects="≥ 16 characters", secret=True,
        help="When set, `/stats` and `/metrics` want it as `Authorization: Bearer …`; `/health` then says only "
        "whether it is healthy.",
    )  # fmt: skip
    service_token: str | None = _GROUP.setting(
        "SERVICE_TOKEN", key_parsers.bearer_secret, None, expects="≥ 16 characters", secret=True,
        help="What an ML service sends as `Authorization: Bearer …` with `POST /alerts`. Without this and "
        "`SERVICE_WEBHOOK_SECRETS` that path refuses everybody.",
    )  # fmt: skip
    service_webhook_secrets: tuple[bytes, ...] = _GROUP.setting(
        "SERVICE_WEBHOOK_SECRETS", key_parsers.webhook_secrets, (), expects="whsec_…,…", secret=True,
        help="Secrets with which `POST /alerts` may be signed instead (Standard Webhooks); several while they are "
        "rotated.",
    )  # fmt: skip
