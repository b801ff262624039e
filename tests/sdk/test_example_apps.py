"""The web app and the Expo app of examples/: they are type-checked and built, and pass their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.js_sdk import install, npm
from tests.kit.processes import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.real]


def run(folder: Path, *script: str) -> None:
    done = npm(*script, folder=folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_the_web_app_is_built(js_sdk: Path) -> None:
    folder = REPOSITORY / "examples/web_app"
    install(folder)
    run(folder, "run", "build")


def test_the_expo_app_has_no_type_errors_and_its_capture_passes_its_tests(js_sdk: Path) -> None:
    folder = REPOSITORY / "examples/expo_app"
    install(folder)
    run(folder, "run", "typecheck")
    run(folder, "test")
