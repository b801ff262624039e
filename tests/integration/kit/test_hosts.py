"""Hosts of the tests: they reach each other, and each fault of their network is what it says."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.cluster import machines
from tests.kit import hosts as kit
from tests.kit.clients import eventually
from tests.kit.hosts import Host, Hosts
from tests.kit.namespaces import enter, socket_in
from tests.kit.processes import Watchout, clean_environ, poll
from tests.kit.shifted_clock import shifted_clock

#: What must be through is through after this, whatever the machine does beside.
WAIT_S = 60.0
#: What would come without the fault has come after this.
SILENT_S = 0.3

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    with kit.hosts() as made:
        yield made


@pytest.fixture
def connected(three: Hosts) -> Iterator[Probe]:
    with Probe(three[1], three[0]) as probe:
        yield probe


class Probe:
    """A connection from one host to another, which sends back what comes."""

    def __init__(self, near: Host, far: Host) -> None:
        self._listener = socket_in(far.name, socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((far.address, 0))
        self._listener.listen()
        self._near = socket_in(near.name, socket.AF_INET, socket.SOCK_STREAM)
        self._near.settimeout(WAIT_S)
        self._near.connect(self._listener.getsockname())
        self._near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._far, _ = self._listener.accept()
        self._far.settimeout(WAIT_S)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._near, self._far, self._listener):
            each.close()

    def send(self) -> None:
        self._near.sendall(b"x")

    def receive(self) -> None:
        assert self._far.recv(1) == b"x"

    def round_trip_s(self) -> float:
        at = time.perf_counter()
        self.send()
        self.receive()
        self._far.sendall(b"y")
        assert self._near.recv(1) == b"y"
        return time.perf_counter() - at

    def comes(self, within_s: float) -> bool:
        """Whether something comes within this time."""
        return bool(select.select([self._far], [], [], within_s)[0])


def echo_request(owner: int, number: int) -> bytes:
    """An ICMP echo request (RFC 792)."""
    total = sum(struct.unpack("!4H", struct.pack("!BBHHH", 8, 0, 0, owner, number)))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xFFFF, owner, number)


def pings(host: Host, address: str, count: int, wait_s: float = 1.0) -> int:
    """How many of so many echo requests are answered, the last of them within `wait_s`."""
    owner = random.randrange(1 << 16)
    seen: set[int] = set()
    with socket_in(host.name, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ping:

        def read(until: float) -> None:
            while len(seen) < count and select.select([ping], [], [], max(0.0, until - time.monotonic()))[0]:
                kind, _, _, of, number = struct.unpack("!BBHHH", ping.recv(2048)[20:28])
                if kind == 0 and of == owner:
                    seen.add(number)

        for number in range(count):
            with contextlib.suppress(OSError):  # no route, or dropped on this host
                ping.sendto(echo_request(owner, number), (address, 0))
            read(time.monotonic())
        read(time.monotonic() + wait_s)
    return len(seen)


def reached(host: Host, address: str) -> None:
    """Wait until an address answers: right after a host was connected, requests are lost on the way to it."""
    poll(lambda: pings(host, address, 3) == 3, WAIT_S, f"host {host.number} does not reach {address}")


def test_hosts_reach_each_other_and_the_test_process(three: Hosts) -> None:
    for host in three:
        for address in (*(other.address for other in three), three.here):
            reached(host, address)


@pytest.mark.parametrize(("direction", "of"), [("both", None), ("in", None), ("out", None), ("both", 0)])
def test_a_cut_is_silent_and_a_connection_outlives_it(
    three: Hosts, connected: Probe, direction: kit.Direction, of: int | None
) -> None:
    first, second, third = three
    connected.round_trip_s()
    others = None if of is None else [three[of]]
    with three.cut(second, direction, of=others):
        assert pings(second, first.address, 3, SILENT_S) == 0
        assert pings(first, second.address, 3, SILENT_S) == 0
        if of is None:
            assert pings(second, third.address, 3, SILENT_S) == 0
        else:
            reached(second, third.address)
        reached(first, third.address)
        reached(second, three.here)  # the test process reaches it all the same
        connected.send()
        assert connected.comes(WAIT_S if direction == "in" else SILENT_S) == (direction == "in")
    connected.receive()
    reached(second, first.address)


def test_a_cut_of_the_test_process_too(three: Hosts) -> None:
    with three.cut(three[2], of_us=True):
        assert pings(three[2], three.here, 3, SILENT_S) == 0


def test_the_share_that_is_lost_is_the_one_that_was_asked_for(three: Hosts) -> None:
    first, second, _ = three
    with three.losing(0.05):
        came = pings(first, second.address, 2000, 1.0)
    # Both ways lose: 1 - 0.95² = 9.75 %; six standard deviations of 2000 are 4 %.
    assert 0.055 < 1 - came / 2000 < 0.14
    assert pings(first, second.address, 200, WAIT_S) == 200


def test_a_delay_is_that_long_and_connections_go_on(three: Hosts, connected: Probe) -> None:
    assert min(connected.round_trip_s() for _ in range(20)) < 0.2
    with three.delaying(0.1):
        delayed = min(connected.round_trip_s() for _ in range(10))
        assert 0.2 <= delayed < 1.0, "there and back"
        with three.losing(0.05):
            assert pings(three[2], three[0].address, 500, 1.0) < 500, "loss and delay at once"
    assert min(connected.round_trip_s() for _ in range(20)) < 0.2


def test_a_lost_host_tells_nobody_and_its_processes_are_gone(three: Hosts) -> None:
    third = three[2]
    lasting = [*third.within, sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(600)"]
    with subprocess.Popen(lasting, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        assert process.pid in third.pids
        three.power_off(third)
        assert process.wait(WAIT_S) == -9
    assert third.pids == []
    assert pings(three[0], third.address, 3, SILENT_S) == 0
    three.plug(third)
    reached(three[0], third.address)


async def test_watchout_runs_on_a_host_forked_and_from_its_scripts(three: Hosts) -> None:
    for prefork in (True, False):
        started = Watchout(host=three[0], prefork=prefork)
        try:
            for name in ("router", "gateway"):
                process = started.start(name)
                await eventually(lambda pid=process.pid: pid in three[0].pids, WAIT_S)
            started.wait_ready()
        finally:
            started.close()


def test_a_shifted_clock_is_wrong_by_so_much_and_measures_time_as_before() -> None:
    program = "import time, datetime; a = time.monotonic(); print(time.time(), datetime.datetime.now().timestamp(), a)"
    for shift in (600, -600):
        environ = {**clean_environ(), **shifted_clock(shift)}
        done = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True)
        wall, of_datetime, monotonic = map(float, done.stdout.split())
        assert abs(wall - time.time() - shift) < WAIT_S
        assert abs(of_datetime - time.time() - shift) < WAIT_S
        assert abs(monotonic - time.monotonic()) < WAIT_S


def test_nothing_is_left_and_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    program = """
import time
from tests.kit.hosts import hosts
with hosts(2) as made:
    print(*(host.name for host in made), flush=True)
    time.sleep(600)
"""
    where = kit.REPOSITORY
    with subprocess.Popen([sys.executable, "-c", program], cwd=where, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        names = run.stdout.readline().split()
        assert set(names) <= set(kit.namespaces())
        left = subprocess.Popen(["ip", "netns", "exec", names[0], "sleep", "600"])
        poll(lambda: left.pid in machines.pids_in(names[0]), WAIT_S, "it does not run there")
        run.kill()
    # Whoever makes hosts next removes what is left, and that may be a test of another worker.
    with kit.hosts(1) as made:
        name = made[0].name
        assert name in kit.namespaces()
        assert not set(names) & set(kit.namespaces())
    assert left.wait(WAIT_S) == -9
    assert name not in kit.namespaces()


def test_a_namespace_that_is_not_there_is_named(three: Hosts) -> None:
    with pytest.raises(FileNotFoundError, match="woh-none"):
        enter("woh-none")


def test_two_sets_of_hosts_do_not_meet(three: Hosts) -> None:
    with kit.hosts(1) as other:
        assert pings(three[0], other[0].address, 2, SILENT_S) == 0
