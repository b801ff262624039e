"""No secret gets into the doctor's report."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.settings import table
from watchout.ctl.doctor.findings import ok, wrong
from watchout.ctl.doctor.scrubbing import is_local, scrubbed, secrets_of, visible_address


def test_every_secret_setting_and_what_is_in_urls_is_taken_out() -> None:
    environ = {spec.env: f"canary-{spec.env}" for _, spec, _ in table() if spec.secret}
    environ |= {
        "WATCHOUT_TOKEN": "canary-token",
        "DATABASE_URL": "postgres://user:canary%2Fdb@db.example/app?password=canary-query",
        "JWT_JWKS_URL": "https://who:canary-jwks@keys.example/jwks?key=canary-key",
        "WATCHOUT_BUS": "nats://user:canary-bus@h, canary-bus-token@h",
        "SERVICE_WEBHOOK_SECRETS": "whsec_canary1, whsec_canary2",
    }
    text = " ".join([*environ.values(), "canary/db whsec_canary2 and db.example, keys.example"])
    cleaned = scrubbed(wrong("a", text, text, text=text, number=3), secrets_of(environ))
    assert "canary" not in cleaned.sentence + str(cleaned.facts["text"])
    assert cleaned.says.endswith("db.example, keys.example")
    assert cleaned.facts["number"] == 3


@given(st.text(string.ascii_letters + string.digits + "+/=", min_size=8), st.text(), st.text())
def test_a_secret_is_never_left_in_a_sentence(secret: str, before: str, after: str) -> None:
    secrets = secrets_of({"STATS_TOKEN": secret})
    assert secret not in scrubbed(ok("a", before + secret + after), secrets).says.replace("…", "")


def test_a_word_that_is_too_short_to_be_a_secret_stays() -> None:
    assert secrets_of({"DATABASE_URL": "postgres://u:store@h/d"})[-1] == "postgres://u:store@h/d"


@pytest.mark.parametrize(
    ("url", "port", "shown"),
    [
        ("postgres://u:p@db.example/app", 5432, "db.example:5432"),
        ("postgres://u:p@db.example:6432/app", 5432, "db.example:6432"),
        ("postgres://[::1]/app", 5432, "[::1]:5432"),
        ("https://keys.example/jwks", None, "keys.example:443"),
        ("http://u:p@keys.example/jwks", None, "keys.example:80"),
        ("postgres:///app?host=/run/pg", 5432, ""),
        # Here a password that was not encoded would be taken for a host or a path.
        ("postgres://u:12/34@db.example/app", 5432, ""),
        ("postgres://u:p@ss@db.example/app", 5432, ""),
        ("postgres://u:pass/word@db.example/app", 5432, ""),
        ("postgres://h/app?user=a@b", 5432, ""),
        ("http://[::1", None, ""),
    ],
)
def test_an_address_is_shown_only_where_it_is_no_part_of_a_password(url: str, port: int | None, shown: str) -> None:
    assert visible_address(url, port) == shown


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("app.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("10.0.0.1", False), ("example.com", False), ("localhost.example.com", False), ("0.0.0.0", False),
        (None, False),
    ],
)  # fmt: skip
def test_what_is_this_machine(host: str | None, local: bool) -> None:
    assert is_local(host) is local
