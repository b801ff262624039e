from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from watchout.ctl.doctor import checks
from watchout.ctl.doctor.checks import Home, Port, Router, Server
from watchout.ctl.doctor.findings import Finding, Level
from watchout.identity.schema.plan import POSTGRES, Column, Found, Layout, Plan, make_plan

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def one(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    assert finding.level is OK or finding.remedy
    return finding


# ── home ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OURS = Home(path=Path("/srv/w"), mode=0o40700, owner=7, user=7, ours=True)


@pytest.mark.parametrize(
    ("home", "level", "words"),
    [
        (OURS, OK, "is private (socket paths have 18 of 103 bytes"),
        (replace(OURS, user=0), OK, "is private"),
        (replace(OURS, mode=None, ours=False), OK, "not there yet, `watchout-gateway` makes it"),
        (replace(OURS, mode=None, writable=False, parent=Path("/srv")), WRONG, "user 7 may not make it in /srv"),
        (replace(OURS, user=8), WRONG, "belongs to user 7, and this is user 8"),
        (replace(OURS, writable=False), WRONG, "not writable"),
        (replace(OURS, writable=False, read_only=True), WRONG, "mounted read-only"),
        (replace(OURS, mode=0o40755), WARNING, "mode 0755, expected 0700. chmod 700 /srv/w"),
        (replace(OURS, mode=0o40755, others=True), WARNING, "mode 0755"),
        (replace(OURS, mode=0o40755, others=True, ours=False), WRONG, "refuses to start there"),
        (replace(OURS, others=True, ours=False), OK, "is private"),
    ],
)
def test_every_home(home: Home, level: Level, words: str) -> None:
    finding = one(checks.of_home(home))
    assert (finding.check, finding.level) == ("home", level)
    assert words in finding.sentence


@pytest.mark.parametrize(("mode", "seen"), [(0o100600, False), (0o100640, True), (0o100604, True), (None, False)])
def test_a_store_that_others_may_read_is_wrong(mode: int | None, seen: bool) -> None:
    assert levels(checks.of_home(replace(OURS, store_mode=mode))) == [OK] + [WRONG] * seen


@pytest.mark.parametrize(("free", "level"), [(10**6, WRONG), (10**8, WARNING), (10**10, None)])
def test_a_full_disk_is_seen(free: int, level: Level | None) -> None:
    assert levels(checks.of_home(replace(OURS, free_bytes=free))) == [OK] + ([level] if level else [])


# ── the session store ────────────────────────────────────────────────────────────────────────────────────────────


def plan(*, indexed: bool = True, may_delete: bool = True) -> Plan:
    columns = [
        Column("session", "id", "text"),
        Column("session", "token", "text", indexed=indexed),
        Column("session", "userId", "text"),
        Column("session", "expiresAt", "timestamp with time zone"),
        Column("user", "id", "text"),
        *(Column("verification", name, "text") for name in ("identifier", "value")),
        Column("verification", "expiresAt", "timestamp with time zone"),
    ]
    found = Found(columns=tuple(columns), version="18.1", role="watchout", may_delete=may_delete)
    made = make_plan(found, Layout(), POSTGRES)
    assert isinstance(made, Plan)
    return made


def test_a_sound_store_is_told_in_three_lines() -> None:
    answers, schema, tickets = checks.of_store("PostgreSQL", " at db:5432", plan(), 0.42)
    assert answers.says == "PostgreSQL 18.1 at db:5432 answers; a look-up takes 0.4 ms (median of 5)."
    assert schema.says == (
        "Sessions are in session, users in user: camelCase, dates are timestamp with time zone, ids are text, there "
        "are no bans."
    )
    assert tickets.says == "One-time tickets (?ticket=) are taken from verification."
    assert levels([answers, schema, tickets]) == [OK] * 3
    assert answers.facts["latencyMs"] == 0.42


def test_a_missing_index_comes_with_its_statement() -> None:
    _, _, index, _ = checks.of_store("PostgreSQL", "", plan(indexed=False), 1)
    assert index.level is WARNING
    assert index.remedy == 'CREATE INDEX ON "session" ("token")'


def test_tickets_that_are_not_possible_come_with_the_grant_that_is_missing() -> None:
    *_, tickets = checks.of_store("PostgreSQL", "", plan(may_delete=False), 1)
    assert tickets.level is WARNING
    assert tickets.sentence.endswith('GRANT DELETE ON "verification" TO "watchout"')


def test_a_slow_store_is_a_warning() -> None:
    assert next(iter(checks.of_store("PostgreSQL", "", plan(), 250))).level is WARNING


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("PostgreSQL cannot be reached: Connection refused", "Start PostgreSQL"),
        ('PostgreSQL refused: password authentication failed for user "w"', "Set user and password"),
        ("PostgreSQL refused: sorry, too many clients already", "lower STORE_CONNECTIONS"),
        ('PostgreSQL refused: database "x" does not exist', "Set user and database"),
        ("PostgreSQL gave no answer within 3 s", "STORE_TIMEOUT_S bounds the wait"),
        ("/x cannot be read: No such file or directory", "Set DATABASE_URL to Better Auth's file"),
        ("something that nobody has seen", ""),
    ],
)
def test_a_store_that_fails_is_wrong_and_says_what_helps(reason: str, remedy: str) -> None:
    finding = checks.store_failed(" at db", reason)
    assert finding.level is WRONG
    assert f"{reason}." in finding.says
    assert remedy in finding.remedy


def test_a_statement_that_helps_is_there_to_be_copied() -> None:
    assert checks.store_failed("", 'rights are missing: GRANT SELECT ON "user" TO "w"').sentence.endswith('TO "w"')


SERVER = Server(superuser=False, replica=False, trigger=None, offset_s=0.0, uncertainty_s=0.001)


@pytest.mark.parametrize(
    ("server", "level", "words"),
    [
        (replace(SERVER, superuser=True), WARNING, "superuser"),
        (replace(SERVER, replica=True), WARNING, "read replica"),
        (replace(SERVER, read_only=True), WARNING, "read-only"),
        (replace(SERVER, trigger=False), WARNING, "no trigger"),
        (replace(SERVER, trigger=True), OK, "is there"),
    ],
)
def test_what_a_server_says_of_itself(server: Server, level: Level, words: str) -> None:
    first, clock = checks.of_server(server)
    assert (first.level, clock.check) == (level, "clock")
    assert words in first.says


# ── clocks and keys ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "level"),
    [
        (0, 0, OK), (2, 0, OK), (-2, 0, OK), (2.1, 0, WARNING), (-2.1, 0, WARNING), (2.9, 1, OK), (30, 0, WARNING),
        (30.1, 0, WRONG), (-30.1, 0, WRONG), (31, 1.5, WARNING), (1e9, 0.5, WRONG),
    ],
)  # fmt: skip
def test_every_difference_of_clocks(offset_s: float, uncertainty_s: float, level: Level) -> None:
    finding = checks.of_clock("the JWT issuer", offset_s, uncertainty_s)
    assert finding.level is level
    if level is not OK:
        assert (
            f"{abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} that of the JWT issuer" in finding.says
        )


DATE = "Tue, 01 Jan 2030 00:00:00 GMT"


@given(offset_s=st.floats(-1e6, 1e6), within_s=st.floats(0, 0.999), took_s=st.floats(0, 3))
def test_the_clock_of_a_date_is_never_further_off_than_is_said(offset_s: float, within_s: float, took_s: float) -> None:
    """Wherever in its second, and in our wait, the other clock was read."""
    read_s = NOW.timestamp() + within_s + offset_s
    for before_s in (read_s, read_s - took_s / 2, read_s - took_s):
        looked = checks.http_clock(DATE, None, before_s, before_s + took_s)
        assert looked is not None
        assert abs(looked[0] - offset_s) <= looked[1] + 1e-3


def test_an_answer_out_of_a_cache_is_as_old_as_the_cache_says() -> None:
    now_s = NOW.timestamp() + 200
    looked = checks.http_clock(DATE, "200", now_s, now_s)
    assert looked is not None
    assert abs(looked[0]) <= looked[1]


@pytest.mark.parametrize("date", [None, "", "now", "0", "Tue, 99 Jan 2030 00:00:00 GMT"])
def test_what_is_no_date_says_nothing(date: str | None) -> None:
    assert checks.http_clock(date, None, 0, 0) is None
    assert checks.http_clock(DATE, "old", 0, 0) is None
    assert math.isfinite(checks.http_clock(DATE, "9" * 40, 0, 0)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("usable", "published", "level", "words"),
    [(1, 1, OK, "1 key that"), (2, 3, OK, "2 of 3 keys"), (0, 2, WRONG, "2 keys, none of"), (0, 0, WRONG, "0 keys")],
)
def test_every_set_of_keys(usable: int, published: int, level: Level, words: str) -> None:
    finding = checks.of_published_keys(" at k:443", usable=usable, published=published, algorithms="EdDSA")
    assert finding.level is level
    assert words in finding.says


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────

KEY, ISSUER_KEY = (generate_private_key(SECP256R1()) for _ in range(2))


def certificate(
    *, begins: float = -1, days: float = 90, names: Iterable[str] = ("cam.example",), own: bool = False
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam.example")])
    issuer = subject if own else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=begins))
        .not_valid_after(NOW + timedelta(days=days))
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(KEY if own else ISSUER_KEY, SHA256()).public_bytes(Encoding.PEM)


def authority() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(ISSUER_KEY.public_key())
    builder = builder.serial_number(2).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=900))
    return builder.sign(ISSUER_KEY, SHA256()).public_bytes(Encoding.PEM)


def pem(key: EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (90, OK, "cam.example is good until 2030-04-01, 90 days from now"),
        (14, OK, "14 days"),
        (13.9, WARNING, "13 days from now. Renew it"),
        (0.5, WARNING, "0 days"),
        (0, WRONG, "expired on 2030-01-01 00:00 UTC"),
        (-0.5, WRONG, "expired on 2029-12-31 12:00 UTC"),
    ],
)
def test_the_days_of_a_certificate(days: float, level: Level, words: str) -> None:
    finding = one(checks.of_certificate(certificate(days=days) + authority(), pem(KEY), NOW))
    assert finding.level is level
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("chain", "key", "level", "words"),
    [
        (certificate(begins=1) + authority(), pem(KEY), WRONG, "good only from 2030-01-02"),
        (certificate(names=()) + authority(), pem(KEY), WRONG, "no subjectAltName"),
        (certificate(own=True), pem(KEY), WARNING, "signed by itself"),
        (certificate(), pem(KEY), WARNING, "no certificate of the issuer (CN=An Authority)"),
        (certificate() + authority(), pem(ISSUER_KEY), WRONG, "is not the first one"),
        (certificate() + authority(), pem(generate_private_key(SECP256R1())), WRONG, "does not belong to"),
        (certificate() + authority(), pem(KEY, b"canary"), WRONG, "TLS_KEY is encrypted"),
        (certificate() + authority(), b"", WRONG, "TLS_KEY has no private key"),
        (certificate() + authority(), b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----", WRONG, "no"),
        (b"", pem(KEY), WRONG, "TLS_CERT is no certificate"),
        (b"\xff\x00", pem(KEY), WRONG, "TLS_CERT is no certificate"),
        (pem(KEY), pem(KEY), WRONG, "TLS_CERT is no certificate"),
        (certificate()[:200], pem(KEY), WRONG, "TLS_CERT is no certificate"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate(chain: bytes, key: bytes, level: Level, words: str) -> None:
    finding = one(f for f in checks.of_certificate(chain, key, NOW) if f.level is not OK)
    assert finding.level is level
    assert words in finding.sentence


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_file_makes_the_check_fail(chain: bytes, key: bytes) -> None:
    list(checks.of_certificate(chain, key, NOW))
    list(checks.of_certificate(certificate() + chain, key, NOW))
    checks.first_certificate(chain)


@pytest.mark.parametrize(("mode", "seen"), [(0o100600, False), (0o100640, False), (0o100644, True)])
def test_a_key_that_everybody_may_read_is_a_warning(mode: int, seen: bool) -> None:
    assert levels(checks.of_key_mode("TLS_KEY", Path("/k"), mode)) == [WARNING] * seen


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────

GATEWAY = Port(number=3000, ours=True, listening=True, live=True, health=200)


@pytest.mark.parametrize(
    ("port", "router", "level", "words"),
    [
        (Port(number=3000), False, OK, "Port 3000 is free; no gateway runs"),
        (Port(number=3000), True, WARNING, "a router runs on this home, but no gateway"),
        (Port(number=3000, others=[3001, 3002]), True, WARNING, "a gateway of this home does on 3001, 3002"),
        (Port(number=80, cannot="Permission denied"), False, WRONG, "CAP_NET_BIND_SERVICE"),
        (Port(number=3000, cannot="Address already in use"), False, WRONG, "on an address of this machine"),
        (Port(number=3000, host="10.9.9.9", cannot="Cannot assign address"), False, WRONG, "Set WATCHOUT_HOST"),
        (Port(number=3000, listening=True), False, WRONG, "Another program listens on port 3000"),
        (Port(number=3000, listening=True, ours=None), False, WRONG, "Another program"),
        (Port(number=3000, listening=True, live=True, health=200), True, WRONG, "A watchout with another"),
        (GATEWAY, True, OK, "answers, and is healthy"),
        (replace(GATEWAY, ours=None), True, OK, "answers, and is healthy"),
        (replace(GATEWAY, tls=True, wants_tls=True), True, OK, "healthy"),
        (replace(GATEWAY, live=False, silence="no answer within 3 s"), True, WRONG, "does not answer: no answer"),
        (replace(GATEWAY, health=503, reason="the router is unreachable"), False, WRONG, "Start `watchout-router`"),
        (replace(GATEWAY, health=503, reason="the session store is unreachable"), True, WRONG, "lines on the store"),
        (replace(GATEWAY, health=503, reason="the gateway drains"), True, WARNING, "start another"),
        (replace(GATEWAY, health=503, reason="the router has just begun and hears"), True, WARNING, "in a second"),
        (replace(GATEWAY, health=503, reason="TOO_MANY_CONNECTIONS"), True, WRONG, "Raise MAX_CONNECTIONS"),
        (replace(GATEWAY, health=0, reason=""), True, WRONG, "it does not say why"),
    ],
)  # fmt: skip
def test_every_port(port: Port, router: bool, level: Level, words: str) -> None:
    finding = one(checks.of_port(port, router=router))
    assert (finding.check, finding.level) == ("ports", level)
    assert words in finding.sentence


@pytest.mark.parametrize(("tls", "wants"), [(True, False), (False, True)])
def test_a_gateway_with_other_settings_of_tls_is_wrong(tls: bool, wants: bool) -> None:
    assert levels(checks.of_port(replace(GATEWAY, tls=tls, wants_tls=wants), router=True)) == [WRONG, OK]


def test_a_gateway_with_an_old_certificate_is_a_warning() -> None:
    stale = replace(GATEWAY, tls=True, wants_tls=True, stale=True)
    assert levels(checks.of_port(stale, router=True)) == [WARNING, OK]


@pytest.mark.parametrize(
    ("router", "gateway", "level", "words"),
    [
        (Router(), False, OK, "No router runs on /srv/w"),
        (Router(socket=True), False, WARNING, "it was killed, or hangs"),
        (Router(), True, WRONG, "No router answers on /srv/w"),
        (Router(socket=True), True, WRONG, "No router answers"),
        (
            Router(socket=True, answers=True, up_s=3700, gateways=[1, 2], bridges=1, streams=1),
            True,
            OK,
            "The router answers, up 1h01m: 2 gateways, 1 mlbridge, 1 stream.",
        ),
    ],
)
def test_every_router(router: Router, gateway: bool, level: Level, words: str) -> None:
    finding = one(checks.of_router(router, Path("/srv/w"), gateway=gateway, wants_bridge=False))
    assert finding.level is level
    assert words in finding.says


def test_an_ml_service_without_a_bridge_is_a_warning() -> None:
    router = Router(socket=True, answers=True)
    assert levels(checks.of_router(router, Path("/w"), gateway=True, wants_bridge=True)) == [OK, WARNING]


@pytest.mark.parametrize(
    ("limit", "level", "words"),
    [
        (-1, OK, "any number of files"),
        (20_128, OK, "may open 20128 files"),
        (20_127, WARNING, "Raise it to 20128"),
        (1024, WARNING, "enough for some 896 connections"),
        (64, WARNING, "some 0 connections"),
    ],
)
def test_every_bound_of_open_files(limit: int, level: Level, words: str) -> None:
    finding = checks.of_files(limit, "The gateway (process 7)", 20_000)
    assert finding.level is level
    assert words in finding.sentence


@pytest.mark.parametrize(("bound", "seen"), [(128, True), (1023, True), (1024, False), (4096, False)])
def test_a_short_queue_of_the_kernel_is_a_warning(bound: int, seen: bool) -> None:
    assert levels(checks.of_somaxconn(bound)) == [WARNING] * seen
