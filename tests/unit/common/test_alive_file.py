import asyncio
from pathlib import Path

import pytest

from watchout.common import supervisor
from watchout.common.errors import SettingsError
from watchout.common.process import alive_file as module
from watchout.common.process.alive_file import AliveFile
from watchout.common.settings import load


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_loop_renews_the_time_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    path = tmp_path / "alive"
    alive = AliveFile(path)
    alive.begin()
    await until(path.exists)
    for _ in range(2):
        path.unlink()
        await until(path.exists)
    alive.close()
    path.unlink()
    await asyncio.sleep(0.05)
    assert not path.exists()


async def test_a_folder_that_is_missing_is_counted_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    path = tmp_path / "later" / "alive"
    alive = AliveFile(path)
    alive.begin()
    await until(lambda: supervisor.current().failures["alive file"] > 0)
    path.parent.mkdir()
    await until(path.exists)
    alive.close()


async def test_without_a_file_nothing_is_done() -> None:
    alive = AliveFile(None)
    alive.begin()
    alive.close()


def test_the_path_is_that_of_a_file(tmp_path: Path) -> None:
    assert load({"ALIVE_FILE": str(tmp_path / "x")}).alive_file == tmp_path / "x"
    with pytest.raises(SettingsError, match=r"ALIVE_FILE is .*, expected the path of a file"):
        load({"ALIVE_FILE": str(tmp_path)})
