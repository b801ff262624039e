"""How long the turns of watchout's event loops are under a load of the benchmark: `python -m benchmarks.turns`.

A frame that comes while the loop is in a long turn waits for its end: such turns are what is seen in the latency at
p99.9, and at p99 when there are many. A turn counts by the CPU time of the loop's thread, in which other work on the
machine does not count, and also by the clock. For the longest ones it is told what was in them: collections of garbage,
and periodic works. Turns of the time in which the load is measured count, not those of the start.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
import msgspec
import uvloop

from benchmarks import runner
from benchmarks.plan import NAMES, POINTS, Turn
from benchmarks.systems import Missing
from benchmarks.systems.watchout import Watchout

PROCESSES: Final = ("gateway", "router", "mlbridge")
#: Upper edges of the classes of turns, in ms; the last class is open.
EDGES_MS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: How many of the longest turns of each process are told.
LONGEST: Final = 5
COMPILE_S: Final = 60.0
_RECORD_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class LoopTurn:
    """One turn of an event loop: its end by the monotonic clock, its CPU time, and its time by the clock, in ns."""

    end_ns: int
    cpu_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """What took long within a turn, and when it ended; a line of the file of `turns_probe`."""

    at_ns: int
    cpu_ms: float
    what: str


def read_turns(data: bytes) -> list[LoopTurn]:
    """The turns that turns.c wrote; a record that is not whole, because the process was killed, is left out."""
    numbers = memoryview(data[: len(data) // _RECORD_BYTES * _RECORD_BYTES]).cast("q").tolist()
    return [LoopTurn(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def read_notes(data: bytes) -> list[Note]:
    """The notes of `turns_probe`; a line that is not whole is left out."""
    return [msgspec.json.decode(line, type=Note) for line in data.split(b"\n")[:-1]]


def histogram(values_ns: Iterable[int]) -> list[int]:
    """How many values there are in each class of `EDGES_MS`; the last one has those from the last edge on."""
    counts = [0] * (len(EDGES_MS) + 1)
    for value in values_ns:
        counts[next((n for n, edge in enumerate(EDGES_MS) if value < edge * 1e6), len(EDGES_MS))] += 1
    return counts


def what_was_in(turn: LoopTurn, notes: Iterable[Note]) -> str:
    """What of the notes was in a turn, the longest first: `collection 1 (0.9 ms), …`; "–": nothing that was noted."""
    found = [note for note in notes if turn.end_ns - turn.wall_ns <= note.at_ns <= turn.end_ns]
    found.sort(key=lambda note: -note.cpu_ms)
    return ", ".join(f"{note.what} ({note.cpu_ms:.1f} ms)" for note in found) or "–"


def table(by_process: dict[str, list[LoopTurn]]) -> Iterator[str]:
    """The histograms, a line for each process and way of counting."""
    edges = [f"< {edge:g}" for edge in EDGES_MS] + [f"≥ {EDGES_MS[-1]:g} ms"]
    yield f"{'':24}" + "".join(f"{edge:>9}" for edge in edges) + "  longest"
    for name, turns in by_process.items():
        for way, values in (("CPU", [turn.cpu_ns for turn in turns]), ("clock", [turn.wall_ns for turn in turns])):
            counts = "".join(f"{count:9}" for count in histogram(values))
            yield f"{name + ', ' + way:24}{counts}  {max(values, default=0) / 1e6:.1f} ms"


def compiled(folder: Path) -> Path:
    """The library that measures turns. Raises `Missing` when it cannot be made here."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise Missing("it needs Linux and a C compiler: install gcc or clang, so that there is a `cc`")
    library = folder / "turns.so"
    argv = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("turns.c")), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    if done.returncode:
        raise Missing(f"{compiler} cannot compile turns.c:\n{done.stderr[-2000:]}")
    return library


@contextmanager
def scripts(folder: Path) -> Iterator[Path]:
    """A folder with console scripts that start the processes with `turns_probe` in them."""
    place = folder / "scripts"
    place.mkdir()
    for name in PROCESSES:
        script = place / f"watchout-{name}"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m benchmarks.turns_probe {name} "$@"\n')
        script.chmod(0o755)
    (place / "watchout-ctl").symlink_to(Path(sys.executable).parent / "watchout-ctl")
    yield place


async def measured(turn: Turn, folder: Path) -> tuple[str, dict[str, list[LoopTurn]], dict[str, list[Note]]]:
    """One run: its line, and the turns and notes of its measured time, by process."""
    marks: dict[str, int] = {}
    output = folder / f"round-{turn.round}"
    output.mkdir()
    with tempfile.TemporaryDirectory() as work, scripts(Path(work)) as place:
        settings = {
            "LD_PRELOAD": str(folder / "turns.so"), "WATCHOUT_BENCH_TURNS": str(output),
            "PYTHONPATH": str(runner.ROOT),
        }  # fmt: skip
        system = Watchout(place, settings=settings)
        run = await runner.one(turn, lambda _: system, on_mark=lambda what: marks.setdefault(what, time.monotonic_ns()))
    turns: dict[str, list[LoopTurn]] = {}
    notes: dict[str, list[Note]] = {}
    for file in sorted(output.glob("*.notes")):
        name, _, pid = file.stem.rpartition("-")
        of_process = read_turns((output / f"{pid}.turns").read_bytes())
        turns.setdefault(name, []).extend(t for t in of_process if marks["start"] < t.end_ns <= marks["stop"])
        notes.setdefault(name, []).extend(read_notes(file.read_bytes()))
    return runner.line_of(run), turns, notes


async def _print_all(point_name: str, rounds: int, seconds: float) -> None:
    (point,) = (each for each in POINTS if each.name == point_name)
    point = replace(point, duration_s=seconds)
    all_turns: dict[str, list[LoopTurn]] = {}
    longest: dict[str, list[tuple[LoopTurn, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="turns-") as directory:
        folder = Path(directory)
        compiled(folder)
        for number in range(1, rounds + 1):
            line, turns, notes = await measured(Turn(number, point, "watchout"), folder)
            click.echo(line)
            for name, found in turns.items():
                all_turns.setdefault(name, []).extend(found)
                told = longest.setdefault(name, [])
                told += [(each, what_was_in(each, notes[name])) for each in _longest(found)]
    click.echo("\n".join(table(all_turns)))
    for name, found_longest in longest.items():
        click.echo(f"the longest of the {name}:")
        for turn, what in sorted(found_longest, key=lambda each: -each[0].cpu_ns)[:LONGEST]:
            click.echo(f"  {turn.cpu_ns / 1e6:6.1f} ms of CPU, {turn.wall_ns / 1e6:6.1f} by the clock: {what}")


def _longest(turns: Sequence[LoopTurn]) -> list[LoopTurn]:
    return sorted(turns, key=lambda turn: -turn.cpu_ns)[:LONGEST]


@click.command()
@click.option("--point", type=click.Choice(NAMES), default="json-50x1", show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=5.0, show_default=True, help="Of each round.")
def main(point: str, rounds: int, seconds: float) -> None:
    """Say how long the turns of gateway, router and bridge are under this load, and what is in the longest."""
    click.echo(f"Python {platform.python_version()}, {point}, {rounds} rounds of {seconds:g} s")
    runner.raise_open_files()
    try:
        uvloop.run(_print_all(point, rounds, seconds))
    except (Missing, runner.Broken) as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
