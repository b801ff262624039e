"""Which streams a gateway that joined again has not reported yet. Pure.

After its greeting a gateway reports all publications and interests. What was known of it before and is not reported
by the end of this snapshot is gone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class UnconfirmedStreams:
    """The streams that a gateway had before it joined again, and that are not yet in its new snapshot; part of
    `Snapshots`.

    The ids are by kind: `publications` for its publishers, `interests` for its viewers.
    """

    publications: set[str]
    interests: set[str]


class Snapshots:
    """The gateways that have joined again and are reporting their whole state anew (their snapshot).

    Part of the registry (`Streams`): `begin` when a gateway joins, `confirm_…` for each stream that it reports, `end`
    with its `SnapshotEnd`. What it had before and did not report is returned by `end`, and the registry removes it.
    """

    def __init__(self) -> None:
        self._unconfirmed: dict[bytes, UnconfirmedStreams] = {}

    def __len__(self) -> int:
        return len(self._unconfirmed)

    def is_reporting(self, member: bytes) -> bool:
        """Return whether a member is reporting its state: between `begin` and `end`."""
        return member in self._unconfirmed

    def begin(self, member: bytes, publications: set[str], interests: set[str]) -> None:
        """Expect the member to report these streams again."""
        self._unconfirmed[member] = UnconfirmedStreams(publications, interests)

    def confirm_publication(self, member: bytes, name: str) -> bool:
        """Record that the member reported the publication of a stream. Return as `confirm_interest`."""
        unconfirmed = self._unconfirmed.get(member)
        if unconfirmed is None or name not in unconfirmed.publications:
            return False
        unconfirmed.publications.discard(name)
        return True

    def confirm_interest(self, member: bytes, name: str) -> bool:
        """Record that the member reported interest in a stream. Return whether it is the first time since it joined."""
        unconfirmed = self._unconfirmed.get(member)
        if unconfirmed is None or name not in unconfirmed.interests:
            return False
        unconfirmed.interests.discard(name)
        return True

    def end(self, member: bytes) -> UnconfirmedStreams:
        """Return the streams that the member did not report, and expect no more."""
        return self._unconfirmed.pop(member, None) or UnconfirmedStreams(set(), set())

    def forget(self, member: bytes) -> None:
        """Forget a member that is gone."""
        self._unconfirmed.pop(member, None)
