"""What cameras say of themselves, at the router: the newest counts, and all of it is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.messages import MAX_CONTROL_BYTES
from watchout.router.streams.infos import MAX_BYTES, StreamInfos
from watchout.router.streams.stream import RouterStream

STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["ann", "bob", None]), st.integers(0, 60)), max_size=60
)


@given(STEPS)
def test_it_is_bounded_and_who_has_the_most_gives_way(steps: list[tuple[str, str | None, int]]) -> None:
    infos, streams = StreamInfos(max_bytes=100), {name: RouterStream(name) for name in "abcdef"}
    for name, user, size in steps:
        stream = streams[name]
        infos.remove(stream)  # as when its former publisher is gone
        stream.user = user
        before = {each.id: each.info for each in streams.values()}
        infos.put(stream, "x" * size)
        sizes: dict[str, int] = {}
        for each in streams.values():
            if each.info:
                assert each.user is not None
                sizes[each.user] = sizes.get(each.user, 0) + len(each.info)
            assert each is stream or each.info in ("", before[each.id])
        assert infos.size_bytes == sum(sizes.values()) <= 100
        if user is not None and size:
            assert stream.info or sum(map(len, before.values())) + size > 100


def test_a_user_with_many_does_not_drop_those_of_others() -> None:
    infos, quiet = StreamInfos(max_bytes=1000), RouterStream("quiet", user="bob")
    infos.put(quiet, "q" * 100)
    streams = [RouterStream(f"s{number}", user="ann") for number in range(100)]
    for stream in streams:
        infos.put(stream, "x" * 100)
    assert quiet.info
    assert [stream.id for stream in streams if stream.info] == [f"s{number}" for number in range(91, 100)]


def test_a_reply_with_every_stream_has_room_for_all_of_them() -> None:
    assert MAX_BYTES * 2 < MAX_CONTROL_BYTES


def test_a_stream_that_is_put_again_counts_once() -> None:
    infos, stream = StreamInfos(), RouterStream("door", user="ann")
    infos.put(stream, "first")
    infos.put(stream, "é")
    assert (stream.info, infos.size_bytes) == ("é", 2)
    infos.put(stream, "")
    assert (stream.info, infos.size_bytes) == ("", 0)
    infos.remove(stream)
