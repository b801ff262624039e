"""``watchout-ctl keys cluster`` and ``keys host``: what they make, keep, renew and refuse."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from tests.kit.ctl_command import Ctl
from tests.kit.mesh_hosts import files
from watchout.common.bus.zeromq.mesh_certificates import load, refusal

PEM = ("ca.key", "ca.crt")


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_hosts_of_one_cluster_accept_each_other_and_share_their_keys(
    home: Path, ctl: Ctl, tmp_path: Path
) -> None:
    home.mkdir(exist_ok=True)
    (home / "share.key").write_bytes(b"s" * 32)
    keys = tmp_path / "keys"
    made = await ctl("keys", "cluster", "-d", keys)
    assert made.code == 0, made.err
    assert "Keep" in made.out
    for name, address in (("a", "10.0.0.5"), ("B.example.com", "fd00::6")):
        ended = await ctl("keys", "host", name, "--address", address, "-d", keys)
        assert ended.code == 0, ended.err
        assert f"rsync -a {keys / 'hosts' / name.lower()}/ " in ended.out
    first, second = keys / "hosts" / "a", keys / "hosts" / "b.example.com"
    assert set(content(first)) == {"mesh/host.crt", "mesh/host.key", "mesh/ca.crt", "share.key", "stream.key"}
    a, b = load(files(first)), load(files(second))
    assert refusal(a, b, "10.0.0.5") is refusal(a, b, "a") is refusal(b, a, "fd00::6") is None
    assert refusal(b, a, "b.example.com") is None
    assert "not valid for" in (refusal(a, b, "10.0.0.6") or "")
    assert (first / "share.key").read_bytes() == (second / "share.key").read_bytes() == b"s" * 32
    assert (first / "stream.key").read_bytes() == (second / "stream.key").read_bytes()
    assert len((first / "stream.key").read_bytes()) == 32
    for path in keys.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    authority = x509.load_pem_x509_certificate((keys / "ca.crt").read_bytes())
    found = x509.load_pem_x509_certificate(files(first).cert.read_bytes())
    found.verify_directly_issued_by(authority)
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    strict.load_verify_locations(keys / "ca.crt")
    assert refusal(a, type(a)(a.server, strict, a.not_after), "a") == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


async def test_one_certificate_may_be_for_all_names_of_a_domain(ctl: Ctl, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    await ctl("keys", "cluster", "-d", keys)
    for _ in range(2):  # also renewed, when the names are read from the certificate
        made = await ctl("keys", "host", "all", "--address", "*.hosts.watchout.svc", "-d", keys, "--force")
        assert made.code == 0, made.err
        own = load(files(keys / "hosts" / "all"))
        assert refusal(own, own, "gateway-1.hosts.watchout.svc") is None
        for other in ("hosts.watchout.svc", "a.b.hosts.watchout.svc", "gateway-1.hosts.other.svc"):
            assert "not valid for" in (refusal(own, own, other) or ""), other


async def test_doing_it_again_changes_nothing_and_only_force_replaces_a_key(ctl: Ctl, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    for arguments in (("cluster",), ("host", "a", "--address", "10.0.0.5")):
        assert (await ctl("keys", *arguments, "-d", keys)).code == 0
    before = content(keys)
    again = [await ctl("keys", "cluster", "-d", keys), await ctl("keys", "host", "a", "-d", keys)]
    assert [ended.code for ended in again] == [0, 0]
    assert "written" not in again[0].out + again[1].out
    assert content(keys) == before
    assert (await ctl("keys", "host", "a", "--address", "10.0.0.6", "-d", keys)).code == 0
    after = content(keys)
    assert {name for name in before if before[name] != after[name]} == {"hosts/a/mesh/host.crt"}, "the key stays"
    assert (await ctl("keys", "host", "a", "-d", keys, "--force")).code == 0
    forced = content(keys)
    assert forced["hosts/a/mesh/host.key"] != before["hosts/a/mesh/host.key"]
    found = x509.load_pem_x509_certificate(forced["hosts/a/mesh/host.crt"])
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.6"], "the names stay"
    assert (await ctl("keys", "cluster", "-d", keys, "--force")).code == 0
    anew = content(keys)
    assert all(anew[name] != before[name] for name in PEM)
    assert (await ctl("keys", "host", "a", "-d", keys)).code == 0, "a certificate of the former authority is made anew"
    contexts = load(files(keys / "hosts" / "a"))
    assert refusal(contexts, contexts, "10.0.0.6") is None


async def test_a_certificate_that_expires_soon_is_made_anew_for_the_same_key(ctl: Ctl, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    await ctl("keys", "cluster", "-d", keys)
    assert (await ctl("keys", "host", "a", "-d", keys, "--days", 50)).code == 0
    before = content(keys)
    assert (await ctl("keys", "host", "a", "-d", keys)).code == 0
    after = content(keys)
    assert {name for name in before if before[name] != after[name]} == {"hosts/a/mesh/host.crt"}


async def test_what_is_wrong_is_a_sentence_and_writes_nothing(ctl: Ctl, tmp_path: Path) -> None:
    keys, damaged = tmp_path / "keys", tmp_path / "damaged"
    await ctl("keys", "cluster", "-d", keys)
    await ctl("keys", "cluster", "-d", damaged)
    (damaged / "ca.key").write_text("no key")
    before = content(keys)
    for arguments, said in (
        (("host", "a", "-d", tmp_path / "none"), "there is no authority in"),
        (("host", "a/../b", "-d", keys), "is no host name and no IP address"),
        (("host", "a", "--address", "10.0.0", "-d", keys), "is no host name and no IP address"),
        (("host", "*.a.b", "-d", keys), "is no host name and no IP address"),
        *(
            (("host", "a", "--address", name, "-d", keys), "is no host name and no IP address")
            for name in ("*.a", "*", "*.10.0.0.5", "*.*.a")
        ),
        (("host", "a", "-d", damaged), "is no key of `watchout-ctl keys`"),
    ):
        ended = await ctl("keys", *arguments)
        assert (ended.code, ended.out) == (1, ""), arguments
        assert said in ended.err
    assert content(keys) == before
