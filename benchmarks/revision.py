"""The command `python -m benchmarks.revision`: measures watchout as it is beside one of its former revisions.

Both are installed in the same way: the files go to a folder below build/bench, which gets a virtual environment with
the packages that this environment has, in the same versions. So a difference is one of watchout's own code. They run
in turns, in the same rounds and under the same load, and every frame that a viewer receives is compared.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from benchmarks import fetch, report, revision_report
from benchmarks.__main__ import spread
from benchmarks.plan import COMPARED, REVISION_ROUNDS, REVISIONS, Selection
from benchmarks.runner import ROOT, SCRATCH, machine, new_results, raise_open_files, save, until_ended
from benchmarks.systems import Missing, System
from benchmarks.systems.watchout import Watchout

#: A folder for each revision: `tree` with its files, `venv` with what is installed.
FOLDER: Final = fetch.CACHE / "revisions"
#: Written when a revision is installed, with the versions that it got.
INSTALLED: Final = "installed.txt"
GIT_TIMEOUT_S: Final = 60.0
INSTALL_TIMEOUT_S: Final = 400.0
#: So much of what a failed command said is shown.
SHOWN_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of the repository, installed. `scripts` holds its console commands."""

    name: str
    scripts: Path
    has_c_module: bool

    def __str__(self) -> str:
        return f"{self.name}, {'with' if self.has_c_module else 'WITHOUT'} its C module"


def installed(revision: str | None) -> Revision:
    """Install a revision of the repository, or the working tree as it is when `revision` is None.

    A commit that is installed already is used again. Raises `Missing` with the reason: no such revision, or a
    revision that cannot be installed beside today's packages.
    """
    if revision is None:
        name = run("git", "describe", "--always", "--abbrev=7", "--dirty", "--exclude=*").strip()
        folder = FOLDER / "present"
    else:
        name = run("git", "rev-parse", "--short=7", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
        folder = FOLDER / name
    packages = constraints()
    mark = folder / INSTALLED
    if revision is None or not mark.exists() or mark.read_text() != packages:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "tree").mkdir(parents=True)
        copy_working_tree(folder / "tree") if revision is None else extract(name, folder / "tree")
        install(folder, packages)
        mark.write_text(packages)
    scripts = folder / "venv" / "bin"
    found = run(scripts / "python", "-c", "import watchout.gateway as g; print(*g.__path__)", cwd=folder).strip()
    return Revision(name, scripts, any(Path(found).glob("*.so")))


def constraints() -> str:
    """The packages of this environment as `pip install --constraint` takes them, without watchout itself."""
    found = {each.name.lower(): each.version for each in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()) if name != "watchout")


def copy_working_tree(target: Path) -> None:
    """Copy the files that git tracks or would add, as they are now."""
    for name in run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def extract(commit: str, target: Path) -> None:
    """Write the files of a commit to an empty folder; the repository itself gets no work tree that would remain."""
    archive = target.with_suffix(".tar")
    run("git", "archive", "--format=tar", f"--output={archive}", commit)
    shutil.unpack_archive(archive, target, filter="data")
    archive.unlink()


def install(folder: Path, packages: str) -> None:
    """Install `tree` into a new environment `venv`, with these versions of packages. Raises `Missing`."""
    venv.create(folder / "venv", with_pip=False)
    wanted = folder / "constraints.txt"
    wanted.write_text(packages)
    pip = (sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", "install", "-q", "--no-input")
    run(*pip, "--constraint", wanted, folder / "tree", cwd=folder, timeout_s=INSTALL_TIMEOUT_S)


def run(*command: str | Path, cwd: Path | None = None, timeout_s: float = GIT_TIMEOUT_S) -> str:
    """What a command prints; it runs in the repository if no `cwd` is given.

    Raises `Missing` with its last lines when it fails, or takes longer than `timeout_s`.
    """
    shown = shlex.join(map(str, command[:6]))
    try:
        done = subprocess.run(command, cwd=cwd or ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise Missing(f"{shown}: {fault}") from None
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-SHOWN_LINES:])
        raise Missing(f"{shown} ended with {done.returncode}:\n{said}")
    return done.stdout


@click.command()
@click.argument("base")
@click.option("--quick", is_flag=True, help="Two rounds of short runs: a look, not a figure.")
@click.option("--only", multiple=True, metavar="POINT…", type=click.Choice([p.name for p in COMPARED]))
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Default {REVISION_ROUNDS}; with --quick 2.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where the results go.")
def main(base: str, quick: bool, only: Sequence[str], rounds: int | None, out: Path | None) -> None:
    """Measure the working tree beside the revision BASE: a commit, a tag or a branch.

    All points with all rounds write benchmarks/results/revision.json and their part of docs/performance.md; any other
    run writes below build/bench/results, or to --out. Exit code 1: some run failed; 130: ended by a signal.
    """
    selection = Selection(tuple(only), rounds=rounds or (2 if quick else REVISION_ROUNDS), quick=quick, among=COMPARED)
    try:
        revisions = dict(zip(REVISIONS, (installed(None), installed(base)), strict=True))
    except Missing as fault:
        raise click.ClickException(str(fault)) from None
    for name, revision in revisions.items():
        click.echo(f"{name}: {revision}")
    systems: dict[str, System] = {name: Watchout(each.scripts, name) for name, each in revisions.items()}
    raise_open_files()
    on = {**machine(set()), **{name: str(revision) for name, revision in revisions.items()}}
    raw = new_results(selection, "benchmarks.revision", on)
    ended = asyncio.run(until_ended(selection.turns(), raw, systems.__getitem__))
    whole = ended and not quick and not only and selection.rounds >= REVISION_ROUNDS
    file = revision_report.RAW if whole and out is None else (out or SCRATCH) / "revision.json"
    save(raw, file)
    if not ended:
        raise SystemExit(130)
    try:
        path, text = revision_report.page(file)
        report.put(path, text)
    except report.ReportFault as fault:
        raise click.ClickException(str(fault)) from None
    click.echo(f"wrote {path}")
    if raw["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main(spread(sys.argv[1:]))
