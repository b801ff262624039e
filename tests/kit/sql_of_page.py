"""The SQL of docs/better-auth.md, for tests that run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs/better-auth.md"


def sql_of_page(*names: str) -> str:
    """The SQL that stands under these marks, one after another."""
    page = PAGE.read_text()
    return "".join(re.findall(rf"<!-- {name} -->\n```sql\n(.*?)```", page, re.DOTALL)[0] for name in names)
