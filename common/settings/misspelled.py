"""Variables of an environment that look like settings of watchout and are none: slips of the pen, and foreign ones.

A misspelled setting is silently not set: each process says so at its start, and `watchout-ctl doctor` for `.env` too.
Kubernetes makes variables for each Service of a namespace, which must be neither taken for a setting nor warned of.
Names are told, values never. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from watchout.common.settings import is_service_link, table

#: Variables of ours that are no entry of the table of settings.
MORE_SETTINGS: Final = ("PORT", "WATCHOUT_TOKEN")
#: What our own tools hand to each other; nobody sets them.
INTERNAL: Final = re.compile(r"WATCHOUT_(STARTER|KEEPER_\w+)\Z")
#: Variables with our prefix that tests and benchmarks read.
OF_TESTS: Final = frozenset(("WATCHOUT_FOOTAGE", "WATCHOUT_KILLED_ALERTS", "WATCHOUT_OUTAGE_S", "WATCHOUT_SLOW_S"))
PREFIX: Final = "WATCHOUT_"
#: What Kubernetes makes for a Service (kubernetes.io, "Discovering services", and Docker's links before it).
_SERVICE: Final = re.compile(
    r"[A-Z0-9_]+?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d{1,5}_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)
#: A name of at least so many characters may have two slips, a shorter one has one.
TWO_SLIPS_FROM: Final = 10
#: Longest name of a variable that is looked at, and most that are.
MAX_NAME: Final = 80
MAX_NAMES: Final = 10_000
#: Other programs' variables that are one or two characters away from one of ours.
FOREIGN: Final = frozenset(("SERVICE_NAME", "LOG_LEVELS", "JWT_SECRETS"))


def known_names() -> frozenset[str]:
    """Every name that is read from the environment."""
    return frozenset(spec.env for _, spec, _ in table()) | frozenset(MORE_SETTINGS)


def near_misses(environ: Mapping[str, str], elsewhere: Iterable[str] = ()) -> Iterator[tuple[str, str | None]]:
    """Each name that is probably a misspelled setting, with the setting that is meant, if one is near.

    `elsewhere` are names that are set in another source: a setting that is set is not meant by another name as well,
    unless that begins with our own prefix.
    """
    known = known_names()
    given = {name for name, value in environ.items() if value.strip()} | set(elsewhere)
    free = sorted(known - given - set(MORE_SETTINGS))
    for name in sorted(environ)[:MAX_NAMES]:
        if name in known or len(name) > MAX_NAME or INTERNAL.match(name) or name in OF_TESTS or name in FOREIGN:
            continue
        if _SERVICE.match(name) or is_service_link(name, environ[name].strip()):
            continue
        if (meant := _meant(name, free)) is not None:
            yield name, meant
        elif name.upper().startswith(PREFIX):
            yield name, _meant(name, sorted(known - {"PORT"}))


def notes(environ: Mapping[str, str]) -> list[str]:
    """What is to be said of an environment at the start of a process: one sentence each, names only."""
    found = [
        f"{name} is no setting and has no effect" + (f", {meant} is probably meant" if meant else " (docs/settings.md)")
        for name, meant in near_misses(environ)
    ]
    for _, spec, _ in table():
        if is_service_link(spec.env, environ.get(spec.env, "").strip()):
            service = spec.env.removesuffix("_PORT").lower().replace("_", "-")
            found.append(
                f"{spec.env} was made by Kubernetes for a Service named {service}, and is passed over: set it to a "
                "number in the pod, or enableServiceLinks: false"
            )
    return found


def honcho_port_note(environ: Mapping[str, str]) -> str | None:
    """What is to be said of honcho's `PORT` by a gateway that does not use it; None: nothing."""
    port = environ.get("PORT", "").strip()
    ours = environ.get("WATCHOUT_PORT", "").strip()
    if "HONCHO_PROCESS_NAME" not in environ or not port or (ours and not is_service_link("WATCHOUT_PORT", ours)):
        return None
    if re.fullmatch(r"5\d\d\d", port):  # honcho's own, when nobody asked for a port
        return None
    return "PORT is passed over under honcho, which hands each process another one: set WATCHOUT_PORT"


def _meant(name: str, known: Iterable[str]) -> str | None:
    """The setting of these that is nearest to `name`, if one is near enough."""
    shape = name.strip().upper().replace("-", "_")
    bare = shape.removeprefix(PREFIX)
    best: tuple[int, str] | None = None
    for candidate in known:
        # The prefix makes no word longer: what follows it must be near by itself.
        target = candidate.removeprefix(PREFIX)
        most = 2 if len(target) >= TWO_SLIPS_FROM else 1
        left, right = (shape, candidate) if shape == bare else (bare, target)
        if left.endswith("Y") and right.endswith("IES"):  # the plural of a name that was given in the singular
            left = f"{left[:-1]}IES"
        slips = distance(left, right, most)
        # Who types a name gets its first letter right; another one there is another program's variable (GLOG_LEVEL).
        if left[:1] == right[:1] and slips <= most and (best is None or slips < best[0]):
            best = slips, candidate
    return None if best is None else best[1]


def distance(a: str, b: str, most: int) -> int:
    """Slips between two words: a character more, less or other, or two exchanged; `most` + 1 when there are more."""
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
