"""The command line of a process: what its function gets, and how it ends."""

from __future__ import annotations

import sys

import pytest

from watchout.common.process.command import GivenOptions, SettingOption, process_command

OPTIONS = (
    SettingOption("--fps", "N", "ML_FPS", "Frames per second"),
    SettingOption("--router-key", "KEY", "ROUTER_PUBLIC_KEY", "A key"),
)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[GivenOptions | None, object]:
    """What the function of a command gets, None when it is not called; and the exit code."""
    got: list[GivenOptions] = []

    @process_command("mlbridge", ("ML_FPS",), OPTIONS)
    def main(given: GivenOptions) -> None:
        """Do it."""
        got.append(given)
        raise SystemExit(7)

    monkeypatch.setattr(sys, "argv", ["watchout-mlbridge", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return (got[0] if got else None), ended.value.code


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ((), {}),
        (("--fps", "2"), {"ML_FPS": ("--fps", "2")}),
        (("--fps=",), {"ML_FPS": ("--fps", "")}),
        (("--router-key", "k", "--fps", "-1"), {"ROUTER_PUBLIC_KEY": ("--router-key", "k"), "ML_FPS": ("--fps", "-1")}),
    ],
)
def test_options_override_their_settings(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], given: GivenOptions
) -> None:
    assert run(monkeypatch, *words) == (given, 7)


@pytest.mark.parametrize("words", [("--fp", "2"), ("--fps",), ("start",), ("--fps", "2", "3"), ("",)])
def test_wrong_words_start_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *words) == (None, 2)
    assert capsys.readouterr().err


def test_help_names_options_with_their_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == (None, 0)
    said = capsys.readouterr().out
    assert "watchout-mlbridge [OPTIONS]" in said
    assert "Do it." in said
    assert "A key (ROUTER_PUBLIC_KEY)." in said


def test_an_interrupt_before_the_process_handles_signals_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @process_command("router", ("LOG_LEVEL",))
    def main(_given: GivenOptions) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["watchout-router"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
