"""Database URLs of PostgreSQL: every option of libpq and of other drivers is applied, ignored or refused by name.

None is sent to the server unknown. `OPTIONS` is the one table of them: the parser and docs/better-auth.md follow it.
"""

from __future__ import annotations

from watchout.common.settings.database_url.model import DatabaseUrl, Host, InvalidDatabaseUrl, Tls
from watchout.common.settings.database_url.options import OPTIONS, Option, OptionVerdict, render_markdown
from watchout.common.settings.database_url.parsing import is_postgres, parse
from watchout.common.settings.database_url.spelling import as_url

__all__ = [
    "OPTIONS",
    "DatabaseUrl",
    "Host",
    "InvalidDatabaseUrl",
    "Option",
    "OptionVerdict",
    "Tls",
    "as_url",
    "is_postgres",
    "parse",
    "render_markdown",
]
