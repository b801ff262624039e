"""CPU of a system at rest, process by process: `python -m benchmarks.rest`.

Router, gateway and mlbridge as they are shipped, without a client; with `--hosts 2` a gateway for each host, the first
of which has the router, and a NATS server that joins them. Told are the CPU time of each process, and how often its
threads woke up: each time that a thread waited and went on counts. With `--beside` another installation is measured at
the same time, so that both meet the same machine.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from benchmarks import meter
from benchmarks.systems import Failed, Missing, Options
from benchmarks.systems.watchout import Watchout

#: Seconds after the start before the measurement begins: what is done once is done by then.
REST_S: Final = 8.0
WIDTH: Final = 34


@dataclass(frozen=True, slots=True)
class Row:
    """What one process used in a second."""

    name: str
    cpu_ms: float
    wake_ups: float


def rows_of(before: Iterable[meter.Rest], after: Iterable[meter.Rest], seconds: float) -> list[Row]:
    """What each process used between two readings, for each of these seconds; by name."""
    first = {each.pid: each for each in before}
    return sorted(
        (
            Row(
                each.name,
                (each.cpu_s - first[each.pid].cpu_s) * 1000 / seconds,
                (each.waits - first[each.pid].waits) / seconds,
            )
            for each in after
        ),
        key=lambda row: row.name,
    )


def table(name: str, rows: list[Row]) -> list[str]:
    """The lines of one installation."""
    total = Row("all", sum(row.cpu_ms for row in rows), sum(row.wake_ups for row in rows))
    return [
        f"{name:<{WIDTH}}{'ms/s':>8}{'wake-ups/s':>12}",
        *(f"{row.name:<{WIDTH}}{row.cpu_ms:8.2f}{row.wake_ups:12.1f}" for row in (*rows, total)),
    ]


@asynccontextmanager
async def _pids(system: Watchout, hosts: int) -> AsyncIterator[tuple[int, ...]]:
    with tempfile.TemporaryDirectory(prefix="wo-") as work:
        async with system.started(Path(work), options=Options(gateways=hosts, hosts=hosts)) as running:
            yield running.pids


async def _measured(systems: list[Watchout], hosts: int, seconds: float) -> list[str]:
    async with AsyncExitStack() as stack:
        started = {each.name: await stack.enter_async_context(_pids(each, hosts)) for each in systems}
        await asyncio.sleep(REST_S)
        before = {name: meter.rest(pids) for name, pids in started.items()}
        await asyncio.sleep(seconds)
        after = {name: meter.rest(pids) for name, pids in started.items()}
    return [line for name in started for line in table(name, rows_of(before[name], after[name], seconds))]


@click.command()
@click.option("--hosts", default=1, show_default=True, help="Hosts, each with a gateway; NATS joins more than one.")
@click.option("--seconds", default=20.0, show_default=True, help="How long is measured.")
@click.option(
    "--beside",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the console scripts of another installation, measured at the same time.",
)
def main(hosts: int, seconds: float, beside: Path | None) -> None:
    """Say how much CPU each process of a system at rest takes."""
    click.echo(f"Python {platform.python_version()}")
    systems = [Watchout(Path(sys.executable).parent, "here")]
    if beside is not None:
        systems.append(Watchout(beside.absolute(), "beside"))
    try:
        lines = asyncio.run(_measured(systems, hosts, seconds))
    except (Failed, Missing, meter.Gone) as fault:
        raise click.ClickException(str(fault)) from None
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
