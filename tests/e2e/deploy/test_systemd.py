"""The units of `deploy/systemd` on a machine that systemd itself has booted (`tests.kit.systemd_machine`)."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, poll
from tests.kit.systemd_machine import SystemdMachine, need, systemd_machine

pytestmark = pytest.mark.e2e
COMES_S = 60.0
GATEWAY, ROUTER, BRIDGE = "watchout-gateway@1.service", "watchout-router.service", "watchout-mlbridge@1.service"
SERVICES = (ROUTER, GATEWAY, BRIDGE)
#: Tenths of what systemd-analyze reports: 10.0 is a service that may do everything.
MOST_EXPOSURE = 13


class Installed:
    """A machine on which watchout was installed and started as docs/deploy.md says, on a port of the tests."""

    def __init__(self, machine: SystemdMachine, port: int) -> None:
        self.machine = machine
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """The response to one request over a connection of its own. Raises `OSError` or `HTTPException`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=COMES_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def healthy(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def serves(self, unit: str) -> bool:
        shown = self.machine.show(unit, "ActiveState", "SubState", "StatusText")
        return shown == {"ActiveState": "active", "SubState": "running", "StatusText": "serves"}

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit, as ``systemctl edit`` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/of-the-test.conf", text)
        self.machine.run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with systemd_machine(tmp_path_factory.mktemp("machine")) as machine:
        port = free_port()
        machine.run("/opt/source/deploy/systemd/install.sh")
        machine.write("/etc/watchout/watchout.env", f'WATCHOUT_PORT="{port}"\nML_SERVICE_URL=http://127.0.0.1:9\n')
        found = Installed(machine, port)
        found.drop_in("watchout-gateway.socket", f"[Socket]\nListenStream=\nListenStream={port}\n")
        machine.run("systemctl", "start", "watchout.target")
        yield found


@pytest.fixture
def started(installed: Installed) -> Installed:
    poll(lambda: all(map(installed.serves, SERVICES)), COMES_S, "not all three serve")
    poll(installed.healthy, COMES_S, "the gateway is not healthy")
    return installed


class Visitors:
    """Clients that come one after another, each over a new connection, all the time."""

    def __init__(self, where: Installed) -> None:
        self._where = where
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come) for _ in range(4)]
        self.served = 0
        self.turned_away: list[str] = []

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _come(self) -> None:
        while not self._over.wait(0.005):
            try:
                status, _ = self._where.get("/health/live")
            except (OSError, http.client.HTTPException) as error:
                self.turned_away.append(repr(error))
            else:
                self.served += status == 200
                if status != 200:
                    self.turned_away.append(str(status))

    def go_on(self) -> None:
        """Return when some more have been served."""
        before = self.served
        poll(lambda: self.served >= before + 20, COMES_S, "nobody is served any more")


def test_systemd_finds_no_fault_in_the_units() -> None:
    """Also without the right to boot a machine; the programs are looked for where they are installed."""
    if shutil.which("systemd-analyze") is None:
        need()
    with tempfile.TemporaryDirectory() as directory:
        for path in (REPOSITORY / "deploy/systemd").iterdir():
            if path.suffix in (".service", ".socket", ".target"):
                text = path.read_text().replace("/opt/watchout/bin/", "/usr/bin/true #")
                text = "\n".join(
                    line.partition(" #")[0] if line.startswith("Exec") else line for line in text.split("\n")
                )
                Path(directory, path.name).write_text(text)
        units = ["watchout.target", "watchout-router.service", "watchout-gateway@.service", "watchout-gateway.socket",
                 "watchout-mlbridge@.service"]  # fmt: skip
        command = ["systemd-analyze", "verify", "--man=no", *(f"{directory}/{unit}" for unit in units)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_a_service_may_do_little(started: Installed) -> None:
    for unit in SERVICES:
        started.machine.run("systemd-analyze", "security", f"--threshold={MOST_EXPOSURE}", unit)
    for unit in SERVICES:
        status = started.machine.run("cat", f"/proc/{started.machine.main_pid(unit)}/status")
        assert "CapEff:\t0000000000000000" in status
        assert "Seccomp:\t2" in status
        assert "Uid:\t0" not in status


def test_all_three_start_and_are_ready_when_they_can_serve(started: Installed) -> None:
    log = started.machine.journal_with(GATEWAY, "router joined", "Started watchout-gateway@1.service")
    joined, ready = log.index("router joined"), log.index("Started watchout-gateway@1.service")
    assert joined < ready, "systemd was told before the gateway could serve"
    assert "the service manager" in log
    home = started.machine.run("stat", "-c", "%U %a", "/var/lib/watchout").strip()
    assert home == "watchout 700"


async def test_a_camera_is_seen_with_the_token_that_the_operator_prints(started: Installed, clients: Clients) -> None:
    token = (await asyncio.to_thread(started.machine.run, "watchout-ctl", "token")).strip()
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    await camera.show()
    await eventually(lambda: viewer.frames, COMES_S)


@pytest.mark.parametrize("unit", SERVICES)
def test_a_process_that_is_killed_is_started_again_by_systemd(started: Installed, unit: str) -> None:
    before = started.machine.main_pid(unit)
    started.machine.kill(unit, signal.SIGKILL)
    poll(lambda: started.machine.main_pid(unit) not in (0, before), COMES_S, f"{unit} is not started again")
    poll(lambda: started.serves(unit), COMES_S, f"{unit} does not serve again")
    poll(started.healthy, COMES_S, "the gateway is not healthy again")


@pytest.mark.parametrize("what", [GATEWAY, "watchout.target"])
def test_a_restart_turns_nobody_away(started: Installed, what: str) -> None:
    before = started.machine.main_pid(GATEWAY)
    with Visitors(started) as visitors:
        visitors.go_on()
        started.machine.run("systemctl", "restart", what)
        visitors.go_on()
    assert started.machine.main_pid(GATEWAY) not in (0, before)
    assert visitors.turned_away == []


def test_a_gateway_that_is_killed_refuses_no_new_connection(started: Installed) -> None:
    """Those that it had accepted are lost with it."""
    with Visitors(started) as visitors:
        visitors.go_on()
        started.machine.kill(GATEWAY, signal.SIGKILL)
        visitors.go_on()
    assert [error for error in visitors.turned_away if "refused" in error.lower()] == []


def test_a_process_that_hangs_is_replaced_and_says_where_it_hung(started: Installed) -> None:
    started.drop_in(ROUTER, "[Service]\nWatchdogSec=3s\n")
    try:
        started.machine.run("systemctl", "restart", ROUTER)
        before = started.machine.main_pid(ROUTER)
        started.machine.kill(ROUTER, signal.SIGSTOP)
        poll(lambda: started.machine.main_pid(ROUTER) not in (0, before), COMES_S, "the router is not replaced")
        started.machine.journal_with(ROUTER, "Watchdog timeout", "Fatal Python error: Aborted")
    finally:
        started.drop_in(ROUTER, "")
        started.machine.run("systemctl", "restart", ROUTER)


def test_another_gateway_shares_the_port(started: Installed) -> None:
    second = "watchout-gateway@2.service"
    started.machine.run("systemctl", "start", second)
    try:
        poll(lambda: started.serves(second), COMES_S, "the second gateway does not serve")
        both = {"gateway-1", "gateway-2"}

        def told() -> bool:
            stats = started.machine.run("watchout-ctl", "stats", "--json", check=False)
            return both <= set(stats.replace('"', " ").split())

        poll(told, COMES_S, "not both gateways are told")
        with Visitors(started) as visitors:
            visitors.go_on()
            for unit in (GATEWAY, second):
                started.machine.run("systemctl", "restart", unit)
                visitors.go_on()
        assert visitors.turned_away == []
    finally:
        started.machine.run("systemctl", "stop", second)
    poll(lambda: not started.machine.main_pid(second), COMES_S, "a client starts it again")


def test_a_reload_takes_up_settings_in_the_same_process(started: Installed) -> None:
    before = {unit: started.machine.main_pid(unit) for unit in SERVICES}
    own = {GATEWAY: "gateway.env", ROUTER: "router.env", BRIDGE: "mlbridge-1.env"}
    try:
        for unit, name in own.items():
            started.machine.write(f"/etc/watchout/{name}", "LOG_LEVEL=warning\nDRAIN_S=2.5\n")
            started.machine.run("systemctl", "reload", unit)
        for unit in own:
            log = "LOG_LEVEL from info to warning; DRAIN_S from 3 to 2.5"
            poll(lambda unit=unit, log=log: log in started.machine.journal(unit), COMES_S, f"{unit} says nothing")  # type: ignore[misc]
            assert started.serves(unit)
            assert started.machine.main_pid(unit) == before[unit]
    finally:
        for unit, name in own.items():
            started.machine.run("rm", f"/etc/watchout/{name}")
            started.machine.run("systemctl", "reload", unit)


def test_a_wrong_setting_is_told_and_clients_wait_until_it_is_mended(started: Installed) -> None:
    started.machine.write("/etc/watchout/gateway.env", "LOG_LEVEL=loud\n")
    try:
        started.machine.run("systemctl", "restart", GATEWAY, check=False)
        started.machine.wait_for(GATEWAY, ActiveState="failed", Result="exit-code", ExecMainStatus="2")
        started.machine.journal_with(GATEWAY, "wrong setting: LOG_LEVEL")
        with Visitors(started) as visitors:
            started.machine.run("rm", "/etc/watchout/gateway.env")
            visitors.go_on()
        assert visitors.turned_away == []
    finally:
        started.machine.run("rm", "-f", "/etc/watchout/gateway.env")
        started.machine.run("systemctl", "start", "watchout.target", GATEWAY)


def test_a_stop_of_the_target_stops_everything_and_nothing_starts_it_again(started: Installed) -> None:
    started.machine.run("systemctl", "stop", "watchout.target")
    for unit in (*SERVICES, "watchout-gateway.socket"):
        started.machine.wait_for(unit, ActiveState="inactive")
    with pytest.raises(ConnectionRefusedError):
        started.get("/health/live")
    started.machine.run("systemctl", "start", "watchout.target")
