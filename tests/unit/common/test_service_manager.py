"""What is said to a service manager, over real datagram sockets, and what is read of its environment."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common import supervisor
from watchout.common.errors import StartError
from watchout.common.process import readiness as module
from watchout.common.process.passed_sockets import FIRST_FD, MOST_FDS, passed_descriptors, take_sockets
from watchout.common.process.readiness import Readiness
from watchout.common.process.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager_socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A value of NOTIFY_SOCKET, and the socket behind it."""
    name = f"watchout-test-{os.getpid()}-{id(tmp_path)}"
    value = str(tmp_path / "n") if request.param == "path" else f"@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(value if request.param == "path" else f"\0{name}")
        receiver.settimeout(30)
        yield value, receiver


def test_ready_status_and_stopping_arrive_as_lines_of_one_datagram(manager_socket: tuple[str, socket.socket]) -> None:
    value, receiver = manager_socket
    environ = {"NOTIFY_SOCKET": value, "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    manager = ServiceManager(environ)
    assert environ == {"HOME": "/"}  # no child process speaks for this one
    assert manager.watchdog_s == 1.5
    manager.ready("serves")
    manager.status("serves")  # said already
    manager.status("two\nlines\tof text")
    manager.alive()
    manager.stopping("drains", 8.7)
    assert [receiver.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=serves", b"STATUS=two lines of text", b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=drains\nEXTEND_TIMEOUT_USEC=8700000",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["", "relative", "@", "vsock:2:1", "/nowhere/at/all"])
def test_without_a_manager_that_can_be_reached_nothing_happens(value: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": value, "WATCHDOG_USEC": "1000000"})
    assert manager.present == value.startswith("/")
    assert (manager.watchdog_s is None) == (not manager.present)
    for speak in (manager.ready, manager.status):
        speak("x")
    manager.stopping("x", 1.0)
    manager.alive()


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "n"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "n")})
        for number in range(2000):  # more than any queue of datagrams takes
            manager.status(f"{number} {'x' * 150}")
            manager.alive()


@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_stands_in_the_variables_of_the_watchdog_it_is_a_time_or_none(usec: str, pid: str) -> None:
    found = ServiceManager({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}).watchdog_s
    assert found is None or found > 0
    if pid.strip() not in ("", str(os.getpid())):
        assert found is None


def test_the_watchdog_of_another_process_is_not_fed() -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}).watchdog_s is None


# ── passed sockets ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_descriptors_have_the_names_of_the_unit_or_none() -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:admin"}
    assert [(each.fd, each.name) for each in passed_descriptors(environ, 7)] == [(3, "http"), (4, "admin")]
    for names in ("", "http", "a:b:c"):
        found = passed_descriptors({**environ, "LISTEN_FDNAMES": names}, 7)
        assert [each.name for each in found] == ["unknown", "unknown"]


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"},
                                     {"LISTEN_PID": "", "LISTEN_FDS": "1"}, {"LISTEN_PID": "8", "LISTEN_FDS": "x"},
                                     {"LISTEN_PID": "7", "LISTEN_FDS": "0"}])  # fmt: skip
def test_what_was_passed_to_another_process_is_not_taken(environ: dict[str, str]) -> None:
    assert passed_descriptors(environ, 7) == ()


@given(st.text(max_size=8))
def test_a_number_of_descriptors_is_a_number_within_bounds_or_an_error(text: str) -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": text}
    if text.strip().isascii() and text.strip().isdecimal() and int(text) <= MOST_FDS:
        found = passed_descriptors(environ, 7)
        assert [each.fd for each in found] == list(range(FIRST_FD, FIRST_FD + int(text)))
        return
    with pytest.raises(StartError, match="LISTEN_FDS"):
        passed_descriptors(environ, 7)


def test_without_a_service_manager_no_socket_is_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "HOME": "/"}
    assert take_sockets(environ) == []
    assert environ == {"HOME": "/"}


# ── readiness ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Heard(ServiceManager):
    """A manager that writes down what it hears."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        super().__init__({"NOTIFY_SOCKET": "/n"})
        self.watchdog_s = watchdog_s
        self.heard: list[str] = []

    def _send(self, text: str, timeout_s: float) -> None:
        self.heard += text.split("\n")


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_ready_is_said_when_nothing_is_missing_and_not_before() -> None:
    manager, lacks = Heard(), ["the router is unreachable"]

    async def missing() -> str | None:
        return lacks[0] if lacks else None

    readiness = Readiness(manager, missing)
    readiness.begin()
    readiness.started()
    await until(lambda: "STATUS=starts: the router is unreachable" in manager.heard)
    assert "READY=1" not in manager.heard
    lacks.clear()
    await until(lambda: "READY=1" in manager.heard)
    assert "WATCHDOG=1" not in manager.heard  # none was asked for
    readiness.stopping(5.1)
    readiness.close()
    assert manager.heard[-5:] == [
        "READY=1", "STATUS=serves", "STOPPING=1", "STATUS=drains", "EXTEND_TIMEOUT_USEC=5100000"
    ]  # fmt: skip


async def test_an_outage_delays_ready_for_a_bounded_time_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_WAIT_S", 0.05)
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    manager, lacks = Heard(), ["the session store is away"]

    async def missing() -> str | None:
        return lacks[0] if lacks else None

    readiness = Readiness(manager, missing)
    readiness.started()
    await until(lambda: manager.heard[-2:] == ["READY=1", "STATUS=runs, but the session store is away"])
    lacks.clear()
    await until(lambda: manager.heard[-1] == "STATUS=serves")
    readiness.close()


async def test_the_watchdog_is_fed_by_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faulthandler.enable", lambda: None)

    async def missing() -> str | None:
        return None

    manager = Heard(watchdog_s=0.03)
    readiness = Readiness(manager, missing)
    readiness.begin()
    await until(lambda: manager.heard.count("WATCHDOG=1") > 3)
    readiness.close()
    assert readiness._beat is None


async def test_a_look_that_fails_is_logged_and_holds_nothing_up() -> None:
    async def missing() -> str | None:
        raise RuntimeError("of the test")

    manager = Heard()
    readiness = Readiness(manager, missing)
    readiness.started()
    await until(lambda: manager.heard == ["READY=1", "STATUS=serves"])
    assert supervisor.current().failures["report to the service manager"] == 1
    readiness.close()
