from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from watchout.common.alerts.model import STREAM_ID
from watchout.common.home_files import STREAM_KEY_FILE
from watchout.gateway.home_keys import stream_key
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds

KEY = bytes(range(KEY_BYTES))
NOW_MS = 1_729_943_200_000
USERS = ("ann", "bob", "42", "", "ä@example.com", "\ud800")


def test_an_id_is_as_old_clients_expect_it_and_no_two_are_alike() -> None:
    made = [StreamIds(KEY).new("ann", NOW_MS) for _ in range(1000)]
    assert len(set(made)) == 1000
    for stream in made:
        assert re.fullmatch(r"stream_\w+", stream)
        assert STREAM_ID.match(stream)


@pytest.mark.parametrize("user", USERS)
def test_only_its_user_may_ever_have_it_at_any_gateway_of_the_home(user: str) -> None:
    stream = StreamIds(KEY).new(user, NOW_MS)
    assert len(stream) == len(StreamIds(KEY).new("ann", NOW_MS))  # it does not hold the user's name
    found = {other: StreamIds(KEY).belongs_to_other(stream, other) for other in USERS}
    assert found == {other: other != user for other in USERS}


@pytest.mark.parametrize(
    "stream", ["cam-1", "stream_1729943200000_k3j9x", "stream_1729943200000_abcdefghijklmnop_0000aaaaaaaaaa"]
)
def test_of_other_ids_it_says_nothing(stream: str) -> None:
    assert not StreamIds(KEY).belongs_to_other(stream, "ann")


def test_after_the_key_was_lost_the_owner_can_come_back() -> None:
    stream = StreamIds(KEY).new("ann", NOW_MS)
    assert not StreamIds(bytes(KEY_BYTES)).belongs_to_other(stream, "ann")


def test_without_the_key_nobody_can_tell_whose_an_id_is() -> None:
    made = StreamIds(KEY)
    assert made.new("ann", NOW_MS)[-10:] != made.new("ann", NOW_MS)[-10:]
    head = made.new("ann", NOW_MS)[:-14]
    assert StreamIds(KEY)._tag(head, "ann") != StreamIds(bytes(KEY_BYTES))._tag(head, "ann")


def test_the_gateways_of_a_home_have_one_key_that_is_for_nobody_else(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: stream_key(tmp_path), range(32)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == KEY_BYTES
    (path,) = tmp_path.iterdir()
    assert path.name == STREAM_KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", bytes(KEY_BYTES + 1)])
def test_a_file_that_is_no_key_is_named_and_left_alone(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / STREAM_KEY_FILE
    path.write_bytes(content)
    assert len(stream_key(tmp_path)) == KEY_BYTES
    assert str(path) in capfd.readouterr().out
    assert path.read_bytes() == content


def test_a_home_that_cannot_be_written_costs_no_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(stream_key(tmp_path / "gone")) == KEY_BYTES
    assert STREAM_KEY_FILE in capfd.readouterr().out


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(KEY)
    (tmp_path / STREAM_KEY_FILE).symlink_to(tmp_path / "target")
    assert stream_key(tmp_path) != KEY
