"""The incidents that a process remembers: a ring that is bounded in entries, bytes and age, in total and per subject.

Pure. Who gives way: of one subject and kind the oldest, so that thousands of drops do not push out why a camera was
closed; in total the oldest of the kind that takes the most bytes, so that a storm of refused handshakes pushes out
refused handshakes. What is older than its time is forgotten.

Of ended connections and refused handshakes (`SUMMED`) that give way for others of their subject, one incident keeps the
sum of those that are alike but for the connection: how they ended and their numbers are still known then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Final

import msgspec

from watchout.common.settings import Settings
from watchout.common.why.incident import Incident, IncidentKind

#: Default bounds: all incidents, their bytes, their age, and those of one subject and kind.
MAX_BYTES: Final = 16 << 20
MAX_ENTRIES: Final = 10_000
MAX_PER_SUBJECT: Final = 100
KEPT_S: Final = 3600.0
#: Kinds of which those that give way for others of their subject are summed up. As many sums of one subject and kind
#: are kept as incidents.
SUMMED: Final = frozenset({IncidentKind.CLOSED, IncidentKind.REFUSED})
_SUM: Final = " summed"
#: Events of one `joins` within this time, in ms since the first, are one incident.
JOINED_MS: Final = 60_000
#: Names that `known` looks at, at most.
MAX_KNOWN: Final = 1_000
#: Subjects of which it is known until when their own incidents gave way; past it the oldest counts for all subjects.
MAX_LOST: Final = 1_000


class IncidentMemory:
    """What one process remembers for `watchout-ctl why`. It survives nothing but the process.

    Args:
        max_bytes: Most bytes of all incidents; 0: nothing is remembered.
        keep_s: Age at which an incident is forgotten, in seconds.
        max_entries: Most incidents.
        per_subject: Most incidents of one subject and kind, and most sums of earlier ones.

    Attributes:
        bytes: Memory that the incidents take, about.
        evicted: Incidents that gave way before their time.
        evicted_until: Time of the newest of them, in ms since the epoch: what is older may be missing.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        keep_s: float = KEPT_S,
        max_entries: int = MAX_ENTRIES,
        per_subject: int = MAX_PER_SUBJECT,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._per_subject = per_subject
        self.keep_ms = int(keep_s * 1000)
        self.bytes = self.evicted = self.evicted_until = 0
        #: By kind: the time of the newest incident that gave way and is in no sum, in ms since the epoch.
        self._lost_until: dict[str, int] = {}
        #: The same for those that gave way in total, and by subject for those that gave way for others of a subject.
        self._lost_in_total = 0
        self._lost_of: OrderedDict[str, int] = OrderedDict()
        self._next = 0
        self._entries: dict[int, Incident] = {}
        #: By kind: the numbers of its incidents, oldest first, and their bytes.
        self._by_kind: dict[str, OrderedDict[int, None]] = {}
        self._kind_bytes: dict[str, int] = {}
        #: By subject, the one with the latest incident last: by kind, the numbers of the incidents.
        self._by_subject: OrderedDict[str, dict[str, OrderedDict[int, None]]] = OrderedDict()
        #: The incident that a further event of the same kind is added to, and the other way round.
        self._joins: dict[Hashable, int] = {}
        self._join_of: dict[int, Hashable] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, incident: Incident, joins: Hashable = None) -> None:
        """Remember an incident.

        Args:
            incident: The incident, not older than those before by more than clocks go back.
            joins: Events with the same value within `JOINED_MS` are one incident, with their numbers added up; None:
                it is one by itself.
        """
        if not self._max_bytes:
            return
        self._forget_old(incident.at)
        if joins is not None and (number := self._joins.get(joins)) is not None:
            before = self._entries[number]
            if 0 <= incident.at - before.at < JOINED_MS:
                self._replace(number, before.joined(incident))
                return
            del self._join_of[number]
        self._next = number = self._next + 1
        if joins is not None:
            self._joins[joins], self._join_of[number] = number, joins
        self._enter(number, incident)
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            kind = max(self._kind_bytes, key=self._kind_bytes.__getitem__)
            number = next(iter(self._by_kind[kind]))
            self._lost_in_total = max(self._lost_in_total, self._entries[number].end)
            self._evict(number)

    def about(self, subject: str, now_ms: int) -> list[Incident]:
        """Return the incidents of a subject, oldest first.

        Args:
            subject: A stream, user, connection, alert or address.
            now_ms: The present time, in ms since the epoch.
        """
        self._forget_old(now_ms)
        found = [number for kind in self._by_subject.get(subject, {}).values() for number in kind]
        return sorted((self._entries[number] for number in found), key=lambda each: each.at)

    def of_everybody(self, now_ms: int) -> list[Incident]:
        """Return the incidents without a subject, which concern every client of the process, oldest first.

        Args:
            now_ms: The present time, in ms since the epoch.
        """
        return self.about("", now_ms)

    def known(self, now_ms: int) -> list[str]:
        """Return subjects, the one with the latest incident first, at most `MAX_KNOWN`.

        Args:
            now_ms: The present time, in ms since the epoch.
        """
        self._forget_old(now_ms)
        return [name for name in islice(reversed(self._by_subject), MAX_KNOWN) if name]

    def since(self, started_ms: int, now_ms: int, kind: IncidentKind | None = None, about: str | None = None) -> int:
        """Return since when nothing is missing, in ms since the epoch.

        Args:
            started_ms: When the process started.
            now_ms: The present time.
            kind: Of which kind, whose sums count as known; None: of all.
            about: Of which subject; None: of all.
        """
        lost_until = self.evicted_until if kind is None else self._lost_until.get(kind, 0)
        if about is not None:
            lost_until = max(self._lost_in_total, *(self._lost_of.get(subject, 0) for subject in (about, "")))
        return max(started_ms, now_ms - self.keep_ms, lost_until)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, number: int, incident: Incident) -> None:
        self._entries[number] = incident
        kind = _listed_as(incident)
        self._count(kind, incident.size_bytes)
        self._by_kind.setdefault(kind, OrderedDict())[number] = None
        give_way: dict[int, None] = {}
        for subject in _subjects_of(incident):
            kinds = self._by_subject.get(subject)
            if kinds is None:
                kinds = self._by_subject[subject] = {}
            else:
                self._by_subject.move_to_end(subject)
            of_kind = kinds.setdefault(kind, OrderedDict())
            of_kind[number] = None
            if len(of_kind) > self._per_subject:
                give_way[next(iter(of_kind))] = None
        for each in give_way:
            if each in self._entries:
                self._give_way(each)

    def _give_way(self, number: int) -> None:
        """Take an incident out for a newer one of its subject and kind, into the sum of those like it."""
        incident = self._entries[number]
        if incident.what not in SUMMED or incident.summed:
            self._note_lost(incident)
            self._evict(number)
            return
        self._remove(number)
        one = msgspec.structs.replace(incident, connection="", summed=True)
        alike = (_SUM, one.what, one.streams, one.user, one.address, one.code, one.reason, one.by)
        if (known := self._joins.get(alike)) is not None:
            self._replace(known, self._entries[known].joined(one))
            self._by_kind[_listed_as(one)].move_to_end(known)  # it is as new as the newest in it
            return
        self._next = made = self._next + 1
        self._joins[alike], self._join_of[made] = made, alike
        self._enter(made, one)

    def _replace(self, number: int, incident: Incident) -> None:
        self._count(_listed_as(incident), incident.size_bytes - self._entries[number].size_bytes)
        self._entries[number] = incident
        for subject in _subjects_of(incident):
            self._by_subject.move_to_end(subject)

    def _count(self, kind: str, size_bytes: int) -> None:
        self.bytes += size_bytes
        self._kind_bytes[kind] = self._kind_bytes.get(kind, 0) + size_bytes

    def _note_lost(self, incident: Incident) -> None:
        """Note that an incident gives way for others of one of its subjects: all of them lose it."""
        for subject in _subjects_of(incident):
            self._lost_of[subject] = max(self._lost_of.pop(subject, 0), incident.end)
        while len(self._lost_of) > MAX_LOST:
            self._lost_in_total = max(self._lost_in_total, self._lost_of.popitem(last=False)[1])

    def _evict(self, number: int) -> None:
        self.evicted += 1
        what, end = self._entries[number].what, self._entries[number].end
        self.evicted_until = max(self.evicted_until, end)
        self._lost_until[what] = max(self._lost_until.get(what, 0), end)
        self._remove(number)

    def _remove(self, number: int) -> None:
        incident = self._entries.pop(number)
        kind = _listed_as(incident)
        self._count(kind, -incident.size_bytes)
        numbers = self._by_kind[kind]
        del numbers[number]
        if not numbers:
            del self._by_kind[kind], self._kind_bytes[kind]
        for subject in _subjects_of(incident):
            kinds = self._by_subject[subject]
            del kinds[kind][number]
            if not kinds[kind]:
                del kinds[kind]
            if not kinds:
                del self._by_subject[subject]
        if (joins := self._join_of.pop(number, None)) is not None:
            del self._joins[joins]

    def _forget_old(self, now_ms: int) -> None:
        for numbers in list(self._by_kind.values()):
            while numbers and self._entries[number := next(iter(numbers))].end < now_ms - self.keep_ms:
                self._remove(number)


def memory_of(settings: Settings) -> IncidentMemory:
    """Return an empty memory with the bounds of the settings."""
    kept = settings.why_minutes * 60
    return IncidentMemory(max_bytes=settings.why_bytes if kept else 0, keep_s=kept)


def _listed_as(incident: Incident) -> str:
    """Return the kind under which an incident is listed: sums are one apart."""
    return incident.what + _SUM if incident.summed else incident.what


def _subjects_of(incident: Incident) -> Iterator[str]:
    """Yield the subjects under which an incident is entered; the empty one if it has none."""
    first = True
    for subject in incident.subjects():
        first = False
        yield subject
    if first:
        yield ""
