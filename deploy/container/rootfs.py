"""Runs the steps of the Dockerfile in bare root file systems of Debian, where no image can be built.

    rootfs.py DIRECTORY [--base base.tar] [--dockerfile Dockerfile.detector]

The result is `DIRECTORY/root`, what the image would contain, and `DIRECTORY/config.json`, what it would be run with.
Needs root, unshare, and mmdebstrap unless `--base` is the tar file of a Debian. Each step runs in own namespaces.
It knows the instructions and options that our Dockerfile uses, and refuses all others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = Path(__file__).with_name("Dockerfile")
#: The base image, as this script makes it: Debian with what is essential.
BASES: Final = {"debian:bookworm-slim": "bookworm"}
#: Instructions that only say how the container is run.
CONFIG: Final = ("CMD", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "USER", "VOLUME")
PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: How the builder reaches package indexes, which a bare Debian does not know.
PASSED: Final = re.compile(r"(?i)(https?|no)_proxy|PIP_(?!FIND_LINKS|CONSTRAINT).*|SSL_CERT_FILE")
#: The certificates that the builder trusts, during a step in place of the image's; the image keeps its own.
TRUSTED: Final = "/etc/ssl/certs/ca-certificates.crt" if Path("/etc/ssl/certs/ca-certificates.crt").exists() else ""

_IN_ROOT: Final = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
trusted=etc/ssl/certs/ca-certificates.crt
if [ -n "$2" ] && [ -e "$trusted" ]; then mount --bind "$2" "$trusted"; fi
if [ -n "$3" ]; then
    for volume in $3; do if [ "$volume" != - ]; then mount --bind ".$volume" ".$volume"; fi; done
    mount -o remount,bind,ro .
fi
shift 3
exec chroot . "$@"
"""


@dataclass
class Stage:
    """One ``FROM`` of a Dockerfile, with the instructions below it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def parse(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile. Raises `ValueError` for an instruction before the first ``FROM``."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        if word.upper() == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base.strip(), name.strip()))
        elif not stages:
            raise ValueError(f"{word} before the first FROM")
        else:
            stages[-1].steps.append((word.upper(), " ".join(rest.split())))
    return stages


class Builder:
    """Carries out stages in directories below one.

    Args:
        directory: where the file systems are made.
        context: what COPY copies from.
        base: tar file of the base; None: mmdebstrap makes one.
    """

    def __init__(self, directory: Path, context: Path, base: Path | None) -> None:
        self._directory = directory
        self._context = context
        self._base = base
        self._roots: dict[str, Path] = {}

    def build(self, stages: list[Stage]) -> tuple[Path, dict[str, str]]:
        """Return the root of the last stage, and its configuration: instruction → text, and ``ENV``."""
        config: dict[str, str] = {}
        root = self._directory
        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            root = self._directory / ("root" if last else f"stage-{stage.name or number}")
            self._unpack(stage.base, root)
            self._roots[stage.name or str(number)] = root
            config = self._carry_out(stage, root)
        return root, config

    def _unpack(self, base: str, root: Path) -> None:
        if base not in BASES:
            raise ValueError(f"FROM {base}: expected one of {', '.join(BASES)}")
        if self._base is None:
            self._base = self._directory / "base.tar"
            _run(["mmdebstrap", "--mode=root", "--variant=minbase", BASES[base], str(self._base)])
        root.mkdir(parents=True)
        _run(["tar", "-xf", str(self._base), "--numeric-owner", "--exclude=./dev/*", "-C", str(root)])
        for name in ("resolv.conf", "hosts"):
            shutil.copyfile(Path("/etc") / name, root / "etc" / name)

    def _carry_out(self, stage: Stage, root: Path) -> dict[str, str]:
        environ, config, workdir = {}, {}, "/"
        for word, text in stage.steps:
            print(f"{word} {text}", flush=True)
            if word == "RUN":
                self._run_step(root, workdir, environ, text)
            elif word == "COPY":
                self._copy(root, text)
            elif word == "ENV":
                name, _, value = text.partition("=")
                environ[name] = value
            elif word == "WORKDIR":
                workdir = text
                (root / workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word in CONFIG:
                config[word] = text
            else:
                raise ValueError(f"{word} is not an instruction that this script knows")
        return {**config, "WORKDIR": workdir, "ENV": json.dumps(environ)}

    def _run_step(self, root: Path, workdir: str, environ: dict[str, str], text: str) -> None:
        passed = [f"{name}={value}" for name, value in os.environ.items() if PASSED.fullmatch(name)]
        variables = [PATH, "DEBIAN_FRONTEND=noninteractive", *passed, *(f"{n}={v}" for n, v in environ.items())]
        script = f"cd {shlex.quote(workdir)} && {text}"
        enter(root, ["env", "-i", *variables, "sh", "-c", script])

    def _copy(self, root: Path, text: str) -> None:
        words, source = shlex.split(text), self._context
        while words[0].startswith("--"):
            option, _, value = words.pop(0).partition("=")
            if option != "--from":
                raise ValueError(f"COPY {option} is not an option that this script knows")
            source = self._roots[value]
        *names, target = words
        for name in names:
            origin, goal = source / name.lstrip("/"), root / target.lstrip("/")
            if origin.is_dir():
                ignored = None if source in self._roots.values() else shutil.ignore_patterns("__pycache__", "*.so")
                shutil.copytree(origin, goal, symlinks=True, ignore=ignored, dirs_exist_ok=True)
            else:
                goal = goal / origin.name if target.endswith("/") else goal
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin, goal)


def enter(root: Path, command: list[str]) -> None:
    """Run a command as root in a file system, in mount and process namespaces of its own. Raises `SystemExit`."""
    _run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _IN_ROOT,
            "sh",
            str(root),
            TRUSTED,
            "",
            *command,
        ]
    )


def start_command(root: Path, config: dict[str, str], command: list[str], environ: dict[str, str]) -> list[str]:
    """Return the command that runs another one as process 1 of a container: its user, environment and directory.

    Its root is read-only, but for the volumes.
    """
    user = config["USER"]
    variables = {**json.loads(config["ENV"]), **environ}
    inner = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", *inner]
    into = ["sh", "-c", 'cd "$0" && exec "$@"', config["WORKDIR"], *as_user]
    volumes = " ".join(json.loads(config.get("VOLUME", "[]"))) or "-"
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _IN_ROOT, "sh"]
    return [*own, str(root), "", volumes, *into]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, check=False)
    except FileNotFoundError:
        raise SystemExit(f"rootfs: the program {command[0]} is needed, and is not installed") from None
    if done.returncode != 0:
        raise SystemExit(f"rootfs: {shlex.join(command)} ended with {done.returncode}")


def main() -> None:
    """Build what the image would contain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the file systems are made; must not exist")
    parser.add_argument("--base", type=Path, help="tar file of a bare Debian; else mmdebstrap makes one")
    parser.add_argument("--dockerfile", default=DOCKERFILE.name, help="name of a file beside this script")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("rootfs: this needs root")
    try:
        stages = parse(DOCKERFILE.with_name(given.dockerfile).read_text(encoding="utf-8"))
        given.directory.mkdir(parents=True)
        root, config = Builder(given.directory, ROOT, given.base).build(stages)
    except (OSError, ValueError) as error:
        sys.exit(f"rootfs: {error}")
    (given.directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    print(f"{root}: what the image would contain")


if __name__ == "__main__":
    main()
