"""The gateway's port: the locks of this home, and the verdict."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.doctor_report import levels, one
from watchout.common.home_files import LISTEN_LOCK, port_lock
from watchout.common.settings import Settings, load
from watchout.ctl.doctor.checks.ports import check_ports
from watchout.ctl.doctor.findings import Level
from watchout.ctl.doctor.gateway_port import PortFacts, held_ports, judge_port, probe_port

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


GATEWAY = PortFacts(number=3000, ours=True, listening=True, live=True, health=200)


@pytest.mark.parametrize(
    ("port", "router", "level", "words"),
    [
        (PortFacts(number=3000), False, OK, "Port 3000 is free; no gateway runs"),
        (PortFacts(number=3000), True, WARNING, "a router runs on this home, but no gateway"),
        (PortFacts(number=3000, others=[3001, 3002]), True, WARNING, "a gateway of this home does on 3001, 3002"),
        (PortFacts(number=80, cannot_listen="Permission denied"), False, WRONG, "CAP_NET_BIND_SERVICE"),
        (PortFacts(number=3000, cannot_listen="Address already in use"), False, WRONG, "on an address of this machine"),
        (PortFacts(number=3000, host="10.9.9.9", cannot_listen="Cannot assign"), False, WRONG, "Set WATCHOUT_HOST"),
        (PortFacts(number=3000, listening=True), False, WRONG, "Another program listens on port 3000"),
        (PortFacts(number=3000, listening=True, ours=None), False, WRONG, "Another program"),
        (PortFacts(number=3000, listening=True, live=True, health=200), True, WRONG, "A watchout with another"),
        (GATEWAY, True, OK, "responds, and is healthy"),
        (replace(GATEWAY, ours=None), True, OK, "responds, and is healthy"),
        (replace(GATEWAY, missing_slots=[2]), True, WARNING, "no router answers it for slots 2"),
        (replace(GATEWAY, tls=True, wants_tls=True), True, OK, "healthy"),
        (replace(GATEWAY, live=False, failure="no answer within 3 s"), True, WRONG, "does not respond: no answer"),
        (replace(GATEWAY, health=503, reason="the router is unreachable"), False, WRONG, "Start `watchout-router`"),
        (replace(GATEWAY, health=503, reason="the session store is unreachable"), True, WRONG, "lines on the store"),
        (replace(GATEWAY, health=503, reason="the gateway drains"), True, WARNING, "start another"),
        (replace(GATEWAY, health=503, reason="the router has just begun and hears"), True, WARNING, "in a second"),
        (replace(GATEWAY, health=503, reason="TOO_MANY_CONNECTIONS"), True, WRONG, "Raise MAX_CONNECTIONS"),
        (replace(GATEWAY, health=0, reason=""), True, WRONG, "it gives no reason"),
    ],
)  # fmt: skip
def test_every_port(port: PortFacts, router: bool, level: Level, words: str) -> None:
    finding = one(judge_port(port, router_replies=router))
    assert (finding.check, finding.level) == ("ports", level)
    assert words in finding.sentence


@pytest.mark.parametrize(("tls", "wants"), [(True, False), (False, True)])
def test_a_gateway_with_other_settings_of_tls_is_wrong(tls: bool, wants: bool) -> None:
    assert levels(judge_port(replace(GATEWAY, tls=tls, wants_tls=wants), router_replies=True)) == [WRONG, OK]


def test_a_gateway_with_an_old_certificate_is_a_warning() -> None:
    stale = replace(GATEWAY, tls=True, wants_tls=True, stale=True)
    assert levels(judge_port(stale, router_replies=True)) == [WARNING, OK]


@pytest.fixture
def settings(home: Path, unused_port: int) -> Settings:
    return load({"WATCHOUT_HOME": str(home), "WATCHOUT_HOST": "127.0.0.1", "WATCHOUT_PORT": str(unused_port)})


@pytest.fixture
def gateway_on_4001(home: Path) -> Iterator[None]:
    """The locks of a home whose gateway listens on port 4001, and once did on 4002."""
    for name in (LISTEN_LOCK, port_lock(4001), port_lock(4002)):
        (home / name).touch()
    fd = os.open(home / port_lock(4001), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    yield
    os.close(fd)


@pytest.mark.usefixtures("gateway_on_4001")
async def test_a_gateway_of_this_home_on_another_port_is_found_by_its_lock(home: Path, settings: Settings) -> None:
    assert held_ports(home) == {4001: True, 4002: False}
    assert (await probe_port(settings)).others == [4001]


@pytest.mark.usefixtures("gateway_on_4001")
async def test_a_gateway_on_another_port_is_a_warning_and_needs_a_router(settings: Settings) -> None:
    port, router, *_ = await check_ports(settings)
    assert port.level is WARNING
    assert "a gateway of this home does on 4001" in port.says
    assert router.level is WRONG
    assert "No router replies" in router.says


async def test_without_a_gateway_the_port_is_free_and_no_router_is_missing(settings: Settings) -> None:
    port, router, *_ = await check_ports(settings)
    assert (port.level, router.level) == (OK, OK)


@pytest.mark.usefixtures("gateway_on_4001")
async def test_while_a_gateway_starts_its_ports_are_unknown(home: Path) -> None:
    fd = os.open(home / LISTEN_LOCK, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert held_ports(home) == {4001: None, 4002: None}
    os.close(fd)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [("drains", "start another"), ("just begun", "in a second"), ("router is", "Start `watchout-router`")],
)
def test_the_remedies_know_the_reasons_that_the_gateway_gives(words: str, remedy: str) -> None:
    source = (Path(__file__).parents[4] / "gateway/http/health.py").read_text()
    (reason,) = {found for found in re.findall(r'"(the [^"]+)"', source) if words in found}
    assert remedy in one(judge_port(replace(GATEWAY, health=503, reason=reason), router_replies=True)).remedy
