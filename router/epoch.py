"""The epoch of a router: a number above those of all routers that ran in its home before, kept in a file there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH
from watchout.common.errors import StartError
from watchout.common.home import write_file
from watchout.common.home_files import EPOCH_FILE

MAX_FILE_CHARS: Final = 64

_log = log.get("router.epoch")


def next_epoch(home: Path, now_ms: int) -> tuple[int, bool]:
    """Return the epoch for a new router, and whether there may have been a router in this home before.

    The epoch is the time in ms, or one more than the former epoch if that is higher. When the file cannot be read or
    written, which is logged, the clock alone decides; that is safe unless the clock was set back by more than
    the former router ran.
    """
    path = home / EPOCH_FILE
    former, may_be_former = _read(path)
    if now_ms >= EXCEEDABLE_EPOCH:
        _log.warning("this machine's clock is far in the future, the epoch is not taken from it", now_ms=now_ms)
        now_ms = 1
    epoch = max(now_ms, former + 1)
    try:
        write_file(path, f"{epoch}\n")
    except StartError as exc:
        may_be_former = True  # nor could a former router leave a trace
        _log.warning(
            "the epoch cannot be written, the next router's is taken from the clock", file=str(path),
            reason=str(exc), epoch=epoch,
        )  # fmt: skip
    return epoch, may_be_former


def _read(path: Path) -> tuple[int, bool]:
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MAX_FILE_CHARS)
        former = int(text)
        if not 0 < former < EXCEEDABLE_EPOCH:
            raise ValueError(former)
    except FileNotFoundError:
        return 0, False
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"expected a number below {EXCEEDABLE_EPOCH}"
        _log.warning("the epoch of the former router cannot be read, it is taken from the clock", file=str(path),
                     reason=reason)  # fmt: skip
        return 0, True
    return former, True
