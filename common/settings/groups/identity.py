"""Settings of identity and authorization: how a caller is verified, and what a user may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import key_parsers, parsers, url_parsers
from watchout.common.settings.spec import Reload, SettingsGroup

_GROUP: Final = SettingsGroup("Identity and authorization")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class IdentitySettings:
    """The settings of the section "Identity and authorization": who a caller is and may do. See `Settings`."""

    database_url: str | None = _GROUP.setting(
        "DATABASE_URL", url_parsers.database_url, None, expects="URL", secret=True,
        help="Better Auth's database: `postgres://user:password@host/name` in the spelling of any provider, Prisma or "
        "libpq (options: docs/better-auth.md), or `sqlite:/path/file.db`. Not set: an embedded SQLite file "
        "`sessions.db` in `WATCHOUT_HOME`, with Better Auth's schema.",
    )  # fmt: skip
    store_timeout_s: float = _GROUP.setting(
        "STORE_TIMEOUT_S", parsers.number(0.1, 60), 3.0, expects="0.1–60 s",
        help="Deadline of one look-up in the session store, in seconds, including the wait for a connection. After it "
        "the client gets `AUTH_UNAVAILABLE` and may retry.",
    )  # fmt: skip
    store_connections: int = _GROUP.setting(
        "STORE_CONNECTIONS", parsers.whole(1, 100), 5, expects="1–100",
        help="Most connections of one gateway process to PostgreSQL. Few are enough, as one query verifies many "
        "tokens; multiply by the gateways to compare with `max_connections` of PostgreSQL.",
    )  # fmt: skip
    store_waiting: int = _GROUP.setting(
        "STORE_WAITING", parsers.whole(1, 1_000_000), 20_000, expects="tokens",
        help="Most tokens that wait for a look-up in the session store at one gateway process; the same limit holds "
        "for session ids, for organizations and for one-time tickets, each by itself. Further ones get "
        "`AUTH_UNAVAILABLE`.",
    )  # fmt: skip
    session_table: str = _GROUP.setting(
        "SESSION_TABLE", parsers.table_name, "session", expects="table",
        help="Better Auth's session table, if `session.modelName` renames it; `schema.table` is allowed.",
    )  # fmt: skip
    user_table: str = _GROUP.setting(
        "USER_TABLE", parsers.table_name, "user", expects="table",
        help="Better Auth's user table, if `user.modelName` renames it."
    )  # fmt: skip
    member_table: str = _GROUP.setting(
        "MEMBER_TABLE", parsers.table_name, "member", expects="table",
        help="Table of members of Better Auth's organization plugin, if it is renamed.",
    )  # fmt: skip
    verification_table: str = _GROUP.setting(
        "VERIFICATION_TABLE", parsers.table_name, "verification", expects="table",
        help="Table in which Better Auth's one-time-token plugin stores its tokens, which clients send as tickets.",
    )  # fmt: skip
    naive_timezone: str | None = _GROUP.setting(
        "NAIVE_TIMEZONE", parsers.timezone, None, expects="time zone",
        help="Time zone of the Better Auth process, for a database made by Better Auth 1.3.0 to 1.3.10, whose "
        "timestamps have no time zone. Such a database is refused without this setting, because expired sessions "
        "could be accepted.",
    )  # fmt: skip
    auth_methods: tuple[str, ...] = _GROUP.setting(
        "AUTH_METHODS", parsers.auth_methods, (), expects="list of session, jwt, introspection",
        help="Methods of verifying a token, in the order in which they are tried. Empty: `session`, then `jwt` and "
        "`introspection` if they are configured.",
    )  # fmt: skip
    auth_combine: str = _GROUP.setting(
        "AUTH_COMBINE", parsers.one_of("any", "all"), "any", expects="any, all",
        help="`any`: the first method that knows the token decides. `all`: every method must accept the token, for the "
        "same user.",
    )  # fmt: skip
    auth_cache_s: float = _GROUP.setting(
        "AUTH_CACHE_S", parsers.number(0, 60), 1.0, expects="0–60 s",
        help="Seconds for which an accepted token of an HTTP request is accepted again without a look-up. The token of "
        "a WebSocket is looked up each time, unless the store is busy; refused tokens are never cached. 0: no "
        "cache.",
    )  # fmt: skip
    auth_cache_tokens: int = _GROUP.setting(
        "AUTH_CACHE_TOKENS", parsers.whole(1, 1_000_000), 10_000, expects="tokens",
        help="Most accepted tokens of HTTP requests that are kept for `AUTH_CACHE_S`; beyond it the oldest is "
        "forgotten.",
    )  # fmt: skip
    recheck_s: float = _GROUP.setting(
        "RECHECK_S", parsers.number(0.2, 3600), 1.0, expects="0.2–3600 s",
        help="Seconds between two look-ups of the sessions of all open sockets, one query per 1000 sessions. A socket "
        "of an ended session is closed with 4500 after at most this time and one query. Raise it only if the "
        "database cannot bear the load.",
    )  # fmt: skip
    revocation_channel: str | None = _GROUP.setting(
        "REVOCATION_CHANNEL", parsers.channel, None, expects="channel",
        help="PostgreSQL channel on which a trigger notifies changed sessions; those are looked up at once. Requires "
        "the trigger in docs/better-auth.md, and a connection that does not go through a pooler in transaction "
        "mode.",
    )  # fmt: skip
    better_auth_secret: str | None = _GROUP.setting(
        "BETTER_AUTH_SECRET", key_parsers.shared_secret, None, expects="≥ 8 characters", secret=True,
        help="Better Auth's secret, with which the signatures of cookies and signed tokens are verified. Not set: "
        "signatures are not verified, and the token before the signature decides alone.",
    )  # fmt: skip
    require_signed_tokens: bool = _GROUP.setting(
        "REQUIRE_SIGNED_TOKENS", parsers.flag, False, expects="true, false",
        help="Refuse session tokens without a signature, like `requireSignature` of Better Auth's bearer plugin. "
        "Requires `BETTER_AUTH_SECRET`.",
    )  # fmt: skip
    session_cookie: str = _GROUP.setting(
        "SESSION_COOKIE", parsers.token_name, "better-auth.session_token", expects="name",
        help="Name of Better Auth's session cookie without `__Secure-`: `<cookiePrefix>.session_token`, or the value "
        "of `cookies.session_token.name`.",
    )  # fmt: skip
    secure_cookie_only: bool = _GROUP.setting(
        "SECURE_COOKIE_ONLY", parsers.flag, False, expects="true, false",
        help="Accept only the session cookie with the prefix `__Secure-`, which an https site sets: another sub-domain "
        "cannot set that one over http. Set it unless your site uses http.",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = _GROUP.setting(
        "ALLOWED_ORIGINS", url_parsers.origins, (), expects="origins",
        reload=Reload.YES,
        help="Origins of web apps that may use the session cookie and read HTTP responses (CORS), as browsers and "
        "hybrid apps send them (`https://app.example.com`, `capacitor://localhost`). The gateway's own origin is "
        "always allowed.",
    )  # fmt: skip
    jwt_secret: str | None = _GROUP.setting(
        "JWT_SECRET", key_parsers.shared_secret, None, expects="≥ 8 characters", secret=True,
        help="Secret of JWTs signed with HS256, HS384 or HS512; use 32 characters or more. `JWT_PUBLIC_KEY` and "
        "`JWT_JWKS_URL` may be set as well: each key verifies only its own algorithms.",
    )  # fmt: skip
    jwt_public_key: str | None = _GROUP.setting(
        "JWT_PUBLIC_KEY", key_parsers.public_key, None, expects="PEM or path",
        help="Public key of JWTs, RSA, EC or Ed25519: in PEM with `\\n` for line ends, or the path of a file.",
    )  # fmt: skip
    jwt_jwks_url: str | None = _GROUP.setting(
        "JWT_JWKS_URL", url_parsers.http_url, None, expects="URL", secret=True,
        help="URL where the issuer publishes its keys; for Better Auth's jwt plugin `/api/auth/jwks`. Set `JWT_ISSUER` "
        "as well, because the same keys may sign tokens that are meant for other services.",
    )  # fmt: skip
    jwt_issuer: str | None = _GROUP.setting(
        "JWT_ISSUER", parsers.text, None, expects="text",
        help="Required `iss` claim of JWTs. Not set: not checked."
    )  # fmt: skip
    jwt_audience: str | None = _GROUP.setting(
        "JWT_AUDIENCE", parsers.text, None, expects="text",
        help="Required `aud` claim of JWTs. Not set: `JWT_ISSUER` if `JWT_JWKS_URL` is set, as in Better Auth, "
        "otherwise not checked.",
    )  # fmt: skip
    jwt_session_claim: str = _GROUP.setting(
        "JWT_SESSION_CLAIM", parsers.token_name, "sid", expects="name, none",
        help="Claim that holds the id of the session. If a JWT has it and `DATABASE_URL` is set, that session must be "
        "active, so that signing out also ends the JWT. `none`: not checked.",
    )  # fmt: skip
    jwt_require_session: bool = _GROUP.setting(
        "JWT_REQUIRE_SESSION", parsers.flag, False, expects="true, false",
        help="Refuse JWTs without the claim `JWT_SESSION_CLAIM`: they stay valid until they expire, even if the user "
        "signs out.",
    )  # fmt: skip
    jwt_max_age_s: float = _GROUP.setting(
        "JWT_MAX_AGE_S", parsers.number(0, 31_536_000), 3600.0, expects="0–31536000 s",
        help="Seconds after `iat` for which a JWT without `exp` is valid. A JWT with neither claim is refused. 0: "
        "every JWT without `exp` is refused.",
    )  # fmt: skip
    jwt_leeway_s: float = _GROUP.setting(
        "JWT_LEEWAY_S", parsers.number(0, 300), 0.0, expects="0–300 s",
        help="Tolerance in seconds for `exp` and `nbf`, if the issuer's clock is not synchronized with this machine's.",
    )  # fmt: skip
    introspection_url: str | None = _GROUP.setting(
        "INTROSPECTION_URL", url_parsers.http_url, None, expects="URL", secret=True,
        help="Endpoint that returns the user of a token: RFC 7662 (`active`, `sub`, `exp`), plain claims, Better "
        "Auth's `get-session`, or any of these under `claims` or `data`.",
    )  # fmt: skip
    introspection_method: str = _GROUP.setting(
        "INTROSPECTION_METHOD", parsers.one_of("post", "get"), "post", expects="POST, GET",
        help="HTTP method of the request to `INTROSPECTION_URL`. `POST`: the token is in the body. `GET`: it is in "
        "the query.",
    )  # fmt: skip
    introspection_body: str = _GROUP.setting(
        "INTROSPECTION_BODY", parsers.one_of("form", "json"), "form", expects="form, json",
        help="Body of a `POST`: `form` as in RFC 7662, or a `json` object.",
    )  # fmt: skip
    introspection_token_param: str = _GROUP.setting(
        "INTROSPECTION_TOKEN_PARAM", parsers.token_name, "token", expects="name",
        help="Name of the field that carries the token.",
    )  # fmt: skip
    introspection_token_in: str = _GROUP.setting(
        "INTROSPECTION_TOKEN_IN", parsers.one_of("param", "bearer"), "param",
        expects="param, bearer",
        help="`param`: the token is in the field `INTROSPECTION_TOKEN_PARAM`. `bearer`: it is in the header "
        "`Authorization: Bearer …`, as Better Auth's `get-session` expects.",
    )  # fmt: skip
    introspection_auth_header_name: str = _GROUP.setting(
        "INTROSPECTION_AUTH_HEADER_NAME", parsers.token_name, "Authorization", expects="name",
        help="Header with which the gateway authenticates itself to the endpoint.",
    )  # fmt: skip
    introspection_auth_header_value: str | None = _GROUP.setting(
        "INTROSPECTION_AUTH_HEADER_VALUE", parsers.header_value, None, expects="text",
        secret=True,
        help="Value of the header `INTROSPECTION_AUTH_HEADER_NAME`. Not set: the header is not sent.",
    )  # fmt: skip
    introspection_recheck_s: float = _GROUP.setting(
        "INTROSPECTION_RECHECK_S", parsers.number(1, 86_400), 30.0, expects="1–86400 s",
        help="Seconds between two introspections of the token of an open socket, one request each. A revoked token is "
        "noticed after at most this time.",
    )  # fmt: skip
    stream_access: str = _GROUP.setting(
        "STREAM_ACCESS", parsers.one_of("owner", "organization", "authenticated"), "owner",
        expects="owner, organization, authenticated",
        help="Who may view a stream: `owner`: the user who publishes it; `organization`: also the members of that "
        "user's organizations (Better Auth's organization plugin; requires `DATABASE_URL`); `authenticated`: "
        "every signed-in user.",
    )  # fmt: skip
    role_rights: tuple[tuple[str, frozenset[str]], ...] = _GROUP.setting(
        "ROLE_RIGHTS", parsers.role_permissions, (), expects="role:right+right,…",
        help="Permissions of roles: `publish`, `view`, `alerts` (alerts without pictures) or `none`; `*` is any other "
        "role. Example: `camera:publish,guard:alerts,*:publish+view`. On a stream shared by an organization the "
        "member's roles in it count, otherwise the user's own. Empty: every user may publish and view.",
    )  # fmt: skip
    stats_token: str | None = _GROUP.setting(
        "STATS_TOKEN", key_parsers.bearer_secret, None, expects="≥ 16 characters", secret=True,
        reload=Reload.YES,
        help="Token that `/stats` and `/metrics` require as `Authorization: Bearer …`; `/health` then returns only "
        "whether the gateway is healthy. Not set: anyone who can connect may read them.",
    )  # fmt: skip
    service_token: str | None = _GROUP.setting(
        "SERVICE_TOKEN", key_parsers.bearer_secret, None, expects="≥ 16 characters", secret=True,
        reload=Reload.YES,
        help="Token that an ML service sends as `Authorization: Bearer …` with `POST /alerts`. If neither this nor "
        "`SERVICE_WEBHOOK_SECRETS` is set, `POST /alerts` is refused.",
    )  # fmt: skip
    service_webhook_secrets: tuple[bytes, ...] = _GROUP.setting(
        "SERVICE_WEBHOOK_SECRETS", key_parsers.webhook_secrets, (), expects="whsec_…,…", secret=True,
        reload=Reload.YES,
        help="Secrets with which an ML service may sign `POST /alerts` instead (Standard Webhooks). Set two while you "
        "rotate them.",
    )  # fmt: skip
