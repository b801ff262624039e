"""Starts that cannot succeed end with a code and a sentence."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.faults.processes.support import health, served

pytestmark = pytest.mark.e2e


async def test_another_program_on_the_port_ends_the_gateway_with_1_and_a_sentence(watchout):
    started = watchout(start=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", started.port))
        taken.listen()
        gateway = started.start("gateway")
        assert await gateway.ended(30) == 1
    assert str(started.port) in gateway.output
    assert "WATCHOUT_PORT" in gateway.output


async def test_a_watchout_of_another_home_on_the_port_ends_the_gateway_with_1(watchout, clients):
    started = watchout()
    await served(started.url, started.token(), clients)
    gateway = started.start("gateway", {"WATCHOUT_HOME": str(started.directory / "other")})
    assert await gateway.ended(30) == 1
    assert str(started.port) in gateway.output
    assert await health(started.url) == 200


@pytest.mark.parametrize("name", ["router", "gateway", "mlbridge"])
async def test_wrong_settings_end_every_process_with_2_and_are_all_named(watchout, name):
    started = watchout(start=False)
    wrong = {
        "WATCHOUT_PORT": "0", "MAX_MESSAGE_BYTES": "many", "STREAM_ACCESS": "all", "DATABASE_URL": "mysql://secret@x",
        "SERVICE_TOKEN": "too-short", "AUTH_TIMEOUT_S": "-1", "WATCHOUT_LOOP": "trio",
    }  # fmt: skip
    process = started.start(name, wrong)
    assert await process.ended(30) == 2
    for setting in wrong:
        assert setting in process.output
    assert "secret" not in process.output
    assert "too-short" not in process.output
    assert len(process.output.splitlines()) == len(wrong)


async def test_a_home_whose_sockets_would_have_too_long_a_path_is_named(watchout):
    started = watchout(start=False)
    process = started.start("router", {"WATCHOUT_HOME": str(started.directory / ("x" * 100))})
    assert await process.ended(30) == 2
    assert "WATCHOUT_HOME" in process.output


async def test_a_second_sigterm_does_not_wait(watchout, clients):
    started = watchout(environ={"DRAIN_S": "3.5"})
    deaf = await clients.raw(started.url)
    await deaf.upgrade(f"/streams/subscribe?token={started.token()}")
    gateway = started.one("gateway")
    gateway.send_signal(signal.SIGTERM)
    assert await deaf.close_code() == 1012
    gateway.send_signal(signal.SIGTERM)
    assert await gateway.ended(30) == 1, "who has drained, or has waited for it in vain, ends with 0"
