"""What the NATS servers deny the user of a process, in sentences: each kind of subject once. Pure."""

from __future__ import annotations

import re
from typing import Final

from watchout.common.bus.nats import sentences

#: Most kinds of subjects that are kept; more are not told.
MAX_KINDS: Final = 200
#: Ids of members and of inboxes, and keys of buckets: subjects that differ in them alone are of one kind.
_ID: Final = re.compile(r"(?<=\.)[0-9a-f]{16}(?=\.|$)")
_KEY: Final = re.compile(r"^(\$kv\.[^.]+)\..*$")


class Denials:
    """What is denied over the present connection; made by `NatsConnection`."""

    def __init__(self) -> None:
        self._sentences: dict[tuple[str, str], str] = {}

    def note(self, what: str, subject: str) -> str | None:
        """Note what is denied.

        Args:
            what: ``publish`` or ``subscription``.
            subject: The subject.

        Returns:
            The sentence for it; None: the kind is known, or too many are.

        """
        kind = what, _KEY.sub(r"\1.>", _ID.sub("*", subject.lower()))
        if kind in self._sentences or len(self._sentences) >= MAX_KINDS:
            return None
        made = self._sentences[kind] = sentences.permission(what, subject)
        return made

    def explain(self) -> str:
        """Return the first sentence; empty: nothing is denied."""
        return next(iter(self._sentences.values()), "")

    def clear(self) -> None:
        """Forget all: another connection begins."""
        self._sentences.clear()
