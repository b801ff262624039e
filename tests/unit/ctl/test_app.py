from __future__ import annotations

import sqlite3
from pathlib import Path

import click
import pytest

from tests.kit.ctl_command import Ctl
from tests.kit.fake_gateway import FakeGateway, until
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings, load
from watchout.ctl.app import COMMANDS, cli, run_command
from watchout.ctl.environment import Failure, edge_url, read_environment
from watchout.ctl.terminal import clock, printable, size
from watchout.identity.embedded_store import ensure


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_the_command_itself_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(200) == COMMANDS[name]


async def test_token_prints_the_token_and_nothing_else_and_makes_the_store(ctl: Ctl, home: Path) -> None:
    ended = await ctl("token", "--home", home / "new", "--user", "ann")
    assert (ended.code, ended.err) == (0, "")
    with sqlite3.connect(home / "new" / "sessions.db") as store:
        rows = store.execute("SELECT token FROM session").fetchall()
    store.close()
    assert rows == [(ended.out.strip(),)]
    assert ended.out.count("\n") == 1
    assert (home / "new").stat().st_mode & 0o777 == 0o700


async def test_a_user_name_that_cannot_be_is_a_sentence(ctl: Ctl) -> None:
    ended = await ctl("token", "--user", "a\nb")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("watchout-ctl: ")
    assert "Traceback" not in ended.err


async def test_token_does_not_make_sessions_in_a_database_of_somebody_else(ctl: Ctl, home: Path) -> None:
    ended = await ctl("token", DATABASE_URL="postgres://user:secret@127.0.0.1/app")
    assert (ended.code, ended.out) == (1, "")
    assert "DATABASE_URL" in ended.err
    assert "secret" not in ended.err
    assert list(home.iterdir()) == []


async def test_a_client_without_a_token_mints_one_in_the_embedded_store(
    gateway: FakeGateway, ctl: Ctl, home: Path, folder: Path
) -> None:
    ensure(home / SESSION_STORE_FILE)
    ended = await ctl("publish", folder, "--url", gateway.url, WATCHOUT_TOKEN="")
    assert "the token was refused" in ended.err  # the fake gateway knows but one token
    assert f"from the session store in WATCHOUT_HOME={home}" in ended.err
    await until(lambda: gateway.left)


async def test_a_client_makes_no_store_in_a_home_that_holds_none(
    gateway: FakeGateway, ctl: Ctl, home: Path, folder: Path
) -> None:
    for command in (["publish", folder], ["watch", "cam"]):
        ended = await ctl(*command, "--url", gateway.url, WATCHOUT_TOKEN="")
        assert ended.code == 1
        assert f"WATCHOUT_HOME={home} holds no session store" in ended.err
    assert list(home.iterdir()) == []


async def test_a_client_without_a_token_makes_no_store_where_nothing_runs(
    ctl: Ctl, home: Path, folder: Path, unused_port: int
) -> None:
    ended = await ctl("publish", folder, WATCHOUT_TOKEN="", WATCHOUT_PORT=str(unused_port))
    assert ended.code == 1
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", [["publish", "."], ["watch", "cam"]])
async def test_a_client_without_a_token_for_a_foreign_database_says_how_to_get_one(
    ctl: Ctl, arguments: list[str]
) -> None:
    ended = await ctl(*arguments, WATCHOUT_TOKEN="", DATABASE_URL="sqlite:/srv/app.db")
    assert (ended.code, ended.out) == (1, "")
    assert "--token or WATCHOUT_TOKEN" in ended.err


@pytest.mark.parametrize(
    "arguments", [["stats"], ["token"], ["watch", "cam"], ["alert", "c", "m", "--severity", "low"]]
)
async def test_every_wrong_setting_is_named(ctl: Ctl, arguments: list[str]) -> None:
    ended = await ctl(*arguments, WATCHOUT_PORT="many", STREAM_ACCESS="nobody")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("watchout-ctl: wrong setting: ") == 2
    assert "WATCHOUT_PORT is 'many'" in ended.err
    assert "STREAM_ACCESS is 'nobody'" in ended.err


async def test_settings_come_from_the_env_file_and_the_real_environment_wins(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WATCHOUT_PORT=1\nWATCHOUT_HOME=/nowhere\nWATCHOUT_TOKEN='abc'\n# a comment\n")
    ended = await ctl("watch", "cam")
    assert "ws://127.0.0.1:1 " in ended.err
    ended = await ctl("watch", "cam", WATCHOUT_PORT="2")
    assert "ws://127.0.0.1:2 " in ended.err


@pytest.mark.parametrize("content", [b"A='", b"\xff\xfe"])
def test_an_env_file_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(Failure, match=r"\.env in this directory cannot be read"):
        read_environment()


@pytest.mark.parametrize(
    ("given", "host", "expected"),
    [
        (None, "", "ws://127.0.0.1:3000"),
        (None, "0.0.0.0", "ws://127.0.0.1:3000"),
        (None, "::1", "ws://[::1]:3000"),
        (None, "10.1.2.3", "ws://10.1.2.3:3000"),
        ("cam.example", "", "ws://cam.example"),
        ("http://cam.example:80/", "", "ws://cam.example:80"),
        ("https://cam.example/base/", "", "wss://cam.example/base"),
        ("ws://cam.example/streams/subscribe", "", "ws://cam.example"),
        ("https://cam.example/base/streams/register/", "", "wss://cam.example/base"),
    ],
)
def test_the_gateways_address(given: str | None, host: str, expected: str) -> None:
    assert edge_url(given, load({"WATCHOUT_HOST": host})) == expected


@pytest.mark.parametrize(
    "given", ["ftp://x", "ws://", "ws://h:99999", "ws://h/?token=x", "ws://user:pw@h", "ws://[::1"]
)
def test_an_address_that_cannot_be_is_wrong_usage(given: str) -> None:
    with pytest.raises(click.UsageError):
        edge_url(given, Settings())


def test_help_and_version_end_with_0_and_an_unknown_command_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    assert run_command(["publish", "--help"]) == 0
    assert run_command(["--version"]) == 0
    assert run_command(["dance"]) == 2
    came = capsys.readouterr()
    assert "No such command 'dance'" in came.err
    assert "watchout-ctl, version" in came.out


def test_a_fault_of_the_program_itself_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setattr("watchout.ctl.app.cli.main", fail)
    assert run_command(["stats"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (27_140, "27.1 kB"), (345_678, "346 kB"), (5_000_000, "5.0 MB"), (3e12, "3.0 TB")],
)
def test_sizes_are_for_people(count: float, shown: str) -> None:
    assert size(count) == shown


def test_text_from_outside_is_escaped_and_cut() -> None:
    assert printable("a\x1b[2J\r\nb\u202ec") == "a\\x1b[2J\\r\\nb\\u202ec"
    assert len(printable("x" * 5000)) == 1001


@pytest.mark.parametrize("timestamp", [None, "x", 1e300, float("nan"), -(2**62), True])
def test_a_time_that_is_none_is_shown_as_none(timestamp: object) -> None:
    assert clock(timestamp) == "--:--:--"
