"""Shares between the workers of pytest-xdist what is to be done once in a tree whose tests have not run yet.

pytest keeps test files with their asserts rewritten, and Hypothesis the constants of each module of ours, but all
workers begin at the same time: in a fresh tree each of them would do it all, seven CPU seconds a worker. Here each does
its part first, and then reads that of the others. Where they are made otherwise inside, each does all, as always.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parents[1]


def kept(file: Path) -> Path:
    """Where pytest keeps the rewritten code of a test file."""
    from _pytest.assertion import rewrite as inside

    return inside.get_cache_dir(file) / (file.name[:-3] + inside.PYC_TAIL)


def rewrite(file: Path, config: pytest.Config) -> None:
    """Rewrite a test file, unless that is kept. One that has changed since is rewritten when it is read."""
    from _pytest.assertion import rewrite as inside

    target = kept(file)
    if not target.exists() and inside.try_makedirs(target.parent):
        digest, code = inside._rewrite_test(file, config)
        inside._write_pyc(config.stash[inside.assertstate_key], code, digest, target)


def collect_constants(number: int, count: int) -> None:
    """Let Hypothesis read its part of the modules of ours that are loaded: those of all workers are the same."""
    from hypothesis.internal.constants_ast import constants_from_module, is_local_module_file

    files = {getattr(module, "__file__", None): module for module in list(sys.modules.values())}
    ours = sorted(file for file in files if isinstance(file, str) and is_local_module_file(file))
    for file in ours[number::count]:
        constants_from_module(files[file])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[Any]:
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and not sys.dont_write_bytecode:
        number = int(worker["workerid"].removeprefix("gw"))
        with contextlib.suppress(ImportError, AttributeError, TypeError, KeyError, ValueError, SyntaxError):
            for file in sorted(TESTS.rglob("test_*.py"))[number :: worker["workercount"]]:
                rewrite(file, session.config)
            collect_constants(number, worker["workercount"])
    return (yield)
