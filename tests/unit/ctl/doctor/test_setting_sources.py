"""Where settings come from, and lines of .env that are not read."""

from __future__ import annotations

import pytest
from honcho.environ import parse

from watchout.ctl.doctor.findings import Level
from watchout.ctl.doctor.setting_sources import judge_dotenv, judge_sources


def test_it_is_said_which_variables_were_used_and_never_their_values() -> None:
    environ = {"WATCHOUT_PORT": "3001", "STATS_TOKEN": "canary-1", "HOME": "/root", "LOG_LEVEL": " ", "ML_FPS": "1"}
    dotenv = {"DATABASE_URL": "canary-2", "WATCHOUT_PORT": "3000", "LOG_LEVEL": "debug", "ML_FPS": "1", "MINE": "x"}
    used, hidden = judge_sources(environ, dotenv, 0o100600)
    assert used.says == (
        "Set are ML_FPS, STATS_TOKEN, WATCHOUT_PORT from the environment; DATABASE_URL from .env."
    )  # fmt: skip
    assert used.facts == {"environment": ["ML_FPS", "STATS_TOKEN", "WATCHOUT_PORT"], "dotenv": ["DATABASE_URL"]}
    assert hidden.says.startswith("LOG_LEVEL, WATCHOUT_PORT in .env: not used")
    assert "canary" not in used.sentence + hidden.sentence


def test_nothing_set_is_said_too() -> None:
    (used,) = judge_sources({"HOME": "/root"}, {}, None)
    assert used.says == "Nothing is set: all settings have their defaults."


def test_a_slip_of_the_pen_in_the_file_is_seen() -> None:
    _, slip = judge_sources({}, {"ALOWED_ORIGINS": "canary", "NODE_ENV": "production"}, None)
    assert slip.sentence == "ALOWED_ORIGINS in .env is not a setting. Is ALLOWED_ORIGINS meant?"


@pytest.mark.parametrize(("mode", "warned"), [(0o100600, False), (0o100640, False), (0o100644, True), (None, False)])
def test_a_file_of_secrets_that_everybody_may_read_is_a_warning(mode: int | None, warned: bool) -> None:
    found = list(judge_sources({}, {}, mode))
    assert [finding.level for finding in found] == [Level.OK] + [Level.WARNING] * warned
    assert not warned or ".env has mode 0644" in found[1].says


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ufeffWATCHOUT_PORT=4000\n", "byte order mark"),
        ("export WATCHOUT_PORT=4000\n", "Line 1 of .env begins with export"),
        ("DATABASE_URL=postgres://u:p#ss@h/db\n", "DATABASE_URL in .env is read as another value"),
        ("ALLOWED_ORIGINS=https://a.example, https://b.example\n", "ALLOWED_ORIGINS in .env is read as another value"),
        ("\nJWT_PUBLIC_KEY='-----BEGIN\n", "Line 2 of .env, JWT_PUBLIC_KEY, is ignored"),
    ],
)
def test_a_line_of_dotenv_that_is_read_otherwise_is_told(text: str, words: str) -> None:
    (finding,) = judge_dotenv(text, parse)
    assert words in finding.sentence
    assert "p#ss" not in finding.sentence


def test_sound_lines_of_dotenv_need_no_advice() -> None:
    text = (
        "# a comment\r\nWATCHOUT_PORT=4000\r\n"
        "DATABASE_URL='postgres://u:p#ss@h/db'\nexport OTHER=1\n\nLOG_LEVEL = info\n"
        "BETTER_AUTH_SECRET=abc+/def==\nML_SERVICE_URL=http://127.0.0.1:8500/a?b=c&d=e\nSTATS_TOKEN=\n"
    )
    assert list(judge_dotenv(text, parse)) == []
