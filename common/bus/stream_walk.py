"""Asks the routers of all slots for their streams, a page at a time, so that no event loop stands still over many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import StreamPage, StreamRow, read_reply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.stream_pages import PageMerge
from watchout.common.errors import BusError, RouterUnavailable

#: Streams in one page: building, sending and reading them takes a few milliseconds at each end.
PAGE_ROWS: Final = 500


class StreamWalk:
    """One walk over the streams that have a publisher, of all slots, by stream id.

    A stream that has a publisher during the whole walk is in it once; one that comes or goes meanwhile may be.

    Args:
        links: The connections to the routers.
        coverage: Whether the rows have the coverage, in the place of what cameras say of themselves.
        here: Converts rows of a slot from its router's clock to the one here; None: they stay as they are.
    """

    def __init__(
        self,
        links: RouterLinks,
        *,
        coverage: bool = False,
        here: Callable[[list[StreamRow], BusClient], list[StreamRow]] | None = None,
    ) -> None:
        self._links = links
        self._coverage = coverage
        self._here = here
        self._missing: set[int] = set()

    @property
    def missing(self) -> tuple[int, ...]:
        """The slots that did not answer, or not to the end; complete after the last page."""
        return tuple(sorted(self._missing))

    async def pages(self) -> AsyncIterator[list[StreamRow]]:
        """Yield the rows in parts, which may be empty.

        Raises:
            RouterUnavailable: No router replies in time.
            BusError: With one slot: the reply is of another form, as from a router of another version.

        """
        merge = PageMerge(range(self._links.slots))
        while not merge.done:
            await self._ask(merge, merge.wanted())
            yield merge.take()

    async def _ask(self, merge: PageMerge, wanted: dict[int, str]) -> None:
        def query(link: BusClient, number: int) -> Query:
            return Query(
                request=number, what="streams", rows=PAGE_ROWS, after=wanted[link.slot], coverage=self._coverage
            )

        try:
            asked = await self._links.ask_all(query, object, slots=list(wanted))
        except RouterUnavailable:
            if len(wanted) == self._links.slots:
                raise
            self._give_up(merge, list(wanted))
            return
        self._give_up(merge, asked.missing)
        for slot, body in asked.by_slot.items():
            try:
                page = page_of(body)
            except BusError:
                if self._links.slots == 1:
                    raise
                self._give_up(merge, [slot])
                continue
            rows = page.rows if self._here is None else self._here(page.rows, self._links.at(slot))
            merge.add(slot, rows, more=page.more)

    def _give_up(self, merge: PageMerge, slots: Sequence[int]) -> None:
        self._missing.update(slots)
        for slot in slots:
            merge.end(slot)


def page_of(body: object) -> StreamPage:
    """Read the reply to ``streams``: a router that does not know of pages replies with all rows.

    Args:
        body: The body of the reply.

    Raises:
        BusError: It is neither.
    """
    return (
        StreamPage(rows=read_reply(body, list[StreamRow])) if isinstance(body, list) else read_reply(body, StreamPage)
    )
