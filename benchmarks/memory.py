"""Memory of a system at rest, process by process: `python -m benchmarks.memory`.

What `make run` starts (honcho with the Procfile, its keepers, router, gateway and mlbridge), in a home of its own. Told
is the proportional set size: pages that processes share are divided among them. Memory under load is measured by
`watchout-ctl rehearse`.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from benchmarks import meter
from benchmarks.systems import Failed, process, tail
from tests.kit.ports import free_port
from watchout.common.settings import table

ROOT: Final = Path(__file__).parents[1]
START_S: Final = 60.0
#: Seconds after the start before memory is read: what is done once is done by then.
REST_S: Final = 10.0
KINDS: Final = ("router", "gateway", "mlbridge")


async def _ready(log: Path, child: asyncio.subprocess.Process) -> None:
    """Wait until all three say that they are ready. Raises `Failed`."""
    give_up = time.perf_counter() + START_S
    while not all(f"{kind} ready" in log.read_text(errors="replace") for kind in KINDS):  # noqa: ASYNC240
        if child.returncode is not None or time.perf_counter() > give_up:
            raise Failed("not all processes are ready:\n" + tail(log))
        await asyncio.sleep(0.2)


def _words(pid: int) -> str:
    """What a process is, by its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    names = [Path(word).name for word in words[:3] if word]
    return " ".join(name for name in names if not name.startswith("python"))


async def _measured() -> list[str]:
    with tempfile.TemporaryDirectory(prefix="wo-") as work:
        log = Path(work) / "log"
        environ: dict[str, str | None] = {spec.env: None for _, spec, _ in table()}
        scripts = Path(sys.executable).parent
        environ |= {
            "WATCHOUT_HOME": str(Path(work) / "home"), "WATCHOUT_PORT": str(free_port()),
            "WATCHOUT_HOST": "127.0.0.1", "PATH": f"{scripts}:/usr/bin:/bin",
        }  # fmt: skip
        argv: list[str | Path] = [scripts / "honcho", "--no-colour", "-f", ROOT / "Procfile", "-d", work, "start"]
        async with process(argv, log=log, env=environ, cwd=Path(work)) as child:
            await _ready(log, child)
            await asyncio.sleep(REST_S)
            rows = [(_words(pid), meter.pss_bytes(pid)) for pid in meter.with_children([child.pid])]
    lines = [f"{name:<30}{size / 1e6:8.1f} MB" for name, size in sorted(rows)]
    return [*lines, f"{'all':<30}{sum(size for _, size in rows) / 1e6:8.1f} MB"]


@click.command()
def main() -> None:
    """Say how much memory each process of a system at rest has."""
    click.echo(f"Python {platform.python_version()}")
    try:
        lines = asyncio.run(_measured())
    except Failed as fault:
        raise click.ClickException(str(fault)) from None
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
