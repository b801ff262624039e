"""Gateways, router and bridge are restarted one after the other while cameras and viewers of the SDK are connected.

The two gateways share one listening socket, as the units of systemd give it to them. `make test-upgrade` does it again
and again, and prints for how long viewers saw nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.as_systemd import ServiceStarter, listening_socket
from tests.kit.clients import eventually
from tests.kit.ml_stub import serving
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout
from tests.kit.traffic import COMES_S, Traffic, traffic
from watchout.client.connection_parts import STEADY_S

pytestmark = pytest.mark.e2e
GATEWAY = [str(BIN / "watchout-gateway")]
#: How often all are restarted; `make test-upgrade` sets more, and then the gaps are held to what docs/deploy.md says.
ROUNDS = int(os.environ.get("WATCHOUT_TEST_UPGRADES", "0"))
MOST_GAP_S = 0.5


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listening_socket() as one:
        yield one


class Site:
    """Two gateways at one socket, a router and a bridge."""

    def __init__(self, started: Watchout, listening: socket.socket, directory: Path) -> None:
        self.started = started
        self.gateways: list[ServiceStarter] = []
        for name in ("a", "b"):
            (directory / name).mkdir()
            environ = {**started.environ, "WATCHOUT_PROCESS_NAME": f"gateway-{name}"}
            self.gateways.append(ServiceStarter(directory / name, environ, listening))
        self.gaps: dict[str, list[float]] = {}
        #: Of each gap that is too long, what the viewer and its camera said meanwhile.
        self.too_long: list[str] = []

    async def begin(self) -> None:
        for name in ("router", "mlbridge"):
            self.started.start(name)
        for gateway in self.gateways:
            gateway.start(GATEWAY)
        for gateway in self.gateways:
            await asyncio.to_thread(gateway.hear_until, "STATUS=serves")

    async def restart_gateway(self, gateway: ServiceStarter) -> None:
        """As `systemctl restart` does: the next one starts when the former one has ended."""
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait) == 0
        gateway.start(GATEWAY)
        await asyncio.to_thread(gateway.hear_until, "STATUS=serves")

    async def restart(self, name: str) -> None:
        assert await asyncio.to_thread(self.started.one(name).terminate) == 0
        process = self.started.start(name)
        await asyncio.to_thread(process.wait_for_output, "joined" if name == "mlbridge" else "member joined")

    async def step(self, what: str, load: Traffic, work: Any) -> None:
        """One restart, and what the viewers saw of it."""
        began = time.monotonic()
        await work
        await load.goes_on()
        now = time.monotonic()
        for each in load.watchers:
            gap_s, since = each.longest_gap(began, now)
            self.gaps.setdefault(what, []).append(gap_s)
            if gap_s >= MOST_GAP_S:
                said = load.between(since - 1, since + gap_s, each.name, f"camera of {each.stream}")
                self.too_long.append(f"{what}, {since - began:.2f} s later {gap_s:.2f} s, {each.name}: {said}")


async def test_a_restart_of_each_process_in_turn_costs_no_alert_and_no_handshake(
    watchout: Any, listening: socket.socket, tmp_path: Path
) -> None:
    port = listening.getsockname()[1]
    async with serving() as ml:
        ml.mode, ml.takes_s = "answer", 0.2
        environ = {"WATCHOUT_PORT": str(port), "ML_SERVICE_URL": ml.url, "ALERT_COOLDOWN_S": "0", "ML_FPS": "2",
                   "DRAIN_SPREAD_S": "5" if ROUNDS else "1", "SERVICE_TOKEN": SERVICE_TOKEN}  # fmt: skip
        started: Watchout = watchout(start=False, environ=environ)
        site = Site(started, listening, tmp_path)
        with site.gateways[0], site.gateways[1]:
            await site.begin()
            async with traffic(f"http://127.0.0.1:{port}", started.token(), cameras=3 if ROUNDS else 2,
                               viewers=4 if ROUNDS else 2) as load:  # fmt: skip
                for _ in range(max(1, ROUNDS)):
                    for gateway in site.gateways:
                        await site.step("gateway", load, site.restart_gateway(gateway))
                    await site.step("router", load, site.restart("router"))
                    await eventually(lambda: ml.under_way, COMES_S)
                    await site.step("mlbridge", load, site.restart("mlbridge"))
                    if ROUNDS:  # upgrades are not so close together that clients back off
                        await asyncio.sleep(STEADY_S + 1)
                await load.all_alerts_come()
                # A query under way when the bridge is told to end has its answer told: one for each that was answered.
                answered = len(ml.answered)
                await eventually(
                    lambda: sum(len(set(each.alerts) - set(load.raised[each.stream])) for each in load.watchers)
                    >= answered * len(load.watchers) / len(load.raised), COMES_S,
                )  # fmt: skip
                assert all(len(set(each.alerts)) == len(each.alerts) for each in load.watchers), "an alert came twice"
            assert ml.cancelled == 0
            assert load.refused == []
            assert load.served > 0
            for gateway in site.gateways:
                assert "reconnect" in gateway.output
                assert "Traceback" not in gateway.output
                gateway.signal(signal.SIGTERM)
                assert gateway.wait() == 0
    if ROUNDS:
        for what, gaps in site.gaps.items():
            gaps.sort()
            print(f"{what}: longest time without a frame, of {len(gaps)} viewers' times: median "
                  f"{gaps[len(gaps) // 2] * 1000:.0f} ms, longest {gaps[-1] * 1000:.0f} ms")  # fmt: skip
        print(f"{load.served} new connections, none refused; {sum(map(len, load.raised.values()))} alerts, none lost")
        assert not site.too_long, "\n".join(site.too_long)
