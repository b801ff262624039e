from __future__ import annotations

import msgspec
import pytest

from watchout.common import home_files
from watchout.ctl.backup.contents import FORMAT, Contents, KeptFile, is_kept, read_contents, summary


def contents(*names: str, **changed: object) -> bytes:
    files = tuple(KeptFile(name, 1, "0" * 64) for name in names)
    made = Contents(FORMAT, "1", "2026-01-02T03:04:05Z", "a", "/h", files)
    return msgspec.json.encode({**msgspec.to_builtins(made), **changed})


@pytest.mark.parametrize(
    "name",
    ["sessions.db", "reservations.db", "shares.db", "escalations.db", "stream.key", "share.key", "epoch",
     "curve/server.key", "curve/clients/ml-team.pub", "mesh/host.crt", "mesh/host.key", "mesh/ca.crt"],
)  # fmt: skip
def test_what_matters_is_kept(name: str) -> None:
    assert is_kept(name)


@pytest.mark.parametrize(
    "name",
    ["", "control", "router.lock", "name-gateway", "sessions.db-wal", "sessions.db/x", "curve", "curve/", "../epoch",
     "/etc/passwd", "curve/../epoch", "curve/./x", "curve//x", "curve/a/b/c", "mesh/a\x00b", "mesh/.hidden", ".env"],
)  # fmt: skip
def test_nothing_else_is_kept_and_nothing_outside_the_home(name: str) -> None:
    assert not is_kept(name)
    with pytest.raises(ValueError, match="no backup of watchout holds"):
        read_contents(contents(name))


def test_every_file_of_the_home_is_kept_or_is_one_that_each_start_makes_anew() -> None:
    """Whoever adds a file to the home has to decide."""
    anew = {
        home_files.CONTROL_SOCKET, home_files.FRAMES_IN_SOCKET, home_files.FRAMES_OUT_SOCKET, home_files.ROUTER_LOCK,
        home_files.LISTEN_LOCK,
    }  # fmt: skip
    assert {name for name in home_files._NAMES - anew if not is_kept(name)} == set(home_files.KEPT_DIRECTORIES)
    assert not any(is_kept(name) for name in anew)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b"{}", "format"),
        (contents(format=FORMAT + 1), "newer"),
        (contents("epoch", "epoch"), "each once"),
        (contents(*(f"mesh/{n}" for n in range(4001))), "at most 4000"),
        (contents(files=[{"name": "epoch", "bytes": -1, "sha256": "0" * 64}]), "cannot be"),
        (contents(files=[{"name": "epoch", "bytes": 1 << 21, "sha256": "0" * 64}]), "cannot be"),
        (contents(files=[{"name": "epoch", "bytes": 1, "sha256": "x"}]), "cannot be"),
    ],
)
def test_a_list_of_contents_that_cannot_be_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError), match=said):
        read_contents(raw)


def test_the_summary_counts_files_of_directories() -> None:
    made = read_contents(contents("sessions.db", "curve/server.key", "curve/clients/a.pub", "mesh/ca.crt"))
    assert summary(made) == "sessions.db, curve (2 files), mesh (1 file)"
