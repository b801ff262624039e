"""Which client of a rehearsal does what, and when."""

from __future__ import annotations

import itertools
import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from watchout.ctl.rehearse.plan import MAX_PROCESSES, Scenario, ViewerRole, make_plan, processes_for, share_out

counts = st.integers(0, 40)
scenarios = st.builds(
    lambda cameras, viewers, fps, seconds: Scenario(
        cameras=cameras, fps=fps, frame_bytes=30_000, viewers=dict(zip(ViewerRole, viewers, strict=True)), slow_fps=2.0,
        seconds=seconds,
    ),
    st.integers(1, 20), st.tuples(counts, counts, counts, counts), st.floats(0.1, 60), st.floats(0.5, 4000),
)  # fmt: skip


@given(scenarios, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_plan_follows_from_its_seed_and_has_who_was_asked_for(scenario: Scenario, tokens: int, seed: int) -> None:
    plan = make_plan(scenario, prefix="p", tokens=tokens, chance=random.Random(seed).random)
    assert plan == make_plan(scenario, prefix="p", tokens=tokens, chance=random.Random(seed).random)
    token_of = {camera.stream: camera.token for camera in plan.cameras}
    assert len(token_of) == scenario.cameras
    assert set(token_of.values()) <= set(range(tokens))
    for role in ViewerRole:
        viewers = [viewer for viewer in plan.viewers if viewer.role is role]
        assert len(viewers) == scenario.viewers[role]
        of_stream = [sum(viewer.stream == stream for viewer in viewers) for stream in token_of]
        assert max(of_stream) - min(of_stream) <= 1
        assert all(bool(viewer.on_s) == (role in (ViewerRole.FLAPPING, ViewerRole.HIDDEN)) for viewer in viewers)
    assert all(viewer.token == token_of[viewer.stream] for viewer in plan.viewers)
    assert all(0 <= each.begins_s <= scenario.seconds / 10 for each in (*plan.cameras, *plan.viewers))


@given(scenarios)
def test_spans_are_in_order_within_the_time_and_a_bounded_number(scenario: Scenario) -> None:
    plan = make_plan(scenario, prefix="p", tokens=1, chance=random.Random(1).random)
    for viewer in plan.viewers:
        spans = list(viewer.spans(plan.seconds))
        assert spans[0][0] == viewer.begins_s
        assert all(begin < end <= plan.seconds for begin, end in spans)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
        if not viewer.on_s:
            assert spans == [(viewer.begins_s, plan.seconds)]
        else:
            assert len(spans) <= plan.seconds / 2.5 + 1


@given(scenarios, st.integers(1, MAX_PROCESSES))
def test_every_client_is_in_one_process(scenario: Scenario, processes: int) -> None:
    plan = make_plan(scenario, prefix="p", tokens=2, chance=random.Random(1).random)
    parts = share_out(plan, processes)
    encode = msgspec.json.encode
    assert sorted(encode(each) for part in parts for each in part.cameras) == sorted(map(encode, plan.cameras))
    assert sorted(encode(each) for part in parts for each in part.viewers) == sorted(map(encode, plan.viewers))
    sizes = [len(part.cameras) + len(part.viewers) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert 1 <= processes_for(plan, 2) <= 4


def test_more_load_gets_more_processes() -> None:
    def processes(viewers: int, fps: float) -> int:
        scenario = Scenario(
            cameras=1, fps=fps, frame_bytes=1000, viewers={ViewerRole.STEADY: viewers}, slow_fps=1, seconds=1
        )
        return processes_for(make_plan(scenario, prefix="p", tokens=1, chance=lambda: 0.5), 64)

    assert [processes(10, 10.0), processes(150, 10.0), processes(1000, 1.0), processes(20_000, 60.0)] == [1, 2, 5, 16]
