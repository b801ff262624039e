from __future__ import annotations

import json
from pathlib import Path

import pytest

from watchout.ctl.app import run_command

LOAD = ["capacity", "--cameras", "20", "--fps", "10", "--size", "30000", "--viewers-per-camera", "5"]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` of a developer."""
    monkeypatch.chdir(tmp_path)


def test_it_prints_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*LOAD, "--cores", "4"]) == 0
    out = capsys.readouterr().out
    assert "20 cameras at 10 frames a second of 30000 bytes (JSON), 5 viewers of each: 200 frames/s in" in out
    assert "One machine of 4 cores is enough." in out


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*LOAD, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["framesPerSecond"] == {"in": 200, "out": 1000, "ml": 0}
    assert body["processes"] == {"gateway": 1, "router": 1, "mlbridge": 1}
    assert body["firstLimit"] == body["limits"][0]


def test_the_bounds_are_those_of_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CONNECTIONS", "50")
    assert run_command([*LOAD, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["processes"]["gateway"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing option '--cameras'"),
        ([*LOAD, "--ml-fps", "11"], "--ml-fps is 11, expected 0, or 0.001 to 10"),
        ([*LOAD, "--fps", "x"], "'x' is not a valid float"),
        ([*LOAD, "--cameras", "1.5"], "'1.5' is not a valid integer"),
        ([*LOAD, "--format", "png"], "'png' is not one of 'json', 'binary'"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments or ["capacity"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
