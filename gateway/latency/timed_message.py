"""A message to clients of which the ledger learns when it was written: an alert. Pure."""

from __future__ import annotations

from typing import Self

from watchout.common.bus.messages import AlertStamps


class TimedMessage(bytes):
    """The bytes of an alert's message, with the stamps of its way so far. Made by `Delivery`.

    The socket that writes it tells the ledger; it may wait in queues like any message.

    Attributes:
        stream: id of the stream.
        stamps: by the clock of this host.
        is_fanned_out: it goes to one socket after the other just now; `Delivery` tells the ledger of several at once.
        written: to how many sockets it was written meanwhile, of which the ledger was not told yet.
    """

    stream: str
    stamps: AlertStamps
    is_fanned_out: bool
    written: int

    @classmethod
    def of(cls, message: bytes, stream: str, stamps: AlertStamps) -> Self:
        """Return the message with its stream and stamps."""
        made = cls(message)
        made.stream, made.stamps = stream, stamps
        made.is_fanned_out, made.written = False, 0
        return made
