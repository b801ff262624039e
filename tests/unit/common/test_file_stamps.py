from __future__ import annotations

import itertools
import os
from pathlib import Path

from watchout.common.toolbox.file_stamps import file_stamps


def test_every_way_of_changing_one_of_the_files_is_seen(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    seen = [file_stamps((one, two))]
    one.write_text("a")
    seen.append(file_stamps((one, two)))
    two.write_text("a")
    seen.append(file_stamps((one, two)))
    two.write_text("ab")
    os.utime(two, ns=(1, 1))
    seen.append(file_stamps((one, two)))
    other = tmp_path / "other"
    other.write_text("ba")
    os.utime(other, ns=(1, 1))
    other.replace(two)  # same size and time
    seen.append(file_stamps((one, two)))
    os.utime(two, ns=(2, 2))
    seen.append(file_stamps((one, two)))
    two.unlink()
    seen.append(file_stamps((one, two)))
    assert all(before != after for before, after in itertools.pairwise(seen))
    assert seen[1] == seen[-1], "as it was when only one was there"
    assert file_stamps((one, two)) == seen[-1]
