"""The shares of all streams: bounds, ends, and an index that agrees with what is there."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from watchout.router.shares.table import Shares, StreamShare


def share(number: int, stream: str = "cam", owner: str = "ann", ends_at: int = 1000) -> StreamShare:
    return StreamShare(id=f"{number:022d}", stream=stream, owner=owner, alerts=False, created_at=0, ends_at=ends_at)


def ids(shares: list[StreamShare]) -> list[int]:
    return [int(each.id) for each in shares]


def test_a_share_is_found_until_it_ends() -> None:
    shares = Shares(per_stream=9, per_user=9, total=9)
    assert shares.add(share(1, ends_at=100), 0) is None
    assert shares.get(share(1).id, 99) == share(1, ends_at=100)
    assert shares.get(share(1).id, 100) is None
    assert shares.of_stream("cam", "ann", 100) == []
    assert shares.prune(100) == [share(1).id]
    assert len(shares) == 0


def test_shares_are_those_of_a_stream_and_its_owner_in_the_order_of_making() -> None:
    shares = Shares(per_stream=9, per_user=9, total=9)
    for each in (share(3), share(1), share(2, stream="yard"), share(4, owner="bob")):
        assert shares.add(each, 0) is None
    assert ids(shares.of_stream("cam", "ann", 0)) == [3, 1]
    assert shares.end(share(3).id) == share(3)
    assert shares.end(share(3).id) is None
    assert ids(shares.of_stream("cam", "ann", 0)) == [1]


def test_a_bound_refuses_the_newest_and_says_which_bound_it_is() -> None:
    shares = Shares(per_stream=2, per_user=3, total=4)
    assert [shares.add(share(n), 0) for n in (1, 2)] == [None, None]
    assert "2 shares, the most of one stream" in (shares.add(share(3), 0) or "")
    assert shares.add(share(4, stream="yard"), 0) is None
    assert "3 shares, the most of one user" in (shares.add(share(5, stream="yard"), 0) or "")
    assert shares.add(share(6, stream="x", owner="bob"), 0) is None
    assert "4 shares of all users" in (shares.add(share(7, stream="x", owner="eve"), 0) or "")
    assert shares.add(share(1), 0) is None, "one that is there is no new one"
    assert len(shares) == 4
    assert shares.add(share(8, ends_at=5000), 1000) is None, "what has ended counts no more"


def test_a_smaller_bound_takes_no_share_away_that_a_former_router_had() -> None:
    shares = Shares(per_stream=1, per_user=1, total=1)
    shares.restore([share(1), share(2)])
    assert ids(shares.of_stream("cam", "ann", 0)) == [1, 2]
    assert shares.add(share(3), 0) is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "end", "prune"]), st.integers(0, 30), st.sampled_from("ab"), st.integers(1, 50)
        )
    )
)
def test_whatever_happens_the_bounds_hold_and_the_counts_agree(steps: list[tuple[str, int, str, int]]) -> None:
    shares = Shares(per_stream=3, per_user=5, total=8)
    for now, (what, number, name, ends_at) in enumerate(steps):
        if what == "add":
            shares.add(share(number, stream=f"s{number % 4}", owner=name, ends_at=ends_at), now)
        elif what == "end":
            shares.end(share(number).id)
        else:
            shares.prune(now)
        everything = list(shares._all.values())
        assert len(everything) <= 8
        assert max(Counter(each.stream for each in everything).values(), default=0) <= 3
        assert shares._of_owner == Counter(each.owner for each in everything)
        assert sum(map(len, shares._of_stream.values())) == len(everything)
