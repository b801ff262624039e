"""The doctor on the frame mesh between hosts: this host's certificate, and the ports of the others."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kit.mesh_hosts import Authority, authority, files, meshes
from tests.kit.ports import free_port
from tests.kit.relays import Relays
from watchout.common.bus.zeromq.mesh_certificates import load
from watchout.common.settings import load as load_settings
from watchout.ctl.doctor.checks.mesh import check_mesh, judge_mesh_certificate, judge_reach
from watchout.ctl.doctor.findings import Finding, Level
from watchout.ctl.mesh_reach import reach


@pytest.fixture
def ca() -> Iterator[Authority]:
    with authority() as made:
        yield made


def judged(home: Path, host: str, days: int = 0) -> list[Finding]:
    return list(judge_mesh_certificate(load(files(home)), host, datetime.now(UTC) + timedelta(days=days), "host.crt"))


def test_the_certificate_of_this_host_is_judged_as_other_hosts_do(ca: Authority) -> None:
    home = ca.home("a", "127.0.0.1", days=100)
    for host, days, level, said in (
        ("127.0.0.1", 0, Level.OK, "accept the certificate of this host, 127.0.0.1, until"),
        ("a", 69, Level.OK, "accept"),
        ("a", 71, Level.WARNING, "28 days from now"),
        ("a", 101, Level.WRONG, "expired on"),
        ("127.0.0.2", 0, Level.WRONG, "not valid for '127.0.0.2'"),
    ):
        (finding,) = judged(home, host, days)
        assert (finding.level, said in finding.says) == (level, True), finding
    with authority() as other:
        mixed = ca.home("b", "127.0.0.1")
        (mixed / "mesh" / "ca.crt").write_bytes((other.directory / "ca.crt").read_bytes())
        (finding,) = judged(mixed, "127.0.0.1")
    assert finding.level is Level.WRONG
    assert "certificate" in finding.says


async def _leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_each_port_is_tried_as_a_sender_would(ca: Authority) -> None:
    async with meshes() as make:
        own = ca.home("a", "127.0.0.1")
        good, _ = make(ca.home("b", "127.0.0.1"))
        misnamed, _ = make(ca.home("c", "127.0.0.9"))
        with authority() as other:
            foreign, _ = make(other.home("d", "127.0.0.1"))
            one_sided = ca.home("e", "127.0.0.1")  # it is accepted by this host, but accepts another cluster only
            (one_sided / "mesh" / "ca.crt").write_bytes((other.directory / "ca.crt").read_bytes())
            refusing, _ = make(one_sided)
            addresses = [mesh.address or "" for mesh in (good, misnamed, foreign, refusing)]
            async with Relays(_leave) as plain:
                addresses += [f"tls:127.0.0.1:{port}/f-abcdefgh" for port in (plain.port, free_port())]
                found = await reach([*addresses, "unix:f-abcdefgh", "nonsense"], load(files(own)).client)
    assert list(found) == addresses
    works, *faults = found.values()
    assert works is None
    for fault, said in zip(faults, ("not valid for", "certificate", "refuse", "", "Connection refused"), strict=True):
        assert fault is not None
        assert said in fault, fault
    findings = list(judge_reach(found, {addresses[1]: "gateway.2"}))
    assert [finding.level for finding in findings] == [Level.WRONG] * 5 + [Level.OK]
    assert "do not reach gateway.2 at 127.0.0.1:" in findings[0].says
    assert findings[-1].says == "Frames of this host reach 1 process over TLS."


async def test_nothing_is_said_on_one_machine_and_what_is_missing_in_a_cluster(ca: Authority, tmp_path: Path) -> None:
    assert await check_mesh(load_settings({})) == []
    bus = {"WATCHOUT_BUS": f"nats://127.0.0.1:{free_port()}", "WATCHOUT_HOME": str(tmp_path)}
    (finding,) = await check_mesh(load_settings(bus))
    assert (finding.level, "MESH_LISTEN is not set" in finding.says) == (Level.WARNING, True)
    listening = load_settings({**bus, "MESH_LISTEN": "tls://127.0.0.1:7400"})
    (finding,) = await check_mesh(listening)
    assert (finding.level, "MESH_CERT cannot be read" in finding.says) == (Level.WRONG, True)
    shutil.copytree(ca.home("a", "127.0.0.1"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "mesh" / "host.key").chmod(0o644)
    accepted, mode = await check_mesh(listening)
    assert accepted.level is Level.OK
    assert (mode.level, mode.check) == (Level.WARNING, "mesh")
    assert "MESH_KEY" in mode.says
