"""The port of a gateway: passed sockets, or its own."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path

import pytest

from tests.kit.ports import free_port
from watchout.common.errors import StartError
from watchout.common.home_files import port_lock
from watchout.gateway.listen import port as module
from watchout.gateway.listen.port import ListeningPort


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_passed_socket_is_listened_on_and_no_other_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passed = socket.create_server(("127.0.0.1", 0))
    number = passed.getsockname()[1]
    monkeypatch.setattr(module, "take_sockets", lambda: [passed])
    monkeypatch.setattr(module, "open_sockets", lambda *_: pytest.fail("it opens a socket of its own"))
    port = ListeningPort("no.such.host", number, tmp_path)
    port.open()
    assert port.sockets == [passed]
    assert port.where() == {"port": number, "host": "127.0.0.1", "sockets_of": "the service manager"}
    # Commands of the home find the port of the gateway by its lock.
    assert is_locked(tmp_path / port_lock(number))
    port.close()
    assert passed.fileno() == -1
    assert not is_locked(tmp_path / port_lock(number))


def test_without_passed_sockets_the_port_of_the_settings_is_opened(tmp_path: Path) -> None:
    number = free_port()
    first, second = ListeningPort("127.0.0.1", number, tmp_path), ListeningPort("127.0.0.1", number, tmp_path)
    for each in (first, second):  # gateways of one home share it
        each.open()
        assert [one.getsockname()[1] for one in each.sockets] == [number]
        assert each.where() == {"port": number, "host": "127.0.0.1"}
    other = ListeningPort("127.0.0.1", number, tmp_path / "other")
    (tmp_path / "other").mkdir()
    with pytest.raises(StartError, match="not available"):
        other.open()
    for each in (first, second, other):
        each.close()
    assert not is_locked(tmp_path / port_lock(number))


def test_what_waits_at_a_port_that_closes_is_taken_first(tmp_path: Path) -> None:
    """A connection whose handshake is done would be reset by the kernel."""
    number = free_port()
    port = ListeningPort("127.0.0.1", number, tmp_path)
    port.open()
    clients = [socket.create_connection(("127.0.0.1", number)) for _ in range(3)]
    (spare,) = port.spares()
    port.close()
    taken = module.accept_waiting(spare)
    spare.close()
    assert len(taken) == 3
    for one, client in zip(taken, clients, strict=True):
        one.sendall(b"x")
        assert client.recv(1) == b"x"
        one.close()
        client.close()


def test_what_waits_in_a_socket_of_the_service_manager_is_left_to_the_next_gateway(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passed = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(module, "take_sockets", lambda: [passed])
    port = ListeningPort("", passed.getsockname()[1], tmp_path)
    port.open()
    assert port.spares() == []
    port.close()


def test_gateways_of_one_port_know_of_each_other_until_they_drain(tmp_path: Path) -> None:
    number = free_port()
    first, second, third = (ListeningPort("127.0.0.1", number, tmp_path) for _ in range(3))
    first.open()
    assert not first.is_shared(), "it is alone"
    second.open()
    assert first.is_shared()
    assert not second.is_shared(), "the first one drains, and does not count"
    third.open()
    assert first.is_shared()
    for each in (first, second, third):
        each.close()
    assert not first.is_shared()
