"""Name servers that do not answer keep nothing else waiting, and each name is looked up once at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kit.clients import eventually
from watchout.common.bus.nats.dialing import Dialer
from watchout.common.bus.zeromq import tls_sockets
from watchout.common.settings import load
from watchout.common.toolbox import name_lookup
from watchout.common.toolbox.name_lookup import look_up

COMES_S = 30


class NameServers:
    """Answer names that begin with ``stuck`` once `answer` is set; count all that is asked."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: Counter[str] = Counter()

    def getaddrinfo(self, host: str, port: Any, *_: Any, **options: Any) -> list[Any]:
        if options.get("flags") == socket.AI_NUMERICHOST:
            return real(host, port, type=socket.SOCK_STREAM)
        self.asked[host] += 1
        if host.startswith("stuck"):
            self.answer.wait()
            raise socket.gaierror(-3, "temporary failure")
        if host == "bad":
            raise UnicodeError
        return real("127.0.0.1", port, type=socket.SOCK_STREAM) + real("::1", port, type=socket.SOCK_STREAM)


real = socket.getaddrinfo


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    made = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answer.set()


def dialer(*hosts: str) -> Dialer:
    return Dialer.of(load({"WATCHOUT_BUS": ",".join(f"nats://{host}:4222" for host in hosts)}), "inbox")


async def test_a_name_has_its_addresses_with_the_port_and_an_address_is_not_looked_up(names: NameServers) -> None:
    assert [row[4][:2] for row in await look_up("host", 80)] == [("127.0.0.1", 80), ("::1", 80)]
    assert [row[4][:2] for row in await look_up("host", 81)] == [("127.0.0.1", 81), ("::1", 81)]
    assert [row[4][:2] for row in await look_up("::1", 80)] == [("::1", 80)]
    assert names.asked == {"host": 2}
    with pytest.raises(OSError, match="no host name"):
        await look_up("bad", 80)


async def test_names_that_are_not_answered_are_asked_for_once_and_no_other_work_waits(
    names: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.common.bus.nats.dialing.LOOK_UP_S", 0.01)
    some, loop = dialer("stuck-1", "stuck-2", "127.0.0.1"), asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as threads, contextlib.ExitStack() as stack:
        stack.callback(names.answer.set)
        loop.set_default_executor(threads)
        for _ in range(50):  # as often as a process tries to connect
            assert [each.address for each in await some._candidates(None)] == ["127.0.0.1"]
        assert names.asked == {"stuck-1": 1, "stuck-2": 1}
        assert "not resolved within 0.01 s" in some.failures["nats://stuck-1:4222"]
        async with asyncio.timeout(COMES_S):
            await asyncio.to_thread(int)
        taken = threads.submit(names.answer.wait)  # by others, all of them
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(COMES_S):
                for host in ("127.0.0.1", "host"):
                    (await tls_sockets._connected(loop, host, port)).close()
        assert not taken.done()
        names.answer.set()
    with pytest.raises(socket.gaierror, match="temporary failure"):
        await look_up("stuck-1", 80)


async def test_few_names_are_looked_up_at_the_same_time(names: NameServers) -> None:
    most = name_lookup.MAX_RUNNING
    asking = [asyncio.create_task(look_up(f"stuck-{number}", 80)) for number in range(most + 3)]
    await eventually(lambda: len(names.asked) == most, COMES_S)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(names.asked) == most
    names.answer.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, socket.gaierror) for each in results)
    assert len(names.asked) == most + 3
