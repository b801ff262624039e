"""Reads the settings of a process: its environment, and the files of `SETTINGS_FILES`, which a reload reads again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from watchout.common.errors import SettingsError
from watchout.common.settings.loading import load
from watchout.common.settings.parsers import split_list
from watchout.common.settings.table import Settings

NAME: Final = "SETTINGS_FILES"
#: Size of the largest file that is read, in bytes.
MAX_BYTES: Final = 1 << 20


class SettingsSource:
    """Where one process has its settings from; `common.service` makes one at the start, and reads it at each reload.

    A value of a file takes precedence over one of the environment, and of two files that of the later one. What a file
    has had, and has no more, is not set: also when it is in the environment, into which systemd and honcho have copied
    the files at the start.

    Args:
        environ: The environment.
        given: Settings given on the command line, which take precedence.
    """

    def __init__(self, environ: Mapping[str, str], given: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._given = dict(given)
        listed = self._given.get(NAME) or self._environ.get(NAME, "")
        #: Path and whether the file may be missing.
        self._files = [(Path(item.removeprefix("-")).absolute(), item.startswith("-")) for item in split_list(listed)]
        self._of_files: set[str] = set()

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return [path for path, _ in self._files]

    def environ(self) -> dict[str, str]:
        """Read the files; return the variables with their values. Raises `SettingsError`."""
        values: dict[str, str] = {}
        faults: list[str] = []
        for path, optional in self._files:
            try:
                values.update(_read(path))
            except FileNotFoundError:
                if not optional:
                    faults.append(f"{NAME} has {path}, expected a file that exists, or - before its name")
            except (OSError, ValueError) as exc:
                faults.append(f"{NAME} has {path}, expected a text file with NAME=VALUE in each line: {_reason(exc)}")
        if faults:
            raise SettingsError(faults)
        self._of_files.update(values)
        base = {name: value for name, value in self._environ.items() if name not in self._of_files}
        return {**base, **values, **self._given}

    def read(self) -> Settings:
        """Read and check all settings anew. Raises `SettingsError` with all that is wrong."""
        return load(self.environ())


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _read(path: Path) -> dict[str, str]:
    """Return the variables of a file, read as honcho reads ``.env``. Raises `OSError`, `ValueError`."""
    from honcho.environ import parse

    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    found: dict[str, str] = parse(data.decode())
    return found
