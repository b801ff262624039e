"""What a reload takes up, what it leaves, and that nothing happens when something is wrong."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from tests.kit.processes import REPOSITORY
from watchout.common.errors import SettingsError, StartError
from watchout.common.process import about
from watchout.common.process.reloading import Reloading
from watchout.common.process.service_manager import ServiceManager
from watchout.common.settings import Settings, table
from watchout.common.settings.changes import compare
from watchout.common.settings.source import SettingsSource
from watchout.common.settings.spec import Reload

RELOADABLE = {attribute: spec for attribute, spec, _ in table() if spec.reload is not Reload.NO}


def nothing_more(_: Settings) -> Callable[[], None]:
    return lambda: None


class Process:
    """A process with a file of settings."""

    def __init__(self, directory: Path, kind: str = "gateway", **environ: str) -> None:
        self.file = directory / "watchout.env"
        self.source = SettingsSource({"SETTINGS_FILES": str(self.file), **environ}, {})
        self.kind = kind

    def start(self, text: str = "") -> None:
        self.file.write_text(text)
        self.settings = self.source.read()

    def reload(self, text: str, prepare: Callable[[Settings], Callable[[], None]] = nothing_more) -> dict[str, Any]:
        self.file.write_text(text)
        with capture_logs() as logs:
            Reloading(self.kind, self.source, self.settings, ServiceManager({}), prepare).reload()
        (line,) = logs
        return line


@pytest.fixture(autouse=True)
def same_level_for_others() -> Iterator[None]:
    wrapper = structlog.get_config()["wrapper_class"]
    yield
    structlog.configure(wrapper_class=wrapper)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_what_can_be_is_taken_up_and_the_rest_is_named(process: Process) -> None:
    process.start("MESSAGE_RATE=100\nSERVICE_TOKEN=a-token-of-the-tests\nSTREAM_ACCESS=owner\n")
    told = process.settings
    line = process.reload(
        "MESSAGE_RATE=50\nSERVICE_TOKEN=another-token-of-tests\nSTREAM_ACCESS=authenticated\nLOG_LEVEL=warning\n"
    )
    assert line["changed"] == "SERVICE_TOKEN; MESSAGE_RATE from 100 to 50; LOG_LEVEL from info to warning"
    assert line["needs_restart"] == "STREAM_ACCESS"
    assert line["log_level"] == "warning"
    assert told is process.settings
    assert (told.message_rate, told.service_token, told.log_level) == (50, "another-token-of-tests", "warning")
    assert told.stream_access == "owner"
    again = process.reload("MESSAGE_RATE=50\nLOG_LEVEL=warning\nSERVICE_TOKEN=another-token-of-tests\n")
    assert again["changed"] == "nothing"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MESSAGE_RATE=many", "MESSAGE_RATE is 'many', expected"),
        ("ML_BATCH=9\nML_IN_FLIGHT=2", "ML_BATCH is 9, expected"),
        ("SERVICE_TOKEN=short", "SERVICE_TOKEN is a value that is not shown"),
        ("X='unfinished", "expected a text file with NAME=VALUE"),
    ],
)
def test_when_one_value_is_wrong_nothing_changes(process: Process, text: str, told: str) -> None:
    process.start()
    line = process.reload(f"BYTE_RATE=5000\n{text}\n")
    assert line["log_level"] == "error"
    assert told in line["faults"]
    assert process.settings == Settings(settings_files=(str(process.file),), home=process.settings.home)


def test_a_certificate_that_cannot_be_used_changes_nothing_else(process: Process) -> None:
    def prepare(_: Settings) -> Callable[[], None]:
        raise StartError("TLS_CERT cannot be read")

    process.start()
    assert process.reload("BYTE_RATE=5000\n", prepare)["faults"] == "TLS_CERT cannot be read"
    assert process.settings.byte_rate == Settings().byte_rate


def test_what_is_taken_out_of_a_file_is_not_set_although_systemd_put_it_into_the_environment(tmp_path: Path) -> None:
    process = Process(tmp_path, MESSAGE_RATE="100", BYTE_RATE="5000")
    process.start("MESSAGE_RATE=100\n")
    assert process.settings.byte_rate == 5000
    assert process.reload("")["changed"] == "MESSAGE_RATE from 100 to 2000"
    assert process.settings.byte_rate == 5000


def test_later_files_win_and_only_an_optional_one_may_be_missing(tmp_path: Path) -> None:
    for name, rate in (("a", 100), ("b", 200)):
        (tmp_path / name).write_text(f"# a comment\nMESSAGE_RATE={rate}\n")
    source = SettingsSource({"SETTINGS_FILES": f"{tmp_path}/a -{tmp_path}/none {tmp_path}/b"}, {"BYTE_RATE": "7000"})
    assert (source.read().message_rate, source.read().byte_rate) == (200, 7000)
    (tmp_path / "a").unlink()
    with pytest.raises(SettingsError, match="expected a file that exists"):
        source.read()


def test_without_files_it_says_that_nothing_can_change(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.source = SettingsSource({}, {})
    process.settings = process.source.read()
    assert "SETTINGS_FILES is not set" in process.reload("")["note"]


def test_tls_can_get_another_certificate_but_not_be_switched_on(tmp_path: Path) -> None:
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).touch()
    none, a, b = Settings(), Settings(tls_cert=tmp_path / "a.pem"), Settings(tls_cert=tmp_path / "b.pem")
    used = lambda _: True  # noqa: E731
    assert compare(a, b, used).attributes == ("tls_cert",)
    assert compare(none, a, used).fixed == compare(a, none, used).fixed == ("TLS_CERT",)


def test_a_process_is_told_nothing_of_settings_that_it_does_not_use(tmp_path: Path) -> None:
    process = Process(tmp_path, kind="router")
    process.start()
    assert process.reload("STREAM_ACCESS=authenticated\nML_FPS=3\nMESSAGE_RATE=5\n")["changed"] == "nothing"


def test_every_reloadable_setting_is_used_by_a_gateway() -> None:
    assert len(RELOADABLE) > 20
    assert [spec.env for spec in RELOADABLE.values() if not about.is_used_by("gateway", spec.env)] == []


#: Constructors that read a reloadable setting, and why that is right.
COPIED = {
    ("gateway/app.py", "alert_rate"): "changed by `prepare_reload`",
    ("gateway/app.py", "service_alert_rate"): "changed by `prepare_reload`",
    ("gateway/quotas.py", "message_rate"): "of sockets that are opened from then on; read once for speed",
    ("gateway/quotas.py", "byte_rate"): "of sockets that are opened from then on; read once for speed",
}


def test_no_part_of_a_process_copies_a_reloadable_setting() -> None:
    """What a constructor takes out of the settings would stay as it was."""
    found = set()
    for package in ("common", "gateway", "identity", "mlbridge", "router"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef) and function.name.startswith(("__init__", "__post", "make_")):
                    read = {ast.unparse(each) for each in ast.walk(function) if isinstance(each, ast.Attribute)}
                    found |= {(str(path.relative_to(REPOSITORY)), name) for name in RELOADABLE
                              if any(each.endswith(f"settings.{name}") for each in read)}  # fmt: skip
    assert found == set(COPIED)
