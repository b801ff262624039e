"""Combines look-ups of single keys into few queries of many keys each, with bounded waits and queues.

A look-up joins the query that is under way for its key. Keys that come while all queries are busy wait, and go
together in the next one; a key that no caller waits for any more is left out.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

from watchout.common import log
from watchout.common.errors import StoreUnavailable

_log = log.get("identity.coalescing")

T = TypeVar("T")

#: Keys in one query.
MAX_KEYS: Final = 500


class _Batch(Generic[T]):
    """The keys of one query of a `Coalescer`, with the number of callers waiting for each, and a future for the result.

    The result is the values that were found, or the `StoreUnavailable` to raise.
    """

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.started = False
        self.answer: asyncio.Future[Mapping[str, T] | StoreUnavailable] = asyncio.get_running_loop().create_future()


class Coalescer(Generic[T]):
    """Looks up values by key, many callers per query. Used by `Authenticator` for tokens, sessions and organizations.

    Args:
        fetch: Takes a list of keys and returns the values of those that it found; may raise `StoreUnavailable`. It
            is called with at most `MAX_KEYS` keys.
        workers: Most queries under way at the same time.
        timeout_s: How long a caller waits, in seconds, including the wait for a query.
        max_waiting: Most keys that wait for a query, besides those under way; a further one is refused at once.
    """

    def __init__(
        self,
        fetch: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        *,
        workers: int,
        timeout_s: float,
        max_waiting: int,
    ) -> None:
        self._fetch = fetch
        self._workers = workers
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting: deque[_Batch[T]] = deque()
        self._by_key: dict[str, _Batch[T]] = {}
        self._queries: set[asyncio.Task[None]] = set()
        self._n_waiting = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether all queries are busy, so that a new key would wait."""
        return len(self._queries) >= self._workers

    async def get(self, key: str) -> T | None:
        """Return the value of a key, or None when there is none.

        Raises:
            StoreUnavailable: The query failed, did not finish within `timeout_s`, or too many keys wait.
        """
        batch = self._by_key.get(key) or self._enter(key)
        batch.keys[key] += 1
        try:
            # Not `wait_for`: it would cancel the result of the other callers as well.
            await asyncio.wait({batch.answer}, timeout=self._timeout_s)
        finally:
            self._leave(batch, key)
        if not batch.answer.done():
            raise StoreUnavailable(f"no answer within {self._timeout_s:g} s")
        answer = batch.answer.result()
        if isinstance(answer, StoreUnavailable):
            raise StoreUnavailable(str(answer))
        return answer.get(key)

    async def close(self) -> None:
        """Cancel all queries. Callers that wait or follow get `StoreUnavailable`."""
        self._closed = True
        queries = list(self._queries)
        for query in queries:
            query.cancel()
        await asyncio.gather(*queries, return_exceptions=True)
        for batch in set(self._by_key.values()):
            self._finish(batch, StoreUnavailable("closed"))
        self._waiting.clear()

    def _enter(self, key: str) -> _Batch[T]:
        if self._closed:
            raise StoreUnavailable("closed")
        if self._n_waiting >= self._max_waiting:
            raise StoreUnavailable(f"{self._max_waiting} keys are waiting already")
        if not self._waiting or len(self._waiting[-1].keys) >= MAX_KEYS:
            self._waiting.append(_Batch())
            # In the next turn of the loop, so that look-ups of this turn share the query.
            asyncio.get_running_loop().call_soon(self._start)
        batch = self._waiting[-1]
        batch.keys[key] = 0
        self._by_key[key] = batch
        self._n_waiting += 1
        return batch

    def _leave(self, batch: _Batch[T], key: str) -> None:
        batch.keys[key] -= 1
        if not batch.keys[key] and not batch.started and not batch.answer.done():
            del batch.keys[key], self._by_key[key]
            self._n_waiting -= 1

    def _start(self) -> None:
        while self._waiting and len(self._queries) < self._workers:
            batch = self._waiting.popleft()
            if not batch.keys:
                continue
            batch.started = True
            self._n_waiting -= len(batch.keys)
            query = asyncio.create_task(self._query(batch), name="look up a batch")
            self._queries.add(query)
            query.add_done_callback(self._queried)

    def _queried(self, query: asyncio.Task[None]) -> None:
        self._queries.discard(query)
        if not self._closed:
            self._start()

    async def _query(self, batch: _Batch[T]) -> None:
        answer: Mapping[str, T] | StoreUnavailable
        try:
            answer = await self._fetch(list(batch.keys))
        except StoreUnavailable as exc:
            answer = exc
        except Exception as exc:
            # Without its text, which may hold a token.
            at = traceback.extract_tb(exc.__traceback__)[-1]
            _log.error("a look-up failed", error=type(exc).__name__, at=f"{at.filename}:{at.lineno}")
            answer = StoreUnavailable(f"the look-up failed: {type(exc).__name__}")
        self._finish(batch, answer)

    def _finish(self, batch: _Batch[T], answer: Mapping[str, T] | StoreUnavailable) -> None:
        for key in batch.keys:
            del self._by_key[key]
        batch.answer.set_result(answer)
