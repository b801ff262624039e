"""docs/ml-team.md says what is so: its commands are run, and what it names is there."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.ctl.ml_kit import ENDS_S, FOOTAGE, listens
from tests.kit.ctl_command import Ctl, Start
from tests.kit.ports import free_port
from tests.kit.services import missing
from watchout.common.metric_names import DECLARED
from watchout.common.settings import table
from watchout.ctl.ml.conformance import CHECKS
from watchout.ctl.ml.pictures import SAMPLE

PAGE = Path(__file__).parents[3] / "docs/ml-team.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^(?:<!-- (.+?) -->\n)?[ ]*```(\w+)\n(.*?)^[ ]*```$", TEXT, re.MULTILINE | re.DOTALL)


def commands(mark: str) -> list[list[str]]:
    lines = [line for name, _, body in BLOCKS if name == mark for line in body.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("watchout-ctl")]


@pytest.fixture
async def documented(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A service of the page as a process, `service.py` unless the test names another; its URL."""
    name = getattr(request, "param", "service.py")
    ((_, _, source),) = [block for block in BLOCKS if block[0] == name]
    port = free_port()
    script = tmp_path / "service.py"
    script.write_text(re.sub(r"850[01]", str(port), source))
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await listens(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def run_all(start: Start, mark: str, url: str) -> str:
    assert commands(mark)
    shown = ""
    for words in commands(mark):
        arguments = [word.replace("http://127.0.0.1:8500", url) for word in words]
        ended = await (await start(*arguments, ML_SERVICE_URL=url)).end(ENDS_S)
        assert (ended.code, ended.err) == (0, ""), (words, ended.out)
        shown += ended.out
    return shown


@pytest.mark.parametrize("documented", ["service.py", "function.py"], indirect=True)
async def test_the_service_of_the_page_alerts_and_passes_every_check(
    start: Start, documented: str, tmp_path: Path
) -> None:
    (tmp_path / "picture.jpg").write_bytes(SAMPLE)
    shown = await run_all(start, "run", documented)
    assert "ALERT medium try: Much to see" in shown
    assert "0 wrong" in shown


async def test_the_page_plays_footage_and_writes_its_report(start: Start, documented: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    if not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    (tmp_path / "people.mp4").symlink_to(FOOTAGE.resolve())
    shown = await run_all(start, "run footage", documented)
    assert "coverage 100.0%" in shown
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.txt", "report.json", "report.svg"}


async def test_every_option_that_the_page_names_is_there(ctl: Ctl) -> None:
    lines = [line.strip() for _, kind, body in BLOCKS if kind == "sh" for line in body.splitlines()]
    asked = [shlex.split(line.partition(" #")[0]) for line in lines if line.startswith("watchout-ctl")]
    assert len(asked) >= 9
    for words in asked:
        command = [word for word in words[1:3] if word.isalpha()]
        if command[0] not in ("ml", "keys"):
            command = command[:1]
        ended = await ctl(*command, "--help")
        assert ended.code == 0, words
        for option in (word for word in words if word.startswith("--")):
            assert option in ended.out, words


def test_every_setting_metric_check_and_file_that_the_page_names_is_there() -> None:
    known = {spec.env for _, spec, _ in table()} | {"PATH", "PWD", "KEY", "HOST", "NAME", "PORT"}
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT)) - known == set()
    assert set(re.findall(r"`((?:ml|alerts|remote)_\w+)`", TEXT)) - set(DECLARED) == set()
    assert [name for name in CHECKS if f"`{name}`" not in TEXT] == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT)]
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
