"""Reads secrets from files: `NAME_FILE` names a file with the value of the setting `NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from watchout.common.settings.table import table

SUFFIX: Final = "_FILE"
#: Size of the largest file that is read, in bytes.
MAX_BYTES: Final = 65_536


def secret_names() -> list[str]:
    """Return the names of the settings that may be in a file: those that are secret."""
    return [spec.env for _, spec, _ in table() if spec.secret]


def with_files(environ: Mapping[str, str]) -> tuple[Mapping[str, str], list[str]]:
    """Return an environment in which the contents of files are the values of their settings, and what is wrong.

    White space around the content does not count, such as the end of its last line. A setting whose file is at fault is
    not set in the result.

    Args:
        environ: variables by name. An empty ``NAME_FILE`` counts as not set.
    """
    values: dict[str, str] = {}
    faults: list[str] = []
    for name in secret_names():
        if not (path := environ.get(name + SUFFIX, "").strip()):
            continue
        values[name] = ""
        if environ.get(name, "").strip():
            faults.append(f"{name} and {name}{SUFFIX} are both set, expected one of them")
            continue
        try:
            values[name] = _content(Path(path))
        except _Unusable as exc:
            faults.append(f"{name}{SUFFIX} is {path[:200]!r}, expected {exc}")
    return {**environ, **values} if values else environ, faults


class _Unusable(Exception):
    """A file has no value that could be used; the text says what was expected."""


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise _Unusable(f"a file that can be read: {exc.strerror}") from None
    except ValueError:
        raise _Unusable("the path of a file") from None
    if len(data) > MAX_BYTES:
        raise _Unusable(f"a file of at most {MAX_BYTES} bytes")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise _Unusable("a text file in UTF-8") from None
    if not text:
        raise _Unusable("a file with the value: it is empty")
    return text
