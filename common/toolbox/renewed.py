"""What is made of files and made anew when they have changed: certificates, credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.toolbox.file_stamps import file_stamps

T = TypeVar("T")

_log = log.get("common.toolbox.renewed")


class Renewed(Generic[T]):
    """Something made of files; what was made before stays while changed files cannot be used.

    Args:
        what: What the files are, for the log: ``certificates for NATS``.
        paths: The files.
        make: Makes it of the files, or raises `StartError`.

    Raises:
        StartError: The files cannot be used now, at the start.

    """

    def __init__(self, what: str, paths: Iterable[Path | None], make: Callable[[], T]) -> None:
        self._what = what
        self._paths = [path for path in paths if path is not None]
        self._make = make
        self._refused: str | None = None
        self._stamps = file_stamps(self._paths)
        #: What was made last.
        self.current = make()

    def look(self) -> T:
        """Return what is made of the files as they are now; of before, if they cannot be used.

        To be called before each use, such as a new connection. Files that cannot be used are tried again each time, as
        their mode may be what is wrong, and each reason is logged once.
        """
        stamps = file_stamps(self._paths)
        if stamps == self._stamps:
            return self.current
        try:
            fresh = self._make()
        except StartError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                _log.warning(f"the new {self._what} cannot be used, those of before stay", reason=self._refused)
            return self.current
        # The stamps are those of before the reading: what changed during it is seen next time.
        self.current, self._stamps, self._refused = fresh, stamps, None
        _log.info(f"the {self._what} were replaced", files=[str(path) for path in self._paths])
        return fresh
