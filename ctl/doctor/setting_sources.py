"""Where the settings come from: environment and .env, misspelled names, and lines of .env that are not read. Pure."""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable, Iterator, Mapping

from watchout.common.settings.misspelled import known_names, near_misses, notes
from watchout.ctl.doctor.findings import Finding, ok, warning
from watchout.ctl.terminal import printable

_weak = functools.partial(warning, "settings")


def judge_sources(environ: Mapping[str, str], dotenv: Mapping[str, str], dotenv_mode: int | None) -> Iterator[Finding]:
    """Yield where the settings come from, and variables that have no effect; names, never values.

    Args:
        environ: the environment of this command.
        dotenv: the variables of .env.
        dotenv_mode: mode of .env, None if there is none.
    """
    known = known_names()
    from_environ = sorted(name for name in known & environ.keys() if environ[name].strip())
    from_dotenv = sorted(name for name in (known & dotenv.keys()) - environ.keys() if dotenv[name].strip())
    sources = ((from_environ, "from the environment"), (from_dotenv, "from .env"))
    parts = [f"{', '.join(names)} {where}" for names, where in sources if names]
    text = f"Set are {'; '.join(parts)}." if parts else "Nothing is set: all settings have their defaults."
    yield ok("settings", text, environment=from_environ, dotenv=from_dotenv)
    hidden = sorted(name for name in known & dotenv.keys() & environ.keys() if environ[name] != dotenv[name])
    if hidden:
        yield _weak(
            f"{', '.join(hidden)} in .env: not used, the environment has another value.", "Remove one of the two."
        )
    for name, meant in near_misses(dotenv, from_environ):
        remedy = f"Is {meant} meant?" if meant else "See docs/settings.md."
        yield _weak(f"{printable(name)} in .env is not a setting.", remedy)
    for note in notes({**dict.fromkeys(from_dotenv, "x"), **environ}):
        yield _weak(f"Environment: {printable(note)}.", "Correct or remove it.")
    if dotenv_mode is not None and dotenv_mode & stat.S_IROTH:
        yield _weak(
            f".env has mode {dotenv_mode & 0o777:04o}: every user of this machine may read the secrets in it.",
            "chmod 600 .env",
        )


def judge_dotenv(text: str, parse: Callable[[str], Mapping[str, str]]) -> Iterator[Finding]:
    """Yield a warning for each line of .env that is not read, or read as another value than it seems to have.

    Args:
        text: the content of .env.
        parse: honcho's parser.
    """
    if text.startswith("\ufeff"):
        yield _weak(".env begins with a byte order mark: its first line is ignored.", "Save it as UTF-8 without one.")
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name, equals, raw = line.partition("=")
        name, raw = name.strip(), raw.strip()
        if not equals or name.removeprefix("export ").strip() not in known_names():
            continue
        if name.startswith("export "):
            yield _weak(f"Line {number} of .env begins with export: it is ignored.", "Remove that word.")
            continue
        try:
            found = parse(line).get(name)
        except ValueError:
            found = None
        if found is None and raw:
            yield _weak(f"Line {number} of .env, {name}, is ignored.", "Close its quotes.")
        elif raw and not {"'", '"'} & set(raw) and found != raw:
            yield _weak(
                f"{name} in .env is read as another value than it seems to have: # , spaces and backslashes have a "
                "meaning there.",
                "Put the value in single quotes.",
            )
