"""Variables of an environment that look like settings of watchout but are none: misspelled, or of other programs. Pure.

A misspelled setting has no effect: each process logs it when it starts, and `watchout-ctl doctor` reports it for .env
too. Variables that Kubernetes creates for the Services of a namespace are neither settings nor reported. Names are
shown, values never.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from watchout.common.settings import is_service_link, table
from watchout.common.settings.secret_files import SUFFIX, secret_names

#: Variables of watchout that are not in the table of settings.
MORE_SETTINGS: Final = ("PORT", "WATCHOUT_TOKEN")
#: Variables that processes of watchout pass to each other.
INTERNAL: Final = re.compile(r"WATCHOUT_(STARTER|KEEPER_\w+)\Z")
#: Variables with our prefix that only tests and benchmarks read.
OF_TESTS: Final = frozenset(("WATCHOUT_FOOTAGE", "WATCHOUT_KILLED_ALERTS", "WATCHOUT_OUTAGE_S", "WATCHOUT_SLOW_S"))
PREFIX: Final = "WATCHOUT_"
#: Variables that Kubernetes creates for a Service (kubernetes.io, "Discovering services").
_SERVICE: Final = re.compile(
    r"[A-Z0-9_]+?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d{1,5}_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)
#: Length in characters from which a name may differ in two characters; a shorter one may differ in one.
TWO_TYPOS_FROM: Final = 10
#: Longest name that is examined, in characters, and most names of one environment.
MAX_NAME: Final = 80
MAX_NAMES: Final = 10_000
#: Variables of other programs that differ in one or two characters from a setting.
FOREIGN: Final = frozenset(("SERVICE_NAME", "LOG_LEVELS", "JWT_SECRETS"))


def known_names() -> frozenset[str]:
    """Return every name that watchout reads from the environment."""
    of_files = (name + SUFFIX for name in secret_names())
    return frozenset((*(spec.env for _, spec, _ in table()), *of_files, *MORE_SETTINGS, *former_names()))


def former_names() -> dict[str, str]:
    """Return the present name by former name of each renamed setting."""
    return {spec.former_env: spec.env for _, spec, _ in table() if spec.former_env is not None}


def near_misses(environ: Mapping[str, str], elsewhere: Iterable[str] = ()) -> Iterator[tuple[str, str | None]]:
    """Yield each name that is probably a misspelled setting, with the intended setting or None.

    Args:
        environ: the variables to examine.
        elsewhere: names that another source sets. A setting that is set already is not the intended one, unless the
            name begins with `PREFIX`.
    """
    known = known_names()
    given = {name for name, value in environ.items() if value.strip()} | set(elsewhere)
    present = known - former_names().keys()
    free = sorted(present - given - set(MORE_SETTINGS))
    for name in sorted(environ)[:MAX_NAMES]:
        if name in known or len(name) > MAX_NAME or INTERNAL.match(name) or name in OF_TESTS or name in FOREIGN:
            continue
        if _SERVICE.match(name) or is_service_link(name, environ[name].strip()):
            continue
        if (meant := _meant(name, free)) is not None:
            yield name, meant
        elif name.upper().startswith(PREFIX):
            yield name, _meant(name, sorted(present - {"PORT"}))


def notes(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable without effect, for the log at the start of a process."""
    found = [
        f"{name} is not a setting and has no effect"
        + (f", probably {meant} is meant" if meant else " (docs/settings.md)")
        for name, meant in near_misses(environ)
    ]
    found += [
        f"{former} is the former name of {env}: rename it, the next release does not read it"
        for former, env in former_names().items()
        if environ.get(former, "").strip()
    ]
    for _, spec, _ in table():
        if is_service_link(spec.env, environ.get(spec.env, "").strip()):
            service = spec.env.removesuffix("_PORT").lower().replace("_", "-")
            found.append(
                f"{spec.env} was set by Kubernetes for a Service named {service}, and is ignored: set it to a "
                "number in the pod, or enableServiceLinks: false"
            )
    return found


def honcho_port_note(environ: Mapping[str, str]) -> str | None:
    """Return the sentence that a gateway logs because it ignores honcho's `PORT`; None if there is nothing to log."""
    port = environ.get("PORT", "").strip()
    ours = environ.get("WATCHOUT_PORT", "").strip()
    if "HONCHO_PROCESS_NAME" not in environ or not port or (ours and not is_service_link("WATCHOUT_PORT", ours)):
        return None
    if re.fullmatch(r"5\d\d\d", port):  # honcho's default, which the user did not set
        return None
    return "PORT is ignored under honcho, which sets another one for each process: set WATCHOUT_PORT"


def _meant(name: str, known: Iterable[str]) -> str | None:
    """Return the known setting that is nearest to `name`; None if none is near enough."""
    shape = name.strip().upper().replace("-", "_")
    bare = shape.removeprefix(PREFIX)
    best: tuple[int, str] | None = None
    for candidate in known:
        # The prefix does not count towards the length: the rest must be near by itself.
        target = candidate.removeprefix(PREFIX)
        most = 2 if len(target) >= TWO_TYPOS_FROM else 1
        left, right = (shape, candidate) if shape == bare else (bare, target)
        if left.endswith("Y") and right.endswith("IES"):  # a plural that was written in the singular
            left = f"{left[:-1]}IES"
        # A typo is rarely in the first letter; a name with another one is another program's (GLOG_LEVEL).
        if left[:1] != right[:1]:
            continue
        typos = distance(left, right, most)
        if typos <= most and (best is None or typos < best[0]):
            best = typos, candidate
    return None if best is None else best[1]


def distance(a: str, b: str, most: int) -> int:
    """Return the optimal string alignment distance of two words: insertions, deletions, replacements, swaps.

    Returns `most` + 1 for any larger distance.
    """
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        former, row, before = row, [i], row if i == 1 else before
        for j, right in enumerate(b, 1):
            cost = min(former[j] + 1, row[j - 1] + 1, former[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most and min(former) > most:
            return most + 1
        before = former
    return min(row[-1], most + 1)
