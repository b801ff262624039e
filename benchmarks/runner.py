"""Runs systems one after the other, puts the load on each, and reads the meters."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import fetch, meter
from benchmarks.load.model import MARKS
from benchmarks.plan import Point, Selection, Turn
from benchmarks.systems import Failed, Missing, Options, Running, System, listening, process, system
from benchmarks.tls import TlsFiles, make_files
from tests.kit.ports import free_port

ROOT: Final = Path(__file__).parents[1]
#: Results of runs that are not the whole go here; git ignores it.
SCRATCH: Final = fetch.CACHE / "results"
#: Beyond its own durations and `load.run.SETUP_S`, a run of the load may take this long before it is ended.
LOAD_SPARE_S: Final = 60.0
LOAD_SPARE_PER_CONNECTION_S: Final = 0.02
#: A whole turn, with the start and the end of its system.
TURN_SPARE_S: Final = 180.0
#: It is told when everything else on the machine takes more than this share of a core.
BUSY_SHARE: Final = 0.15


class Broken(Exception):
    """One run failed; the others go on."""


def load_plan(point: Point, running: Running, authority: Path | None, service_token: str | None) -> dict[str, Any]:
    """What the load is asked to do with a started system, as `load.model.Plan`.

    Args:
        point: What is measured.
        running: The system; where it knows no alerts, frames of as many bytes stand for those of cameras.
        authority: The file of the authority, where all connections are TLS; None: they are not.
        service_token: The token of the ML side, where it sends alerts.
    """
    plan = {
        **point.load(), "dialect": running.dialect, "ports": running.ports, "token": running.token,
        "service_token": service_token,
    }  # fmt: skip
    if authority is not None:
        plan["trust"] = str(authority)
    if point.envelope == "alert" and not running.has_alerts:
        plan["envelope"] = "like-alert"
    return plan


async def measured(
    turn: Turn,
    running: Running,
    tls: TlsFiles | None = None,
    service_token: str | None = None,
    on_mark: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Put the load of a turn on a started system; the load's result and what the meters said. Raises `Broken`.

    `on_mark` is called with each of `MARKS` when the load says it.
    """
    point = turn.point
    plan = load_plan(point, running, None if tls is None else tls.authority, service_token)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, start_new_session=True, env={**os.environ, "OPENSSL_CONF": str(tls.openssl)} if tls else None,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    seen = Seen(running.pids)
    said: list[str] = []
    output = asyncio.create_task(child.stdout.read())
    connections = point.streams * (1 + point.viewers_per_stream) + point.idle
    timeout_s = (
        point.warmup_s + point.duration_s + 4 * point.settle_s
        + LOAD_SPARE_S + LOAD_SPARE_PER_CONNECTION_S * connections
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            child.stdin.write(json.dumps(plan).encode())
            child.stdin.close()
            async for raw in child.stderr:
                line = raw.decode(errors="replace").rstrip()
                if line in MARKS:
                    if on_mark is not None:
                        on_mark(line)  # first: the meters take their time
                    seen.mark(line)
                else:
                    said.append(line)
            result = json.loads(await output or "null")
            await child.wait()
    except TimeoutError:
        raise Broken(f"the load did not end within {timeout_s:.0f} s") from None
    except meter.Gone as e:
        raise Broken(f"the system ended under the load: {e}") from e
    finally:
        if child.returncode is None:
            child.kill()
        output.cancel()
        await asyncio.gather(child.wait(), output, return_exceptions=True)
    if child.returncode or result is None:
        raise Broken("\n".join(said[-20:]) or f"the load ended with {child.returncode}")
    return {"load": result, **seen.figures(result)}


class Seen:
    """What the meters say at the marks of the load."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._roots = pids
        self._pids: tuple[int, ...] = ()
        self._used: dict[str, list[meter.Use]] = {}
        self._busy_s: dict[str, float] = {}
        self._pss_bytes: dict[str, int] = {}

    def mark(self, what: str) -> None:
        """Read the meters now. Raises `meter.Gone`."""
        self._pids = self._pids or meter.with_children(self._roots)
        if what in ("start", "stop"):
            self._used[what] = meter.cpu(self._pids)
            self._busy_s[what] = meter.machine_busy_s()
        if what != "start":
            self._pss_bytes[what] = meter.pss(self._pids)

    def figures(self, load: dict[str, Any]) -> dict[str, Any]:
        """As the result file has it. `others_cpu_s`: CPU of all that is neither system nor load, within 10 ms."""
        found: dict[str, Any] = {}
        if {"start", "stop"} <= self._used.keys():
            used: list[dict[str, Any]] = [
                {"pid": before.pid, "name": before.name, "cpu_s": after.cpu_s - before.cpu_s}
                for before, after in zip(self._used["start"], self._used["stop"], strict=True)
            ]
            cpu_s: float = sum(each["cpu_s"] for each in used)
            others_s = self._busy_s["stop"] - self._busy_s["start"] - cpu_s - load["load_cpu_s"]
            found |= {
                "server_cpu_s": cpu_s,
                "processes": used,
                "others_cpu_s": max(0.0, others_s),
                "pss_bytes": self._pss_bytes["stop"],
                "cpu_us_per_delivered": 1e6 * cpu_s / load["delivered"] if load["delivered"] else None,
            }
        if {"before", "idle"} <= self._pss_bytes.keys():
            before, after = self._pss_bytes["before"], self._pss_bytes["idle"]
            found |= {"pss_before_bytes": before, "pss_bytes": after}
            found["bytes_per_connection"] = (after - before) / load["idle"]
        return found


@asynccontextmanager
async def ml_sink(point: Point, work: Path) -> AsyncIterator[str | None]:
    """The URL of an ML service that says nothing, where the point wants one; its CPU counts for nobody."""
    if not point.ml_fps:
        yield None
        return
    port, log = free_port(), work / "sink.log"
    async with process([sys.executable, "-m", "benchmarks.sink", str(port)], log=log, cwd=ROOT) as child:
        await listening(port, child, log)
        if point.ml_hangs:
            child.send_signal(signal.SIGSTOP)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.send_signal(signal.SIGCONT)


async def sink_requests(url: str | None) -> int | None:
    """How many requests the sink has answered."""
    if url is None:
        return None
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nHost: sink\r\nContent-Length: 0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"x-requests:"):
            return int(line.partition(b":")[2])
    return None


async def one(
    turn: Turn, of: Callable[[str], System] = system, on_mark: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """One run of the system that `of` has for the turn's name. Raises `Missing`, or `Broken` with what went wrong.

    `on_mark` as in `measured`.
    """
    base = {"point": turn.point.name, "system": turn.system, "round": turn.round}
    measured_system = of(turn.system)
    if turn.point.format not in measured_system.formats:
        raise Missing(f"it has no {turn.point.format} frames")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        work = Path(directory)
        try:
            async with asyncio.timeout(TURN_SPARE_S + turn.point.duration_s), ml_sink(turn.point, work) as ml_url:
                tls = make_files(work / "tls") if turn.point.tls else None
                service_token = secrets.token_hex(16) if turn.point.alerts_per_s else None
                options = Options(turn.point.gateways, turn.point.hosts, ml_url, turn.point.ml_fps, tls, service_token)
                async with measured_system.started(work, options=options) as running:
                    found = await measured(turn, running, tls, service_token, on_mark)
                    if ml_url is not None and not turn.point.ml_hangs:
                        found["ml_requests"] = await sink_requests(ml_url)
                    return {**base, **found, "settings": dict(running.settings or {})}
        except TimeoutError:
            raise Broken("the whole run took too long") from None
        except (Failed, meter.Gone, OSError) as e:
            raise Broken(str(e)) from e


def line_of(run: dict[str, Any]) -> str:
    """One run in a line for the terminal."""
    load = run["load"]
    if "bytes_per_connection" in run:
        return f"{run['bytes_per_connection'] / 1000:6.2f} kB per connection, {load['connect_s']:.1f} s to connect"
    latency = load["latency_ms"] or dict.fromkeys(("p50", "p99", "p999"), float("nan"))
    lateness = (load["lateness_ms"] or {}).get("p99", 0.0)
    text = (
        f"{run['cpu_us_per_delivered'] or float('nan'):6.2f} µs/frame  "
        f"{load['delivered']}/{load['expected']}  p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} "
        f"p99.9 {latency['p999']:.2f} ms  {run['pss_bytes'] / 1e6:.0f} MB  "
        f"load {100 * load['load_cpu_s'] / load['measured_s']:.0f} % late {lateness:.2f} ms"
    )
    if load["slow"]:
        age = load["slow"]["age_ms"] or {"p50": float("nan"), "max": float("nan")}
        text += (
            f"  slow: {load['slow']['received']} frames, age p50 {age['p50']:.0f} max {age['max']:.0f} ms,"
            f" transfer {load['slow']['transfer_ms']:.0f} ms"
        )
    if run.get("ml_requests") is not None:
        text += f"  {run['ml_requests']} requests to the ML service"
    if run["others_cpu_s"] > BUSY_SHARE * load["measured_s"]:
        text += f"  others took {100 * run['others_cpu_s'] / load['measured_s']:.0f} % of a core"
    for fault in ("corrupt", "reordered", "not_sent"):
        if load[fault]:
            text += f"  {fault.upper()} {load[fault]}"
    if load["first_corrupt"]:
        text += f" ({load['first_corrupt']})"
    return text


async def all_runs(turns: Iterable[Turn], raw: dict[str, Any], of: Callable[[str], System] = system) -> None:
    """Every run, into `raw`, which is whole after each of them."""
    for turn in turns:
        label = f"{turn.round}  {turn.point.name:13} {turn.system:13}"
        if turn.system in raw["missing"]:
            continue
        try:
            run = await one(turn, of)
        except Missing as e:
            if turn.point.format == "json":
                raw["missing"][turn.system] = str(e)
            click.echo(f"{label} missing: {e}")
        except Broken as e:
            raw["failed"].append({"point": turn.point.name, "system": turn.system, "round": turn.round, "why": str(e)})
            click.echo(f"{label} FAILED: {e}", err=True)
        else:
            raw["runs"].append(run)
            click.echo(f"{label} {line_of(run)}")


def new_results(selection: Selection, module: str, on: dict[str, Any]) -> dict[str, Any]:
    """The results of a run that begins now, without a run yet; `on` is what `machine` says, `module` was started."""
    return {
        "machine": on,
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "quick": selection.quick,
        "rounds": selection.rounds,
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "points": {point.name: {"what": point.what, **point.load()} for point in selection.chosen},
        "runs": [],
        "failed": [],
        "missing": {},
    }


def save(raw: dict[str, Any], file: Path) -> None:
    """Write results to their file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    click.echo(f"wrote {file}")


def machine(systems: set[str]) -> dict[str, Any]:
    """What the figures were measured on, with the versions of what takes part in these systems."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions(systems),
    }


def versions(systems: set[str]) -> dict[str, str]:
    """Versions of what takes part, as far as it is there."""
    found = {package: importlib.metadata.version(package) for package in ("uvloop", "websockets", "pyzmq", "msgspec")}
    asked: dict[str, tuple[str, Callable[[], str]]] = {
        "bun": ("bun", lambda: _first_line(fetch.bun(), "--version")),
        "node": ("ws", lambda: _first_line(fetch.node(), "--version").removeprefix("v")),
        "ws": ("ws", lambda: str(json.loads((fetch.node_modules() / "ws/package.json").read_text())["version"])),
        "nginx": ("nchan", lambda: fetch.nginx().version),
        "cc": ("floor-c", lambda: _first_line(shutil.which("cc") or "cc", "--version")),
    }
    for name, (of, ask) in asked.items():
        if of in systems:
            with contextlib.suppress(Missing, OSError, subprocess.SubprocessError):
                found[name] = ask()
    return found


def _first_line(program: Path | str, *arguments: str) -> str:
    said = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=True)
    return said.stdout.strip().splitlines()[0]


def raise_open_files() -> None:
    """Children inherit the limit: thousands of connections need as many files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def until_ended(turns: Iterable[Turn], raw: dict[str, Any], of: Callable[[str], System] = system) -> bool:
    """All runs; False when a signal ended them early. Whatever runs then is ended first."""
    task = asyncio.ensure_future(all_runs(turns, raw, of))
    loop = asyncio.get_running_loop()
    told = False

    def end() -> None:
        nonlocal told
        if not told:  # a second signal must not disturb the cleaning up
            told = True
            click.echo("ending what runs …", err=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True
