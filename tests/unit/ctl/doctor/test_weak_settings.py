"""Settings that are valid one by one, but weak or contradictory together."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchout.common.settings import load
from watchout.ctl.doctor.checks.weak_settings import judge_settings
from watchout.ctl.doctor.findings import Level
from watchout.identity.authenticator import auth_methods

LONG = "s" * 32
SOUND = {
    "WATCHOUT_HOST": "127.0.0.1",
    "DATABASE_URL": "postgres://u:p@db.example/app",
    "BETTER_AUTH_SECRET": LONG,
    "ALLOWED_ORIGINS": "https://app.example.com",
    "SECURE_COOKIE_ONLY": "true",
    "STATS_TOKEN": LONG,
}
JWT = {"JWT_SECRET": LONG, "JWT_ISSUER": "https://app", "JWT_AUDIENCE": "watchout"}


def said(environ: dict[str, str]) -> list[str]:
    settings = load(environ)
    found = list(judge_settings(settings, auth_methods(settings)))
    assert all(finding.level is Level.WARNING and finding.check == "settings" for finding in found)
    assert all(finding.says.endswith(".") and finding.remedy for finding in found)
    return [finding.sentence for finding in found]


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHOUT_HOST": "127.0.0.1"},
        SOUND,
        SOUND | JWT,
        SOUND | {"ROLE_RIGHTS": "camera:publish,*:view"},
        SOUND | {"TRUSTED_PROXIES": "10.0.0.0/8", "WATCHOUT_HOST": ""},
        SOUND | {"RECHECK_S": "2"},
        SOUND | {"STREAM_ACCESS": "organization"},
        SOUND | {"ALLOWED_ORIGINS": "http://localhost:5173", "SECURE_COOKIE_ONLY": "false"},
        SOUND | {"INTROSPECTION_URL": "http://127.0.0.1/introspect"},
        # The database knows the organizations, whoever verifies.
        SOUND | JWT | {"AUTH_METHODS": "jwt", "BETTER_AUTH_SECRET": "", "ALLOWED_ORIGINS": ""},
        SOUND | {"JWT_JWKS_URL": "https://app/jwks", "JWT_ISSUER": "https://app"},
    ],
)
def test_sound_settings_need_no_advice(environ: dict[str, str]) -> None:
    assert said(environ) == []


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"BETTER_AUTH_SECRET": "short-secret"}, "BETTER_AUTH_SECRET has 12 characters"),
        (JWT | {"JWT_SECRET": "s" * 31}, "JWT_SECRET has 31 characters"),
        ({"BETTER_AUTH_SECRET": f'"{"q" * 32}"'}, "BETTER_AUTH_SECRET begins and ends with a quote"),
        (JWT | {"JWT_SECRET": f"'{'q' * 32}'"}, "JWT_SECRET begins and ends with a quote"),
        ({"BETTER_AUTH_SECRET": ""}, "signatures of cookies are not verified"),
        ({"DATABASE_URL": "postgres://u:p@ss@db/app"}, "more than one @"),
        (JWT | {"JWT_ISSUER": ""}, "JWT_ISSUER is not set"),
        (JWT | {"JWT_AUDIENCE": ""}, "JWT_AUDIENCE is not set"),
        (JWT | {"JWT_SESSION_CLAIM": "none"}, "signing out does not end them"),
        ({"JWT_JWKS_URL": "https://app/jwks", "JWT_AUDIENCE": "watchout"}, "JWT_ISSUER is not set"),
        ({"JWT_JWKS_URL": "http://app/jwks", "JWT_ISSUER": "https://app"}, "JWT_JWKS_URL is http to another machine"),
        ({"INTROSPECTION_URL": "http://app/introspect"}, "INTROSPECTION_URL is http to another machine"),
        ({"ALLOWED_ORIGINS": ""}, "ALLOWED_ORIGINS is empty"),
        ({"ALLOWED_ORIGINS": "http://app.example.com", "SECURE_COOKIE_ONLY": "no"}, "app.example.com without TLS"),
        ({"ALLOWED_ORIGINS": "http://localhost:1,https://app.example.com"}, "no page of http://localhost:1 can have"),
        ({"SECURE_COOKIE_ONLY": "false"}, "SECURE_COOKIE_ONLY is false although all ALLOWED_ORIGINS are https"),
        ({"STREAM_ACCESS": "authenticated"}, "every signed-in user may view every stream"),
        ({"ROLE_RIGHTS": "camera:publish,guard:view"}, "another than camera, guard, may do nothing"),
        ({"RECHECK_S": "2.5"}, "stays connected for up to 2.5 s"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8,0.0.0.0/0"}, "TRUSTED_PROXIES has 0.0.0.0/0"),
        ({"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES has ::/0"),
        ({"WATCHOUT_HOST": "", "TRUSTED_PROXIES": "10.0.0.1", "STATS_TOKEN": ""}, "STATS_TOKEN is not set"),
        ({"WATCHOUT_HOST": ""}, "TLS_CERT is not set"),
    ],
)  # fmt: skip
def test_each_weakness_is_said_alone(environ: dict[str, str], words: str) -> None:
    (sentence,) = said(SOUND | environ)
    assert words in sentence
    assert LONG not in sentence


def test_an_embedded_store_knows_no_sessions_of_jwts() -> None:
    assert "signing out does not end them" in said({"WATCHOUT_HOST": "::1"} | JWT)[0]


def test_a_certificate_is_enough_for_every_address(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    assert said(SOUND | {"WATCHOUT_HOST": "", "TLS_CERT": str(tmp_path / "cert.pem")}) == []


def test_escalation_without_a_webhook_is_said_to_do_nothing() -> None:
    (sentence,) = said(SOUND | {"ALERT_ESCALATE_S": "60"})
    assert "ALERT_WEBHOOK_URL is not: it does nothing" in sentence
    hook = {
        "ALERT_WEBHOOK_URL": "https://hook.example/", "ALERT_WEBHOOK_SECRETS": "whsec_c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nz"
    }  # fmt: skip
    assert said(SOUND | hook | {"ALERT_ESCALATE_S": "60"}) == []
    (sentence,) = said(SOUND | hook | {"ALERT_ESCALATE_S": "3601"})
    assert "no longer be acknowledged" in sentence
