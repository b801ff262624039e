"""Server settings in a database URL: the search path, and what of ``options`` is sent to the server. Pure."""

from __future__ import annotations

import re
from typing import Final

from watchout.common.settings.database_url.model import InvalidDatabaseUrl

#: Server settings in ``options`` that change no result of a query: they are not sent.
_HARMLESS_SETTINGS: Final = re.compile(
    r"statement_timeout|lock_timeout|transaction_timeout|idle_.*_timeout|.*_mem|.*_cost|enable_.*|jit.*|timezone|"
    r"datestyle|intervalstyle|extra_float_digits|client_encoding|client_min_messages|log_.*|tcp_.*|geqo.*|"
    r"application_name|max_parallel_.*|bytea_output|lc_.*|synchronous_commit|plan_cache_mode",
    re.IGNORECASE,
)


def read_server_options(raw: str) -> tuple[tuple[str, ...], str]:
    """Return the search path in the option ``options``, and the rest of it that is sent to the server.

    Settings that change no result of a query are left out, so that the connection can go through a pooler, which
    refuses them. A backslash escapes a space, as in libpq.
    """
    if " " not in raw and re.match(r"-c\+|--\S+=\S*\+--?", raw):
        raw = raw.replace("+", " ")  # encoded as in a form; libpq does not read + as a space
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", raw)]
    search_path: tuple[str, ...] = ()
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            setting = words.pop(0)
        elif word.startswith(("-c", "--")) and len(word) > 2:
            setting = word[2:]
        else:
            kept.append(_escaped(word))
            continue
        name, _, value = setting.partition("=")
        name = name.replace("-", "_")
        if name.lower() == "search_path":
            search_path = read_schemas(value, "options")
        elif not _HARMLESS_SETTINGS.fullmatch(name):
            kept += [_escaped(word)] if word.startswith("--") else ["-c", _escaped(setting)]
    return search_path, " ".join(kept)


def _escaped(word: str) -> str:
    return re.sub(r"([\s\\])", r"\\\1", word)


def read_schemas(raw: str, option: str) -> tuple[str, ...]:
    """Return schemas separated by commas, as in ``search_path``: quoted ones unchanged, others in lower case.

    The single schema of Prisma (``schema``) and the list of JDBC (``currentSchema``) keep their case.
    Raises `InvalidDatabaseUrl` where none is found, or where one has a dot in its name.
    """
    found = [raw] if option == "schema" else []
    for quoted, plain in re.findall(r'"((?:[^"]|"")*)"|([^,"]+)', raw) if not found else ():
        if quoted:
            found.append(quoted.replace('""', '"'))
        elif plain.strip(" '"):
            found.append(plain.strip(" '").lower() if option != "currentSchema" else plain.strip())
    if not found or any("." in schema for schema in found):
        raise InvalidDatabaseUrl(f"schemas in {option}, separated by commas, none with a dot in its name")
    return tuple(found)
