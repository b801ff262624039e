"""What NATS failures mean, in sentences; the subjects of a site; and what a credentials file must have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.nats_servers import Nkey, operator_mode
from watchout.common.bus.nats import sentences
from watchout.common.bus.nats.credentials import load_credentials
from watchout.common.bus.nats.subjects import Subjects, member_of
from watchout.common.errors import StartError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('nats: permissions violation for publish to "watchout.router.0.00"', ("publish", "watchout.router.0.00")),
        ('Permissions Violation for Subscription to "a.*"', ("subscription", "a.*")),
        ("nats: authorization violation", None),
        ("permissions violation", None),
    ],
)
def test_a_permission_is_found_in_the_text_of_a_server(text: str, expected: tuple[str, str] | None) -> None:
    assert sentences.of_permission(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nats: 'Authorization Violation'", "refuses the user"),
        ("nats: 'User Authentication Expired'", "refuses the user"),
        ("nats: 'maximum connections exceeded'", "max_connections"),
        ("nats: 'Secure Connection - TLS Required'", "write tls://"),
        ("nats: empty response from server when expecting INFO message", "no NATS server"),
        ("nats: 'maximum payload violation'", "maximum payload violation"),
        ("", "it closed the connection"),
    ],
)
def test_each_refusal_says_what_to_look_at(text: str, words: str) -> None:
    assert words in sentences.refused(text)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("CERTIFICATE_VERIFY_FAILED: self-signed certificate", "not of BUS_CA"),
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired", "or that of its CA, has ended"),
        ("CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "the clocks of both machines"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "the certificate of BUS_CERT has ended"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "set BUS_CERT and BUS_KEY"),
        ("TLSV1_ALERT_UNKNOWN_CA", "CA of BUS_CERT"),
        ("WRONG_VERSION_NUMBER", "TLS failed (WRONG_VERSION_NUMBER)"),
    ],
)
def test_each_fault_of_tls_says_what_to_look_at(fault: str, words: str) -> None:
    assert words in sentences.tls(fault)


def test_where_nobody_listens_both_causes_are_named() -> None:
    text = sentences.nobody_listens("nats://n1:4222", 2, "site")
    assert "no router serves slot 2 of the site 'site': start `watchout-router`" in text
    assert "where one runs, it cannot use JetStream, and its log says why" in text


def test_of_many_servers_the_first_are_named() -> None:
    text = sentences.nobody_reached({f"nats://s{number}:1": "Connection refused" for number in range(6)})
    assert "nats://s3:1: Connection refused and 2 more" in text
    assert "s4" not in text


@given(st.integers(0, 99), st.binary(min_size=8, max_size=8))
def test_the_router_hears_each_member_on_its_subject(slot: int, member: bytes) -> None:
    subjects = Subjects("site")
    subject = subjects.to_router(slot, member)
    assert subject.rpartition(".")[0] + ".*" == subjects.of_router(slot)
    assert member_of(subject) == member


@pytest.mark.parametrize("subject", ["", "a", "site.router.0.", "site.router.0.abc", "site.router.0." + "G" * 16])
def test_what_is_no_member_is_none(subject: str) -> None:
    assert member_of(subject) is None


def test_a_credentials_file_gives_the_jwt_and_signs_and_shows_no_secret(tmp_path: Path) -> None:
    _, file = operator_mode(tmp_path)
    found = load_credentials(file)
    assert found.jwt in file.read_text()
    assert len(found.sign("nonce")) == 88
    assert found.jwt not in repr(found)


@pytest.mark.parametrize("role", ["O", "A"])
def test_a_seed_of_another_role_is_refused(tmp_path: Path, role: str) -> None:
    _, file = operator_mode(tmp_path)
    text = file.read_text()
    seed = text.split("SEED-----\n")[1].split("\n")[0]
    file.write_text(text.replace(seed, Nkey(role).seed))
    with pytest.raises(StartError, match="no seed of a user"):
        load_credentials(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"none\.creds cannot be read: No such file"):
        load_credentials(tmp_path / "none.creds")
