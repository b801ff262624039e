"""The NATS subjects of one site (docs/bus.md, "NATS"). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.bus.messages import MEMBER_ID_BYTES

_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of the site of this name (`CLUSTER_NAME`)."""

    cluster: str

    def to_router(self, slot: int, member: bytes) -> str:
        """Return the subject of a member's messages to the router of a slot.

        Args:
            slot: The slot.
            member: The member's id.

        """
        return f"{self.cluster}.router.{slot}.{member.hex()}"

    def of_router(self, slot: int) -> str:
        """Return what the router of a slot subscribes to.

        Args:
            slot: The slot.

        """
        return f"{self.cluster}.router.{slot}.*"

    def to_member(self, slot: int, member: bytes) -> str:
        """Return the subject of the messages of a slot's router to one member.

        Args:
            slot: The slot.
            member: The member's id.

        """
        return f"{self.cluster}.member.{member.hex()}.{slot}"

    def to_members(self, slot: int) -> str:
        """Return the subject of the messages of a slot's router to all members.

        Args:
            slot: The slot.

        """
        return f"{self.cluster}.members.{slot}"

    def inbox(self) -> str:
        """Return the first parts of the subjects of replies of NATS itself."""
        return f"{self.cluster}.inbox"


def member_of(subject: str) -> bytes | None:
    """Return the id of the member that sent a message to the router.

    Args:
        subject: The subject of the message.

    Returns:
        The id; None where the last part of the subject is no member's id.

    """
    name = subject.rpartition(".")[2]
    if len(name) != 2 * MEMBER_ID_BYTES or not set(name) <= _HEX:
        return None
    return bytes.fromhex(name)
