"""When the published keys of an issuer are fetched, and for how long they are good."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity.jwks_kit import published
from watchout.identity.sources.key_cache import MAX_BACKOFF_S, REFETCH_S, STALE_S, TTL_S, KeyCache, KeyLookup, KeyMiss
from watchout.identity.sources.keys import KeySet, read_jwks


def key_set(*kids: str) -> KeySet:
    return read_jwks(published(*kids, keys={}))


def kids_of(verdict: KeyLookup | KeyMiss) -> list[str | None]:
    assert isinstance(verdict, KeyLookup)
    return [key.kid for key in verdict.keys]


@pytest.mark.parametrize("age_s", [None, 0.0, REFETCH_S, TTL_S - 0.1, TTL_S, STALE_S - 0.1, STALE_S, STALE_S + 1])
@pytest.mark.parametrize("failed_ago_s", [None, 0.5, 1.0, REFETCH_S])
def test_every_look_up(age_s: float | None, failed_ago_s: float | None) -> None:
    for kid, waited, under_way in itertools.product(["known", "unknown", None], [False, True], [False, True]):
        looked_up(age_s, failed_ago_s, kid, waited=waited, under_way=under_way)


def looked_up(
    age_s: float | None, failed_ago_s: float | None, kid: str | None, *, waited: bool, under_way: bool
) -> None:
    """Hold one look-up against the rules."""
    now, cache = 1e6, KeyCache()
    if age_s is not None:
        cache.fetch_started(now - age_s)
        cache.fetched(key_set("known", "other"), now - age_s)
    since_start = math.inf if age_s is None else age_s
    backing_off = False
    if failed_ago_s is not None and failed_ago_s <= since_start:
        cache.fetch_started(now - failed_ago_s)
        cache.failed(now - failed_ago_s)
        since_start, backing_off = failed_ago_s, failed_ago_s < 1.0
    if under_way:
        cache.fetch_started(now - 0.1)

    verdict = cache.look_up(kid, now, waited=waited)

    if age_s is None or age_s >= STALE_S:
        may_fetch = under_way or not backing_off
        assert verdict is (KeyMiss.FETCH if may_fetch and not waited else KeyMiss.UNAVAILABLE)
        assert not cache.usable(now)
    elif kid == "known":
        assert kids_of(verdict) == ["known"]
        assert isinstance(verdict, KeyLookup)
        assert verdict.refresh == (age_s >= TTL_S and not under_way and not backing_off)
        assert cache.usable(now)
    else:
        may_fetch = under_way or (since_start >= REFETCH_S and not backing_off)
        failed = failed_ago_s is not None and since_start == failed_ago_s
        refused = KeyMiss.UNAVAILABLE if failed else KeyMiss.UNKNOWN
        assert verdict is (KeyMiss.FETCH if may_fetch and not waited else refused)


def test_the_times_are_those_of_the_documentation() -> None:
    assert (TTL_S, REFETCH_S, STALE_S, MAX_BACKOFF_S) == (300, 10, 24 * 3600, 10)


def test_a_new_cache_fetches() -> None:
    cache = KeyCache()
    assert cache.look_up("a", 0.0) is KeyMiss.FETCH
    assert cache.look_up(None, 0.0) is KeyMiss.FETCH


def test_while_a_fetch_is_under_way_others_wait_for_it() -> None:
    cache = KeyCache()
    cache.fetch_started(0.0)
    assert cache.look_up("a", 0.1) is KeyMiss.FETCH
    assert cache.fetched(key_set("a"), 0.2)
    assert kids_of(cache.look_up("a", 0.2)) == ["a"]


def test_new_keys_replace_the_old_ones() -> None:
    cache = KeyCache()
    cache.fetch_started(0.0)
    assert cache.fetched(key_set("a", "b"), 0.0)
    assert kids_of(cache.look_up("a", 0.0)) == ["a"]
    assert cache.fetched(key_set("b", "c"), 1.0)
    assert cache.look_up("a", 1.0) is KeyMiss.UNKNOWN
    assert kids_of(cache.look_up("c", 1.0)) == ["c"]
    assert not cache.fetched(key_set("b", "c"), 2.0)
    assert cache.fetched(key_set(), 3.0)
    assert cache.look_up("c", 3.0) is KeyMiss.UNKNOWN


def test_each_failure_waits_twice_as_long_up_to_a_bound_and_a_success_forgives() -> None:
    cache, now = KeyCache(), 0.0
    waits = []
    for _ in range(30):
        cache.fetch_started(now)
        cache.failed(now)
        wait = next(w for w in itertools.count(0.5, 0.5) if cache.look_up("a", now + w) is KeyMiss.FETCH)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, *[MAX_BACKOFF_S] * 26]
    cache.fetched(key_set("a"), now)
    cache.failed(now + TTL_S)
    assert isinstance(verdict := cache.look_up("a", now + TTL_S + 1), KeyLookup)
    assert verdict.refresh


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.sampled_from(["known", "unknown", "fails", "succeeds", "rests for hours"])),
        max_size=80,
    )
)
def test_over_any_history_fetches_are_single_and_seldom(history: list[tuple[float, str]]) -> None:
    cache, now, under_way = KeyCache(), 0.0, False
    fetched_at: float | None = None
    started: list[tuple[float, bool]] = []
    for pause, event in history:
        now += pause
        match event:
            case "rests for hours":
                now += STALE_S / 4
            case "fails" if under_way:
                cache.failed(now)
                under_way = False
            case "succeeds" if under_way:
                cache.fetched(key_set("known"), now)
                under_way, fetched_at = False, now
            case "known" | "unknown":
                verdict = cache.look_up(event, now)
                usable = fetched_at is not None and now - fetched_at < STALE_S
                assert (event == "known" and usable) == isinstance(verdict, KeyLookup)
                wants = verdict is KeyMiss.FETCH or (isinstance(verdict, KeyLookup) and verdict.refresh)
                if isinstance(verdict, KeyLookup):
                    assert not (verdict.refresh and under_way)
                if wants and not under_way:
                    cache.fetch_started(now)
                    under_way = True
                    started.append((now, event == "unknown" and usable))
                assert cache.look_up(event, now, waited=True) is not KeyMiss.FETCH
    for (before, _), (at, for_unknown) in itertools.pairwise(started):
        assert at - before >= (REFETCH_S if for_unknown else 0)
