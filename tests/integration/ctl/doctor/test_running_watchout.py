"""``watchout-ctl doctor`` beside running processes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.doctor_report import Doctor, line, make_certificate
from tests.kit.processes import BIN, Watchout, poll

#: What the doctor may take at most on a machine that is busy: it waits 3 s for each answer, for several at a time.
BOUND_S = 30


def of(watchout: Watchout, **environ: str) -> dict[str, str]:
    names = ("WATCHOUT_HOME", "WATCHOUT_HOST", "WATCHOUT_PORT")
    return {name: watchout.environ[name] for name in names} | environ


@pytest.mark.e2e
async def test_a_watchout_that_runs_is_well(doctor: Doctor, plain_watchout: Watchout, tmp_path: Path) -> None:
    token = plain_watchout.token()
    poll(lambda: "joined the router" in plain_watchout.output, 30, "the bridge did not join")
    ended = await doctor(**of(plain_watchout))
    assert ended.code == 0, ended.out
    assert line(ended, "home", "ok", "is private")
    assert line(ended, "store", "ok", "sessions.db answers")
    assert line(ended, "ports", "ok", f"The gateway on port {plain_watchout.port} responds, and is healthy.")
    assert re.search("1 gateway, 1 mlbridge, 0 streams", line(ended, "ports", "ok", "The router replies, up "))
    assert re.search(r"^\S+ +ports +The gateway \(process \d+\) may open", ended.out, re.MULTILINE)
    assert token not in ended.out
    assert plain_watchout.get("/streams", token)[0] == 200
    with_bridge = await doctor(**of(plain_watchout, ML_SERVICE_URL=plain_watchout.url))
    assert "no mlbridge runs" not in with_bridge.out


@pytest.mark.e2e
async def test_a_watchout_of_another_home_on_the_port_is_wrong(
    doctor: Doctor, plain_watchout: Watchout, home: Path
) -> None:
    ended = await doctor(**of(plain_watchout, WATCHOUT_HOME=str(home)))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "A watchout with another WATCHOUT_HOME listens on port")


@pytest.mark.e2e
async def test_another_port_than_the_gateways_is_a_warning(
    doctor: Doctor, plain_watchout: Watchout, unused_port: int
) -> None:
    ended = await doctor(**of(plain_watchout, WATCHOUT_PORT=str(unused_port)))
    assert ended.code == 0
    assert line(ended, "ports", "warning", f"a gateway of this home does on {plain_watchout.port}")


@pytest.mark.e2e
async def test_what_is_missing_of_a_watchout_is_said(doctor: Doctor, watchout: Callable[..., Watchout]) -> None:
    half = watchout(start=False)
    half.start("router").wait_for_output("router ready")
    ended = await doctor(**of(half))
    assert ended.code == 0
    assert line(ended, "ports", "warning", "a router runs on this home, but no gateway")
    half.start("gateway")
    half.wait_ready()
    half.one("router").kill()
    poll(lambda: half.get("/health")[0] == 503, 30, "the gateway did not notice")
    ended = await doctor(**of(half))
    assert ended.code == 1
    assert line(
        ended, "ports", "wrong", "responds, but is not healthy: the router is unreachable. Start `watchout-router`"
    )
    assert line(ended, "ports", "wrong", "No router replies")
    half.one("gateway").pause()
    ended = await doctor(**of(half))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "does not respond: no answer within 3 s. It hangs or is overloaded")


@pytest.mark.e2e
async def test_a_gateway_with_tls_is_asked_over_tls(
    doctor: Doctor, watchout: Callable[..., Watchout], tmp_path: Path
) -> None:
    settings = make_certificate(tmp_path, 60)
    secure = watchout(start=False, environ=settings)
    secure.start("gateway").wait_for_output("gateway ready")
    ended = await doctor(**of(secure, **settings))
    assert line(ended, "ports", "wrong", "responds, but is not healthy: the router is unreachable")
    assert "another certificate" not in ended.out
    ended = await doctor(**of(secure))
    assert line(ended, "ports", "wrong", "uses TLS, but TLS_CERT is not set")
    (tmp_path / "new").mkdir()
    ended = await doctor(**of(secure, **make_certificate(tmp_path / "new", 60)))
    assert line(ended, "ports", "warning", "presents another certificate than TLS_CERT holds")


async def test_a_pipe_that_closes_early_is_no_traceback(start: Callable[..., Any]) -> None:
    command = await start("doctor")
    command.process.stdout._transport.close()
    await asyncio.wait_for(command.process.wait(), BOUND_S)
    assert b"Traceback" not in await command.process.stderr.read()


def findings_of(started: Watchout, **environ: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [BIN / "watchout-ctl", "doctor", "--json"], env={**started.environ, **environ}, capture_output=True, text=True,
        timeout=60, cwd=started.directory,
    )  # fmt: skip
    body = json.loads(done.stdout)
    return body["findings"] if isinstance(body, dict) else body


@pytest.mark.e2e
def test_the_doctor_judges_what_runs_and_not_what_it_was_started_with(watchout) -> None:
    started = watchout(environ={"STREAM_ACCESS": "authenticated"})
    poll(lambda: "joined the router" in started.output, 30, "the bridge did not join")
    found = findings_of(started, STREAM_ACCESS="owner", SERVICE_TOKEN="", WATCHOUT_PORT="1")
    text = json.dumps(found)
    assert started.environ["SERVICE_TOKEN"] not in text
    about_processes = [each for each in found if each["check"] == "processes"]
    told = {each["facts"]["name"]: each["facts"] for each in about_processes if "settings" in each.get("facts", {})}
    assert {name: facts["pid"] for name, facts in told.items()} == {p.name: p.pid for p in started.processes}
    assert told["gateway"]["settings"]["SERVICE_TOKEN"] == "set"
    (differs,) = [each["says"] for each in about_processes if "gateway" in each["says"] and each["level"] == "warning"]
    assert "STREAM_ACCESS is authenticated there and not set here" in differs
    assert "SERVICE_TOKEN is set there and not set here" in differs
    # The port that is looked at is the gateway's, not that of the command.
    assert any(f"The gateway on port {started.port} responds, and is healthy" in each["says"] for each in found)
