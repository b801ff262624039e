"""A store of values by keys that all processes of a cluster share, as a Protocol. Pure.

A value is changed by compare-and-set: a write names the revision that it replaces, so of several writers one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

#: A store has to take values of so many bytes; the largest records of one key, as alerts that wait, need most of it.
MIN_VALUE_BYTES: Final = 60 << 10


class RevisionConflict(Exception):
    """The key has another revision than expected; the caller reads it, or gives up."""


class BucketUnavailable(Exception):
    """The store did not do what was asked, or its reply is missing: a write may have been made or not.

    The text says why; the caller tries again later.
    """


@dataclass(frozen=True, slots=True)
class BucketValue:
    """What a store has under a key. Of a key that never had a value the revision is 0, of a deleted one `data` None."""

    revision: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class BucketCopies:
    """How many servers have a copy of a bucket, how many are to have one, and why they are fewer; "": not known.

    `behind` are the servers that are there and whose copy is not up to date.
    """

    count: int
    wanted: int
    fault: str = ""
    behind: tuple[str, ...] = ()


class KeyValue(Protocol):
    """One bucket of the store; `common.bus.nats.kv` has the one of the product."""

    @property
    def max_value_bytes(self) -> int:
        """Largest value that can be written now, in bytes."""

    async def read(self, key: str) -> BucketValue:
        """Return what is stored under a key; possibly not the newest, when the store is cut in two.

        Args:
            key: The key.

        Raises:
            BucketUnavailable: It cannot be read now.
        """

    async def compare_and_set(self, key: str, value: bytes, expected: int) -> int:
        """Write a value if the key has this revision.

        Args:
            key: The key.
            value: The value.
            expected: The revision to replace, 0 for a key without one.

        Returns:
            The new revision.

        Raises:
            RevisionConflict: The key has another revision.
            BucketUnavailable: It is not known to be written.
        """

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix and a dot.

        Args:
            prefix: The beginning, without the dot.

        Raises:
            BucketUnavailable: They cannot be listed now.
        """

    async def is_led_here(self) -> bool:
        """Return whether the server that decides in the bucket runs on this machine, and this process uses it.

        Raises:
            BucketUnavailable: It is not known now: nobody decides, or the store cannot be asked.
        """

    async def servers(self) -> list[str]:
        """Return the names of the servers that have the bucket, first the one that decides in it.

        Returns:
            The names; none at all: no server decides now, or there is only one, without a cluster.

        Raises:
            BucketUnavailable: The store cannot be asked.
        """

    async def copies(self) -> BucketCopies:
        """Return how many servers have a copy.

        Raises:
            BucketUnavailable: The store cannot be asked.
        """

    async def add_copies(self) -> BucketCopies:
        """Give the bucket the copies that it lacks, as many as there are servers for.

        Returns:
            The copies then, with the reason where there are still too few.

        Raises:
            BucketUnavailable: The store cannot be asked.
        """

    async def move_leader(self, server: str) -> None:
        """Let another server decide in the bucket. Writes are not answered for a moment.

        Args:
            server: Its name, one of the further `servers`.

        Raises:
            BucketUnavailable: It refused, or did not answer.
        """


class Broadcast(Protocol):
    """Short messages between processes of one kind, of which none comes late and any may be lost."""

    def send(self, message: bytes) -> None:
        """Send a message to all others; it is lost when they cannot be reached now.

        Args:
            message: The message.
        """

    def close(self) -> None:
        """Receive nothing more."""


class ClusterLink(Protocol):
    """What the router processes of a cluster share, over one connection."""

    def bucket(self, name: str) -> KeyValue:
        """Return a bucket of the cluster, which is made when it is missing.

        Args:
            name: Last part of its name.
        """

    def broadcast(self, name: str, on_message: Callable[[bytes], None]) -> Broadcast:
        """Return a channel to all other processes that open it.

        Args:
            name: Its name.
            on_message: Called with each message of another process.
        """

    def close(self) -> None:
        """Give the connection back."""
