"""Source files as the rules of the repository see them: each is parsed once per test process."""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The file, parsed once. Without the collector: a finalizer that parses meanwhile is an error of CPython 3.11."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if was_enabled:
            gc.enable()


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All that the file consists of, in no order that matters."""
    return list(ast.walk(tree_of(path)))
