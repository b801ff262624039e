from pathlib import Path

import pytest

from watchout.common.errors import SettingsError
from watchout.common.settings import load
from watchout.common.settings.misspelled import known_names, near_misses
from watchout.common.settings.secret_files import MAX_BYTES, secret_names
from watchout.common.settings.source import SettingsSource

URL = "postgres://watchout:secret-of-the-test@db/app"


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load(environ)
    return list(error.value.faults)


def test_a_secret_is_read_from_its_file_without_the_white_space_around(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  sixteen-characters\r\n")
    assert load({"STATS_TOKEN_FILE": f" {file} "}) == load({"STATS_TOKEN": "sixteen-characters"})
    assert load({"STATS_TOKEN_FILE": " "}) == load({})


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sixteen-characters")
    source = SettingsSource({"STATS_TOKEN_FILE": str(file)}, {})
    assert source.read().stats_token == "sixteen-characters"
    file.write_text("other-sixteen-characters")
    assert source.read().stats_token == "other-sixteen-characters"


def test_what_is_in_the_file_is_checked_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL.replace("postgres", "mysql"))
    (fault,) = faults({"DATABASE_URL_FILE": str(file)})
    assert fault.startswith("DATABASE_URL is ")
    assert "secret-of-the-test" not in fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "a file that can be read: No such file or directory"),
        (b" \n", "a file with the value: it is empty"),
        (b"\xff", "a text file in UTF-8"),
        (b"x" * (MAX_BYTES + 1), f"a file of at most {MAX_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    assert faults({"STATS_TOKEN_FILE": str(file)}) == [f"STATS_TOKEN_FILE is {str(file)!r}, expected {said}"]
    assert faults({"STATS_TOKEN_FILE": str(tmp_path)})[0].endswith("Is a directory")
    assert faults({"STATS_TOKEN_FILE": "a\0b"})[0].endswith("expected the path of a file")


def test_both_ways_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("sixteen-characters")
    said = faults({"STATS_TOKEN": "sixteen-characters", "STATS_TOKEN_FILE": str(tmp_path / "x")})
    assert said == ["STATS_TOKEN and STATS_TOKEN_FILE are both set, expected one of them"]


def test_only_secrets_are_read_from_files_and_their_names_are_known() -> None:
    assert {"DATABASE_URL", "BETTER_AUTH_SECRET", "SERVICE_TOKEN", "WATCHOUT_BUS"} <= set(secret_names())
    assert "WATCHOUT_PORT" not in secret_names()
    assert {f"{name}_FILE" for name in secret_names()} <= known_names()
    assert not list(near_misses({"DATABASE_URL_FILE": "/x"}))
    assert list(near_misses({"DATABASE_URL_FILES": "/x"})) == [("DATABASE_URL_FILES", "DATABASE_URL_FILE")]
