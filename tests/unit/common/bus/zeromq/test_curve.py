"""Keys in files, and who is let in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watchout.common.bus.zeromq import curve
from watchout.common.bus.zeromq.curve import AllowList, CurveFault, Pair


@pytest.fixture
def pair() -> Pair:
    return curve.new_pair()


def test_a_pair_is_read_as_it_was_written_and_nobody_else_may_read_it(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "deep" / "bridge.key"
    curve.write_pair(path, pair, "a bridge")
    assert path.stat().st_mode & 0o777 == 0o600
    assert curve.load_pair(path) == pair
    assert [entry.name for entry in path.parent.iterdir()] == ["bridge.key"]


def test_a_secret_key_is_in_no_repr(pair: Pair) -> None:
    assert pair.secret not in repr(pair)


def test_a_pair_is_never_overwritten(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "bridge.key"
    curve.write_pair(path, pair, "a bridge")
    with pytest.raises(CurveFault, match="there already"):
        curve.write_pair(path, curve.new_pair(), "a bridge")
    assert curve.load_pair(path) == pair


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620])
def test_a_pair_that_others_can_read_or_change_is_refused(tmp_path: Path, pair: Pair, mode: int) -> None:
    path = tmp_path / "bridge.key"
    curve.write_pair(path, pair, "a bridge")
    path.chmod(mode)
    with pytest.raises(CurveFault, match="expected 0600"):
        curve.load_pair(path)


@pytest.mark.parametrize("text", ["", "public 12\nsecret 34\n", "\xff\xfe", "x" * 10_000])
def test_a_file_that_is_no_pair_is_named_with_the_reason(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bridge.key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(CurveFault):
        curve.load_pair(path)


def test_two_halves_of_different_pairs_are_no_pair(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "bridge.key"
    curve.write_pair(path, Pair(pair.public, curve.new_pair().secret), "a bridge")
    with pytest.raises(CurveFault, match="does not belong"):
        curve.load_pair(path)


def test_a_missing_file_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(CurveFault, match=r"nothing\.key"):
        curve.load_pair(tmp_path / "nothing.key")


def test_keys_that_are_allowed_are_listed_by_name_until_they_are_removed(tmp_path: Path, pair: Pair) -> None:
    other = curve.new_pair()
    curve.allow(tmp_path, "night", pair.public)
    curve.allow(tmp_path, "day", other.public.upper())
    assert list(curve.allowed(tmp_path).items()) == [("day", other.public), ("night", pair.public)]
    curve.remove(tmp_path, "day")
    assert curve.allowed(tmp_path) == {"night": pair.public}
    with pytest.raises(CurveFault, match="no key is called 'day'"):
        curve.remove(tmp_path, "day")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_none_is_refused(tmp_path: Path, pair: Pair, name: str) -> None:
    with pytest.raises(CurveFault, match="no name"):
        curve.allow(tmp_path, name, pair.public)
    with pytest.raises(CurveFault, match="no key is called"):
        curve.remove(tmp_path, name)


def test_a_key_that_is_none_or_is_there_is_refused(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(CurveFault, match="64 hexadecimal digits"):
        curve.allow(tmp_path, "a", "abc")
    curve.allow(tmp_path, "a", pair.public)
    with pytest.raises(CurveFault, match="already, as a"):
        curve.allow(tmp_path, "b", pair.public)
    with pytest.raises(CurveFault, match="there already"):
        curve.allow(tmp_path, "a", curve.new_pair().public)


def test_a_file_without_a_key_lets_nobody_in_and_is_named(tmp_path: Path, pair: Pair) -> None:
    curve.allow(tmp_path, "a", pair.public)
    (curve.clients_directory(tmp_path) / "b.pub").write_text("soon")
    assert curve.allowed(tmp_path) == {"a": pair.public}
    assert curve.broken(tmp_path) == ["b.pub"]


def test_the_running_list_follows_the_directory_at_once_after_refresh(tmp_path: Path, pair: Pair) -> None:
    known = AllowList(tmp_path)
    assert known.name_of(pair.public) is None
    for _ in range(20):  # within the grain of the file system's clock
        curve.allow(tmp_path, "a", pair.public)
        known.refresh()
        assert known.name_of(pair.public) == "a"
        curve.remove(tmp_path, "a")
        known.refresh()
        assert known.name_of(pair.public) is None
    assert known.name_of("") is None


def test_a_list_that_cannot_be_read_lets_nobody_in(tmp_path: Path, pair: Pair) -> None:
    curve.allow(tmp_path, "a", pair.public)
    known = AllowList(tmp_path)
    assert known.name_of(pair.public) == "a"
    directory = curve.clients_directory(tmp_path)
    directory.rename(tmp_path / "away")
    directory.write_text("a file in its place")
    known.refresh()
    assert known.name_of(pair.public) is None
    with pytest.raises(CurveFault, match="cannot be read"):
        curve.allowed(tmp_path)
    assert os.fspath(directory)
