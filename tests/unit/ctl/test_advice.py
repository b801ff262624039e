from __future__ import annotations

from pathlib import Path

import pytest
from honcho.environ import parse

from watchout.common.settings import load
from watchout.ctl.doctor.advice import of_dotenv, of_settings, of_sources
from watchout.ctl.doctor.findings import Level
from watchout.identity.authenticator import methods

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
    found = list(of_settings(settings, methods(settings)))
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
        ({"BETTER_AUTH_SECRET": ""}, "signatures of cookies are not checked"),
        ({"DATABASE_URL": "postgres://u:p@ss@db/app"}, "more than one @"),
        (JWT | {"JWT_ISSUER": ""}, "JWT_ISSUER is not set"),
        (JWT | {"JWT_AUDIENCE": ""}, "JWT_AUDIENCE is not set"),
        (JWT | {"JWT_SESSION_CLAIM": "none"}, "signing out does not end them"),
        ({"JWT_JWKS_URL": "https://app/jwks", "JWT_AUDIENCE": "watchout"}, "JWT_ISSUER is not set"),
        ({"JWT_JWKS_URL": "http://app/jwks", "JWT_ISSUER": "https://app"}, "JWT_JWKS_URL is http to another machine"),
        ({"INTROSPECTION_URL": "http://app/introspect"}, "INTROSPECTION_URL is http to another machine"),
        ({"ALLOWED_ORIGINS": ""}, "ALLOWED_ORIGINS is empty"),
        ({"ALLOWED_ORIGINS": "http://app.example.com", "SECURE_COOKIE_ONLY": "no"}, "app.example.com without TLS"),
        ({"ALLOWED_ORIGINS": "http://localhost:1,https://app.example.com"}, "no page of http://localhost:1 has such"),
        ({"SECURE_COOKIE_ONLY": "false"}, "SECURE_COOKIE_ONLY is false though all ALLOWED_ORIGINS are https"),
        ({"STREAM_ACCESS": "authenticated"}, "everybody who is signed in may view every stream"),
        ({"ROLE_RIGHTS": "camera:publish,guard:view"}, "another than camera, guard, may do nothing"),
        ({"RECHECK_S": "2.5"}, "stays for up to 2.5 s"),
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


def test_it_is_said_which_variables_were_used_and_never_their_values() -> None:
    environ = {"WATCHOUT_PORT": "3001", "STATS_TOKEN": "canary-1", "HOME": "/root", "LOG_LEVEL": " ", "ML_FPS": "1"}
    dotenv = {"DATABASE_URL": "canary-2", "WATCHOUT_PORT": "3000", "LOG_LEVEL": "debug", "ML_FPS": "1", "MINE": "x"}
    used, hidden = of_sources(environ, dotenv, 0o100600)
    assert used.says == (
        "Set are ML_FPS, STATS_TOKEN, WATCHOUT_PORT from the environment; DATABASE_URL from .env."
    )  # fmt: skip
    assert used.facts == {"environment": ["ML_FPS", "STATS_TOKEN", "WATCHOUT_PORT"], "dotenv": ["DATABASE_URL"]}
    assert hidden.says.startswith("LOG_LEVEL, WATCHOUT_PORT in .env: not used")
    assert "canary" not in used.sentence + hidden.sentence


def test_nothing_set_is_said_too() -> None:
    (used,) = of_sources({"HOME": "/root"}, {}, None)
    assert used.says == "Nothing is set: all settings have their defaults."


def test_a_slip_of_the_pen_in_the_file_is_seen() -> None:
    _, slip = of_sources({}, {"ALOWED_ORIGINS": "canary", "NODE_ENV": "production"}, None)
    assert slip.sentence == "ALOWED_ORIGINS in .env is no setting. Is ALLOWED_ORIGINS meant?"


@pytest.mark.parametrize(("mode", "warned"), [(0o100600, False), (0o100640, False), (0o100644, True), (None, False)])
def test_a_file_of_secrets_that_everybody_may_read_is_a_warning(mode: int | None, warned: bool) -> None:
    found = list(of_sources({}, {}, mode))
    assert [finding.level for finding in found] == [Level.OK] + [Level.WARNING] * warned
    assert not warned or ".env has mode 0644" in found[1].says


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ufeffWATCHOUT_PORT=4000\n", "byte order mark"),
        ("export WATCHOUT_PORT=4000\n", "Line 1 of .env begins with export"),
        ("DATABASE_URL=postgres://u:p#ss@h/db\n", "DATABASE_URL in .env is read as something else"),
        ("ALLOWED_ORIGINS=https://a.example, https://b.example\n", "ALLOWED_ORIGINS in .env is read as something else"),
        ("\nJWT_PUBLIC_KEY='-----BEGIN\n", "Line 2 of .env, JWT_PUBLIC_KEY, is not read"),
    ],
)
def test_a_line_of_dotenv_that_is_read_otherwise_is_told(text: str, words: str) -> None:
    (finding,) = of_dotenv(text, parse)
    assert words in finding.sentence
    assert "p#ss" not in finding.sentence


def test_sound_lines_of_dotenv_need_no_advice() -> None:
    text = (
        "# a comment\r\nWATCHOUT_PORT=4000\r\n"
        "DATABASE_URL='postgres://u:p#ss@h/db'\nexport OTHER=1\n\nLOG_LEVEL = info\n"
        "BETTER_AUTH_SECRET=abc+/def==\nML_SERVICE_URL=http://127.0.0.1:8500/a?b=c&d=e\nSTATS_TOKEN=\n"
    )
    assert list(of_dotenv(text, parse)) == []
