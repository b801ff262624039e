"""A machine that Debian's systemd boots: this file system under an overlay, in namespaces and a cgroup of its own.

What the machine writes is in memory and gone with it. It shares the network of the tests, so a port of it has to be a
free one. Needs root, util-linux, systemd and a kernel with overlayfs and cgroup2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from tests.kit.processes import REPOSITORY, poll
from tests.kit.services import missing, not_permitted

SYSTEMD: Final = Path("/usr/lib/systemd/systemd")
BOOTS_S: Final = 60.0
RUNS_S: Final = 60.0
#: Exit code of `_BOOT` when the kernel or the container refuses one of its steps.
REFUSED: Final = 77
#: Where the machine finds the interpreter of the tests and their packages: a service sees no home of a user.
PYTHON: Final = "/opt/python"
PACKAGES: Final = "/opt/packages"
PREFIX: Final = "/opt/watchout"

# Process 1 gets no /dev, /sys and /proc/sys of the tests' machine to write to.
_BOOT: Final = r"""
set -e
trap 'exit 77' EXIT
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for each in null zero full random urandom tty; do touch dev/$each; mount --bind /dev/$each dev/$each; done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p opt/watchout opt/python opt/packages opt/source var/log/journal
mount --bind "$2" opt/watchout
mount --bind "$3" opt/python
mount --bind "$4" opt/packages
mount --bind "$5" opt/source
mount -t tmpfs tmpfs tmp
rm -rf etc/systemd/system etc/machine-id var/log/journal
mkdir -p etc/systemd/system etc/ld.so.conf.d
echo 0123456789abcdef0123456789abcdef > etc/machine-id
echo /opt/python/lib > etc/ld.so.conf.d/python.conf
printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n' > etc/systemd/system/booted.target
# Not chroot: a process in one may make no user namespace (PrivateUsers=).
mkdir old
pivot_root . old
umount -l old
cd /
ldconfig
exec env -i container=tests PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$6" --system --unit=booted.target --log-target=journal --log-level=info --show-status=no
"""


class SystemdMachine:
    """The machine while it runs; made by `systemd_machine`."""

    def __init__(self, init: int) -> None:
        self._init = init

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints in the machine, as its root; with `check` it must succeed."""
        enter = ["nsenter", "-t", str(self._init), "-p", "-m", "-r", "-u", "-i", "-C", "-w"]
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*enter, *command], check=False, capture_output=True, text=True, timeout=RUNS_S, env=environ,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, with the directories that it needs."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"', "sh", path, text)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """These properties of a unit."""
        lines = self.run("systemctl", "show", unit, *(f"-p{name}" for name in names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_for(self, unit: str, **properties: str) -> None:
        """Wait until a unit has these properties."""
        poll(lambda: self.show(unit, *properties) == properties, RUNS_S, f"{unit} is not {properties}")

    def main_pid(self, unit: str) -> int:
        """The main process of a service, 0 without one."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def kill(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to the main process of a service, not through systemd."""
        self.run("kill", f"-{number.name.removeprefix('SIG')}", str(self.main_pid(unit)))

    def journal(self, unit: str) -> str:
        """What a service has logged."""
        return self.run("journalctl", "--no-pager", "-q", "-u", unit)

    def journal_with(self, unit: str, *texts: str) -> str:
        """What a service has logged, once all of these texts have come to the journal."""
        poll(lambda: all(text in self.journal(unit) for text in texts), RUNS_S, f"{unit} has not logged {texts}")
        return self.journal(unit)


@contextlib.contextmanager
def systemd_machine(directory: Path) -> Iterator[SystemdMachine]:
    """A machine that has booted, with watchout below /opt/watchout and its source below /opt/source."""
    need()
    prefix, root = directory / "opt", directory / "root"
    root.mkdir()
    _install(prefix)
    cgroup = _cgroup2() / f"watchout-tests-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as error:
        not_permitted(f"no cgroup for a machine can be made: {error}")
    log = directory / "systemd.log"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    words = [str(root), str(prefix), sys.base_prefix, packages, str(REPOSITORY), str(SYSTEMD)]
    spaces = ["--pid", "--mount", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"]
    # It enters the cgroup before the namespace of cgroups is made: the machine sees its own alone.
    enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup)]
    with log.open("wb") as output:
        boot = subprocess.Popen(
            [*enter, "unshare", *spaces, "bash", "-c", _BOOT, "boot", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        init = _init_of(boot, log)
        machine = SystemdMachine(init)
        poll(lambda: _has_booted(machine), BOOTS_S, "systemd does not boot")
        yield machine
    finally:
        boot.kill()
        boot.wait()
        poll(lambda: _removed(cgroup), BOOTS_S, "something is left of the machine")


def need() -> None:
    """Skip the test where there is no systemd to boot, never in CI; and where there is no right to do so."""
    if os.geteuid() != 0:
        not_permitted("a machine with systemd can be made by root alone")
    if not SYSTEMD.exists():
        missing("no systemd is installed")
    for tool in ("unshare", "nsenter", "journalctl"):
        if shutil.which(tool) is None:
            missing(f"no {tool} is on the PATH")


def _install(prefix: Path) -> None:
    """Lay out what pip lays out in a new environment at /opt/watchout."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = prefix / "lib" / version / "site-packages"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
    (prefix / "bin/python").symlink_to(f"{PYTHON}/bin/{version}")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for name, folder in project["tool"]["setuptools"]["package-dir"].items():
        target = packages / name.replace(".", "/")
        shutil.copytree(REPOSITORY / folder, target, ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "packages.pth").write_text(f"{PACKAGES}\n")
    for name, entry in project["project"]["scripts"].items():
        module, _, function = entry.partition(":")
        script = prefix / "bin" / name
        script.write_text(
            f"#!{PREFIX}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        script.chmod(0o755)


def _cgroup2() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return not_permitted("no cgroup2 is mounted")


def _init_of(boot: subprocess.Popen[bytes], log: Path) -> int:
    """The process 1 of the machine, once it is systemd."""

    def found() -> list[psutil.Process]:
        if boot.poll() == REFUSED or (boot.poll() and "unshare: " in log.read_text(errors="replace")):
            not_permitted(f"no machine can be made: {log.read_text(errors='replace')}")
        assert boot.poll() is None, log.read_text(errors="replace")
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one for one in psutil.Process(boot.pid).children() if one.name() == "systemd"]
        return []

    poll(lambda: bool(found()), BOOTS_S, "systemd is not started")
    return found()[0].pid


def _has_booted(machine: SystemdMachine) -> bool:
    return "active" in machine.run("systemctl", "is-active", "booted.target", check=False).split()


def _removed(cgroup: Path) -> bool:
    """Remove the groups of a machine that has ended; False while a process is left in one of them."""
    below = sorted((path for path in cgroup.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    try:
        for path in [*below, cgroup]:
            path.rmdir()
    except OSError:
        return False
    return True
