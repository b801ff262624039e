"""A process that is gone has no samples."""

from __future__ import annotations

import pytest

from watchout.ctl.rehearse.samples import descriptors, private_bytes, threads


@pytest.mark.parametrize("count", [private_bytes, descriptors, threads])
def test_a_process_that_is_gone_is_an_error(count: object) -> None:
    assert callable(count)
    with pytest.raises(OSError, match="No such"):
        count(2**22 + 1)
