"""The C module is built again for ``make dev`` when its source is newer, or it is said that it could not be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watchout.gateway import rebuild_fastpath


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source in a tree of its own, whose build makes what its text says."""
    package = tmp_path / "gateway"
    package.mkdir()
    (package / "_fastpath.c").write_text("good")
    (tmp_path / "setup.py").write_text(
        "import pathlib, sys\n"
        "if pathlib.Path('gateway/_fastpath.c').read_text() != 'good': sys.exit('a fault of the compiler')\n"
        "pathlib.Path('gateway/_fastpath.x.so').write_text('built')\n"
    )
    monkeypatch.setattr(rebuild_fastpath, "SOURCE", package / "_fastpath.c")
    return package / "_fastpath.c"


def built(source: Path, age_s: int) -> Path:
    module = source.with_name("_fastpath.x.so")
    module.write_text("former")
    now = source.stat().st_mtime
    os.utime(module, (now - age_s, now - age_s))
    return module


def test_a_newer_source_is_built(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module = built(source, 10)
    assert rebuild_fastpath.is_stale()
    rebuild_fastpath.rebuild()
    assert module.read_text() == "built"
    assert not rebuild_fastpath.is_stale()
    assert "building it" in capfd.readouterr().out


def test_a_build_that_does_not_succeed_is_told(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source.write_text("bad")
    module = built(source, 10)
    rebuild_fastpath.rebuild()
    assert module.read_text() == "former"
    said = capfd.readouterr().out
    assert "a fault of the compiler" in said
    assert "the former build stays in use" in said


def test_what_is_current_or_was_never_built_is_left(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rebuild_fastpath.rebuild()
    assert not source.with_name("_fastpath.x.so").exists()  # a machine without a compiler
    assert built(source, -10).read_text() == "former"
    rebuild_fastpath.rebuild()
    assert capfd.readouterr().out == ""


def test_the_gateway_of_make_dev_restarts_for_python_and_c_only() -> None:
    found = [
        rebuild_fastpath.is_source(1, f"gateway/{name}") for name in ("a.py", "_fastpath.c", "_fastpath.x.so", "a.pyc")
    ]
    assert found == [True, True, False, False]
