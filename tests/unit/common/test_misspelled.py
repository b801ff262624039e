"""Variables that look like settings: slips are told, foreign ones and those that Kubernetes makes are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.settings import load, table
from watchout.common.settings.misspelled import (
    distance,
    former_names,
    honcho_port_note,
    known_names,
    near_misses,
    notes,
)

NAMES = sorted(known_names() - former_names().keys())
SERVICE = {
    "{0}_SERVICE_HOST": "10.43.7.9", "{0}_SERVICE_PORT": "3000", "{0}_SERVICE_PORT_HTTP": "3000",
    "{0}_SERVICE_PORT_HTTP_ALT": "3001", "{0}_PORT": "tcp://10.43.7.9:3000", "{0}_PORT_3000_TCP": "tcp://10.43.7.9:3000",
    "{0}_PORT_3000_TCP_PROTO": "tcp", "{0}_PORT_3000_TCP_PORT": "3000", "{0}_PORT_3000_TCP_ADDR": "10.43.7.9",
    "{0}_PORT_53_UDP": "udp://10.43.7.9:53", "{0}_PORT_53_UDP_ADDR": "10.43.7.9", "{0}_PORT_9_SCTP_PROTO": "sctp",
}  # fmt: skip


def made_for(service: str) -> dict[str, str]:
    """What Kubernetes puts into each pod's environment for a Service of this name."""
    name = service.upper().replace("-", "_")
    return {key.format(name): value for key, value in SERVICE.items()}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("STREAM_ACCES", "STREAM_ACCESS"),
        ("STREAMACCESS", "STREAM_ACCESS"),
        ("STREAM_ACESSS", "STREAM_ACCESS"),
        ("STREAM-ACCESS", "STREAM_ACCESS"),
        ("stream_access", "STREAM_ACCESS"),
        ("WATCHOUT_STREAM_ACCESS", "STREAM_ACCESS"),
        ("WATCHOUT_PROT", "WATCHOUT_PORT"),
        ("WATCHOT_HOME", "WATCHOUT_HOME"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("ALLOW_ORIGINS", "ALLOWED_ORIGINS"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("JWT_SECERT", "JWT_SECRET"),
        ("ML_SERVICE_URI", "ML_SERVICE_URL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
        ("WATCHOUT_NONSENSE", None),
    ],
)
def test_a_slip_is_told_with_what_is_meant(name: str, meant: str | None) -> None:
    assert list(near_misses({name: "x"})) == [(name, meant)]
    (note,) = notes({name: "secret-value"})
    assert name in note
    assert "secret-value" not in note
    assert meant is None or meant in note


def test_every_slip_of_one_character_in_every_setting_is_found() -> None:
    for name in NAMES:
        if name in ("PORT", "WATCHOUT_TOKEN"):  # anybody's, and no setting
            continue
        slips: set[str] = set()
        for at in range(1, len(name)):
            dropped = name[:at] + name[at + 1 :]
            doubled = name[:at] + name[at] + name[at:]
            exchanged = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
            slips |= {dropped, doubled, exchanged}
        slips -= known_names()
        assert {each for each, _ in near_misses(dict.fromkeys(slips, "x"))} == slips


UNRELATED = [
    "HOME", "PATH", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "HOSTNAME", "HOST", "LANG", "LC_ALL", "TERM", "TZ",
    "SHLVL", "TMPDIR", "EDITOR", "PYTHONPATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "PORT", "PORTS", "NODE_ENV", "CI",
    "PGHOST", "PGPASSWORD", "PGUSER", "REDIS_URL", "DATABASE_NAME", "DATABASE_HOST", "DB_URL", "POSTGRES_URL", "LOOP",
    "GLOG_LEVEL", "RUST_LOG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "TLS_CIPHERS",
    "KUBERNETES_PORT", "KUBERNETES_SERVICE_HOST", "HONCHO_PROCESS_NAME", "BETTER_AUTH_URL", "STREAM_URL", "ML_MODEL",
    "SERVICE_NAME", "WATCHOUT_TOKEN", "WATCHOUT_STARTER", "WATCHOUT_KEEPER_FD", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK",
    "DEBUG", "SECRET_KEY", "API_TOKEN", "S3_BUCKET", "AWS_REGION", "LOG_FILE", "MAX_WORKERS", "WEB_CONCURRENCY",
    "INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "JWT_ALGORITHM",
]  # fmt: skip


def test_variables_of_other_programs_are_no_slips() -> None:
    assert list(near_misses(dict.fromkeys(UNRELATED, "x"))) == []


def test_a_setting_that_is_set_is_not_meant_by_another_name_as_well() -> None:
    assert notes({"DATABASE_URL": "postgres://h/db", "DATABASE_URI": "x"}) == []
    assert list(near_misses({"DATABASE_URI": "x"}, elsewhere=["DATABASE_URL"])) == []
    assert list(near_misses({"DATABASE_URI": "x", "DATABASE_URL": " "})) == [("DATABASE_URI", "DATABASE_URL")]
    # With our own prefix it can be nobody else's.
    assert list(near_misses({"WATCHOUT_PROT": "x", "WATCHOUT_PORT": "1"})) == [("WATCHOUT_PROT", "WATCHOUT_PORT")]


@pytest.mark.parametrize(
    "service", ["watchout", "watchout-gateway", "watchout-ml", "ml", "drain", "router", "log", "database", "w"]
)
def test_what_kubernetes_makes_for_a_service_is_neither_a_setting_nor_a_slip(service: str) -> None:
    environ = made_for(service)
    assert load(environ) == load({})
    assert list(near_misses(environ)) == []
    assert bool(notes(environ)) == (service == "watchout")


def test_the_port_that_kubernetes_makes_is_passed_over_with_a_word() -> None:
    (note,) = notes(made_for("watchout"))
    assert note.startswith("WATCHOUT_PORT was set by Kubernetes for a Service named watchout")
    assert load({"WATCHOUT_PORT": "tcp://[fd00::9]:3000", "PORT": "8080"}).port == 8080
    # In any other setting such a value is what somebody wrote.
    assert load({"ML_SERVICE_URL": "tcp://10.43.7.9:3000"}).ml_service_url == "tcp://10.43.7.9:3000"


def test_every_setting_that_a_service_could_collide_with_is_covered() -> None:
    for _, spec, _ in table():
        if spec.env.endswith("_PORT"):
            assert load({spec.env: "tcp://10.43.7.9:3000"}) == load({})
        assert not spec.env.endswith("_SERVICE_HOST")


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HONCHO_PROCESS_NAME": "gateway.1", "PORT": "8180"}, True),
        ({"HONCHO_PROCESS_NAME": "gateway.1", "PORT": "5100"}, False),
        ({"HONCHO_PROCESS_NAME": "gateway.1", "PORT": "8180", "WATCHOUT_PORT": "4000"}, False),
        ({"HONCHO_PROCESS_NAME": "gateway.1", "PORT": "8180", "WATCHOUT_PORT": "tcp://10.0.0.1:80"}, True),
        ({"PORT": "8180"}, False),
        ({}, False),
    ],
)
def test_a_port_that_honcho_took_for_itself_is_told(environ: dict[str, str], told: bool) -> None:
    assert (honcho_port_note(environ) is not None) == told


def plain_distance(a: str, b: str) -> int:
    """The textbook's matrix of optimal string alignment, whole."""
    d = [[i + j if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i][j] = min(d[i][j], d[i - 2][j - 2] + 1)
    return d[-1][-1]


@given(st.text("AB_", max_size=8), st.text("AB_", max_size=8), st.integers(0, 4))
def test_the_distance_is_the_textbooks_up_to_its_bound(a: str, b: str, most: int) -> None:
    assert distance(a, b, most) == min(plain_distance(a, b), most + 1)


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=20), max_size=20))
def test_any_environment_is_taken(environ: dict[str, str]) -> None:
    assert all("\n" not in note or any("\n" in name for name in environ) for note in notes(environ))


def test_the_former_name_of_a_setting_is_a_note_that_names_the_present_one() -> None:
    (note,) = notes({"ALERT_LANE_BYTES": "2048"})
    assert (
        note == "ALERT_LANE_BYTES is the former name of ALERT_QUEUE_BYTES: rename it, the next release does not read it"
    )
    assert notes({"ALERT_QUEUE_BYTES": "2048"}) == []


def test_no_former_name_is_what_a_misspelled_one_means() -> None:
    assert dict(near_misses({"ALERT_LANE_BYTE": "1"})) == {}
    assert dict(near_misses({"ALERT_QUEUE_BYTE": "1"})) == {"ALERT_QUEUE_BYTE": "ALERT_QUEUE_BYTES"}
