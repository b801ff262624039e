"""The certificate files of the port: what is taken, what is said of what is not, and what happens when they change."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kit.certificates import make_certificate, make_key, pem
from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.gateway.listen import tls
from watchout.gateway.listen.tls import Certificate, load


def serial_of(context: ssl.SSLContext, trust: bytes) -> str:
    """The serial number of the certificate with which this context serves."""
    client = ssl.create_default_context(cadata=trust.decode())
    client.set_alpn_protocols(["h2", "http/1.1"])
    a, b, c, d = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    mine, server = client.wrap_bio(a, b, server_hostname="127.0.0.1"), context.wrap_bio(c, d, server_side=True)
    for _ in range(4):
        for side, out, into in ((mine, b, c), (server, d, a)):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            into.write(out.read())
    found = mine.getpeercert()
    assert found is not None
    assert mine.selected_alpn_protocol() == "http/1.1"
    return str(found["serialNumber"])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    key = make_key()
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(make_certificate(key))
    key_file.write_bytes(pem(key))
    return cert_file, key_file


def replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def test_a_certificate_and_its_key_are_taken_from_two_files_or_from_one(files: tuple[Path, Path]) -> None:
    cert, key = files
    load(cert, key)
    both = cert.with_name("both.pem")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    load(both, None)


def test_only_tls_1_2_and_newer_is_spoken(files: tuple[Path, Path]) -> None:
    context = load(*files)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_without_a_certificate_there_is_no_tls() -> None:
    assert Certificate.of(Settings()) is None


def refused(cert: Path, key: Path | None) -> str:
    with pytest.raises(StartError) as error:
        load(cert, key)
    return str(error.value)


def test_the_key_of_another_certificate_is_said_to_be(files: tuple[Path, Path]) -> None:
    cert, key = files
    key.write_bytes(pem(make_key()))
    assert refused(cert, key) == "the private key in TLS_KEY does not belong to the certificate in TLS_CERT"
    key.write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    assert refused(cert, key) == "the private key in TLS_KEY does not belong to the certificate in TLS_CERT"


def test_an_encrypted_key_is_said_to_be_and_nobody_is_asked_for_a_pass_phrase(files: tuple[Path, Path]) -> None:
    cert, key = files
    key.write_bytes(pem(make_key(), password=b"secret"))
    assert refused(cert, key) == "the private key in TLS_KEY is encrypted, expected one without a pass phrase"


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_pem_is_said_to_be(files: tuple[Path, Path], junk: bytes) -> None:
    cert, key = files
    whole = cert.read_bytes()
    cert.write_bytes(junk)
    assert "not a certificate with its private key in PEM" in refused(cert, key)
    cert.write_bytes(whole)
    key.write_bytes(junk)
    assert "TLS_CERT or TLS_KEY is not" in refused(cert, key)
    assert refused(cert, None).startswith("TLS_CERT is not")


def test_a_file_that_is_gone_is_said_to_be(files: tuple[Path, Path]) -> None:
    cert, key = files
    key.unlink()
    assert refused(cert, key).startswith("TLS_KEY cannot be read: No such file")
    assert refused(key, None).startswith("TLS_CERT cannot be read: No such file")


def test_changed_files_are_taken_up_for_new_connections(files: tuple[Path, Path]) -> None:
    cert, key = files
    first = cert.read_bytes()
    certificate = Certificate(cert, key)
    old = certificate.context
    assert not certificate.refresh()
    other = make_key()
    second = make_certificate(other)
    replace(key, pem(other))
    replace(cert, second)
    assert certificate.refresh()
    assert not certificate.refresh()
    assert serial_of(old, first) != serial_of(certificate.context, second)


def test_when_the_certificate_expires_is_that_of_the_one_in_use(files: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = files
    certificate = Certificate(cert, key)
    assert certificate.expires_at == pytest.approx(time.time() + 86_400, abs=600)
    first = certificate.expires_at
    replace(cert, b"half")
    assert not certificate.refresh()
    assert certificate.expires_at == first, "the old one stays in use"
    other = make_key()
    replace(key, pem(other))
    replace(cert, make_certificate(other, days=30))
    assert certificate.refresh()
    assert certificate.expires_at == pytest.approx(time.time() + 30 * 86_400, abs=600)
    (tmp_path / "third.pem").write_bytes(make_certificate(other, days=60) + pem(other))
    certificate.prepare(tmp_path / "third.pem", None)()
    assert certificate.expires_at == pytest.approx(time.time() + 60 * 86_400, abs=600)
    assert tls.expiry(tmp_path / "none.pem") is None


def test_a_bad_new_certificate_leaves_the_old_one_and_a_good_one_after_it_is_taken(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = files
    first = cert.read_bytes()
    certificate = Certificate(cert, key)
    before = serial_of(certificate.context, first)
    other = make_key()
    second = make_certificate(other)
    for step in (lambda: replace(cert, second), lambda: replace(cert, b"half"), cert.unlink):
        step()
        assert not certificate.refresh()
        assert serial_of(certificate.context, first) == before
    replace(cert, second)
    replace(key, pem(other))
    assert certificate.refresh()
    assert serial_of(certificate.context, second) != before
    capsys.readouterr()


def test_a_file_of_the_same_size_and_time_is_noticed_by_its_place(files: tuple[Path, Path]) -> None:
    cert, key = files
    certificate = Certificate(cert, key)
    stat = cert.stat()
    replace(cert, cert.read_bytes())
    os.utime(cert, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert certificate.refresh()


def test_a_reload_takes_another_pair_of_files_or_none(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate = Certificate(*files)
    before = certificate.context
    with pytest.raises(StartError):
        certificate.prepare(files[0], tmp_path / "none.pem")
    key = make_key()
    other = make_certificate(key)
    (tmp_path / "other.pem").write_bytes(other + pem(key))
    use = certificate.prepare(tmp_path / "other.pem", None)
    assert certificate.context is before
    use()
    assert serial_of(certificate.context, other)
    assert not certificate.refresh()
    key = make_key()
    later = make_certificate(key)
    replace(tmp_path / "other.pem", later + pem(key))
    assert certificate.refresh(), "it is the other file that is looked at from now on"
    assert serial_of(certificate.context, later)
