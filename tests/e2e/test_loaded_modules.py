"""A process loads what its settings need: its start is quick and it takes little memory.

What is loaded is asked of processes that served and were told to end.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import subprocess
import sys
from typing import Final

import pytest

from tests.kit.processes import BIN, JOINED, clean_environ

#: Runs a program as its script does, and prints at its end which modules it has.
PROGRAM: Final = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sys.modules, file=sys.__stdout__, flush=True))
sys.argv[0] = "watchout-{name}"
from watchout.{name}.app import main
main()
"""
#: What only some settings need, with those that need it, and with the programs that always do.
ONLY_FOR: Final = {
    "aiohttp": ("a webhook, an HTTP request", set()),
    "asyncpg": ("DATABASE_URL of PostgreSQL", set()),
    "click": ("words on the command line", {"ctl"}),
    "cryptography": ("JWTs, TLS between gateways", set()),
    "importlib.metadata": ("versions of other packages", {"gateway"}),
    "jwt": ("JWTs", set()),
    "nats": ("WATCHOUT_BUS", set()),
    "numpy": ("pictures as arrays", set()),
    "opentelemetry": ("OTEL_EXPORTER_OTLP_ENDPOINT", set()),
    "prometheus_client": ("/metrics", set()),
    "rich": ("a terminal", set()),
    "watchout.common.settings.database_url": ("DATABASE_URL", set()),
    "watchout.router.slots.cluster": ("WATCHOUT_BUS", set()),
    "websockets": ("clients, an ML service over WebSocket", {"gateway"}),
    "yarl": ("URLs of HTTP", {"mlbridge"}),
    "zoneinfo": ("NAIVE_TIMEZONE", set()),
}


def loaded(output: str) -> set[str]:
    """The modules that a program had at its end."""
    (line,) = (line for line in output.splitlines() if line.startswith("LOADED "))
    return set(line.split()[1:])


def too_much(name: str, modules: set[str]) -> dict[str, str]:
    return {library: why for library, (why, always) in ONLY_FOR.items() if library in modules and name not in always}


def test_a_plain_site_loads_nothing_that_its_settings_do_not_need(watchout):
    started = watchout(start=False)
    for name in ("router", "gateway", "mlbridge"):
        environ = {"ML_SERVICE_URL": "http://127.0.0.1:1"} if name == "mlbridge" else {}  # frames go without aiohttp
        started.run(name, [str(BIN / "python"), "-c", PROGRAM.format(name=name)], environ)
    for process in started.processes:  # nobody speaks HTTP
        process.wait_for_output(JOINED.get(process.name, "router ready"))
    found = {}
    for process in list(started.processes):
        assert process.terminate() == 0
        modules = loaded(process.output)
        assert "msgspec" in modules  # what it has is told
        found[process.name] = too_much(process.name, modules)
    assert found == {"router": {}, "gateway": {}, "mlbridge": {}}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_first_http_requests_wait_until_what_answers_them_is_loaded(watchout, loop):
    started = watchout(start=False, prefork=False, loop=loop)
    gateway = started.start("gateway")
    gateway.wait_for_output("gateway ready")
    address = (started.address, started.port)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(8)]
        clients[0].sendall(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        clients[0].close()  # by a reset: it is lost while it waits
        for client in clients[1:]:
            client.sendall(b"POST /alerts HTTP/1.1\r\nHost: here\r\nContent-Length: 30000\r\n\r\n" + b"x" * 20_000)
        for client in clients[1:]:  # the rest of the body comes while it waits, and a second request behind it
            client.sendall(b"x" * 10_000 + b"GET /health/live HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        replies = [b"".join(iter(functools.partial(client.recv, 65536), b"")) for client in clients[1:]]
    for reply in replies:
        assert reply.startswith(b"HTTP/1.1 401 ")
        assert reply.endswith(b'{"status":"live"}')
    assert gateway.terminate() == 0


@pytest.mark.e2e
def test_the_tool_loads_what_its_command_needs():
    program = PROGRAM.format(name="ctl")
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], env=clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout
    assert too_much("ctl", loaded(done.stdout)) == {}


def test_a_keeper_loads_next_to_nothing():
    """There is one for each process, and all that it does is to wait."""
    program = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sys.modules, flush=True))
from watchout.common.process.keeper import main
main()
"""
    script = str(BIN / "watchout-keep")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = [{script!r}, 'router', '--unknown']\n{program}"],
        env=clean_environ(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr  # wrong usage is not tried again
    modules = loaded(done.stdout)
    assert "subprocess" in modules  # what it has is told
    assert (
        modules
        & {"asyncio", "click", "ctypes", "dataclasses", "datetime", "inspect", "logging", "msgspec", "structlog"}
        == set()
    )


def test_a_keeper_refuses_options_that_it_does_not_have():
    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "watchout-keep"), *words], env=clean_environ(), capture_output=True, text=True, timeout=60
        )

    for words in ((), ("--unknown", "router")):
        refused = ran(*words)
        assert refused.returncode == 2
        assert refused.stderr.startswith("Usage: watchout-keep")
    assert ran("--", "sh", "-c", "exit 3").returncode == 3
