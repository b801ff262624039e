"""Options of a rehearsal that do not fit are refused before anything is started."""

from __future__ import annotations

import pytest

from watchout.ctl.app import run_command

RUNNING = ["--url", "ws://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--minutes", "0"], "0.0 is not in the range"),
        (["--cameras", "0"], "0 is not in the range 1<=x<=2000"),
        (["--size", "10"], "10 is not in the range 400<="),
        ([*RUNNING, "--soak"], "--soak is for a system of its own: leave --url and --home out"),
        ([*RUNNING, "--gateways", "2"], "--gateways is for a system of its own: leave --url and --home out"),
        (["--gateways", "0"], "0 is not in the range 1<=x<=16"),
        (["--token", "t"], "--token is for a running system: give --url or --home"),
        (["--ml-listen", "127.0.0.1:9"], "--ml-listen is for a running system"),
        ([*RUNNING, "--set", "ML_FPS=5"], "settings of a running system cannot be changed"),
        ([*RUNNING, "--ml-fail", "10"], "--ml-fail is for the rehearsal's ML service: that of a running system cannot"),
        ([*RUNNING, "--ml-latency", "0"], "Give --ml-listen with the address of its ML_SERVICE_URL"),
        ([*RUNNING, "--ml-listen", "9000"], "--ml-listen is '9000', expected HOST:PORT"),
        ([*RUNNING, "--ml-listen", "h:70000"], "--ml-listen is 'h:70000', expected HOST:PORT"),
        (["--set", "ML_FPS"], "--set ML_FPS is not NAME=VALUE"),
        (["--set", "WATCHOUT_PORT=1"], "--set WATCHOUT_PORT: a rehearsal sets it for its own system"),
        (["--set", "ML_FSP=1"], "--set ML_FSP: there is no such setting; docs/settings.md has all"),
        (["--set", "ML_FPS=many"], "ML_FPS"),
        (["--objective", "fast=1"], "--objective: 'fast=1' is no objective, expected NAME=VALUE with one of alert-p99"),
        (["--objective", "memory-slope=5MB/h"], "--objective memory-slope needs --minutes 2 or more"),
        (["--url", "ftp://x"], "--url"),
        (["--json", "/nowhere/r.json"], "/nowhere/r.json cannot be written: there is no such directory"),
        (["--html", "/nowhere/r.html"], "/nowhere/r.html cannot be written"),
    ],
)
def test_a_wrong_option_is_wrong_usage_in_a_sentence(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["rehearse", *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert "the load begins" not in captured.err


def test_footage_that_is_not_there_or_live_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["rehearse", "--footage", "/nowhere.mp4"]) == 1
    assert "/nowhere.mp4 is not a file" in capsys.readouterr().err
