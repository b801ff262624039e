"""What a backup holds, and what its list of contents says: allowed names, sizes and digests. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from watchout.common.home_files import EPOCH_FILE, KEPT_DATABASES, KEPT_DIRECTORIES, KEPT_KEYS

#: Grows when a backup of an older watchout's form cannot be read any more.
FORMAT: Final = 1
#: Name of the list, the first entry of the file.
CONTENTS_FILE: Final = "watchout-backup.json"
MAX_CONTENTS_BYTES: Final = 4 << 20
#: Most files of a backup: the keys of 1000 bridges, and room.
MAX_FILES: Final = 4_000
#: Largest key, certificate or other file that is no database, in bytes.
MAX_SMALL_BYTES: Final = 1 << 20
#: Largest copy of a database, in bytes.
MAX_DATABASE_BYTES: Final = 64 << 30

_PART: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.@-]{0,127}\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


class KeptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a backup: its path in the home, its size, and the SHA-256 of its content in hexadecimal digits."""

    name: str
    bytes: int
    sha256: str


class Contents(msgspec.Struct, frozen=True):
    """The list of contents of a backup.

    Attributes:
        format: `FORMAT` of the watchout that wrote it.
        version: Version of that watchout.
        made: When, as ISO 8601 in UTC.
        host: Name of its machine.
        home: Path of the home.
        files: What is in it, in this order.

    """

    format: int
    version: str
    made: str
    host: str
    home: str
    files: tuple[KeptFile, ...]


class _Form(msgspec.Struct, frozen=True):
    """The one field that every format has."""

    format: int


def read_contents(raw: bytes) -> Contents:
    """Return the list of contents of a backup.

    Args:
        raw: The entry `CONTENTS_FILE`.

    Raises:
        ValueError: It is none, is of a newer format, or names a file that no backup holds.

    """
    form = msgspec.json.decode(raw, type=_Form).format
    if form != FORMAT:
        raise ValueError(f"it has format {form}, and this watchout reads format {FORMAT}: install a newer one")
    contents = msgspec.json.decode(raw, type=Contents)
    names = [file.name for file in contents.files]
    if len(names) > MAX_FILES or len(set(names)) < len(names):
        raise ValueError(f"it lists {len(names)} files, expected at most {MAX_FILES}, each once")
    for file in contents.files:
        if not is_kept(file.name):
            raise ValueError(f"it lists {file.name[:200]!r}, which no backup of watchout holds")
        most = MAX_DATABASE_BYTES if file.name in KEPT_DATABASES else MAX_SMALL_BYTES
        if not 0 <= file.bytes <= most or not _DIGEST.match(file.sha256):
            raise ValueError(f"what it says of {file.name} cannot be")
    return contents


def is_kept(name: str) -> bool:
    """Return whether a backup may hold a file of this path in the home: one of ours, and nothing outside the home."""
    first, *further = name.split("/")
    if first not in KEPT_DIRECTORIES:
        return not further and first in (*KEPT_DATABASES, *KEPT_KEYS, EPOCH_FILE)
    return 1 <= len(further) <= 2 and all(_PART.match(part) for part in further)


def summary(contents: Contents) -> str:
    """Return in a few words what a backup holds, such as ``sessions.db, share.key, curve (3 files)``."""
    counts: dict[str, int] = {}
    for file in contents.files:
        first = file.name.split("/")[0]
        counts[first] = counts.get(first, 0) + 1
    return ", ".join(
        f"{name} ({count} {'file' if count == 1 else 'files'})" if name in KEPT_DIRECTORIES else name
        for name, count in counts.items()
    )
